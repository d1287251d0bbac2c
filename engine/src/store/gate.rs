//! The lock that the order is decided under, and what is waited for under it.
//!
//! The standard library's: under it, threads that run may overtake threads that sleep. A lock that hands itself over
//! in turn makes every append wait for a sleeper to wake, once more threads append than there are cores.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A mutex. A panic under it poisons the store by other means; the lock itself goes on.
#[derive(Debug, Default)]
pub(crate) struct Gate<T>(Mutex<T>);

impl<T> Gate<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that is waited for under a [`Gate`].
#[derive(Debug, Default)]
pub(crate) struct Bell(Condvar);

impl Bell {
    /// Gives the lock up until the bell is rung.
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, for this long at the most.
    pub(crate) fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, time: Duration) -> MutexGuard<'a, T> {
        self.0.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn ring(&self) {
        self.0.notify_all();
    }
}
