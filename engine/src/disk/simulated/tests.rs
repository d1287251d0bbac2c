//! One test a promise of the simulated disk; what is a matter of chance is tried with many seeds.

mod faults;
mod storage;
mod submission;

use super::*;
use crate::disk::Piece;
use std::io::IoSlice;

const BLOCK: usize = 4096;
const SEEDS: u64 = 64;

fn path(name: &str) -> &Path {
    Path::new(name)
}

/// A disk with a durable directory `/s`, and its next operation is the first.
fn disk(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    disk.create_dirs(path("/s")).unwrap();
    let disk = disk.kill();
    assert_eq!(disk.operations(), 0);
    disk
}

/// The same with a durable file `/s/log` of `blocks` zero blocks.
fn disk_with_log(seed: u64, blocks: usize) -> SimulatedDisk {
    let disk = disk(seed);
    disk.put_raw(path("/s/log"), &vec![0; blocks * BLOCK]);
    disk
}

fn open_log(disk: &SimulatedDisk) -> Arc<dyn File> {
    disk.open(path("/s/log"), Access::Log).unwrap()
}

fn write_blocks(file: &dyn File, block: usize, bytes: &[u8]) -> io::Result<()> {
    let piece = Piece::copied(bytes);
    file.write_durable((block * BLOCK) as u64, &[IoSlice::new(piece.as_ref())])
}

/// For each sector whether it is all ones; it is all zeros otherwise, never a mixture.
fn sectors(image: &[u8]) -> Vec<bool> {
    let whole = |sector: &[u8]| {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "a torn sector");
        sector[0] == 1
    };
    image.chunks(512).map(whole).collect()
}

fn device(disk: &SimulatedDisk, name: &str) -> Vec<u8> {
    disk.contents(path(name)).unwrap()
}

fn latest(disk: &SimulatedDisk, name: &str) -> Vec<u8> {
    disk.read(path(name)).unwrap()
}

/// How many of the seeds give true.
fn count(check: impl Fn(u64) -> bool) -> u64 {
    (0..SEEDS).filter(|seed| check(*seed)).count() as u64
}

fn assert_sometimes(count: u64) {
    assert!(0 < count && count < SEEDS, "always or never over all seeds: {count}");
}
