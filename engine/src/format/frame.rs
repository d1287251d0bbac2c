//! The frame: a batch's envelope in a segment. Local: it ties the batch to its place in this file.
//!
//! ```text
//!  at  bytes
//!   0      4  magic: "anfr"
//!   4      4  checksum of bytes 8 to 48, seeded with the segment's salt
//!   8      8  offset of this frame in its file
//!  16      4  length of the body as stored
//!  20      4  length of the batch's header, first versions and revisions
//!  24      4  checksum (bytes 4 to 8) of the frame before, or of the segment's header
//!  28      4  checksum of the batch's header
//!  32      8  first batch number that was not known durable when this was written
//!  40      4  checksum of the body as stored, where it is compressed; else 0
//!  44      1  how the body is stored: 0 as it is, 1 zstd
//!  45      3  zero
//!  48         the batch's header, first versions and revisions, then the body as stored
//! ```
//! A frame begins at a multiple of 8 bytes: right behind the one before, or at the next multiple of
//! 4,096. Bytes between are zero.

use super::batch::{self, Header, View};
use super::{BLOCK_BYTES, FRAME_ALIGNMENT, align_up, crc, le, len_u32, to_usize};
use annals_types::{DamageKind, limits};
use std::borrow::Cow;

/// Length of the fixed part.
pub(crate) const FRAME_FIXED_BYTES: usize = 48;
/// Frames begin at multiples of this.
pub(crate) const FRAME_ALIGNMENT_BYTES: usize = FRAME_ALIGNMENT;
/// The first four bytes.
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"anfr";
const AT_MAGIC: usize = 0;
const AT_CRC: usize = 4;
const AT_OFFSET: usize = 8;
const AT_STORED_LENGTH: usize = 16;
const AT_HEADER_LENGTH: usize = 20;
const AT_PREVIOUS: usize = 24;
const AT_BATCH_CRC: usize = 28;
const AT_NOT_DURABLE: usize = 32;
const AT_STORED_CRC: usize = 40;
const AT_CODEC: usize = 44;
const CODEC_PLAIN: u8 = 0;
const CODEC_ZSTD: u8 = 1;

/// Most bytes that a frame can take: what repair has to look through.
pub(crate) const FRAME_BYTES_MAX: usize = FRAME_FIXED_BYTES
    + batch::BATCH_FIXED_BYTES
    + 8 * (limits::BATCH_EVENTS_MAX + limits::ADVANCES_MAX)
    + limits::BATCH_BYTES_MAX;

/// Fewest bytes that a frame takes.
pub(crate) const FRAME_BYTES_MIN: usize = FRAME_FIXED_BYTES + batch::BATCH_FIXED_BYTES;

/// What ties frames to their segment: the start value of their checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameSeed(u32);

impl FrameSeed {
    pub(crate) fn new(segment_salt: u64) -> Self {
        Self(crc(0, &segment_salt.to_le_bytes()))
    }
}

/// What is decided when a frame gets its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) previous: u32,
    pub(crate) not_durable: u64,
    pub(crate) seed: FrameSeed,
}

/// Prepares the envelope of the batch that begins at [`FRAME_FIXED_BYTES`] of `bytes`; compresses its
/// body where it is larger than `compress_above` and that makes it smaller; returns it as it was then.
pub(crate) fn wrap(bytes: &mut Vec<u8>, compress_above: Option<usize>) -> Option<Vec<u8>> {
    let header_length = batch::header_bytes(&bytes[FRAME_FIXED_BYTES..]);
    let body_start = FRAME_FIXED_BYTES + header_length;
    let (mut codec, mut stored_crc, mut plain) = (CODEC_PLAIN, 0, None);
    if compress_above.is_some_and(|above| bytes.len() - body_start > above)
        && let Ok(small) = zstd::bulk::compress(&bytes[body_start..], 1)
        && small.len() < bytes.len() - body_start
    {
        codec = CODEC_ZSTD;
        stored_crc = crc(0, &small);
        plain = Some(bytes.split_off(body_start));
        bytes.extend_from_slice(&small);
    }
    let stored_length = len_u32(bytes.len() - body_start);
    bytes[..FRAME_FIXED_BYTES].fill(0);
    le::put(bytes, AT_MAGIC, FRAME_MAGIC);
    le::put_u32(bytes, AT_STORED_LENGTH, stored_length);
    le::put_u32(bytes, AT_HEADER_LENGTH, len_u32(header_length));
    le::put_u32(bytes, AT_STORED_CRC, stored_crc);
    bytes[AT_CODEC] = codec;
    let length = to_usize(align_up(bytes.len() as u64, FRAME_ALIGNMENT));
    bytes.resize(length, 0);
    plain
}

/// The batch in a frame that this process made itself, for which nothing is verified. `plain`: its body, where the frame
/// holds it compressed.
pub(crate) fn own_view<'a>(frame: &'a [u8], plain: Option<&'a [u8]>) -> Result<View<'a>, DamageKind> {
    let start = FRAME_FIXED_BYTES + le::u32_at(frame, AT_HEADER_LENGTH) as usize;
    let stored = &frame[start..start + le::u32_at(frame, AT_STORED_LENGTH) as usize];
    View::unverified(&frame[FRAME_FIXED_BYTES..start], plain.unwrap_or(stored))
}

/// Ties a wrapped frame, whose batch is decided, to its place. Returns its checksum.
pub(crate) fn place(frame: &mut [u8], place: Place, batch_crc: u32) -> u32 {
    le::put_u64(frame, AT_OFFSET, place.offset);
    le::put_u32(frame, AT_PREVIOUS, place.previous);
    le::put_u32(frame, AT_BATCH_CRC, batch_crc);
    le::put_u64(frame, AT_NOT_DURABLE, place.not_durable);
    let own = crc(place.seed.0, &frame[AT_OFFSET..FRAME_FIXED_BYTES]);
    le::put_u32(frame, AT_CRC, own);
    own
}

/// Makes all checksums of the frame at the start of `bytes` right, and ties it to its place, whatever else it says. Returns
/// its checksum, and how long it says it is. `None`: it is too short for a frame.
#[cfg(feature = "testing")]
pub(crate) fn reseal(bytes: &mut [u8], offset: u64, previous: u32, seed: FrameSeed) -> Option<(u32, u64)> {
    if bytes.len() < FRAME_BYTES_MIN {
        return None;
    }
    let (fixed, rest) = bytes.split_at_mut(FRAME_FIXED_BYTES);
    let header_length = le::u32_at(fixed, AT_HEADER_LENGTH) as usize;
    let stored_length = le::u32_at(fixed, AT_STORED_LENGTH) as usize;
    if let Some((header, stored)) = rest.split_at_mut_checked(header_length)
        && let Some(stored) = stored.get_mut(..stored_length)
        && header.len() >= batch::BATCH_FIXED_BYTES
    {
        let batch_crc = if fixed[AT_CODEC] == CODEC_ZSTD {
            le::put_u32(fixed, AT_STORED_CRC, crc(0, stored));
            let bytes_max = batch::stated_body_bytes(header).min(limits::BATCH_BYTES_MAX);
            let body = zstd::bulk::decompress(stored, bytes_max).unwrap_or_default();
            batch::reseal_header(header, &body)
        } else {
            batch::reseal_events(header, stored);
            batch::reseal_header(header, stored)
        };
        le::put_u32(fixed, AT_BATCH_CRC, batch_crc.unwrap_or_default());
    }
    le::put_u64(fixed, AT_OFFSET, offset);
    le::put_u32(fixed, AT_PREVIOUS, previous);
    let own = crc(seed.0, &fixed[AT_OFFSET..]);
    le::put_u32(fixed, AT_CRC, own);
    let length = (FRAME_FIXED_BYTES + header_length + stored_length) as u64;
    Some((own, align_up(length, FRAME_ALIGNMENT)))
}

/// The frame of a batch, whose header is `header`, which holds `stored` as its compressed body, tied to offset 0.
#[cfg(feature = "testing")]
pub(crate) fn compressed(header: &[u8], stored: &[u8], seed: FrameSeed) -> Vec<u8> {
    let mut bytes = vec![0; FRAME_FIXED_BYTES];
    le::put(&mut bytes, AT_MAGIC, FRAME_MAGIC);
    le::put_u32(&mut bytes, AT_STORED_LENGTH, len_u32(stored.len()));
    le::put_u32(&mut bytes, AT_HEADER_LENGTH, len_u32(header.len()));
    bytes[AT_CODEC] = CODEC_ZSTD;
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(stored);
    bytes.resize(bytes.len().next_multiple_of(FRAME_ALIGNMENT), 0);
    let _ = reseal(&mut bytes, 0, 0, seed);
    bytes
}

/// A frame's own header, verified. Says nothing of the batch in it yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Envelope {
    pub(crate) offset: u64,
    pub(crate) crc: u32,
    pub(crate) previous: u32,
    pub(crate) batch_crc: u32,
    pub(crate) not_durable: u64,
    stored_length: u32,
    header_length: u32,
    stored_crc: u32,
    codec: u8,
}

impl Envelope {
    /// Verifies and decodes the frame header at the start of `bytes`, which lie at `offset`.
    pub(crate) fn decode(bytes: &[u8], offset: u64, seed: FrameSeed) -> Result<Self, DamageKind> {
        let fixed = bytes.first_chunk::<FRAME_FIXED_BYTES>().ok_or(DamageKind::Missing)?;
        if fixed[..AT_CRC] != FRAME_MAGIC
            || le::u32_at(fixed, AT_CRC) != crc(seed.0, &fixed[AT_OFFSET..FRAME_FIXED_BYTES])
        {
            return Err(DamageKind::Checksum);
        }
        let envelope = Self {
            offset: le::u64_at(fixed, AT_OFFSET),
            crc: le::u32_at(fixed, AT_CRC),
            previous: le::u32_at(fixed, AT_PREVIOUS),
            batch_crc: le::u32_at(fixed, AT_BATCH_CRC),
            not_durable: le::u64_at(fixed, AT_NOT_DURABLE),
            stored_length: le::u32_at(fixed, AT_STORED_LENGTH),
            header_length: le::u32_at(fixed, AT_HEADER_LENGTH),
            stored_crc: le::u32_at(fixed, AT_STORED_CRC),
            codec: fixed[AT_CODEC],
        };
        if envelope.offset != offset {
            return Err(DamageKind::Misplaced);
        }
        let possible = envelope.codec <= CODEC_ZSTD && envelope.frame_bytes() <= FRAME_BYTES_MAX as u64 + 8;
        if possible { Ok(envelope) } else { Err(DamageKind::Malformed) }
    }

    /// Length of the whole frame, up to where the next may begin.
    pub(crate) fn frame_bytes(&self) -> u64 {
        let length = FRAME_FIXED_BYTES as u64 + u64::from(self.header_length) + u64::from(self.stored_length);
        align_up(length, FRAME_ALIGNMENT)
    }

    /// Whether the body is stored as it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.codec == CODEC_PLAIN
    }

    /// Where the stored body is in the frame.
    pub(crate) fn body_range(&self) -> std::ops::Range<usize> {
        let start = FRAME_FIXED_BYTES + self.header_length as usize;
        start..start + self.stored_length as usize
    }

    /// Verifies and decodes the batch's header in `frame`, which is as long as [`Self::frame_bytes`].
    pub(crate) fn header(&self, frame: &[u8]) -> Result<Header, DamageKind> {
        if frame.len() < self.body_range().end {
            return Err(DamageKind::Missing);
        }
        let header = Header::decode(&frame[FRAME_FIXED_BYTES..])?;
        if header.crc != self.batch_crc {
            return Err(DamageKind::Misplaced);
        }
        let fits = header.header_bytes() == self.header_length as usize
            && (!self.is_plain() || header.body_length == self.stored_length)
            && self.not_durable <= header.number;
        if fits { Ok(header) } else { Err(DamageKind::Malformed) }
    }

    /// The body, decompressed where needed; bounded by the length that the batch's header declares.
    pub(crate) fn body<'a>(&self, header: &Header, frame: &'a [u8]) -> Result<Cow<'a, [u8]>, DamageKind> {
        let stored = &frame[self.body_range()];
        if self.is_plain() {
            return Ok(Cow::Borrowed(stored));
        }
        if crc(0, stored) != self.stored_crc {
            return Err(DamageKind::Checksum);
        }
        let body =
            zstd::bulk::decompress(stored, header.body_length as usize).map_err(|_| DamageKind::Malformed)?;
        Ok(Cow::Owned(body))
    }
}

/// The batch in a verified frame whose body is `body`.
pub(crate) fn view<'a>(header: Header, frame: &'a [u8], body: &'a [u8]) -> Result<View<'a>, DamageKind> {
    let versions =
        &frame[FRAME_FIXED_BYTES + batch::BATCH_FIXED_BYTES..FRAME_FIXED_BYTES + header.header_bytes()];
    View::new(header, versions, body)
}

/// Where the frame after one that ends at `end` may begin: there, or at the next block.
pub(crate) fn candidates(end: u64) -> [u64; 2] {
    [end, align_up(end, BLOCK_BYTES)]
}
