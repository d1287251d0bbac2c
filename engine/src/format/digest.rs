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
//!                  of each cursor: its revision; of each event: its digest; of each section: its digest)
//! chain       = H(3, chain behind the segment before, of each batch of the segment: its digest)
//! ```
//! The first number of each is one byte; numbers are 8 bytes where nothing else is said. An event that is
//! erased later leaves its digest, and its salt goes with it, so that nobody can find out by trying
//! what it said. Checksums and lengths of the representation are not covered: they may change when a
//! batch is rewritten without what was erased.

use super::batch::View;
pub(crate) use super::hash::Digest;
use super::hash::MessageDigests;
use super::{le, len_u32};
use annals_types::{DamageKind, Uuid};
use sha2::{Digest as _, Sha256};
use std::slice;

/// Length of a salt.
const SALT_BYTES: usize = 16;

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

/// Works out digests of batches, and keeps the memory that it takes.
#[derive(Debug, Default)]
pub(crate) struct BatchDigests {
    digests: MessageDigests,
    /// Of the events of all batches.
    salts: Vec<[u8; SALT_BYTES]>,
    events: Vec<Digest>,
    /// Of the batch that is worked on: what is hashed of its header and streams, and the digests of its sections.
    facts: Vec<u8>,
    sections: Vec<u8>,
}

impl BatchDigests {
    /// The digest of a batch.
    pub(crate) fn one(&mut self, view: &View<'_>) -> Result<Digest, DamageKind> {
        let mut digest = Digest::default();
        self.each(slice::from_ref(view), |_, of_batch| digest = of_batch)?;
        Ok(digest)
    }

    /// Calls `visit` with the digest of each batch, by its place among them.
    pub(crate) fn each(
        &mut self,
        views: &[View<'_>],
        mut visit: impl FnMut(usize, Digest),
    ) -> Result<(), DamageKind> {
        // Whatever an earlier failure left.
        drop(self.digests.take());
        self.find_salts(views);
        self.hash_events(views)?;
        let mut events = &self.events[..];
        for view in views {
            let (own, others) = events.split_at(view.header.events as usize);
            events = others;
            put_facts(&mut self.facts, view)?;
            self.sections.clear();
            for section in view.sections() {
                let (kind, _, bytes) = section?;
                let hasher = Sha256::new().chain_update([4]).chain_update(kind.to_le_bytes());
                self.sections.extend(hasher.chain_update(bytes).finalize());
            }
            self.digests.add(&[&self.facts, own.as_flattened(), &self.sections]);
        }
        self.digests.take().enumerate().for_each(|(place, digest)| visit(place, digest));
        Ok(())
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.digests.bytes()
            + self.salts.capacity() * SALT_BYTES
            + self.events.capacity() * size_of::<Digest>()
            + self.facts.capacity()
            + self.sections.capacity()
    }

    fn find_salts(&mut self, views: &[View<'_>]) {
        self.salts.clear();
        for View { header, .. } in views {
            if header.events == 1 {
                self.salts.push(header.salt);
                continue;
            }
            for ordinal in 0..header.events {
                self.digests.add(&[&[5], &header.salt, &ordinal.to_le_bytes()]);
            }
            self.salts.extend(self.digests.take().map(|derived| le::array_at::<SALT_BYTES>(&derived, 0)));
        }
    }

    fn hash_events(&mut self, views: &[View<'_>]) -> Result<(), DamageKind> {
        let mut salts = self.salts.iter();
        for view in views {
            for (ordinal, salt) in (0..view.header.events).zip(&mut salts) {
                let bytes = view.body()[view.event_range(ordinal)?].get(4..).ok_or(DamageKind::Malformed)?;
                self.digests.add(&[&[1], salt, bytes]);
            }
        }
        self.events.clear();
        self.events.extend(self.digests.take());
        Ok(())
    }
}

/// What is hashed of a batch's header and streams.
fn put_facts(facts: &mut Vec<u8>, view: &View<'_>) -> Result<(), DamageKind> {
    let header = &view.header;
    facts.clear();
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
    for cursor in view.cursors() {
        facts.extend_from_slice(&cursor?.1.revision.to_le_bytes());
    }
    Ok(())
}
