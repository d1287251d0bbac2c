//! Errors, one enum per operation, made for branching: data, not strings.

use crate::cursor::Cursor;
use crate::limits;
use crate::position::{Position, Timestamp, Version};
use crate::stream::ExpectedVersion;
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// What is wrong with something that was given. Nothing was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// A name, type or tag has no characters.
    #[error("the {what} is empty; it needs at least one character")]
    Empty {
        /// Which part.
        what: &'static str,
    },
    /// A name, type or tag is too long.
    #[error("the {what} is {bytes} bytes long; at most {bytes_max} are allowed")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A name, type or tag contains a control character.
    #[error("the {what} \"{name}\" contains a control character; remove it")]
    ControlCharacter {
        /// Which part.
        what: &'static str,
        /// The part, escaped.
        name: String,
    },
    /// There is too much of something.
    #[error("{count} {what}; at most {count_max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How much there is.
        count: usize,
        /// The limit.
        count_max: usize,
    },
    /// A batch has no events, and nothing else that would allow that.
    #[error("the batch has no events; give it at least one, or a cursor to set")]
    NoEvents,
    /// A batch sets a cursor twice.
    #[error("the batch sets the cursor \"{cursor}\" twice; set it once")]
    CursorTwice {
        /// The cursor, escaped.
        cursor: String,
    },
    /// A snapshot goes with a batch that does not write its stream.
    #[error("the snapshot is of stream \"{stream}\", which the batch does not write; write it by itself")]
    SnapshotOfAnother {
        /// The stream, escaped.
        stream: String,
    },
    /// Some events of a batch carry a time and others do not.
    #[error("either all events of a batch carry a time or none does; event {event} differs from the first")]
    MixedTimes {
        /// Index in the batch of the first event that differs.
        event: usize,
    },
    /// A bound does not fit what is read, such as a version where there is no stream.
    #[error("{what}")]
    Bound {
        /// What does not fit, and what to do.
        what: &'static str,
    },
    /// How far a subscription has come is to be a cursor, but several events may be on their way at a time.
    #[error(
        "a subscription by cursor has one member and hands out one event at a time; make it exclusive, in total order"
    )]
    CursorOfMany,
    /// What a server says of it.
    #[error("{message}")]
    Told {
        /// What it says.
        message: String,
    },
    /// A setting is out of its range.
    #[error("the setting {setting} is {value}; it must be between {min} and {max}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What was given.
        value: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
}

/// Bytes that were acknowledged, or that describe the store, are not what was written.
///
/// The rest of the store stays readable. The damaged bytes are never cut, skipped or served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The file, as named in the store's directory.
    pub file: PathBuf,
    /// First byte of the damaged part.
    pub offset: u64,
    /// First position that cannot be read because of it, where known.
    pub first_position: Option<Position>,
    /// Last position that cannot be read because of it, where known.
    pub last_position: Option<Position>,
    /// What is wrong there.
    pub kind: DamageKind,
}

/// What is wrong with damaged bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DamageKind {
    /// A checksum does not match its bytes.
    Checksum,
    /// The bytes are intact but belong elsewhere: another store, segment, offset or number.
    Misplaced,
    /// A field has a value that no writer gives it.
    Malformed,
    /// A file, or a part of it that was acknowledged, is not there.
    Missing,
    /// The device reported an error for these bytes.
    Unreadable,
    /// The hash over the events differs from the one that was sealed.
    Digest,
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checksum => "checksum does not match",
            Self::Misplaced => "intact bytes in the wrong place",
            Self::Malformed => "impossible value",
            Self::Missing => "missing",
            Self::Unreadable => "cannot be read from the device",
            Self::Digest => "hash differs from the sealed one",
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file.display(), self.offset, self.kind)?;
        match (self.first_position, self.last_position) {
            (Some(first), Some(last)) if first == last => write!(f, " (position {first})"),
            (Some(first), Some(last)) => write!(f, " (positions {first} to {last})"),
            (Some(first), None) => write!(f, " (from position {first})"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Damage {}

/// An operation on a file failed.
#[derive(Clone, Debug)]
pub struct IoFailure {
    /// What was tried, such as "read" or "create".
    pub action: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// What the system said; shared, as one failure can end many appends.
    pub source: Arc<std::io::Error>,
}

impl IoFailure {
    /// Notes what was tried where when `source` happened.
    pub fn new(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self { action, path: path.into(), source: Arc::new(source) }
    }
}

impl fmt::Display for IoFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} {}: {}", self.action, self.path.display(), self.source)
    }
}

impl std::error::Error for IoFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// Why a store could not be opened. Nothing in the directory was changed, unless said otherwise.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is nothing at that path, or an empty directory, and it was not to be created.
    #[error("there is no store at {}", path.display())]
    NoStore {
        /// Where a store was looked for.
        path: PathBuf,
    },
    /// The directory holds other files and no store.
    #[error("{} is not a store: it has no manifest but holds {found}; choose an empty or new directory", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// Another process (or this one) has the store open for writing.
    #[error("the store at {} is in use by {}; close that writer, or open read-only", path.display(),
        holder.map_or_else(|| "another writer".to_owned(), |pid| format!("the writer with process id {pid}")))]
    InUse {
        /// The store.
        path: PathBuf,
        /// Process id of the writer, where it is known.
        holder: Option<u32>,
    },
    /// A file was written by a newer release.
    #[error("{} has format {found}, newer than this release reads (up to {supported}); use a newer release",
        file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest that this release reads.
        supported: u32,
    },
    /// A file uses features that this release does not know and must not ignore.
    #[error("{} uses unknown features (bits {features:#x}); use a newer release", file.display())]
    UnknownFeatures {
        /// The file.
        file: PathBuf,
        /// The unknown feature bits.
        features: u64,
    },
    /// A file belongs to another store.
    #[error("{} belongs to store {found}, not to this one ({expected}); remove it or restore the right file",
        file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// The store it says it is of.
        found: Uuid,
        /// This store.
        expected: Uuid,
    },
    /// Acknowledged bytes are damaged. The store can be opened read-only.
    #[error("damage: {0}; restore that file, or read what else there is with a store that is open read-only")]
    Damage(#[from] Damage),
    /// A setting is out of range.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The disk that a setting forces is not to be had here.
    #[error("the disk \"{disk}\" cannot be used here: {reason}; choose another or let it be chosen")]
    DiskUnavailable {
        /// Name of the disk.
        disk: &'static str,
        /// Why not.
        reason: String,
    },
    /// The system failed.
    #[error(transparent)]
    Io(#[from] IoFailure),
}

/// Why a read stopped.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// What is to be read is damaged. Reading on from behind it is possible.
    #[error("damage: {0}")]
    Damage(#[from] Damage),
    /// The read itself makes no sense.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Nothing more can come: the store's writer stopped. What was durable was given.
    #[error(
        "nothing more comes: the store's writer stopped ({reason}); reopen the store and go on from there"
    )]
    Stopped {
        /// What failed.
        reason: Arc<str>,
    },
    /// The system failed.
    #[error(transparent)]
    Io(#[from] IoFailure),
}

/// Why a batch was not appended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The batch itself is wrong. Nothing was written.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A stream was not as expected. Nothing was written.
    #[error("stream \"{stream}\": expected {expected}, but {}", match actual {
        Some(head) => format!("its head is version {} (position {})", head.version, head.position),
        None => "it has no events".to_owned(),
    })]
    WrongVersion {
        /// The stream.
        stream: String,
        /// What the append expected.
        expected: ExpectedVersion,
        /// The stream's head; `None`: it has no event.
        actual: Option<Head>,
    },
    /// An event matches a query that none may match. Nothing was written.
    #[error("the event at position {position} matches a query that no event may match{}", match after {
        Some(after) => format!(" after position {after}"),
        None => String::new(),
    })]
    QueryMatched {
        /// Behind which nothing may match; `None`: nowhere.
        after: Option<Position>,
        /// The first event that does.
        position: Position,
    },
    /// A condition is about what comes after a position that is not there yet: a mistake, or another store's position.
    /// Nothing was written.
    #[error(
        "a condition is about events after position {after}, but the next position is {next}; give one that was read"
    )]
    AfterTheEnd {
        /// The position that was given.
        after: Position,
        /// The position that the next event has.
        next: Position,
    },
    /// It would take too long to judge a condition. Nothing was written.
    #[error(
        "a condition's query is too broad: after {leaps} leaps it was judged up to position {reached}; give a later position, or rarer tags"
    )]
    QueryTooBroad {
        /// How far lists of events were leapt over.
        leaps: u64,
        /// Nothing before it matches.
        reached: Position,
    },
    /// A cursor is not where it was expected. Nothing was written.
    #[error("cursor \"{}\": expected {}, but it {}", cursor.escape_debug(), match expected {
        Some(position) => format!("to be at position {position}"),
        None => "to be at no position".to_owned(),
    }, match actual {
        Some(Cursor { position: Some(position), .. }) => format!("is at position {position}"),
        Some(Cursor { position: None, .. }) => "was set to none".to_owned(),
        None => "was never set".to_owned(),
    })]
    WrongCursor {
        /// The cursor.
        cursor: String,
        /// What was expected.
        expected: Option<Position>,
        /// What is there.
        actual: Option<Cursor>,
    },
    /// A cursor was to be set to a position that no event has yet. Nothing was written.
    #[error(
        "cursor \"{}\" cannot be set to position {position}: the next position is {next}; give one that was handled",
        cursor.escape_debug()
    )]
    CursorAfterTheEnd {
        /// The cursor.
        cursor: String,
        /// The position that was given.
        position: Position,
        /// The position that the next event has.
        next: Position,
    },
    /// There are as many cursors as a store may have. Nothing was written.
    #[error(
        "cursor \"{}\" would be one too many: a store has at most {} cursors",
        cursor.escape_debug(),
        limits::CURSORS_MAX
    )]
    TooManyCursors {
        /// The cursor.
        cursor: String,
    },
    /// A snapshot is of a version that its stream does not have, or not durably yet. Nothing was written.
    #[error("stream \"{}\" has no version {version}: {}", stream.escape_debug(), match head {
        Some(head) => format!("its head is version {} (position {})", head.version, head.position),
        None => "it has no events".to_owned(),
    })]
    NoSuchVersion {
        /// The stream.
        stream: String,
        /// What the snapshot is of.
        version: Version,
        /// The stream's head; `None`: it has no event.
        head: Option<Head>,
    },
    /// An id is used twice in the batch, or was used by another batch. Nothing was written.
    #[error("event id {id} {}", match position {
        Some(position) => format!("was already used by a different append, at position {position}"),
        None => "is used twice in this batch".to_owned(),
    })]
    IdConflict {
        /// The id.
        id: Uuid,
        /// Where it is already; `None`: twice in this batch.
        position: Option<Position>,
    },
    /// A given time is smaller than that of the event before. Nothing was written.
    #[error(
        "event time {given} ns is before that of the event before it ({previous} ns); give times in order, or allow them to be raised"
    )]
    TimeBackwards {
        /// The given time.
        given: Timestamp,
        /// The time of the event before.
        previous: Timestamp,
    },
    /// A given time is too far in the future. Nothing was written.
    #[error(
        "event time {given} ns is more than a minute ahead of the clock ({now} ns) and of the event before it"
    )]
    TimeAhead {
        /// The given time.
        given: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// There is no room on the disk. Nothing was written; appends succeed again once there is room.
    #[error("the disk is full: {0}; this append was not written, make room and try again")]
    DiskFull(IoFailure),
    /// An earlier write failed. This append was not written. Reads go on; reopening is the cure.
    #[error("the store refuses appends after a failed write ({reason}); reopen it")]
    Poisoned {
        /// What failed.
        reason: Arc<str>,
    },
    /// The write failed after it was submitted: the batch is on the disk whole or not at all. Repeat
    /// it with the same ids after reopening.
    #[error(
        "it is unknown whether the batch was written ({reason}); reopen the store and repeat it with the same ids"
    )]
    UnknownOutcome {
        /// What failed.
        reason: Arc<str>,
    },
    /// The batch may be there from an earlier attempt, and more events have come since than the store knows the ids of. It was not
    /// written now; repeating it is in vain.
    #[error(
        "the batch may have been appended since position {since}, and so many events have come until position {next} that nobody knows; \
         look for it before you append it anew"
    )]
    TooLateToRepeat {
        /// Since when.
        since: Position,
        /// The next position.
        next: Position,
    },
    /// The store was opened read-only.
    #[error("the store is open read-only")]
    ReadOnly,
    /// What a condition depends on is damaged. Nothing was written.
    #[error("damage: {0}")]
    Damage(#[from] Damage),
    /// The system failed before anything was written.
    #[error(transparent)]
    Io(#[from] IoFailure),
}

/// Why something about a durable subscription was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// What was given is wrong.
    #[error(transparent)]
    Input(#[from] InputError),
    /// There is no subscription of that name.
    #[error("there is no subscription \"{}\"; create it first", name.escape_debug())]
    Unknown {
        /// The name.
        name: String,
    },
    /// There is a subscription of that name with other settings. It stays as it is.
    #[error("there is a subscription \"{}\" with another {difference}; choose another name, or delete it with all that is known of it", name.escape_debug())]
    Exists {
        /// The name.
        name: String,
        /// The first setting that differs.
        difference: Cow<'static, str>,
    },
    /// There are as many subscriptions as a store may have.
    #[error("subscription \"{}\" would be one too many: a store has at most {} durable subscriptions",
        name.escape_debug(), limits::SUBSCRIPTIONS_MAX)]
    TooMany {
        /// The name.
        name: String,
    },
    /// There are as many members as a subscription may have.
    #[error("subscription \"{}\" has {} members, and no room for more", name.escape_debug(), limits::MEMBERS_MAX)]
    TooManyMembers {
        /// The subscription.
        name: String,
    },
    /// What was answered is not this member's: it was not handed to it, was answered before, was taken back and handed out
    /// again, or the subscription was reset meanwhile. Nothing was changed.
    #[error(
        "the event at position {position} is not in flight with this member: it was answered before, or taken back and handed out again"
    )]
    NotInFlight {
        /// The event's position.
        position: Position,
    },
    /// It was to begin at a position that is not there yet: a mistake, or another store's position. Nothing was changed.
    #[error(
        "a subscription cannot begin at position {position}: the next position is {next}; give one that is there, or the end"
    )]
    AfterTheEnd {
        /// The position that was given.
        position: Position,
        /// The position that the next event has.
        next: Position,
    },
    /// No parked event is at that position. None was changed.
    #[error("no event is parked at position {position}; list what is parked")]
    NotParked {
        /// The position.
        position: Position,
    },
    /// It is no member any more: it was dropped, or has lost its place to another one that waited, as it was silent for the
    /// handling time-out or held an event for as long. What it held is handed out again.
    #[error("no member of subscription \"{}\" any more: it was dropped, or was silent or held an event for the handling time-out while another waited; join again", name.escape_debug())]
    Lost {
        /// The subscription.
        name: String,
    },
    /// The subscription was stopped, and hands out nothing until it is resumed.
    #[error("subscription \"{}\" is stopped: {reason}; resume it", name.escape_debug())]
    Stopped {
        /// The subscription.
        name: String,
        /// Why.
        reason: String,
    },
    /// The subscription was deleted.
    #[error("subscription \"{}\" was deleted", name.escape_debug())]
    Deleted {
        /// The subscription.
        name: String,
    },
    /// The subscription's state could not be written. Members join again; what was not known durable is handed out again.
    #[error("the state of subscription \"{}\" could not be written ({reason}); join again", name.escape_debug())]
    Interrupted {
        /// The subscription.
        name: String,
        /// What failed.
        reason: String,
    },
    /// The store was closed.
    #[error("the store was closed")]
    Closed,
    /// Reading the log, or the state of subscriptions, failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Writing the state of a subscription failed, or nothing can be written. Whether it was changed is not known; its members join
    /// again.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// A stream's last event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its version.
    pub version: Version,
    /// Its position.
    pub position: Position,
}
