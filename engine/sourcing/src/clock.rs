//! The only place of this crate that asks what time it is.

#![allow(clippy::disallowed_methods)]

use annals_types::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of day.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// How long something takes.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
