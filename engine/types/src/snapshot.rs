//! Snapshots: the folded state of a stream's events up to a version, to begin from instead of the first event.

use crate::error::InputError;
use crate::event::{check_name, check_size};
use crate::limits;
use crate::position::{Position, Timestamp, Version};
use crate::read::Bound;
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::RangeInclusive;

/// A snapshot to be written.
///
/// ```
/// use annals_types::NewSnapshot;
/// let snapshot = NewSnapshot::new("account-7", 2, br#"{"balance":120}"#);
/// assert!(snapshot.validate().is_ok());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewSnapshot<'a> {
    /// The stream whose events are folded.
    pub stream: Cow<'a, str>,
    /// Tells apart what is folded from the same events; up to 256 bytes. Default: empty.
    pub name: Cow<'a, str>,
    /// Version of the form that `data` has, for the application.
    pub schema: u32,
    /// The state; opaque, up to 64 MiB.
    pub data: Cow<'a, [u8]>,
}

impl<'a> NewSnapshot<'a> {
    /// A snapshot of a stream, in a form of the application.
    pub fn new(stream: impl Into<Cow<'a, str>>, schema: u32, data: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { stream: stream.into(), name: "".into(), schema, data: data.as_ref().into() }
    }

    /// Sets its name.
    #[must_use]
    pub fn name(mut self, name: impl Into<Cow<'a, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Checks that it keeps to the limits and has no malformed name.
    ///
    /// # Errors
    /// The first thing that is over a limit or malformed.
    pub fn validate(&self) -> Result<(), InputError> {
        check_name("stream name", &self.stream, limits::STREAM_NAME_BYTES_MAX)?;
        check_snapshot_name(&self.name)?;
        check_size("bytes of the snapshot", self.data.len(), limits::SNAPSHOT_BYTES_MAX)
    }
}

fn check_snapshot_name(name: &str) -> Result<(), InputError> {
    if name.is_empty() {
        return Ok(());
    }
    check_name("name of the snapshot", name, limits::SNAPSHOT_NAME_BYTES_MAX)
}

/// A snapshot that the log confirms: it is of the events that are there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The stream.
    pub stream: String,
    /// Its name; mostly empty.
    pub name: String,
    /// The last version that is folded.
    pub version: Version,
    /// Position of that event.
    pub position: Position,
    /// Time of that event.
    pub time: Timestamp,
    /// Version of the form that `data` has.
    pub schema: u32,
    /// The state.
    pub data: Bytes,
}

/// What to load: a stream's state, as a snapshot and the events behind it.
///
/// ```
/// use annals_types::{Load, Timestamp, Version};
/// let newest = Load::stream("account-7");
/// let then = Load::stream("account-7").until(Version::new(41));
/// let replay = Load::stream("account-7").until(Timestamp::new(1_700_000_000_000_000_000)).without_snapshots();
/// # let _ = (newest, then, replay);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load<'a> {
    /// The stream.
    pub stream: Cow<'a, str>,
    /// Which of its snapshots: those of this name. Default: empty.
    pub name: Cow<'a, str>,
    /// The last event that counts, inclusive. Default: the stream's last.
    pub until: Option<Bound>,
    /// Schemas that the application can read; other snapshots are passed over. Default: all.
    pub schemas: RangeInclusive<u32>,
    /// Whether snapshots are used. Default: yes.
    pub use_snapshots: bool,
}

impl<'a> Load<'a> {
    /// All of a stream, from its newest snapshot on.
    pub fn stream(stream: impl Into<Cow<'a, str>>) -> Self {
        Self {
            stream: stream.into(),
            name: "".into(),
            until: None,
            schemas: 0..=u32::MAX,
            use_snapshots: true,
        }
    }

    /// Uses the snapshots of this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<Cow<'a, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The state as it was then: with the event of this version or position, or the last one of this time or earlier.
    #[must_use]
    pub fn until(mut self, bound: impl Into<Bound>) -> Self {
        self.until = Some(bound.into());
        self
    }

    /// Passes over snapshots of other schemas.
    #[must_use]
    pub fn schemas(mut self, schemas: RangeInclusive<u32>) -> Self {
        self.schemas = schemas;
        self
    }

    /// Replays from the first event.
    #[must_use]
    pub fn without_snapshots(mut self) -> Self {
        self.use_snapshots = false;
        self
    }

    /// Checks the names.
    ///
    /// # Errors
    /// A malformed name.
    pub fn validate(&self) -> Result<(), InputError> {
        check_name("stream name", &self.stream, limits::STREAM_NAME_BYTES_MAX)?;
        check_snapshot_name(&self.name)
    }
}

/// A snapshot that was not used, and what it costs: a longer replay, nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassedOver {
    /// Its version, where it could be read.
    pub version: Option<Version>,
    /// Why it was not used.
    pub reason: String,
}
