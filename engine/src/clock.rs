//! The clock: the one place that asks what time it is.

use annals_types::Timestamp;
#[cfg(any(test, feature = "testing"))]
use std::sync::Arc;
#[cfg(any(test, feature = "testing"))]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Where event times come from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's clock. It may jump back; event times then stand still until it has caught up.
    #[default]
    System,
    /// A clock that is set by hand, in nanoseconds since the Unix epoch, for tests.
    #[cfg(any(test, feature = "testing"))]
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => system_now(),
            #[cfg(any(test, feature = "testing"))]
            Self::Manual(now) => Timestamp::new(now.load(Ordering::SeqCst)),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn system_now() -> Timestamp {
    // A clock before 1970 counts as 1970.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2))
}

/// A time to measure from.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}
