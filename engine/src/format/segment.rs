//! A segment: one log file. Its header is its first block, its seal the block behind its last frame.
//!
//! ```text
//! header, at byte 0                                  seal, at the next multiple of 4,096 behind the end
//!  at  bytes                                          at  bytes
//!   0     64  prelude "annalssg"                       0     64  prelude "annalssl"
//!  64      8  ordinal of the segment: 1, 2, …         64      8  ordinal of the segment
//!  72      8  epoch                                   72      8  salt of the segment
//!  80      8  salt: random                            80      8  first batch number
//!  88      8  first batch number                      88      8  first position
//!  96      8  first position                          96      8  next batch number
//! 104      8  time of the event before, or 0         104      8  next position
//! 112      8  end of the segment before, or 0        112      8  end: offset behind the last frame
//! 120      4  checksum of its last frame, or 0       120      8  least time
//! 124      4  zero                                   128      8  greatest time
//! 128      8  bytes reserved for the file            136      4  checksum of the last frame
//!                                                    140      4  zero
//!                                                    144     32  chain of digests before the segment
//!                                                    176     32  chain of digests behind it
//! ```
//! The rest of each block is zero.

use super::prelude::{Kind, PRELUDE_BYTES, Refusal, seal_header, verify_header};
use super::{BLOCK_BYTES, FRAME_ALIGNMENT, le};
use annals_types::{DamageKind, Uuid, limits};

/// Length of a header, prelude included.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 136;
/// Length of a seal, prelude included.
pub(crate) const SEAL_BYTES: usize = 208;
/// Where frames begin.
pub(crate) const FRAMES_START: u64 = BLOCK_BYTES as u64;
/// A digest: SHA-256.
pub(crate) const DIGEST_BYTES: usize = 32;

const _: () = assert!(SEGMENT_HEADER_BYTES <= BLOCK_BYTES && SEAL_BYTES <= BLOCK_BYTES);

/// A segment's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) ordinal: u64,
    pub(crate) epoch: u64,
    pub(crate) salt: u64,
    pub(crate) first_batch: u64,
    pub(crate) first_position: u64,
    pub(crate) previous_time: u64,
    pub(crate) predecessor_end: u64,
    pub(crate) predecessor_crc: u32,
    pub(crate) capacity: u64,
}

impl SegmentHeader {
    /// The header's block.
    pub(crate) fn encode(&self, store: Uuid) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        let header = &mut block[..SEGMENT_HEADER_BYTES];
        let numbers = [
            self.ordinal,
            self.epoch,
            self.salt,
            self.first_batch,
            self.first_position,
            self.previous_time,
            self.predecessor_end,
        ];
        for (index, number) in numbers.into_iter().enumerate() {
            le::put_u64(header, PRELUDE_BYTES + 8 * index, number);
        }
        le::put_u32(header, 120, self.predecessor_crc);
        le::put_u64(header, 128, self.capacity);
        seal_header(header, Kind::Segment, store);
        block
    }

    /// Verifies and decodes the header of the segment with this ordinal.
    pub(crate) fn decode(block: &[u8], ordinal: u64, store: Uuid) -> Result<Self, Refusal> {
        let (_, header) = verify_header(block, Kind::Segment, Some(store))?;
        if header.len() < SEGMENT_HEADER_BYTES {
            return Err(Refusal::Damaged(DamageKind::Malformed));
        }
        let number = |index: usize| le::u64_at(header, PRELUDE_BYTES + 8 * index);
        let decoded = Self {
            ordinal: number(0),
            epoch: number(1),
            salt: number(2),
            first_batch: number(3),
            first_position: number(4),
            previous_time: number(5),
            predecessor_end: number(6),
            predecessor_crc: le::u32_at(header, 120),
            capacity: le::u64_at(header, 128),
        };
        if decoded.ordinal != ordinal {
            return Err(Refusal::Damaged(DamageKind::Misplaced));
        }
        let capacities = FRAMES_START + BLOCK_BYTES as u64..=limits::SEGMENT_BYTES_CEILING;
        let possible = capacities.contains(&decoded.capacity)
            && decoded.capacity.is_multiple_of(BLOCK_BYTES as u64)
            && decoded.predecessor_end.is_multiple_of(FRAME_ALIGNMENT as u64)
            && decoded.predecessor_end <= limits::SEGMENT_BYTES_CEILING
            && decoded.first_position < u64::MAX / 2
            && decoded.first_batch < u64::MAX / 2;
        if possible { Ok(decoded) } else { Err(Refusal::Damaged(DamageKind::Malformed)) }
    }

    /// What the first frame names as the checksum before it: the header's own.
    pub(crate) fn crc(block: &[u8]) -> u32 {
        super::prelude::stored_crc(block)
    }
}

/// Which segment a header says that it is of.
#[cfg(feature = "testing")]
pub(crate) fn stated_ordinal(bytes: &[u8]) -> u64 {
    bytes.get(PRELUDE_BYTES..PRELUDE_BYTES + 8).map_or(0, |ordinal| le::u64_at(ordinal, 0))
}

/// What is known of a sealed segment; also its entry in the manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seal {
    pub(crate) ordinal: u64,
    pub(crate) salt: u64,
    pub(crate) first_batch: u64,
    pub(crate) first_position: u64,
    pub(crate) next_batch: u64,
    pub(crate) next_position: u64,
    pub(crate) end: u64,
    pub(crate) least_time: u64,
    pub(crate) greatest_time: u64,
    pub(crate) last_crc: u32,
    pub(crate) chain_before: [u8; DIGEST_BYTES],
    pub(crate) chain: [u8; DIGEST_BYTES],
}

impl Seal {
    /// Length of the fields, which follow the prelude of a seal and make an entry of a manifest.
    pub(crate) const FIELDS_BYTES: usize = SEAL_BYTES - PRELUDE_BYTES;

    /// Writes the fields.
    pub(crate) fn put_fields(&self, fields: &mut [u8]) {
        let numbers = [
            self.ordinal,
            self.salt,
            self.first_batch,
            self.first_position,
            self.next_batch,
            self.next_position,
            self.end,
            self.least_time,
            self.greatest_time,
        ];
        for (index, number) in numbers.into_iter().enumerate() {
            le::put_u64(fields, 8 * index, number);
        }
        le::put_u32(fields, 72, self.last_crc);
        le::put_u32(fields, 76, 0);
        le::put(fields, 80, self.chain_before);
        le::put(fields, 80 + DIGEST_BYTES, self.chain);
    }

    /// Reads the fields, whose checksum was verified.
    pub(crate) fn from_fields(fields: &[u8]) -> Result<Self, DamageKind> {
        let number = |index: usize| le::u64_at(fields, 8 * index);
        let seal = Self {
            ordinal: number(0),
            salt: number(1),
            first_batch: number(2),
            first_position: number(3),
            next_batch: number(4),
            next_position: number(5),
            end: number(6),
            least_time: number(7),
            greatest_time: number(8),
            last_crc: le::u32_at(fields, 72),
            chain_before: le::array_at(fields, 80),
            chain: le::array_at(fields, 80 + DIGEST_BYTES),
        };
        let possible = seal.first_batch <= seal.next_batch
            && seal.first_position <= seal.next_position
            && seal.next_position - seal.first_position <= u64::from(u32::MAX)
            && seal.next_position < u64::MAX / 2
            && seal.next_batch < u64::MAX / 2
            && (FRAMES_START..=limits::SEGMENT_BYTES_CEILING).contains(&seal.end)
            && seal.least_time <= seal.greatest_time;
        if possible { Ok(seal) } else { Err(DamageKind::Malformed) }
    }

    /// The seal's block.
    pub(crate) fn encode(&self, store: Uuid) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        self.put_fields(&mut block[PRELUDE_BYTES..SEAL_BYTES]);
        seal_header(&mut block[..SEAL_BYTES], Kind::Seal, store);
        block
    }

    /// Verifies and decodes a seal's block.
    pub(crate) fn decode(block: &[u8], store: Uuid) -> Result<Self, Refusal> {
        let (_, header) = verify_header(block, Kind::Seal, Some(store))?;
        if header.len() < SEAL_BYTES {
            return Err(Refusal::Damaged(DamageKind::Malformed));
        }
        Self::from_fields(&header[PRELUDE_BYTES..]).map_err(Refusal::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: Uuid = Uuid::from_u128(5);
    const HEADER: SegmentHeader = SegmentHeader {
        ordinal: 3,
        epoch: 2,
        salt: 7,
        first_batch: 10,
        first_position: 100,
        previous_time: 9,
        predecessor_end: 8192,
        predecessor_crc: 4,
        capacity: 1 << 20,
    };
    const SEAL: Seal = Seal {
        ordinal: 3,
        salt: 7,
        first_batch: 10,
        first_position: 100,
        next_batch: 20,
        next_position: 300,
        end: 9000,
        least_time: 5,
        greatest_time: 6,
        last_crc: 4,
        chain_before: [1; DIGEST_BYTES],
        chain: [2; DIGEST_BYTES],
    };
    const MALFORMED: Refusal = Refusal::Damaged(DamageKind::Malformed);

    #[test]
    fn a_header_with_numbers_that_no_segment_has_is_refused() {
        let decode = |header: SegmentHeader| SegmentHeader::decode(&header.encode(STORE), 3, STORE);
        assert_eq!(decode(HEADER), Ok(HEADER));
        let ceiling = limits::SEGMENT_BYTES_CEILING;
        assert!(decode(SegmentHeader { capacity: ceiling, predecessor_end: ceiling, ..HEADER }).is_ok());
        for capacity in [0, 4096, 10_000, ceiling + 4096, 1 << 63, u64::MAX - 4095] {
            assert_eq!(decode(SegmentHeader { capacity, ..HEADER }), Err(MALFORMED));
        }
        for predecessor_end in [4, ceiling + 8, u64::MAX - 7] {
            assert_eq!(decode(SegmentHeader { predecessor_end, ..HEADER }), Err(MALFORMED));
        }
        assert_eq!(decode(SegmentHeader { first_position: u64::MAX / 2, ..HEADER }), Err(MALFORMED));
        assert_eq!(decode(SegmentHeader { first_batch: u64::MAX / 2, ..HEADER }), Err(MALFORMED));
    }

    #[test]
    fn a_seal_with_numbers_that_no_segment_has_is_refused() {
        let decode = |seal: Seal| Seal::decode(&seal.encode(STORE), STORE);
        assert_eq!(decode(SEAL), Ok(SEAL));
        for end in [0, 4095, limits::SEGMENT_BYTES_CEILING + 8, u64::MAX] {
            assert_eq!(decode(Seal { end, ..SEAL }), Err(MALFORMED));
        }
        let far = u64::MAX / 2;
        assert_eq!(decode(Seal { first_position: far - 1, next_position: far, ..SEAL }), Err(MALFORMED));
        assert_eq!(decode(Seal { first_batch: far - 1, next_batch: far, ..SEAL }), Err(MALFORMED));
        assert_eq!(decode(Seal { next_batch: 9, ..SEAL }), Err(MALFORMED));
        assert_eq!(decode(Seal { least_time: 7, ..SEAL }), Err(MALFORMED));
    }
}
