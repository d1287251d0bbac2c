//! Looking at a store's files: what is sealed, what is not, where it ends, and what proves that more was
//! acknowledged. Changes nothing.

use super::core::{Closed, MANIFEST_NAME, MARK_NAME};
use super::rebuild;
use super::sealed::SealedSegments;
use crate::disk::maps::Advice;
use crate::disk::{Access, Disk, File};
use crate::format::BLOCK_BYTES;
use crate::format::FORMAT_VERSION;
use crate::format::frame::FrameSeed;
use crate::format::manifest::Manifest;
use crate::format::mark::{self, Mark};
use crate::format::prelude::Refusal;
use crate::format::segment::SegmentHeader;
use crate::index::memory::MemoryIndex;
use crate::log::repair::{self, Evidence, HeaderState, MarkState, Outcome, Remainder, Role};
use crate::log::scan::{Frames, Place};
use crate::log::unsealed::Unsealed;
use crate::log::{damage_at, ordinal_in, segment_name};
use annals_types::{Damage, DamageKind, IoFailure, OpenError, Position};
use bytes::Bytes;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// What refused a header, as an error of opening.
pub(crate) fn refused(path: &Path, refusal: Refusal, expected: annals_types::Uuid) -> OpenError {
    let file = path.to_owned();
    match refusal {
        Refusal::Damaged(kind) => damage_at(path, 0, kind, None).into(),
        Refusal::Newer { found } => OpenError::NewerFormat { file, found, supported: FORMAT_VERSION },
        Refusal::UnknownFeatures { features } => OpenError::UnknownFeatures { file, features },
        Refusal::Foreign { found } => OpenError::Foreign { file, found, expected },
    }
}

/// Reads the manifest; `None`: there is none, and nothing that would need one.
pub(crate) fn read_manifest(disk: &dyn Disk, dir: &Path) -> Result<Option<Manifest>, OpenError> {
    let path = dir.join(MANIFEST_NAME);
    match disk.read(&path) {
        Ok(bytes) => {
            let manifest = Manifest::decode(&bytes)
                .map_err(|refusal| refused(&path, refusal, annals_types::Uuid::nil()))?;
            Ok(Some(manifest))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let names = disk.list(dir).map_err(|error| IoFailure::new("list", dir, error))?;
            if names.iter().any(|name| ordinal_in(name).is_some()) {
                return Err(damage_at(&path, 0, DamageKind::Missing, None).into());
            }
            Ok(None)
        }
        Err(error) => Err(IoFailure::new("read", path, error).into()),
    }
}

/// Reads the mark; `None`: it is missing or neither of its slots is intact. It proves things, and its absence
/// proves nothing.
pub(crate) fn read_mark(
    disk: &dyn Disk,
    dir: &Path,
    store: annals_types::Uuid,
) -> Result<Option<Mark>, OpenError> {
    let path = dir.join(MARK_NAME);
    match disk.read(&path) {
        Ok(bytes) => match mark::refusal(&bytes, store) {
            // Damage of its header says nothing of its slots; they have checksums of their own.
            None | Some(Refusal::Damaged(_)) => Ok(mark::decode(&bytes, store)),
            Some(refusal) => Err(refused(&path, refusal, store)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(IoFailure::new("read", path, error).into()),
    }
}

/// A segment that is not sealed, as found.
#[derive(Debug)]
pub(crate) struct Found {
    state: HeaderState,
    header: Option<SegmentHeader>,
    header_crc: u32,
    pub(crate) bytes: Bytes,
    file: Option<Arc<dyn File>>,
}

/// Looks at one segment's file.
pub(crate) fn find(
    disk: &dyn Disk,
    dir: &Path,
    store: annals_types::Uuid,
    ordinal: u64,
    access: Access,
) -> Result<Found, OpenError> {
    let path = dir.join(segment_name(ordinal));
    let file = match disk.open(&path, access) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let state = HeaderState::NoFile;
            return Ok(Found { state, header: None, header_crc: 0, bytes: Bytes::new(), file: None });
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(OpenError::InUse { path: dir.to_owned(), holder: None });
        }
        other => other.map_err(|error| IoFailure::new("open", &path, error))?,
    };
    let bytes = file.map(Advice::Scan).map_err(|error| IoFailure::new("map", &path, error))?;
    let block = &bytes[..bytes.len().min(BLOCK_BYTES)];
    let (state, header) = match SegmentHeader::decode(block, ordinal, store) {
        Ok(header) => (HeaderState::Good, Some(header)),
        Err(Refusal::Damaged(_)) if block.iter().all(|&byte| byte == 0) => (HeaderState::Zero, None),
        Err(Refusal::Damaged(_)) => {
            let frames_behind = bytes[block.len()..].iter().any(|&byte| byte != 0);
            (HeaderState::Bad { frames_behind }, None)
        }
        Err(refusal) => return Err(refused(&path, refusal, store)),
    };
    let header_crc = if header.is_some() { SegmentHeader::crc(block) } else { 0 };
    Ok(Found { state, header, header_crc, bytes, file: Some(file) })
}

impl Found {
    /// The header, the place of the first frame and the file, if the segment was begun.
    pub(crate) fn begun(self) -> Option<(SegmentHeader, Place, Arc<dyn File>)> {
        let header = self.header?;
        Some((header, Place::first(&header, self.header_crc), self.file?))
    }
}

/// The last segment that was begun.
#[derive(Debug)]
pub(crate) struct Last {
    pub(crate) store: annals_types::Uuid,
    /// Before its first frame.
    pub(crate) start: Place,
    pub(crate) log: Arc<Unsealed>,
    pub(crate) index: MemoryIndex,
    pub(crate) bytes: Bytes,
    pub(crate) place: Place,
    pub(crate) outcome: Outcome,
    /// Behind the last byte that is not zero.
    pub(crate) used_end: u64,
}

/// What a store consists of.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) sealed: SealedSegments,
    pub(crate) closed: Vec<Arc<Closed>>,
    pub(crate) last: Option<Last>,
    /// First batch that is not proved to have been acknowledged, and the position that the mark says of it.
    pub(crate) witnessed: u64,
    pub(crate) witnessed_position: u64,
    /// Everything found to be wrong in what is not sealed.
    pub(crate) damage: Vec<Damage>,
}

/// What opening goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) dir: &'a Path,
    pub(crate) manifest: &'a Manifest,
    pub(crate) mark: Option<Mark>,
    pub(crate) access: Access,
    /// The first batch not to be looked at: a living writer may still be writing it.
    pub(crate) until_batch: u64,
}

/// What the segments before say of the next.
#[derive(Clone, Copy, Debug)]
struct Before {
    end: u64,
    crc: u32,
    batch: u64,
    position: u64,
}

impl Look<'_> {
    /// Looks at everything that is not sealed.
    pub(crate) fn examine(&self) -> Result<Examined, OpenError> {
        let store = self.manifest.store;
        let sealed = SealedSegments::of(self.dir, store, &self.manifest.sealed);
        let first = sealed.len() as u64 + 1;
        let mut found = Vec::new();
        for ordinal in first..=self.last_of_interest()? {
            found.push(find(self.disk, self.dir, store, ordinal, self.access)?);
        }
        self.refuse_segments_beyond()?;
        let mut examined = Examined {
            witnessed: self.mark.map_or(0, |mark| mark.watermark),
            witnessed_position: self.mark.map_or(0, |mark| mark.position),
            sealed,
            closed: Vec::new(),
            last: None,
            damage: Vec::new(),
        };
        let mut before = match self.manifest.sealed.last() {
            Some(seal) => Before {
                end: seal.end,
                crc: seal.last_crc,
                batch: seal.next_batch,
                position: seal.next_position,
            },
            None => Before { end: 0, crc: 0, batch: 0, position: 0 },
        };
        examined.witnessed = examined.witnessed.max(before.batch);
        let begun =
            found.iter().rposition(|segment| segment.state == HeaderState::Good).map_or(0, |last| last + 1);
        let successors: Vec<Option<SegmentHeader>> =
            (0..found.len()).map(|at| found[at + 1..].iter().find_map(|segment| segment.header)).collect();
        for (at, segment) in found.into_iter().enumerate() {
            let path = self.dir.join(segment_name(first + at as u64));
            if at >= begun {
                self.judge_unbegun(&path, &segment, before, &mut examined);
                continue;
            }
            let Some(header) = segment.header else {
                let outcome = repair::decide(
                    segment.state,
                    Role::Followed { agrees: false },
                    Remainder::Zero,
                    Evidence::AllThere,
                    MarkState::Otherwise,
                );
                note_damage(&mut examined, &path, 0, outcome, before.position, None);
                continue;
            };
            if (header.predecessor_end, header.predecessor_crc, header.first_batch, header.first_position)
                != (before.end, before.crc, before.batch, before.position)
                && examined.damage.is_empty()
            {
                examined.damage.push(damage_at(&path, 0, DamageKind::Misplaced, None));
            }
            // A living writer has begun a further segment, of which nothing is to be looked at yet.
            let successor = successors[at].filter(|next| next.first_batch <= self.until_batch);
            before = self.judge_begun(&path, segment, header, successor, &mut examined);
            if successor.is_none() && successors[at].is_some() {
                break;
            }
        }
        Ok(examined)
    }

    /// The last segment that was made, or the first that is missing behind all that are there: what may be missing behind
    /// that says no more, however many the manifest speaks of.
    fn last_of_interest(&self) -> Result<u64, OpenError> {
        let names = self.disk.list(self.dir).map_err(|error| IoFailure::new("list", self.dir, error))?;
        let last = names.iter().filter_map(|name| ordinal_in(name)).max().unwrap_or(0);
        let last = last.max(self.manifest.sealed.len() as u64);
        Ok(self.manifest.last_made.min(last.saturating_add(1)))
    }

    /// A segment that was begun and that the manifest does not know: the manifest is an old one.
    fn refuse_segments_beyond(&self) -> Result<(), OpenError> {
        let names = self.disk.list(self.dir).map_err(|error| IoFailure::new("list", self.dir, error))?;
        for ordinal in names.iter().filter_map(|name| ordinal_in(name)) {
            if ordinal > self.manifest.last_made && ordinal > self.manifest.sealed.len() as u64 {
                let found = find(self.disk, self.dir, self.manifest.store, ordinal, Access::Read)?;
                let living_writer = self.until_batch != u64::MAX;
                if found.state == HeaderState::Good && !living_writer {
                    return Err(
                        damage_at(&self.dir.join(MANIFEST_NAME), 0, DamageKind::Misplaced, None).into()
                    );
                }
            }
        }
        Ok(())
    }

    /// A file behind the last begun segment: a spare, as long as nothing acknowledged is missing.
    fn judge_unbegun(&self, path: &Path, segment: &Found, before: Before, examined: &mut Examined) {
        let missing = examined.witnessed > before.batch && examined.last.is_none();
        let evidence = if missing { Evidence::SomeMissing } else { Evidence::AllThere };
        let outcome =
            repair::decide(segment.state, Role::Last, Remainder::Zero, evidence, MarkState::Otherwise);
        note_damage(examined, path, 0, outcome, before.position, None);
    }

    /// Scans a begun segment, and adds it to what was found.
    fn judge_begun(
        &self,
        path: &Path,
        segment: Found,
        header: SegmentHeader,
        successor: Option<SegmentHeader>,
        examined: &mut Examined,
    ) -> Before {
        let seed = FrameSeed::new(header.salt);
        let limit = successor.map_or(header.capacity - BLOCK_BYTES as u64, |next| next.predecessor_end);
        let frames = Frames {
            bytes: &segment.bytes,
            store: self.manifest.store,
            seed,
            limit,
            until_batch: self.until_batch,
        };
        let mut index = MemoryIndex::new(self.manifest.store, header.first_position);
        let start = Place::first(&header, segment.header_crc);
        let place = scan(&frames, &mut index, start);
        let witnessed_here = if successor.is_some() { 0 } else { frames.witnessed(place.offset) };
        examined.witnessed =
            examined.witnessed.max(witnessed_here).max(successor.map_or(0, |next| next.first_batch));
        let used_end = frames.used_end(place.offset);
        let outcome = self.judge(&segment, &place, successor, used_end, examined);
        let mut place = place;
        if let Outcome::Damaged(_) = outcome {
            let last = match successor {
                Some(next) => next.first_position.checked_sub(1),
                None => examined.witnessed_position.checked_sub(1),
            };
            note_damage(
                examined,
                path,
                place.offset,
                outcome,
                place.position,
                last.filter(|&last| last >= place.position),
            );
            place = scan_over_damage(&frames, &mut index, place);
        }
        let file = segment.file.expect("a segment with a header has a file");
        let log = Arc::new(Unsealed::new(header, path.to_owned(), file, place.offset));
        match successor {
            Some(next) => {
                let before = Before {
                    end: next.predecessor_end,
                    crc: next.predecessor_crc,
                    batch: next.first_batch,
                    position: next.first_position,
                };
                examined.closed.push(Arc::new(Closed {
                    log,
                    index,
                    end: next.predecessor_end,
                    last_crc: next.predecessor_crc,
                    next_batch: next.first_batch,
                    next_position: next.first_position,
                    greatest_time: next.previous_time,
                }));
                before
            }
            None => {
                let before = Before {
                    end: place.offset,
                    crc: place.crc,
                    batch: place.batch,
                    position: place.position,
                };
                let store = self.manifest.store;
                examined.last =
                    Some(Last { store, start, log, index, bytes: segment.bytes, place, outcome, used_end });
                before
            }
        }
    }

    fn judge(
        &self,
        segment: &Found,
        place: &Place,
        successor: Option<SegmentHeader>,
        used_end: u64,
        examined: &Examined,
    ) -> Outcome {
        let role = match successor {
            Some(next) => Role::Followed {
                agrees: (place.offset, place.crc, place.batch, place.position)
                    == (next.predecessor_end, next.predecessor_crc, next.first_batch, next.first_position),
            },
            None => Role::Last,
        };
        let remainder = if used_end > place.offset { Remainder::NotZero } else { Remainder::Zero };
        let witnessed = examined.witnessed.min(self.until_batch);
        let evidence = if witnessed > place.batch { Evidence::SomeMissing } else { Evidence::AllThere };
        let ordinal = segment.header.map_or(0, |header| header.ordinal);
        let clean_here = self.mark.is_some_and(|mark| {
            mark.clean
                && mark.epoch == self.manifest.epoch
                && (mark.segment, mark.offset) == (ordinal, place.offset)
                && mark.watermark == place.batch
        });
        let mark = if clean_here { MarkState::CleanHere } else { MarkState::Otherwise };
        repair::decide(segment.state, role, remainder, evidence, mark)
    }
}

fn note_damage(
    examined: &mut Examined,
    path: &Path,
    offset: u64,
    outcome: Outcome,
    first_position: u64,
    last_position: Option<u64>,
) {
    if let Outcome::Damaged(kind) = outcome {
        let mut damage = damage_at(path, offset, kind, None);
        damage.first_position = Some(Position::new(first_position));
        damage.last_position = last_position.map(Position::new);
        examined.damage.push(damage);
    }
}

/// Indexes the good frames from `place` on.
pub(crate) fn scan(frames: &Frames<'_>, index: &mut MemoryIndex, place: Place) -> Place {
    let mut reached = place;
    // A frame whose events cannot be indexed although its checksums are right ends the scan like a bad one.
    let walked = frames.walk(place, |envelope, view| {
        rebuild::add(index, envelope, view)?;
        reached = Place {
            offset: envelope.offset + envelope.frame_bytes(),
            crc: envelope.crc,
            batch: view.header.number + 1,
            position: view.header.next_position(),
            epoch: view.header.epoch,
            time: view.last_time().max(reached.time),
        };
        Ok::<(), DamageKind>(())
    });
    walked.map_or(reached, |(place, _)| place)
}

/// Indexes what is intact behind damage, for reading alone.
fn scan_over_damage(frames: &Frames<'_>, index: &mut MemoryIndex, mut place: Place) -> Place {
    while let Some(next) = frames.resume(place.offset + 8) {
        if next.batch >= frames.until_batch || next.position < place.position {
            break;
        }
        let time = place.time;
        place = scan(frames, index, Place { time, ..next });
    }
    place
}
