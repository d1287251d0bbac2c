//! The index of a segment that is not sealed: built as batches get their places, or by a scan at open.

use crate::format::index::{self, FrameEntry, IndexOf, StreamEntry};
use crate::format::len_u32;
use annals_types::{Head, Position, Uuid, Version};
use hashbrown::HashTable;

/// Capacities of a stream's blocks of postings: each next is twice as large, up to the greatest, so that a
/// stream with one event takes little and one with many is read in long runs.
const BLOCK_POSTINGS_FIRST: u32 = 2;
const BLOCK_POSTINGS_MAX: u32 = 62;
/// No block follows.
const NONE: u32 = u32::MAX;

/// Streams and frames of one segment. Positions are relative to the segment's first.
#[derive(Debug)]
pub(crate) struct MemoryIndex {
    store: Uuid,
    first_position: u64,
    frames: Vec<FrameEntry>,
    by_name: HashTable<u32>,
    streams: Vec<Stream>,
    names: String,
    /// Blocks of postings: the next block's start, the block's capacity, and its postings.
    arena: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    hash: u64,
    name_start: u32,
    name_len: u32,
    first_version: u64,
    last: u32,
    postings: u32,
    first_block: u32,
    last_block: u32,
    last_block_used: u32,
}

/// The number of a stream in the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StreamNumber(u32);

impl MemoryIndex {
    pub(crate) fn new(store: Uuid, first_position: u64) -> Self {
        Self {
            store,
            first_position,
            frames: Vec::new(),
            by_name: HashTable::new(),
            streams: Vec::new(),
            names: String::new(),
            arena: Vec::new(),
        }
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
        len_u32(crate::format::to_usize(position - self.first_position))
    }

    pub(crate) fn frames(&self) -> &[FrameEntry] {
        &self.frames
    }

    /// The place in the order of the frame that holds this position.
    pub(crate) fn frame_of(&self, position: u64) -> usize {
        let position = self.relative(position);
        self.frames.partition_point(|frame| frame.position <= position).saturating_sub(1)
    }

    /// The stream of this name and hash, if an event of it is here.
    pub(crate) fn find(&self, hash: u64, name: &str) -> Option<StreamNumber> {
        let same = |&number: &u32| {
            let stream = &self.streams[number as usize];
            stream.hash == hash && self.name_of(stream) == name
        };
        self.by_name.find(hash, same).copied().map(StreamNumber)
    }

    fn name_of(&self, stream: &Stream) -> &str {
        &self.names[stream.name_start as usize..(stream.name_start + stream.name_len) as usize]
    }

    /// The last event of a stream here.
    pub(crate) fn head(&self, number: StreamNumber) -> Head {
        let stream = &self.streams[number.0 as usize];
        Head {
            version: Version::new(stream.first_version + u64::from(stream.postings) - 1),
            position: Position::new(self.first_position + u64::from(stream.last)),
        }
    }

    /// The stream of this name; one that has no event here yet begins at `first_version`.
    pub(crate) fn stream_for(&mut self, hash: u64, name: &str, first_version: u64) -> StreamNumber {
        self.find(hash, name).unwrap_or_else(|| self.add_stream(hash, name, first_version))
    }

    /// Notes the next event of a stream.
    pub(crate) fn push_event(&mut self, number: StreamNumber, position: u64) {
        let posting = self.relative(position);
        let stream = &mut self.streams[number.0 as usize];
        stream.postings += 1;
        stream.last = posting;
        push_posting(&mut self.arena, stream, posting);
    }

    /// The version that the stream's next event here has.
    pub(crate) fn next_version(&self, number: StreamNumber) -> u64 {
        let stream = &self.streams[number.0 as usize];
        stream.first_version + u64::from(stream.postings)
    }

    fn add_stream(&mut self, hash: u64, name: &str, first_version: u64) -> StreamNumber {
        let number = len_u32(self.streams.len());
        let name_start = len_u32(self.names.len());
        self.names.push_str(name);
        self.streams.push(Stream {
            hash,
            name_start,
            name_len: len_u32(name.len()),
            first_version,
            last: 0,
            postings: 0,
            first_block: NONE,
            last_block: NONE,
            last_block_used: 0,
        });
        let streams = &self.streams;
        self.by_name.insert_unique(hash, number, |&number| streams[number as usize].hash);
        StreamNumber(number)
    }

    /// First version here, and how many events.
    pub(crate) fn versions(&self, number: StreamNumber) -> (u64, u32) {
        let stream = &self.streams[number.0 as usize];
        (stream.first_version, stream.postings)
    }

    /// Positions of a stream's events from the `rank`-th here, ascending.
    pub(crate) fn postings(&self, number: StreamNumber, rank: u32) -> impl Iterator<Item = u64> + '_ {
        let stream = &self.streams[number.0 as usize];
        let (mut block, mut skip, mut left) =
            (stream.first_block, rank, stream.postings.saturating_sub(rank) as usize);
        std::iter::from_fn(move || {
            while left > 0 {
                let at = block as usize;
                let capacity = self.arena[at + 1];
                if skip < capacity {
                    let posting = self.arena[at + 2 + skip as usize];
                    skip += 1;
                    left -= 1;
                    return Some(self.first_position + u64::from(posting));
                }
                skip -= capacity;
                block = self.arena[at];
            }
            None
        })
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
        self.frames.capacity() * size_of::<FrameEntry>()
            + self.by_name.capacity() * 5
            + self.streams.capacity() * size_of::<Stream>()
            + self.names.capacity()
            + self.arena.capacity() * 4
    }

    /// The sealed form.
    pub(crate) fn encode(&self, of: IndexOf) -> Vec<u8> {
        let mut order: Vec<u32> = (0..len_u32(self.streams.len())).collect();
        order.sort_unstable_by_key(|&number| {
            let stream = &self.streams[number as usize];
            (stream.hash, stream.name_start)
        });
        let mut entries = Vec::with_capacity(order.len());
        let mut postings = Vec::new();
        for number in order {
            let stream = &self.streams[number as usize];
            entries.push(StreamEntry {
                hash: stream.hash,
                first_posting: len_u32(postings.len()),
                postings: stream.postings,
                first_version: stream.first_version,
            });
            postings.extend(self.postings(StreamNumber(number), 0).map(|position| self.relative(position)));
        }
        index::encode(self.store, of, &self.frames, &entries, &postings)
    }
}

fn push_posting(arena: &mut Vec<u32>, stream: &mut Stream, posting: u32) {
    let full = stream.last_block == NONE || stream.last_block_used == arena[stream.last_block as usize + 1];
    if full {
        let capacity = if stream.last_block == NONE {
            BLOCK_POSTINGS_FIRST
        } else {
            (arena[stream.last_block as usize + 1] * 2 + 2).min(BLOCK_POSTINGS_MAX)
        };
        let block = len_u32(arena.len());
        arena.extend_from_slice(&[NONE, capacity]);
        arena.resize(arena.len() + capacity as usize, 0);
        if stream.last_block == NONE {
            stream.first_block = block;
        } else {
            arena[stream.last_block as usize] = block;
        }
        stream.last_block = block;
        stream.last_block_used = 0;
    }
    arena[(stream.last_block + 2 + stream.last_block_used) as usize] = posting;
    stream.last_block_used += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postings_come_back_in_order_from_any_rank() {
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
            for rank in [0_usize, 1, 2, 3, 7, 61, 62, 63, 64, 200, all.len()] {
                let found: Vec<u64> = index.postings(number, u32::try_from(rank).expect("small")).collect();
                assert_eq!(found, all[rank..]);
            }
            assert_eq!(index.head(number).position.get(), *all.last().expect("not empty"));
        }
        assert!(index.find(7, "stream-3").is_none());
    }
}
