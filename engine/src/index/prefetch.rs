//! Asking the processor for memory before it is needed. A look-up among a million streams touches memory that is in no
//! cache: asked for early, it is there when the lock is held.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Asks for the memory at an address, which need not be one.
fn fetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching reads nothing that the program could see, and never faults, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch(address as *const i8, std::arch::x86_64::_MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks for an item of a slice.
pub(crate) fn fetch_item<T>(items: &[T], at: usize) {
    if let Some(item) = items.get(at) {
        fetch(std::ptr::from_ref(item).addr());
    }
}

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
