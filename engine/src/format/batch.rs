//! The batch: what is appended together. Portable: a copy on another disk has the same bytes.
//!
//! ```text
//!  at  bytes
//!   0     16  store id
//!  16     16  salt: random, drawn for this batch
//!  32      8  epoch
//!  40      8  batch number
//!  48      8  position of its first event
//!  56      8  time: of its events, or the least time of each where the section `times` gives them
//!  64      4  number of events
//!  68      2  number of streams
//!  70      2  number of sections
//!  72      4  body length
//!  76      4  checksum of the body
//!  80      4  length of the body's first part, the directory
//!  84      4  checksum of the directory
//!  88      2  version of the batch layout
//!  90      2  number of cursors that it sets
//!  92      4  checksum of bytes 0 to 92 and of what follows up to the body
//!  96         first version of each stream (8 each)
//!             revision of each cursor (8 each), in the order of their sections
//!             body: directory: end of each event (4 each, relative to the first event),
//!                              end of each stream name (4 each, relative to the first name),
//!                              stream names, sections
//!                   events
//! ```
//! Reading one event verifies the header, the directory and that event; a scan verifies the header
//! and the body.
//!
//! A section: kind (2), flags (2; 1: must be understood), length (4), its bytes. A cursor has one of its own: how many
//! events are handled (8), its name.
//!
//! The header holds all that is decided when the batch gets its place; the body, by far the larger
//! part, is complete and checksummed before.

use super::event::{self, SaltSeed};
use super::section::{self, SECTION_FIXED_BYTES, SectionKind};
pub(crate) use super::view::{Shape, View};
use super::{crc, le, len_u16, len_u32};
use annals_types::{Append, DamageKind, NewEvent, Uuid, limits};
use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

/// Length of the fixed part of the header.
pub(crate) const BATCH_FIXED_BYTES: usize = 96;
/// Version of this layout, apart from the version of the files that hold it.
pub(crate) const BATCH_LAYOUT: u16 = 1;
const AT_STORE: usize = 0;
const AT_SALT: usize = 16;
const AT_EPOCH: usize = 32;
const AT_NUMBER: usize = 40;
const AT_FIRST_POSITION: usize = 48;
const AT_TIME: usize = 56;
const AT_EVENTS: usize = 64;
const AT_STREAMS: usize = 68;
const AT_SECTIONS: usize = 70;
const AT_BODY_LENGTH: usize = 72;
const AT_BODY_CRC: usize = 76;
const AT_DIRECTORY_LENGTH: usize = 80;
const AT_DIRECTORY_CRC: usize = 84;
const AT_LAYOUT: usize = 88;
const AT_CURSORS: usize = 90;
const AT_CRC: usize = 92;
/// A batch that was encoded for appending and waits for its place.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// Header and body.
    pub(crate) bytes: Vec<u8>,
    /// Events per stream, in the order of the streams' first events.
    pub(crate) streams: SmallVec<[EncodedStream; 2]>,
    /// The stream's ordinal of each event; empty where there is one stream.
    pub(crate) ordinals: Vec<u16>,
    /// Number of events.
    pub(crate) events: u32,
    /// First and last given time, where times were given.
    pub(crate) given_times: Option<(u64, u64)>,
}

/// A stream that a batch writes.
#[derive(Debug)]
pub(crate) struct EncodedStream {
    /// Index of an event of the batch that is appended to it: the first.
    pub(crate) first_event: u32,
    /// How many events of the batch are appended to it.
    pub(crate) events: u32,
}

/// What is decided when a batch gets its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decided {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    pub(crate) first_position: u64,
    pub(crate) time: u64,
}

/// Encodes everything but what [`decide`] fills in. `append` was validated. `room`: bytes left free
/// at the front for what goes before the batch. `ids` has an id for each event.
pub(crate) fn encode(
    append: &Append<'_>,
    store: Uuid,
    salt: [u8; 16],
    ids: &[Uuid],
    room: usize,
    mut buffer: Vec<u8>,
) -> Encoded {
    let (streams, ordinals) = streams_of(&append.events);
    let events = append.events.len();
    buffer.clear();
    let body_start = room + BATCH_FIXED_BYTES + 8 * (streams.len() + append.advances.len());
    buffer.resize(body_start + 4 * (events + streams.len()), 0);
    let mut names_length = 0;
    for (ordinal, stream) in streams.iter().enumerate() {
        let name = append.events[stream.first_event as usize].stream.as_bytes();
        buffer.extend_from_slice(name);
        names_length += name.len();
        le::put_u32(&mut buffer, body_start + 4 * (events + ordinal), len_u32(names_length));
    }
    let given_times = encode_times(&mut buffer, append);
    for advance in &append.advances {
        section::put_cursor(&mut buffer, &advance.cursor, advance.position);
    }
    let seed = SaltSeed::new(&salt);
    let events_start = buffer.len();
    for (index, event) in append.events.iter().enumerate() {
        let stream = ordinals.get(index).copied().unwrap_or(0);
        event::encode(&mut buffer, event, ids[index], stream, seed, len_u32(index));
        let end = len_u32(buffer.len() - events_start);
        le::put_u32(&mut buffer, body_start + 4 * index, end);
    }
    let directory_crc = crc(0, &buffer[body_start..events_start]);
    let body_crc = crc(0, &buffer[body_start..]);
    let body_length = len_u32(buffer.len() - body_start);
    let header = &mut buffer[room..];
    le::put(header, AT_STORE, store.as_bytes());
    le::put(header, AT_SALT, salt);
    le::put_u32(header, AT_EVENTS, len_u32(events));
    le::put_u16(header, AT_STREAMS, len_u16(streams.len()));
    le::put_u16(header, AT_SECTIONS, u16::from(given_times.is_some()) + len_u16(append.advances.len()));
    le::put_u16(header, AT_CURSORS, len_u16(append.advances.len()));
    le::put_u32(header, AT_BODY_LENGTH, body_length);
    le::put_u32(header, AT_BODY_CRC, body_crc);
    le::put_u32(header, AT_DIRECTORY_LENGTH, len_u32(events_start - body_start));
    le::put_u32(header, AT_DIRECTORY_CRC, directory_crc);
    le::put_u16(header, AT_LAYOUT, BATCH_LAYOUT);
    Encoded { bytes: buffer, streams, ordinals, events: len_u32(events), given_times }
}

/// The streams of these events in the order of their first events, and each event's stream.
fn streams_of(events: &[NewEvent<'_>]) -> (SmallVec<[EncodedStream; 2]>, Vec<u16>) {
    let count = len_u32(events.len());
    if events.is_empty() {
        return (SmallVec::new(), Vec::new());
    }
    if events.iter().all(|event| event.stream == events[0].stream) {
        return (smallvec![EncodedStream { first_event: 0, events: count }], Vec::new());
    }
    let mut known: HashMap<&str, u16> = HashMap::with_capacity(events.len());
    let mut streams: SmallVec<[EncodedStream; 2]> = SmallVec::new();
    let mut ordinals = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        let next = len_u16(streams.len());
        let ordinal = *known.entry(&event.stream).or_insert(next);
        if ordinal == next {
            streams.push(EncodedStream { first_event: len_u32(index), events: 0 });
        }
        streams[usize::from(ordinal)].events += 1;
        ordinals.push(ordinal);
    }
    (streams, ordinals)
}

/// Adds the section of given times, made ascending; returns the first and the last.
fn encode_times(buffer: &mut Vec<u8>, append: &Append<'_>) -> Option<(u64, u64)> {
    let first = append.events.first()?.time?.get();
    let mut last = first;
    section::begin(buffer, SectionKind::Times, 8 * append.events.len());
    for event in &append.events {
        last = last.max(event.time.map_or(0, annals_types::Timestamp::get));
        buffer.extend_from_slice(&last.to_le_bytes());
    }
    Some((first, last))
}

/// Writes the first version of the stream with this ordinal into the header of `batch`.
pub(crate) fn put_first_version(batch: &mut [u8], ordinal: usize, version: u64) {
    le::put_u64(batch, BATCH_FIXED_BYTES + 8 * ordinal, version);
}

/// Writes the revision of the cursor with this ordinal into the header of `batch`.
pub(crate) fn put_revision(batch: &mut [u8], ordinal: usize, revision: u64) {
    put_first_version(batch, usize::from(le::u16_at(batch, AT_STREAMS)) + ordinal, revision);
}

/// Fills in what is decided at assignment and the header's checksum, which is returned. First
/// versions were put before.
pub(crate) fn decide(batch: &mut [u8], decided: Decided) -> u32 {
    le::put_u64(batch, AT_EPOCH, decided.epoch);
    le::put_u64(batch, AT_NUMBER, decided.number);
    le::put_u64(batch, AT_FIRST_POSITION, decided.first_position);
    le::put_u64(batch, AT_TIME, decided.time);
    let own = header_crc(batch);
    le::put_u32(batch, AT_CRC, own);
    own
}

/// Length of header, first versions and revisions of the batch whose fixed header is `fixed`.
pub(crate) fn header_bytes(fixed: &[u8]) -> usize {
    BATCH_FIXED_BYTES
        + 8 * (usize::from(le::u16_at(fixed, AT_STREAMS)) + usize::from(le::u16_at(fixed, AT_CURSORS)))
}

fn header_crc(batch: &[u8]) -> u32 {
    crc(crc(0, &batch[..AT_CRC]), &batch[BATCH_FIXED_BYTES..header_bytes(batch)])
}

/// Makes the checksums of the events in `body` right, as far as the batch's header, `header`, leads to any.
#[cfg(feature = "testing")]
pub(crate) fn reseal_events(header: &[u8], body: &mut [u8]) {
    let seed = SaltSeed::new(&le::array_at(header, AT_SALT));
    let events_start = le::u32_at(header, AT_DIRECTORY_LENGTH) as usize;
    let mut start = events_start;
    for ordinal in 0..le::u32_at(header, AT_EVENTS) {
        let Some(end) = body.get(4 * ordinal as usize..).and_then(<[u8]>::first_chunk) else { return };
        let end = events_start + u32::from_le_bytes(*end) as usize;
        if let Some(event) = body.get_mut(start..end) {
            event::reseal(event, seed, ordinal);
        }
        start = end;
    }
}

/// Makes the checksums in the header of a batch whose body is `body` right, and returns its own. `None`: it is not all
/// there.
#[cfg(feature = "testing")]
pub(crate) fn reseal_header(header: &mut [u8], body: &[u8]) -> Option<u32> {
    if header.len() < BATCH_FIXED_BYTES || header.len() < header_bytes(header) {
        return None;
    }
    le::put_u32(header, AT_BODY_CRC, crc(0, body));
    if let Some(directory) = body.get(..le::u32_at(header, AT_DIRECTORY_LENGTH) as usize) {
        le::put_u32(header, AT_DIRECTORY_CRC, crc(0, directory));
    }
    let own = header_crc(header);
    le::put_u32(header, AT_CRC, own);
    Some(own)
}

/// Says in a batch's header, of which the fixed part is there, how long its body is.
#[cfg(feature = "testing")]
pub(crate) fn state_body_bytes(header: &mut [u8], bytes: u32) {
    le::put_u32(header, AT_BODY_LENGTH, bytes);
}

/// The length that a batch's header, of which the fixed part is there, says its body has.
#[cfg(feature = "testing")]
pub(crate) fn stated_body_bytes(header: &[u8]) -> usize {
    le::u32_at(header, AT_BODY_LENGTH) as usize
}

/// A batch header whose checksum was verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) store: Uuid,
    pub(crate) salt: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    pub(crate) first_position: u64,
    pub(crate) time: u64,
    pub(crate) events: u32,
    pub(crate) streams: u16,
    pub(crate) sections: u16,
    pub(crate) cursors: u16,
    pub(crate) body_length: u32,
    pub(crate) body_crc: u32,
    pub(crate) directory_length: u32,
    pub(crate) directory_crc: u32,
    pub(crate) crc: u32,
}

impl Header {
    /// Verifies and decodes the header at the start of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DamageKind> {
        if bytes.len() < BATCH_FIXED_BYTES || bytes.len() < header_bytes(bytes) {
            return Err(DamageKind::Malformed);
        }
        let header = Self::read(bytes);
        if header.crc != header_crc(bytes) {
            return Err(DamageKind::Checksum);
        }
        let known = le::u16_at(bytes, AT_LAYOUT) == BATCH_LAYOUT
            && header.events as usize <= limits::BATCH_EVENTS_MAX
            && u32::from(header.streams) <= header.events
            && usize::from(header.cursors) <= limits::ADVANCES_MAX
            && header.body_length as usize <= limits::BATCH_BYTES_MAX
            && header.first_position.checked_add(u64::from(header.events)).is_some()
            && header.number < u64::MAX
            && are_possible_versions(bytes, &header);
        if known { Ok(header) } else { Err(DamageKind::Malformed) }
    }

    /// Decodes a header that is all there.
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self {
            store: Uuid::from_bytes(le::array_at(bytes, AT_STORE)),
            salt: le::array_at(bytes, AT_SALT),
            epoch: le::u64_at(bytes, AT_EPOCH),
            number: le::u64_at(bytes, AT_NUMBER),
            first_position: le::u64_at(bytes, AT_FIRST_POSITION),
            time: le::u64_at(bytes, AT_TIME),
            events: le::u32_at(bytes, AT_EVENTS),
            streams: le::u16_at(bytes, AT_STREAMS),
            sections: le::u16_at(bytes, AT_SECTIONS),
            cursors: le::u16_at(bytes, AT_CURSORS),
            body_length: le::u32_at(bytes, AT_BODY_LENGTH),
            body_crc: le::u32_at(bytes, AT_BODY_CRC),
            directory_length: le::u32_at(bytes, AT_DIRECTORY_LENGTH),
            directory_crc: le::u32_at(bytes, AT_DIRECTORY_CRC),
            crc: le::u32_at(bytes, AT_CRC),
        }
    }

    /// Position behind its last event.
    pub(crate) fn next_position(&self) -> u64 {
        self.first_position + u64::from(self.events)
    }

    /// Length of header, first versions and revisions.
    pub(crate) fn header_bytes(&self) -> usize {
        BATCH_FIXED_BYTES + 8 * (usize::from(self.streams) + usize::from(self.cursors))
    }
}

/// Whether no stream has a version here that it cannot have: each event of it before has a position of its own.
fn are_possible_versions(bytes: &[u8], header: &Header) -> bool {
    let versions = bytes[BATCH_FIXED_BYTES..].chunks_exact(8).take(header.streams.into());
    versions.map(|version| le::u64_at(version, 0)).all(|version| version <= header.first_position)
}

/// Length of a batch with these parts, before it is encoded; what limits are checked against.
pub(crate) fn encoded_bytes(append: &Append<'_>) -> usize {
    let per_event = |event: &NewEvent<'_>| {
        // A stream is counted for each event here: an upper bound that needs no look-up.
        let tags: usize = event.tags.iter().map(|tag| 2 + tag.len()).sum();
        let stream = 12 + event.stream.len();
        4 + event::EVENT_FIXED_BYTES
            + 32
            + 8
            + event.event_type.len()
            + tags
            + event.data.len()
            + event.metadata.len()
            + stream
    };
    let cursor = 8 + SECTION_FIXED_BYTES + section::CURSOR_FIXED_BYTES;
    let cursors: usize = append.advances.iter().map(|advance| cursor + advance.cursor.len()).sum();
    BATCH_FIXED_BYTES + SECTION_FIXED_BYTES + cursors + append.events.iter().map(per_event).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_types::{ContentKind, Timestamp};
    use proptest::prelude::*;

    fn events() -> impl Strategy<Value = Vec<NewEvent<'static>>> {
        let one = (
            "[a-c]-[0-9]{1,3}",
            "[A-Z][a-z]{0,20}",
            proptest::collection::vec(any::<u8>(), 0..200),
            proptest::collection::vec(any::<u8>(), 0..50),
            proptest::collection::vec("[a-z:é]{1,12}", 0..5),
            (any::<Option<u128>>(), any::<Option<u128>>(), any::<bool>(), any::<u32>()),
        );
        let event = one.prop_map(
            |(stream, event_type, data, metadata, tags, (correlation, causation, json, time))| {
                let mut event = NewEvent::new(stream, event_type).binary(data).metadata(metadata);
                event.content = if json { ContentKind::Json } else { ContentKind::Binary };
                event.tags = tags.into_iter().map(Into::into).collect();
                event.correlation = correlation.map(Uuid::from_u128);
                event.causation = causation.map(Uuid::from_u128);
                event.time(Timestamp::new(u64::from(time)))
            },
        );
        (proptest::collection::vec(event, 1..30), any::<bool>()).prop_map(|(mut events, timed)| {
            if !timed {
                events.iter_mut().for_each(|event| event.time = None);
            }
            events
        })
    }

    fn encoded(append: &Append<'_>) -> Vec<u8> {
        let ids: Vec<Uuid> = (0..append.events.len()).map(|n| Uuid::from_u128(n as u128)).collect();
        let mut bytes = encode(append, Uuid::from_u128(1), [9; 16], &ids, 0, Vec::new()).bytes;
        decide(&mut bytes, Decided { epoch: 2, number: 3, first_position: 4, time: 5 });
        bytes
    }

    fn view(bytes: &[u8]) -> Result<View<'_>, DamageKind> {
        let header = Header::decode(bytes)?;
        let (start, body) = bytes.split_at(header.header_bytes());
        View::new(header, &start[BATCH_FIXED_BYTES..], body)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(events in events()) {
            let append: Append<'_> = events.clone().into_iter().collect();
            let bytes = encoded(&append);
            prop_assert!(bytes.len() <= encoded_bytes(&append));
            let view = view(&bytes).unwrap();
            view.verify_body().unwrap();
            let mut least = 5;
            for (ordinal, event) in events.iter().enumerate() {
                let ordinal = len_u32(ordinal);
                let (decoded, at) = view.event(ordinal).unwrap();
                let part = |range: &std::ops::Range<usize>| &view.body()[at.start + range.start..at.start + range.end];
                prop_assert_eq!(view.name(decoded.stream).unwrap(), event.stream.as_ref());
                prop_assert_eq!(part(&decoded.event_type), event.event_type.as_bytes());
                prop_assert_eq!(part(&decoded.data), event.data.as_ref());
                prop_assert_eq!(part(&decoded.metadata), event.metadata.as_ref());
                prop_assert_eq!(decoded.content, event.content);
                prop_assert_eq!((decoded.correlation, decoded.causation), (event.correlation, event.causation));
                prop_assert_eq!(decoded.id, Uuid::from_u128(u128::from(ordinal)));
                least = event.time.map_or(least, Timestamp::get).max(least);
                prop_assert_eq!(view.time(ordinal), least);
            }
        }

        #[test]
        fn a_version_that_no_event_can_have_is_refused(events in events(), version in 5..=u64::MAX) {
            let append: Append<'_> = events.into_iter().collect();
            let mut bytes = encoded(&append);
            put_first_version(&mut bytes, 0, version);
            decide(&mut bytes, Decided { epoch: 2, number: 3, first_position: 4, time: 5 });
            prop_assert_eq!(Header::decode(&bytes), Err(DamageKind::Malformed));
        }

        #[test]
        fn a_changed_byte_is_found(events in events(), at in any::<proptest::sample::Index>(), bit in 0..8_u32) {
            let append: Append<'_> = events.into_iter().collect();
            let mut bytes = encoded(&append);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(view(&bytes).and_then(|view| view.verify_body()).is_err());
        }
    }
}
