//! Why something was not done: a code that stays for ever, a message for people, and data for programs.
//!
//! A failure is its code (2 bytes), its message (a text), and its data (bytes, which differ by code; a reader ignores what it does
//! not know behind those that it knows).

use crate::wire::{Malformed, Rest, Wire, put_bytes, put_text, take_bytes};
use annals_types::{AppendError, Damage, InputError, IoFailure, ReadError, SubscriptionError};
use bytes::BytesMut;
use std::sync::Arc;

/// Why a request was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// An append was refused, or failed.
    #[error(transparent)]
    Append(AppendError),
    /// A read failed.
    #[error(transparent)]
    Read(ReadError),
    /// Something about a durable subscription was not done.
    #[error(transparent)]
    Subscription(SubscriptionError),
    /// A message was malformed. The connection ends.
    #[error("the server could not read the message: {0}")]
    Malformed(String),
    /// A request of a kind that the server does not know.
    #[error("the server does not know requests of kind {kind}; use a newer one")]
    UnknownRequest {
        /// The kind.
        kind: u16,
    },
    /// Client and server have no version of the protocol in common. The connection ends.
    #[error("the server speaks versions {min} to {max} of the protocol")]
    UnsupportedVersion {
        /// The oldest that it speaks.
        min: u16,
        /// The newest that it speaks.
        max: u16,
    },
    /// The token is missing, unknown or was revoked. The connection ends.
    #[error(
        "the server asks for a token, and does not accept the one that was given, if any; ask who runs it for one"
    )]
    Unauthenticated,
    /// The token has no right to that.
    #[error("the token has no right to {what}")]
    Forbidden {
        /// To what.
        what: String,
    },
    /// There is no store of that name.
    #[error("there is no store \"{}\"", name.escape_debug())]
    NoStore {
        /// The name.
        name: String,
    },
    /// There is a store of that name.
    #[error("there is a store \"{}\" already", name.escape_debug())]
    StoreExists {
        /// The name.
        name: String,
    },
    /// There is too much of something. It may be tried again later.
    #[error("the server has too many {what}; try again later")]
    Overloaded {
        /// Of what.
        what: String,
    },
    /// The server is shutting down. Nothing was done.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Another server has to be asked. Nothing was done.
    #[error("another server has to be asked{}", leader.as_ref().map_or_else(String::new, |leader| format!(": {leader}")))]
    NotLeader {
        /// Which, where it is known.
        leader: Option<String>,
    },
    /// The server has been replaced. Nothing was done.
    #[error("the server has been replaced by another")]
    Fenced,
    /// The request was cancelled.
    #[error("the request was cancelled")]
    Cancelled,
    /// The server made a mistake.
    #[error("the server failed: {0}")]
    Internal(String),
    /// This server does not do that, whoever asks for it.
    #[error("the server does not do that: {reason}")]
    Unsupported {
        /// Why not.
        reason: String,
    },
    /// Another process has the store open.
    #[error("the store \"{}\" is in use by another process on the server's machine", name.escape_debug())]
    StoreInUse {
        /// Its name.
        name: String,
    },
    /// Something did not come in time.
    #[error("the server has waited too long for {what}")]
    Late {
        /// What.
        what: String,
    },
    /// What only a newer client understands.
    #[error("{message} (code {code})")]
    Other {
        /// Its code.
        code: u16,
        /// What the server says.
        message: String,
    },
}

impl Failure {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code_and_data(&mut BytesMut::new())
    }

    /// Its code, and its data, which are appended.
    fn code_and_data(&self, to: &mut BytesMut) -> u16 {
        match self {
            Self::Malformed(_) => 1,
            Self::UnknownRequest { kind } => put(2, to, kind),
            Self::UnsupportedVersion { min, max } => put(3, to, &(*min, *max)),
            Self::Unauthenticated => 4,
            Self::Forbidden { what } => put(5, to, what),
            Self::NoStore { name } => put(6, to, name),
            Self::StoreExists { name } => put(7, to, name),
            Self::Overloaded { what } => put(8, to, what),
            Self::ShuttingDown => 9,
            Self::NotLeader { leader } => put(10, to, leader),
            Self::Fenced => 11,
            Self::Cancelled => 12,
            Self::Internal(_) => 13,
            Self::Unsupported { reason } => put(14, to, reason),
            Self::StoreInUse { name } => put(15, to, name),
            Self::Late { what } => put(16, to, what),
            Self::Other { code, .. } => *code,
            Self::Append(error) => append_code(error, to),
            Self::Read(error) => read_code(error, to),
            Self::Subscription(error) => subscription_code(error, to),
        }
    }

    /// What a failure of this code says. A message for people is what there is where nothing else is known.
    fn known(code: u16, message: &str, data: &mut Rest<'_>) -> Result<Self, Malformed> {
        Ok(match code {
            1 => Self::Malformed(message.to_owned()),
            2 => Self::UnknownRequest { kind: Wire::take(data)? },
            3 => Self::UnsupportedVersion { min: Wire::take(data)?, max: Wire::take(data)? },
            4 => Self::Unauthenticated,
            5 => Self::Forbidden { what: Wire::take(data)? },
            6 => Self::NoStore { name: Wire::take(data)? },
            7 => Self::StoreExists { name: Wire::take(data)? },
            8 => Self::Overloaded { what: Wire::take(data)? },
            9 => Self::ShuttingDown,
            10 => Self::NotLeader { leader: Wire::take(data)? },
            11 => Self::Fenced,
            12 => Self::Cancelled,
            13 => Self::Internal(message.to_owned()),
            14 => Self::Unsupported { reason: Wire::take(data)? },
            15 => Self::StoreInUse { name: Wire::take(data)? },
            16 => Self::Late { what: Wire::take(data)? },
            200..300 => match append_error(code, message, data)? {
                Some(error) => Self::Append(error),
                None => Self::Other { code, message: message.to_owned() },
            },
            300..400 => match read_error(code, message, data)? {
                Some(error) => Self::Read(error),
                None => Self::Other { code, message: message.to_owned() },
            },
            400..500 => match subscription_error(code, message, data)? {
                Some(error) => Self::Subscription(error),
                None => Self::Other { code, message: message.to_owned() },
            },
            _ => Self::Other { code, message: message.to_owned() },
        })
    }
}

impl Wire<'_> for Failure {
    fn put(&self, to: &mut BytesMut) {
        let mut data = BytesMut::new();
        self.code_and_data(&mut data).put(to);
        put_text(&self.told(), to);
        put_bytes(&data, to);
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        let (code, message): (u16, String) = Wire::take(from)?;
        Self::known(code, &message, &mut Rest::new(take_bytes(from)?))
    }
}

impl Failure {
    /// The message as it travels: of those that are nothing but a message, that alone.
    fn told(&self) -> String {
        match self {
            Self::Malformed(message) | Self::Internal(message) | Self::Other { message, .. } => {
                message.clone()
            }
            Self::Append(AppendError::DiskFull(failure) | AppendError::Io(failure))
            | Self::Read(ReadError::Io(failure)) => told_by(failure).unwrap_or_else(|| failure.to_string()),
            other => other.to_string(),
        }
    }
}

/// Appends the data of a failure, and gives its code.
fn put<'a>(code: u16, to: &mut BytesMut, data: &impl Wire<'a>) -> u16 {
    data.put(to);
    code
}

fn append_code(error: &AppendError, to: &mut BytesMut) -> u16 {
    match error {
        AppendError::Input(_) => 200,
        AppendError::WrongVersion { stream, expected, actual } => {
            put(201, to, stream);
            put(201, to, &(*expected, *actual))
        }
        AppendError::QueryMatched { after, position } => put(202, to, &(*after, *position)),
        AppendError::AfterTheEnd { after, next } => put(203, to, &(*after, *next)),
        AppendError::QueryTooBroad { leaps, reached } => put(204, to, &(*leaps, *reached)),
        AppendError::WrongCursor { cursor, expected, actual } => {
            put(205, to, cursor);
            put(205, to, &(*expected, *actual))
        }
        AppendError::CursorAfterTheEnd { cursor, position, next } => {
            put(206, to, cursor);
            put(206, to, &(*position, *next))
        }
        AppendError::TooManyCursors { cursor } => put(207, to, cursor),
        AppendError::NoSuchVersion { stream, version, head } => {
            put(208, to, stream);
            put(208, to, &(*version, *head))
        }
        AppendError::IdConflict { id, position } => put(209, to, &(*id, *position)),
        AppendError::TimeBackwards { given, previous } => put(210, to, &(*given, *previous)),
        AppendError::TimeAhead { given, now } => put(211, to, &(*given, *now)),
        AppendError::DiskFull(_) => 212,
        AppendError::Poisoned { reason } => put(213, to, &reason.to_string()),
        AppendError::UnknownOutcome { reason } => put(214, to, &reason.to_string()),
        AppendError::TooLateToRepeat { since, next } => put(218, to, &(*since, *next)),
        AppendError::ReadOnly => 215,
        AppendError::Damage(damage) => put(216, to, damage),
        _ => 217,
    }
}

fn append_error(code: u16, message: &str, data: &mut Rest<'_>) -> Result<Option<AppendError>, Malformed> {
    Ok(Some(match code {
        200 => AppendError::Input(InputError::Told { message: message.to_owned() }),
        201 => AppendError::WrongVersion {
            stream: Wire::take(data)?,
            expected: Wire::take(data)?,
            actual: Wire::take(data)?,
        },
        202 => AppendError::QueryMatched { after: Wire::take(data)?, position: Wire::take(data)? },
        203 => AppendError::AfterTheEnd { after: Wire::take(data)?, next: Wire::take(data)? },
        204 => AppendError::QueryTooBroad { leaps: Wire::take(data)?, reached: Wire::take(data)? },
        205 => AppendError::WrongCursor {
            cursor: Wire::take(data)?,
            expected: Wire::take(data)?,
            actual: Wire::take(data)?,
        },
        206 => AppendError::CursorAfterTheEnd {
            cursor: Wire::take(data)?,
            position: Wire::take(data)?,
            next: Wire::take(data)?,
        },
        207 => AppendError::TooManyCursors { cursor: Wire::take(data)? },
        208 => AppendError::NoSuchVersion {
            stream: Wire::take(data)?,
            version: Wire::take(data)?,
            head: Wire::take(data)?,
        },
        209 => AppendError::IdConflict { id: Wire::take(data)?, position: Wire::take(data)? },
        210 => AppendError::TimeBackwards { given: Wire::take(data)?, previous: Wire::take(data)? },
        211 => AppendError::TimeAhead { given: Wire::take(data)?, now: Wire::take(data)? },
        212 => AppendError::DiskFull(told_failure(message)),
        213 => AppendError::Poisoned { reason: String::take(data)?.into() },
        214 => AppendError::UnknownOutcome { reason: String::take(data)?.into() },
        215 => AppendError::ReadOnly,
        216 => AppendError::Damage(Damage::take(data)?),
        217 => AppendError::Io(told_failure(message)),
        218 => AppendError::TooLateToRepeat { since: Wire::take(data)?, next: Wire::take(data)? },
        _ => return Ok(None),
    }))
}

fn read_code(error: &ReadError, to: &mut BytesMut) -> u16 {
    match error {
        ReadError::Damage(damage) => put(300, to, damage),
        ReadError::Input(_) => 301,
        ReadError::Stopped { reason } => put(302, to, &reason.to_string()),
        _ => 303,
    }
}

fn read_error(code: u16, message: &str, data: &mut Rest<'_>) -> Result<Option<ReadError>, Malformed> {
    Ok(Some(match code {
        300 => ReadError::Damage(Damage::take(data)?),
        301 => ReadError::Input(InputError::Told { message: message.to_owned() }),
        302 => ReadError::Stopped { reason: String::take(data)?.into() },
        303 => ReadError::Io(told_failure(message)),
        _ => return Ok(None),
    }))
}

fn subscription_code(error: &SubscriptionError, to: &mut BytesMut) -> u16 {
    match error {
        SubscriptionError::Input(_) => 400,
        SubscriptionError::Unknown { name } => put(401, to, name),
        SubscriptionError::Exists { name, difference } => {
            put(402, to, name);
            put(402, to, difference)
        }
        SubscriptionError::TooMany { name } => put(403, to, name),
        SubscriptionError::TooManyMembers { name } => put(404, to, name),
        SubscriptionError::NotInFlight { position } => put(405, to, position),
        SubscriptionError::AfterTheEnd { position, next } => put(406, to, &(*position, *next)),
        SubscriptionError::NotParked { position } => put(407, to, position),
        SubscriptionError::Lost { name } => put(408, to, name),
        SubscriptionError::Stopped { name, reason } => {
            put(409, to, name);
            put(409, to, reason)
        }
        SubscriptionError::Deleted { name } => put(410, to, name),
        SubscriptionError::Interrupted { name, reason } => {
            put(411, to, name);
            put(411, to, reason)
        }
        SubscriptionError::Closed => 412,
        SubscriptionError::Read(error) => read_code(error, to),
        SubscriptionError::Append(error) => append_code(error, to),
        _ => 499,
    }
}

fn subscription_error(
    code: u16,
    message: &str,
    data: &mut Rest<'_>,
) -> Result<Option<SubscriptionError>, Malformed> {
    Ok(Some(match code {
        400 => SubscriptionError::Input(InputError::Told { message: message.to_owned() }),
        401 => SubscriptionError::Unknown { name: Wire::take(data)? },
        402 => SubscriptionError::Exists { name: Wire::take(data)?, difference: String::take(data)?.into() },
        403 => SubscriptionError::TooMany { name: Wire::take(data)? },
        404 => SubscriptionError::TooManyMembers { name: Wire::take(data)? },
        405 => SubscriptionError::NotInFlight { position: Wire::take(data)? },
        406 => SubscriptionError::AfterTheEnd { position: Wire::take(data)?, next: Wire::take(data)? },
        407 => SubscriptionError::NotParked { position: Wire::take(data)? },
        408 => SubscriptionError::Lost { name: Wire::take(data)? },
        409 => SubscriptionError::Stopped { name: Wire::take(data)?, reason: Wire::take(data)? },
        410 => SubscriptionError::Deleted { name: Wire::take(data)? },
        411 => SubscriptionError::Interrupted { name: Wire::take(data)?, reason: Wire::take(data)? },
        412 => SubscriptionError::Closed,
        _ => return Ok(None),
    }))
}

/// A failure of the server's system, as a client knows it: by what it was told.
fn told_failure(message: &str) -> IoFailure {
    IoFailure {
        action: TOLD,
        path: "the server".into(),
        source: Arc::new(std::io::Error::other(message.to_owned())),
    }
}

/// Marks failures that a server told of.
const TOLD: &str = "have it done by";

fn told_by(failure: &IoFailure) -> Option<String> {
    failure.source.get_ref().filter(|_| failure.action == TOLD).map(ToString::to_string)
}
