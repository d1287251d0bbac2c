//! Memory that a device can write from directly: aligned to a block, stable, shared by reference count.
#![allow(unsafe_code)]

use crate::prefetch::fetch_to_write;
use annals_types::limits;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Alignment of memory, offsets and lengths of direct writes.
pub(crate) const ALIGNMENT: usize = 4096;

/// Bytes of all chunks of the process.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
/// Bytes of chunks from which on memory is short.
static SHORT_FROM: AtomicUsize = AtomicUsize::new(limits::LOG_MEMORY_BYTES_MAX);

/// Whether chunks take as much memory as they may, over all stores of the process: appends then wait for what is on
/// its way, and nothing is kept that is durable.
pub(crate) fn is_memory_short() -> bool {
    ALLOCATED.load(Ordering::Relaxed) >= SHORT_FROM.load(Ordering::Relaxed)
}

/// Sets from where on it is.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn set_memory_short_from(bytes: usize) {
    SHORT_FROM.store(bytes, Ordering::Relaxed);
}

/// An aligned piece of memory, zeroed at first, whose disjoint parts are filled once each, by whoever reserved them,
/// and read by anybody afterwards.
#[derive(Debug)]
pub(crate) struct Chunk {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is owned by the chunk and not tied to a thread.
unsafe impl Send for Chunk {}
// SAFETY: shared access goes through the methods below, which only read ranges that were filled before and
// write ranges that one caller reserved for itself, as their contracts demand.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// A zeroed chunk; `len` is a multiple of a block and not zero.
    pub(crate) fn new(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout has a non-zero size, asserted in `layout`.
        let memory = unsafe { alloc_zeroed(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        ALLOCATED.fetch_add(len, Ordering::Relaxed);
        Self { memory, len }
    }

    fn layout(len: usize) -> Layout {
        assert!(len > 0 && len.is_multiple_of(ALIGNMENT), "chunks are whole blocks");
        Layout::from_size_align(len, ALIGNMENT).expect("chunks are far smaller than the address space")
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.len, "an offset within the chunk");
        // SAFETY: the offset is within the allocation, or one past its end.
        unsafe { self.memory.as_ptr().add(offset) }
    }

    /// Bytes that were filled.
    ///
    /// # Safety
    /// Nobody writes this range while the returned slice lives, and what wrote it happened before.
    pub(crate) unsafe fn filled(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len, "a range within the chunk");
        // SAFETY: the range is inside the allocation, initialised (zeroed at first) and, by the caller's promise,
        // not written meanwhile.
        unsafe { std::slice::from_raw_parts(self.at(range.start), range.end - range.start) }
    }

    /// Fills a range.
    ///
    /// # Safety
    /// The range was reserved for the caller alone: nobody reads or writes it until this returns and is
    /// made known to them with at least release ordering.
    pub(crate) unsafe fn fill(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: the chunk is there, and the range is the caller's by its promise.
        unsafe { self.memory().fill(offset, bytes) };
    }

    /// Its memory, which does not keep it alive.
    pub(crate) fn memory(&self) -> Memory {
        Memory { start: self.memory, len: self.len }
    }

    /// All of it, while nobody else has it.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the range is the whole allocation, initialised, and `&mut self` makes it ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

/// How far behind what is being filled memory is asked for, and how much of it at the most: what is filled next but one,
/// by any thread, where it is short. Longer ranges are fetched as they are filled.
const FETCHED_AHEAD_BYTES: usize = 512;
const FETCHED_BYTES_MAX: usize = 1 << 10;

/// A chunk's memory, as long as something else keeps the chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is but an address; what uses it promises that the chunk is there.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Fills a range.
    ///
    /// # Safety
    /// As [`Chunk::fill`], and the chunk still exists.
    pub(crate) unsafe fn fill(self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len, "a range within the chunk");
        // The next ones will be about as long.
        let next = self.start.as_ptr().addr().wrapping_add(offset + bytes.len() + FETCHED_AHEAD_BYTES);
        fetch_to_write(next, bytes.len().min(FETCHED_BYTES_MAX));
        // SAFETY: the offset is within the allocation, which is there by the caller's promise.
        let place = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: the destination is inside the allocation and the caller's own, by its promise; the source is a slice
        // elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        ALLOCATED.fetch_sub(self.len, Ordering::Relaxed);
        // SAFETY: the memory was allocated with this very layout, and nothing refers to it any more.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.len)) };
    }
}

/// A filled part of a chunk; keeps the chunk alive. What a device writes from, and what readers borrow.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    chunk: Arc<Chunk>,
    range: Range<usize>,
}

impl Piece {
    /// Shares a filled part of `chunk`.
    ///
    /// # Safety
    /// The range was filled before, and nobody writes it as long as the piece lives.
    pub(crate) unsafe fn new(chunk: Arc<Chunk>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= chunk.len(), "a range within the chunk");
        Self { chunk, range }
    }

    /// A piece of its own with these bytes, zero-filled up to whole blocks.
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        let len = bytes.len().next_multiple_of(ALIGNMENT).max(ALIGNMENT);
        let chunk = Chunk::new(len);
        // SAFETY: the chunk was just made and nobody else knows it.
        unsafe { chunk.fill(0, bytes) };
        Self { chunk: Arc::new(chunk), range: 0..len }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: whoever made the piece promised that the range is filled and not written any more.
        unsafe { self.chunk.filled(self.range.clone()) }
    }
}

// SAFETY: the pointer is stable (the chunk never moves its memory and the piece keeps it alive), and all of the
// range's bytes are initialised.
unsafe impl tokio_uring::buf::IoBuf for Piece {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ref().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.range.len()
    }

    fn bytes_total(&self) -> usize {
        self.range.len()
    }
}
