//! Durable writes that complete in another order than they were submitted in.

use super::SimulatedDisk;
use super::file::{begin_in_flight, complete_in_flight};
use super::state::InFlightId;
use crate::disk::{Pipelining, Submitter, Write};
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;
use tokio::sync::Notify;

/// How long nothing completes, now and then.
const LULL: Duration = Duration::from_micros(50);

/// Keeps writes in flight until it is waited for. The seed of the disk chooses which completes next.
pub(super) struct Unordered {
    disk: SimulatedDisk,
    wake: Arc<Notify>,
    depth: usize,
    in_flight: Vec<Pending>,
    completed: Vec<(u64, io::Result<()>)>,
}

struct Pending {
    id: InFlightId,
    write: Write,
}

impl Unordered {
    pub(super) fn new(disk: SimulatedDisk, wake: Arc<Notify>, depth: usize) -> Self {
        Self { disk, wake, depth, in_flight: Vec::new(), completed: Vec::new() }
    }

    /// Whether the wake-up was rung; it is then taken.
    fn was_rung(&self) -> bool {
        pin!(self.wake.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn complete_one(&mut self) {
        let chosen = self.disk.state().random.below(self.in_flight.len());
        let Pending { id, write } = self.in_flight.swap_remove(chosen);
        self.completed.push((write.token, complete_in_flight(&self.disk, id)));
    }
}

impl Submitter for Unordered {
    /// Also the smallest writes: they are what tests have.
    fn pipelining(&self) -> Pipelining {
        Pipelining { depth: self.depth, bytes_min: 1 }
    }

    fn submit(&mut self, write: Write, _alone: bool) {
        assert!(self.in_flight.len() < self.depth, "more writes in flight than the depth allows");
        let pieces = write.pieces.iter().map(AsRef::as_ref);
        match begin_in_flight(&self.disk, Arc::as_ptr(&write.file), write.offset, pieces) {
            Some(Ok(id)) => self.in_flight.push(Pending { id, write }),
            Some(Err(error)) => self.completed.push((write.token, Err(error))),
            None => {
                let slices: Vec<_> = write.pieces.iter().map(|piece| IoSlice::new(piece.as_ref())).collect();
                let result = write.file.write_durable(write.offset, &slices);
                self.completed.push((write.token, result));
            }
        }
    }

    fn wait(&mut self) {
        if !self.completed.is_empty() {
            return;
        }
        if self.in_flight.is_empty() {
            block_on(self.wake.notified());
            return;
        }
        if self.in_flight.len() < self.depth && self.disk.state().random.coin() {
            // Nothing completes for a while: more may come meanwhile, and join.
            thread::sleep(LULL);
            if self.was_rung() {
                return;
            }
        }
        self.complete_one();
        while !self.in_flight.is_empty() && self.disk.state().random.coin() {
            self.complete_one();
        }
    }

    fn completed(&mut self) -> Vec<(u64, io::Result<()>)> {
        std::mem::take(&mut self.completed)
    }
}

impl Drop for Unordered {
    /// As the ring does, nothing in flight is left behind.
    fn drop(&mut self) {
        while !self.in_flight.is_empty() {
            self.complete_one();
        }
    }
}

impl fmt::Debug for Unordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unordered").field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}

/// Wakes a thread that is parked in [`block_on`].
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread; a runtime would be too much for one notification.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
