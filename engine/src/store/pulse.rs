//! Waking those who wait without a thread of their own: at a time, or for a writer in another process.
//!
//! One thread a store, while somebody waits.

use super::core::Core;
use super::read_only;
use crate::clock::stopwatch;
use crate::log::watcher::Watcher;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often a reader beside another process's writer looks for more.
pub(crate) const FOLLOW_PERIOD: Duration = Duration::from_millis(2);
/// How long the thread stays when nobody waits.
const IDLE_TIME: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Who is woken when, each with a number that tells those apart who wait for the same moment.
    at: BTreeMap<(Instant, u64), Arc<Watcher>>,
    /// Who waits for another process.
    beside: usize,
    next_number: u64,
    is_running: bool,
}

/// Somebody who waits for a time; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Timer {
    pulse: Arc<Pulse>,
    key: (Instant, u64),
}

/// Somebody who waits for a writer in another process.
#[derive(Debug)]
pub(crate) struct Beside(Arc<Pulse>);

impl Pulse {
    /// Has the watcher woken at this moment.
    pub(crate) fn wake_at(core: &Arc<Core>, moment: Instant, watcher: &Arc<Watcher>) -> Timer {
        let pulse = &core.pulse;
        let mut waiting = pulse.waiting.lock();
        let key = (moment, waiting.next_number);
        waiting.next_number += 1;
        waiting.at.insert(key, Arc::clone(watcher));
        pulse.run(core, waiting);
        Timer { pulse: Arc::clone(pulse), key }
    }

    /// Has the watermark follow a writer in another process.
    pub(crate) fn follow(core: &Arc<Core>) -> Beside {
        let pulse = &core.pulse;
        let mut waiting = pulse.waiting.lock();
        waiting.beside += 1;
        pulse.run(core, waiting);
        Beside(Arc::clone(pulse))
    }

    /// Sees to it that the thread runs and looks.
    fn run(self: &Arc<Self>, core: &Arc<Core>, mut waiting: parking_lot::MutexGuard<'_, Waiting>) {
        if waiting.is_running {
            self.changed.notify_one();
            return;
        }
        let (pulse, weak) = (Arc::clone(self), Arc::downgrade(core));
        let thread = std::thread::Builder::new().name("annals-pulse".into());
        // Without it, who waits is woken by what is appended here, and by nothing else until one can be started.
        waiting.is_running = thread.spawn(move || pulse.beat(&weak)).is_ok();
    }

    /// The thread.
    fn beat(&self, core: &Weak<Core>) {
        let mut waiting = self.waiting.lock();
        loop {
            let due = waiting.due(stopwatch());
            if !due.is_empty() {
                // Whoever is woken may come back here at once.
                drop(waiting);
                // Dropped before the lock is taken: they may be the last that know whom they wake.
                due.into_iter().for_each(|watcher| watcher.nudge());
                waiting = self.waiting.lock();
            } else if waiting.beside > 0 {
                self.changed.wait_for(&mut waiting, FOLLOW_PERIOD);
                drop(waiting);
                self.look(core);
                waiting = self.waiting.lock();
            } else if let Some(&(moment, _)) = waiting.at.keys().next() {
                self.changed.wait_until(&mut waiting, moment);
            } else if self.changed.wait_for(&mut waiting, IDLE_TIME).timed_out()
                && waiting.at.is_empty()
                && waiting.beside == 0
            {
                waiting.is_running = false;
                return;
            }
        }
    }

    /// Catches up with the writer, which wakes who waits for it. Where that fails, they are to see it themselves.
    fn look(&self, core: &Weak<Core>) {
        if let Some(core) = core.upgrade()
            && read_only::refresh(&core).is_err()
        {
            core.watermark.wake_watchers();
        }
    }
}

impl Waiting {
    /// Takes out whose time has come.
    fn due(&mut self, now: Instant) -> Vec<Arc<Watcher>> {
        let later = self.at.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.at, later).into_values().collect()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let removed = self.pulse.waiting.lock().at.remove(&self.key);
        // Not under the lock: it may be the last one that knows the waker, and that of anything else.
        drop(removed);
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.waiting.lock().beside -= 1;
    }
}
