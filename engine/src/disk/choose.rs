//! Which disk a store gets: the first that works where it is, or the one that is asked for.

use super::buffered::Buffered;
use super::direct::Direct;
use super::ring::{self, Ring};
use super::{Access, Disk};
use annals_types::{DiskChoice, OpenError};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// What the name of a file for one real aligned write begins with; it is removed at once.
pub(crate) const PROBE_PREFIX: &str = "probe-";

/// Chooses the disk for the store in `dir`, which exists where the store is opened for writing (`writable`).
pub(crate) fn choose(choice: DiskChoice, dir: &Path, writable: bool) -> Result<Arc<dyn Disk>, OpenError> {
    let unavailable = |disk, error: io::Error| OpenError::DiskUnavailable { disk, reason: error.to_string() };
    if !writable {
        return Ok(Arc::new(Buffered));
    }
    match choice {
        DiskChoice::Buffered => Ok(Arc::new(Buffered)),
        DiskChoice::Direct => {
            probe(dir).map_err(|error| unavailable("direct", error))?;
            Ok(Arc::new(Direct))
        }
        DiskChoice::Ring => {
            ring::is_available().and_then(|()| probe(dir)).map_err(|error| unavailable("ring", error))?;
            Ok(Arc::new(Ring::default()))
        }
        DiskChoice::Auto => Ok(match (probe(dir), ring::is_available()) {
            (Ok(()), Ok(())) => Arc::new(Ring::default()),
            (Ok(()), Err(_)) => Arc::new(Direct),
            // Refused, rather than failed for a reason that has nothing to do with how it writes.
            (Err(error), _) if is_refusal(&error) => Arc::new(Buffered),
            (Err(_), Ok(())) => Arc::new(Ring::default()),
            (Err(_), Err(_)) => Arc::new(Direct),
        }),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// One direct, durable, aligned write in `dir`, as the log would make it.
fn probe(dir: &Path) -> io::Result<()> {
    // Two openings at once must not take each other's.
    let path = dir.join(format!("{PROBE_PREFIX}{}-{:?}", std::process::id(), std::thread::current().id()));
    let block = super::Piece::copied(&[0]);
    let written = Direct
        .write_new(&path, &[])
        .and_then(|()| Direct.open(&path, Access::Log))
        .and_then(|file| file.write_durable(0, &[IoSlice::new(block.as_ref())]));
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}
