//! The records of an index's tables: how each is laid out in a block.

use super::{BLOCK_BYTES, FRAME_ALIGNMENT, le, len_u32, to_usize};

/// Where a block of a table has its checksum, behind whole records.
pub(super) const BLOCK_CRC_AT: usize = BLOCK_BYTES - 4;

pub(super) const KIND_FRAMES: u32 = 1;
pub(super) const KIND_STREAMS: u32 = 2;
pub(super) const KIND_POSTINGS: u32 = 3;
pub(super) const KIND_FILTER: u32 = 4;
pub(super) const KIND_KEYS: u32 = 5;
pub(super) const KIND_IDS: u32 = 6;

/// Where a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameEntry {
    /// First position, relative to the segment's.
    pub(crate) position: u32,
    pub(crate) offset: u64,
}

/// A stream's part of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StreamEntry {
    pub(crate) hash: u64,
    pub(crate) postings: PostingRange,
    pub(crate) first_version: u64,
}

/// The events of a segment that have a key with this hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeyEntry {
    pub(crate) hash: u64,
    pub(crate) postings: PostingRange,
}

/// The event whose id has this half of a hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct IdEntry {
    pub(crate) half: u32,
    pub(crate) position: u32,
}

/// Consecutive postings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PostingRange {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl PostingRange {
    const BYTES: usize = 8;

    fn put(self, bytes: &mut [u8], at: usize) {
        le::put_u32(bytes, at, self.first);
        le::put_u32(bytes, at + 4, self.count);
    }

    fn get(bytes: &[u8], at: usize) -> Self {
        Self { first: le::u32_at(bytes, at), count: le::u32_at(bytes, at + 4) }
    }
}

/// A record of a table.
pub(super) trait RecordOf: Sized {
    const KIND: u32;
    const BYTES: usize;
    const PER_BLOCK: usize = BLOCK_CRC_AT / Self::BYTES;
    fn put(&self, bytes: &mut [u8]);
    fn get(bytes: &[u8]) -> Self;
}

impl RecordOf for FrameEntry {
    const KIND: u32 = KIND_FRAMES;
    const BYTES: usize = 8;

    fn put(&self, bytes: &mut [u8]) {
        le::put_u32(bytes, 0, self.position);
        le::put_u32(bytes, 4, len_u32(to_usize(self.offset) / FRAME_ALIGNMENT));
    }

    fn get(bytes: &[u8]) -> Self {
        let offset = u64::from(le::u32_at(bytes, 4)) * FRAME_ALIGNMENT as u64;
        Self { position: le::u32_at(bytes, 0), offset }
    }
}

impl RecordOf for StreamEntry {
    const KIND: u32 = KIND_STREAMS;
    const BYTES: usize = 24;

    fn put(&self, bytes: &mut [u8]) {
        le::put_u64(bytes, 0, self.hash);
        self.postings.put(bytes, 8);
        le::put_u64(bytes, 8 + PostingRange::BYTES, self.first_version);
    }

    fn get(bytes: &[u8]) -> Self {
        Self {
            hash: le::u64_at(bytes, 0),
            postings: PostingRange::get(bytes, 8),
            first_version: le::u64_at(bytes, 8 + PostingRange::BYTES),
        }
    }
}

impl RecordOf for KeyEntry {
    const KIND: u32 = KIND_KEYS;
    const BYTES: usize = 16;

    fn put(&self, bytes: &mut [u8]) {
        le::put_u64(bytes, 0, self.hash);
        self.postings.put(bytes, 8);
    }

    fn get(bytes: &[u8]) -> Self {
        Self { hash: le::u64_at(bytes, 0), postings: PostingRange::get(bytes, 8) }
    }
}

impl RecordOf for IdEntry {
    const KIND: u32 = KIND_IDS;
    const BYTES: usize = 8;

    fn put(&self, bytes: &mut [u8]) {
        le::put_u32(bytes, 0, self.half);
        le::put_u32(bytes, 4, self.position);
    }

    fn get(bytes: &[u8]) -> Self {
        Self { half: le::u32_at(bytes, 0), position: le::u32_at(bytes, 4) }
    }
}

impl RecordOf for u32 {
    const KIND: u32 = KIND_POSTINGS;
    const BYTES: usize = 4;

    fn put(&self, bytes: &mut [u8]) {
        le::put_u32(bytes, 0, *self);
    }

    fn get(bytes: &[u8]) -> Self {
        le::u32_at(bytes, 0)
    }
}
