//! For tests, fuzzing and benchmarks: the simulated disk and opening on it, a real directory with a clock set by
//! hand, the model, the operations that both are compared by and the driver that does it, and the bodies of fuzz targets.

pub mod bodies;
mod driver;
mod model;
mod operations;
mod pipeline;

pub use crate::clock::Clock;
pub use crate::disk::simulated::{Fault, Repeat, SimulatedDisk};
pub use crate::format::key::shrink_hashes;
pub use crate::store::boundary::limit_leaps;
pub use bodies::{scan_bytes, segment_of};
pub use driver::{Driver, Place, SimulatedPlace, read_all};
pub use model::{Model, ModelEvent, check_prefix, is_same_outcome};
pub use operations::{Operation, Operations};
pub use pipeline::{Pipeline, Placed};

use crate::disk::{self, Disk as _};
use crate::{OpenError, Settings, Store};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How long a condition on a query takes to judge: under the lock that appends need, and outside.
///
/// # Errors
/// As an append's, where the condition does not hold too.
pub fn time_condition(
    store: &Store,
    query: &crate::Query<'_>,
    after: Option<crate::Position>,
) -> Result<(std::time::Duration, std::time::Duration), crate::AppendError> {
    store.time_condition(query, after)
}

/// Opens a store for writing on a simulated disk.
///
/// # Errors
/// As [`Store::open`].
pub fn open_simulated(
    disk: &SimulatedDisk,
    dir: &Path,
    settings: Settings,
    clock: Clock,
) -> Result<Store, OpenError> {
    Store::open_on(dir, settings, Arc::new(disk.clone()), clock)
}

/// Opens a store for reading alone on a simulated disk.
///
/// # Errors
/// As [`Store::open_read_only`].
pub fn open_simulated_read_only(disk: &SimulatedDisk, dir: &Path) -> Result<Store, OpenError> {
    Store::open_read_only_on(dir, Arc::new(disk.clone()))
}

/// Opens a store for writing in a real directory, which exists, with this clock.
///
/// # Errors
/// As [`Store::open_with`].
pub fn open_with_clock(dir: &Path, settings: Settings, clock: Clock) -> Result<Store, OpenError> {
    let disk = disk::choose(settings.disk, dir, true)?;
    Store::open_on(dir, settings, disk, clock)
}

/// The same, on a ring that has all writes in flight together which may be, however small.
///
/// # Errors
/// As [`Store::open_with`].
pub fn open_pipelined(dir: &Path, settings: Settings, clock: Clock) -> Result<Store, OpenError> {
    disk::choose(crate::DiskChoice::Ring, dir, true)?;
    let disk = Arc::new(disk::Ring { pipelined_bytes_min: 1 });
    Store::open_on(dir, settings, disk, clock)
}

/// Sets from how many bytes on the memory that logs are written from is short, over all stores of the process.
pub fn set_memory_short_from(bytes: usize) {
    disk::set_memory_short_from(bytes);
}

/// Has the calling thread run where nobody else would: whoever stands for another machine takes nothing of this one.
pub fn run_when_idle() {
    crate::threads::run_when_idle();
}

/// Paths of the files that a process would find on a simulated disk.
pub fn visible_paths(disk: &SimulatedDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().collect()
}

/// All files of a simulated disk, as reads see them: synced or not.
///
/// # Panics
/// When a file vanishes meanwhile.
#[must_use]
pub fn visible_files(disk: &SimulatedDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: &PathBuf| disk.read(path).expect("nobody else uses the disk");
    disk.paths().into_iter().map(|path| (path.clone(), read(&path))).collect()
}
