//! What to read: a stream or everything, from where, until where, in which direction.

use crate::error::InputError;
use crate::event::check_name;
use crate::limits;
use crate::position::{Position, Timestamp, Version};
use crate::query::Query;
use std::borrow::Cow;

/// One end of a read; it is part of what is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// A place in the order of the store.
    Position(Position),
    /// A place in the stream that is read.
    Version(Version),
    /// A time. At the lower end: the first event of that time or later; at the upper end: the last
    /// event of that time or earlier.
    Time(Timestamp),
}

impl From<Position> for Bound {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}

impl From<Version> for Bound {
    fn from(version: Version) -> Self {
        Self::Version(version)
    }
}

impl From<Timestamp> for Bound {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

/// A read: what, between which bounds, in which direction, and at most how much.
///
/// ```
/// use annals_types::{Position, Read, Version};
/// let newest_three = Read::stream("order-42").backwards().limit(3);
/// let page = Read::all().from(Position::new(1_000)).limit(100);
/// let first_ten = Read::stream("order-42").until(Version::new(9));
/// # let _ = (newest_three, page, first_ten);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read<'a> {
    /// The stream; `None`: everything.
    pub stream: Option<Cow<'a, str>>,
    /// Of that, the events that match.
    pub query: Query<'a>,
    /// Where it begins, inclusive. Backwards that is the upper end. Default: the start, or backwards the end.
    pub from: Option<Bound>,
    /// Where it ends, inclusive. Backwards that is the lower end. Default: no bound.
    pub until: Option<Bound>,
    /// Newest first.
    pub backwards: bool,
    /// At most this many events.
    pub limit: Option<u64>,
}

impl<'a> Read<'a> {
    /// Everything, in position order.
    #[must_use]
    pub fn all() -> Self {
        Self { stream: None, query: Query::all(), from: None, until: None, backwards: false, limit: None }
    }

    /// The events that match, in position order.
    pub fn query(query: impl Into<Query<'a>>) -> Self {
        Self { query: query.into(), ..Self::all() }
    }

    /// One stream, in version order.
    pub fn stream(stream: impl Into<Cow<'a, str>>) -> Self {
        Self { stream: Some(stream.into()), ..Self::all() }
    }

    /// Begins at this bound, inclusive.
    #[must_use]
    pub fn from(mut self, bound: impl Into<Bound>) -> Self {
        self.from = Some(bound.into());
        self
    }

    /// Ends at this bound, inclusive.
    #[must_use]
    pub fn until(mut self, bound: impl Into<Bound>) -> Self {
        self.until = Some(bound.into());
        self
    }

    /// Newest first. `from` is then the upper end and `until` the lower.
    #[must_use]
    pub fn backwards(mut self) -> Self {
        self.backwards = true;
        self
    }

    /// Stops after this many events.
    #[must_use]
    pub fn limit(mut self, count: u64) -> Self {
        self.limit = Some(count);
        self
    }

    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// A malformed name, a query over its limits, or a version bound on a read of everything.
    pub fn validate(&self) -> Result<(), InputError> {
        self.query.validate()?;
        if let Some(stream) = &self.stream {
            return check_name("stream name", stream, limits::STREAM_NAME_BYTES_MAX);
        }
        if [self.from, self.until].iter().any(|bound| matches!(bound, Some(Bound::Version(_)))) {
            return Err(InputError::Bound {
                what: "a version bound needs a stream; use a position or a time to read everything",
            });
        }
        Ok(())
    }
}
