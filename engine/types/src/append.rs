//! A batch to be appended, what must hold for it, and what comes of it.

use crate::cursor::Advance;
use crate::error::InputError;
use crate::event::{NewEvent, check_name, check_size};
use crate::limits;
use crate::position::{Position, Version};
use crate::query::Query;
use crate::snapshot::NewSnapshot;
use crate::stream::ExpectedVersion;
use std::borrow::Cow;
use std::ops::Range;

/// Something that must hold for an append to be accepted, judged against every batch before it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Condition<'a> {
    /// A stream, written by the append or not, is as expected before it.
    Stream {
        /// The stream.
        stream: Cow<'a, str>,
        /// What is expected of it.
        expected: ExpectedVersion,
    },
    /// No event behind a position matches a query: the boundary of a decision that was made by what was read up to
    /// there. Known as a dynamic consistency boundary (DCB).
    NoMatch {
        /// What must not be there.
        query: Query<'a>,
        /// The last position that was read; `None`: there must be no such event at all.
        after: Option<Position>,
    },
    /// A cursor is where it was when its owner looked last.
    Cursor {
        /// The cursor.
        cursor: Cow<'a, str>,
        /// The last event that was handled; `None`: none was.
        expected: Option<Position>,
    },
}

/// Events that are appended together or not at all, and the conditions for it.
///
/// ```
/// use annals_types::{Append, ExpectedVersion, NewEvent};
/// let append = Append::new()
///     .event(NewEvent::new("order-42", "OrderPlaced"))
///     .event(NewEvent::new("customer-7", "CustomerOrdered"))
///     .expect("order-42", ExpectedVersion::NoStream);
/// assert!(append.validate().is_ok());
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Append<'a> {
    /// The events, in order; up to 10,000, of one or several streams.
    pub events: Vec<NewEvent<'a>>,
    /// What must hold; all of it, or nothing is written.
    pub conditions: Vec<Condition<'a>>,
    /// Cursors that are set with the events; up to 16, each once. A batch without events may have some.
    pub advances: Vec<Advance<'a>>,
    /// The state that a stream has with these events; written with them, or not at all.
    pub snapshot: Option<NewSnapshot<'a>>,
    /// Raises given times that are before those of earlier events, instead of refusing them.
    pub raise_times: bool,
    /// Since when it may be there: see [`Append::again`].
    pub again: Option<Position>,
}

impl<'a> Append<'a> {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event.
    #[must_use]
    pub fn event(mut self, event: NewEvent<'a>) -> Self {
        self.events.push(event);
        self
    }

    /// Adds a condition on a stream, whether it is written by this batch or not.
    #[must_use]
    pub fn expect(mut self, stream: impl Into<Cow<'a, str>>, expected: ExpectedVersion) -> Self {
        self.conditions.push(Condition::Stream { stream: stream.into(), expected });
        self
    }

    /// Adds the condition that no event after this position matches. `None`: no event at all. Up to 128 such conditions.
    ///
    /// Refused otherwise with [`AppendError::QueryMatched`](crate::AppendError::QueryMatched), which names the first event
    /// that matches. A position that no event has yet is an error
    /// ([`AppendError::AfterTheEnd`](crate::AppendError::AfterTheEnd)), and so is a query that would take about half a second
    /// to judge ([`AppendError::QueryTooBroad`](crate::AppendError::QueryTooBroad)).
    #[must_use]
    pub fn fail_if_matches(mut self, query: impl Into<Query<'a>>, after: Option<Position>) -> Self {
        self.conditions.push(Condition::NoMatch { query: query.into(), after });
        self
    }

    /// Sets a cursor, together with the events: everything up to `position` is handled; `None`: nothing is. Without any
    /// events, it is all that the append does.
    ///
    /// Refused with [`AppendError::CursorAfterTheEnd`](crate::AppendError::CursorAfterTheEnd) where there is no such
    /// position yet. A cursor needs no other beginning than its first setting; a store has up to 10,000.
    ///
    /// ```
    /// use annals_types::{Append, NewEvent, Position};
    /// // What follows from the event at position 7, and that it is handled: both or neither.
    /// let append = Append::from(NewEvent::new("invoice-7", "InvoiceSent"))
    ///     .expect_cursor("invoicing", Some(Position::new(6)))
    ///     .advance("invoicing", Some(Position::new(7)));
    /// assert!(append.validate().is_ok());
    /// ```
    #[must_use]
    pub fn advance(mut self, cursor: impl Into<Cow<'a, str>>, position: Option<Position>) -> Self {
        self.advances.push(Advance { cursor: cursor.into(), position });
        self
    }

    /// Adds the condition that a cursor is where it was when its owner looked last. `None`: it was never set, or to none.
    ///
    /// Refused otherwise with [`AppendError::WrongCursor`](crate::AppendError::WrongCursor), which says where it is.
    #[must_use]
    pub fn expect_cursor(mut self, cursor: impl Into<Cow<'a, str>>, expected: Option<Position>) -> Self {
        self.conditions.push(Condition::Cursor { cursor: cursor.into(), expected });
        self
    }

    /// Adds the state that a stream, which this batch writes, has with the batch's events: once the append is acknowledged,
    /// the snapshot is there, too. Where the append is a repeat, the snapshot is ignored.
    ///
    /// ```
    /// use annals_types::{Append, ExpectedVersion, NewEvent, NewSnapshot};
    /// let state = r#"{"total":12}"#;
    /// let append = Append::from(NewEvent::new("order-42", "OrderPlaced").json(state))
    ///     .expect("order-42", ExpectedVersion::NoStream)
    ///     .snapshot(NewSnapshot::new("order-42", 1, state));
    /// assert!(append.validate().is_ok());
    /// ```
    #[must_use]
    pub fn snapshot(mut self, snapshot: NewSnapshot<'a>) -> Self {
        self.snapshot = Some(snapshot);
        self
    }

    /// Allows given times that run backwards to be raised to the time of the event before.
    #[must_use]
    pub fn raise_times(mut self) -> Self {
        self.raise_times = true;
        self
    }

    /// Says that this batch was given to the store before, when `since` was its next position or later, and that nobody knows what
    /// became of it. It is known by the ids of its events, which must be the same ones; events without an id of yours are never
    /// known again.
    ///
    /// Where more events have come since than the store knows the ids of ([`Settings::id_window`](crate::Settings::id_window)), or it has
    /// not come as far as `since`, because it is another one, the append is refused with
    /// [`AppendError::TooLateToRepeat`](crate::AppendError::TooLateToRepeat) instead of being written twice.
    #[must_use]
    pub fn again(mut self, since: Position) -> Self {
        self.again = Some(since);
        self
    }

    /// Checks all that can be checked without a store.
    ///
    /// # Errors
    /// The first thing that is over a limit or malformed.
    pub fn validate(&self) -> Result<(), InputError> {
        if self.events.is_empty() && self.advances.is_empty() {
            return Err(InputError::NoEvents);
        }
        let is_timed = self.events.first().is_some_and(|first| first.time.is_some());
        check_size("events in the batch", self.events.len(), limits::BATCH_EVENTS_MAX)?;
        check_size("conditions", self.conditions.len(), limits::CONDITIONS_MAX)?;
        for (index, event) in self.events.iter().enumerate() {
            event.validate()?;
            if event.time.is_some() != is_timed {
                return Err(InputError::MixedTimes { event: index });
            }
        }
        for condition in &self.conditions {
            match condition {
                Condition::Stream { stream, .. } => {
                    check_name("stream name", stream, limits::STREAM_NAME_BYTES_MAX)?;
                }
                Condition::NoMatch { query, .. } => query.validate()?,
                Condition::Cursor { cursor, .. } => check_cursor(cursor)?,
            }
        }
        let queries =
            self.conditions.iter().filter(|condition| matches!(condition, Condition::NoMatch { .. }));
        check_size("conditions on queries", queries.count(), limits::QUERY_CONDITIONS_MAX)?;
        check_size("cursors set in the batch", self.advances.len(), limits::ADVANCES_MAX)?;
        for (index, advance) in self.advances.iter().enumerate() {
            check_cursor(&advance.cursor)?;
            if self.advances[..index].iter().any(|before| before.cursor == advance.cursor) {
                return Err(InputError::CursorTwice { cursor: advance.cursor.escape_debug().to_string() });
            }
        }
        if let Some(snapshot) = &self.snapshot {
            snapshot.validate()?;
            if self.events.iter().all(|event| event.stream != snapshot.stream) {
                return Err(InputError::SnapshotOfAnother {
                    stream: snapshot.stream.escape_debug().to_string(),
                });
            }
        }
        Ok(())
    }
}

fn check_cursor(name: &str) -> Result<(), InputError> {
    check_name("cursor name", name, limits::CURSOR_NAME_BYTES_MAX)
}

impl<'a> From<NewEvent<'a>> for Append<'a> {
    fn from(event: NewEvent<'a>) -> Self {
        Self::new().event(event)
    }
}

impl<'a> FromIterator<NewEvent<'a>> for Append<'a> {
    fn from_iter<I: IntoIterator<Item = NewEvent<'a>>>(events: I) -> Self {
        Self { events: events.into_iter().collect(), ..Self::default() }
    }
}

impl<'a, const N: usize> From<[NewEvent<'a>; N]> for Append<'a> {
    fn from(events: [NewEvent<'a>; N]) -> Self {
        events.into_iter().collect()
    }
}

/// What an accepted append became.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Positions of its events, in their order; empty where it has none.
    pub positions: Range<Position>,
    /// Version of its last event; 0 where it has none.
    pub last_version: Version,
    /// Whether the same batch had been appended before, and no event was added now; cursors that it had not set then are set.
    pub repeated: bool,
}

impl Appended {
    /// Position of its first event, or, where it has none, of the next event of the store.
    #[must_use]
    pub fn first_position(&self) -> Position {
        self.positions.start
    }
}
