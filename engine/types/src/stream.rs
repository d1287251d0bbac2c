//! Stream names and what may be expected of a stream.

use crate::position::Version;
use std::fmt;

/// The part of a stream's name before its first `-`; the whole name where it has none.
///
/// ```
/// assert_eq!(annals_types::category("order-42"), "order");
/// assert_eq!(annals_types::category("ledger"), "ledger");
/// ```
#[must_use]
pub fn category(stream: &str) -> &str {
    stream.split_once('-').map_or(stream, |(category, _)| category)
}

/// What must be true of a stream for an append to be accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpectedVersion {
    /// Nothing is expected.
    Any,
    /// The stream has no event.
    NoStream,
    /// The stream has at least one event.
    Exists,
    /// The stream's head (its last version) is exactly this.
    Exactly(Version),
}

impl ExpectedVersion {
    /// Whether a stream whose head is `head` (`None`: it has no event) is as expected.
    #[must_use]
    pub fn holds(self, head: Option<Version>) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => head.is_none(),
            Self::Exists => head.is_some(),
            Self::Exactly(version) => head == Some(version),
        }
    }

    /// The version that the stream's next event gets if this holds; `None` where that is not fixed.
    #[must_use]
    pub fn next_version(self) -> Option<Version> {
        match self {
            Self::NoStream => Some(Version::ZERO),
            Self::Exactly(version) => version.get().checked_add(1).map(Version::new),
            Self::Any | Self::Exists => None,
        }
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::Exists => f.write_str("an existing stream"),
            Self::Exactly(version) => write!(f, "version {version}"),
        }
    }
}
