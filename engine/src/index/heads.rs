//! Heads of streams: of all that have events in unsealed segments, and of those used last beside them.
//!
//! What is not here has its last event, if any, at or below the *floor*: the greatest position that was ever
//! forgotten, or that was never loaded. Without a floor, what is not here is nowhere.
//!
//! Records lie one behind the other in chunks, oldest first. Room is made at the old end, a few records at a time:
//! one that was used since it was looked at last, or that has to stay, goes to the new end; the others are forgotten.

use super::lists::ListNumber as StreamNumber;
use super::slots::Slots;
use super::whereabouts::Whereabouts;
use crate::format::{len_u32, lower_half, to_usize};
use crate::prefetch::fetch_item;
use annals_types::{Head, Position, Version, limits};
use std::collections::VecDeque;

/// Words of a chunk (64 KiB): small enough that a small store takes little, large beside a record.
const CHUNK_WORDS: usize = 8192;
/// Words of a record before its name: hash, position, version, and number, length of the name and flags.
const FIXED_WORDS: usize = 4;
const AT_HASH: usize = 0;
const AT_POSITION: usize = 1;
const AT_VERSION: usize = 2;
const AT_FACTS: usize = 3;
/// The version of a stream without events.
const NO_VERSION: u64 = u64::MAX;
/// In a record's facts, above number (32 bits) and length of the name (16 bits): it was used.
const USED: u64 = 1 << 48;
/// Records looked at, at the most, for each that may be added.
const LOOKS_PER_ENTRY: usize = 4;

const _: () = assert!(FIXED_WORDS + limits::STREAM_NAME_BYTES_MAX.div_ceil(8) <= CHUNK_WORDS);
const _: () = assert!(limits::STREAM_NAME_BYTES_MAX <= u16::MAX as usize);
// Half of what a record's number can say: the other half is for heads that have to stay.
const _: () = assert!(limits::CACHED_HEADS_MAX * (FIXED_WORDS + limits::STREAM_NAME_BYTES_MAX / 8) < 1 << 32);

/// See the module.
#[derive(Debug)]
pub(crate) struct Heads {
    slots: Slots,
    chunks: Vec<Box<[u64]>>,
    /// Numbers of chunks in use, oldest first, and of those to be used again, most of them without memory.
    order: VecDeque<usize>,
    free: Vec<usize>,
    /// In the oldest chunk, the first record; in the newest, where the next one goes.
    start: usize,
    end: usize,
    entries_max: usize,
    floor: Option<u64>,
}

/// A remembered head's record. Good until room is made or a record is added to a full table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry(u32);

impl Heads {
    /// Remembers up to `entries_max` heads beside those that have to stay. What is not here has its last event, if
    /// any, at or below `floor`.
    pub(crate) fn new(entries_max: usize, floor: Option<u64>) -> Self {
        Self {
            slots: Slots::default(),
            chunks: Vec::new(),
            order: VecDeque::new(),
            free: Vec::new(),
            start: 0,
            end: CHUNK_WORDS,
            entries_max,
            floor,
        }
    }

    /// See the module; `None`: all streams are here.
    pub(crate) fn floor(&self) -> Option<u64> {
        self.floor
    }

    fn words(&self, entry: Entry) -> &[u64] {
        let at = entry.0 as usize;
        &self.chunks[at / CHUNK_WORDS][at % CHUNK_WORDS..]
    }

    fn words_mut(&mut self, entry: Entry) -> &mut [u64] {
        let at = entry.0 as usize;
        &mut self.chunks[at / CHUNK_WORDS][at % CHUNK_WORDS..]
    }

    /// Tells where a search begins.
    pub(crate) fn tell(&self, whereabouts: &Whereabouts) {
        self.slots.tell(whereabouts);
    }

    /// Asks for the memory that finding a stream with this hash will touch.
    pub(crate) fn fetch(&self, hash: u64) {
        for number in self.slots.candidates(hash) {
            let at = number as usize;
            fetch_item(&self.chunks[at / CHUNK_WORDS], at % CHUNK_WORDS);
        }
    }

    /// The record of this stream, if it is here; it then counts as used.
    pub(crate) fn find(&mut self, hash: u64, name: &str) -> Option<Entry> {
        let same = |number| {
            let words = self.words(Entry(number));
            words[AT_HASH] == hash && has_name(words, name)
        };
        let entry = Entry(self.slots.find(hash, same)?);
        self.words_mut(entry)[AT_FACTS] |= USED;
        Some(entry)
    }

    /// The head; `None`: the stream has no events.
    pub(crate) fn head(&self, entry: Entry) -> Option<Head> {
        let words = self.words(entry);
        let head =
            Head { version: Version::new(words[AT_VERSION]), position: Position::new(words[AT_POSITION]) };
        (words[AT_VERSION] != NO_VERSION).then_some(head)
    }

    /// The stream's number in the index of the segment that its head is in, if that was unsealed when it was set.
    pub(crate) fn number(&self, entry: Entry) -> StreamNumber {
        StreamNumber(lower_half(self.words(entry)[AT_FACTS]))
    }

    /// The stream has a new head.
    pub(crate) fn set(&mut self, entry: Entry, head: Head, number: StreamNumber) {
        let words = self.words_mut(entry);
        words[AT_POSITION] = head.position.get();
        words[AT_VERSION] = head.version.get();
        words[AT_FACTS] = (words[AT_FACTS] >> 32 << 32) | u64::from(number.0);
    }

    /// Adds a stream that is not here. `number`: as [`Self::number`] says.
    pub(crate) fn insert(&mut self, hash: u64, name: &str, head: Option<Head>, number: Option<StreamNumber>) {
        let (version, position) =
            head.map_or((NO_VERSION, 0), |head| (head.version.get(), head.position.get()));
        let number = number.map_or(0, |number| number.0);
        let facts = u64::from(number) | ((name.len() as u64) << 32);
        let entry = self.place(words_of(name.len()));
        let words = self.words_mut(entry);
        words[..FIXED_WORDS].copy_from_slice(&[hash, position, version, facts]);
        for (word, bytes) in words[FIXED_WORDS..].iter_mut().zip(name.as_bytes().chunks(8)) {
            *word = packed(bytes);
        }
        self.slots.insert(hash, entry.0);
    }

    /// Room for a record at the new end.
    fn place(&mut self, words: usize) -> Entry {
        if self.end + words > CHUNK_WORDS {
            if let Some(&newest) = self.order.back() {
                // What is left of the chunk reads as no record.
                self.chunks[newest][self.end..].iter_mut().take(FIXED_WORDS).for_each(|word| *word = 0);
            }
            let chunk = self.free.pop().unwrap_or_else(|| {
                self.chunks.push(Box::default());
                self.chunks.len() - 1
            });
            if self.chunks[chunk].is_empty() {
                self.chunks[chunk] = vec![0; CHUNK_WORDS].into();
            }
            self.order.push_back(chunk);
            self.end = 0;
            if self.order.len() == 1 {
                self.start = 0;
            }
        }
        let newest = *self.order.back().expect("it was just added, or there");
        let entry = Entry(len_u32(newest * CHUNK_WORDS + self.end));
        self.end += words;
        entry
    }

    /// Makes room for `entries` more, if there are more records than may be: those of events at `kept_from` or behind
    /// stay, of which there are at most `kept`. Looks at a few records for each.
    pub(crate) fn make_room(&mut self, entries: usize, kept_from: u64, kept: usize) {
        let mut looks = entries * LOOKS_PER_ENTRY;
        while looks > 0 && self.slots.len() > self.entries_max + kept {
            looks -= 1;
            let Some(oldest) = self.take_oldest() else { return };
            let words = self.words(oldest);
            let (hash, version, position) = (words[AT_HASH], words[AT_VERSION], words[AT_POSITION]);
            let stays = version != NO_VERSION && position >= kept_from;
            if stays || words[AT_FACTS] & USED != 0 {
                self.renew(oldest);
                continue;
            }
            self.slots.remove(hash, oldest.0);
            if version != NO_VERSION {
                self.floor = self.floor.max(Some(position));
            }
        }
    }

    /// The oldest record, which is not among the records any more.
    fn take_oldest(&mut self) -> Option<Entry> {
        loop {
            let oldest = *self.order.front()?;
            let at_end = self.order.len() == 1 && self.start >= self.end;
            if at_end {
                return None;
            }
            let rest = &self.chunks[oldest][self.start..];
            let name_bytes = rest.get(AT_FACTS).map_or(0, |&facts| name_bytes(facts));
            if name_bytes == 0 {
                // Names are not empty: this is the rest of the chunk.
                self.free_oldest();
                continue;
            }
            let entry = Entry(len_u32(oldest * CHUNK_WORDS + self.start));
            self.start += words_of(name_bytes);
            return Some(entry);
        }
    }

    fn free_oldest(&mut self) {
        let Some(chunk) = self.order.pop_front() else { return };
        self.start = 0;
        // The memory of one is kept for the next records.
        if !self.free.is_empty() {
            self.chunks[chunk] = Box::default();
        }
        self.free.push(chunk);
    }

    /// Moves a record, which was taken, to the new end; it then counts as not used.
    fn renew(&mut self, oldest: Entry) {
        let count = words_of(name_bytes(self.words(oldest)[AT_FACTS]));
        let entry = self.place(count);
        let mut record = [0; FIXED_WORDS + limits::STREAM_NAME_BYTES_MAX / 8];
        record[..count].copy_from_slice(&self.words(oldest)[..count]);
        record[AT_FACTS] &= !USED;
        self.words_mut(entry)[..count].copy_from_slice(&record[..count]);
        self.slots.renumber(record[AT_HASH], oldest.0, entry.0);
    }
}

fn words_of(name_bytes: usize) -> usize {
    FIXED_WORDS + name_bytes.div_ceil(8)
}

fn name_bytes(facts: u64) -> usize {
    to_usize((facts >> 32) & 0xFFFF)
}

/// Up to eight bytes as a word, zeros behind.
fn packed(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn has_name(words: &[u64], name: &str) -> bool {
    name_bytes(words[AT_FACTS]) == name.len()
        && name.as_bytes().chunks(8).zip(&words[FIXED_WORDS..]).all(|(bytes, &word)| packed(bytes) == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        /// A stream, by its number, gets an event.
        Append(u64),
        /// A stream is looked up that may have no events.
        LookUp(u64),
        /// All events so far are in sealed segments.
        Seal,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..300_u64).prop_map(Step::Append),
            2 => (0..400_u64).prop_map(Step::LookUp),
            1 => Just(Step::Seal),
        ]
    }

    /// Names of many lengths; hashes of which many are alike.
    fn key(stream: u64) -> (u64, String) {
        let name = format!("{stream}{}", "-".repeat(to_usize(stream * 7 % 500)));
        (stream / 3, name)
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_right_and_what_is_not_lies_at_the_floor_or_below(
            entries_max in 0_usize..40,
            steps in prop::collection::vec(step(), 0..2000),
        ) {
            let mut heads = Heads::new(entries_max, None);
            let mut model: BTreeMap<u64, (Head, StreamNumber)> = BTreeMap::new();
            let (mut next, mut kept_from) = (0_u64, 0_u64);
            for step in steps {
                let kept = model.values().filter(|(head, _)| head.position.get() >= kept_from).count();
                heads.make_room(1, kept_from, kept);
                match step {
                    Step::Append(stream) => {
                        let (hash, name) = key(stream);
                        let version = model.get(&stream).map_or(0, |(head, _)| head.version.get() + 1);
                        let head = Head { version: Version::new(version), position: Position::new(next) };
                        let number = StreamNumber(len_u32(to_usize(next)));
                        next += 1;
                        match heads.find(hash, &name) {
                            Some(entry) => heads.set(entry, head, number),
                            None => heads.insert(hash, &name, Some(head), Some(number)),
                        }
                        model.insert(stream, (head, number));
                    }
                    Step::LookUp(stream) => {
                        let (hash, name) = key(stream);
                        if heads.find(hash, &name).is_none() {
                            let head = model.get(&stream).map(|&(head, _)| head);
                            heads.insert(hash, &name, head, None);
                        }
                    }
                    Step::Seal => kept_from = next,
                }
                for (&stream, &(head, number)) in &model {
                    let (hash, name) = key(stream);
                    let position = head.position.get();
                    let entry = heads.slots.find(hash, |found| has_name(heads.words(Entry(found)), &name));
                    match entry.map(Entry) {
                        Some(entry) => {
                            prop_assert_eq!(heads.head(entry), Some(head));
                            prop_assert!(position < kept_from || heads.number(entry) == number);
                        }
                        None => prop_assert!(position < kept_from && heads.floor() >= Some(position)),
                    }
                }
            }
            // Nothing but time keeps more than what may be: rounds of making room end it.
            for _ in 0..2000 {
                heads.make_room(1, next, 0);
            }
            prop_assert!(heads.slots.len() <= entries_max);
            let used = heads.order.len() * CHUNK_WORDS;
            prop_assert!(used <= (entries_max + 1) * words_of(limits::STREAM_NAME_BYTES_MAX) + 2 * CHUNK_WORDS);
        }
    }
}
