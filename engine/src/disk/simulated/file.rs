//! What a process holds of a simulated disk: open files, shared maps and locks.

use super::SimulatedDisk;
use super::content::Reach;
use super::names::{FileId, absolute};
use super::state::{DurableWrite, InFlightId};
use crate::disk::aligned::ALIGNMENT;
use crate::disk::maps::Advice;
use crate::disk::{Access, File, Lock, SharedMap};
use bytes::Bytes;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open file; it stays the same file when its name is given to another one.
#[derive(Debug)]
pub(super) struct SimulatedFile {
    disk: SimulatedDisk,
    id: FileId,
    access: Access,
}

impl SimulatedFile {
    pub(super) fn open(disk: &SimulatedDisk, path: &Path, access: Access) -> io::Result<Arc<Self>> {
        let mut state = disk.state();
        let id = state.tree.find_file(path)?;
        if access == Access::Log && state.writers.values().any(|open| *open == id) {
            return Err(io::Error::new(ErrorKind::WouldBlock, "this file is already open for writing"));
        }
        let file = Arc::new(Self { disk: disk.clone(), id, access });
        if access == Access::Log {
            state.writers.insert(address(Arc::as_ptr(&file)), id);
        }
        Ok(file)
    }

    fn for_writing(&self) -> io::Result<FileId> {
        match self.access {
            Access::Log => Ok(self.id),
            Access::Read | Access::Shared => Err(ErrorKind::PermissionDenied.into()),
        }
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        if self.access == Access::Log {
            self.disk.state().writers.remove(&address(self));
        }
    }
}

impl File for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().content(self.id).len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(copy_from(self.disk.state().content(self.id).cached(), buffer, offset))
    }

    fn read_device_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if !is_whole_blocks(offset) || !is_whole_blocks(buffer.len() as u64) {
            return Err(ErrorKind::InvalidInput.into());
        }
        Ok(copy_from(self.disk.state().content(self.id).durable(), buffer, offset))
    }

    fn write_durable(&self, offset: u64, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes = gather(offset, pieces.iter().map(|piece| &**piece))?;
        let write = self.disk.state().begin_write(self.for_writing()?, offset, bytes)?;
        carry_out(&self.disk, &write)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.dawdle();
        self.disk.state().sync(self.id)
    }

    fn punch_from(&self, offset: u64) -> io::Result<()> {
        self.disk.dawdle();
        self.disk.state().punch_from(self.for_writing()?, offset)
    }

    fn map(&self, _advice: Advice) -> io::Result<Bytes> {
        Ok(Bytes::copy_from_slice(self.disk.state().content(self.id).cached()))
    }

    fn release(&self) {
        self.disk.state().writers.remove(&address(self));
    }

    fn map_shared(&self) -> io::Result<Box<dyn SharedMap>> {
        let writable = self.access == Access::Shared;
        let len = self.disk.state().content(self.id).len();
        Ok(Box::new(SimulatedSharedMap { disk: self.disk.clone(), id: self.id, len, writable }))
    }
}

/// Begins a durable write through a handle that is known by its address only, and leaves it in flight. `None`: the
/// handle is not one of this disk's.
pub(super) fn begin_in_flight<'a>(
    disk: &SimulatedDisk,
    handle: *const dyn File,
    offset: u64,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Option<io::Result<InFlightId>> {
    let mut state = disk.state();
    let id = *state.writers.get(&address(handle))?;
    let begun = gather(offset, pieces).and_then(|bytes| state.begin_write(id, offset, bytes));
    Some(begun.map(|write| state.keep_in_flight(write)))
}

/// Completes a write that was left in flight.
pub(super) fn complete_in_flight(disk: &SimulatedDisk, id: InFlightId) -> io::Result<()> {
    let write = disk.state().take_in_flight(id)?;
    carry_out(disk, &write)
}

/// Each step takes the lock anew, so that others can see a write half done, or the machine stop in between.
fn carry_out(disk: &SimulatedDisk, write: &DurableWrite) -> io::Result<()> {
    for step in write.steps() {
        disk.dawdle();
        disk.state().land(write, step.clone())?;
    }
    write.result()
}

/// All bytes of a durable write, refused where a direct write would be.
fn gather<'a>(offset: u64, pieces: impl Iterator<Item = &'a [u8]>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for piece in pieces {
        if !is_whole_blocks(piece.len() as u64) || !piece.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(ErrorKind::InvalidInput.into());
        }
        bytes.extend_from_slice(piece);
    }
    if is_whole_blocks(offset) { Ok(bytes) } else { Err(ErrorKind::InvalidInput.into()) }
}

fn is_whole_blocks(bytes: u64) -> bool {
    bytes.is_multiple_of(ALIGNMENT as u64)
}

fn copy_from(image: &[u8], buffer: &mut [u8], offset: u64) -> usize {
    let start = usize::try_from(offset).map_or(image.len(), |offset| offset.min(image.len()));
    let count = buffer.len().min(image.len() - start);
    buffer[..count].copy_from_slice(&image[start..start + count]);
    count
}

/// A handle's identity while it lives; [`super::super::Write`] carries handles as trait objects.
fn address<T: ?Sized>(handle: *const T) -> usize {
    handle.cast::<()>().addr()
}

/// A map of a file as long as it was when mapped.
#[derive(Debug)]
struct SimulatedSharedMap {
    disk: SimulatedDisk,
    id: FileId,
    len: usize,
    writable: bool,
}

impl SharedMap for SimulatedSharedMap {
    fn store(&mut self, at: usize, bytes: &[u8]) {
        assert!(self.writable, "only the writer stores, and it maps for writing");
        assert!(at + bytes.len() <= self.len, "a map does not grow its file");
        let mut state = self.disk.state();
        // A stopped machine runs no stores.
        if !state.frozen {
            state.content_mut(self.id).write(at, bytes, Reach::Cache);
        }
    }

    fn sync(&self) -> io::Result<()> {
        if !self.writable {
            return Ok(());
        }
        self.disk.dawdle();
        self.disk.state().sync(self.id)
    }
}

/// A lock that this process holds.
#[derive(Debug)]
pub(super) struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
}

impl Lock for SimulatedLock {}

impl SimulatedLock {
    /// Unlike the real one it makes no file: who holds it is known to the disk itself.
    pub(super) fn take(disk: &SimulatedDisk, path: &Path) -> io::Result<Result<Box<dyn Lock>, Option<u32>>> {
        let mut state = disk.state();
        state.tree.check_place(path)?;
        let path = absolute(path);
        if let Some(holder) = state.locks.get(&path) {
            return Ok(Err(Some(*holder)));
        }
        state.locks.insert(path.clone(), std::process::id());
        Ok(Ok(Box::new(Self { disk: disk.clone(), path })))
    }
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}
