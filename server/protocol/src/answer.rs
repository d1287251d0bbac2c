//! What a server answers.

use crate::failure::Failure;
use crate::frame::{self, FrameError, HEADER_BYTES, Header};
use crate::wire::{
    Malformed, Rest, Wire, malformed, parts, put_bytes, put_count, put_list, put_text, take_bytes, take_text,
};
use annals_types::{
    Appended, ContentKind, Cursor, CursorAt, Damage, DamageKind, Delivery, Head, NewSubscription, Parked,
    PassedOver, Position, Record, RecordParts, Snapshot, Start, Stat, SubscriptionStatus, Timestamp, Uuid,
    Verified, Version, limits,
};
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;
use std::path::PathBuf;

/// The first answer of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The version that is spoken.
    pub version: u16,
    /// What the server can do beyond that version.
    pub features: u64,
    /// What it calls itself.
    pub server: String,
    /// Longest body of a frame that it takes.
    pub body_bytes_max: u32,
    /// Requests that a connection may have under way.
    pub requests_max: u32,
    /// Bytes of requests that a connection may have under way.
    pub bytes_max: u64,
    /// The next position of the store with handle 0; 0 where there is none.
    pub next_position: Position,
}
parts!(Welcome { version, features, server, body_bytes_max, requests_max, bytes_max, next_position });

/// What a server answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The connection has begun.
    Welcome(Welcome),
    /// It is done; of a request whose answers go on: it has begun.
    Done,
    /// It was not done.
    Failed(Failure),
    /// The handle of a store.
    Store(u32),
    /// Yes or no.
    Flag(bool),
    /// How many.
    Count(u64),
    /// Names, in their order.
    Names(Vec<String>),
    /// What an append became.
    Appended(Appended),
    /// Events, in their order.
    Events(Vec<Record>),
    /// All that is durable was given: nothing before this position is to come.
    CaughtUp(Position),
    /// Nothing before this position is to come.
    Progress(Position),
    /// A stream's last event.
    Head(Option<Head>),
    /// Streams with their last events.
    Heads(Vec<(String, Head)>),
    /// Where a cursor is.
    Cursor(Option<Cursor>),
    /// All cursors.
    Cursors(Vec<(String, Cursor)>),
    /// Facts about the store.
    Stat(Stat),
    /// So many events were checked, of so many.
    Checked(u64, u64),
    /// What a verification found.
    Verified(Verified),
    /// Snapshots, and those that could not be used.
    Snapshots(Vec<Snapshot>, Vec<PassedOver>),
    /// How durable subscriptions stand.
    Subscriptions(Vec<SubscriptionStatus>),
    /// Parked events.
    Parked(Vec<Parked>),
    /// Events that are handed to a member.
    Deliveries(Vec<Delivery>),
}

/// Parts of a list in an answer: more do not fit into a frame in any case.
const LIST_MAX: usize = 8 << 20;

macro_rules! kinds {
    ($($number:literal = $variant:ident $(($($part:ident),*))?),* $(,)?) => {
        impl Answer {
            /// The kind that its frame has.
            #[must_use]
            pub fn kind(&self) -> u16 {
                match self { $(Self::$variant { .. } => $number),* }
            }

            /// Appends its body.
            pub fn encode(&self, to: &mut BytesMut) {
                match self { $(Self::$variant $(($($part),*))? => { $($($part.put_in(to);)*)? let _ = to; })* }
            }

            /// Takes a body apart. Events borrow from it.
            ///
            /// # Errors
            /// It is none of this kind, or of no kind that there is.
            pub fn decode(kind: u16, body: &Bytes) -> Result<Self, Malformed> {
                let mut rest = Body { whole: body, rest: Rest::new(body) };
                let answer = match kind {
                    $($number => Self::$variant $(($({ let $part = Part::take_from(&mut rest)?; $part }),*))?,)*
                    _ => return Err(Malformed { what: "an unknown kind of answer", unknown_kind: Some(kind) }),
                };
                // What a newer server says of itself, or of a failure, besides is of no interest here.
                if !matches!(answer, Self::Welcome(_) | Self::Failed(_)) {
                    rest.rest.end()?;
                }
                Ok(answer)
            }
        }
    };
}

kinds! {
    0x8001 = Welcome(welcome),
    0x8002 = Done,
    0x8003 = Failed(failure),
    0x8004 = Store(handle),
    0x8005 = Flag(flag),
    0x8006 = Count(count),
    0x8007 = Names(names),
    0x800a = Appended(appended),
    0x800b = Events(events),
    0x800c = CaughtUp(next),
    0x800d = Progress(next),
    0x800e = Head(head),
    0x800f = Heads(heads),
    0x8010 = Cursor(cursor),
    0x8011 = Cursors(cursors),
    0x8012 = Stat(stat),
    0x8013 = Checked(done, all),
    0x8014 = Verified(verified),
    0x8015 = Snapshots(snapshots, passed_over),
    0x8016 = Subscriptions(subscriptions),
    0x8017 = Parked(parked),
    0x8018 = Deliveries(deliveries),
}

/// A body, and what is still to be taken of it.
pub(crate) struct Body<'a> {
    whole: &'a Bytes,
    rest: Rest<'a>,
}

/// A part of an answer: it may borrow from the body, by counting.
trait Part: Sized {
    fn put_in(&self, to: &mut BytesMut);
    fn take_from(from: &mut Body<'_>) -> Result<Self, Malformed>;
}

impl<T: for<'a> Wire<'a>> Part for T {
    fn put_in(&self, to: &mut BytesMut) {
        self.put(to);
    }

    fn take_from(from: &mut Body<'_>) -> Result<Self, Malformed> {
        T::take(&mut from.rest)
    }
}

impl<T: ListPart> Part for Vec<T> {
    fn put_in(&self, to: &mut BytesMut) {
        put_count(self.len(), to);
        self.iter().for_each(|part| part.put_one(to));
    }

    fn take_from(from: &mut Body<'_>) -> Result<Self, Malformed> {
        let count = u32::take(&mut from.rest)? as usize;
        // Room is made for what there is, not for what is claimed.
        let mut list = Vec::with_capacity(count.min(from.rest.len() / T::BYTES_MIN));
        for _ in 0..count {
            list.push(T::take_one(from)?);
        }
        Ok(list)
    }
}

/// A part of a list in an answer.
pub(crate) trait ListPart: Sized {
    /// The least that one takes on its way, and no less than a tenth of what it takes in memory.
    const BYTES_MIN: usize;
    fn put_one(&self, to: &mut BytesMut);
    fn take_one(from: &mut Body<'_>) -> Result<Self, Malformed>;
}

macro_rules! list_parts {
    ($($type:ty),* $(,)?) => {$(
        impl ListPart for $type {
            const BYTES_MIN: usize = size_of::<Self>();

            fn put_one(&self, to: &mut BytesMut) {
                self.put(to);
            }

            fn take_one(from: &mut Body<'_>) -> Result<Self, Malformed> {
                Self::take(&mut from.rest)
            }
        }
    )*};
}
list_parts!(String, (String, Head), (String, Cursor), PassedOver, SubscriptionStatus, Parked);

impl ListPart for Record {
    const BYTES_MIN: usize = 64;

    fn put_one(&self, to: &mut BytesMut) {
        put_record(self, to);
    }

    fn take_one(from: &mut Body<'_>) -> Result<Self, Malformed> {
        take_record(from)
    }
}

impl ListPart for Delivery {
    const BYTES_MIN: usize = 64;

    fn put_one(&self, to: &mut BytesMut) {
        self.id.put(to);
        self.attempt.put(to);
        self.cursor.as_ref().map(|cursor| (cursor.name.to_string(), cursor.position)).put(to);
        put_record(&self.event, to);
    }

    fn take_one(from: &mut Body<'_>) -> Result<Self, Malformed> {
        let (id, attempt) = Wire::take(&mut from.rest)?;
        let cursor: Option<(String, Option<Position>)> = Wire::take(&mut from.rest)?;
        let cursor = cursor.map(|(name, position)| CursorAt { name: name.into(), position });
        Ok(Self { id, attempt, cursor, event: take_record(from)? })
    }
}

impl ListPart for Snapshot {
    const BYTES_MIN: usize = 64;

    fn put_one(&self, to: &mut BytesMut) {
        put_text(&self.stream, to);
        put_text(&self.name, to);
        (self.version, (self.position, self.time)).put(to);
        self.schema.put(to);
        put_bytes(&self.data, to);
    }

    fn take_one(from: &mut Body<'_>) -> Result<Self, Malformed> {
        let (stream, name) = Wire::take(&mut from.rest)?;
        let (version, (position, time)) = Wire::take(&mut from.rest)?;
        let schema = Wire::take(&mut from.rest)?;
        let data = take_bytes(&mut from.rest)?;
        Ok(Self { stream, name, version, position, time, schema, data: from.whole.slice_ref(data) })
    }
}

/// An answer of events that is written as they are found: a frame that grows.
#[derive(Debug)]
pub struct Events {
    start: usize,
    count: u32,
}

impl Events {
    /// Begins the frame behind what is in the buffer.
    pub fn begin(buffer: &mut BytesMut, request: u64) -> Self {
        let start = frame::begin(buffer, Header { request, kind: EVENTS, has_more: true, store: 0 });
        buffer.put_u32_le(0);
        Self { start, count: 0 }
    }

    /// Adds an event.
    pub fn add(&mut self, record: &Record, buffer: &mut BytesMut) {
        put_record(record, buffer);
        self.count += 1;
    }

    /// How many there are so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.into()
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Ends the frame; without any event, it is taken back. Returns the length of its body.
    ///
    /// # Errors
    /// It is too long.
    pub fn finish(self, buffer: &mut BytesMut) -> Result<usize, FrameError> {
        if self.count == 0 {
            buffer.truncate(self.start);
            return Ok(0);
        }
        let at = self.start + HEADER_BYTES;
        buffer[at..at + 4].copy_from_slice(&self.count.to_le_bytes());
        frame::finish(buffer, self.start)
    }
}

/// The kind of an answer of events.
const EVENTS: u16 = 0x800b;

/// Puts an event as it is stored: position, version, time, id, ids of what it belongs to, kind of data, then stream, type,
/// tags (as one run of bytes: of each its length, 2 bytes, and itself), metadata and data.
fn put_record(record: &Record, to: &mut BytesMut) {
    to.reserve(128 + record.data().len() + record.metadata().len());
    (record.position(), (record.version(), record.time())).put(to);
    record.id().put(to);
    record.correlation().put(to);
    record.causation().put(to);
    record.content().put(to);
    put_text(record.stream(), to);
    put_text(record.event_type(), to);
    let at = to.len();
    to.put_u32_le(0);
    record.tags().for_each(|tag| put_text(tag, to));
    let length = u32::try_from(to.len() - at - 4).unwrap_or(u32::MAX);
    to[at..at + 4].copy_from_slice(&length.to_le_bytes());
    put_bytes(record.metadata(), to);
    put_bytes(record.data(), to);
}

fn take_record(from: &mut Body<'_>) -> Result<Record, Malformed> {
    let rest = &mut from.rest;
    let (position, (version, time)) = Wire::take(rest)?;
    let (id, correlation): (Uuid, Option<Uuid>) = Wire::take(rest)?;
    let (causation, content): (Option<Uuid>, ContentKind) = Wire::take(rest)?;
    let end = from.whole.len();
    // Where what was just taken is in the body.
    let range = |rest: &Rest<'_>, length: usize| -> Result<Range<u32>, Malformed> {
        let behind = end - rest.len();
        let place = |at: usize| u32::try_from(at).or(malformed("an event too far behind"));
        Ok(place(behind - length)?..place(behind)?)
    };
    let stream = take_text(rest)?.len();
    let stream = range(rest, stream)?;
    let event_type = take_text(rest)?.len();
    let event_type = range(rest, event_type)?;
    let tags = take_bytes(rest)?;
    check_tags(tags)?;
    let tags = range(rest, tags.len())?;
    let metadata = take_bytes(rest)?.len();
    let metadata = range(rest, metadata)?;
    let data = take_bytes(rest)?.len();
    let data = range(rest, data)?;
    let parts = RecordParts {
        position,
        version,
        time,
        id,
        correlation,
        causation,
        content,
        stream,
        event_type,
        tags,
        data,
        metadata,
    };
    Ok(Record::new(from.whole.clone(), parts))
}

/// All of them are texts.
fn check_tags(tags: &[u8]) -> Result<(), Malformed> {
    let mut rest = Rest::new(tags);
    while rest.len() > 0 {
        take_text(&mut rest)?;
    }
    Ok(())
}

impl Wire<'_> for Appended {
    fn put(&self, to: &mut BytesMut) {
        (self.positions.start, self.positions.end).put(to);
        (self.last_version, self.repeated).put(to);
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        let (start, end) = Wire::take(from)?;
        let (last_version, repeated) = Wire::take(from)?;
        Ok(Self { positions: start..end, last_version, repeated })
    }
}

parts!(Parked { position, failures, time, reason });
parts!(PassedOver { version, reason });
parts!(Stat {
    events,
    streams,
    next_position,
    segments,
    disk_bytes,
    index_bytes,
    epoch,
    disk,
    format,
    writer
});

impl Wire<'_> for Verified {
    fn put(&self, to: &mut BytesMut) {
        (self.events, (self.segments, self.torn_tail_bytes)).put(to);
        self.chain.put(to);
        put_list(&self.damage, to);
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        let (events, (segments, torn_tail_bytes)) = Wire::take(from)?;
        Ok(Self { events, segments, torn_tail_bytes, chain: Wire::take(from)?, damage: from.list(LIST_MAX)? })
    }
}

impl Wire<'_> for DamageKind {
    fn put(&self, to: &mut BytesMut) {
        to.put_u8(match self {
            Self::Checksum => 0,
            Self::Misplaced => 1,
            Self::Malformed => 2,
            Self::Missing => 3,
            Self::Unreadable => 4,
            Self::Digest => 5,
            _ => u8::MAX,
        });
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        Ok(match u8::take(from)? {
            0 => Self::Checksum,
            1 => Self::Misplaced,
            3 => Self::Missing,
            4 => Self::Unreadable,
            5 => Self::Digest,
            // One that only a newer server tells apart is damage all the same.
            _ => Self::Malformed,
        })
    }
}

impl Wire<'_> for Damage {
    fn put(&self, to: &mut BytesMut) {
        put_text(&self.file.to_string_lossy(), to);
        self.offset.put(to);
        (self.first_position, self.last_position).put(to);
        self.kind.put(to);
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        let file = PathBuf::from(String::take(from)?);
        let (offset, first_position) = Wire::take(from)?;
        let (last_position, kind) = Wire::take(from)?;
        Ok(Self { file, offset, first_position, last_position, kind })
    }
}

impl Wire<'_> for SubscriptionStatus {
    fn put(&self, to: &mut BytesMut) {
        self.settings.put(to);
        (self.start, self.next).put(to);
        (self.lag, self.in_flight).put(to);
        (self.open, self.parked).put(to);
        self.oldest.put(to);
        (self.members, self.stopped.clone()).put(to);
    }

    fn take(from: &mut Rest<'_>) -> Result<Self, Malformed> {
        let settings = NewSubscription::take(from)?.into_owned();
        let (start, next): (Start, Position) = Wire::take(from)?;
        let (lag, in_flight) = Wire::take(from)?;
        let (open, parked) = Wire::take(from)?;
        let oldest: Option<(Position, Timestamp)> = Wire::take(from)?;
        let (members, stopped) = Wire::take(from)?;
        Ok(Self { settings, start, next, lag, in_flight, open, parked, oldest, members, stopped })
    }
}

const _: () = assert!(LIST_MAX > limits::PARKED_MAX && size_of::<Version>() == 8);
