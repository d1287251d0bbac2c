//! What an open store consists of, and who may touch what.

use super::cursors::Cursors;
use super::gate::{Bell, Gate};
use super::keeper::Spare;
use super::pulse::Pulse;
use super::read_only::Follower;
use super::sealed::SealedSegments;
use super::side::Side;
use super::subscriptions::Subscriptions;
use crate::clock::{Clock, stopwatch};
use crate::disk::{Disk, Lock, Pipelining, is_memory_short};
use crate::format::key::hash_name;
use crate::format::manifest::Manifest;
use crate::format::mark::Mark;
use crate::index::heads::Heads;
use crate::index::memory::MemoryIndex;
use crate::index::recent::RecentIds;
use crate::index::slots;
use crate::index::whereabouts::Whereabouts;
use crate::log::group::{Fills, Group};
use crate::log::mark::Marker;
use crate::log::tail::{Tail, WriterPhase};
use crate::log::unsealed::Unsealed;
use crate::log::watermark::Watermark;
use crate::log::writer::{Alarm, Feed};
use annals_types::{Damage, IoFailure, Settings, Uuid};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// The manifest's file name.
pub(crate) const MANIFEST_NAME: &str = "manifest";
/// What a new manifest is called until it is complete.
pub(crate) const MANIFEST_TEMPORARY_NAME: &str = "manifest.tmp";
/// The mark's file name.
pub(crate) const MARK_NAME: &str = "mark";
/// The lock's file name.
pub(crate) const LOCK_NAME: &str = "lock";

/// A segment whose end is known and that waits to be sealed.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) log: Arc<Unsealed>,
    pub(crate) index: MemoryIndex,
    pub(crate) end: u64,
    pub(crate) last_crc: u32,
    pub(crate) next_batch: u64,
    pub(crate) next_position: u64,
    pub(crate) greatest_time: u64,
}

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) log: Arc<Unsealed>,
    pub(crate) index: MemoryIndex,
}

/// All segments, oldest first: the sealed, the closed, the active one.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(crate) sealed: Arc<SealedSegments>,
    pub(crate) closed: VecDeque<Arc<Closed>>,
    pub(crate) active: Option<Active>,
    /// What of the unsealed segments could not be read: events there are missing from their indexes. Only a store
    /// that is open for reading alone has any.
    pub(crate) holes: Vec<Damage>,
}

impl Segments {
    /// The indexes of what is not sealed, newest first.
    pub(crate) fn unsealed(&self) -> impl Iterator<Item = &MemoryIndex> {
        let closed = self.closed.iter().rev().map(|closed| &closed.index);
        self.active.iter().map(|active| &active.index).chain(closed)
    }

    /// The first position that is not in a sealed segment.
    pub(crate) fn unsealed_from(&self) -> u64 {
        self.sealed.last().map_or(0, |segment| segment.log.seal.next_position)
    }

    /// Gives up the right to write: another writer may open the store now.
    pub(crate) fn release_files(&self) {
        self.closed.iter().for_each(|closed| closed.log.file.release());
        self.active.iter().for_each(|active| active.log.file.release());
    }
}

/// What is decided under one lock: the order.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) segments: Segments,
    /// Used by a store that is open for writing alone.
    pub(crate) heads: Heads,
    pub(crate) cursors: Cursors,
    pub(crate) recent_ids: RecentIds,
    pub(crate) next_batch: u64,
    pub(crate) next_position: u64,
    pub(crate) last_time: u64,
    /// Bytes of frames that will find room, whatever else is appended before them.
    pub(crate) promised: u64,
    /// Only a store that is open for writing has one.
    pub(crate) tail: Option<Tail>,
    pub(crate) spare: Spare,
    /// The memory of a sealed segment's index, for that of the next segment: taking it anew costs appends page faults.
    pub(crate) spare_index: Option<MemoryIndex>,
    /// How often a closed segment could not be sealed, and why the last time.
    pub(crate) seal_failures: u64,
    pub(crate) seal_failure: Option<IoFailure>,
}

impl State {
    /// Makes room for so many more remembered heads.
    pub(crate) fn make_room_for_heads(&mut self, count: usize) {
        let unsealed = self.segments.unsealed().map(MemoryIndex::stream_count).sum();
        self.heads.make_room(count, self.segments.unsealed_from(), unsealed);
    }
}

/// An open store. Apart from its reference count, in a cache line of its own: each ticket changes that.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Core {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) store: Uuid,
    pub(crate) epoch: u64,
    pub(crate) state: Gate<State>,
    /// What judging and assigning will look at.
    pub(crate) whereabouts: [Whereabouts; 4],
    /// Rung when room was made: a spare is ready, a segment was sealed, or that failed.
    pub(crate) room: Bell,
    /// Rung when the keepers have something to do.
    pub(crate) work: Bell,
    pub(crate) watermark: Watermark,
    pub(crate) fills: Fills,
    pub(crate) alarm: Alarm,
    pub(crate) marker: Option<Marker>,
    /// The manifest as it is on disk; held while a new one is written.
    pub(crate) manifest: Mutex<Manifest>,
    /// The last segment whose header is durable: all before it may be sealed.
    pub(crate) begun: AtomicU64,
    /// Bytes reserved since opening that are durable.
    pub(crate) durable_total: AtomicU64,
    pub(crate) closing: AtomicBool,
    /// Whether anybody has appended events with ids of their own, and segments had to be searched for them.
    pub(crate) ids_wanted: AtomicBool,
    /// Whether appends wait for the next segment: it is then made as fast as possible.
    pub(crate) room_awaited: AtomicBool,
    /// Only a store that is open for reading alone has one.
    pub(crate) follower: OnceLock<Follower>,
    pub(crate) lock: Mutex<Option<Box<dyn Lock>>>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) snapshots: Side,
    pub(crate) subscriptions: Subscriptions,
}

impl Core {
    pub(crate) fn hash(&self, stream: &str) -> u64 {
        hash_name(self.store, stream)
    }

    /// Asks for the memory that finding this stream under the lock will touch first.
    pub(crate) fn fetch_slots(&self, hash: u64) {
        self.whereabouts[..2].iter().for_each(|place| place.fetch(slots::half(hash)));
    }

    /// Asks for the memory that finding or noting an id will touch first.
    pub(crate) fn fetch_id(&self, hash: u64) {
        self.whereabouts[3].fetch(slots::half(hash));
    }

    /// Asks for the memory that finding the list of this key under the lock will touch first.
    pub(crate) fn fetch_key(&self, hash: u64) {
        self.whereabouts[2].fetch(slots::half(hash));
    }

    /// Ends appending for good, and wakes all who wait for anything.
    pub(crate) fn poison(&self, reason: &str) {
        self.watermark.poison_with(reason);
        Feed::poisoned(self);
        self.alarm.ring();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Replaces the manifest by what `change` makes of it. On failure the old one stays, on disk and here.
    pub(crate) fn change_manifest(&self, change: impl FnOnce(&mut Manifest)) -> Result<(), IoFailure> {
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        change(&mut next);
        next.edition += 1;
        write_manifest(self.disk.as_ref(), &self.dir, &next)?;
        *manifest = next;
        Ok(())
    }

    /// Notes where the durable end is, in the log and in the order of batches and events.
    fn mark(&self, (segment, offset): (u64, u64), (batch, position): (u64, u64), clean: bool) {
        if let Some(marker) = &self.marker {
            marker.store(Mark {
                sequence: 0,
                epoch: self.epoch,
                watermark: batch,
                position,
                segment,
                offset,
                clean,
            });
        }
    }

    /// Notes, durably, where the durable end is now, and whether the store was closed cleanly there.
    pub(crate) fn mark_durably(&self, segment: u64, offset: u64, clean: bool) -> Result<(), IoFailure> {
        self.mark((segment, offset), (self.watermark.batch(), self.watermark.position()), clean);
        self.sync_mark()
    }

    pub(crate) fn sync_mark(&self) -> Result<(), IoFailure> {
        let failed = |error| IoFailure::new("sync", self.dir.join(MARK_NAME), error);
        self.marker.as_ref().map_or(Ok(()), |marker| marker.sync().map_err(failed))
    }
}

/// Ends appending when the thread panics meanwhile: what is half done is then never built on, and nobody waits for it.
/// Made before the lock is taken, so that it is given back by then.
pub(crate) struct PoisonOnPanic<'a> {
    core: &'a Core,
    /// The thread was panicking before, for a reason of its own.
    panicking: bool,
}

impl<'a> PoisonOnPanic<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core, panicking: std::thread::panicking() }
    }
}

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.panicking {
            self.core.poison("a thread panicked in the store");
        }
    }
}

/// Replaces the manifest: written beside, synced, renamed, the directory synced.
pub(crate) fn write_manifest(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> Result<(), IoFailure> {
    let (temporary, path) = (dir.join(MANIFEST_TEMPORARY_NAME), dir.join(MANIFEST_NAME));
    disk.write_new(&temporary, &manifest.encode())
        .and_then(|()| disk.rename(&temporary, &path))
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|error| IoFailure::new("replace", path, error))
}

/// Whether there was no room.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

impl Feed for Core {
    fn take(&self, in_flight: usize, pipelining: Pipelining) -> Option<Group> {
        let mut state = self.state.lock();
        let tail = state.tail.as_mut().expect("only a store open for writing has a writer");
        let group = tail.take(in_flight, pipelining);
        tail.phase = match (&group, in_flight) {
            (Some(_), _) => WriterPhase::Running,
            (None, 0) => WriterPhase::Idle,
            (None, _) => WriterPhase::InFlight,
        };
        group
    }

    fn moment(&self) -> Instant {
        stopwatch()
    }

    fn is_closing(&self) -> bool {
        Core::is_closing(self) && self.state.lock().tail.as_ref().is_none_or(Tail::is_empty)
    }

    fn reached(&self, group: &Group) {
        self.durable_total.store(group.reserved_total, Ordering::Release);
        // Before anybody is told: who hears of an append finds it from another process, too.
        let reached = (group.next_batch, group.next_position);
        self.mark((group.segment.header.ordinal, group.end), reached, false);
    }

    fn begun(&self, segment: &Arc<Unsealed>) {
        self.begun.store(segment.header.ordinal, Ordering::Release);
        let _state = self.state.lock();
        self.work.ring();
    }

    fn durable(&self, group: &Group) {
        let kept = if is_memory_short() { 0 } else { self.settings.recent_bytes };
        group.segment.image().trim(group.end.saturating_sub(kept));
    }

    fn poisoned(&self) {
        // Whoever waits for room must not wait for ever.
        let _state = self.state.lock();
        self.room.ring();
        self.work.ring();
    }
}
