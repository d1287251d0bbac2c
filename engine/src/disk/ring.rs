//! The ring disk: direct, durable writes through `io_uring`, several in flight.
//!
//! tokio-uring is used only as was found safe: its runtime lives on the writer thread and is never made by
//! `tokio_uring::start`, which panics where `io_uring` is blocked; every write is awaited before the runtime is
//! dropped, because its drop frees the buffers of writes in flight before it cancels them; and a panic on
//! that thread aborts the process for the same reason.

use super::direct::real_disk;
use super::real::{self, Cache};
use super::{Access, Disk, File, Lock, Pipelining, Submitter, Write};
use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Writes in flight at once: four saturate the devices this was measured on with large writes.
const DEPTH: usize = 4;
/// Up to here, one plain write after the other was faster than several through the ring, each of which takes two thread
/// switches more.
const PIPELINED_BYTES_MIN: u64 = 4 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ring {
    /// From which size on writes are put in flight together.
    pub(crate) pipelined_bytes_min: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Self { pipelined_bytes_min: PIPELINED_BYTES_MIN }
    }
}

impl Disk for Ring {
    fn name(&self) -> &'static str {
        "ring"
    }

    fn submitter(&self, wake: Arc<Notify>) -> io::Result<Box<dyn Submitter>> {
        let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
        let pipelining = Pipelining { depth: DEPTH, bytes_min: self.pipelined_bytes_min };
        Ok(Box::new(RingSubmitter { pipelining, runtime, wake, in_flight: 0, done: Rc::default() }))
    }

    real_disk!(Cache::Bypassed);
}

/// Whether a ring can be made here at all. Tried on a thread of its own: a thread that runs a runtime cannot drop another.
pub(crate) fn is_available() -> io::Result<()> {
    let tried = std::thread::Builder::new()
        .name("annals-probe".into())
        .spawn(|| tokio_uring::Runtime::new(&tokio_uring::builder()).map(drop))?;
    tried.join().unwrap_or_else(|_| Err(io::Error::other("a ring cannot be made")))
}

type Done = Rc<RefCell<Vec<(u64, io::Result<()>)>>>;

struct RingSubmitter {
    pipelining: Pipelining,
    runtime: tokio_uring::Runtime,
    wake: Arc<Notify>,
    in_flight: usize,
    done: Done,
}

impl Submitter for RingSubmitter {
    fn pipelining(&self) -> Pipelining {
        self.pipelining
    }

    fn submit(&mut self, write: Write, alone: bool) {
        self.in_flight += 1;
        if alone {
            // One plain write has two thread switches less than the ring.
            let result = write_plainly(&write, 0);
            self.done.borrow_mut().push((write.token, result));
            return;
        }
        let (done, wake) = (Rc::clone(&self.done), Arc::clone(&self.wake));
        self.runtime.block_on(async move {
            tokio_uring::spawn(async move {
                let token = write.token;
                let result = write_through_ring(write).await;
                done.borrow_mut().push((token, result));
                wake.notify_one();
            });
        });
    }

    fn wait(&mut self) {
        if self.done.borrow().is_empty() {
            let wake = Arc::clone(&self.wake);
            self.runtime.block_on(async move { wake.notified().await });
        }
    }

    fn completed(&mut self) -> Vec<(u64, io::Result<()>)> {
        let done = self.done.take();
        self.in_flight -= done.len();
        done
    }
}

impl Drop for RingSubmitter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
        while self.in_flight > 0 {
            self.wait();
            self.completed();
        }
    }
}

impl fmt::Debug for RingSubmitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingSubmitter").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

/// The write's bytes from `skip` on, one piece after the other, on this thread.
fn write_plainly(write: &Write, mut skip: usize) -> io::Result<()> {
    let offset = write.offset + skip as u64;
    let mut slices = Vec::with_capacity(write.pieces.len());
    for piece in &write.pieces {
        let bytes = piece.as_ref();
        if skip < bytes.len() {
            slices.push(IoSlice::new(&bytes[skip..]));
        }
        skip = skip.saturating_sub(bytes.len());
    }
    write.file.write_durable(offset, &slices)
}

async fn write_through_ring(write: Write) -> io::Result<()> {
    let Some(descriptor) = write.file.descriptor() else {
        return write_plainly(&write, 0);
    };
    // Without a further descriptor to be had, it goes the plain way.
    let Ok(descriptor) = descriptor.try_clone_to_owned() else {
        return write_plainly(&write, 0);
    };
    let total: usize = write.pieces.iter().map(|piece| piece.as_ref().len()).sum();
    let file = tokio_uring::fs::File::from_std(std::fs::File::from(descriptor));
    let (result, pieces) = file.writev_at(write.pieces.clone(), write.offset).await;
    drop(pieces);
    file.close().await?;
    match result {
        Ok(count) if count == total => Ok(()),
        // A short, interrupted or refused-for-now completion: the rest goes the plain way, which retries.
        Ok(count) => write_plainly(&write, count),
        Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
            write_plainly(&write, 0)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::aligned::Piece;

    const BLOCK: usize = 4096;

    #[test]
    fn writes_in_flight_together_all_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let disk = Ring::default();
        if let Err(error) = is_available() {
            println!("SKIPPED writes_in_flight_together_all_arrive: {error}");
            return;
        }
        disk.preallocate(&path, 64 * BLOCK as u64, &mut |_| true).unwrap();
        let file = disk.open(&path, Access::Log).unwrap();
        let mut submitter = disk.submitter(Arc::default()).unwrap();
        let mut completed = Vec::new();
        for token in 0..16_u8 {
            // Two pieces of a block each, at every other block pair.
            let pieces = vec![Piece::copied(&[token + 1; BLOCK]), Piece::copied(&[token + 101; BLOCK])];
            let offset = u64::from(token) * 4 * BLOCK as u64;
            let token = u64::from(token);
            submitter.submit(Write { token, file: Arc::clone(&file), offset, pieces }, false);
            while token + 1 - completed.len() as u64 >= submitter.pipelining().depth as u64 {
                submitter.wait();
                completed.extend(submitter.completed());
            }
        }
        // What is still in flight is awaited before the ring goes.
        drop(submitter);
        assert!(completed.iter().all(|(_, result)| result.is_ok()));
        let bytes = disk.read(&path).unwrap();
        for token in 0..16_u8 {
            let at = usize::from(token) * 4 * BLOCK;
            assert_eq!(bytes[at..at + BLOCK], [token + 1; BLOCK]);
            assert_eq!(bytes[at + BLOCK..at + 2 * BLOCK], [token + 101; BLOCK]);
            assert_eq!(bytes[at + 2 * BLOCK..at + 4 * BLOCK], [0; 2 * BLOCK]);
        }
    }
}
