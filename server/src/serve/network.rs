//! The threads that connections live on, each with a runtime of its own: what one connection does wakes no other thread, and
//! nothing is moved between threads in the few microseconds that it takes.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Threads at the most: what they do takes microseconds.
const THREADS_MAX: usize = 8;

/// See the module. Dropped, it ends whatever is still done on its threads.
#[derive(Debug)]
pub(super) struct Network {
    threads: Vec<(Handle, Option<JoinHandle<()>>)>,
    next: AtomicUsize,
    over: watch::Sender<bool>,
}

impl Network {
    /// Starts a thread for each processor.
    pub(super) fn start() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let (over, _) = watch::channel(false);
        let mut network = Self { threads: Vec::new(), next: AtomicUsize::new(0), over };
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
            let (handle, mut over) = (runtime.handle().clone(), network.over.subscribe());
            let thread =
                std::thread::Builder::new().name(format!("annals-net-{number}")).spawn(move || {
                    // Its sender is dropped later than it says so.
                    let _ = runtime.block_on(over.wait_for(|over| *over));
                })?;
            network.threads.push((handle, Some(thread)));
        }
        Ok(network)
    }

    /// A thread to read on and one to write on: each in its turn.
    pub(super) fn handles(&self) -> (Handle, Handle) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let handle = |at: usize| self.threads[at % self.threads.len()].0.clone();
        (handle(turn), handle(turn + 1))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.over.send(true);
        for (_, thread) in &mut self.threads {
            // One that panicked has said so.
            let _ = thread.take().map(JoinHandle::join);
        }
    }
}
