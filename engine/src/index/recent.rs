//! The ids of the newest events, in memory: says for sure that one is new, without a look at any segment.
//!
//! Two Bloom filters in blocks of a cache line: one takes what is appended, the other holds what was before. When the first has
//! a window of ids, it becomes the second. A look touches two cache lines; what seems to be known is looked for where it is kept.

use crate::prefetch::fetch_item;

/// Ids of a block, at the most on average: one new id in some ten thousand seems to be known. Each that does sends its append
/// to a thread that may wait.
const IDS_PER_BLOCK: usize = 16;
const BLOCK_WORDS: usize = 8;
const BLOCK_BITS: u64 = 512;
const PROBES: u32 = 6;

/// A cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Block([u64; BLOCK_WORDS]);

/// One of the filters.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    blocks: Vec<Block>,
    count: usize,
}

impl Generation {
    /// With room for so many ids; more make more new ones seem known.
    pub(crate) fn with_capacity(ids: usize) -> Self {
        Self { blocks: vec![Block::default(); ids.div_ceil(IDS_PER_BLOCK).max(1)], count: 0 }
    }

    /// The block of an id, of whose hash this is half, and what says which bits are its own.
    fn place(&self, half: u32) -> (usize, u64) {
        let block = crate::format::to_usize((u64::from(half) * self.blocks.len() as u64) >> 32);
        (block, (u64::from(half) | 1 << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn bits(mixed: u64) -> impl Iterator<Item = (usize, u64)> {
        (0..PROBES).map(move |probe| {
            let bit = (mixed >> (10 * probe)) % BLOCK_BITS;
            (crate::format::to_usize(bit / 64), 1 << (bit % 64))
        })
    }

    pub(crate) fn add(&mut self, half: u32) {
        let (block, mixed) = self.place(half);
        Self::bits(mixed).for_each(|(word, bit)| self.blocks[block].0[word] |= bit);
        self.count += 1;
    }

    fn may_hold(&self, half: u32) -> bool {
        let Some(last) = self.blocks.len().checked_sub(1) else { return false };
        let (block, mixed) = self.place(half);
        let block = &self.blocks[block.min(last)];
        Self::bits(mixed).all(|(word, bit)| block.0[word] & bit != 0)
    }

    /// Asks for the memory that a look will touch.
    fn fetch(&self, half: u32) {
        if !self.blocks.is_empty() {
            fetch_item(&self.blocks, self.place(half).0);
        }
    }

    fn clear(&mut self) {
        self.blocks.fill(Block::default());
        self.count = 0;
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RecentIds {
    /// Ids of all events from this position on are here; [`u64::MAX`]: none are.
    from: u64,
    older: Generation,
    newer: Generation,
    /// The first position whose id is in `newer`.
    newer_from: u64,
    /// Ids of one generation.
    window: usize,
}

impl Default for RecentIds {
    fn default() -> Self {
        Self {
            from: u64::MAX,
            older: Generation::default(),
            newer: Generation::default(),
            newer_from: 0,
            window: 0,
        }
    }
}

impl RecentIds {
    /// With all events from a position on: those before `newer_from` are in `older`, those from there on in `newer`, where
    /// the next ones come, too.
    pub(crate) fn new(
        from: u64,
        older: Generation,
        newer: Generation,
        newer_from: u64,
        window: usize,
    ) -> Self {
        Self { from, older, newer, newer_from, window }
    }

    /// Whether the ids of all events from this position on are here.
    pub(crate) fn covers(&self, from: u64) -> bool {
        self.from <= from
    }

    /// Notes the id of the event at a position, which is the next one.
    pub(crate) fn push(&mut self, half: u32, position: u64) {
        if self.from == u64::MAX {
            return;
        }
        if self.newer.count >= self.window {
            std::mem::swap(&mut self.older, &mut self.newer);
            if self.newer.blocks.len() == self.older.blocks.len() {
                self.newer.clear();
            } else {
                self.newer = Generation::with_capacity(self.window);
            }
            (self.from, self.newer_from) = (self.newer_from, position);
        }
        self.newer.add(half);
    }

    /// Asks for the memory that looking for an id will touch.
    pub(crate) fn fetch(&self, half: u32) {
        self.older.fetch(half);
        self.newer.fetch(half);
    }

    /// Whether one of the events may have this id; `false` is certain.
    pub(crate) fn may_hold(&self, half: u32) -> bool {
        self.newer.may_hold(half) || self.older.may_hold(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(number: u64) -> u32 {
        crate::format::upper_half(number.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    #[test]
    fn what_is_in_the_window_is_never_new_and_little_else_seems_known() {
        const WINDOW: u64 = 10_000;
        let mut older = Generation::with_capacity(100);
        (0..100).for_each(|number| older.add(half(number)));
        let mut recent = RecentIds::new(0, older, Generation::with_capacity(10_000), 100, 10_000);
        for position in 100..5 * WINDOW {
            recent.push(half(position), position);
            let from = (position + 1).saturating_sub(WINDOW);
            assert!(recent.covers(from), "{position}");
            for known in [from, position, from + (position * 7) % (position + 1 - from)] {
                assert!(recent.may_hold(half(known)), "{known} at {position}");
            }
        }
        let wrong = (1_000_000..1_100_000).filter(|&number| recent.may_hold(half(number))).count();
        assert!(wrong < 50, "{wrong} of 100,000 new ids seem known");
        assert!(!recent.covers(0));
    }

    #[test]
    fn before_it_is_filled_it_says_nothing() {
        let mut recent = RecentIds::default();
        recent.push(1, 0);
        assert!(!recent.covers(u64::MAX - 1) && !recent.may_hold(1));
    }
}
