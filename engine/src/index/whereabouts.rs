//! Where the tables are that a look-up will touch, for those who ask the processor for them before they hold the lock.

use crate::prefetch::fetch;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Where a table of slots is, told to those who do not hold the lock that it is under. May be of the past: then it
/// helps nobody, and harms nobody. In a cache line of its own: everybody looks at it, and it seldom changes.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Whereabouts {
    start: AtomicUsize,
    bits: AtomicU32,
}

impl Whereabouts {
    /// The slots are these.
    pub(crate) fn tell(&self, slots: &[u64]) {
        let (start, bits) = (slots.as_ptr().addr(), slots.len().checked_ilog2().unwrap_or(0));
        // Told again and again: only what is new is written, for the others read it all the time.
        if (self.start.load(Ordering::Relaxed), self.bits.load(Ordering::Relaxed)) != (start, bits) {
            self.start.store(start, Ordering::Relaxed);
            self.bits.store(bits, Ordering::Relaxed);
        }
    }

    /// Asks for the slot where the search for half of a hash begins.
    pub(crate) fn fetch(&self, half: u32) {
        let home = super::slots::home(half, self.bits.load(Ordering::Relaxed));
        fetch(self.start.load(Ordering::Relaxed).wrapping_add(home * size_of::<u64>()));
    }
}
