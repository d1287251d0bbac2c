//! Sealing: a closed segment gets its index, its hash and its seal, and becomes immutable.

use super::core::{Closed, Core};
use super::sealed::SealedSegments;
use crate::disk::Piece;
use crate::disk::maps::Advice;
use crate::format::digest::{self, BatchDigests, Chain, Digest};
use crate::format::index::IndexOf;
use crate::format::segment::{FRAMES_START, Seal, SegmentHeader};
use crate::format::{BLOCK_BYTES, align_up};
use crate::log::scan::{Frames, Place};
use crate::log::{damage_at, index_name};
use annals_types::{Damage, DamageKind, IoFailure, ReadError};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often, and how long at a time, a digest is waited for that is being worked out: hundreds of times what it takes.
const DIGEST_TRIES: usize = 100;
const DIGEST_PAUSE: Duration = Duration::from_millis(1);

/// Why a segment could not be sealed.
#[derive(Debug)]
pub(crate) enum SealError {
    /// The system failed; it can be tried again.
    Io(IoFailure),
    /// The segment is not what was written.
    Damage(Damage),
}

impl From<ReadError> for SealError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damage(damage) => Self::Damage(damage),
            ReadError::Io(failure) => Self::Io(failure),
            other => Self::Io(IoFailure::new("read", "", std::io::Error::other(other.to_string()))),
        }
    }
}

impl From<IoFailure> for SealError {
    fn from(failure: IoFailure) -> Self {
        Self::Io(failure)
    }
}

/// Seals the oldest closed segment, if all of it is durable; whether it did. The order makes it safe to stop
/// anywhere: index and seal are only believed once the manifest names them.
pub(crate) fn seal_next(core: &Core) -> Result<bool, SealError> {
    let (closed, chain_before) = {
        let state = core.state.lock();
        let Some(closed) = state.segments.closed.front() else { return Ok(false) };
        if closed.log.header.ordinal >= core.begun.load(Ordering::Acquire) {
            return Ok(false);
        }
        let before = state.segments.sealed.last().map(|segment| segment.log.seal.chain);
        (Arc::clone(closed), before.unwrap_or_else(|| digest::chain_start(core.store)))
    };
    let seal = seal_of(core, &closed, chain_before)?;
    write_index(core, &closed, &seal)?;
    write_seal(core, &closed, &seal)?;
    core.change_manifest(|manifest| {
        manifest.sealed.push(seal);
        manifest.cursors.extend(closed.index.cursors.iter().map(|(name, cursor)| (name.clone(), *cursor)));
    })?;
    let mut state = core.state.lock();
    let mut sealed = SealedSegments::clone(&state.segments.sealed);
    sealed.push(&core.dir, core.store, seal);
    state.segments.sealed = Arc::new(sealed);
    core.work.ring();
    drop(state.segments.closed.pop_front());
    drop(state);
    reuse_index(core, closed);
    Ok(true)
}

/// Keeps the memory of the index for the next segment's, unless somebody reads it still.
fn reuse_index(core: &Core, closed: Arc<Closed>) {
    if let Ok(Closed { mut index, .. }) = Arc::try_unwrap(closed) {
        index.clear();
        let replaced = core.state.lock().spare_index.replace(index);
        drop(replaced);
    }
}

/// Works out the segment's seal.
fn seal_of(core: &Core, closed: &Closed, chain_before: Digest) -> Result<Seal, SealError> {
    let header = &closed.log.header;
    let chain = match chain_of_digests(closed, chain_before) {
        Some(chain) => chain,
        None => chain_of_log(core, closed, chain_before)?,
    };
    Ok(Seal {
        ordinal: header.ordinal,
        salt: header.salt,
        first_batch: header.first_batch,
        first_position: header.first_position,
        next_batch: closed.next_batch,
        next_position: closed.next_position,
        end: closed.end,
        least_time: header.previous_time,
        greatest_time: closed.greatest_time,
        last_crc: closed.last_crc,
        chain_before,
        chain,
    })
}

/// The chain over the digests that those who appended left. `None`: some are missing, for the segment was begun
/// before the store was opened.
fn chain_of_digests(closed: &Closed, chain_before: Digest) -> Option<Digest> {
    let mut chain = Chain::behind(&chain_before);
    for place in 0..closed.next_batch - closed.log.header.first_batch {
        chain.add(&awaited_digest(closed, place)?);
    }
    Some(chain.finish())
}

/// The digest of a batch. All is durable, but whoever appended the batch may be at its digest still; not where the very
/// first is missing: then nobody is.
fn awaited_digest(closed: &Closed, place: u64) -> Option<Digest> {
    let tries = if place == 0 { 0 } else { DIGEST_TRIES };
    let later = (0..tries).find_map(|_| {
        let digest = closed.log.digests.get(place);
        if digest.is_none() {
            std::thread::sleep(DIGEST_PAUSE);
        }
        digest
    });
    later.or_else(|| closed.log.digests.get(place))
}

/// The chain over the batches of the segment, which is read once more and verified.
fn chain_of_log(core: &Core, closed: &Closed, chain_before: Digest) -> Result<Digest, SealError> {
    let path = &closed.log.path;
    let bytes = closed.log.file.map(Advice::Scan).map_err(|error| IoFailure::new("map", path, error))?;
    let frames = Frames {
        bytes: &bytes,
        store: core.store,
        seed: closed.log.seed,
        limit: closed.end,
        until_batch: u64::MAX,
    };
    let start = Place::first(&closed.log.header, SegmentHeader::crc(&bytes));
    let (mut chain, mut digests) = (Chain::behind(&chain_before), BatchDigests::default());
    let walked = frames.walk(start, |_, view| {
        chain.add(&digests.one(view)?);
        Ok(())
    });
    let damaged = |offset, kind| SealError::Damage(damage_at(path, offset, kind, None));
    let (behind, wrong) = walked.map_err(|kind| damaged(FRAMES_START, kind))?;
    let complete = (behind.batch, behind.position, behind.crc)
        == (closed.next_batch, closed.next_position, closed.last_crc);
    if wrong.is_some() || !complete {
        return Err(damaged(behind.offset, wrong.unwrap_or(DamageKind::Missing)));
    }
    Ok(chain.finish())
}

fn write_index(core: &Core, closed: &Closed, seal: &Seal) -> Result<(), IoFailure> {
    let of = IndexOf {
        ordinal: seal.ordinal,
        salt: seal.salt,
        first_position: seal.first_position,
        last_crc: seal.last_crc,
    };
    let path = core.dir.join(index_name(seal.ordinal));
    core.disk
        .write_new(&path, &closed.index.encode(of))
        .and_then(|()| core.disk.sync_dir(&core.dir))
        .map_err(|error| IoFailure::new("write", path, error))
}

/// The seal goes into the block behind the last frame; the space behind it is given back.
fn write_seal(core: &Core, closed: &Closed, seal: &Seal) -> Result<(), IoFailure> {
    let at = align_up(seal.end, BLOCK_BYTES);
    let block = Piece::copied(&seal.encode(core.store));
    closed
        .log
        .file
        .write_durable(at, &[IoSlice::new(block.as_ref())])
        .and_then(|()| closed.log.file.punch_from(at + BLOCK_BYTES as u64))
        .map_err(|error| IoFailure::new("seal", &closed.log.path, error))
}
