//! A group: batches made durable by one device write; and the count of its places that are filled.

use super::unsealed::Unsealed;
use crate::striped::{STRIPES, stripe};
use crate::sync::{AtomicBool, AtomicU32, Ordering, Word, many, spins};
use std::sync::Arc;

/// Groups that can be filled at once: the open one and those closed that the writer has not taken, four with rolls.
const COUNTERS: usize = many(8);
/// Looks at a count before sleeping: a copy of a small frame takes less than a microsecond.
const SPINS: usize = spins(200);

/// Frames that go to the device together.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) number: u64,
    pub(crate) segment: Arc<Unsealed>,
    /// Its frames: `start..end`, with `start` behind the frame before or at a block.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) frames: u32,
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
pub(crate) struct Fills([Counter; COUNTERS]);

#[derive(Debug, Default)]
struct Counter {
    filled: [Filled; STRIPES],
    waiting: Waiting,
}

/// Places filled by the threads that count here. In a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Filled(AtomicU32);

/// What all who fill look at, and nobody changes unless the writer sleeps.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Waiting {
    /// Whether the writer sleeps until `changes` does.
    awaited: AtomicBool,
    changes: Word,
}

impl Counter {
    fn sum(&self) -> u32 {
        self.filled.iter().map(|filled| filled.0.load(Ordering::SeqCst)).sum()
    }
}

impl Fills {
    fn counter(&self, group: u64) -> &Counter {
        &self.0[crate::format::to_usize(group % COUNTERS as u64)]
    }

    /// Places of `group`, which the writer has not taken, that are filled.
    pub(crate) fn filled(&self, group: u64) -> u32 {
        self.counter(group).sum()
    }

    /// So many more places of `group` are filled.
    pub(crate) fn add(&self, group: u64, places: u32) {
        let Counter { filled, waiting } = self.counter(group);
        filled[stripe()].0.fetch_add(places, Ordering::SeqCst);
        if waiting.awaited.load(Ordering::SeqCst) {
            waiting.changes.fetch_add(1, Ordering::SeqCst);
            waiting.changes.wake_one();
        }
    }

    /// Waits until all `frames` places of a closed group are filled: copies in progress, each of them infallible
    /// and short. Sleeps rather than yields: the thread that copies may need this very core.
    pub(crate) fn wait_for(&self, group: u64, frames: u32) {
        let counter = self.counter(group);
        let looks = (0..SPINS).take_while(|_| counter.sum() < frames);
        if looks.map(|_| std::hint::spin_loop()).count() == SPINS {
            let Waiting { awaited, changes } = &counter.waiting;
            awaited.store(true, Ordering::SeqCst);
            loop {
                let seen = changes.load(Ordering::SeqCst);
                if counter.sum() >= frames {
                    break;
                }
                // Interrupted, or changed meanwhile: look again.
                changes.sleep(seen, None);
            }
            awaited.store(false, Ordering::SeqCst);
        }
        counter.filled.iter().for_each(|filled| filled.0.store(0, Ordering::SeqCst));
    }
}
