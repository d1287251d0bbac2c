//! The seam between the store and whatever keeps its bytes. Four things stand behind it: the ring, direct
//! and buffered disks of a real machine, and a simulated one for tests.
//!
//! Knows nothing of what the bytes mean.

mod aligned;
mod buffered;
mod choose;
mod direct;
pub(crate) mod maps;
mod real;
mod ring;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod simulated;

#[cfg(any(test, feature = "testing"))]
pub(crate) use aligned::set_memory_short_from;
pub(crate) use aligned::{Chunk, Memory, Piece, is_memory_short};
pub(crate) use choose::{PROBE_PREFIX, choose};
#[cfg(any(test, feature = "testing"))]
pub(crate) use ring::Ring;

use self::maps::Advice;
use bytes::Bytes;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Notify;

/// A file system, or a simulation of one. Names and their removal are durable only after
/// [`Disk::sync_dir`]; contents only after [`File::sync`] or [`File::write_durable`].
pub(crate) trait Disk: Send + Sync + Debug {
    /// What `stat` calls it: `ring`, `direct`, `buffered` or `simulated`.
    fn name(&self) -> &'static str;
    /// Creates this directory and those above it where they are missing, readable by their owner alone,
    /// durably: the parent of each directory made is synced.
    fn create_dirs(&self, dir: &Path) -> io::Result<()>;
    /// Names in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// A whole file, past nothing: through the cache.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Creates a file, readable by its owner alone, with this content, and syncs it. Replaces one of that
    /// name. The directory is not synced.
    fn write_new(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Creates a file of `len` bytes for durable writes and syncs it; fails where there is no room for all
    /// of it. `zeroed` asks after each `written` bytes whether to go on zero-filling (`true`) or to leave the
    /// rest merely allocated, and may take its time: that is how the filling is paced.
    fn preallocate(&self, path: &Path, len: u64, zeroed: &mut dyn FnMut(u64) -> bool) -> io::Result<()>;
    /// Opens an existing file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;
    /// Renames, replacing.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory that holds nothing.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the writer's lock, held until the returned value is dropped; `Err(Some(pid))`: it is held.
    fn lock(&self, path: &Path) -> io::Result<Result<Box<dyn Lock>, Option<u32>>>;
    /// Whether a living writer holds that lock, and its process id.
    fn lock_holder(&self, path: &Path) -> io::Result<Option<u32>>;
    /// What the writer thread submits durable writes to. Called on that thread.
    fn submitter(&self, wake: Arc<Notify>) -> io::Result<Box<dyn Submitter>>;
}

/// A lock that is given back when dropped.
pub(crate) trait Lock: Send + Sync + Debug {}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Reading alone.
    Read,
    /// Reading and durable writes; refused with `WouldBlock` while another process has it open so.
    Log,
    /// Reading and writing through [`File::map_shared`].
    Shared,
}

/// An open file.
pub(crate) trait File: Send + Sync + Debug {
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Reads as much as there is at `offset`; short only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The same, past every cache: what the device has. `offset` and length are multiples of a block.
    fn read_device_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it durably. `offset`, lengths and memory are multiples of a block.
    fn write_durable(&self, offset: u64, pieces: &[IoSlice<'_>]) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Gives the space behind `offset` back, keeping the length.
    fn punch_from(&self, offset: u64) -> io::Result<()>;
    /// The file's content as memory. What is durable now stays readable in it; nothing else is promised.
    fn map(&self, advice: Advice) -> io::Result<Bytes>;
    /// The file as memory shared with other processes.
    fn map_shared(&self) -> io::Result<Box<dyn SharedMap>>;
    /// Gives up the right to durable writes, so that another process may open the file for them. None follow.
    fn release(&self) {}
    /// The descriptor that durable writes go through, where there is one.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A small file that is mapped by its writer and its readers.
pub(crate) trait SharedMap: Send + Sync + Debug {
    /// Copies bytes in; readers may see them half written.
    fn store(&mut self, at: usize, bytes: &[u8]);
    /// Makes it durable.
    fn sync(&self) -> io::Result<()>;
}

/// A durable write on its way.
#[derive(Debug)]
pub(crate) struct Write {
    /// Given back with its completion.
    pub token: u64,
    /// To which file.
    pub file: Arc<dyn File>,
    /// Where; a multiple of a block.
    pub offset: u64,
    /// What, in order; lengths and memory are multiples of a block.
    pub pieces: Vec<Piece>,
}

/// Which writes are worth having in flight together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pipelining {
    /// How many may be in flight.
    pub(crate) depth: usize,
    /// Smaller ones go alone, one after the other.
    pub(crate) bytes_min: u64,
}

/// Where the writer thread submits durable writes, several at a time where the disk can.
pub(crate) trait Submitter: Debug {
    /// Which writes are worth having in flight together.
    fn pipelining(&self) -> Pipelining;
    /// Begins a write. It may complete here and now. `alone`: nothing else is in flight, nor soon will be.
    fn submit(&mut self, write: Write, alone: bool);
    /// Blocks until a write completes or the wake-up given to [`Disk::submitter`] is rung.
    fn wait(&mut self);
    /// Takes what has completed, in any order.
    fn completed(&mut self) -> Vec<(u64, io::Result<()>)>;
}

/// Completes writes one after the other, on the calling thread.
#[derive(Debug, Default)]
pub(crate) struct OneAtATime {
    completed: Vec<(u64, io::Result<()>)>,
}

impl Submitter for OneAtATime {
    fn pipelining(&self) -> Pipelining {
        Pipelining { depth: 1, bytes_min: u64::MAX }
    }

    fn submit(&mut self, write: Write, _alone: bool) {
        let slices: Vec<IoSlice<'_>> =
            write.pieces.iter().map(|piece| IoSlice::new(piece.as_ref())).collect();
        let result = write.file.write_durable(write.offset, &slices);
        self.completed.push((write.token, result));
    }

    fn wait(&mut self) {}

    fn completed(&mut self) -> Vec<(u64, io::Result<()>)> {
        std::mem::take(&mut self.completed)
    }
}
