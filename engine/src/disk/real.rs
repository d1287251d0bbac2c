//! What the disks of a real machine share: files, directories, maps and locks.
#![allow(unsafe_code)]

use super::aligned::{ALIGNMENT, Chunk};
use super::maps::Advice;
use super::{Access, File, Lock, SharedMap};
use bytes::Bytes;
use memmap2::{Mmap, MmapMut};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// How much is zero-filled between two looks at the pace.
const ZEROING_BYTES: usize = 1 << 20;
/// A large file is made in parts of this size with pauses: ten megabytes synced at once hold up the log by ten
/// milliseconds and more.
const WRITTEN_AT_ONCE_BYTES: usize = 512 << 10;
const WRITE_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
/// How often a write that was interrupted is tried again before that counts as a failure.
const INTERRUPTIONS_MAX: usize = 1000;
/// How long a lock is waited for: a killed process's requests in flight can hold it for a moment.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Whether durable writes go past the page cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cache {
    Bypassed,
    Used,
}

impl Cache {
    fn flags(self) -> i32 {
        let flags = match self {
            Self::Bypassed => OFlags::DIRECT | OFlags::DSYNC,
            Self::Used => OFlags::DSYNC,
        };
        flags.bits().cast_signed()
    }
}

pub(crate) fn create_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    create_dirs(parent)?;
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
        other => other?,
    }
    sync_dir(parent)
}

pub(crate) fn list(dir: &Path) -> io::Result<Vec<String>> {
    std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

pub(crate) fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = create_anew(path)?;
    let mut parts = content.chunks(WRITTEN_AT_ONCE_BYTES);
    if let Some(first) = parts.next() {
        file.write_all(first)?;
    }
    for part in parts {
        file.sync_data()?;
        std::thread::sleep(WRITE_PAUSE);
        file.write_all(part)?;
    }
    file.sync_all()
}

/// A new file under this name. One that was there is unlinked and not truncated: readers may have it mapped.
fn create_anew(path: &Path) -> io::Result<std::fs::File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

pub(crate) fn preallocate(
    path: &Path,
    len: u64,
    cache: Cache,
    zeroed: &mut dyn FnMut(u64) -> bool,
) -> io::Result<()> {
    let file = create_anew(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
        // Some file systems cannot allocate; zero-filling all of it then reserves the space.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = vec![0; ZEROING_BYTES];
            let mut at = 0;
            while at < len {
                let count = (len - at).min(zeros.len() as u64);
                file.write_all_at(&zeros[..usize_of(count)], at)?;
                at += count;
            }
        }
        allocated => {
            allocated?;
            zero_fill(path, len, cache, zeroed)?;
        }
    }
    file.sync_all()
}

fn zero_fill(path: &Path, len: u64, cache: Cache, zeroed: &mut dyn FnMut(u64) -> bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    if cache == Cache::Bypassed {
        options.custom_flags(OFlags::DIRECT.bits().cast_signed());
    }
    let file = options.open(path)?;
    let zeros = Chunk::new(ZEROING_BYTES);
    // SAFETY: nobody writes the chunk after its creation.
    let zeros = unsafe { zeros.filled(0..ZEROING_BYTES) };
    let mut at = 0;
    while at < len {
        let count = (len - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..usize_of(count)], at)?;
        at += count;
        if !zeroed(count) {
            break;
        }
    }
    Ok(())
}

pub(crate) fn open(path: &Path, access: Access, cache: Cache) -> io::Result<Arc<dyn File>> {
    let plain = OpenOptions::new().read(true).write(access == Access::Shared).open(path)?;
    let durable = if access == Access::Log {
        let file = OpenOptions::new().read(true).write(true).custom_flags(cache.flags()).open(path)?;
        if !try_lock(&file)? {
            return Err(io::Error::new(ErrorKind::WouldBlock, "another process writes this file"));
        }
        Some(file)
    } else {
        None
    };
    Ok(Arc::new(RealFile { plain, durable }))
}

/// Takes the advisory lock of an open file, trying for a second; `false`: somebody else has it.
fn try_lock(file: &std::fs::File) -> io::Result<bool> {
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => std::thread::sleep(LOCK_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// The writer's lock file, locked; its content is the writer's process id and the name of its disk.
#[derive(Debug)]
struct RealLock {
    _file: std::fs::File,
}

impl Lock for RealLock {}

pub(crate) fn lock(path: &Path, disk: &str) -> io::Result<Result<Box<dyn Lock>, Option<u32>>> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if !try_lock(&file)? {
        return Ok(Err(read_pid(&mut file)));
    }
    file.set_len(0)?;
    file.write_all(format!("{} {disk}\n", std::process::id()).as_bytes())?;
    Ok(Ok(Box::new(RealLock { _file: file })))
}

pub(crate) fn lock_holder(path: &Path) -> io::Result<Option<u32>> {
    let mut file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(read_pid(&mut file).unwrap_or(0))),
        Err(error) => Err(error.into()),
    }
}

fn read_pid(file: &mut std::fs::File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// A file of this machine: one descriptor for reading and mapping, one for durable writes.
#[derive(Debug)]
struct RealFile {
    plain: std::fs::File,
    durable: Option<std::fs::File>,
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.plain.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(&self.plain, buffer, offset)
    }

    fn read_device_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.plain));
        let direct =
            OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(link);
        if let Ok(direct) = direct {
            let mut aligned = Chunk::new(buffer.len().next_multiple_of(ALIGNMENT).max(ALIGNMENT));
            let count = read_full(&direct, aligned.bytes_mut(), offset)?;
            let count = count.min(buffer.len());
            buffer[..count].copy_from_slice(&aligned.bytes_mut()[..count]);
            return Ok(count);
        }
        // No direct reads here: drop what is cached, so that the device is asked.
        rustix::fs::fadvise(
            &self.plain,
            offset,
            std::num::NonZeroU64::new(buffer.len() as u64),
            rustix::fs::Advice::DontNeed,
        )?;
        read_full(&self.plain, buffer, offset)
    }

    fn write_durable(&self, offset: u64, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let file = self.durable.as_ref().ok_or(ErrorKind::PermissionDenied)?;
        write_full(file, offset, pieces)
    }

    fn sync(&self) -> io::Result<()> {
        rustix::fs::fdatasync(&self.plain).map_err(Into::into)
    }

    fn punch_from(&self, offset: u64) -> io::Result<()> {
        let file = self.durable.as_ref().ok_or(ErrorKind::PermissionDenied)?;
        let len = self.len()?;
        if len <= offset {
            return Ok(());
        }
        match rustix::fs::fallocate(
            file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            offset,
            len - offset,
        ) {
            // It only saves space.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => other.map_err(Into::into),
        }
    }

    fn map(&self, advice: Advice) -> io::Result<Bytes> {
        if self.len()? == 0 {
            return Ok(Bytes::new());
        }
        // SAFETY: a store's files are never truncated, and only the writer changes them, behind what readers were
        // told is durable. That nobody else changes them is the store's documented requirement.
        let map = unsafe { Mmap::map(&self.plain)? };
        if advice == Advice::Points {
            // It is a matter of speed alone.
            let _ = map.advise(memmap2::Advice::Random);
        }
        Ok(Bytes::from_owner(map))
    }

    fn map_shared(&self) -> io::Result<Box<dyn SharedMap>> {
        // SAFETY: as above; readers of this file expect half-written bytes and check them.
        let map = unsafe { MmapMut::map_mut(&self.plain)? };
        Ok(Box::new(RealSharedMap { map }))
    }

    fn release(&self) {
        if let Some(file) = &self.durable {
            // It is given back with the descriptor at the latest.
            let _ = rustix::fs::flock(file, FlockOperation::Unlock);
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.durable.as_ref().map(AsFd::as_fd)
    }
}

fn read_full(file: &std::fs::File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match file.read_at(&mut buffer[count..], offset + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Writes all pieces, going on after short and interrupted writes.
pub(crate) fn write_full(file: impl AsFd, offset: u64, pieces: &[IoSlice<'_>]) -> io::Result<()> {
    write_on(offset, pieces, |rest, at| rustix::io::pwritev(&file, rest, at))
}

/// The same, by a call that writes as much as it likes.
fn write_on(
    offset: u64,
    pieces: &[IoSlice<'_>],
    mut write: impl FnMut(&[IoSlice<'_>], u64) -> rustix::io::Result<usize>,
) -> io::Result<()> {
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut written = 0;
    let mut interruptions = 0;
    while written < total {
        let mut skip = written;
        let mut rest: Vec<IoSlice<'_>> = Vec::with_capacity(pieces.len());
        for piece in pieces {
            if skip < piece.len() {
                rest.push(IoSlice::new(&piece[skip..]));
            }
            skip = skip.saturating_sub(piece.len());
        }
        match write(&rest, offset + written as u64) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) if interruptions < INTERRUPTIONS_MAX => {
                interruptions += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[derive(Debug)]
struct RealSharedMap {
    map: MmapMut,
}

impl SharedMap for RealSharedMap {
    fn store(&mut self, at: usize, bytes: &[u8]) {
        self.map[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn sync(&self) -> io::Result<()> {
        self.map.flush()
    }
}

/// A length that was cut to that of a buffer.
fn usize_of(count: u64) -> usize {
    usize::try_from(count).expect("the length of a buffer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Some bytes at a time, or none as it was interrupted.
        #[test]
        fn whatever_the_system_writes_at_a_time_all_of_it_is_written(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..6),
            counts in prop::collection::vec(prop::option::weighted(0.8, 1..50_usize), 0..400),
        ) {
            let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let (mut file, mut counts) = (Vec::new(), counts.into_iter());
            let written = write_on(7, &slices, |rest, at| {
                assert_eq!(at, 7 + file.len() as u64);
                let Some(count) = counts.next().unwrap_or(Some(50)) else { return Err(rustix::io::Errno::INTR) };
                let rest: Vec<u8> = rest.iter().flat_map(|piece| piece.iter().copied()).collect();
                let count = count.min(rest.len());
                file.extend_from_slice(&rest[..count]);
                Ok(count)
            });
            // Who is interrupted for ever gives up, and says so.
            if written.is_ok() {
                prop_assert_eq!(file, pieces.concat());
            }
        }
    }
}
