//! The manifest: which segments there are, and what is known of the sealed ones. Small, replaced whole
//! (written beside, synced, renamed, directory synced).
//!
//! ```text
//!  at  bytes
//!   0     64  prelude "annalsmf"
//!  64      8  generation: grows with each manifest
//!  72      8  epoch of the last opening for writing
//!  80      8  ordinal of the last segment that was made; 0: none yet
//!  88      8  number of sealed segments: the first ones, without gaps
//!  96    144  each sealed segment: the fields of its seal, as in a segment from byte 64 of the seal
//! ```

use super::le;
use super::prelude::{Kind, PRELUDE_BYTES, Refusal, seal_header, verify_header};
use super::segment::Seal;
use annals_types::{DamageKind, Uuid};

const FIXED_BYTES: usize = PRELUDE_BYTES + 32;

/// A manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    pub(crate) store: Uuid,
    pub(crate) generation: u64,
    pub(crate) epoch: u64,
    pub(crate) last_made: u64,
    pub(crate) sealed: Vec<Seal>,
}

impl Manifest {
    /// The manifest's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES + Seal::FIELDS_BYTES * self.sealed.len()];
        let numbers = [self.generation, self.epoch, self.last_made, self.sealed.len() as u64];
        for (index, number) in numbers.into_iter().enumerate() {
            le::put_u64(&mut bytes, PRELUDE_BYTES + 8 * index, number);
        }
        for (fields, seal) in bytes[FIXED_BYTES..].chunks_exact_mut(Seal::FIELDS_BYTES).zip(&self.sealed) {
            seal.put_fields(fields);
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
        let entries = header[FIXED_BYTES..].chunks_exact(Seal::FIELDS_BYTES);
        if number(3) != entries.len() as u64 || !entries.remainder().is_empty() {
            return Err(malformed);
        }
        let sealed: Vec<Seal> =
            entries.map(Seal::from_fields).collect::<Result<_, _>>().map_err(Refusal::Damaged)?;
        let manifest = Self { store, generation: number(0), epoch: number(1), last_made: number(2), sealed };
        if manifest.is_contiguous() { Ok(manifest) } else { Err(malformed) }
    }

    fn is_contiguous(&self) -> bool {
        let numbered = self.sealed.iter().enumerate().all(|(index, seal)| seal.ordinal == index as u64 + 1);
        let linked = self.sealed.windows(2).all(|pair| {
            pair[0].next_batch == pair[1].first_batch
                && pair[0].next_position == pair[1].first_position
                && pair[0].chain == pair[1].chain_before
        });
        numbered && linked && self.last_made >= self.sealed.len() as u64
    }
}
