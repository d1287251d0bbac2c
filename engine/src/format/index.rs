//! The index of a sealed segment: where its frames are, and which events belong to which stream.
//! Derived from the log and rebuilt from it when it is missing or damaged.
//!
//! ```text
//! block 0                                            other blocks
//!  at  bytes                                           at  bytes
//!   0     64  prelude "annalsix"                        0         records of one table
//!  64      8  ordinal of the segment                 4092      4  checksum of bytes 0 to 4092, seeded with the
//!  72      8  salt of the segment                                 segment's salt and the block's number
//!  80      8  first position of the segment
//!  88      4  checksum of its last frame
//!  92      4  number of tables
//!  96     24  each table: kind (4), bytes of a record (4), first block (8), number of records (8)
//! ```
//! Tables: 1 frames: first position relative to the segment's (4), offset / 8 (4), ascending;
//! 2 streams: hash of the name (8), first posting (4), number of postings (4), first version (8), ascending
//! by hash; 3 postings: position relative to the segment's (4), ascending within each stream and key; 4 filter over
//! the hashes of streams and keys: blocks of 64 bytes that have checksums of their own (see `filter`); 5 keys: hash (8),
//! first posting (4), number of postings (4), ascending by hash; 6 ids: half of the id's hash (4) and position relative to
//! the segment's (4) of each event, ascending. The half is the upper one of the hash times 0x9E3779B97F4A7C15 (modulo 2^64);
//! in the filter it stands as the hash of its 4 bytes, with kind 7.
//! Hashes: see `key`. Two names with one hash have an entry each; whoever looks up a name compares it with the stream of
//! the entry's first event. Keys with one hash share an entry; whoever looks up a key looks at the events.

use super::filter::{self, FILTER_BLOCK_BYTES};
use super::key::{filter_hash, half};
use super::prelude::{Kind, PRELUDE_BYTES, Refusal, seal_header, verify_header};
use super::record::{
    BLOCK_CRC_AT, KIND_FILTER, KIND_FRAMES, KIND_IDS, KIND_KEYS, KIND_POSTINGS, KIND_STREAMS, RecordOf,
};
pub(crate) use super::record::{FrameEntry, IdEntry, KeyEntry, PostingRange, StreamEntry};
use super::{BLOCK_BYTES, crc, le, len_u32, to_usize};
use annals_types::{DamageKind, Uuid};
use std::ops::Range;

const TABLES_AT: usize = PRELUDE_BYTES + 32;
const TABLE_BYTES: usize = 24;
/// Which segment an index belongs to, exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IndexOf {
    pub(crate) ordinal: u64,
    pub(crate) salt: u64,
    pub(crate) first_position: u64,
    pub(crate) last_crc: u32,
}

impl IndexOf {
    /// As the header of an index says.
    fn stated(header: &[u8]) -> Self {
        Self {
            ordinal: le::u64_at(header, 64),
            salt: le::u64_at(header, 72),
            first_position: le::u64_at(header, 80),
            last_crc: le::u32_at(header, 88),
        }
    }
}

/// What an id is looked up by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdKey {
    half: u32,
    in_filter: u64,
}

impl IdKey {
    /// Of the id with this hash.
    pub(crate) fn new(store: Uuid, hash: u64) -> Self {
        let half = half(hash);
        Self { half, in_filter: filter_hash(store, half) }
    }
}

/// Encodes an index. All tables are sorted as the module says.
pub(crate) fn encode(
    store: Uuid,
    of: IndexOf,
    frames: &[FrameEntry],
    streams: &[StreamEntry],
    keys: &[KeyEntry],
    ids: &[IdEntry],
    postings: &[u32],
) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK_BYTES];
    let seed = block_seed(of.salt);
    let mut hashes: Vec<u64> = streams.iter().map(|stream| stream.hash).collect();
    hashes.extend(keys.iter().map(|key| key.hash));
    hashes.extend(ids.iter().map(|id| filter_hash(store, id.half)));
    let tables = [
        put_table(&mut bytes, frames, seed),
        put_table(&mut bytes, streams, seed),
        put_table(&mut bytes, postings, seed),
        put_filter(&mut bytes, &hashes, seed),
        put_table(&mut bytes, keys, seed),
        put_table(&mut bytes, ids, seed),
    ];
    let header = &mut bytes[..TABLES_AT + TABLE_BYTES * tables.len()];
    le::put_u64(header, 64, of.ordinal);
    le::put_u64(header, 72, of.salt);
    le::put_u64(header, 80, of.first_position);
    le::put_u32(header, 88, of.last_crc);
    le::put_u32(header, 92, len_u32(tables.len()));
    for (index, table) in tables.iter().enumerate() {
        le::put(header, TABLES_AT + TABLE_BYTES * index, table);
    }
    seal_header(header, Kind::Index, store);
    bytes
}

/// Makes all checksums of an index right, as far as its header leads to what has any.
#[cfg(feature = "testing")]
pub(crate) fn reseal(bytes: &mut [u8]) {
    let Some(of) = stated_of(bytes) else { return };
    let seed = block_seed(of.salt);
    for (number, block) in bytes.chunks_exact_mut(BLOCK_BYTES).enumerate().skip(1) {
        let own = crc(seed.wrapping_add(len_u32(number)), &block[..BLOCK_CRC_AT]);
        le::put_u32(block, BLOCK_CRC_AT, own);
    }
    let header = bytes[..bytes.len().min(BLOCK_BYTES)].to_vec();
    for table in header[TABLES_AT..].chunks_exact(TABLE_BYTES).take(le::u32_at(&header, 92) as usize) {
        let start = to_usize(le::u64_at(table, 8)).checked_mul(BLOCK_BYTES);
        let length = to_usize(le::u64_at(table, 16)).checked_mul(FILTER_BLOCK_BYTES);
        let end = start.zip(length).and_then(|(start, length)| start.checked_add(length));
        if le::u32_at(table, 0) == KIND_FILTER
            && let Some(filter) = start.zip(end).and_then(|(start, end)| bytes.get_mut(start..end))
        {
            filter::seal(filter, seed);
        }
    }
    super::prelude::reseal(bytes);
}

/// Which segment an index says that it is of.
#[cfg(feature = "testing")]
pub(crate) fn stated_of(bytes: &[u8]) -> Option<IndexOf> {
    (bytes.len() >= TABLES_AT).then(|| IndexOf::stated(bytes))
}

/// All records of an index.
#[cfg(feature = "testing")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tables {
    pub(crate) frames: Vec<FrameEntry>,
    pub(crate) streams: Vec<StreamEntry>,
    pub(crate) keys: Vec<KeyEntry>,
    pub(crate) ids: Vec<IdEntry>,
    pub(crate) postings: Vec<u32>,
}

#[cfg(feature = "testing")]
impl Tables {
    /// The index that has these records.
    pub(crate) fn encode(&self, store: Uuid, of: IndexOf) -> Vec<u8> {
        encode(store, of, &self.frames, &self.streams, &self.keys, &self.ids, &self.postings)
    }
}

fn block_seed(salt: u64) -> u32 {
    crc(0, &salt.to_le_bytes())
}

fn put_table<R: RecordOf>(bytes: &mut Vec<u8>, records: &[R], seed: u32) -> [u8; TABLE_BYTES] {
    let first_block = bytes.len() / BLOCK_BYTES;
    for chunk in records.chunks(R::PER_BLOCK) {
        let mut block = [0; BLOCK_BYTES];
        for (index, record) in chunk.iter().enumerate() {
            record.put(&mut block[index * R::BYTES..(index + 1) * R::BYTES]);
        }
        let number = len_u32(bytes.len() / BLOCK_BYTES);
        let own = crc(seed.wrapping_add(number), &block[..BLOCK_CRC_AT]);
        le::put_u32(&mut block, BLOCK_CRC_AT, own);
        bytes.extend_from_slice(&block);
    }
    let mut table = [0; TABLE_BYTES];
    le::put_u32(&mut table, 0, R::KIND);
    le::put_u32(&mut table, 4, len_u32(R::BYTES));
    le::put_u64(&mut table, 8, first_block as u64);
    le::put_u64(&mut table, 16, records.len() as u64);
    table
}

fn put_filter(bytes: &mut Vec<u8>, hashes: &[u64], seed: u32) -> [u8; TABLE_BYTES] {
    let first_block = bytes.len() / BLOCK_BYTES;
    let filter = filter::encode(hashes.len(), hashes.iter().copied(), seed);
    let mut table = [0; TABLE_BYTES];
    le::put_u32(&mut table, 0, KIND_FILTER);
    le::put_u32(&mut table, 4, len_u32(FILTER_BLOCK_BYTES));
    le::put_u64(&mut table, 8, first_block as u64);
    le::put_u64(&mut table, 16, (filter.len() / FILTER_BLOCK_BYTES) as u64);
    bytes.extend_from_slice(&filter);
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    table
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Table {
    first_block: usize,
    records: usize,
}

/// An index whose header was verified. Blocks are verified as they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    seed: u32,
    frames: Table,
    streams: Table,
    postings: Table,
    filter: Option<Table>,
    keys: Table,
    ids: Table,
}

/// A damaged block of an index, by its offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadBlock {
    pub(crate) offset: u64,
    pub(crate) kind: DamageKind,
}

impl Layout {
    /// Verifies the header of an index that must be of this segment.
    pub(crate) fn decode(bytes: &[u8], store: Uuid, of: IndexOf) -> Result<Self, Refusal> {
        let (_, header) = verify_header(bytes, Kind::Index, Some(store))?;
        let malformed = Refusal::Damaged(DamageKind::Malformed);
        if header.len() < TABLES_AT || bytes.len() < BLOCK_BYTES {
            return Err(malformed);
        }
        if IndexOf::stated(header) != of {
            return Err(Refusal::Damaged(DamageKind::Misplaced));
        }
        let mut layout = Self {
            seed: block_seed(of.salt),
            frames: Table::default(),
            streams: Table::default(),
            postings: Table::default(),
            filter: None,
            keys: Table::default(),
            ids: Table::default(),
        };
        let mut missing = vec![KIND_FRAMES, KIND_STREAMS, KIND_POSTINGS, KIND_KEYS, KIND_IDS];
        let tables = header[TABLES_AT..].chunks_exact(TABLE_BYTES);
        if tables.len() != le::u32_at(header, 92) as usize {
            return Err(malformed);
        }
        for entry in tables {
            let table = Table {
                first_block: to_usize(le::u64_at(entry, 8)),
                records: to_usize(le::u64_at(entry, 16)),
            };
            let (slot, record_bytes, per_block) = match le::u32_at(entry, 0) {
                KIND_FRAMES => (&mut layout.frames, FrameEntry::BYTES, FrameEntry::PER_BLOCK),
                KIND_STREAMS => (&mut layout.streams, StreamEntry::BYTES, StreamEntry::PER_BLOCK),
                KIND_POSTINGS => (&mut layout.postings, u32::BYTES, u32::PER_BLOCK),
                KIND_KEYS => (&mut layout.keys, KeyEntry::BYTES, KeyEntry::PER_BLOCK),
                KIND_IDS => (&mut layout.ids, IdEntry::BYTES, IdEntry::PER_BLOCK),
                KIND_FILTER => {
                    let slot = layout.filter.insert(Table::default());
                    (slot, FILTER_BLOCK_BYTES, BLOCK_BYTES / FILTER_BLOCK_BYTES)
                }
                // Tables of later releases speed up what the log can answer too.
                _ => continue,
            };
            let blocks = table.records.div_ceil(per_block);
            let end = table.first_block.checked_add(blocks).and_then(|block| block.checked_mul(BLOCK_BYTES));
            if le::u32_at(entry, 4) as usize != record_bytes || end.is_none_or(|end| end > bytes.len()) {
                return Err(malformed);
            }
            *slot = table;
            missing.retain(|&kind| kind != le::u32_at(entry, 0));
        }
        // A table that is not there says nothing of what it would hold.
        if missing.is_empty() { Ok(layout) } else { Err(malformed) }
    }

    fn block<'a>(&self, bytes: &'a [u8], number: usize) -> Result<&'a [u8], BadBlock> {
        let at = number * BLOCK_BYTES;
        let block = &bytes[at..at + BLOCK_BYTES];
        if crc(self.seed.wrapping_add(len_u32(number)), &block[..BLOCK_CRC_AT])
            != le::u32_at(block, BLOCK_CRC_AT)
        {
            return Err(BadBlock { offset: at as u64, kind: DamageKind::Checksum });
        }
        Ok(block)
    }

    fn record<R: RecordOf>(&self, bytes: &[u8], table: Table, index: usize) -> Result<R, BadBlock> {
        assert!(index < table.records, "an index within the table");
        let block = self.block(bytes, table.first_block + index / R::PER_BLOCK)?;
        let at = index % R::PER_BLOCK * R::BYTES;
        Ok(R::get(&block[at..at + R::BYTES]))
    }

    /// Consecutive records; each block is verified once.
    fn records<R: RecordOf>(
        &self,
        bytes: &[u8],
        table: Table,
        range: Range<usize>,
    ) -> Result<Vec<R>, BadBlock> {
        if range.end > table.records {
            return Err(BadBlock { offset: 0, kind: DamageKind::Malformed });
        }
        let mut records = Vec::with_capacity(range.len());
        let mut at = range.start;
        while at < range.end {
            let block = self.block(bytes, table.first_block + at / R::PER_BLOCK)?;
            let end = range.end.min((at / R::PER_BLOCK + 1) * R::PER_BLOCK);
            let first = at % R::PER_BLOCK;
            records.extend(
                block[first * R::BYTES..(first + end - at) * R::BYTES].chunks_exact(R::BYTES).map(R::get),
            );
            at = end;
        }
        Ok(records)
    }

    /// Index of the first record that is not `before`, by halving over the blocks' first records, which are
    /// not verified, and then within one verified block. A wrong turn shows: the caller's record, or the
    /// verified neighbours, do not enclose what is sought.
    fn partition<R: RecordOf>(
        &self,
        bytes: &[u8],
        table: Table,
        before: impl Fn(&R) -> bool,
    ) -> Result<usize, BadBlock> {
        let blocks = table.records.div_ceil(R::PER_BLOCK);
        let (mut low, mut high) = (0, blocks);
        while low < high {
            let middle = usize::midpoint(low, high);
            let at = (table.first_block + middle) * BLOCK_BYTES;
            if before(&R::get(&bytes[at..at + R::BYTES])) { low = middle + 1 } else { high = middle }
        }
        // The block before the first whose first record is not before: it may hold the border.
        let Some(candidate) = low.checked_sub(1) else {
            self.check_start(bytes, table)?;
            return Ok(0);
        };
        let block = self.block(bytes, table.first_block + candidate)?;
        if low < blocks {
            self.block(bytes, table.first_block + low)?;
        }
        let start = candidate * R::PER_BLOCK;
        let count = R::PER_BLOCK.min(table.records - start);
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if before(&R::get(&block[middle * R::BYTES..(middle + 1) * R::BYTES])) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(start + low)
    }

    fn check_start(&self, bytes: &[u8], table: Table) -> Result<(), BadBlock> {
        if table.records > 0 {
            self.block(bytes, table.first_block)?;
        }
        Ok(())
    }

    /// All its records.
    #[cfg(feature = "testing")]
    pub(crate) fn tables(&self, bytes: &[u8]) -> Result<Tables, BadBlock> {
        Ok(Tables {
            frames: self.records(bytes, self.frames, 0..self.frames.records)?,
            streams: self.records(bytes, self.streams, 0..self.streams.records)?,
            keys: self.records(bytes, self.keys, 0..self.keys.records)?,
            ids: self.records(bytes, self.ids, 0..self.ids.records)?,
            postings: self.records(bytes, self.postings, 0..self.postings.records)?,
        })
    }

    /// Number of frames.
    pub(crate) fn frames(&self) -> usize {
        self.frames.records
    }

    /// Frames by their places in the order.
    pub(crate) fn frames_in(&self, bytes: &[u8], range: Range<usize>) -> Result<Vec<FrameEntry>, BadBlock> {
        self.records(bytes, self.frames, range)
    }

    /// The place in the order of the frame that holds this relative position. Batches without events
    /// share their first position with the next; the last of them is meant.
    pub(crate) fn frame_of(&self, bytes: &[u8], position: u32) -> Result<usize, BadBlock> {
        let behind = self.partition(bytes, self.frames, |frame: &FrameEntry| frame.position <= position)?;
        Ok(behind.saturating_sub(1))
    }

    /// Number of streams.
    pub(crate) fn streams(&self) -> usize {
        self.streams.records
    }

    /// Streams by their places in the order of hashes.
    pub(crate) fn streams_in(&self, bytes: &[u8], range: Range<usize>) -> Result<Vec<StreamEntry>, BadBlock> {
        self.records(bytes, self.streams, range)
    }

    /// How many streams and keys there are.
    pub(crate) fn hash_count(&self) -> usize {
        self.streams.records + self.keys.records
    }

    /// Calls `each` with the hash of every stream and key.
    pub(crate) fn each_hash(&self, bytes: &[u8], mut each: impl FnMut(u64)) -> Result<(), BadBlock> {
        self.each_record(bytes, self.streams, |stream: StreamEntry| each(stream.hash))?;
        self.each_record(bytes, self.keys, |key: KeyEntry| each(key.hash))
    }

    /// Calls `each` with half of the hash of every id.
    pub(crate) fn each_id(&self, bytes: &[u8], mut each: impl FnMut(u32)) -> Result<(), BadBlock> {
        self.each_record(bytes, self.ids, |id: IdEntry| each(id.half))
    }

    /// Calls `each` with the records of a table.
    fn each_record<R: RecordOf>(
        &self,
        bytes: &[u8],
        table: Table,
        mut each: impl FnMut(R),
    ) -> Result<(), BadBlock> {
        for first in (0..table.records).step_by(R::PER_BLOCK) {
            let block = self.block(bytes, table.first_block + first / R::PER_BLOCK)?;
            let count = R::PER_BLOCK.min(table.records - first);
            block[..count * R::BYTES].chunks_exact(R::BYTES).for_each(|record| each(R::get(record)));
        }
        Ok(())
    }

    /// Whether a stream or key with this hash may be here; `false` is certain.
    pub(crate) fn may_hold(&self, bytes: &[u8], hash: u64) -> Result<bool, BadBlock> {
        let Some(table) = self.filter else { return Ok(true) };
        let start = table.first_block * BLOCK_BYTES;
        let filter = &bytes[start..start + table.records * FILTER_BLOCK_BYTES];
        filter::may_hold(filter, self.seed, hash).map_err(|block| BadBlock {
            offset: (start + block * FILTER_BLOCK_BYTES) as u64,
            kind: DamageKind::Checksum,
        })
    }

    /// The streams with this hash.
    pub(crate) fn streams_of(&self, bytes: &[u8], hash: u64) -> Result<Vec<StreamEntry>, BadBlock> {
        let first = self.partition(bytes, self.streams, |stream: &StreamEntry| stream.hash < hash)?;
        let mut found = Vec::new();
        for index in first..self.streams.records {
            let entry: StreamEntry = self.record(bytes, self.streams, index)?;
            if entry.hash != hash {
                break;
            }
            if !self.is_possible(&entry) {
                return Err(BadBlock { offset: 0, kind: DamageKind::Malformed });
            }
            found.push(entry);
        }
        Ok(found)
    }

    /// Whether a stream can have this part of a segment: an event at least, and versions that go on.
    fn is_possible(&self, entry: &StreamEntry) -> bool {
        let PostingRange { first, count } = entry.postings;
        count > 0
            && first as usize + count as usize <= self.postings.records
            && entry.first_version.checked_add(u64::from(count)).is_some()
    }

    /// The relative positions of events that may have one of these ids, in the order of the ids.
    pub(crate) fn ids_of(&self, bytes: &[u8], ids: &[IdKey]) -> Result<Vec<u32>, BadBlock> {
        let mut positions = Vec::new();
        for id in ids {
            if !self.may_hold(bytes, id.in_filter)? {
                continue;
            }
            let first = self.partition(bytes, self.ids, |entry: &IdEntry| entry.half < id.half)?;
            for index in first..self.ids.records {
                let entry: IdEntry = self.record(bytes, self.ids, index)?;
                if entry.half != id.half {
                    break;
                }
                positions.push(entry.position);
            }
        }
        Ok(positions)
    }

    /// The key with this hash.
    pub(crate) fn key_of(&self, bytes: &[u8], hash: u64) -> Result<Option<KeyEntry>, BadBlock> {
        let at = self.partition(bytes, self.keys, |key: &KeyEntry| key.hash < hash)?;
        if at == self.keys.records {
            return Ok(None);
        }
        Ok(Some(self.record(bytes, self.keys, at)?).filter(|entry: &KeyEntry| entry.hash == hash))
    }

    /// The relative positions of these ranks, of the events of a stream or key.
    pub(crate) fn postings(
        &self,
        bytes: &[u8],
        postings: PostingRange,
        ranks: Range<u32>,
    ) -> Result<Vec<u32>, BadBlock> {
        if ranks.end > postings.count {
            return Err(BadBlock { offset: 0, kind: DamageKind::Malformed });
        }
        let first = postings.first as usize;
        self.records(bytes, self.postings, first + ranks.start as usize..first + ranks.end as usize)
    }

    /// The greatest posting below a relative position, and the least that is not. Found by halving over postings that are
    /// not verified; those that are returned are, and they enclose the position, so that no wrong turn stays unseen.
    pub(crate) fn postings_around(
        &self,
        bytes: &[u8],
        postings: PostingRange,
        position: u32,
    ) -> Result<(Option<u32>, Option<u32>), BadBlock> {
        let malformed = BadBlock { offset: 0, kind: DamageKind::Malformed };
        let first = postings.first as usize;
        if first + postings.count as usize > self.postings.records {
            return Err(malformed);
        }
        let place = |rank: u32| {
            let index = first + rank as usize;
            (self.postings.first_block + index / u32::PER_BLOCK, index % u32::PER_BLOCK * u32::BYTES)
        };
        let (mut low, mut high) = (0, postings.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let (block, at) = place(middle);
            if le::u32_at(bytes, block * BLOCK_BYTES + at) < position {
                low = middle + 1
            } else {
                high = middle
            }
        }
        let verified = |rank: u32| {
            let (block, at) = place(rank);
            Ok::<_, BadBlock>(le::u32_at(self.block(bytes, block)?, at))
        };
        let below = low.checked_sub(1).map(verified).transpose()?;
        let at = (low < postings.count).then(|| verified(low)).transpose()?;
        let encloses = below.is_none_or(|below| below < position) && at.is_none_or(|at| at >= position);
        if encloses { Ok((below, at)) } else { Err(malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_without_events_with_too_many_or_with_versions_that_do_not_go_on_is_damage() {
        let (store, of) =
            (Uuid::from_u128(7), IndexOf { ordinal: 1, salt: 2, first_position: 3, last_crc: 4 });
        let streams_of = |first_version, count| {
            let entry = StreamEntry { hash: 9, postings: PostingRange { first: 0, count }, first_version };
            let bytes = encode(store, of, &[], &[entry], &[], &[], &[5, 6]);
            let layout = Layout::decode(&bytes, store, of).expect("it was just made");
            layout.streams_of(&bytes, 9).map(|found| found.len())
        };
        assert_eq!(streams_of(8, 2), Ok(1));
        let malformed = Err(BadBlock { offset: 0, kind: DamageKind::Malformed });
        assert_eq!(streams_of(8, 0), malformed);
        assert_eq!(streams_of(8, 3), malformed);
        assert_eq!(streams_of(u64::MAX - 1, 2), malformed);
    }
}
