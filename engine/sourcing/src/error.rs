//! What can go wrong.

use crate::saga::SagaError;
use crate::upcast::UpcastError;
use annals_types::{Position, StoreError, Version};

/// Why state could not be had, or events not be kept.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourcingError {
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event of a type that the application doesn't have.
    #[error(
        "the event at position {position}, of {stream:?}, has the type {event_type:?}, which is unknown here; what shall become of such \
             events can be set"
    )]
    UnknownType {
        /// Where it is.
        position: Position,
        /// Its stream.
        stream: String,
        /// Its type.
        event_type: String,
    },
    /// An event cannot be read.
    #[error(
        "the event at position {position}, of {stream:?}, of type {event_type:?}, cannot be read: {reason}"
    )]
    Unreadable {
        /// Where it is.
        position: Position,
        /// Its stream.
        stream: String,
        /// Its type.
        event_type: String,
        /// Why.
        reason: String,
    },
    /// An event or a state cannot be written.
    #[error("{what} cannot be written: {reason}")]
    Unwritable {
        /// What.
        what: String,
        /// What the codec says.
        reason: String,
    },
    /// The upcasts are not complete.
    #[error(transparent)]
    Upcast(#[from] UpcastError),
    /// The steps of a saga don't fit.
    #[error(transparent)]
    Saga(#[from] SagaError),
    /// An event has no place: the decision is about several streams or a query, and nothing says to which stream it goes.
    #[error(
        "an event of type {event_type:?} has no stream: the decision is about several streams or a query, so `Decider::place` must say it"
    )]
    NoPlace {
        /// Its type.
        event_type: &'static str,
    },
    /// An event cannot be judged: see [`Decider::cannot_judge`](crate::Decider::cannot_judge).
    #[error(
        "the event at position {position}, of type {event_type:?}, asks for something of {stream:?} that cannot be judged: {reason}; it is handled once that is mended"
    )]
    CannotJudge {
        /// The event.
        position: Position,
        /// Its type.
        event_type: String,
        /// The stream that was to decide.
        stream: String,
        /// What the decider says.
        reason: String,
    },
    /// No queue can have this name.
    #[error("{name:?} is no name of a queue: it is not empty and has no '-'")]
    QueueName {
        /// The name.
        name: String,
    },
    /// There is no such thing.
    #[error("{stream:?} has no event")]
    NotFound {
        /// The stream.
        stream: String,
    },
}

/// Why a command led to nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError<E> {
    /// It was refused: the decider's own error.
    #[error("the command is refused: {0}")]
    Refused(E),
    /// Others were quicker each time.
    #[error("others were quicker {attempts} times; the last one: {last}")]
    Conflicts {
        /// How often it was tried.
        attempts: u32,
        /// What the last append was refused with.
        last: StoreError,
    },
    /// The command was made for a version that is not the last one.
    #[error("{stream:?} {}, and the command was made for one that {}; load it and see whether it is still wanted", at(.actual), at(.expected))]
    OutOfDate {
        /// The stream.
        stream: String,
        /// The version that the command was made for; `None`: for a stream without events.
        expected: Option<Version>,
        /// The last version that there is; `None`: there is no event.
        actual: Option<Version>,
    },
    /// Something else.
    #[error(transparent)]
    Sourcing(#[from] SourcingError),
}

impl<E> From<StoreError> for HandleError<E> {
    fn from(error: StoreError) -> Self {
        Self::Sourcing(error.into())
    }
}

fn at(version: &Option<Version>) -> String {
    version.map_or_else(|| "has no events".to_owned(), |version| format!("is at version {version}"))
}
