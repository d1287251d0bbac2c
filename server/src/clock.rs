//! The only place of this crate that asks what time it is.

use annals::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The system's time; the epoch itself where the system's clock is before it.
#[expect(clippy::disallowed_methods, reason = "the command's own clock; everything else is passed the time")]
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

/// Measures how long something takes, for summaries and progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[expect(clippy::disallowed_methods, reason = "durations shown to a person, stored nowhere")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
