//! One event inside a batch.
//!
//! ```text
//!  at  bytes
//!   0      4  checksum of all that follows, seeded with the batch's salt and the event's ordinal
//!   4      4  data length
//!   8      4  metadata length
//!  12      2  ordinal of its stream in the batch
//!  14      2  type length
//!  16      2  length of the tags
//!  18      1  number of tags
//!  19      1  flags: 1 data is not JSON, 2 has a correlation id, 4 has a causation id
//!  20     16  id
//!  36         correlation id (16, if flagged), causation id (16, if flagged), type,
//!             tags (each: length in 2 bytes, then its bytes), data, metadata
//! ```
//! The seed ties an event to its batch and place in it, so that an event's bytes that were copied,
//! swapped or left over from elsewhere never verify.

use super::{crc, le, len_u16, len_u32, to_usize};
use annals_types::{ContentKind, DamageKind, NewEvent, Uuid};
use std::ops::Range;

/// Length of the fixed part.
pub(crate) const EVENT_FIXED_BYTES: usize = 36;
const AT_CRC: usize = 0;
const AT_DATA_LENGTH: usize = 4;
const AT_METADATA_LENGTH: usize = 8;
const AT_STREAM: usize = 12;
const AT_TYPE_LENGTH: usize = 14;
const AT_TAGS_LENGTH: usize = 16;
const AT_TAG_COUNT: usize = 18;
const AT_FLAGS: usize = 19;
const AT_ID: usize = 20;
const FLAG_BINARY: u8 = 1;
const FLAG_CORRELATION: u8 = 2;
const FLAG_CAUSATION: u8 = 4;
const FLAGS_KNOWN: u8 = FLAG_BINARY | FLAG_CORRELATION | FLAG_CAUSATION;

/// The salt that ties events to their batch; [`SaltSeed::event`] is what an event's checksum starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SaltSeed(u32);

impl SaltSeed {
    pub(crate) fn new(salt: &[u8; 16]) -> Self {
        Self(crc(0, salt))
    }

    fn event(self, ordinal: u32) -> u32 {
        self.0.wrapping_add(ordinal)
    }
}

/// Appends the bytes of `event` to `body`.
pub(crate) fn encode(
    body: &mut Vec<u8>,
    event: &NewEvent<'_>,
    id: Uuid,
    stream: u16,
    seed: SaltSeed,
    ordinal: u32,
) {
    let start = body.len();
    let mut flags = if event.content == ContentKind::Binary { FLAG_BINARY } else { 0 };
    flags |= if event.correlation.is_some() { FLAG_CORRELATION } else { 0 };
    flags |= if event.causation.is_some() { FLAG_CAUSATION } else { 0 };
    let tags_length: usize = event.tags.iter().map(|tag| 2 + tag.len()).sum();
    let mut fixed = [0; EVENT_FIXED_BYTES];
    le::put_u32(&mut fixed, AT_DATA_LENGTH, len_u32(event.data.len()));
    le::put_u32(&mut fixed, AT_METADATA_LENGTH, len_u32(event.metadata.len()));
    le::put_u16(&mut fixed, AT_STREAM, stream);
    le::put_u16(&mut fixed, AT_TYPE_LENGTH, len_u16(event.event_type.len()));
    le::put_u16(&mut fixed, AT_TAGS_LENGTH, len_u16(tags_length));
    fixed[AT_TAG_COUNT] = u8::try_from(event.tags.len()).expect("an event has at most 64 tags");
    fixed[AT_FLAGS] = flags;
    le::put(&mut fixed, AT_ID, id.as_bytes());
    body.extend_from_slice(&fixed);
    for id in [event.correlation, event.causation].into_iter().flatten() {
        body.extend_from_slice(id.as_bytes());
    }
    body.extend_from_slice(event.event_type.as_bytes());
    for tag in &event.tags {
        body.extend_from_slice(&len_u16(tag.len()).to_le_bytes());
        body.extend_from_slice(tag.as_bytes());
    }
    body.extend_from_slice(&event.data);
    body.extend_from_slice(&event.metadata);
    let own = crc(seed.event(ordinal), &body[start + AT_DATA_LENGTH..]);
    le::put_u32(body, start + AT_CRC, own);
}

/// An event whose checksum was verified: its numbers, and ranges relative to its first byte.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) stream: u16,
    pub(crate) content: ContentKind,
    pub(crate) correlation: Option<Uuid>,
    pub(crate) causation: Option<Uuid>,
    pub(crate) event_type: Range<usize>,
    pub(crate) tags: Range<usize>,
    pub(crate) data: Range<usize>,
    pub(crate) metadata: Range<usize>,
}

/// Verifies and decodes the event that is exactly `bytes`.
pub(crate) fn decode(bytes: &[u8], seed: SaltSeed, ordinal: u32) -> Result<Event, DamageKind> {
    if bytes.len() < EVENT_FIXED_BYTES {
        return Err(DamageKind::Malformed);
    }
    if le::u32_at(bytes, AT_CRC) != crc(seed.event(ordinal), &bytes[AT_DATA_LENGTH..]) {
        return Err(DamageKind::Checksum);
    }
    let flags = bytes[AT_FLAGS];
    if flags & !FLAGS_KNOWN != 0 {
        return Err(DamageKind::Malformed);
    }
    let mut at = EVENT_FIXED_BYTES;
    let mut optional_id = |flag| {
        if flags & flag == 0 {
            return Ok(None);
        }
        let id = bytes.get(at..at + 16).ok_or(DamageKind::Malformed)?;
        at += 16;
        Ok(Some(Uuid::from_bytes(le::array_at(id, 0))))
    };
    let correlation = optional_id(FLAG_CORRELATION)?;
    let causation = optional_id(FLAG_CAUSATION)?;
    let mut next = |length: usize| {
        let range = at..at + length;
        at += length;
        range
    };
    let event = Event {
        id: Uuid::from_bytes(le::array_at(bytes, AT_ID)),
        stream: le::u16_at(bytes, AT_STREAM),
        content: if flags & FLAG_BINARY == 0 { ContentKind::Json } else { ContentKind::Binary },
        correlation,
        causation,
        event_type: next(usize::from(le::u16_at(bytes, AT_TYPE_LENGTH))),
        tags: next(usize::from(le::u16_at(bytes, AT_TAGS_LENGTH))),
        data: next(to_usize(u64::from(le::u32_at(bytes, AT_DATA_LENGTH)))),
        metadata: next(to_usize(u64::from(le::u32_at(bytes, AT_METADATA_LENGTH)))),
    };
    if at == bytes.len() { Ok(event) } else { Err(DamageKind::Malformed) }
}

/// Makes the checksum of the event that is exactly `bytes` right.
#[cfg(feature = "testing")]
pub(super) fn reseal(bytes: &mut [u8], seed: SaltSeed, ordinal: u32) {
    if bytes.len() >= EVENT_FIXED_BYTES {
        let own = crc(seed.event(ordinal), &bytes[AT_DATA_LENGTH..]);
        le::put_u32(bytes, AT_CRC, own);
    }
}

/// The stream's ordinal of an event that is at least as long as the fixed part.
pub(crate) fn stream_of(bytes: &[u8]) -> u16 {
    le::u16_at(bytes, AT_STREAM)
}
