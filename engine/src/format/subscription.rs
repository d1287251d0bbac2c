//! Durable subscriptions: events of a store of their own, in a stream of the subscription's name. What they say in turn
//! is how it stands; what is written together is true together.
//!
//! ```text
//! data of an event of type "Created"                      data of an event of type "Progress"
//!  at  bytes                                               at  bytes
//!   0      8  start: place                                  0      8  all before this position was looked at
//!   8      1  start: 0 first, 1 end, 2 from, 3 after        8      8  start: place
//!   9      1  place: 0 position, 1 version, 2 time         16      1  start: as in "Created"
//!  10      1  membership: 0 exclusive, 1 shared            17      1  place: as in "Created"
//!  11      1  order: 0 by stream, 1 total, 2 none          18      1  1: it is stopped
//!  12      1  1: by cursor                                 19      1  zero
//!  13      3  zero                                         20      4  length of the reason why it is stopped
//!  16      4  events in flight of a member, at most        24      4  number of events that are not done
//!  20      4  retries, at most                             28      4  zero
//!  24      8  handling time-out, in nanoseconds             32         the reason
//!  32      8  pause after the first failure                           of each event: position (8), lane (8),
//!  40      8  longest pause                                           number of failures (4)
//!  48      2  length of the stream's name; 0: none
//!  50      2  number of the query's items                 data of an event of type "Parked"
//!  52         the stream's name                             0      8  position
//!             the items                                     8      8  lane
//!                                                          16      8  time when it was parked
//! an item                                                  24      4  number of failures
//!   0      2  number of types                              28         the reason
//!   2      2  number of tags
//!   4      2  length of the stream's name; 0: none         data of an event of type "Unparked"
//!   6      2  length of the category; 0: none               0      8  position of each event that is parked no more
//!   8      1  1: a correlation id, 2: a causation id
//!   9         of each type and tag: length (2), bytes      an event of type "Deleted" has no data
//!             stream, category, correlation id (16), causation id (16)
//! ```
//!
//! The lane of an event is the hash of its stream's name, as in the log's indexes: events of one lane can wait for each other.

use super::{le, len_u16, len_u32};
use annals_types::{
    Bound, DeliveryOrder, Membership, NewSubscription, Position, Query, QueryItem, Start, Timestamp, Uuid,
    Version,
};
use std::time::Duration;

/// Types of the events.
pub(crate) const CREATED_TYPE: &str = "Created";
pub(crate) const PROGRESS_TYPE: &str = "Progress";
pub(crate) const PARKED_TYPE: &str = "Parked";
pub(crate) const UNPARKED_TYPE: &str = "Unparked";
pub(crate) const DELETED_TYPE: &str = "Deleted";

/// Length of what creates a subscription before the names.
pub(crate) const CREATED_FIXED_BYTES: usize = 52;
/// Length of an item of a query before its names.
pub(crate) const ITEM_FIXED_BYTES: usize = 9;
/// Length of the progress before the reason.
pub(crate) const PROGRESS_FIXED_BYTES: usize = 32;
/// Length of an event that is not done.
pub(crate) const OPEN_BYTES: usize = 20;
/// Length of a parked event before the reason.
pub(crate) const PARKED_FIXED_BYTES: usize = 28;

/// What an event says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    Created(Box<NewSubscription<'static>>),
    Progress(Progress),
    Parked(ParkedNote),
    Unparked(Vec<u64>),
    Deleted,
}

/// How far a subscription has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Progress {
    pub(crate) start: Start,
    /// All before this position was looked at.
    pub(crate) next: u64,
    /// What of that is not done, by position.
    pub(crate) open: Vec<OpenNote>,
    /// Why it is stopped, if it is.
    pub(crate) stopped: Option<String>,
}

/// An event that is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OpenNote {
    pub(crate) position: u64,
    pub(crate) lane: u64,
    pub(crate) failures: u32,
}

/// An event that is set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ParkedNote {
    pub(crate) open: OpenNote,
    pub(crate) time: Timestamp,
    pub(crate) reason: String,
}

impl Note {
    /// The type of the event that says it.
    pub(crate) fn event_type(&self) -> &'static str {
        match self {
            Self::Created(_) => CREATED_TYPE,
            Self::Progress(_) => PROGRESS_TYPE,
            Self::Parked(_) => PARKED_TYPE,
            Self::Unparked(_) => UNPARKED_TYPE,
            Self::Deleted => DELETED_TYPE,
        }
    }

    /// That event's data.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Created(settings) => encode_settings(settings),
            Self::Progress(progress) => progress.encode(),
            Self::Parked(parked) => parked.encode(),
            Self::Unparked(positions) => {
                positions.iter().flat_map(|position| position.to_le_bytes()).collect()
            }
            Self::Deleted => Vec::new(),
        }
    }

    /// What an event of this subscription says. `None`: nothing that this release writes.
    pub(crate) fn decode(name: &str, event_type: &str, data: &[u8]) -> Option<Self> {
        let positions = || data.as_chunks::<8>();
        Some(match event_type {
            CREATED_TYPE => Self::Created(Box::new(decode_settings(name, data)?)),
            PROGRESS_TYPE => Self::Progress(Progress::decode(data)?),
            PARKED_TYPE => Self::Parked(ParkedNote::decode(data)?),
            UNPARKED_TYPE if positions().1.is_empty() => {
                Self::Unparked(positions().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect())
            }
            DELETED_TYPE if data.is_empty() => Self::Deleted,
            _ => return None,
        })
    }
}

impl Progress {
    fn encode(&self) -> Vec<u8> {
        let reason = self.stopped.as_deref().unwrap_or_default();
        let mut bytes = vec![0; PROGRESS_FIXED_BYTES];
        le::put_u64(&mut bytes, 0, self.next);
        let (place, kinds) = encode_start(self.start);
        le::put_u64(&mut bytes, 8, place);
        le::put(&mut bytes, 16, kinds);
        bytes[18] = u8::from(self.stopped.is_some());
        le::put_u32(&mut bytes, 20, len_u32(reason.len()));
        le::put_u32(&mut bytes, 24, len_u32(self.open.len()));
        bytes.extend_from_slice(reason.as_bytes());
        for open in &self.open {
            bytes.extend_from_slice(&open.position.to_le_bytes());
            bytes.extend_from_slice(&open.lane.to_le_bytes());
            bytes.extend_from_slice(&open.failures.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let fixed = rest.array::<PROGRESS_FIXED_BYTES>()?;
        let start = decode_start(le::u64_at(&fixed, 8), le::array_at(&fixed, 16))?;
        let (is_stopped, reason_bytes) = (fixed[18], le::u32_at(&fixed, 20));
        let reason = rest.text(reason_bytes as usize)?;
        let stopped = match (is_stopped, reason_bytes) {
            (0, 0) => None,
            (1, _) => Some(reason.to_owned()),
            _ => return None,
        };
        let (open, others) = rest.0.as_chunks::<OPEN_BYTES>();
        let open: Vec<_> = open
            .iter()
            .map(|bytes| OpenNote {
                position: le::u64_at(bytes, 0),
                lane: le::u64_at(bytes, 8),
                failures: le::u32_at(bytes, 16),
            })
            .collect();
        let is_whole = others.is_empty()
            && open.len() == le::u32_at(&fixed, 24) as usize
            && [fixed[19], fixed[28], fixed[29], fixed[30], fixed[31]] == [0; 5]
            && open.is_sorted_by(|one, next| one.position < next.position);
        is_whole.then_some(Self { start, next: le::u64_at(&fixed, 0), open, stopped })
    }
}

impl ParkedNote {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; PARKED_FIXED_BYTES];
        le::put_u64(&mut bytes, 0, self.open.position);
        le::put_u64(&mut bytes, 8, self.open.lane);
        le::put_u64(&mut bytes, 16, self.time.get());
        le::put_u32(&mut bytes, 24, self.open.failures);
        bytes.extend_from_slice(self.reason.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let fixed = rest.array::<PARKED_FIXED_BYTES>()?;
        let open = OpenNote {
            position: le::u64_at(&fixed, 0),
            lane: le::u64_at(&fixed, 8),
            failures: le::u32_at(&fixed, 24),
        };
        let reason = std::str::from_utf8(rest.0).ok()?.to_owned();
        Some(Self { open, time: Timestamp::new(le::u64_at(&fixed, 16)), reason })
    }
}

/// A start, as a place and its kinds.
fn encode_start(start: Start) -> (u64, [u8; 2]) {
    let (kind, bound) = match start {
        Start::First => return (0, [0, 0]),
        Start::End => return (0, [1, 0]),
        Start::From(bound) => (2, bound),
        Start::After(bound) => (3, bound),
    };
    match bound {
        Bound::Position(position) => (position.get(), [kind, 0]),
        Bound::Version(version) => (version.get(), [kind, 1]),
        Bound::Time(time) => (time.get(), [kind, 2]),
    }
}

fn decode_start(place: u64, [kind, of]: [u8; 2]) -> Option<Start> {
    let bound = match of {
        0 => Position::new(place).into(),
        1 => Version::new(place).into(),
        2 => Timestamp::new(place).into(),
        _ => return None,
    };
    match (kind, place, of) {
        (0, 0, 0) => Some(Start::First),
        (1, 0, 0) => Some(Start::End),
        (2, ..) => Some(Start::From(bound)),
        (3, ..) => Some(Start::After(bound)),
        _ => None,
    }
}

fn encode_settings(settings: &NewSubscription<'_>) -> Vec<u8> {
    let mut bytes = vec![0; CREATED_FIXED_BYTES];
    let (place, kinds) = encode_start(settings.start);
    le::put_u64(&mut bytes, 0, place);
    le::put(&mut bytes, 8, kinds);
    bytes[10] = match settings.membership {
        Membership::Exclusive => 0,
        Membership::Shared => 1,
    };
    bytes[11] = match settings.order {
        DeliveryOrder::ByStream => 0,
        DeliveryOrder::Total => 1,
        DeliveryOrder::Unordered => 2,
    };
    bytes[12] = u8::from(settings.by_cursor);
    le::put_u32(&mut bytes, 16, settings.in_flight_max);
    le::put_u32(&mut bytes, 20, settings.retries_max);
    let times = [settings.handling_timeout, settings.backoff, settings.backoff_max];
    for (place, time) in times.into_iter().enumerate() {
        let nanoseconds = u64::try_from(time.as_nanos()).expect("limits keep times within 64 bits");
        le::put_u64(&mut bytes, 24 + 8 * place, nanoseconds);
    }
    let stream = settings.stream.as_deref().unwrap_or_default();
    le::put_u16(&mut bytes, 48, len_u16(stream.len()));
    le::put_u16(&mut bytes, 50, len_u16(settings.query.items.len()));
    bytes.extend_from_slice(stream.as_bytes());
    for item in &settings.query.items {
        let (stream, category) =
            (item.stream.as_deref().unwrap_or_default(), item.category.as_deref().unwrap_or_default());
        for count in [item.types.len(), item.tags.len(), stream.len(), category.len()] {
            bytes.extend_from_slice(&len_u16(count).to_le_bytes());
        }
        bytes.push(u8::from(item.correlation.is_some()) | u8::from(item.causation.is_some()) << 1);
        for name in item.types.iter().chain(&item.tags) {
            bytes.extend_from_slice(&len_u16(name.len()).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes.extend_from_slice(stream.as_bytes());
        bytes.extend_from_slice(category.as_bytes());
        for id in [item.correlation, item.causation].into_iter().flatten() {
            bytes.extend_from_slice(id.as_bytes());
        }
    }
    bytes
}

fn decode_settings(name: &str, bytes: &[u8]) -> Option<NewSubscription<'static>> {
    let mut rest = Rest(bytes);
    let fixed = rest.array::<CREATED_FIXED_BYTES>()?;
    let time = |place: usize| Duration::from_nanos(le::u64_at(&fixed, 24 + 8 * place));
    let stream = rest.name(le::u16_at(&fixed, 48))?;
    let mut query = Query::all();
    for _ in 0..le::u16_at(&fixed, 50) {
        query.items.push(decode_item(&mut rest)?);
    }
    let settings = NewSubscription {
        name: name.to_owned().into(),
        stream: stream.map(Into::into),
        query,
        start: decode_start(le::u64_at(&fixed, 0), le::array_at(&fixed, 8))?,
        membership: match fixed[10] {
            0 => Membership::Exclusive,
            1 => Membership::Shared,
            _ => return None,
        },
        order: match fixed[11] {
            0 => DeliveryOrder::ByStream,
            1 => DeliveryOrder::Total,
            2 => DeliveryOrder::Unordered,
            _ => return None,
        },
        in_flight_max: le::u32_at(&fixed, 16),
        handling_timeout: time(0),
        retries_max: le::u32_at(&fixed, 20),
        backoff: time(1),
        backoff_max: time(2),
        by_cursor: fixed[12] == 1,
    };
    let is_whole = rest.0.is_empty() && fixed[12] <= 1 && fixed[13..16] == [0; 3];
    (is_whole && settings.validate().is_ok()).then_some(settings)
}

fn decode_item(rest: &mut Rest<'_>) -> Option<QueryItem<'static>> {
    let fixed = rest.array::<ITEM_FIXED_BYTES>()?;
    let count = |place: usize| le::u16_at(&fixed, 2 * place);
    let mut item = QueryItem::new();
    for _ in 0..count(0) {
        item.types.push(rest.counted_text()?.to_owned().into());
    }
    for _ in 0..count(1) {
        item.tags.push(rest.counted_text()?.to_owned().into());
    }
    item.stream = rest.name(count(2))?.map(Into::into);
    item.category = rest.name(count(3))?.map(Into::into);
    let ids = fixed[8];
    if ids > 3 {
        return None;
    }
    let mut id = |bit: u8| {
        if ids & bit == 0 { Some(None) } else { rest.array().map(|bytes| Some(Uuid::from_bytes(bytes))) }
    };
    (item.correlation, item.causation) = (id(1)?, id(2)?);
    Some(item)
}

/// What is still to be taken apart.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn text(&mut self, bytes: usize) -> Option<&'a str> {
        let (text, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn counted_text(&mut self) -> Option<&'a str> {
        let bytes = u16::from_le_bytes(self.array()?);
        self.text(bytes.into())
    }

    /// A name that may be absent: then it has no bytes.
    fn name(&mut self, bytes: u16) -> Option<Option<String>> {
        let name = self.text(bytes.into())?;
        Some((!name.is_empty()).then(|| name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn starts() -> impl Strategy<Value = Start> {
        (0..8_u8, any::<u64>()).prop_map(|(kind, place)| {
            let bound: Bound = match kind % 3 {
                0 => Position::new(place).into(),
                1 => Timestamp::new(place).into(),
                _ => Version::new(place).into(),
            };
            match kind {
                0 => Start::First,
                1 => Start::End,
                kind if kind < 5 => Start::From(bound),
                _ => Start::After(bound),
            }
        })
    }

    fn items() -> impl Strategy<Value = QueryItem<'static>> {
        let names = || prop::collection::vec("[a-zä]{1,9}", 0..3);
        let name = || prop::option::of("[a-zä]{1,9}");
        let id = || prop::option::of(any::<u128>());
        (names(), names(), name(), name(), id(), id()).prop_map(
            |(types, tags, stream, category, correlation, causation)| QueryItem {
                types: types.into_iter().map(Into::into).collect(),
                tags: tags.into_iter().map(Into::into).collect(),
                stream: stream.map(Into::into),
                category: category.map(Into::into),
                correlation: correlation.map(Uuid::from_u128),
                causation: causation.map(Uuid::from_u128),
            },
        )
    }

    fn settings() -> impl Strategy<Value = NewSubscription<'static>> {
        let numbers = (1..=1_000_u32, any::<u32>(), 1..86_400_000_u64, 0..1_000_000_u64);
        let kinds = (starts(), 0..2_u8, 0..3_u8);
        (prop::collection::vec(items(), 0..3), kinds, numbers).prop_map(|(items, kinds, numbers)| {
            let (start, membership, order) = kinds;
            NewSubscription {
                query: Query { items },
                start,
                stream: Some("order-42".into()),
                membership: if membership == 0 { Membership::Exclusive } else { Membership::Shared },
                order: match order {
                    0 => DeliveryOrder::ByStream,
                    1 => DeliveryOrder::Total,
                    _ => DeliveryOrder::Unordered,
                },
                by_cursor: membership == 0 && order == 1 && numbers.1 % 2 == 0,
                in_flight_max: numbers.0,
                retries_max: numbers.1,
                handling_timeout: Duration::from_millis(numbers.2),
                backoff: Duration::from_nanos(numbers.3),
                backoff_max: Duration::from_nanos(2 * numbers.3),
                ..NewSubscription::new("invoicing")
            }
        })
    }

    fn opens() -> impl Strategy<Value = OpenNote> {
        (any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(position, lane, failures)| OpenNote {
            position,
            lane,
            failures,
        })
    }

    fn notes() -> impl Strategy<Value = Note> {
        let reason = || "\\PC{0,40}";
        prop_oneof![
            settings().prop_map(|settings| Note::Created(Box::new(settings))),
            (starts(), any::<u64>(), prop::collection::vec(opens(), 0..5), prop::option::of(reason()))
                .prop_map(|(start, next, mut open, stopped)| {
                    open.sort_by_key(|open| open.position);
                    open.dedup_by_key(|open| open.position);
                    Note::Progress(Progress { start, next, open, stopped })
                }),
            (opens(), any::<u64>(), reason()).prop_map(|(open, time, reason)| {
                Note::Parked(ParkedNote { open, time: Timestamp::new(time), reason })
            }),
            prop::collection::vec(any::<u64>(), 0..5).prop_map(Note::Unparked),
            Just(Note::Deleted),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(note in notes()) {
            let encoded = note.encode();
            prop_assert_eq!(Note::decode("invoicing", note.event_type(), &encoded), Some(note.clone()));
            // Nothing of it can be missing, but for the end of a reason and whole positions.
            for cut in 0..encoded.len() {
                let cut = Note::decode("invoicing", note.event_type(), &encoded[..cut]);
                let may_be = matches!(note, Note::Parked(_) | Note::Unparked(_));
                prop_assert!(cut.is_none() || may_be);
            }
        }

        #[test]
        fn nothing_else_is(bytes in prop::collection::vec(any::<u8>(), 0..100), kind in 0..5_usize) {
            let event_type = [CREATED_TYPE, PROGRESS_TYPE, PARKED_TYPE, UNPARKED_TYPE, DELETED_TYPE][kind];
            if let Some(note) = Note::decode("invoicing", event_type, &bytes) {
                prop_assert_eq!(note.encode(), bytes);
            }
        }
    }
}
