//! The image: the newest bytes of a segment in memory, from which they are written and read.
//!
//! A list of aligned chunks. Appenders reserve disjoint places under the commit's lock and fill them without
//! it. What a chunk held before is still in it where nobody filled it: only what was filled is written or read.
#![allow(unsafe_code)]

use crate::disk::{Chunk, Memory, Piece, is_memory_short};
use crate::format::{BLOCK_BYTES, align_down, to_usize};
use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;

/// Size of a chunk: large enough that frames seldom straddle two, small enough to be let go of soon.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that the process keeps for reuse: what a busy store cycles through.
const POOL_CHUNKS_MAX: usize = 48;

static POOL: Mutex<Vec<Chunk>> = Mutex::new(Vec::new());

fn take_chunk() -> Arc<Chunk> {
    Arc::new(POOL.lock().pop().unwrap_or_else(|| Chunk::new(CHUNK_BYTES)))
}

fn give_back(chunk: Arc<Chunk>) {
    if let Ok(chunk) = Arc::try_unwrap(chunk) {
        let mut pool = POOL.lock();
        if pool.len() < POOL_CHUNKS_MAX && !is_memory_short() {
            pool.push(chunk);
        }
    }
}

/// One chunk of an image, for frames that lie in it as a whole: filling them looks for nothing and counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    /// The chunk's offset in the file.
    start: u64,
    chunk: Option<Memory>,
}

impl Window {
    /// Whether all of `start..end` lies in it.
    pub(crate) fn holds(&self, start: u64, end: u64) -> bool {
        self.chunk.is_some() && start >= self.start && end <= self.start + CHUNK_BYTES as u64
    }

    /// Fills a range, if all of it lies here; whether it did.
    ///
    /// # Safety
    /// As [`Image::fill`] of the image that it is of, which still has the range.
    pub(crate) unsafe fn fill(&self, offset: u64, bytes: &[u8]) -> bool {
        let Some(chunk) = self.chunk.filter(|_| self.holds(offset, offset + bytes.len() as u64)) else {
            return false;
        };
        // SAFETY: the range is inside the chunk, which the image has, and the caller's.
        unsafe { chunk.fill(to_usize(offset - self.start), bytes) };
        true
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Image {
    chunks: RwLock<Chunks>,
}

#[derive(Debug, Default)]
struct Chunks {
    /// Number of the first chunk: its offset in the file over the size of a chunk.
    first: u64,
    list: VecDeque<Arc<Chunk>>,
    /// What lies before is not here, though its chunk may be.
    start: u64,
}

impl Image {
    /// An image of what is behind `offset`.
    pub(crate) fn new(offset: u64) -> Self {
        let first = offset / CHUNK_BYTES as u64;
        Self { chunks: RwLock::new(Chunks { first, list: VecDeque::new(), start: offset }) }
    }

    /// Makes sure that there is memory for `start..end`; returns the chunk that it ends in.
    pub(crate) fn reserve(&self, start: u64, end: u64) -> Window {
        let mut chunks = self.chunks.write();
        let place =
            |chunks: &Chunks| to_usize(end.saturating_sub(1).max(start) / CHUNK_BYTES as u64 - chunks.first);
        while chunks.list.len() <= place(&chunks) {
            chunks.list.push_back(take_chunk());
        }
        let number = place(&chunks);
        let start = (chunks.first + number as u64) * CHUNK_BYTES as u64;
        Window { start, chunk: Some(chunks.list[number].memory()) }
    }

    /// Calls `visit` with the chunk and the range in it for each part of the file's bytes `start..end`; `false`:
    /// some of it is not (or no longer) here.
    fn parts(
        &self,
        start: u64,
        end: u64,
        mut visit: impl FnMut(&Arc<Chunk>, std::ops::Range<usize>),
    ) -> bool {
        let chunks = self.chunks.read();
        if start == end {
            return start >= chunks.start;
        }
        let number = |offset: u64| (offset / CHUNK_BYTES as u64).checked_sub(chunks.first).map(to_usize);
        let Some(first) = number(start).filter(|_| start >= chunks.start) else { return false };
        if number(end.saturating_sub(1)).is_none_or(|last| last >= chunks.list.len()) {
            return false;
        }
        let mut at = start;
        for chunk in chunks.list.iter().skip(first) {
            if at >= end {
                break;
            }
            let from = to_usize(at % CHUNK_BYTES as u64);
            let count = (CHUNK_BYTES - from).min(to_usize(end - at));
            visit(chunk, from..from + count);
            at += count as u64;
        }
        true
    }

    /// Fills a range.
    ///
    /// # Safety
    /// Nobody else fills or reads any of `offset..offset + bytes.len()` before this returns, and it is
    /// filled once.
    pub(crate) unsafe fn fill(&self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        let filled = self.parts(offset, offset + bytes.len() as u64, |chunk, range| {
            let (part, tail) = rest.split_at(range.len());
            // SAFETY: the part is inside the caller's range.
            unsafe { chunk.fill(range.start, part) };
            rest = tail;
        });
        assert!(filled, "the place was reserved");
    }

    /// Copies filled bytes out; `false`: not here.
    ///
    /// # Safety
    /// All of the range was filled before.
    pub(crate) unsafe fn copy_to(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let mut at = 0;
        self.parts(offset, offset + buffer.len() as u64, |chunk, range| {
            let count = range.len();
            // SAFETY: filled, by the caller's promise, and filled once.
            let bytes = unsafe { chunk.filled(range) };
            buffer[at..at + count].copy_from_slice(bytes);
            at += count;
        })
    }

    /// Lends filled bytes: borrowed where they lie in one chunk, else copied; `None`: not here.
    ///
    /// # Safety
    /// All of the range was filled before.
    pub(crate) unsafe fn lend(&self, offset: u64, len: usize) -> Option<Bytes> {
        let mut pieces: Vec<Piece> = Vec::with_capacity(1);
        let here = self.parts(offset, offset + len as u64, |chunk, range| {
            // SAFETY: filled, by the caller's promise, and filled once.
            pieces.push(unsafe { Piece::new(Arc::clone(chunk), range) });
        });
        if !here {
            return None;
        }
        if pieces.len() == 1 {
            return pieces.pop().map(Bytes::from_owner);
        }
        let mut copy = BytesMut::with_capacity(len);
        pieces.iter().for_each(|piece| copy.extend_from_slice(piece.as_ref()));
        Some(copy.freeze())
    }

    /// The pieces of a device write that covers `start..end`: whole blocks straight from the image, and the
    /// last, partly filled block as a copy, because others go on filling the rest of it.
    ///
    /// # Safety
    /// All of `start..end` was filled before; what lies before it in its first block, too.
    pub(crate) unsafe fn write_pieces(&self, start: u64, end: u64) -> Vec<Piece> {
        let from = align_down(start, BLOCK_BYTES);
        let whole = align_down(end, BLOCK_BYTES);
        let mut pieces = Vec::with_capacity(3);
        let mut here = true;
        if from < whole {
            here = self.parts(from, whole, |chunk, range| {
                // SAFETY: filled, by the caller's promise, and filled once.
                pieces.push(unsafe { Piece::new(Arc::clone(chunk), range) });
            });
        }
        if whole < end {
            let mut tail = vec![0; to_usize(end - whole)];
            // SAFETY: filled, by the caller's promise.
            here &= unsafe { self.copy_to(whole, &mut tail) };
            pieces.push(Piece::copied(&tail));
        }
        assert!(here, "bytes stay in the image until they are durable");
        pieces
    }

    /// Lets go of whole chunks before `offset`.
    pub(crate) fn trim(&self, offset: u64) {
        let keep_from = offset / CHUNK_BYTES as u64;
        loop {
            let mut chunks = self.chunks.write();
            if chunks.first >= keep_from || chunks.list.is_empty() {
                return;
            }
            let chunk = chunks.list.pop_front();
            chunks.first += 1;
            drop(chunks);
            chunk.into_iter().for_each(give_back);
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.chunks.get_mut().list.drain(..).for_each(give_back);
    }
}
