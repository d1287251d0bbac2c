//! The same, of the model checker loom.
#![allow(dead_code, reason = "each has what any of them has")]

use loom::sync::atomic::fence;
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What is weaker than it says is made as strong: loom takes operations that are sequentially consistent for such that are not, and
/// knows fences that are.
fn in_one_order<T>(order: Ordering, operation: impl FnOnce() -> T) -> T {
    if order != Ordering::SeqCst {
        return operation();
    }
    fence(Ordering::SeqCst);
    let done = operation();
    fence(Ordering::SeqCst);
    done
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        /// A number of the model.
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                let weaker = if order == Ordering::SeqCst { Ordering::Acquire } else { order };
                in_one_order(order, || self.0.load(weaker))
            }

            /// As a swap: loom lets a store and a swap that are not ordered otherwise be in either order for each who looks, also
            /// where the swap has read what was there before the store.
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                self.swap(value, order);
            }

            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                in_one_order(order, || self.0.swap(value, order))
            }

            pub(crate) fn compare_exchange(
                &self,
                known: $value,
                value: $value,
                order: Ordering,
                otherwise: Ordering,
            ) -> Result<$value, $value> {
                in_one_order(order, || self.0.compare_exchange(known, value, order, otherwise))
            }
        }
    };
}

macro_rules! counts {
    ($name:ident, $value:ty) => {
        impl $name {
            pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                in_one_order(order, || self.0.fetch_add(value, order))
            }

            pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                in_one_order(order, || self.0.fetch_sub(value, order))
            }
        }
    };
}

atomic!(AtomicBool, bool);
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
atomic!(AtomicUsize, usize);
counts!(AtomicU32, u32);
counts!(AtomicU64, u64);
counts!(AtomicUsize, usize);

/// A number that threads sleep on, as the system has it: who is about to sleep looks at it once more, and nobody wakes anybody in
/// between.
pub(crate) struct Word {
    number: AtomicU32,
    asleep: loom::sync::Mutex<()>,
    woken: loom::sync::Condvar,
}

impl Default for Word {
    fn default() -> Self {
        Self::new(0)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Word").finish_non_exhaustive()
    }
}

impl Word {
    pub(crate) fn new(value: u32) -> Self {
        let (asleep, woken) = (loom::sync::Mutex::new(()), loom::sync::Condvar::new());
        Self { number: AtomicU32::new(value), asleep, woken }
    }

    /// No time is ever over: who needs that to go on is found.
    pub(crate) fn sleep(&self, seen: u32, _time: Option<Duration>) {
        let asleep = self.asleep.lock().expect("nobody panics meanwhile");
        if self.number.load(Ordering::SeqCst) == seen {
            drop(self.woken.wait(asleep));
        }
    }

    pub(crate) fn wake_one(&self) {
        let _asleep = self.asleep.lock();
        self.woken.notify_one();
    }

    pub(crate) fn wake_all(&self) {
        let _asleep = self.asleep.lock();
        self.woken.notify_all();
    }
}

impl std::ops::Deref for Word {
    type Target = AtomicU32;

    fn deref(&self) -> &AtomicU32 {
        &self.number
    }
}

/// A lock of the model.
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self(loom::sync::Mutex::new(T::default()))
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

impl<T> Mutex<T> {
    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().expect("nobody panics meanwhile")
    }
}

loom::thread_local! {
    static STRIPE: Cell<usize> = Cell::new(0);
}

/// Where the current thread of the model counts.
pub(crate) fn stripe() -> usize {
    STRIPE.with(Cell::get)
}

/// Has it count there.
pub(crate) fn count_at(stripe: usize) {
    STRIPE.with(|own| own.set(stripe));
}
