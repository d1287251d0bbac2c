//! What to follow: what is there, from a place on, and then what comes.

use crate::error::InputError;
use crate::event::Record;
use crate::position::{Position, Timestamp, Version};
use crate::query::Query;
use crate::read::{Bound, Read};
use std::borrow::Cow;
use std::time::Duration;

/// Where following begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// With the first event.
    #[default]
    First,
    /// With what comes from now on.
    End,
    /// With this place: its event is the first, or the first one of that time or later. It need not be there yet.
    From(Bound),
    /// Behind this place: its event is the last that is left out, or the last one of that time or earlier.
    After(Bound),
}

impl Start {
    /// The lower bound of what is followed. `None`: there is none, or it is the end.
    #[must_use]
    pub fn bound(self) -> Option<Bound> {
        match self {
            Self::First | Self::End => None,
            Self::From(bound) => Some(bound),
            Self::After(bound) => Some(match bound {
                Bound::Position(position) => Position::new(position.get().saturating_add(1)).into(),
                Bound::Version(version) => Version::new(version.get().saturating_add(1)).into(),
                Bound::Time(time) => Timestamp::new(time.get().saturating_add(1)).into(),
            }),
        }
    }

    /// Whether this event lies before, as can be told of a version or time that is not there yet only once it is.
    #[must_use]
    pub fn is_behind(self, record: &Record) -> bool {
        match self.bound() {
            Some(Bound::Version(version)) => record.version() < version,
            Some(Bound::Time(time)) => record.time() < time,
            Some(Bound::Position(_)) | None => false,
        }
    }
}

/// What to follow, from where.
///
/// ```
/// use annals_types::{Follow, Position, QueryItem};
/// let orders = Follow::query(QueryItem::new().category("order")).after(Position::new(41));
/// let live = Follow::all().from_end();
/// assert!(orders.validate().is_ok() && live.validate().is_ok());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Follow<'a> {
    /// The stream; `None`: everything.
    pub stream: Option<Cow<'a, str>>,
    /// Of that, the events that match.
    pub query: Query<'a>,
    /// Where it begins. Default: with the first event.
    pub start: Start,
    /// How long it may go on without a word where nothing matches. Default: a second.
    pub progress_every: Duration,
}

impl<'a> Follow<'a> {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self {
            stream: None,
            query: Query::all(),
            start: Start::First,
            progress_every: Duration::from_secs(1),
        }
    }

    /// The events that match.
    pub fn query(query: impl Into<Query<'a>>) -> Self {
        Self { query: query.into(), ..Self::all() }
    }

    /// One stream.
    pub fn stream(stream: impl Into<Cow<'a, str>>) -> Self {
        Self { stream: Some(stream.into()), ..Self::all() }
    }

    /// Begins with this place, inclusive.
    #[must_use]
    pub fn from(mut self, bound: impl Into<Bound>) -> Self {
        self.start = Start::From(bound.into());
        self
    }

    /// Begins behind this place, exclusive.
    #[must_use]
    pub fn after(mut self, bound: impl Into<Bound>) -> Self {
        self.start = Start::After(bound.into());
        self
    }

    /// Begins with what comes from now on.
    #[must_use]
    pub fn from_end(mut self) -> Self {
        self.start = Start::End;
        self
    }

    /// Sets how long it may go on without a word where nothing matches.
    #[must_use]
    pub fn progress_every(mut self, period: Duration) -> Self {
        self.progress_every = period;
        self
    }

    /// The read of what is there now of it.
    #[must_use]
    pub fn read(&self) -> Read<'a> {
        Read {
            stream: self.stream.clone(),
            query: self.query.clone(),
            from: self.start.bound(),
            ..Read::all()
        }
    }

    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// As those of [`Read::validate`].
    pub fn validate(&self) -> Result<(), InputError> {
        self.read().validate()
    }
}

/// What following brings.
#[derive(Clone, Debug)]
pub enum Followed {
    /// The next event that matches.
    Event(Record),
    /// All that is durable was given: what comes now is new. Told once the first time, and again whenever it had fallen
    /// behind by a thousand events of the store or more.
    CaughtUp {
        /// Nothing before this position is to come.
        next: Position,
    },
    /// It goes on, though nothing matches: a place to begin from another time.
    Progress {
        /// Nothing before this position is to come.
        next: Position,
    },
}

impl Followed {
    /// The event, where it is one.
    #[must_use]
    pub fn into_event(self) -> Option<Record> {
        match self {
            Self::Event(record) => Some(record),
            Self::CaughtUp { .. } | Self::Progress { .. } => None,
        }
    }

    /// Nothing before this position is to come.
    #[must_use]
    pub fn next_position(&self) -> Position {
        match self {
            Self::Event(record) => record.position().plus(1),
            Self::CaughtUp { next } | Self::Progress { next } => *next,
        }
    }
}
