//! The index of a segment that is not sealed: built as batches get their places, or by a scan at open.

use super::lists::{ListNumber, Lists};
use super::slots::Slots;
use super::whereabouts::Whereabouts;
use crate::format::index::{self, FrameEntry, IdEntry, IndexOf, KeyEntry, PostingRange, StreamEntry};
use crate::format::key::hash_name;
use crate::format::{len_u16, len_u32, to_usize};
use annals_types::{Cursor, Head, Position, Uuid, Version, limits};
use std::collections::BTreeMap;
use std::ops::Range;

/// Most keys of one event: its category, type and tags, and what it is correlated with and was caused by.
const KEYS_MAX: usize = limits::TAGS_MAX + 4;

/// How many lists ahead their memory is asked for.
const FETCHED_AHEAD: usize = 8;

/// Frames, streams and keys of one segment. Positions are relative to the segment's first.
#[derive(Debug)]
pub(crate) struct MemoryIndex {
    store: Uuid,
    first_position: u64,
    frames: Vec<FrameEntry>,
    /// A list for each stream: two names with one hash have a list each.
    streams: Lists,
    /// By the numbers of their lists.
    facts: Vec<StreamFacts>,
    names: String,
    /// A list for each hash of a key. Keys with one hash share it: whoever looks one up has to look at the events, too.
    keys: Lists,
    /// From the hash of an event's id to its relative position.
    ids: Slots,
    /// The cursors that were set here, where they were set last.
    pub(crate) cursors: BTreeMap<Box<str>, Cursor>,
}

#[derive(Clone, Copy, Debug)]
struct StreamFacts {
    first_version: u64,
    name_start: u32,
    name_len: u16,
}

/// The number of a stream in the index.
pub(crate) type StreamNumber = ListNumber;

impl MemoryIndex {
    pub(crate) fn new(store: Uuid, first_position: u64) -> Self {
        Self {
            store,
            first_position,
            frames: Vec::new(),
            streams: Lists::default(),
            facts: Vec::new(),
            names: String::new(),
            keys: Lists::default(),
            ids: Slots::default(),
            cursors: BTreeMap::new(),
        }
    }

    /// Forgets everything and keeps the memory, for another segment's index.
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.streams.clear();
        self.facts.clear();
        self.names.clear();
        self.keys.clear();
        self.ids.clear();
        self.cursors.clear();
    }

    /// Begins anew, in this one's memory.
    pub(crate) fn begun_at(mut self, first_position: u64) -> Self {
        debug_assert!(self.frames.is_empty() && self.streams.is_empty(), "it was cleared");
        self.first_position = first_position;
        self
    }

    /// Tells where a search for a stream, a key and an id begins.
    pub(crate) fn tell(&self, of_streams: &Whereabouts, of_keys: &Whereabouts, of_ids: &Whereabouts) {
        self.streams.tell(of_streams);
        self.keys.tell(of_keys);
        self.ids.tell(of_ids);
    }

    /// The hash that this index finds a name by.
    pub(crate) fn hash(&self, name: &str) -> u64 {
        hash_name(self.store, name)
    }

    /// The store that it is of.
    pub(crate) fn store(&self) -> Uuid {
        self.store
    }

    /// The position that relative ones count from.
    pub(crate) fn first_position(&self) -> u64 {
        self.first_position
    }

    /// Notes a frame behind all others.
    pub(crate) fn push_frame(&mut self, first_position: u64, offset: u64) {
        let position = self.relative(first_position);
        debug_assert!(
            self.frames.last().is_none_or(|last| last.position <= position && last.offset < offset)
        );
        self.frames.push(FrameEntry { position, offset });
    }

    fn relative(&self, position: u64) -> u32 {
        len_u32(to_usize(position - self.first_position))
    }

    pub(crate) fn frames(&self) -> &[FrameEntry] {
        &self.frames
    }

    /// The place in the order of the frame that holds this position.
    pub(crate) fn frame_of(&self, position: u64) -> usize {
        // What lies behind all that can be here is in none of its frames, as a look at the last of them shows.
        let position = u32::try_from(position - self.first_position).unwrap_or(u32::MAX);
        self.frames.partition_point(|frame| frame.position <= position).saturating_sub(1)
    }

    fn facts(&self, number: StreamNumber) -> &StreamFacts {
        &self.facts[number.0 as usize]
    }

    /// Whether any batch fits: its names, events and keys are counted in 32 bits.
    pub(crate) fn has_room(&self) -> bool {
        let names_end = self.names.len() + limits::BATCH_EVENTS_MAX * limits::STREAM_NAME_BYTES_MAX;
        u32::try_from(names_end).is_ok()
            && self.streams.has_room(limits::BATCH_EVENTS_MAX)
            && self.keys.has_room(limits::BATCH_EVENTS_MAX * KEYS_MAX)
    }

    /// How many events there are, those that damage hides included.
    pub(crate) fn events(&self) -> u64 {
        self.streams.positions_count() as u64
    }

    /// How many streams have events here.
    pub(crate) fn stream_count(&self) -> usize {
        self.facts.len()
    }

    /// The stream of this name and hash, if an event of it is here.
    pub(crate) fn find(&self, hash: u64, name: &str) -> Option<StreamNumber> {
        self.streams.find_where(hash, |number| self.name_of(self.facts(number)) == name)
    }

    fn name_of(&self, facts: &StreamFacts) -> &str {
        &self.names[facts.name_start as usize..facts.name_start as usize + usize::from(facts.name_len)]
    }

    /// The lists of streams.
    pub(crate) fn streams_by_hash(&self) -> &Lists {
        &self.streams
    }

    /// The lists of keys.
    pub(crate) fn keys(&self) -> &Lists {
        &self.keys
    }

    /// The last event of a stream here.
    pub(crate) fn head(&self, number: StreamNumber) -> Head {
        let last = self.streams.last(number).map_or(0, u64::from);
        Head {
            version: Version::new(self.next_version(number) - 1),
            position: Position::new(self.first_position + last),
        }
    }

    /// The stream of this name; one that has no event here yet begins at `first_version`.
    #[cfg(test)]
    pub(crate) fn stream_for(&mut self, hash: u64, name: &str, first_version: u64) -> StreamNumber {
        self.find(hash, name).unwrap_or_else(|| self.add_stream(hash, name, first_version))
    }

    /// Adds a stream that has no event here yet; its first will have this version.
    pub(crate) fn add_stream(&mut self, hash: u64, name: &str, first_version: u64) -> StreamNumber {
        let name_start = len_u32(self.names.len());
        self.names.push_str(name);
        self.facts.push(StreamFacts { first_version, name_start, name_len: len_u16(name.len()) });
        self.streams.add(hash)
    }

    /// Notes the next event of a stream.
    pub(crate) fn push_event(&mut self, number: StreamNumber, position: u64) {
        let position = self.relative(position);
        self.streams.push(number, position);
    }

    /// Notes a key of the last event, by its hash.
    pub(crate) fn push_key(&mut self, hash: u64, position: u64) {
        let position = self.relative(position);
        self.keys.note(hash, position);
    }

    /// Notes the id of the last event, by its hash.
    pub(crate) fn push_id(&mut self, hash: u64, position: u64) {
        let position = self.relative(position);
        self.ids.insert(hash, position);
    }

    /// Half of the hash of each id, in no order.
    pub(crate) fn id_halves(&self) -> impl Iterator<Item = u32> {
        self.ids.entries().map(|(half, _)| half)
    }

    /// Positions of events whose ids may have this hash, in no order.
    pub(crate) fn ids_of(&self, hash: u64) -> impl Iterator<Item = u64> {
        self.ids.candidates(hash).map(|position| self.first_position + u64::from(position))
    }

    /// The version that the stream's next event here has.
    pub(crate) fn next_version(&self, number: StreamNumber) -> u64 {
        let (first_version, events) = self.versions(number);
        first_version + u64::from(events)
    }

    /// First version here, and how many events.
    pub(crate) fn versions(&self, number: StreamNumber) -> (u64, u32) {
        (self.facts(number).first_version, self.streams.len(number))
    }

    /// Positions of a stream's events of these ranks here, ascending.
    pub(crate) fn positions(&self, number: StreamNumber, ranks: Range<u32>) -> Vec<u64> {
        let mut positions = vec![0; ranks.len()];
        self.streams.visit_back(number, ranks, |at, position| {
            positions[at] = self.first_position + u64::from(position);
        });
        positions
    }

    /// Every stream.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (u64, StreamNumber, &str)> {
        self.streams.iter().map(|(hash, number)| (hash, number, self.name_of(self.facts(number))))
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.capacity() * size_of::<FrameEntry>()
            + self.facts.capacity() * size_of::<StreamFacts>()
            + self.names.capacity()
            + self.streams.bytes()
            + self.keys.bytes()
            + self.ids.bytes()
    }

    /// The index as a file of the sealed segment.
    pub(crate) fn encode(&self, of: IndexOf) -> Vec<u8> {
        let mut postings = vec![0; self.streams.positions_count() + self.keys.positions_count()];
        let mut streams = Vec::with_capacity(self.streams.count());
        let mut first = 0;
        for (hash, number) in in_order(&self.streams) {
            let range = put_postings(&mut postings, &mut first, &self.streams, number);
            streams.push(StreamEntry {
                hash,
                postings: range,
                first_version: self.facts(number).first_version,
            });
        }
        let mut keys = Vec::with_capacity(self.keys.count());
        for (hash, number) in in_order(&self.keys) {
            keys.push(KeyEntry {
                hash,
                postings: put_postings(&mut postings, &mut first, &self.keys, number),
            });
        }
        let mut ids: Vec<IdEntry> =
            self.ids.entries().map(|(half, position)| IdEntry { half, position }).collect();
        ids.sort_unstable();
        index::encode(self.store, of, &self.frames, &streams, &keys, &ids, &postings)
    }
}

/// Lists in the order of their hashes; those of one hash in the order of their numbers.
fn in_order(lists: &Lists) -> impl Iterator<Item = (u64, ListNumber)> {
    let mut order: Vec<(u64, u32)> = lists.iter().map(|(hash, number)| (hash, number.0)).collect();
    order.sort_unstable();
    (0..order.len()).map(move |at| {
        // In the order of hashes, every list is in no cache.
        if let Some(&(_, ahead)) = order.get(at + FETCHED_AHEAD) {
            lists.fetch(ListNumber(ahead));
        }
        (order[at].0, ListNumber(order[at].1))
    })
}

fn put_postings(postings: &mut [u32], first: &mut u32, lists: &Lists, number: ListNumber) -> PostingRange {
    let range = PostingRange { first: *first, count: lists.len(number) };
    *first += range.count;
    let own = &mut postings[range.first as usize..*first as usize];
    lists.visit_back(number, 0..range.count, |at, position| own[at] = position);
    range
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_in_order_from_any_rank() {
        let mut index = MemoryIndex::new(Uuid::from_u128(1), 100);
        for event in 0..1000_u64 {
            let name = format!("stream-{}", event % 3);
            // All hashes alike: names alone tell streams apart.
            let number = index.stream_for(7, &name, 0);
            index.push_event(number, 100 + event);
        }
        for stream in 0..3_u64 {
            let number = index.find(7, &format!("stream-{stream}")).expect("it was pushed");
            let all: Vec<u64> =
                (0..1000).filter(|event| event % 3 == stream).map(|event| 100 + event).collect();
            let count = u32::try_from(all.len()).expect("small");
            for rank in [0, 1, 2, 62, 63, 64, 65, 127, 128, 200, count - 1, count] {
                for until in [rank, rank + 1, rank + 63, rank + 64, count] {
                    let ranks = rank..until.min(count);
                    let wanted = &all[ranks.start as usize..ranks.end as usize];
                    assert_eq!(index.positions(number, ranks), wanted);
                }
            }
            assert_eq!(index.head(number).position.get(), *all.last().expect("not empty"));
        }
        assert!(index.find(7, "stream-3").is_none());
    }
}
