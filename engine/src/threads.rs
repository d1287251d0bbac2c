//! Which of the store's threads go first where there are fewer processors than threads. A matter of speed alone: where the system
//! does not allow it, everything is done all the same.
#![allow(unsafe_code)]

use std::time::Duration;

/// How long the thread that goes first runs at a time, as far as it is up to the system: the least that Linux takes. Whoever is
/// to run for so short comes before those who run for long, and has no more of the processor than they have.
const SLICE: Duration = Duration::from_micros(100);

/// `SCHED_FLAG_RESET_ON_FORK` of Linux.
#[cfg(target_os = "linux")]
const RESET_ON_FORK: u64 = 1;

/// Has the calling thread stand back behind those with less of it, from 1 to 19.
pub(crate) fn stand_back(niceness: i32) {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), niceness);
}

/// Has the calling thread run where nobody else would, and make way at once.
#[cfg(feature = "testing")]
pub(crate) fn run_when_idle() {
    #[cfg(target_os = "linux")]
    {
        let none = libc::sched_param { sched_priority: 0 };
        // SAFETY: the system reads the structure, and keeps nothing of it.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
    }
}

/// Has the calling thread run soon after it is woken, though all processors are busy: it then works for microseconds, and many
/// wait for it. Linux from 6.12 on knows of that.
pub(crate) fn go_first() {
    #[cfg(target_os = "linux")]
    {
        // Where somebody else has decided that, it stands.
        // SAFETY: it takes a number and gives one.
        if unsafe { libc::sched_getscheduler(0) } != libc::SCHED_OTHER {
            return;
        }
        let niceness = rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap_or(0);
        let attributes = libc::sched_attr {
            size: u32::try_from(size_of::<libc::sched_attr>()).expect("a few bytes"),
            sched_policy: libc::SCHED_OTHER.cast_unsigned(),
            // Threads that it starts are as all others.
            sched_flags: RESET_ON_FORK,
            sched_nice: niceness,
            sched_priority: 0,
            sched_runtime: u64::try_from(SLICE.as_nanos()).expect("a moment"),
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: the system reads as many bytes as the structure says that it has, and keeps nothing of it.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}
