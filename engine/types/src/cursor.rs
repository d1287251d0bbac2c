//! Cursors: named, durable places in the order of events.

use crate::position::Position;
use std::borrow::Cow;

/// How far somebody has come who handles events: a processor, a projection, an import.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// The last event that is handled; `None`: none is.
    pub position: Option<Position>,
    /// How often the cursor was set: 1, 2, 3, …
    pub revision: u64,
}

/// The new place of a cursor, set by an append: with all of its events, or not at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advance<'a> {
    /// The cursor's name.
    pub cursor: Cow<'a, str>,
    /// The last event that is handled; `None`: begin from the first again.
    pub position: Option<Position>,
}
