//! What the disk does by itself: durable, direct, aligned writes into a zero-filled file.

use crate::report::{Run, histogram, note};
use crate::workload::stopwatch;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

const FILE_BYTES: usize = 64 << 20;
const BLOCK_BYTES: usize = 4096;

/// Writes blocks of `bytes` one after the other for this long; `depth` threads do so at a time.
pub(crate) fn probe(dir: &Path, depth: usize, bytes: usize, time: Duration) -> io::Result<Run> {
    let path = dir.join("disk-probe");
    let measured = measure(&path, depth, bytes, time);
    std::fs::remove_file(&path)?;
    measured
}

fn measure(path: &Path, depth: usize, bytes: usize, time: Duration) -> io::Result<Run> {
    let file = open(path)?;
    // Zeros that are really there: else the first writes would pay for making room.
    with_aligned(1 << 20, 0, |zeros| {
        (0..FILE_BYTES).step_by(zeros.len()).try_for_each(|at| file.write_all_at(zeros, at as u64))
    })?;
    file.sync_all()?;
    let begun = stopwatch();
    let until = begun + time;
    let parts = std::thread::scope(|scope| {
        let part = FILE_BYTES / depth;
        let writers: Vec<_> = (0..depth)
            .map(|at| {
                scope.spawn({
                    let file = &file;
                    move || write(file, at * part..(at + 1) * part, bytes, until)
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().expect("writers do not panic"))
            .collect::<io::Result<Vec<_>>>()
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut latency = histogram();
    for part in parts {
        latency.add(part).map_err(io::Error::other)?;
    }
    Ok(Run { events: latency.len(), seconds, latency })
}

fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC;
    let options = |flags: rustix::fs::OFlags| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).custom_flags(flags.bits().cast_signed());
        options
    };
    // Where direct writes are refused, durable ones through the cache are the yardstick.
    options(flags).open(path).or_else(|_| options(rustix::fs::OFlags::DSYNC).open(path))
}

/// Calls `with` with aligned bytes.
fn with_aligned<T>(bytes: usize, value: u8, with: impl FnOnce(&[u8]) -> T) -> T {
    let memory = vec![value; bytes + BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    with(&memory[start..start + bytes])
}

/// Writes blocks within a part of the file, over and over.
fn write(
    file: &File,
    part: std::ops::Range<usize>,
    bytes: usize,
    until: Instant,
) -> io::Result<hdrhistogram::Histogram<u64>> {
    let mut latency = histogram();
    let mut at = part.start;
    with_aligned(bytes, 7, |block| {
        loop {
            let sent = stopwatch();
            if sent >= until {
                return Ok(latency);
            }
            file.write_all_at(block, at as u64)?;
            note(&mut latency, sent.elapsed());
            at += bytes;
            if at + bytes > part.end {
                at = part.start;
            }
        }
    })
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
