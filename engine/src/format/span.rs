//! A span: consecutive sealed segments in eight parts, and a filter that says which of the parts may have a stream or
//! key. Derived from the segments' indexes; made anew when it is missing or damaged.
//!
//! ```text
//!   at  bytes
//!    0     64  prelude "annalssp"
//!   64      8  ordinal of the first segment
//!   72      8  ordinal of the last segment
//!   80     32  chain behind the last segment, as its seal has it
//!  112      8  number of blocks of the filter
//! 4096     64  each block of the filter
//! ```
//! The filter is like that of an index (see `filter`), with eight in one: a block has 60 places of one byte instead of 480
//! bits, of which a hash marks six, and bit p of a place says so for part p. One block, which is verified where it rules a
//! part out, answers for all parts. The checks' seed is the checksum of the chain.

use super::filter::{self, FILTER_BLOCK_BYTES, FILTER_CHECK_AT};
use super::prelude::{Kind, PRELUDE_BYTES, Refusal, seal_header, verify_header};
use super::{BLOCK_BYTES, crc, le, to_usize};
use crate::format::hash::Digest;
use crate::format::index::BadBlock;
use annals_types::{DamageKind, Uuid};

/// Parts of a span.
pub(crate) const PARTS: usize = 8;
const PLACES: u64 = FILTER_CHECK_AT as u64;
/// Hashes of one part in a block, on average.
const HASHES_PER_BLOCK: usize = 5;
/// Places that so many hashes mark for their part: 60 (1 - (1 - 1 / 60)^(6 * 5)).
const MARKED_MAX: u64 = 24;
/// How often a filter can be folded at least.
const FOLDS_MAX: u32 = 6;
const HEADER_BYTES: usize = PRELUDE_BYTES + 56;

/// Which segments a span is of, exactly: the chain stands for all that they hold and what was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SpanOf {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) chain: Digest,
}

impl SpanOf {
    /// As the header of a span says.
    fn stated(header: &[u8]) -> Self {
        Self { first: le::u64_at(header, 64), last: le::u64_at(header, 72), chain: le::array_at(header, 80) }
    }

    fn seed(&self) -> u32 {
        crc(0, &self.chain)
    }
}

/// Which segments a span says that it is of.
#[cfg(feature = "testing")]
pub(crate) fn stated_of(bytes: &[u8]) -> Option<SpanOf> {
    (bytes.len() >= HEADER_BYTES).then(|| SpanOf::stated(bytes))
}

/// How long a span says that it is.
#[cfg(feature = "testing")]
pub(crate) fn stated_bytes(bytes: &[u8]) -> Option<usize> {
    let blocks = bytes.get(112..HEADER_BYTES).map(|blocks| to_usize(le::u64_at(blocks, 0)))?;
    blocks.checked_mul(FILTER_BLOCK_BYTES)?.checked_add(BLOCK_BYTES)
}

/// Makes all checksums of a span right.
#[cfg(feature = "testing")]
pub(crate) fn reseal(bytes: &mut [u8]) {
    if let Some(of) = stated_of(bytes)
        && let Some(blocks) = bytes.get_mut(BLOCK_BYTES..)
    {
        filter::seal(blocks, of.seed());
    }
    super::prelude::reseal(bytes);
}

/// A span's filter that is being made.
#[derive(Debug)]
pub(crate) struct Parts {
    bytes: Vec<u8>,
}

impl Parts {
    /// Bytes that a filter takes while it is made, if none of its parts has more hashes.
    pub(crate) fn bytes_for(hashes_of_one_part: usize) -> usize {
        hashes_of_one_part.div_ceil(HASHES_PER_BLOCK).next_multiple_of(1 << FOLDS_MAX) * FILTER_BLOCK_BYTES
    }

    /// A filter without hashes, with room for so many in each part.
    pub(crate) fn with_room_for(hashes_of_one_part: usize) -> Self {
        Self { bytes: vec![0; Self::bytes_for(hashes_of_one_part)] }
    }

    /// Notes that a part has this hash. There is room for one at least.
    pub(crate) fn insert(&mut self, part: usize, hash: u64) {
        let number = filter::block_of(hash, self.bytes.len() / FILTER_BLOCK_BYTES);
        let block = &mut self.bytes[number * FILTER_BLOCK_BYTES..][..FILTER_BLOCK_BYTES];
        filter::places_of(hash, PLACES).into_iter().for_each(|place| block[place] |= 1 << part);
    }

    /// Halves the filter as often as it stays sparse enough: many of a part's hashes may have been the same. The block of
    /// a hash in half as many is the one that its pair of blocks becomes.
    fn fold(&mut self) {
        while !self.bytes.is_empty() && (self.bytes.len() / FILTER_BLOCK_BYTES).is_multiple_of(2) {
            let pairs = self.bytes.chunks_exact(2 * FILTER_BLOCK_BYTES);
            let folded: Vec<u8> = pairs
                .flat_map(|pair| {
                    let (one, other) = pair.split_at(FILTER_BLOCK_BYTES);
                    one.iter().zip(other).map(|(one, other)| one | other)
                })
                .collect();
            let mut marked = [0; PARTS];
            for byte in &folded {
                (0..PARTS).for_each(|part| marked[part] += u64::from(byte >> part & 1));
            }
            let blocks = (folded.len() / FILTER_BLOCK_BYTES) as u64;
            if marked.into_iter().any(|marked| marked > MARKED_MAX * blocks) {
                return;
            }
            self.bytes = folded;
        }
    }

    /// The span's file.
    pub(crate) fn encode(mut self, store: Uuid, of: &SpanOf) -> Vec<u8> {
        self.fold();
        filter::seal(&mut self.bytes, of.seed());
        let mut bytes = vec![0; HEADER_BYTES];
        le::put_u64(&mut bytes, 64, of.first);
        le::put_u64(&mut bytes, 72, of.last);
        le::put(&mut bytes, 80, of.chain);
        le::put_u64(&mut bytes, 112, (self.bytes.len() / FILTER_BLOCK_BYTES) as u64);
        seal_header(&mut bytes, Kind::Span, store);
        bytes.resize(BLOCK_BYTES, 0);
        bytes.extend_from_slice(&self.bytes);
        bytes
    }
}

/// A span's filter, behind a header that was verified. Blocks are verified as they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SpanLayout {
    seed: u32,
}

impl SpanLayout {
    /// Verifies the header of a span that must be of these segments.
    pub(crate) fn decode(bytes: &[u8], store: Uuid, of: &SpanOf) -> Result<Self, Refusal> {
        let (_, header) = verify_header(bytes, Kind::Span, Some(store))?;
        if header.len() < HEADER_BYTES {
            return Err(Refusal::Damaged(DamageKind::Malformed));
        }
        if SpanOf::stated(header) != *of {
            return Err(Refusal::Damaged(DamageKind::Misplaced));
        }
        let filter_bytes = to_usize(le::u64_at(header, 112)).checked_mul(FILTER_BLOCK_BYTES);
        if filter_bytes.and_then(|count| count.checked_add(BLOCK_BYTES)) != Some(bytes.len()) {
            return Err(Refusal::Damaged(DamageKind::Malformed));
        }
        Ok(Self { seed: of.seed() })
    }

    /// The parts that may have a stream or key with this hash, as bits; that the others have not is certain.
    pub(crate) fn parts_with(&self, bytes: &[u8], hash: u64) -> Result<u8, BadBlock> {
        let blocks = &bytes[BLOCK_BYTES..];
        if blocks.is_empty() {
            return Ok(0);
        }
        let number = filter::block_of(hash, blocks.len() / FILTER_BLOCK_BYTES);
        let at = number * FILTER_BLOCK_BYTES;
        let block = &blocks[at..at + FILTER_BLOCK_BYTES];
        let parts =
            filter::places_of(hash, PLACES).into_iter().fold(u8::MAX, |parts, place| parts & block[place]);
        if parts == u8::MAX || filter::is_intact(block, self.seed, number) {
            Ok(parts)
        } else {
            Err(BadBlock { offset: (BLOCK_BYTES + at) as u64, kind: DamageKind::Checksum })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twox_hash::XxHash3_64;

    const STORE: Uuid = Uuid::from_u128(5);
    const OF: SpanOf = SpanOf { first: 9, last: 16, chain: [7; 32] };

    fn hash(number: u64) -> u64 {
        XxHash3_64::oneshot(&number.to_le_bytes())
    }

    /// Part p has the hashes of the numbers that p + 1 divides, of so many, each several times.
    fn span(numbers: u64, times: u64) -> Vec<u8> {
        let mut parts = Parts::with_room_for(usize::try_from(numbers * times).unwrap());
        for number in (0..times).flat_map(|_| 0..numbers) {
            (0..PARTS)
                .filter(|&part| number % (part as u64 + 1) == 0)
                .for_each(|part| parts.insert(part, hash(number)));
        }
        parts.encode(STORE, &OF)
    }

    #[test]
    fn a_span_says_which_parts_have_something() {
        for times in [1, 10] {
            let bytes = span(2000, times);
            let layout = SpanLayout::decode(&bytes, STORE, &OF).unwrap();
            assert!(bytes.len() < 2 * Parts::bytes_for(2000) + BLOCK_BYTES, "it is folded");
            let mut wrong = 0;
            for number in 0..4000 {
                let found = layout.parts_with(&bytes, hash(number)).unwrap();
                let parts = (0..PARTS).filter(|&part| number < 2000 && number % (part as u64 + 1) == 0);
                let expected = parts.fold(0, |parts, part| parts | 1 << part);
                assert_eq!(found & expected, expected, "{number}");
                wrong += (found & !expected).count_ones();
            }
            assert!(wrong < 32_000 / 50, "{wrong} of 32,000 seem to be there");
        }
        let empty = Parts::with_room_for(0).encode(STORE, &OF);
        let layout = SpanLayout::decode(&empty, STORE, &OF).unwrap();
        assert_eq!(layout.parts_with(&empty, 1), Ok(0));
    }

    #[test]
    fn no_flipped_bit_rules_a_part_out() {
        let good = span(20, 1);
        let layout = SpanLayout::decode(&good, STORE, &OF).unwrap();
        let expected: Vec<u8> =
            (0..20).map(|number| layout.parts_with(&good, hash(number)).unwrap()).collect();
        for bit in BLOCK_BYTES * 8..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            for (number, expected) in (0..20).zip(&expected) {
                let found = layout.parts_with(&bad, hash(number));
                assert!(
                    found.is_err() || found.is_ok_and(|found| found & expected == *expected),
                    "bit {bit}"
                );
            }
        }
    }

    #[test]
    fn a_span_of_other_segments_is_not_believed() {
        let bytes = span(100, 1);
        for of in [SpanOf { first: 1, ..OF }, SpanOf { last: 17, ..OF }, SpanOf { chain: [8; 32], ..OF }] {
            let refused = SpanLayout::decode(&bytes, STORE, &of);
            assert_eq!(refused, Err(Refusal::Damaged(DamageKind::Misplaced)));
        }
        for len in 0..bytes.len() {
            assert!(SpanLayout::decode(&bytes[..len], STORE, &OF).is_err(), "{len} bytes");
        }
    }
}
