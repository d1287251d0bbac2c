//! Who is woken without a thread of its own: a place for one waker, registered where it waits.

use crate::sync::{AtomicBool, Mutex, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Wakes somebody. A waker that panics is its owner's affair: the thread that woke it has others to serve.
pub(crate) fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

/// See the module. Being registered twice, or asked to wait with another waker, costs nothing more.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    waker: Mutex<Option<Waker>>,
    registered: AtomicBool,
}

impl Watcher {
    /// Waits with this waker from now on; whether it has still to be registered.
    pub(crate) fn set(&self, waker: &Waker) -> bool {
        let mut place = self.waker.lock();
        let before = if place.as_ref().is_some_and(|known| known.will_wake(waker)) {
            None
        } else {
            place.replace(waker.clone())
        };
        drop(place);
        // Not under the lock: it may be the last one that knows whom it would have woken.
        drop(before);
        !self.registered.swap(true, Ordering::SeqCst)
    }

    /// Wakes who waits. It is registered no more.
    pub(crate) fn wake(&self) {
        let mut place = self.waker.lock();
        self.registered.store(false, Ordering::SeqCst);
        let waker = place.take();
        drop(place);
        waker.into_iter().for_each(wake);
    }

    /// Wakes who waits for another reason: it stays registered.
    pub(crate) fn nudge(&self) {
        let waker = self.waker.lock().take();
        waker.into_iter().for_each(wake);
    }
}
