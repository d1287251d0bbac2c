//! An event as it is given to an append, and a record: the same event as stored.

use crate::error::InputError;
use crate::limits;
use crate::position::{Position, Timestamp, Version};
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use uuid::Uuid;

/// What an event's data (and metadata) is, as its writer says; the store keeps it as opaque bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ContentKind {
    /// JSON text.
    #[default]
    Json,
    /// Anything else.
    Binary,
}

/// An event to be appended. Borrows or owns its parts.
///
/// ```
/// use annals_types::NewEvent;
/// let event = NewEvent::new("order-42", "OrderPlaced").json(r#"{"total":12}"#).tag("customer:7");
/// assert!(event.validate().is_ok());
/// assert!(NewEvent::new("", "OrderPlaced").validate().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEvent<'a> {
    /// The stream it is appended to: 1–512 bytes without control characters.
    pub stream: Cow<'a, str>,
    /// What happened: 1–256 bytes without control characters.
    pub event_type: Cow<'a, str>,
    /// Its identity; an event without one gets a new UUID v7.
    pub id: Option<Uuid>,
    /// The facts, at most 16 MiB.
    pub data: Cow<'a, [u8]>,
    /// What is known about the event rather than of it, at most 64 KiB.
    pub metadata: Cow<'a, [u8]>,
    /// Whether data and metadata are JSON.
    pub content: ContentKind,
    /// Free labels, at most 64 of 1–256 bytes each.
    pub tags: Vec<Cow<'a, str>>,
    /// The conversation it belongs to.
    pub correlation: Option<Uuid>,
    /// The event or command that caused it.
    pub causation: Option<Uuid>,
    /// When it happened, for imports; the writer's clock where none is given.
    pub time: Option<Timestamp>,
}

impl<'a> NewEvent<'a> {
    /// An event of this type for this stream, without data.
    pub fn new(stream: impl Into<Cow<'a, str>>, event_type: impl Into<Cow<'a, str>>) -> Self {
        Self {
            stream: stream.into(),
            event_type: event_type.into(),
            id: None,
            data: Cow::Borrowed(&[]),
            metadata: Cow::Borrowed(&[]),
            content: ContentKind::Json,
            tags: Vec::new(),
            correlation: None,
            causation: None,
            time: None,
        }
    }

    /// Sets the data to this JSON text. It is stored byte for byte and not checked.
    #[must_use]
    pub fn json(mut self, data: impl Into<Cow<'a, str>>) -> Self {
        self.content = ContentKind::Json;
        self.data = match data.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        self
    }

    /// Sets the data to these bytes, which are not JSON.
    #[must_use]
    pub fn binary(mut self, data: impl Into<Cow<'a, [u8]>>) -> Self {
        self.content = ContentKind::Binary;
        self.data = data.into();
        self
    }

    /// Sets the metadata, of the same kind as the data.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<Cow<'a, [u8]>>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Cow<'a, str>>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Sets the id. An append that is repeated with the same ids adds nothing twice.
    #[must_use]
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the correlation id.
    #[must_use]
    pub fn correlation(mut self, id: Uuid) -> Self {
        self.correlation = Some(id);
        self
    }

    /// Sets the causation id.
    #[must_use]
    pub fn causation(mut self, id: Uuid) -> Self {
        self.causation = Some(id);
        self
    }

    /// Sets the time. See [`crate::Append::raise_times`] for times that run backwards.
    #[must_use]
    pub fn time(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Checks every part against its limit.
    ///
    /// # Errors
    /// The first part that is over a limit, empty, or has a control character.
    pub fn validate(&self) -> Result<(), InputError> {
        check_name("stream name", &self.stream, limits::STREAM_NAME_BYTES_MAX)?;
        check_name("event type", &self.event_type, limits::EVENT_TYPE_BYTES_MAX)?;
        check_size("tags of an event", self.tags.len(), limits::TAGS_MAX)?;
        for tag in &self.tags {
            check_name("tag", tag, limits::TAG_BYTES_MAX)?;
        }
        check_size("bytes of data", self.data.len(), limits::DATA_BYTES_MAX)?;
        check_size("bytes of metadata", self.metadata.len(), limits::METADATA_BYTES_MAX)
    }
}

/// Checks a name, type or tag: 1 to `bytes_max` bytes, no control character.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(what: &'static str, name: &str, bytes_max: usize) -> Result<(), InputError> {
    if name.is_empty() {
        return Err(InputError::Empty { what });
    }
    if name.len() > bytes_max {
        return Err(InputError::TooLong { what, bytes: name.len(), bytes_max });
    }
    // The ASCII case is nearly every name, and needs no decoding.
    let has_control = if name.is_ascii() {
        name.bytes().any(|byte| byte.is_ascii_control())
    } else {
        name.chars().any(char::is_control)
    };
    if has_control {
        return Err(InputError::ControlCharacter { what, name: name.escape_debug().to_string() });
    }
    Ok(())
}

/// Checks that there is not too much of something.
pub(crate) fn check_size(what: &'static str, count: usize, count_max: usize) -> Result<(), InputError> {
    if count > count_max { Err(InputError::TooMany { what, count, count_max }) } else { Ok(()) }
}

/// A stored event: what was appended, with its position, version and time.
///
/// Cheap to clone: its parts are borrowed from one shared buffer, which stays alive as long as a
/// record of it does. Bytes were checked against the event's checksum before the record was made.
#[derive(Clone)]
pub struct Record {
    parts: RecordParts,
    buffer: Bytes,
}

/// What a [`Record`] is made of: its numbers, and ranges of the buffer that holds the rest.
#[derive(Clone, Debug)]
pub struct RecordParts {
    /// Place in the store.
    pub position: Position,
    /// Place in the stream.
    pub version: Version,
    /// When it was appended (or, for an import, when it happened).
    pub time: Timestamp,
    /// Identity.
    pub id: Uuid,
    /// Correlation id.
    pub correlation: Option<Uuid>,
    /// Causation id.
    pub causation: Option<Uuid>,
    /// Kind of data and metadata.
    pub content: ContentKind,
    /// Stream name; must be UTF-8.
    pub stream: Range<u32>,
    /// Event type; must be UTF-8.
    pub event_type: Range<u32>,
    /// Tags, each a 16-bit little-endian length and that many bytes of UTF-8.
    pub tags: Range<u32>,
    /// Data.
    pub data: Range<u32>,
    /// Metadata.
    pub metadata: Range<u32>,
}

impl Record {
    /// Puts a record together from verified bytes.
    #[must_use]
    pub fn new(buffer: Bytes, parts: RecordParts) -> Self {
        debug_assert!(parts.metadata.end as usize <= buffer.len() && parts.data.end as usize <= buffer.len());
        Self { parts, buffer }
    }

    /// Its place in the order of the store.
    #[must_use]
    pub fn position(&self) -> Position {
        self.parts.position
    }

    /// Its place in its stream.
    #[must_use]
    pub fn version(&self) -> Version {
        self.parts.version
    }

    /// Its time; never smaller than that of the record before it.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.parts.time
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.parts.id
    }

    /// The conversation it belongs to.
    #[must_use]
    pub fn correlation(&self) -> Option<Uuid> {
        self.parts.correlation
    }

    /// What caused it.
    #[must_use]
    pub fn causation(&self) -> Option<Uuid> {
        self.parts.causation
    }

    /// Whether its data is JSON, as its writer said.
    #[must_use]
    pub fn content(&self) -> ContentKind {
        self.parts.content
    }

    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> &str {
        text(self.slice(&self.parts.stream))
    }

    /// Its type.
    #[must_use]
    pub fn event_type(&self) -> &str {
        text(self.slice(&self.parts.event_type))
    }

    /// Its data, byte for byte as appended.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.slice(&self.parts.data)
    }

    /// Its metadata, byte for byte as appended.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        self.slice(&self.parts.metadata)
    }

    /// Its data, shared with the record: keeps the underlying buffer alive without copying.
    #[must_use]
    pub fn data_bytes(&self) -> Bytes {
        self.buffer.slice(self.parts.data.start as usize..self.parts.data.end as usize)
    }

    /// Its tags, in the order they were given.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.slice(&self.parts.tags);
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (tag, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = tail;
            Some(text(tag))
        })
    }

    /// The same event, to be appended again elsewhere, with its id and time.
    #[must_use]
    pub fn to_new_event(&self) -> NewEvent<'_> {
        NewEvent {
            stream: Cow::Borrowed(self.stream()),
            event_type: Cow::Borrowed(self.event_type()),
            id: Some(self.id()),
            data: Cow::Borrowed(self.data()),
            metadata: Cow::Borrowed(self.metadata()),
            content: self.content(),
            tags: self.tags().map(Cow::Borrowed).collect(),
            correlation: self.correlation(),
            causation: self.causation(),
            time: Some(self.time()),
        }
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.buffer[range.start as usize..range.end as usize]
    }
}

/// Names were checked to be UTF-8 when they were appended, and their bytes against a checksum when read.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("\u{fffd}")
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("position", &self.position())
            .field("stream", &self.stream())
            .field("version", &self.version())
            .field("type", &self.event_type())
            .field("time", &self.time())
            .field("id", &self.id())
            .field("data_bytes", &self.data().len())
            .finish_non_exhaustive()
    }
}
