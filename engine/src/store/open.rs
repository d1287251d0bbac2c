//! Opening for writing: lock, manifest, evidence, repair, a new epoch.

use super::core::{
    Active, Closed, Core, LOCK_NAME, MANIFEST_NAME, MANIFEST_TEMPORARY_NAME, MARK_NAME, Segments, State,
    write_manifest,
};
use super::cursors::{self, Cursors};
use super::examine::{Examined, Last, Look, read_manifest, read_mark};
use super::gate::{Bell, Gate};
use super::keeper::{ReadySpare, Spare, make_spare};
use super::roll::begin;
use super::side::Side;
use super::snapshots::SNAPSHOTS;
use super::subscriptions::Subscriptions;
use crate::clock::Clock;
use crate::disk::maps::Advice;
use crate::disk::{Access, Disk, Lock, PROBE_PREFIX, Piece};
use crate::format::frame::Envelope;
use crate::format::manifest::Manifest;
use crate::format::mark::{self, Mark};
use crate::format::segment::{FRAMES_START, SegmentHeader};
use crate::format::{BLOCK_BYTES, align_down, align_up, to_usize};
use crate::index::heads::Heads;
use crate::index::memory::MemoryIndex;
use crate::log::damage_at;
use crate::log::mark::Marker;
use crate::log::repair::Outcome;
use crate::log::tail::Tail;
use crate::log::unsealed::Unsealed;
use crate::log::watermark::Watermark;
use annals_types::{DamageKind, IoFailure, OpenError, Settings, Uuid};
use parking_lot::Mutex;
use rand::Rng as _;
use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Names of files that a store's directory may hold before it has a manifest.
const NAMES_BEFORE_MANIFEST: [&str; 2] = [LOCK_NAME, MANIFEST_TEMPORARY_NAME];

/// Refuses a directory that holds other things and no store. Changes nothing.
pub(crate) fn refuse_other_directory(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(IoFailure::new("list", dir, error).into()),
    };
    if names.iter().any(|name| name == MANIFEST_NAME) {
        return Ok(());
    }
    let foreign = |name: &&String| {
        !NAMES_BEFORE_MANIFEST.contains(&name.as_str())
            && !name.starts_with(PROBE_PREFIX)
            && !crate::log::is_of_segments(name)
            && **name != MARK_NAME
    };
    match names.iter().find(foreign) {
        Some(found) => Err(OpenError::NotAStore { path: dir.to_owned(), found: format!("\"{found}\"") }),
        None => Ok(()),
    }
}

/// Opens the store in `dir` for writing; creates it where there is none.
pub(crate) fn open(
    dir: &Path,
    disk: Arc<dyn Disk>,
    settings: Settings,
    clock: Clock,
) -> Result<Arc<Core>, OpenError> {
    disk.create_dirs(dir).map_err(|error| IoFailure::new("create", dir, error))?;
    let lock = take_lock(disk.as_ref(), dir)?;
    let manifest = match read_manifest(disk.as_ref(), dir)? {
        Some(manifest) => manifest,
        None => create(disk.as_ref(), dir)?,
    };
    let mark = read_mark(disk.as_ref(), dir, manifest.store)?;
    let look = Look {
        disk: disk.as_ref(),
        dir,
        manifest: &manifest,
        mark,
        access: Access::Log,
        until_batch: u64::MAX,
    };
    let mut examined = look.examine()?;
    if let Some(damage) = examined.damage.first() {
        return Err(damage.clone().into());
    }
    let last = examined.last.take();
    if let Some(last) = &last {
        make_witnessed(last, examined.witnessed)?;
    }
    let marker = open_mark(disk.as_ref(), dir, manifest.store, mark)?;
    let core = Arc::new(core_of(dir, disk, settings, clock, manifest, examined, last.as_ref(), marker, lock));
    core.change_manifest(|manifest| manifest.epoch = core.epoch)?;
    match last {
        Some(last) if last.outcome == Outcome::GoesOn => go_on(&core, last),
        last => begin_segment(&core, last)?,
    }
    remember_heads(&core);
    {
        let manifest = core.manifest.lock();
        cursors::know_durable(&mut core.state.lock(), &manifest);
    }
    core.mark_opened()?;
    Ok(core)
}

/// Remembers the heads of all streams that have events in unsealed segments: conditions on them are judged by these.
fn remember_heads(core: &Core) {
    let mut state = core.state.lock();
    let State { segments, heads, .. } = &mut *state;
    for index in segments.unsealed() {
        for (hash, number, name) in index.streams() {
            // The newest segment comes first; numbers count only while theirs is the active one.
            if heads.find(hash, name).is_none() {
                heads.insert(hash, name, Some(index.head(number)), Some(number));
            }
        }
    }
}

fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Lock>, OpenError> {
    disk.lock(&dir.join(LOCK_NAME))
        .map_err(|error| IoFailure::new("lock", dir, error))?
        .map_err(|holder| OpenError::InUse { path: dir.to_owned(), holder })
}

/// Writes the manifest of a store without segments: an empty store, which is complete once it is opened.
fn create(disk: &dyn Disk, dir: &Path) -> Result<Manifest, OpenError> {
    sync_ancestors(disk, dir)?;
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    let store = uuid::Builder::from_random_bytes(bytes).into_uuid();
    let manifest =
        Manifest { store, edition: 1, epoch: 0, last_made: 0, sealed: Vec::new(), cursors: BTreeMap::new() };
    write_manifest(disk, dir, &manifest)?;
    Ok(manifest)
}

/// The directory may have been made by an opening that was cut short before it had synced what is above it.
fn sync_ancestors(disk: &dyn Disk, dir: &Path) -> Result<(), IoFailure> {
    let failed = |error| IoFailure::new("sync what is above", dir, error);
    let absolute = std::path::absolute(dir).map_err(failed)?;
    for (distance, ancestor) in absolute.ancestors().skip(1).enumerate() {
        match disk.sync_dir(ancestor) {
            // Directories further up may be closed to this process; then it has not made them either.
            Err(error) if distance == 0 || error.kind() != ErrorKind::PermissionDenied => {
                return Err(failed(error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "an open store has this many parts")]
fn core_of(
    dir: &Path,
    disk: Arc<dyn Disk>,
    settings: Settings,
    clock: Clock,
    manifest: Manifest,
    examined: Examined,
    last: Option<&Last>,
    marker: Marker,
    lock: Box<dyn Lock>,
) -> Core {
    let seal = manifest.sealed.last();
    let (next_batch, next_position, last_time) = match last {
        Some(last) => (last.place.batch, last.place.position, last.place.time),
        None => seal.map_or((0, 0, 0), |seal| (seal.next_batch, seal.next_position, seal.greatest_time)),
    };
    let segments = Segments {
        sealed: Arc::new(examined.sealed),
        closed: examined.closed.into(),
        active: None,
        holes: Vec::new(),
    };
    // What is sealed was not loaded: its last position is the floor.
    let heads = Heads::new(settings.cached_heads, segments.unsealed_from().checked_sub(1));
    let state = State {
        segments,
        heads,
        cursors: Cursors::default(),
        next_batch,
        next_position,
        last_time,
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
        epoch: manifest.epoch + 1,
        state: Gate::new(state),
        whereabouts: Default::default(),
        room: Bell::default(),
        work: Bell::default(),
        watermark: Watermark::new(next_batch, next_position),
        fills: crate::log::group::Fills::default(),
        alarm: crate::log::writer::Alarm::default(),
        marker: Some(marker),
        manifest: Mutex::new(manifest),
        begun: std::sync::atomic::AtomicU64::new(0),
        durable_total: std::sync::atomic::AtomicU64::new(0),
        closing: std::sync::atomic::AtomicBool::new(false),
        ids_wanted: Default::default(),
        room_awaited: std::sync::atomic::AtomicBool::new(false),
        follower: std::sync::OnceLock::new(),
        lock: Mutex::new(Some(lock)),
        pulse: Arc::default(),
        snapshots: Side::new(SNAPSHOTS),
        subscriptions: Subscriptions::new(),
    }
}

/// Maps the mark, made anew where it is missing or spoiled.
fn open_mark(disk: &dyn Disk, dir: &Path, store: Uuid, mark: Option<Mark>) -> Result<Marker, OpenError> {
    let path = dir.join(MARK_NAME);
    let failed = |error| IoFailure::new("map", &path, error);
    let last = mark.unwrap_or_default();
    let whole = disk
        .open(&path, Access::Read)
        .and_then(|file| file.len())
        .is_ok_and(|len| len == mark::MARK_BYTES as u64);
    if mark.is_none() || !whole {
        disk.write_new(&path, &mark::encode_file(store, &last))
            .and_then(|()| disk.sync_dir(dir))
            .map_err(failed)?;
    }
    let file = disk.open(&path, Access::Shared).map_err(failed)?;
    let maps = [file.map_shared().map_err(failed)?, file.map_shared().map_err(failed)?];
    Ok(Marker::new(store, maps, last))
}

/// Makes durable what was accepted without a proof that it is, before anybody sees it: after a kill it may have
/// been in a cache alone. A cleanly closed store has nothing of the kind.
fn make_witnessed(last: &Last, witnessed: u64) -> Result<(), OpenError> {
    // A frame that is proved to be durable proves that its segment's header is; else the header is doubtful, too.
    let header_proved = witnessed > last.log.header.first_batch;
    if last.outcome == Outcome::GoesOn || (header_proved && last.place.batch <= witnessed) {
        return Ok(());
    }
    let start = if header_proved { first_doubtful(last, witnessed) } else { 0 };
    let (start, end) = (align_down(start, BLOCK_BYTES), align_up(last.place.offset, BLOCK_BYTES));
    let accepted = &last.bytes[to_usize(start)..to_usize(end)];
    let failed = |action| move |error| IoFailure::new(action, &last.log.path, error);
    last.log.file.sync().map_err(failed("sync"))?;
    let mut device = vec![0; accepted.len()];
    let count = last.log.file.read_device_at(&mut device, start).map_err(failed("read"))?;
    if count < device.len() || device != accepted {
        return Err(damage_at(&last.log.path, start, DamageKind::Unreadable, None).into());
    }
    let piece = Piece::copied(accepted);
    last.log.file.write_durable(start, &[IoSlice::new(piece.as_ref())]).map_err(failed("write"))?;
    Ok(())
}

/// Where the first frame is that nothing proves to be durable.
fn first_doubtful(last: &Last, witnessed: u64) -> u64 {
    let frames = last.index.frames();
    let number_of = |offset: u64| {
        let frame = &last.bytes[to_usize(offset)..];
        Envelope::decode(frame, offset, last.log.seed)
            .and_then(|envelope| envelope.header(frame))
            .map(|header| header.number)
    };
    let first =
        frames.partition_point(|entry| number_of(entry.offset).is_ok_and(|number| number < witnessed));
    frames.get(first).map_or(last.place.offset, |entry| entry.offset)
}

/// After a clean close: the writer goes on right behind the last frame.
fn go_on(core: &Core, last: Last) {
    let place = last.place;
    let block = align_down(place.offset, BLOCK_BYTES);
    let begun = &last.bytes[to_usize(block)..to_usize(place.offset)];
    let (header, path, file) = (last.log.header, last.log.path.clone(), Arc::clone(&last.log.file));
    let log = Arc::new(Unsealed::continued(header, path, file, place.offset, begun));
    let mut state = core.state.lock();
    core.begun.store(log.header.ordinal, Ordering::Release);
    state.tail = Some(Tail::new(Arc::clone(&log), place.offset, place.crc));
    state.segments.active = Some(Active { log, index: last.index });
}

/// The writer begins a new segment, whose header says where the one before ends: never at or behind a cut.
fn begin_segment(core: &Core, last: Option<Last>) -> Result<(), OpenError> {
    if let Some(last) = &last
        && last.outcome == Outcome::EndsTorn
    {
        set_aside(core, last)?;
    }
    let (ordinal, end, crc, used) = {
        let manifest = core.manifest.lock();
        let seal = manifest.sealed.last();
        match &last {
            Some(last) => (last.log.header.ordinal + 1, last.place.offset, last.place.crc, last.place.offset),
            None => seal.map_or((1, 0, 0, 0), |seal| (seal.ordinal + 1, seal.end, seal.last_crc, seal.end)),
        }
    };
    let spare = take_spare(core, ordinal, used)?;
    let mut state = core.state.lock();
    let header = SegmentHeader {
        ordinal,
        epoch: core.epoch,
        salt: spare.salt,
        first_batch: state.next_batch,
        first_position: state.next_position,
        previous_time: state.last_time,
        predecessor_end: end,
        predecessor_crc: crc,
        capacity: spare.capacity,
    };
    let block = header.encode(core.store);
    let piece = Piece::copied(&block);
    spare
        .file
        .write_durable(0, &[IoSlice::new(piece.as_ref())])
        .map_err(|error| IoFailure::new("begin", &spare.path, error))?;
    core.begun.store(ordinal, Ordering::Release);
    if let Some(last) = last {
        let place = last.place;
        state.segments.closed.push_back(Arc::new(Closed {
            log: last.log,
            index: last.index,
            end: place.offset,
            last_crc: place.crc,
            next_batch: place.batch,
            next_position: place.position,
            greatest_time: place.time,
        }));
    }
    let log = begin(spare, header);
    let index = MemoryIndex::new(core.store, state.next_position);
    state.tail = Some(Tail::new(Arc::clone(&log), FRAMES_START, SegmentHeader::crc(&block)));
    state.segments.active = Some(Active { log, index });
    Ok(())
}

/// The spare that an earlier writer prepared, if it is fit; else a new one.
fn take_spare(core: &Core, ordinal: u64, used: u64) -> Result<ReadySpare, IoFailure> {
    let path = core.dir.join(crate::log::segment_name(ordinal));
    let first = core.settings.segment_bytes_first;
    let wanted = align_up((2 * used).clamp(first, core.settings.segment_bytes_max), BLOCK_BYTES);
    let prepared = core.manifest.lock().last_made >= ordinal;
    if prepared && let Ok(file) = core.disk.open(&path, Access::Log) {
        let bytes = file.map(Advice::Scan).map_err(|error| IoFailure::new("map", &path, error))?;
        let capacity = align_down(bytes.len() as u64, BLOCK_BYTES);
        let enough = capacity >= wanted / 2 && capacity >= 4 * BLOCK_BYTES as u64;
        if enough && bytes.iter().all(|&byte| byte == 0) {
            return Ok(ReadySpare { ordinal, path, file, capacity, salt: rand::rng().next_u64() });
        }
    }
    make_spare(core, ordinal, wanted, true)
}

/// Copies what lies behind the cut, which was never acknowledged, to a file of its own.
fn set_aside(core: &Core, last: &Last) -> Result<(), IoFailure> {
    let start = last.place.offset;
    let name = format!("torn-{:010}-{start}", last.log.header.ordinal);
    let path = core.dir.join(name);
    let torn = &last.bytes[to_usize(start)..to_usize(last.used_end)];
    core.disk
        .write_new(&path, torn)
        .and_then(|()| core.disk.sync_dir(&core.dir))
        .map_err(|error| IoFailure::new("set a torn tail aside in", path, error))
}

impl Core {
    /// Notes, durably, that a new reign has begun and what it began with.
    fn mark_opened(&self) -> Result<(), IoFailure> {
        let (segment, offset) = {
            let state = self.state.lock();
            let tail = state.tail.as_ref().expect("only a store open for writing marks");
            (tail.segment.header.ordinal, tail.frames_end)
        };
        self.mark_durably(segment, offset, false)
    }
}
