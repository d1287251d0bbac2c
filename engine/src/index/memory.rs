//! The index of a segment that is not sealed: built as batches get their places, or by a scan at open.

use super::prefetch::{Whereabouts, fetch_item};
use super::slots::Slots;
use crate::format::index::{self, FrameEntry, IndexOf, StreamEntry};
use crate::format::{len_u16, len_u32, to_usize};
use annals_types::{Head, Position, Uuid, Version, limits};
use std::ops::Range;

/// Of a stream with more events than this, every so many are found without walking over those behind.
const STRIDE: u32 = 64;
/// There is no such node, or list.
const NONE: u32 = u32::MAX;

/// How many streams ahead their memory is asked for.
const FETCHED_AHEAD: usize = 8;

/// Streams and frames of one segment. Positions are relative to the segment's first.
///
/// An event is a node that leads to the stream's event before: noting one touches the stream and the end of a list.
#[derive(Debug)]
pub(crate) struct MemoryIndex {
    store: Uuid,
    first_position: u64,
    frames: Vec<FrameEntry>,
    by_name: Slots,
    streams: Vec<Stream>,
    names: String,
    nodes: Vec<Node>,
    /// For streams of more than [`STRIDE`] events: the nodes of every so many.
    strides: Vec<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    hash: u64,
    first_version: u64,
    name_start: u32,
    name_len: u16,
    events: u32,
    last_node: u32,
    strides: u32,
}

/// An event of a stream.
#[derive(Clone, Copy, Debug)]
struct Node {
    position: u32,
    /// The node of the stream's event before.
    before: u32,
}

/// The number of a stream in the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StreamNumber(pub(super) u32);

impl MemoryIndex {
    pub(crate) fn new(store: Uuid, first_position: u64) -> Self {
        Self {
            store,
            first_position,
            frames: Vec::new(),
            by_name: Slots::default(),
            streams: Vec::new(),
            names: String::new(),
            nodes: Vec::new(),
            strides: Vec::new(),
        }
    }

    /// Forgets everything and keeps the memory, for another segment's index.
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.by_name.clear();
        self.streams.clear();
        self.names.clear();
        self.nodes.clear();
        self.strides.clear();
    }

    /// Begins anew, in this one's memory.
    pub(crate) fn begun_at(mut self, first_position: u64) -> Self {
        debug_assert!(self.frames.is_empty() && self.streams.is_empty(), "it was cleared");
        self.first_position = first_position;
        self
    }

    /// Tells where a search begins.
    pub(crate) fn tell(&self, whereabouts: &Whereabouts) {
        self.by_name.tell(whereabouts);
    }

    /// The hash that this index finds a name by.
    pub(crate) fn hash(&self, name: &str) -> u64 {
        index::hash_name(self.store, name)
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
        let position = self.relative(position);
        self.frames.partition_point(|frame| frame.position <= position).saturating_sub(1)
    }

    fn stream(&self, number: StreamNumber) -> &Stream {
        &self.streams[number.0 as usize]
    }

    /// Whether any batch fits: its names and events are counted in 32 bits.
    pub(crate) fn has_room(&self) -> bool {
        let names_end = self.names.len() + limits::BATCH_EVENTS_MAX * limits::STREAM_NAME_BYTES_MAX;
        let events = self.nodes.len() + limits::BATCH_EVENTS_MAX;
        names_end.max(events) < NONE as usize
    }

    /// How many streams have events here.
    pub(crate) fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// The stream of this name and hash, if an event of it is here.
    pub(crate) fn find(&self, hash: u64, name: &str) -> Option<StreamNumber> {
        let same = |number: u32| {
            let stream = &self.streams[number as usize];
            stream.hash == hash && self.name_of(stream) == name
        };
        self.by_name.find(hash, same).map(StreamNumber)
    }

    fn name_of(&self, stream: &Stream) -> &str {
        &self.names[stream.name_start as usize..stream.name_start as usize + usize::from(stream.name_len)]
    }

    /// The last event of a stream here.
    pub(crate) fn head(&self, number: StreamNumber) -> Head {
        let last = self.nodes[self.stream(number).last_node as usize];
        Head {
            version: Version::new(self.next_version(number) - 1),
            position: Position::new(self.first_position + u64::from(last.position)),
        }
    }

    /// The stream of this name; one that has no event here yet begins at `first_version`.
    pub(crate) fn stream_for(&mut self, hash: u64, name: &str, first_version: u64) -> StreamNumber {
        self.find(hash, name).unwrap_or_else(|| self.add_stream(hash, name, first_version))
    }

    /// Adds a stream that has no event here yet; its first will have this version.
    pub(crate) fn add_stream(&mut self, hash: u64, name: &str, first_version: u64) -> StreamNumber {
        let number = len_u32(self.streams.len());
        let name_start = len_u32(self.names.len());
        self.names.push_str(name);
        self.streams.push(Stream {
            hash,
            first_version,
            name_start,
            name_len: len_u16(name.len()),
            events: 0,
            last_node: NONE,
            strides: NONE,
        });
        self.by_name.insert(hash, number);
        StreamNumber(number)
    }

    /// Notes the next event of a stream.
    pub(crate) fn push_event(&mut self, number: StreamNumber, position: u64) {
        let node = len_u32(self.nodes.len());
        let position = self.relative(position);
        let stream = &mut self.streams[number.0 as usize];
        self.nodes.push(Node { position, before: stream.last_node });
        stream.last_node = node;
        stream.events += 1;
        if stream.events.is_multiple_of(STRIDE) {
            if stream.strides == NONE {
                stream.strides = len_u32(self.strides.len());
                self.strides.push(Vec::new());
            }
            self.strides[stream.strides as usize].push(node);
        }
    }

    /// The version that the stream's next event here has.
    pub(crate) fn next_version(&self, number: StreamNumber) -> u64 {
        let (first_version, events) = self.versions(number);
        first_version + u64::from(events)
    }

    /// First version here, and how many events.
    pub(crate) fn versions(&self, number: StreamNumber) -> (u64, u32) {
        let stream = self.stream(number);
        (stream.first_version, stream.events)
    }

    /// Positions of a stream's events of these ranks here, ascending.
    pub(crate) fn positions(&self, number: StreamNumber, ranks: Range<u32>) -> Vec<u64> {
        let mut positions = vec![0; ranks.len()];
        self.visit_back(self.stream(number), ranks, |at, position| {
            positions[at] = self.first_position + u64::from(position);
        });
        positions
    }

    /// Visits the stream's events of these ranks, the last one first, with their places in the range.
    fn visit_back(&self, stream: &Stream, ranks: Range<u32>, mut visit: impl FnMut(usize, u32)) {
        assert!(ranks.end <= stream.events, "ranks of events that are here");
        if ranks.is_empty() {
            return;
        }
        // From the nearest node at or behind the last rank that is known without walking.
        let stride = self.strides.get(stream.strides as usize).and_then(|strides| {
            let number = (ranks.end - 1) / STRIDE;
            strides.get(number as usize).map(|&node| (node, (number + 1) * STRIDE - 1))
        });
        let (mut node, mut rank) = stride.unwrap_or((stream.last_node, stream.events - 1));
        loop {
            let Node { position, before } = self.nodes[node as usize];
            if rank < ranks.end {
                visit((rank - ranks.start) as usize, position);
            }
            if rank == ranks.start {
                return;
            }
            (node, rank) = (before, rank - 1);
        }
    }

    /// Every stream.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (u64, StreamNumber, &str)> {
        self.streams
            .iter()
            .enumerate()
            .map(|(number, stream)| (stream.hash, StreamNumber(len_u32(number)), self.name_of(stream)))
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        let strides: usize =
            self.strides.iter().map(|strides| strides.capacity() * 4 + size_of::<Vec<u32>>()).sum();
        self.frames.capacity() * size_of::<FrameEntry>()
            + self.by_name.bytes()
            + self.streams.capacity() * size_of::<Stream>()
            + self.names.capacity()
            + self.nodes.capacity() * size_of::<Node>()
            + strides
    }

    /// The sealed form.
    pub(crate) fn encode(&self, of: IndexOf) -> Vec<u8> {
        let mut order: Vec<(u64, u32)> =
            self.streams.iter().enumerate().map(|(number, stream)| (stream.hash, len_u32(number))).collect();
        order.sort_unstable();
        let mut entries = Vec::with_capacity(order.len());
        let mut postings = vec![0; self.nodes.len()];
        let mut first_posting = 0;
        for (at, &(hash, number)) in order.iter().enumerate() {
            // In the order of hashes, every stream is in no cache.
            order
                .get(at + FETCHED_AHEAD)
                .iter()
                .for_each(|(_, number)| fetch_item(&self.streams, *number as usize));
            let stream = self.stream(StreamNumber(number));
            let (events, first_version) = (stream.events, stream.first_version);
            entries.push(StreamEntry { hash, first_posting, postings: events, first_version });
            let own = &mut postings[first_posting as usize..(first_posting + events) as usize];
            self.visit_back(stream, 0..events, |at, position| own[at] = position);
            first_posting += events;
        }
        index::encode(self.store, of, &self.frames, &entries, &postings)
    }
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
