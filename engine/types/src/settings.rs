//! Numbers and choices that a user may tune.

use crate::error::InputError;
use crate::limits;
use std::time::Duration;

/// How the log's file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DiskChoice {
    /// The first of ring, direct and buffered that works where the store is.
    #[default]
    Auto,
    /// `io_uring` with direct, durable writes, several in flight.
    Ring,
    /// Direct, durable writes, one at a time.
    Direct,
    /// Durable writes through the page cache, one at a time.
    Buffered,
}

/// Settings of a store. The defaults suit nearly everybody.
///
/// ```
/// let settings = annals_types::Settings { segment_bytes_max: 64 << 20, ..Default::default() };
/// assert!(settings.validate().is_ok());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How the log is written. Default: chosen by trying.
    pub disk: DiskChoice,
    /// Size of the first log segment, in bytes. Default 1 MiB; from 16 KiB to `segment_bytes_max`.
    pub segment_bytes_first: u64,
    /// Size up to which each next log segment doubles, in bytes. Default 64 MiB; at most 1 GiB.
    pub segment_bytes_max: u64,
    /// Bytes of the newest events kept in memory, besides what is not yet durable. Default 16 MiB. None while all
    /// stores of the process together take [`limits::LOG_MEMORY_BYTES_MAX`] for their logs.
    pub recent_bytes: u64,
    /// Heads of streams remembered in memory, besides those of the unsealed segments. Default 1,000,000
    /// (about 70 bytes each, taken as they are used); at most 32 million.
    pub cached_heads: usize,
    /// Newest events whose ids are known: an append with one of these ids is a repeat or a mistake, whatever its
    /// conditions. Default 1,000,000; 0: none are. Once ids are given, takes
    /// 8 bytes of memory each, up to 8 million; with a larger window each id is looked for in the indexes.
    /// An append with ids that waits, as for the disk, while more events than these come is refused as too late to repeat: its
    /// caller may have repeated it meanwhile.
    pub id_window: u64,
    /// Bodies of batches larger than this, in bytes, are compressed with zstd where it makes them
    /// smaller. Default: none are. Costs about 0.5 µs an event on the appending thread.
    pub compress_above_bytes: Option<usize>,
    /// Snapshots that are kept of each stream and name: those that were written last. Default 3; from 1 to 1,000.
    pub snapshots_kept: u32,
    /// How long the thread that writes the log looks for the next append before it sleeps: one that comes meanwhile wakes no thread.
    /// Default: zero, which is best where whoever appends waits in the same process; a server has 120 µs, about what a client
    /// takes to ask again. At most [`limits::LINGER_MAX`]. Takes that much of a processor that nobody else wants, after each
    /// write of few appends.
    pub linger: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            disk: DiskChoice::Auto,
            segment_bytes_first: 1 << 20,
            segment_bytes_max: 64 << 20,
            recent_bytes: 16 << 20,
            cached_heads: 1_000_000,
            id_window: 1_000_000,
            compress_above_bytes: None,
            snapshots_kept: 3,
            linger: Duration::ZERO,
        }
    }
}

impl Settings {
    /// Checks every number against its range.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn validate(&self) -> Result<(), InputError> {
        let check = |setting, value, min, max| {
            if value < min || value > max {
                Err(InputError::Setting { setting, value, min, max })
            } else {
                Ok(())
            }
        };
        check(
            "segment_bytes_max",
            self.segment_bytes_max,
            limits::SEGMENT_BYTES_FLOOR,
            limits::SEGMENT_BYTES_CEILING,
        )?;
        check("snapshots_kept", self.snapshots_kept.into(), 1, limits::SNAPSHOTS_KEPT_MAX.into())?;
        check("linger in microseconds", micros(self.linger), 0, micros(limits::LINGER_MAX))?;
        check("cached_heads", self.cached_heads as u64, 0, limits::CACHED_HEADS_MAX as u64)?;
        check(
            "segment_bytes_first",
            self.segment_bytes_first,
            limits::SEGMENT_BYTES_FLOOR,
            self.segment_bytes_max,
        )
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
