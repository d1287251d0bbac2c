//! A number that threads sleep on until it changes: one system call wakes one of them, or all, and nobody else.

use rustix::thread::futex;
use std::ops::Deref;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Word(AtomicU32);

impl Word {
    pub(crate) fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    /// Sleeps until it is woken or the time is over, unless the number is another than `seen` by now; or for no reason: who
    /// sleeps looks at what it waits for.
    pub(crate) fn sleep(&self, seen: u32, time: Option<Duration>) {
        let time = time.and_then(|time| futex::Timespec::try_from(time).ok());
        let _ = futex::wait(&self.0, futex::Flags::PRIVATE, seen, time.as_ref());
    }

    /// Wakes one who sleeps.
    pub(crate) fn wake_one(&self) {
        self.wake(1);
    }

    /// Wakes all who sleep.
    pub(crate) fn wake_all(&self) {
        self.wake(i32::MAX.cast_unsigned());
    }

    fn wake(&self, count: u32) {
        // It cannot fail in a way that matters: who sleeps looks at the number.
        let _ = futex::wake(&self.0, futex::Flags::PRIVATE, count);
    }
}

impl Deref for Word {
    type Target = AtomicU32;

    fn deref(&self) -> &AtomicU32 {
        &self.0
    }
}
