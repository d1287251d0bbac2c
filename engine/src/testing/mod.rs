//! For tests, fuzzing and benchmarks: the simulated disk and opening on it.

pub use crate::clock::Clock;
pub use crate::disk::simulated::{Fault, Repeat, SimulatedDisk};

use crate::{OpenError, Settings, Store};
use std::path::Path;
use std::sync::Arc;

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
