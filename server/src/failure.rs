//! Every way in which a command fails: its exit code, its name and its data for machines.

use crate::locate;
use annals::{
    AppendError, Damage, DamageKind, ExpectedVersion, InputError, IoFailure, OpenError, Position, ReadError,
    SubscriptionError,
};
use annals_client::{ClientError, Failure as Refusal};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;

/// Failed, for a reason that has no code of its own.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Wrong usage.
pub(crate) const EXIT_USAGE: u8 = 2;
/// A condition did not hold.
pub(crate) const EXIT_CONDITION: u8 = 3;
/// Damage was met.
pub(crate) const EXIT_DAMAGE: u8 = 4;
/// The store is in use by another writer.
pub(crate) const EXIT_IN_USE: u8 = 5;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line, or what it names, makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A read stopped.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A batch was not appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Something about a durable subscription was not done.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    /// A server did not do it, for a reason that an embedded store does not have.
    #[error(transparent)]
    Server(ClientError),
    /// A server has no store of that name, and others instead.
    #[error("{address} has no store \"{}\"; choose one with --store NAME: {}", name.escape_debug(), locate::listed(names))]
    NoStore {
        /// The server.
        address: String,
        /// The name.
        name: String,
        /// Those that there are.
        names: Vec<String>,
    },
    /// An id that is no correlation, and that caused nothing.
    #[error("no event has the correlation {id}, and none was caused by it")]
    NothingCaused {
        /// The id.
        id: annals::Uuid,
    },
    /// A stream that has no events, and so never was.
    #[error("there is no stream \"{}\"", stream.escape_debug())]
    NoStream {
        /// The stream.
        stream: String,
    },
    /// A stream that has no such snapshot.
    #[error("stream \"{}\" has no such snapshot{}; see annals snapshot list", stream.escape_debug(), match version {
        Some(version) => format!(" of version {version}"),
        None => String::new(),
    })]
    NoSnapshot {
        /// The stream.
        stream: String,
        /// The version that was asked for.
        version: Option<u64>,
    },
    /// A token that there is none of.
    #[error("there is no token \"{}\"; see annals token list", name.escape_debug())]
    NoToken {
        /// Whose it would be.
        name: String,
    },
    /// A line of an import is no event, or one that cannot be stored.
    #[error("line {line}: {reason}; the lines before it are imported, use --skip-bad to go on without it")]
    BadLine {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// `verify` found damage, and has printed it.
    #[error("found damage in {count} {}", if *count == 1 { "place" } else { "places" })]
    Damaged {
        /// In how many places.
        count: usize,
    },
    /// The server was lost during an import.
    #[error("{0}; what was answered by then is imported, import the same file again to go on")]
    ImportLost(ClientError),
    /// A signal ended the work early.
    #[error("interrupted; what was sent by then is imported, import the same file again to go on")]
    Interrupted,
    /// Standard output does not take what is written.
    #[error("could not write to standard output: {0}")]
    Output(io::Error),
    /// The system failed on a file of the user's.
    #[error(transparent)]
    Io(#[from] IoFailure),
}

impl Failure {
    /// Notes what was tried where when `source` happened.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io(IoFailure::new(action, path, source))
    }

    /// Whether it only says that the reader of the output has left, which is no failure of ours.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code, as the contract of the command has it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Open(OpenError::Input(_))
            | Self::Read(ReadError::Input(_))
            | Self::Append(AppendError::Input(_))
            | Self::Subscription(SubscriptionError::Input(_)) => EXIT_USAGE,
            Self::Append(
                AppendError::WrongVersion { .. }
                | AppendError::QueryMatched { .. }
                | AppendError::WrongCursor { .. },
            ) => EXIT_CONDITION,
            Self::Damaged { .. } => EXIT_DAMAGE,
            Self::Server(ClientError::Options(_)) | Self::NoStore { .. } => EXIT_USAGE,
            Self::Server(ClientError::Refused(
                Refusal::NoStore { .. } | Refusal::StoreExists { .. } | Refusal::Unsupported { .. },
            )) => EXIT_USAGE,
            Self::Server(ClientError::Refused(Refusal::StoreInUse { .. })) => EXIT_IN_USE,
            // Nothing was done, unlike where the answer is lost.
            Self::Server(ClientError::Unreachable { .. } | ClientError::Untrusted { .. })
            // It adds nothing twice.
            | Self::ImportLost(_) => EXIT_IN_USE,
            _ if self.damage().is_some() => EXIT_DAMAGE,
            Self::Open(OpenError::InUse { .. }) => EXIT_IN_USE,
            _ => EXIT_FAILED,
        }
    }

    /// The damage that was met, if that is what it was.
    fn damage(&self) -> Option<&Damage> {
        match self {
            Self::Open(OpenError::Damage(damage))
            | Self::Read(ReadError::Damage(damage))
            | Self::Append(AppendError::Damage(damage))
            | Self::Subscription(
                SubscriptionError::Read(ReadError::Damage(damage))
                | SubscriptionError::Append(AppendError::Damage(damage)),
            ) => Some(damage),
            _ => None,
        }
    }

    /// Its name for machines.
    fn name(&self) -> &'static str {
        match self {
            _ if self.damage().is_some() => "damage",
            Self::Usage(_) => "usage",
            Self::NothingCaused { .. } => "nothing_caused",
            Self::Open(error) => open_name(error),
            Self::Append(error) | Self::Subscription(SubscriptionError::Append(error)) => append_name(error),
            Self::Subscription(error) => subscription_name(error),
            Self::Read(ReadError::Input(_)) => "input",
            Self::Read(ReadError::Stopped { .. }) => "stopped",
            Self::Read(_) | Self::Io(_) | Self::Output(_) => "io",
            Self::Server(error) | Self::ImportLost(error) => server_name(error),
            Self::NoStore { .. } => "no_store",
            Self::NoStream { .. } => "no_stream",
            Self::NoSnapshot { .. } => "no_snapshot",
            Self::NoToken { .. } => "no_token",
            Self::BadLine { .. } => "bad_line",
            Self::Damaged { .. } => "damage",
            Self::Interrupted => "interrupted",
        }
    }

    /// What it is about, for machines, beside its name and message.
    fn data(&self) -> Fields {
        if let Some(damage) = self.damage() {
            return damage_fields(damage);
        }
        match self {
            Self::Append(AppendError::WrongVersion { stream, expected, actual }) => vec![
                ("stream", json!(stream)),
                ("expected", expected_value(*expected)),
                ("actual", json!(actual.map(|head| head.version.get()))),
                ("position", json!(actual.map(|head| head.position.get()))),
            ],
            Self::Append(AppendError::QueryMatched { after, position }) => {
                vec![("after", json!(after.map(Position::get))), ("position", json!(position.get()))]
            }
            Self::Append(AppendError::AfterTheEnd { after, next }) => {
                vec![("after", json!(after.get())), ("next_position", json!(next.get()))]
            }
            Self::Append(AppendError::QueryTooBroad { leaps, reached }) => {
                vec![("leaps", json!(leaps)), ("reached", json!(reached.get()))]
            }
            Self::Append(AppendError::WrongCursor { cursor, expected, actual }) => vec![
                ("cursor", json!(cursor)),
                ("expected", json!(expected.map(Position::get))),
                ("actual", json!(actual.and_then(|actual| actual.position).map(Position::get))),
            ],
            Self::Append(AppendError::CursorAfterTheEnd { cursor, position, next }) => vec![
                ("cursor", json!(cursor)),
                ("position", json!(position.get())),
                ("next_position", json!(next.get())),
            ],
            Self::Append(AppendError::TooManyCursors { cursor }) => vec![("cursor", json!(cursor))],
            Self::Append(AppendError::NoSuchVersion { stream, version, head }) => vec![
                ("stream", json!(stream)),
                ("version", json!(version.get())),
                ("actual", json!(head.map(|head| head.version.get()))),
            ],
            Self::Append(AppendError::IdConflict { id, position }) => {
                vec![("id", json!(id.to_string())), ("position", json!(position.map(Position::get)))]
            }
            Self::Append(AppendError::TimeBackwards { given, previous }) => {
                vec![("given", json!(given.get())), ("previous", json!(previous.get()))]
            }
            Self::Append(AppendError::TimeAhead { given, now }) => {
                vec![("given", json!(given.get())), ("now", json!(now.get()))]
            }
            Self::Open(OpenError::NoStore { path }) => vec![("path", path_value(path))],
            Self::NoStore { name, names, .. } => vec![("store", json!(name)), ("stores", json!(names))],
            Self::Open(OpenError::NotAStore { path, found }) => {
                vec![("path", path_value(path)), ("found", json!(found))]
            }
            Self::Open(OpenError::InUse { path, holder }) => {
                vec![("path", path_value(path)), ("holder", json!(holder))]
            }
            Self::Open(OpenError::NewerFormat { file, found, supported }) => {
                vec![("file", path_value(file)), ("found", json!(found)), ("supported", json!(supported))]
            }
            Self::Subscription(error) => subscription_fields(error),
            Self::Server(error) | Self::ImportLost(error) => server_fields(error),
            Self::NoStream { stream } => vec![("stream", json!(stream))],
            Self::NoToken { name } => vec![("name", json!(name))],
            Self::NoSnapshot { stream, version } => {
                vec![("stream", json!(stream)), ("version", json!(version))]
            }
            Self::BadLine { line, reason } => vec![("line", json!(line)), ("reason", json!(reason))],
            Self::Damaged { count } => vec![("count", json!(count))],
            _ => Vec::new(),
        }
    }
}

/// An object of the form `{"error":"wrong_version","message":…,…data}`.
impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let head = [("error", json!(self.name())), ("message", json!(self.to_string()))];
        serializer.collect_map(head.into_iter().chain(self.data()))
    }
}

impl From<ClientError> for Failure {
    /// What the store of a server says is what an embedded one would say.
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(Refusal::Append(error)) => Self::Append(error),
            ClientError::Refused(Refusal::Read(error)) => Self::Read(error),
            ClientError::Refused(Refusal::Subscription(error)) => Self::Subscription(error),
            error => Self::Server(error),
        }
    }
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        Self::Append(AppendError::Input(error))
    }
}

/// Fields of an object, in the order in which they are printed.
type Fields = Vec<(&'static str, Value)>;

/// The fields of one damaged place, also as `verify` prints them.
pub(crate) fn damage_fields(damage: &Damage) -> Fields {
    vec![
        ("file", path_value(&damage.file)),
        ("offset", json!(damage.offset)),
        ("first_position", json!(damage.first_position.map(Position::get))),
        ("last_position", json!(damage.last_position.map(Position::get))),
        ("kind", json!(kind_name(damage.kind))),
    ]
}

fn kind_name(kind: DamageKind) -> &'static str {
    match kind {
        DamageKind::Checksum => "checksum",
        DamageKind::Misplaced => "misplaced",
        DamageKind::Malformed => "malformed",
        DamageKind::Missing => "missing",
        DamageKind::Unreadable => "unreadable",
        DamageKind::Digest => "digest",
        _ => "other",
    }
}

fn path_value(path: &std::path::Path) -> Value {
    json!(path.to_string_lossy())
}

/// What was expected, written as it is given: `any`, `none`, `exists` or a number.
fn expected_value(expected: ExpectedVersion) -> Value {
    match expected {
        ExpectedVersion::Any => json!("any"),
        ExpectedVersion::NoStream => json!("none"),
        ExpectedVersion::Exists => json!("exists"),
        ExpectedVersion::Exactly(version) => json!(version.get()),
    }
}

fn open_name(error: &OpenError) -> &'static str {
    match error {
        OpenError::NoStore { .. } => "no_store",
        OpenError::NotAStore { .. } => "not_a_store",
        OpenError::InUse { .. } => "in_use",
        OpenError::NewerFormat { .. } => "newer_format",
        OpenError::UnknownFeatures { .. } => "unknown_features",
        OpenError::Foreign { .. } => "foreign",
        OpenError::Damage(_) => "damage",
        OpenError::Input(_) => "input",
        OpenError::DiskUnavailable { .. } => "disk_unavailable",
        _ => "io",
    }
}

fn append_name(error: &AppendError) -> &'static str {
    match error {
        AppendError::Input(_) => "input",
        AppendError::WrongVersion { .. } => "wrong_version",
        AppendError::QueryMatched { .. } => "query_matched",
        AppendError::AfterTheEnd { .. } => "after_the_end",
        AppendError::QueryTooBroad { .. } => "query_too_broad",
        AppendError::WrongCursor { .. } => "wrong_cursor",
        AppendError::CursorAfterTheEnd { .. } => "cursor_after_the_end",
        AppendError::TooManyCursors { .. } => "too_many_cursors",
        AppendError::NoSuchVersion { .. } => "no_such_version",
        AppendError::IdConflict { .. } => "id_conflict",
        AppendError::TimeBackwards { .. } => "time_backwards",
        AppendError::TimeAhead { .. } => "time_ahead",
        AppendError::DiskFull(_) => "disk_full",
        AppendError::Poisoned { .. } => "poisoned",
        AppendError::UnknownOutcome { .. } => "unknown_outcome",
        AppendError::TooLateToRepeat { .. } => "too_late_to_repeat",
        AppendError::ReadOnly => "read_only",
        AppendError::Damage(_) => "damage",
        _ => "io",
    }
}

fn subscription_name(error: &SubscriptionError) -> &'static str {
    match error {
        SubscriptionError::Input(_) | SubscriptionError::Read(ReadError::Input(_)) => "input",
        SubscriptionError::Unknown { .. } => "no_subscription",
        SubscriptionError::Exists { .. } => "subscription_exists",
        SubscriptionError::TooMany { .. } => "too_many_subscriptions",
        SubscriptionError::TooManyMembers { .. } => "too_many_members",
        SubscriptionError::NotInFlight { .. } => "not_in_flight",
        SubscriptionError::AfterTheEnd { .. } => "after_the_end",
        SubscriptionError::NotParked { .. } => "not_parked",
        SubscriptionError::Lost { .. } => "lost",
        SubscriptionError::Stopped { .. } => "subscription_stopped",
        SubscriptionError::Deleted { .. } => "subscription_deleted",
        SubscriptionError::Interrupted { .. } => "interrupted",
        SubscriptionError::Closed => "closed",
        SubscriptionError::Read(ReadError::Stopped { .. }) => "stopped",
        _ => "io",
    }
}

fn server_name(error: &ClientError) -> &'static str {
    match error {
        ClientError::Options(_) => "usage",
        ClientError::Unreachable { .. } => "unreachable",
        ClientError::Untrusted { .. } => "untrusted",
        ClientError::Lost { .. } => "lost",
        ClientError::Late => "late",
        ClientError::Refused(failure) => match failure {
            Refusal::Unauthenticated => "unauthenticated",
            Refusal::Forbidden { .. } => "forbidden",
            Refusal::NoStore { .. } => "no_store",
            Refusal::StoreExists { .. } => "store_exists",
            Refusal::StoreInUse { .. } => "in_use",
            Refusal::Late { .. } => "late",
            Refusal::Overloaded { .. } => "overloaded",
            Refusal::ShuttingDown => "shutting_down",
            Refusal::NotLeader { .. } => "not_leader",
            Refusal::Fenced => "fenced",
            Refusal::UnsupportedVersion { .. }
            | Refusal::UnknownRequest { .. }
            | Refusal::Unsupported { .. } => "unsupported",
            _ => "server",
        },
        _ => "server",
    }
}

fn server_fields(error: &ClientError) -> Fields {
    match error {
        ClientError::Unreachable { address, reason } | ClientError::Untrusted { address, reason } => {
            vec![("address", json!(address)), ("reason", json!(reason))]
        }
        ClientError::Refused(Refusal::NoStore { name } | Refusal::StoreExists { name }) => {
            vec![("store", json!(name))]
        }
        ClientError::Refused(Refusal::Forbidden { what }) => vec![("what", json!(what))],
        _ => Vec::new(),
    }
}

fn subscription_fields(error: &SubscriptionError) -> Fields {
    match error {
        SubscriptionError::Exists { name, difference } => {
            vec![("subscription", json!(name)), ("difference", json!(difference))]
        }
        SubscriptionError::Stopped { name, reason } => {
            vec![("subscription", json!(name)), ("reason", json!(reason))]
        }
        SubscriptionError::Unknown { name }
        | SubscriptionError::TooMany { name }
        | SubscriptionError::TooManyMembers { name }
        | SubscriptionError::Lost { name }
        | SubscriptionError::Deleted { name }
        | SubscriptionError::Interrupted { name, .. } => vec![("subscription", json!(name))],
        SubscriptionError::AfterTheEnd { position, next } => {
            vec![("position", json!(position.get())), ("next_position", json!(next.get()))]
        }
        SubscriptionError::NotInFlight { position } | SubscriptionError::NotParked { position } => {
            vec![("position", json!(position.get()))]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals::{Head, Version};

    #[test]
    fn a_wrong_version_says_what_was_expected_and_what_is_there() {
        let failure = Failure::Append(AppendError::WrongVersion {
            stream: "order-42".to_owned(),
            expected: ExpectedVersion::NoStream,
            actual: Some(Head { version: Version::new(3), position: Position::new(17) }),
        });
        let text = serde_json::to_string(&failure).unwrap();
        assert!(text.starts_with(r#"{"error":"wrong_version","message":""#), "{text}");
        assert!(
            text.ends_with(r#","stream":"order-42","expected":"none","actual":3,"position":17}"#),
            "{text}"
        );
        assert_eq!(failure.exit_code(), EXIT_CONDITION);
    }

    #[test]
    fn damage_has_its_exit_code_wherever_it_is_met() {
        let damage = Damage {
            file: PathBuf::from("log"),
            offset: 64,
            first_position: None,
            last_position: None,
            kind: DamageKind::Checksum,
        };
        for failure in [
            Failure::Open(OpenError::Damage(damage.clone())),
            Failure::Read(ReadError::Damage(damage.clone())),
            Failure::Append(AppendError::Damage(damage)),
            Failure::Damaged { count: 2 },
        ] {
            assert_eq!(failure.exit_code(), EXIT_DAMAGE);
            assert!(serde_json::to_string(&failure).unwrap().starts_with(r#"{"error":"damage""#));
        }
    }

    #[test]
    fn only_a_broken_pipe_is_a_closed_pipe() {
        assert!(Failure::Output(io::ErrorKind::BrokenPipe.into()).is_closed_pipe());
        assert!(!Failure::Output(io::ErrorKind::StorageFull.into()).is_closed_pipe());
        assert!(!Failure::Interrupted.is_closed_pipe());
    }
}
