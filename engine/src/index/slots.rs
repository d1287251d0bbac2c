//! Slots: from a hash to the numbers of entries that are kept elsewhere. A look-up reads one cache line here.
//!
//! Open addressing with linear probing, one word a slot: half the (mixed) hash and the number. Moving a slot needs
//! nothing but the slot, so growing and removing never touch the entries.

use super::whereabouts::Whereabouts;

/// Slots at the least, once there are any.
const SLOTS_MIN: usize = 64;
/// Full slots of sixteen, at the most: with more, look-ups walk.
const FULL_OF_16: usize = 10;
/// Numbers are less than this, so that no full slot is zero.
const NUMBER_END: u32 = u32::MAX;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Zero: empty; else the half in the upper half and the number plus one in the lower.
    slots: Vec<u64>,
    len: usize,
}

pub(crate) use crate::format::key::half;

fn half_of(slot: u64) -> u32 {
    crate::format::upper_half(slot)
}

fn number_of(slot: u64) -> u32 {
    crate::format::lower_half(slot) - 1
}

/// Where a half's search begins among two to the power of `bits` slots: at its uppermost bits.
pub(crate) fn home(half: u32, bits: u32) -> usize {
    crate::format::to_usize((u64::from(half) << bits) >> 32)
}

fn slot_of(half: u32, number: u32) -> u64 {
    assert!(number < NUMBER_END, "fewer than 2^32 - 1 entries");
    (u64::from(half) << 32) | u64::from(number + 1)
}

impl Slots {
    /// Forgets everything and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(0);
        self.len = 0;
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<u64>()
    }

    fn home(&self, half: u32) -> usize {
        home(half, self.slots.len().checked_ilog2().unwrap_or(0))
    }

    /// Tells where the slots are.
    pub(crate) fn tell(&self, whereabouts: &Whereabouts) {
        whereabouts.tell(&self.slots);
    }

    /// Every entry: its half and its number.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, u32)> {
        self.slots.iter().filter(|&&slot| slot != 0).map(|&slot| (half_of(slot), number_of(slot)))
    }

    /// Numbers whose entries may have this hash, before an empty slot.
    pub(crate) fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let (half, mut at) = (half(hash), self.home(half(hash)));
        std::iter::from_fn(move || {
            loop {
                let slot = self.slots.get(at).copied().filter(|&slot| slot != 0)?;
                at = self.after(at);
                if half_of(slot) == half {
                    return Some(number_of(slot));
                }
            }
        })
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// The place of the first slot from the hash's home on that `wanted` holds for, before an empty one.
    fn search(&self, hash: u64, mut wanted: impl FnMut(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let half = half(hash);
        let mut at = self.home(half);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if half_of(slot) == half && wanted(number_of(slot)) {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    /// The number of an entry with this hash that is the `wanted` one.
    pub(crate) fn find(&self, hash: u64, wanted: impl FnMut(u32) -> bool) -> Option<u32> {
        self.search(hash, wanted).map(|at| number_of(self.slots[at]))
    }

    /// Adds a number, which is not here.
    pub(crate) fn insert(&mut self, hash: u64, number: u32) {
        if (self.len + 1) * 16 > self.slots.len() * FULL_OF_16 {
            self.grow();
        }
        self.put(slot_of(half(hash), number));
        self.len += 1;
    }

    fn put(&mut self, slot: u64) {
        let mut at = self.home(half_of(slot));
        while self.slots[at] != 0 {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        let before = std::mem::replace(&mut self.slots, vec![0; slots]);
        before.into_iter().filter(|&slot| slot != 0).for_each(|slot| self.put(slot));
    }

    /// Gives an entry another number.
    pub(crate) fn renumber(&mut self, hash: u64, number: u32, other: u32) {
        let at = self.search(hash, |found| found == number).expect("the entry is here");
        self.slots[at] = slot_of(half(hash), other);
    }

    /// Removes a number, and closes the gap that it leaves.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        let mut gap = self.search(hash, |found| found == number).expect("the entry is here");
        self.len -= 1;
        let mut at = gap;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            // It may move into the gap unless its home lies behind the gap, up to where it is.
            let mask = self.slots.len() - 1;
            let from_home = at.wrapping_sub(self.home(half_of(slot))) & mask;
            if from_home >= (at.wrapping_sub(gap) & mask) {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Remove(prop::sample::Index),
        Renumber(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few different hashes, so that they collide and runs of slots meet and wrap.
        let hash = prop_oneof![0..16_u64, Just(u64::MAX), any::<u64>()];
        prop_oneof![
            4 => hash.prop_map(Step::Insert),
            2 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => any::<prop::sample::Index>().prop_map(Step::Renumber),
        ]
    }

    proptest! {
        #[test]
        fn slots_hold_what_a_map_holds(steps in prop::collection::vec(step(), 0..600)) {
            let mut slots = Slots::default();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut next = 0;
            for step in steps {
                let chosen = |index: prop::sample::Index| {
                    model.iter().nth(index.index(model.len().max(1))).map(|(&number, &hash)| (number, hash))
                };
                match step {
                    Step::Insert(hash) => {
                        slots.insert(hash, next);
                        model.insert(next, hash);
                        next += 1;
                    }
                    Step::Remove(index) => {
                        if let Some((number, hash)) = chosen(index) {
                            slots.remove(hash, number);
                            model.remove(&number);
                        }
                    }
                    Step::Renumber(index) => {
                        if let Some((number, hash)) = chosen(index) {
                            slots.renumber(hash, number, next);
                            model.remove(&number);
                            model.insert(next, hash);
                            next += 1;
                        }
                    }
                }
                prop_assert_eq!(slots.len(), model.len());
            }
            for number in 0..next {
                let hash = model.get(&number).copied();
                let found = slots.find(hash.unwrap_or(0), |found| found == number);
                prop_assert_eq!(found.is_some(), hash.is_some());
            }
        }
    }
}
