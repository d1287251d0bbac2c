//! Counting without a cache line that all cores fight for: each thread counts in one of several places.
//!
//! Changing a word that another core changed last takes as long as a hundred instructions. A reference counted for each
//! append, over and over on every core, costs more than what it is counted for.

use crate::sync::many;
#[cfg(not(annals_loom))]
use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
#[cfg(not(annals_loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places to count in. Threads beyond that share some.
pub(crate) const STRIPES: usize = many(8);

#[cfg(not(annals_loom))]
static NEXT: AtomicUsize = AtomicUsize::new(0);

#[cfg(not(annals_loom))]
thread_local! {
    static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
}

/// Where this thread counts: below [`STRIPES`].
#[cfg(not(annals_loom))]
pub(crate) fn stripe() -> usize {
    // A thread that is ending may count anywhere.
    OWN.try_with(Cell::get).unwrap_or(0)
}

/// The same, of a thread of the model.
#[cfg(annals_loom)]
pub(crate) use crate::sync::stripe;

/// A value whose references are counted in several places.
#[derive(Debug)]
pub(crate) struct Shared<T>([Share<T>; STRIPES]);

/// A reference to the value; keeps it alive.
#[derive(Debug)]
pub(crate) struct Share<T>(Arc<Counted<T>>);

/// In a cache line apart from its count.
#[derive(Debug)]
#[repr(align(64))]
struct Counted<T>(Arc<T>);

impl<T> Shared<T> {
    pub(crate) fn new(value: &Arc<T>) -> Self {
        Self(std::array::from_fn(|_| Share(Arc::new(Counted(Arc::clone(value))))))
    }

    /// One more reference.
    pub(crate) fn share(&self) -> Share<T> {
        self.0[stripe()].clone()
    }
}

impl<T> Deref for Shared<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0[0].0.0
    }
}

impl<T> Clone for Share<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Share<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0.0
    }
}

#[cfg(test)]
mod tests {
    use crate::striped::{STRIPES, Shared};
    use std::sync::Arc;

    #[test]
    fn the_value_lives_as_long_as_any_reference() {
        let value = Arc::new(5);
        let shared = Shared::new(&value);
        let weak = Arc::downgrade(&value);
        drop(value);
        let shares: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2 * STRIPES).map(|_| scope.spawn(|| shared.share())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        drop(shared);
        for share in shares {
            assert_eq!(**share, 5);
            assert_eq!(weak.upgrade().as_deref(), Some(&5));
        }
        assert!(weak.upgrade().is_none());
    }
}
