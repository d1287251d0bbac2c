//! Waking many: on a thread that stands back, so that the writer goes on meanwhile. Hundreds who follow a store would otherwise
//! make each group take as long as waking all of them does.

use super::watcher::Watcher;
use crate::threads::stand_back;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Duration;

/// So few are woken by the writer itself, at once.
const FEW: usize = 4;
/// How long the thread stays when nobody is to be woken.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// How far the thread stands back behind those that append.
const NICENESS: i32 = 5;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    watchers: Vec<Arc<Watcher>>,
    is_running: bool,
}

impl Crowd {
    /// Wakes all of these: here, or soon.
    pub(crate) fn wake(self: &Arc<Self>, watchers: Vec<Arc<Watcher>>) {
        if watchers.len() <= FEW {
            return watchers.iter().for_each(|watcher| watcher.wake());
        }
        let mut waiting = self.waiting.lock();
        if !waiting.is_running {
            let crowd = Arc::clone(self);
            let thread = std::thread::Builder::new().name("annals-wake".into());
            waiting.is_running = thread.spawn(move || crowd.run()).is_ok();
        }
        if waiting.is_running {
            waiting.watchers.extend(watchers);
            drop(waiting);
            self.changed.notify_one();
        } else {
            drop(waiting);
            watchers.iter().for_each(|watcher| watcher.wake());
        }
    }

    /// The thread.
    fn run(&self) {
        stand_back(NICENESS);
        let mut waiting = self.waiting.lock();
        loop {
            let watchers = std::mem::take(&mut waiting.watchers);
            if !watchers.is_empty() {
                // Whoever is woken may come back here at once; and may be the last that knows of the store.
                drop(waiting);
                watchers.iter().for_each(|watcher| watcher.wake());
                drop(watchers);
                waiting = self.waiting.lock();
            } else if self.changed.wait_for(&mut waiting, IDLE_TIME).timed_out()
                && waiting.watchers.is_empty()
            {
                waiting.is_running = false;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn each_is_woken_once_however_many_there_are() {
        let crowd = Arc::new(Crowd::default());
        for count in [1, FEW, FEW + 1, 500, 500] {
            let counting = Arc::new(Counting::default());
            let watchers = (0..count).map(|_| {
                let watcher = Arc::new(Watcher::default());
                watcher.set(&Waker::from(Arc::clone(&counting)));
                watcher
            });
            crowd.wake(watchers.collect());
            for _ in 0..10_000 {
                if counting.0.load(Ordering::SeqCst) >= count {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(counting.0.load(Ordering::SeqCst), count);
        }
    }
}
