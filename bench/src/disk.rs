//! What the disk does by itself: durable, direct, aligned writes into a zero-filled file, one at a time.

use crate::report::{Run, histogram, note};
use crate::workload::stopwatch;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

const FILE_BYTES: usize = 64 << 20;

/// Writes blocks of `bytes` one after the other for this long.
pub(crate) fn probe(dir: &Path, bytes: usize, time: Duration) -> io::Result<Run> {
    let path = dir.join("disk-probe");
    std::fs::write(&path, vec![0; FILE_BYTES])?;
    let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC;
    let direct = OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(&path);
    // Where direct writes are refused, durable ones through the cache are the yardstick.
    let file = match direct {
        Ok(file) => file,
        Err(_) => OpenOptions::new()
            .write(true)
            .custom_flags(rustix::fs::OFlags::DSYNC.bits().cast_signed())
            .open(&path)?,
    };
    let memory = vec![7_u8; bytes + 4096];
    let start = memory.as_ptr().align_offset(4096);
    let block = &memory[start..start + bytes];
    let mut latency = histogram();
    let begun = stopwatch();
    let mut writes = 0_u64;
    while begun.elapsed() < time {
        let offset = writes * bytes as u64 % (FILE_BYTES - bytes) as u64 / 4096 * 4096;
        let sent = stopwatch();
        file.write_all_at(block, offset)?;
        note(&mut latency, sent.elapsed());
        writes += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(Run { events: writes, seconds, latency })
}

/// The file system that a directory is on, by the mount that it is below.
pub(crate) fn file_system(dir: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (device, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
            dir.starts_with(at).then(|| (at.len(), format!("{kind} on {device}")))
        })
        .max()
        .map_or_else(|| "unknown".into(), |(_, name)| name)
}
