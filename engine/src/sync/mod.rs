//! What threads wait on and count in where they meet without a lock of the order: the log's watermark, its groups, its alarm, the
//! gate. One place, so that a model checker can put its own in place of the processor's: then all orders are tried in which threads
//! may meet, and what one of them may see of another. See `models`.

#[cfg(annals_loom)]
mod model;
#[cfg(not(annals_loom))]
mod word;

#[cfg(all(test, annals_loom))]
pub(crate) use self::model::count_at;
#[cfg(annals_loom)]
pub(crate) use self::model::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Mutex, Word, stripe};
#[cfg(not(annals_loom))]
pub(crate) use self::word::Word;
#[cfg(not(annals_loom))]
pub(crate) use parking_lot::Mutex;
pub(crate) use std::sync::atomic::Ordering;
#[cfg(not(annals_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

/// How often it is looked before sleeping. Where all orders are tried, looking once more is none.
pub(crate) const fn spins(count: usize) -> usize {
    if cfg!(annals_loom) { 0 } else { count }
}

/// How many there are of something. Where all orders are tried, two show all that many would.
pub(crate) const fn many(count: usize) -> usize {
    if cfg!(annals_loom) { 2 } else { count }
}
