//! How the words travel: numbers, texts, lists, and what is made of them.
//!
//! Numbers are little-endian. A text is its length (2 bytes) and UTF-8; bytes are their length (4) and themselves; an option is 0,
//! or 1 and what it holds; a list is the number of its parts (4) and these; a choice is a number (1 byte) that says which, and
//! what belongs to it. A thing of several parts is its parts, in their order.

use annals_types::{
    Advance, Append, Bound, Condition, ContentKind, Cursor, DeliveryId, DeliveryOrder, ExpectedVersion,
    Follow, Head, Load, Membership, Nack, NewEvent, NewSnapshot, NewSubscription, ParkedChoice, Position,
    Query, QueryItem, Read, Start, Timestamp, Uuid, Version, limits,
};
use bytes::{BufMut, BytesMut};
use std::borrow::Cow;
use std::time::Duration;

/// A message that is not laid out as any release does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a malformed message: {what}")]
pub struct Malformed {
    /// What is wrong.
    pub what: &'static str,
    /// The kind of the message, if that is what is not known.
    pub unknown_kind: Option<u16>,
}

/// The rest of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest<'a> {
    bytes: &'a [u8],
}

/// Something that travels.
pub(crate) trait Wire<'a>: Sized {
    fn put(&self, to: &mut BytesMut);
    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed>;
}

pub(crate) const fn malformed<T>(what: &'static str) -> Result<T, Malformed> {
    Err(Malformed { what, unknown_kind: None })
}

impl<'a> Rest<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((array, rest)) = self.bytes.split_first_chunk() else {
            return malformed("it ends too early");
        };
        self.bytes = rest;
        Ok(*array)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let Some((slice, rest)) = self.bytes.split_at_checked(length) else {
            return malformed("it ends too early");
        };
        self.bytes = rest;
        Ok(slice)
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A list of at most so many parts. Room is made for what there can be, not for what is claimed.
    pub(crate) fn list<T: Wire<'a>>(&mut self, count_max: usize) -> Result<Vec<T>, Malformed> {
        let count = u32::take(self)? as usize;
        if count > count_max {
            return malformed("a list has more parts than are allowed");
        }
        let mut list = Vec::with_capacity(count.min(self.len() / 8));
        for _ in 0..count {
            list.push(T::take(self)?);
        }
        Ok(list)
    }

    /// All of the message was taken.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.bytes.is_empty() { Ok(()) } else { malformed("it goes on behind its end") }
    }
}

/// Puts a list; what takes it has the limit.
pub(crate) fn put_list<'a, T: Wire<'a>>(list: &[T], to: &mut BytesMut) {
    put_count(list.len(), to);
    list.iter().for_each(|part| part.put(to));
}

pub(crate) fn put_count(count: usize, to: &mut BytesMut) {
    to.put_u32_le(u32::try_from(count).expect("limits keep lists within 32 bits"));
}

/// Puts bytes with their length.
pub(crate) fn put_bytes(bytes: &[u8], to: &mut BytesMut) {
    put_count(bytes.len(), to);
    to.extend_from_slice(bytes);
}

pub(crate) fn take_bytes<'a>(from: &mut Rest<'a>) -> Result<&'a [u8], Malformed> {
    let length = u32::take(from)? as usize;
    from.slice(length)
}

/// Puts a text, which its limit keeps within 16 bits. What is longer is cut: it is a message for people.
pub(crate) fn put_text(text: &str, to: &mut BytesMut) {
    let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
    to.put_u16_le(u16::try_from(text.len()).unwrap_or(u16::MAX));
    to.extend_from_slice(text.as_bytes());
}

pub(crate) fn take_text<'a>(from: &mut Rest<'a>) -> Result<&'a str, Malformed> {
    let length = u16::take(from)?;
    match std::str::from_utf8(from.slice(length.into())?) {
        Ok(text) => Ok(text),
        Err(_) => malformed("a text is not UTF-8"),
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Wire<'_> for $type {
            fn put(&self, to: &mut BytesMut) {
                to.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
                from.array().map(<$type>::from_le_bytes)
            }
        }
    )*};
}
number!(u8, u16, u32, u64);

/// Numbers with a meaning.
macro_rules! named_number {
    ($($type:ty),*) => {$(
        impl Wire<'_> for $type {
            fn put(&self, to: &mut BytesMut) {
                self.get().put(to);
            }

            fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
                u64::take(from).map(<$type>::new)
            }
        }
    )*};
}
named_number!(Position, Version, Timestamp);

impl Wire<'_> for bool {
    fn put(&self, to: &mut BytesMut) {
        to.put_u8(u8::from(*self));
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        match u8::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => malformed("a yes or no is neither"),
        }
    }
}

impl<'a> Wire<'a> for Cow<'a, str> {
    fn put(&self, to: &mut BytesMut) {
        put_text(self, to);
    }

    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
        take_text(from).map(Cow::Borrowed)
    }
}

impl Wire<'_> for String {
    fn put(&self, to: &mut BytesMut) {
        put_text(self, to);
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        take_text(from).map(str::to_owned)
    }
}

impl<'a> Wire<'a> for Cow<'a, [u8]> {
    fn put(&self, to: &mut BytesMut) {
        put_bytes(self, to);
    }

    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
        take_bytes(from).map(Cow::Borrowed)
    }
}

impl<'a, T: Wire<'a>> Wire<'a> for Option<T> {
    fn put(&self, to: &mut BytesMut) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
        Ok(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<'a, T: Wire<'a>, U: Wire<'a>> Wire<'a> for (T, U) {
    fn put(&self, to: &mut BytesMut) {
        self.0.put(to);
        self.1.put(to);
    }

    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
        Ok((T::take(from)?, U::take(from)?))
    }
}

impl Wire<'_> for Uuid {
    fn put(&self, to: &mut BytesMut) {
        to.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        from.array().map(Self::from_bytes)
    }
}

impl Wire<'_> for Duration {
    fn put(&self, to: &mut BytesMut) {
        u64::try_from(self.as_nanos()).unwrap_or(u64::MAX).put(to);
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        u64::take(from).map(Self::from_nanos)
    }
}

/// Things that are the parts that they have.
macro_rules! parts {
    ($name:ident $(<$life:lifetime>)? { $($part:ident),* $(,)? }) => {
        impl<'a> Wire<'a> for $name $(<$life>)? {
            fn put(&self, to: &mut BytesMut) {
                $(self.$part.put(to);)*
            }

            fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
                Ok(Self { $($part: Wire::take(from)?),* })
            }
        }
    };
}
pub(crate) use parts;

parts!(Advance<'a> { cursor, position });
parts!(Cursor { position, revision });
parts!(Head { version, position });
parts!(DeliveryId { position, number });
parts!(NewSnapshot<'a> { stream, name, schema, data });

/// Choices without anything that belongs to them.
macro_rules! choice {
    ($name:ident, $what:literal { $($number:literal = $variant:ident),* $(,)? }) => {
        impl Wire<'_> for $name {
            fn put(&self, to: &mut BytesMut) {
                to.put_u8(match self { $(Self::$variant => $number),* });
            }

            fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
                match u8::take(from)? {
                    $($number => Ok(Self::$variant),)*
                    _ => malformed(concat!("an unknown ", $what)),
                }
            }
        }
    };
}

choice!(Membership, "membership" { 0 = Exclusive, 1 = Shared });
choice!(DeliveryOrder, "order" { 0 = ByStream, 1 = Total, 2 = Unordered });

impl Wire<'_> for ContentKind {
    fn put(&self, to: &mut BytesMut) {
        to.put_u8(u8::from(*self == Self::Binary));
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        bool::take(from).map(|is_binary| if is_binary { Self::Binary } else { Self::Json })
    }
}

impl Wire<'_> for Bound {
    fn put(&self, to: &mut BytesMut) {
        let (kind, number): (u8, u64) = match self {
            Self::Position(position) => (0, position.get()),
            Self::Version(version) => (1, version.get()),
            Self::Time(time) => (2, time.get()),
        };
        (kind, number).put(to);
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        let (kind, number) = <(u8, u64)>::take(from)?;
        match kind {
            0 => Ok(Self::Position(Position::new(number))),
            1 => Ok(Self::Version(Version::new(number))),
            2 => Ok(Self::Time(Timestamp::new(number))),
            _ => malformed("an unknown bound"),
        }
    }
}

impl Wire<'_> for Start {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Self::First => to.put_u8(0),
            Self::End => to.put_u8(1),
            Self::From(bound) => (2_u8, *bound).put(to),
            Self::After(bound) => (3_u8, *bound).put(to),
        }
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        match u8::take(from)? {
            0 => Ok(Self::First),
            1 => Ok(Self::End),
            2 => Bound::take(from).map(Self::From),
            3 => Bound::take(from).map(Self::After),
            _ => malformed("an unknown start"),
        }
    }
}

impl Wire<'_> for ExpectedVersion {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Self::Any => to.put_u8(0),
            Self::NoStream => to.put_u8(1),
            Self::Exists => to.put_u8(2),
            Self::Exactly(version) => (3_u8, *version).put(to),
        }
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        match u8::take(from)? {
            0 => Ok(Self::Any),
            1 => Ok(Self::NoStream),
            2 => Ok(Self::Exists),
            3 => Version::take(from).map(Self::Exactly),
            _ => malformed("an unknown expectation"),
        }
    }
}

impl<'a> Wire<'a> for QueryItem<'a> {
    fn put(&self, to: &mut BytesMut) {
        put_list(&self.types, to);
        put_list(&self.tags, to);
        self.stream.put(to);
        self.category.put(to);
        self.correlation.put(to);
        self.causation.put(to);
    }

    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            types: from.list(limits::QUERY_TYPES_MAX)?,
            tags: from.list(limits::TAGS_MAX)?,
            stream: Wire::take(from)?,
            category: Wire::take(from)?,
            correlation: Wire::take(from)?,
            causation: Wire::take(from)?,
        })
    }
}

impl<'a> Wire<'a> for Query<'a> {
    fn put(&self, to: &mut BytesMut) {
        put_list(&self.items, to);
    }

    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
        from.list(limits::QUERY_ITEMS_MAX).map(|items| Self { items })
    }
}

impl<'a> Wire<'a> for Condition<'a> {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Self::Stream { stream, expected } => {
                to.put_u8(0);
                stream.put(to);
                expected.put(to);
            }
            Self::NoMatch { query, after } => {
                to.put_u8(1);
                query.put(to);
                after.put(to);
            }
            Self::Cursor { cursor, expected } => {
                to.put_u8(2);
                cursor.put(to);
                expected.put(to);
            }
            _ => unreachable!("this release knows all conditions"),
        }
    }

    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
        match u8::take(from)? {
            0 => Ok(Self::Stream { stream: Wire::take(from)?, expected: Wire::take(from)? }),
            1 => Ok(Self::NoMatch { query: Wire::take(from)?, after: Wire::take(from)? }),
            2 => Ok(Self::Cursor { cursor: Wire::take(from)?, expected: Wire::take(from)? }),
            _ => malformed("an unknown condition"),
        }
    }
}

impl<'a> Wire<'a> for NewEvent<'a> {
    fn put(&self, to: &mut BytesMut) {
        self.stream.put(to);
        self.event_type.put(to);
        self.id.put(to);
        self.correlation.put(to);
        self.causation.put(to);
        self.time.put(to);
        self.content.put(to);
        put_list(&self.tags, to);
        self.metadata.put(to);
        self.data.put(to);
    }

    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            stream: Wire::take(from)?,
            event_type: Wire::take(from)?,
            id: Wire::take(from)?,
            correlation: Wire::take(from)?,
            causation: Wire::take(from)?,
            time: Wire::take(from)?,
            content: Wire::take(from)?,
            tags: from.list(limits::TAGS_MAX)?,
            metadata: Wire::take(from)?,
            data: Wire::take(from)?,
        })
    }
}

/// Conditions, of which few may be on queries: these take many times the room that they travel in.
fn take_conditions<'a>(from: &mut Rest<'a>) -> Result<Vec<Condition<'a>>, Malformed> {
    let count = u32::take(from)? as usize;
    if count > limits::CONDITIONS_MAX {
        return malformed("a list has more parts than are allowed");
    }
    let (mut conditions, mut queries) = (Vec::with_capacity(count.min(from.len() / 8)), 0);
    for _ in 0..count {
        let condition = Condition::take(from)?;
        queries += usize::from(matches!(condition, Condition::NoMatch { .. }));
        if queries > limits::QUERY_CONDITIONS_MAX {
            return malformed("there are more conditions on queries than are allowed");
        }
        conditions.push(condition);
    }
    Ok(conditions)
}

impl<'a> Wire<'a> for Append<'a> {
    fn put(&self, to: &mut BytesMut) {
        put_list(&self.events, to);
        put_list(&self.conditions, to);
        put_list(&self.advances, to);
        self.snapshot.put(to);
        self.raise_times.put(to);
    }

    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            events: from.list(limits::BATCH_EVENTS_MAX)?,
            conditions: take_conditions(from)?,
            advances: from.list(limits::ADVANCES_MAX)?,
            snapshot: Wire::take(from)?,
            raise_times: Wire::take(from)?,
            again: None,
        })
    }
}

parts!(Read<'a> { stream, query, from, until, backwards, limit });
parts!(Follow<'a> { stream, query, start, progress_every });

impl<'a> Wire<'a> for Load<'a> {
    fn put(&self, to: &mut BytesMut) {
        self.stream.put(to);
        self.name.put(to);
        self.until.put(to);
        (*self.schemas.start(), *self.schemas.end()).put(to);
        self.use_snapshots.put(to);
    }

    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
        let (stream, name, until) = (Wire::take(from)?, Wire::take(from)?, Wire::take(from)?);
        let (first, last) = Wire::take(from)?;
        Ok(Self { stream, name, until, schemas: first..=last, use_snapshots: Wire::take(from)? })
    }
}

parts!(NewSubscription<'a> {
    name,
    stream,
    query,
    start,
    membership,
    order,
    in_flight_max,
    handling_timeout,
    retries_max,
    backoff,
    backoff_max,
    by_cursor,
});

impl<'a> Wire<'a> for Nack<'a> {
    fn put(&self, to: &mut BytesMut) {
        let (kind, reason) = match self {
            Self::Retry(reason) => (0, reason),
            Self::Park(reason) => (1, reason),
            Self::Skip(reason) => (2, reason),
            Self::Stop(reason) => (3, reason),
        };
        to.put_u8(kind);
        reason.put(to);
    }

    fn take(from: &mut Rest<'a>) -> Result<Self, Malformed> {
        let (kind, reason) = <(u8, Cow<'a, str>)>::take(from)?;
        match kind {
            0 => Ok(Self::Retry(reason)),
            1 => Ok(Self::Park(reason)),
            2 => Ok(Self::Skip(reason)),
            3 => Ok(Self::Stop(reason)),
            _ => malformed("an unknown refusal of an event"),
        }
    }
}

impl Wire<'_> for ParkedChoice {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Self::All => to.put_u8(0),
            Self::At(positions) => {
                to.put_u8(1);
                put_list(positions, to);
            }
        }
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        match u8::take(from)? {
            0 => Ok(Self::All),
            1 => from.list(limits::PARKED_MAX).map(Self::At),
            _ => malformed("an unknown choice of parked events"),
        }
    }
}
