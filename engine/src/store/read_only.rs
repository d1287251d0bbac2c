//! Opening for reading alone, beside a writer in another process or without one. Changes no byte.

use super::core::{Active, Closed, Core, LOCK_NAME, MANIFEST_NAME, MARK_NAME, Segments, State};
use super::cursors::{self, Cursors};
use super::examine::{self, Last, Look, read_manifest, read_mark};
use super::gate::{Bell, Gate};
use super::keeper::Spare;
use super::sealed::SealedSegments;
use super::side::Side;
use super::snapshots::SNAPSHOTS;
use super::subscriptions::Subscriptions;
use crate::clock::Clock;
use crate::disk::maps::Advice;
use crate::disk::{Access, Disk};
use crate::format::segment::FRAMES_START;
use crate::format::{BLOCK_BYTES, align_down, align_up, mark, to_usize};
use crate::index::heads::Heads;
use crate::index::memory::MemoryIndex;
use crate::log::damage_at;
use crate::log::repair::Outcome;
use crate::log::scan::{Frames, Place};
use crate::log::segment_name;
use crate::log::unsealed::Unsealed;
use crate::log::watermark::Watermark;
use annals_types::{Damage, DamageKind, IoFailure, OpenError, ReadError, Settings};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a reader beside a writer goes by: where its own scan of the log is.
#[derive(Debug)]
pub(crate) struct Follower {
    place: Mutex<Option<Place>>,
    /// The first batch that the writer did not say to be durable, when it was looked last.
    said_durable: AtomicU64,
    /// What was found to be wrong when the store was opened.
    pub(crate) damage: Vec<Damage>,
    /// Bytes behind the last good frame that were never acknowledged.
    pub(crate) torn_tail_bytes: u64,
}

/// How often a look at files that a living writer changed meanwhile begins again.
const LOOKS_MAX: usize = 50;

/// Opens the store in `dir`, which must exist. What looks like damage while a writer goes on is looked at again: its
/// files were read at different moments.
pub(crate) fn open(
    dir: &Path,
    disk: &Arc<dyn Disk>,
    settings: &Settings,
    clock: &Clock,
) -> Result<(Arc<Core>, Follower), OpenError> {
    let moment = || {
        let files = [LOCK_NAME, MANIFEST_NAME, MARK_NAME].map(|name| disk.read(&dir.join(name)).ok());
        (files, disk.lock_holder(&dir.join(LOCK_NAME)).ok().flatten())
    };
    let mut before = moment();
    for _ in 0..LOOKS_MAX {
        let opened = open_once(dir, Arc::clone(disk), settings.clone(), clock.clone());
        let doubtful = match &opened {
            Ok((_, follower)) => !follower.damage.is_empty(),
            Err(error) => matches!(error, OpenError::Damage(_)),
        };
        let now = moment();
        if !doubtful || now == before {
            return opened;
        }
        before = now;
    }
    open_once(dir, Arc::clone(disk), settings.clone(), clock.clone())
}

/// Opens the store as its files are now.
fn open_once(
    dir: &Path,
    disk: Arc<dyn Disk>,
    settings: Settings,
    clock: Clock,
) -> Result<(Arc<Core>, Follower), OpenError> {
    let no_store = || OpenError::NoStore { path: dir.to_owned() };
    match disk.list(dir) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(no_store());
        }
        Err(error) => return Err(IoFailure::new("list", dir, error).into()),
    }
    super::open::refuse_other_directory(disk.as_ref(), dir)?;
    let writer =
        disk.lock_holder(&dir.join(LOCK_NAME)).map_err(|error| IoFailure::new("look at", dir, error))?;
    // The manifest before the mark: a newer mark than manifest is caught up with, the other way round is not.
    let Some(manifest) = read_manifest(disk.as_ref(), dir)? else {
        return if has_creation_marks(disk.as_ref(), dir) {
            let manifest = crate::format::manifest::Manifest {
                store: annals_types::Uuid::nil(),
                edition: 0,
                epoch: 0,
                last_made: 0,
                sealed: Vec::new(),
                cursors: BTreeMap::new(),
            };
            Ok((Arc::new(core_of(dir, disk, settings, clock, manifest)), follower(None, Vec::new(), 0)))
        } else {
            Err(no_store())
        };
    };
    let mark = read_mark(disk.as_ref(), dir, manifest.store)?;
    let until_batch = match (writer, mark) {
        (Some(_), mark) => mark.map_or(0, |mark| mark.watermark),
        (None, _) => u64::MAX,
    };
    let look =
        Look { disk: disk.as_ref(), dir, manifest: &manifest, mark, access: Access::Read, until_batch };
    let mut examined = look.examine()?;
    let mut last = examined.last.take();
    let mut torn_tail_bytes = 0;
    if let Some(last) = &mut last {
        if writer.is_none() {
            show_what_is_proved(last, examined.witnessed)?;
        }
        if last.outcome == Outcome::EndsTorn && writer.is_none() {
            torn_tail_bytes = last.used_end - last.place.offset;
        }
    }
    let core = core_of(dir, disk, settings, clock, manifest);
    let place = last.as_ref().map(|last| last.place);
    {
        let mut state = core.state.lock();
        let seal =
            core.manifest.lock().sealed.last().map_or((0, 0), |seal| (seal.next_batch, seal.next_position));
        let (mut batch, mut position) = place.map_or(seal, |place| (place.batch, place.position));
        if let Some(closed) = examined.closed.last()
            && place.is_none()
        {
            (batch, position) = (closed.next_batch, closed.next_position);
        }
        if !examined.damage.is_empty() {
            // Positions that are known to have been given are not silently absent: reading them is an error.
            batch = batch.max(examined.witnessed);
            position = position.max(examined.witnessed_position);
        }
        state.segments.sealed = Arc::new(examined.sealed);
        state.segments.closed = examined.closed.into();
        state.segments.active = last.map(|last| Active { log: last.log, index: last.index });
        state.segments.holes.clone_from(&examined.damage);
        state.next_batch = batch;
        state.next_position = position;
        core.watermark.raise(batch, position);
        cursors::know_durable(&mut state, &core.manifest.lock());
    }
    Ok((Arc::new(core), follower(place, examined.damage, torn_tail_bytes)))
}

fn follower(place: Option<Place>, damage: Vec<Damage>, torn_tail_bytes: u64) -> Follower {
    Follower { place: Mutex::new(place), said_durable: AtomicU64::new(0), damage, torn_tail_bytes }
}

fn has_creation_marks(disk: &dyn Disk, dir: &Path) -> bool {
    disk.list(dir).is_ok_and(|names| names.iter().any(|name| name == LOCK_NAME))
}

fn core_of(
    dir: &Path,
    disk: Arc<dyn Disk>,
    settings: Settings,
    clock: Clock,
    manifest: crate::format::manifest::Manifest,
) -> Core {
    let heads = Heads::new(0, Some(u64::MAX));
    let segments = Segments {
        sealed: Arc::default(),
        closed: std::collections::VecDeque::new(),
        active: None,
        holes: Vec::new(),
    };
    let state = State {
        segments,
        heads,
        cursors: Cursors::default(),
        next_batch: 0,
        next_position: 0,
        last_time: 0,
        promised: 0,
        tail: None,
        spare: Spare::default(),
        spare_index: None,
        recent_ids: Default::default(),
        seal_failures: 0,
        seal_failure: None,
    };
    Core {
        dir: dir.to_owned(),
        disk,
        clock,
        settings,
        store: manifest.store,
        epoch: manifest.epoch,
        state: Gate::new(state),
        whereabouts: Default::default(),
        room: Bell::default(),
        work: Bell::default(),
        watermark: Watermark::new(0, 0),
        fills: crate::log::group::Fills::default(),
        alarm: crate::log::writer::Alarm::default(),
        marker: None,
        manifest: Mutex::new(manifest),
        begun: AtomicU64::new(0),
        durable_total: AtomicU64::new(0),
        closing: AtomicBool::new(false),
        ids_wanted: Default::default(),
        room_awaited: AtomicBool::new(false),
        follower: std::sync::OnceLock::new(),
        lock: Mutex::new(None),
        pulse: Arc::default(),
        snapshots: Side::new(SNAPSHOTS),
        subscriptions: Subscriptions::new(),
    }
}

/// Without a writer, what is beyond the evidence is shown only if it is on the device for sure.
fn show_what_is_proved(last: &mut Last, witnessed: u64) -> Result<(), IoFailure> {
    if last.outcome == Outcome::GoesOn || last.place.batch <= witnessed {
        return Ok(());
    }
    let end = align_up(last.place.offset, BLOCK_BYTES);
    let accepted = last.bytes.slice(to_usize(FRAMES_START)..to_usize(end));
    let on_device = last.log.file.sync().is_ok() && {
        let mut device = vec![0; accepted.len()];
        let count = last
            .log
            .file
            .read_device_at(&mut device, align_down(FRAMES_START, BLOCK_BYTES))
            .map_err(|error| IoFailure::new("read", &last.log.path, error))?;
        count == device.len() && device == accepted
    };
    if !on_device {
        // Show what is proved alone.
        let store = last.store;
        let mut index = MemoryIndex::new(store, last.log.header.first_position);
        let frames = Frames {
            bytes: &last.bytes,
            store,
            seed: last.log.seed,
            limit: last.place.offset,
            until_batch: witnessed,
        };
        last.place = examine::scan(&frames, &mut index, last.start);
        last.index = index;
    }
    Ok(())
}

/// Catches up with the writer, where there is one in another process. Nothing to do for the writer itself.
pub(crate) fn refresh(core: &Core) -> Result<(), ReadError> {
    let Some(follower) = core.follower.get() else { return Ok(()) };
    if core.store.is_nil() {
        return refuse_created_since(core);
    }
    let mut bytes = [0; mark::MARK_BYTES];
    let opened = core.disk.open(&core.dir.join(MARK_NAME), Access::Read);
    match opened.and_then(|file| file.read_at(&mut bytes, 0)) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(IoFailure::new("read", core.dir.join(MARK_NAME), error).into()),
    };
    // A slot that is being written is passed over for the other.
    let Some(mark) = mark::decode(&bytes, core.store) else { return Ok(()) };
    if mark.watermark <= core.watermark.batch() {
        return Ok(());
    }
    let mut place = follower.place.lock();
    follower.said_durable.store(mark.watermark, Ordering::Relaxed);
    catch_up(core, &mut place, mark.watermark)
}

/// Where this reader stopped, if what the writer says to be durable could not all be read.
pub(crate) fn stopped_at(core: &Core) -> Option<Damage> {
    let follower = core.follower.get()?;
    // Nobody is on the way there while this is held.
    let place = follower.place.lock();
    if follower.said_durable.load(Ordering::Relaxed) <= core.watermark.batch() {
        return None;
    }
    let offset = place.map_or(0, |place| place.offset);
    let state = core.state.lock();
    let path = state.segments.active.as_ref().map_or(core.dir.as_path(), |active| &active.log.path);
    Some(damage_at(path, offset, DamageKind::Checksum, None))
}

/// A store that was being created when this reader opened it has no identity here; once it has one, it is to be opened
/// anew.
fn refuse_created_since(core: &Core) -> Result<(), ReadError> {
    match read_manifest(core.disk.as_ref(), &core.dir) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => {
            let created = std::io::Error::other("it was created after it had been opened; open it again");
            Err(IoFailure::new("follow", &core.dir, created).into())
        }
        Err(error) => Err(as_read_error(error)),
    }
}

/// Scans on until `until_batch`, over as many segments as it takes.
fn catch_up(core: &Core, place: &mut Option<Place>, until_batch: u64) -> Result<(), ReadError> {
    loop {
        if let Some(at) = place.as_mut() {
            scan_active(core, at, until_batch)?;
            core.watermark.raise(at.batch, at.position);
            if at.batch >= until_batch {
                return Ok(());
            }
        }
        if !enter_next(core, place)? {
            return Ok(());
        }
    }
}

/// Scans the rest of the active segment, as far as it is durable.
fn scan_active(core: &Core, at: &mut Place, until_batch: u64) -> Result<(), ReadError> {
    let mut state = core.state.lock();
    let Some(active) = state.segments.active.as_mut() else { return Ok(()) };
    let log = Arc::clone(&active.log);
    let bytes = log.file.map(Advice::Scan).map_err(|error| IoFailure::new("map", &log.path, error))?;
    let frames =
        Frames { bytes: &bytes, store: core.store, seed: log.seed, limit: log.frames_limit(), until_batch };
    *at = examine::scan(&frames, &mut active.index, *at);
    log.set_durable_end(at.offset);
    state.next_batch = at.batch;
    state.next_position = at.position;
    state.last_time = at.time;
    cursors::know_active(&mut state);
    Ok(())
}

/// Goes on to the next segment, if it was begun; and takes over what was sealed meanwhile.
fn enter_next(core: &Core, place: &mut Option<Place>) -> Result<bool, ReadError> {
    let ordinal = {
        let state = core.state.lock();
        state
            .segments
            .active
            .as_ref()
            .map_or(state.segments.sealed.len() as u64, |active| active.log.header.ordinal)
            + 1
    };
    let found = examine::find(core.disk.as_ref(), &core.dir, core.store, ordinal, Access::Read)
        .map_err(as_read_error)?;
    let Some((header, start, file)) = found.begun() else { return Ok(false) };
    let path = core.dir.join(segment_name(ordinal));
    let mut state = core.state.lock();
    if let (Some(active), Some(at)) = (state.segments.active.take(), *place) {
        if header.first_batch > at.batch {
            // The writer went on behind frames that this reader finds damaged. They may hold cursors alone.
            let positions =
                (header.first_position > at.position).then(|| (at.position, header.first_position - 1));
            let damage = damage_at(&active.log.path, at.offset, DamageKind::Checksum, positions);
            state.segments.holes.push(damage);
        }
        state.segments.closed.push_back(Arc::new(Closed {
            log: active.log,
            index: active.index,
            end: header.predecessor_end,
            last_crc: header.predecessor_crc,
            next_batch: at.batch,
            next_position: at.position,
            greatest_time: at.time,
        }));
    }
    let index = MemoryIndex::new(core.store, header.first_position);
    let log = Arc::new(Unsealed::new(header, path, file, FRAMES_START));
    state.segments.active = Some(Active { log, index });
    *place = Some(start);
    drop(state);
    take_over_sealed(core).map_err(as_read_error)?;
    Ok(true)
}

/// Replaces closed segments by sealed ones, as far as the manifest has them now.
fn take_over_sealed(core: &Core) -> Result<(), OpenError> {
    let Some(manifest) = read_manifest(core.disk.as_ref(), &core.dir)? else { return Ok(()) };
    let mut state = core.state.lock();
    let known = state.segments.sealed.len();
    let mut sealed = SealedSegments::clone(&state.segments.sealed);
    for seal in manifest.sealed.get(known..).unwrap_or_default() {
        let closed =
            state.segments.closed.front().is_some_and(|closed| closed.log.header.ordinal == seal.ordinal);
        if !closed {
            break;
        }
        state.segments.closed.pop_front();
        sealed.push(&core.dir, core.store, *seal);
    }
    state.segments.sealed = Arc::new(sealed);
    *core.manifest.lock() = manifest;
    Ok(())
}

fn as_read_error(error: OpenError) -> ReadError {
    match error {
        OpenError::Damage(damage) => damage.into(),
        OpenError::Io(failure) => failure.into(),
        other => IoFailure::new("follow", "", std::io::Error::other(other.to_string())).into(),
    }
}
