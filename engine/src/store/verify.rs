//! Verifying: everything is read once more and checked against its checksums, the chain and itself.

use super::core::{Core, MANIFEST_NAME, MARK_NAME};
use super::read_only;
use super::sealed::{SealedSegment, SealedSegments};
use super::side::Side;
use super::spans;
use super::{Store, subscriptions};
use crate::disk::Access;
use crate::disk::maps::Advice;
use crate::format::digest::{self, BatchDigests, Chain, Digest};
use crate::format::manifest::Manifest;
use crate::format::mark;
use crate::format::segment::{FRAMES_START, Seal, SegmentHeader};
use crate::format::{BLOCK_BYTES, align_up, to_usize};
use crate::index::memory::MemoryIndex;
use crate::log::scan::{Frames, Place};
use crate::log::unsealed::Unsealed;
use crate::log::{damage_at, index_name};
use annals_types::{Cursor, Damage, DamageKind, ReadError, Verified};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One verification on its way.
struct Check<'a> {
    core: &'a Arc<Core>,
    verified: Verified,
    total: u64,
    digests: BatchDigests,
    /// Those that the sealed segments set.
    cursors: BTreeMap<Box<str>, Cursor>,
    progress: &'a mut dyn FnMut(u64, u64),
}

pub(crate) fn verify(core: &Arc<Core>, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified, ReadError> {
    read_only::refresh(core)?;
    let (sealed, unsealed) = {
        let state = core.state.lock();
        let closed = state.segments.closed.iter().map(|closed| Arc::clone(&closed.log));
        let logs: Vec<_> =
            closed.chain(state.segments.active.iter().map(|active| Arc::clone(&active.log))).collect();
        (Arc::clone(&state.segments.sealed), logs)
    };
    let follower = core.follower.get();
    let mut check = Check {
        core,
        verified: Verified {
            events: 0,
            segments: 0,
            torn_tail_bytes: follower.map_or(0, |follower| follower.torn_tail_bytes),
            chain: String::new(),
            damage: follower.map_or_else(Vec::new, |follower| follower.damage.clone()),
        },
        digests: BatchDigests::default(),
        cursors: BTreeMap::new(),
        total: core.watermark.position(),
        progress,
    };
    check.small_files()?;
    let mut chain = digest::chain_start(core.store);
    for segment in sealed.iter() {
        chain = check.sealed(segment, chain)?;
    }
    check.cursors(&sealed);
    check.spans(&sealed);
    check.verified.chain = chain.iter().map(|byte| format!("{byte:02x}")).collect();
    for log in &unsealed {
        check.unsealed(log)?;
    }
    check.side_stores()?;
    (check.progress)(check.total, check.total);
    let mut seen = Vec::new();
    check.verified.damage.retain(|damage| {
        let new = !seen.contains(damage);
        if new {
            seen.push(damage.clone());
        }
        new
    });
    Ok(check.verified)
}

impl Check<'_> {
    fn note(&mut self, path: &Path, offset: u64, kind: DamageKind, positions: Option<(u64, u64)>) {
        self.verified.damage.push(damage_at(path, offset, kind, positions));
    }

    /// The side stores, with all that is checked of any.
    fn side_stores(&mut self) -> Result<(), ReadError> {
        self.side_store(&self.core.snapshots, |_| Ok(()))?;
        self.side_store(&self.core.subscriptions.side, subscriptions::verify)
    }

    /// A side store; `content`: what else there is to check of it.
    fn side_store(
        &mut self,
        side: &Side,
        content: impl FnOnce(&Store) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let in_it = |dir: &str, damage: Damage| Damage {
            file: Path::new(dir).join(damage.file),
            // Its positions are none of this store's.
            first_position: None,
            last_position: None,
            ..damage
        };
        let (dir, verified) = match side.apart(self.core) {
            Ok(Some((dir, store))) => {
                let verified = store.verify(&mut |_, _| {}).map(|verified| verified.damage);
                let is_intact = matches!(&verified, Ok(damage) if damage.is_empty());
                (dir, if is_intact { content(&store).map(|()| Vec::new()) } else { verified })
            }
            Ok(None) => return Ok(()),
            Err(error) => (side.name().to_owned(), Err(error)),
        };
        let damage = match verified {
            Ok(damage) => damage,
            Err(ReadError::Damage(damage)) => vec![damage],
            Err(error) => return Err(error),
        };
        self.verified.damage.extend(damage.into_iter().map(|damage| in_it(&dir, damage)));
        Ok(())
    }

    /// Manifest and mark, as they are on disk now.
    fn small_files(&mut self) -> Result<(), ReadError> {
        let core = self.core;
        if core.store.is_nil() {
            return Ok(());
        }
        let path = core.dir.join(MANIFEST_NAME);
        match core.disk.read(&path).map(|bytes| Manifest::decode(&bytes)) {
            // Its creation was cut short before anything but the manifest was there.
            Ok(Ok(manifest)) if manifest.epoch == 0 => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => self.note(&path, 0, DamageKind::Checksum, None),
            Err(_) => self.note(&path, 0, DamageKind::Missing, None),
        }
        let path = core.dir.join(MARK_NAME);
        match core.disk.read(&path) {
            Ok(bytes) => {
                // A living writer may be writing a slot right now; then the other one counts.
                let writer = core.disk.lock_holder(&core.dir.join(super::core::LOCK_NAME)).ok().flatten();
                if let Some(at) = mark::first_damage(&bytes, core.store)
                    && (writer.is_none() || mark::decode(&bytes, core.store).is_none())
                {
                    self.note(&path, at as u64, DamageKind::Checksum, None);
                }
            }
            Err(_) => self.note(&path, 0, DamageKind::Missing, None),
        }
        Ok(())
    }

    /// A sealed segment: header, every frame and event, the chain, the seal, the index. Returns the chain behind it.
    fn sealed(&mut self, segment: &SealedSegment, chain_before: Digest) -> Result<Digest, ReadError> {
        self.verified.segments += 1;
        let seal = &segment.log.seal;
        let path = &segment.log.path;
        // Not through the map that readers use: what is on disk now.
        let bytes = match self.core.disk.open(path, Access::Read).and_then(|file| file.map(Advice::Scan)) {
            Ok(bytes) => bytes,
            Err(_) => {
                self.note(path, 0, DamageKind::Missing, positions_of(seal));
                return Ok(seal.chain);
            }
        };
        if (bytes.len() as u64) < align_up(seal.end, BLOCK_BYTES) + BLOCK_BYTES as u64 {
            self.note(path, bytes.len() as u64, DamageKind::Missing, positions_of(seal));
            return Ok(seal.chain);
        }
        self.header(path, &bytes, seal);
        let start = Place {
            offset: FRAMES_START,
            crc: SegmentHeader::crc(&bytes),
            batch: seal.first_batch,
            position: seal.first_position,
            epoch: 0,
            time: 0,
        };
        let mut index = MemoryIndex::new(self.core.store, seal.first_position);
        let frames = Frames {
            bytes: &bytes,
            store: self.core.store,
            seed: segment.log.seed(),
            limit: seal.end,
            until_batch: u64::MAX,
        };
        let damage_before = self.verified.damage.len();
        let mut chain = Chain::behind(&chain_before);
        self.frames(path, &frames, start, seal.next_position, &mut chain, &mut index);
        let intact = self.verified.damage.len() == damage_before;
        if intact && (chain.finish() != seal.chain || chain_before != seal.chain_before) {
            self.note(path, FRAMES_START, DamageKind::Digest, positions_of(seal));
        }
        let at = align_up(seal.end, BLOCK_BYTES);
        if Seal::decode(&bytes[to_usize(at)..], self.core.store) != Ok(*seal) {
            self.note(path, at, DamageKind::Checksum, None);
        }
        if intact {
            self.index(segment, &index);
        }
        self.cursors.extend(index.cursors);
        Ok(seal.chain)
    }

    fn header(&mut self, path: &Path, bytes: &Bytes, seal: &Seal) {
        let header = SegmentHeader::decode(&bytes[..BLOCK_BYTES], seal.ordinal, self.core.store);
        let fits = header.is_ok_and(|header| {
            (header.salt, header.first_batch, header.first_position)
                == (seal.salt, seal.first_batch, seal.first_position)
        });
        if !fits {
            self.note(path, 0, DamageKind::Checksum, None);
        }
    }

    /// The index must be what the log gives.
    fn index(&mut self, segment: &SealedSegment, index: &MemoryIndex) {
        let path = self.core.dir.join(index_name(segment.log.seal.ordinal));
        let expected = index.encode(segment.index.of());
        match self.core.disk.read(&path) {
            Err(_) => self.note(&path, 0, DamageKind::Missing, None),
            Ok(found) => self.compare(&path, &found, &expected),
        }
    }

    /// The manifest must have the cursors that the sealed segments set.
    fn cursors(&mut self, sealed: &SealedSegments) {
        let differ = {
            let manifest = self.core.manifest.lock();
            // A segment that was sealed meanwhile may have set more.
            manifest.sealed.len() == sealed.len() && manifest.cursors != self.cursors
        };
        if differ && self.verified.damage.is_empty() {
            self.note(&self.core.dir.join(MANIFEST_NAME), 0, DamageKind::Digest, None);
        }
    }

    /// Spans must be what the indexes give. One that is not there is not missed: it is made in the background.
    fn spans(&mut self, sealed: &SealedSegments) {
        for (span, segments) in sealed.spans() {
            match self.core.disk.read(&span.path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(_) => self.note(&span.path, 0, DamageKind::Unreadable, None),
                // Where an index is missing, that was noted already.
                Ok(found) => {
                    if let Some(expected) = spans::expected_content(self.core, span, segments) {
                        self.compare(&span.path, &found, &expected);
                    }
                }
            }
        }
    }

    fn compare(&mut self, path: &Path, found: &[u8], expected: &[u8]) {
        if found != expected {
            let at = found.iter().zip(expected).position(|(found, expected)| found != expected);
            self.note(path, at.unwrap_or(0) as u64, DamageKind::Checksum, None);
        }
    }

    /// A segment that is not sealed, as far as it is durable.
    fn unsealed(&mut self, log: &Unsealed) -> Result<(), ReadError> {
        if self.core.marker.is_some() && log.header.ordinal > self.core.begun.load(Ordering::Acquire) {
            // Its header is on its way still: there is nothing in it yet.
            return Ok(());
        }
        self.verified.segments += 1;
        let end = log.durable_end();
        let bytes = match log.file.map(Advice::Scan) {
            Ok(bytes) if bytes.len() as u64 >= end => bytes,
            _ => {
                self.note(&log.path, 0, DamageKind::Missing, None);
                return Ok(());
            }
        };
        let header = &log.header;
        if SegmentHeader::decode(&bytes[..BLOCK_BYTES], header.ordinal, self.core.store).as_ref()
            != Ok(header)
        {
            self.note(&log.path, 0, DamageKind::Checksum, None);
        }
        let frames = Frames {
            bytes: &bytes,
            store: self.core.store,
            seed: log.seed,
            limit: end,
            until_batch: u64::MAX,
        };
        let start = Place::first(header, SegmentHeader::crc(&bytes));
        let mut index = MemoryIndex::new(self.core.store, header.first_position);
        // What the chain behind it is, the seal will say.
        let mut chain = Chain::behind(&digest::chain_start(self.core.store));
        self.frames(&log.path, &frames, start, self.total, &mut chain, &mut index);
        Ok(())
    }

    /// Every frame and event from `place` on; goes on behind damage.
    fn frames(
        &mut self,
        path: &Path,
        frames: &Frames<'_>,
        mut place: Place,
        next_position: u64,
        chain: &mut Chain,
        index: &mut MemoryIndex,
    ) {
        loop {
            let mut bad_event = Vec::new();
            let walked = frames.walk(place, |envelope, view| {
                let first = view.header.first_position;
                let digest = self.digests.one(view);
                for ordinal in 0..view.header.events {
                    if let Err(kind) = view.event(ordinal) {
                        let position = first + u64::from(ordinal);
                        bad_event.push((envelope.offset, kind, Some((position, position))));
                    }
                }
                match digest.and_then(|batch| super::rebuild::add(index, envelope, view).map(|()| batch)) {
                    Ok(batch) => chain.add(&batch),
                    Err(kind) => bad_event.push((envelope.offset, kind, None)),
                }
                self.verified.events += u64::from(view.header.events);
                (self.progress)(self.verified.events, self.total);
                Ok::<(), DamageKind>(())
            });
            for (offset, kind, positions) in bad_event {
                self.note(path, offset, kind, positions);
            }
            let (behind, wrong) = walked.unwrap_or((place, Some(DamageKind::Malformed)));
            let Some(kind) = wrong else { return };
            let resumed = frames.resume(behind.offset + 8).filter(|next| next.position >= behind.position);
            let until = resumed.map_or(next_position, |next| next.position);
            if resumed.is_some() || until > behind.position || behind.offset < frames.limit {
                let positions = (until > behind.position).then(|| (behind.position, until - 1));
                self.note(path, behind.offset, kind, positions);
            }
            match resumed {
                Some(next) => place = next,
                None => return,
            }
        }
    }
}

fn positions_of(seal: &Seal) -> Option<(u64, u64)> {
    (seal.first_position < seal.next_position).then(|| (seal.first_position, seal.next_position - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_types::Position;

    #[test]
    fn a_report_without_damage_is_ok() {
        let mut verified =
            Verified { events: 0, segments: 0, torn_tail_bytes: 9, chain: String::new(), damage: Vec::new() };
        assert!(verified.is_ok());
        let position = Some(Position::new(1));
        verified.damage.push(Damage {
            file: "x".into(),
            offset: 0,
            first_position: position,
            last_position: position,
            kind: DamageKind::Checksum,
        });
        assert!(!verified.is_ok());
    }
}
