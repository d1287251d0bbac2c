//! The lock that the order is decided under, and what is waited for under it.
//!
//! Threads that run may overtake threads that sleep: a lock that hands itself over in turn makes every append wait for a
//! sleeper to wake, once more threads append than there are cores. And giving the lock back is apart from waking a
//! sleeper ([`GateGuard::release`]): the system may run the woken thread at once, on the core of the one that woke it,
//! which then had better owe nobody anything.
#![allow(unsafe_code)]

use crate::sync::{Ordering, Word, spins};
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// Looks at a held lock before sleeping: it is held for less than a microsecond, unless its holder lost its core.
const SPINS: usize = spins(100);

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may sleep until it is free.
const AWAITED: u32 = 2;

/// A mutex. A panic under it poisons the store by other means; the lock itself goes on.
pub(crate) struct Gate<T> {
    word: Apart,
    value: UnsafeCell<T>,
}

/// In a cache line of its own: who looks at it does not take the value from its holder.
#[derive(Debug)]
#[repr(align(64))]
struct Apart(Word);

// SAFETY: the value is reached through a guard alone, and there is one guard at a time.
unsafe impl<T: Send> Sync for Gate<T> {}

impl<T> Gate<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { word: Apart(Word::new(FREE)), value: UnsafeCell::new(value) }
    }

    pub(crate) fn lock(&self) -> GateGuard<'_, T> {
        if self.word.0.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_held();
        }
        GateGuard { gate: self, _value: PhantomData }
    }

    #[cold]
    fn lock_held(&self) {
        for _ in 0..SPINS {
            std::hint::spin_loop();
            // Not where somebody sleeps already: whoever gives it back then wakes for all of us.
            match self.word.0.load(Ordering::Relaxed) {
                FREE => {
                    let taken =
                        self.word.0.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed);
                    if taken.is_ok() {
                        return;
                    }
                }
                AWAITED => break,
                _ => {}
            }
        }
        while self.word.0.swap(AWAITED, Ordering::Acquire) != FREE {
            // Interrupted, or changed meanwhile: look again.
            self.word.0.sleep(AWAITED, None);
        }
    }

    /// Gives the lock back; whether a sleeper is to be woken.
    fn unlock(&self) -> Wake<'_> {
        let awaited = self.word.0.swap(FREE, Ordering::Release) == AWAITED;
        Wake(awaited.then_some(&self.word.0))
    }
}

impl<T> fmt::Debug for Gate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// The right to the value, given back when it is dropped.
pub(crate) struct GateGuard<'a, T> {
    gate: &'a Gate<T>,
    /// As far as threads are concerned, it is what it gives access to.
    _value: PhantomData<&'a mut T>,
}

/// Wakes a thread that sleeps until the lock is free, if there is one, when it is dropped.
#[must_use = "the lock's next holder may sleep until this is dropped"]
#[derive(Debug)]
pub(crate) struct Wake<'a>(Option<&'a Word>);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        if let Some(word) = self.0 {
            word.wake_one();
        }
    }
}

impl<'a, T> GateGuard<'a, T> {
    /// Gives the lock back at once, and leaves waking to the caller: within microseconds, for who sleeps goes on sleeping
    /// until then.
    pub(crate) fn release(self) -> Wake<'a> {
        let gate = self.gate;
        std::mem::forget(self);
        gate.unlock()
    }
}

impl<T> Drop for GateGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.gate.unlock());
    }
}

impl<T> Deref for GateGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the word says that the lock is held, by this guard alone.
        unsafe { &*self.gate.value.get() }
    }
}

impl<T> DerefMut for GateGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the word says that the lock is held, by this guard alone, which is borrowed mutably.
        unsafe { &mut *self.gate.value.get() }
    }
}

/// Something that is waited for under a [`Gate`].
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Word,
}

impl Bell {
    /// Gives the lock up until the bell is rung, or for no reason.
    pub(crate) fn wait<'a, T>(&self, guard: GateGuard<'a, T>) -> GateGuard<'a, T> {
        self.sleep(guard, None)
    }

    /// The same, for this long at the most.
    pub(crate) fn wait_for<'a, T>(&self, guard: GateGuard<'a, T>, time: Duration) -> GateGuard<'a, T> {
        self.sleep(guard, Some(time))
    }

    fn sleep<'a, T>(&self, guard: GateGuard<'a, T>, time: Option<Duration>) -> GateGuard<'a, T> {
        let gate = guard.gate;
        // Read under the lock: a ring after it changes the word, and then nobody sleeps.
        let seen = self.rung.load(Ordering::Relaxed);
        drop(guard);
        // Interrupted, over time, or rung meanwhile: callers look at what they wait for.
        self.rung.sleep(seen, time);
        gate.lock()
    }

    /// Wakes all who wait. Under the lock, or they may have looked just before what the ring is about.
    pub(crate) fn ring(&self) {
        self.rung.fetch_add(1, Ordering::Release);
        self.rung.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn one_thread_at_a_time_is_inside_and_none_sleeps_for_ever() {
        let gate = Arc::new(Gate::new((0_u64, 0_u64)));
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let gate = Arc::clone(&gate);
                std::thread::spawn(move || {
                    for round in 0..20_000 {
                        let mut guard = gate.lock();
                        guard.0 += 1;
                        if (round + thread) % 64 == 0 {
                            std::thread::yield_now();
                        }
                        guard.1 += 1;
                        assert_eq!(guard.0, guard.1);
                        if round % 2 == 0 { drop(guard.release()) } else { drop(guard) }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*gate.lock(), (160_000, 160_000));
    }

    #[test]
    fn a_bell_wakes_all_who_wait_and_time_ends_waiting() {
        let shared = Arc::new((Gate::new(0), Bell::default()));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let mut guard = shared.0.lock();
                    while *guard < 100 {
                        guard = shared.1.wait(guard);
                    }
                })
            })
            .collect();
        for _ in 0..100 {
            *shared.0.lock() += 1;
            shared.1.ring();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let guard = shared.1.wait_for(shared.0.lock(), Duration::from_millis(1));
        assert_eq!(*guard, 100);
    }
}
