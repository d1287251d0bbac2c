//! A group: batches made durable by one device write; and the count of its places that are filled.

use super::unsealed::Unsealed;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Groups that can be filled at once: the open one and those just closed. Two are enough; more cost nothing.
const COUNTERS: usize = 8;

/// Frames that go to the device together.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) number: u64,
    pub(crate) segment: Arc<Unsealed>,
    /// Its frames: `start..end`, with `start` behind the frame before or at a block.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) frames: u64,
    /// What follows its last batch.
    pub(crate) next_batch: u64,
    pub(crate) next_position: u64,
    /// The segment's header, where this group is its first: durable before the group is.
    pub(crate) header: Option<Vec<u8>>,
    /// All bytes reserved in the log up to its end, counted since opening.
    pub(crate) reserved_total: u64,
}

/// How many of a group's places are filled.
#[derive(Debug, Default)]
pub(crate) struct Fills([AtomicU64; COUNTERS]);

impl Fills {
    fn counter(&self, group: u64) -> &AtomicU64 {
        &self.0[crate::format::to_usize(group % COUNTERS as u64)]
    }

    /// One more place of `group` is filled.
    pub(crate) fn add(&self, group: u64) {
        self.counter(group).fetch_add(1, Ordering::Release);
    }

    /// Waits until all `frames` places of a closed group are filled: copies in progress, each of them
    /// infallible and short.
    pub(crate) fn wait_for(&self, group: u64, frames: u64) {
        let counter = self.counter(group);
        let mut spins = 0_u32;
        while counter.load(Ordering::Acquire) < frames {
            spins += 1;
            if spins < 100 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        counter.store(0, Ordering::Relaxed);
    }
}
