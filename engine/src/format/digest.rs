//! Digests: SHA-256 over events, batches and the chain of all batches.
//!
//! ```text
//! chain before the first batch = H(0, store id)
//! event salt  = the batch salt where the batch has one event, else
//!               the first 16 bytes of H(5, batch salt, ordinal in 4 bytes)
//! event       = H(1, event salt, the event's bytes behind its checksum)
//! section     = H(4, kind in 2 bytes, the section's bytes)
//! batch       = H(2, store id, epoch, batch number, first position, time, number of events (4),
//!                  number of streams (4); of each stream: first version, name length (4), name;
//!                  of each event: its digest; of each section: its digest)
//! chain       = H(3, chain behind the segment before, of each batch of the segment: its digest)
//! ```
//! The first number of each is one byte; numbers are 8 bytes where nothing else is said. An event that is
//! erased later leaves its digest, and its salt goes with it, so that nobody can find out by trying
//! what it said. Checksums and lengths of the representation are not covered: they may change when a
//! batch is rewritten without what was erased.

use super::batch::View;
use super::segment::DIGEST_BYTES;
use super::{le, len_u32};
use annals_types::{DamageKind, Uuid};
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;

/// Room for what is hashed of the header of a batch with a stream or two.
const FACTS_BYTES: usize = 128;

/// A digest.
pub(crate) type Digest = [u8; DIGEST_BYTES];

/// The chain before the first batch of a store.
pub(crate) fn chain_start(store: Uuid) -> Digest {
    Sha256::new().chain_update([0]).chain_update(store.as_bytes()).finalize().into()
}

/// The chain over a segment's batches, as far as it has come.
#[derive(Debug)]
pub(crate) struct Chain(Sha256);

impl Chain {
    /// Goes on from the chain behind the segment before.
    pub(crate) fn behind(before: &Digest) -> Self {
        Self(Sha256::new().chain_update([3]).chain_update(before))
    }

    /// Takes the digest of the next batch in.
    pub(crate) fn add(&mut self, batch: &Digest) {
        self.0.update(batch);
    }

    /// The chain behind the last batch that was added.
    pub(crate) fn finish(self) -> Digest {
        self.0.finalize().into()
    }
}

/// The digest of a batch.
pub(crate) fn batch_digest(view: &View<'_>) -> Result<Digest, DamageKind> {
    let header = &view.header;
    // Numbers are gathered first: hashing them one by one would take longer than hashing them.
    let mut facts: SmallVec<[u8; FACTS_BYTES]> = SmallVec::new();
    facts.push(2);
    facts.extend_from_slice(header.store.as_bytes());
    for number in [header.epoch, header.number, header.first_position, header.time] {
        facts.extend_from_slice(&number.to_le_bytes());
    }
    facts.extend_from_slice(&header.events.to_le_bytes());
    facts.extend_from_slice(&u32::from(header.streams).to_le_bytes());
    for stream in 0..header.streams {
        let name = &view.body()[view.name_range(stream)?];
        facts.extend_from_slice(&view.first_version(stream).to_le_bytes());
        facts.extend_from_slice(&len_u32(name.len()).to_le_bytes());
        facts.extend_from_slice(name);
    }
    let mut hasher = Sha256::new().chain_update(facts);
    for ordinal in 0..header.events {
        hasher.update(event_digest(view, ordinal)?);
    }
    for section in view.sections() {
        let (kind, _, bytes) = section?;
        let section = Sha256::new().chain_update([4]).chain_update(kind.to_le_bytes()).chain_update(bytes);
        hasher.update(section.finalize());
    }
    Ok(hasher.finalize().into())
}

fn event_digest(view: &View<'_>, ordinal: u32) -> Result<Digest, DamageKind> {
    let salt = event_salt(view, ordinal);
    let range = view.event_range(ordinal)?;
    let bytes = view.body()[range].get(4..).ok_or(DamageKind::Malformed)?;
    Ok(Sha256::new().chain_update([1]).chain_update(salt).chain_update(bytes).finalize().into())
}

fn event_salt(view: &View<'_>, ordinal: u32) -> [u8; 16] {
    if view.header.events == 1 {
        return view.header.salt;
    }
    let hasher = Sha256::new().chain_update([5]).chain_update(view.header.salt);
    let digest: Digest = hasher.chain_update(ordinal.to_le_bytes()).finalize().into();
    le::array_at(&digest, 0)
}
