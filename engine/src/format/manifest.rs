//! The manifest: which segments there are, and what is known of the sealed ones. Small, replaced whole
//! (written beside, synced, renamed, directory synced).
//!
//! ```text
//!  at  bytes
//!   0     64  prelude "annalsmf"
//!  64      8  edition: grows with each manifest
//!  72      8  epoch of the last opening for writing
//!  80      8  ordinal of the last segment that was made; 0: none yet
//!  88      8  number of sealed segments: the first ones, without gaps
//!  96      8  number of cursors that were set in them
//! 104    144  each sealed segment: the fields of its seal, as in a segment from byte 64 of the seal
//!             each cursor, by name: how many events are handled (8), revision (8), length of its name (2), name
//! ```

use super::prelude::{Kind, PRELUDE_BYTES, Refusal, seal_header, verify_header};
use super::section;
use super::segment::Seal;
use super::{le, len_u16, to_usize};
use annals_types::{Cursor, DamageKind, Uuid};
use std::collections::BTreeMap;

const FIXED_BYTES: usize = PRELUDE_BYTES + 40;
const CURSOR_FIXED_BYTES: usize = 18;

/// A manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    pub(crate) store: Uuid,
    pub(crate) edition: u64,
    pub(crate) epoch: u64,
    pub(crate) last_made: u64,
    pub(crate) sealed: Vec<Seal>,
    /// By name, as they are behind the last sealed segment.
    pub(crate) cursors: BTreeMap<Box<str>, Cursor>,
}

impl Manifest {
    /// The manifest's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES + Seal::FIELDS_BYTES * self.sealed.len()];
        let (sealed, cursors) = (self.sealed.len() as u64, self.cursors.len() as u64);
        let numbers = [self.edition, self.epoch, self.last_made, sealed, cursors];
        for (index, number) in numbers.into_iter().enumerate() {
            le::put_u64(&mut bytes, PRELUDE_BYTES + 8 * index, number);
        }
        for (fields, seal) in bytes[FIXED_BYTES..].chunks_exact_mut(Seal::FIELDS_BYTES).zip(&self.sealed) {
            seal.put_fields(fields);
        }
        for (name, cursor) in &self.cursors {
            bytes.extend_from_slice(&section::handled(cursor.position).to_le_bytes());
            bytes.extend_from_slice(&cursor.revision.to_le_bytes());
            bytes.extend_from_slice(&len_u16(name.len()).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        seal_header(&mut bytes, Kind::Manifest, self.store);
        bytes
    }

    /// Verifies and decodes a manifest.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let (store, header) = verify_header(bytes, Kind::Manifest, None)?;
        let malformed = Refusal::Damaged(DamageKind::Malformed);
        if header.len() < FIXED_BYTES || header.len() != bytes.len() {
            return Err(malformed);
        }
        let number = |index: usize| le::u64_at(header, PRELUDE_BYTES + 8 * index);
        let seals_bytes = to_usize(number(3)).checked_mul(Seal::FIELDS_BYTES);
        let parts = seals_bytes.and_then(|bytes| header[FIXED_BYTES..].split_at_checked(bytes));
        let Some((seals, cursors)) = parts else { return Err(malformed) };
        let entries = seals.chunks_exact(Seal::FIELDS_BYTES);
        let Some(cursors) = decode_cursors(cursors, number(4)) else { return Err(malformed) };
        let sealed: Vec<Seal> =
            entries.map(Seal::from_fields).collect::<Result<_, _>>().map_err(Refusal::Damaged)?;
        let manifest =
            Self { store, edition: number(0), epoch: number(1), last_made: number(2), sealed, cursors };
        if manifest.is_contiguous() && manifest.goes_on() { Ok(manifest) } else { Err(malformed) }
    }

    fn is_contiguous(&self) -> bool {
        let numbered = self.sealed.iter().enumerate().all(|(index, seal)| seal.ordinal == index as u64 + 1);
        let linked = self.sealed.windows(2).all(|pair| {
            pair[0].next_batch == pair[1].first_batch
                && pair[0].next_position == pair[1].first_position
                && pair[0].chain == pair[1].chain_before
        });
        let first = self.sealed.first().map_or((0, 0), |first| (first.first_batch, first.first_position));
        numbered && linked && first == (0, 0) && self.last_made >= self.sealed.len() as u64
    }

    /// Whether there can be a next edition, epoch and segment.
    fn goes_on(&self) -> bool {
        [self.edition, self.epoch, self.last_made].iter().all(|&number| number < u64::MAX)
    }
}

/// So many cursors, which are all that is there, each behind the one before by name.
fn decode_cursors(mut bytes: &[u8], count: u64) -> Option<BTreeMap<Box<str>, Cursor>> {
    let mut cursors = BTreeMap::<Box<str>, Cursor>::new();
    while !bytes.is_empty() {
        let (fixed, rest) = bytes.split_at_checked(CURSOR_FIXED_BYTES)?;
        let (name, rest) = rest.split_at_checked(usize::from(le::u16_at(fixed, 16)))?;
        let cursor = section::cursor(le::u64_at(fixed, 0), le::u64_at(fixed, 8))?;
        let name = std::str::from_utf8(name).ok()?;
        if cursors.last_key_value().is_some_and(|(before, _)| **before >= *name) {
            return None;
        }
        cursors.insert(name.into(), cursor);
        bytes = rest;
    }
    (cursors.len() as u64 == count).then_some(cursors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::digest::chain_start;
    use crate::format::segment::DIGEST_BYTES;
    use annals_types::Position;

    const STORE: Uuid = Uuid::from_u128(5);

    fn seal(ordinal: u64, chain_before: [u8; DIGEST_BYTES]) -> Seal {
        Seal {
            ordinal,
            salt: 7,
            first_batch: 10 * (ordinal - 1),
            first_position: 100 * (ordinal - 1),
            next_batch: 10 * ordinal,
            next_position: 100 * ordinal,
            end: 9000,
            least_time: 5,
            greatest_time: 6,
            last_crc: 4,
            chain_before,
            chain: [2; DIGEST_BYTES],
        }
    }

    fn manifest() -> Manifest {
        let cursor = |position| Cursor { position, revision: 3 };
        let cursors = [("a", cursor(None)), ("b", cursor(Some(Position::new(7)))), ("ü", cursor(None))];
        let sealed = vec![seal(1, chain_start(STORE)), seal(2, [2; DIGEST_BYTES])];
        let cursors = cursors.into_iter().map(|(name, cursor)| (name.into(), cursor)).collect();
        Manifest { store: STORE, edition: 9, epoch: 4, last_made: 4, sealed, cursors }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(Manifest::decode(&manifest().encode()), Ok(manifest()));
    }

    #[test]
    fn a_manifest_after_which_there_can_be_no_other_is_refused() {
        let end = u64::MAX;
        for no_next in [
            Manifest { edition: end, ..manifest() },
            Manifest { epoch: end, ..manifest() },
            Manifest { last_made: end, ..manifest() },
        ] {
            let decoded = Manifest::decode(&no_next.encode());
            assert_eq!(decoded, Err(Refusal::Damaged(DamageKind::Malformed)));
        }
    }

    #[test]
    fn a_manifest_whose_segments_do_not_begin_with_the_first_event_is_refused() {
        let mut later = manifest();
        for seal in &mut later.sealed {
            (seal.first_position, seal.next_position) = (seal.first_position + 1, seal.next_position + 1);
        }
        assert_eq!(Manifest::decode(&later.encode()), Err(Refusal::Damaged(DamageKind::Malformed)));
    }

    #[test]
    fn cursors_that_are_not_in_order_or_named_twice_are_refused() {
        let named = |names: [u8; 2], count: u64| {
            let mut bytes = manifest().encode();
            // Of the last one the name has two bytes.
            let second = bytes.len() - 2 - CURSOR_FIXED_BYTES - 1;
            let first = second - CURSOR_FIXED_BYTES - 1;
            assert_eq!((bytes[first], bytes[second]), (b'a', b'b'));
            (bytes[first], bytes[second]) = (names[0], names[1]);
            le::put_u64(&mut bytes, PRELUDE_BYTES + 32, count);
            seal_header(&mut bytes, Kind::Manifest, STORE);
            Manifest::decode(&bytes).map(|manifest| manifest.cursors.len())
        };
        let malformed = Err(Refusal::Damaged(DamageKind::Malformed));
        assert_eq!(named([b'a', b'b'], 3), Ok(3));
        assert_eq!(named([b'b', b'a'], 3), malformed);
        assert_eq!(named([b'a', b'a'], 3), malformed);
        assert_eq!(named([b'a', b'a'], 2), malformed);
    }
}
