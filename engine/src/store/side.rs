//! Side stores: what belongs to the log and is no part of it, in a store of its own inside the store's directory.
//!
//! It is opened when it is first used, so that a store that has none costs nothing more; written by the process that
//! writes the store, and closed with it. What no longer counts is left behind by copying the rest into another, its next
//! generation, which takes its place once it is complete.

use super::Store;
use super::commit::failed_read;
use super::core::{Core, MANIFEST_NAME};
use super::ticket::Ticket;
use crate::clock::stopwatch;
use crate::disk::Access;
use annals_types::{
    AppendError, IoFailure, NewEvent, OpenError, Position, Read, ReadError, Record, Settings,
};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a reader beside a writer believes that nothing has changed.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// Newest bytes that it keeps in memory: what was written is seldom read soon.
const RECENT_BYTES: u64 = 1 << 20;
/// Streams whose heads it remembers.
const CACHED_HEADS: usize = 100_000;
/// What is longer is compressed: below, taking it apart again costs more than it saves.
const COMPRESSED_BYTES_MIN: usize = 4 << 10;
/// The file that says of a generation, but for the first, that all of the one before is in it.
const COMPLETE_NAME: &str = "complete";

/// See the module.
#[derive(Debug)]
pub(crate) struct Side {
    kind: SideKind,
    opened: RwLock<Option<Opened>>,
    /// When there was none, or no other generation, the last time that it was looked.
    looked: Mutex<Option<Instant>>,
    /// Makes the next generation, if one is being made.
    renewing: Mutex<Option<JoinHandle<()>>>,
    /// How large it is, as those say who write to it; since it was opened.
    size: AtomicU64,
    /// How large it is when it is looked next whether that is worth while.
    due_at: AtomicU64,
}

/// What there is to know of a side store in advance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SideKind {
    /// The directory of its first generation; that of others goes on with a number.
    pub(crate) name: &'static str,
    /// If it is smaller, leaving anything behind is not worth while.
    pub(crate) size_min: u64,
    /// Whether it can be done without: then a damaged one is given up, and begins anew.
    pub(crate) is_dispensable: bool,
}

#[derive(Debug)]
struct Opened {
    generation: u64,
    store: Store,
}

impl Opened {
    /// Whether it is this generation, and not one that was being made when it was opened.
    fn is(&self, generation: u64) -> bool {
        self.generation == generation && !self.store.handle.core.store.is_nil()
    }
}

/// Whether no write to it has failed.
fn is_fit(opened: &Opened) -> bool {
    opened.store.handle.core.watermark.poison().is_none()
}

impl Side {
    pub(crate) fn new(kind: SideKind) -> Self {
        Self {
            kind,
            opened: RwLock::default(),
            looked: Mutex::default(),
            renewing: Mutex::default(),
            size: AtomicU64::new(0),
            due_at: AtomicU64::new(0),
        }
    }

    /// The directory of its first generation.
    pub(crate) fn name(&self) -> &'static str {
        self.kind.name
    }

    /// It, to be written to; made where there is none. It stays as it is until the guard is dropped.
    pub(crate) fn writable(&self, core: &Arc<Core>) -> Result<MappedRwLockReadGuard<'_, Store>, AppendError> {
        loop {
            let opened = self.opened.read();
            if let Ok(store) = RwLockReadGuard::try_map(opened, |opened| {
                opened.as_ref().filter(|opened| is_fit(opened)).map(|opened| &opened.store)
            }) {
                return Ok(store);
            }
            let mut opened = self.opened.write();
            super::commit::refuse_if_closed(core)?;
            if opened.as_ref().is_none_or(|opened| !is_fit(opened)) {
                // After a failed write, opening it anew is the cure; the log has nothing to do with it.
                let _ = opened.take().map(|opened| opened.store.close());
                *self.looked.lock() = None;
                let generation = self.find(core).map_err(AppendError::Io)?.unwrap_or(0);
                *opened = Some(self.open_or_begin(core, generation).map_err(as_append_error)?);
            }
        }
    }

    /// It, if there is one.
    pub(crate) fn readable(&self, core: &Arc<Core>) -> Result<Option<Store>, ReadError> {
        let is_writing = core.follower.get().is_none();
        // The one process that could change that is this one, or another.
        let is_fresh = self.looked.lock().is_some_and(|looked| is_writing || looked.elapsed() < LOOK_PERIOD);
        // What a failed write has left is known once the store is opened anew, as it is before it is written to again.
        let is_failed = |opened: &Opened| is_writing && !core.is_closing() && !is_fit(opened);
        match &*self.opened.read() {
            Some(opened)
                if (is_writing || is_fresh)
                    && !opened.store.handle.core.store.is_nil()
                    && !is_failed(opened) =>
            {
                return Ok(Some(opened.store.clone()));
            }
            None if is_fresh => return Ok(None),
            _ => {}
        }
        let mut opened = self.opened.write();
        if opened.as_ref().is_some_and(is_failed) {
            let _ = opened.take().map(|opened| opened.store.close());
            *self.looked.lock() = None;
        }
        let found = self.find(core)?;
        if !is_writing || (found.is_none() && opened.is_none()) {
            *self.looked.lock() = Some(stopwatch());
        }
        let Some(generation) = found else { return Ok(None) };
        if opened.as_ref().is_none_or(|opened| !is_writing && !opened.is(generation)) {
            *opened = Some(if is_writing && super::commit::refuse_if_closed(core).is_ok() {
                self.open_or_begin(core, generation).map_err(|error| as_read_error(error, &core.dir))?
            } else {
                Opened { generation, store: self.open_read_only(core, generation)? }
            });
        }
        Ok(opened.as_ref().map(|opened| opened.store.clone()))
    }

    /// It, if there is one, as another process would read it, with its directory's name: damage is not set aside.
    pub(crate) fn apart(&self, core: &Arc<Core>) -> Result<Option<(String, Store)>, ReadError> {
        let Some(generation) = self.find(core)? else { return Ok(None) };
        Ok(Some((self.name_of(generation), self.open_read_only(core, generation)?)))
    }

    /// Bytes that its files take.
    pub(crate) fn bytes(&self, core: &Core) -> u64 {
        let Ok(Some(generation)) = self.find(core) else { return 0 };
        let dir = self.dir(core, generation);
        let names = core.disk.list(&dir).unwrap_or_default();
        let len = |name: &String| core.disk.open(&dir.join(name), Access::Read)?.len();
        names.iter().map(|name| len(name).unwrap_or(0)).sum()
    }

    /// Closes it, if it was opened; reading it goes on.
    pub(crate) fn close(&self) -> Result<(), AppendError> {
        let renewing = self.renewing.lock().take();
        let is_on_its_thread =
            self.opened.read().as_ref().is_some_and(|opened| opened.store.is_on_own_thread());
        if !is_on_its_thread {
            // It sees that the store is closing, and gives up. But it may wait for this store's thread first.
            renewing.map_or(Ok(()), JoinHandle::join).unwrap_or_default();
        }
        let opened = self.opened.write();
        opened.as_ref().map_or(Ok(()), |opened| opened.store.clone().close())
    }

    /// Has `work` done in the background where it has grown, by `more`, to twice of what it was when that was done last. It
    /// calls [`Self::renew`] if that is worth while.
    pub(crate) fn has_grown(&self, core: &Arc<Core>, more: u64, work: fn(&Arc<Core>)) {
        let size = self.size.fetch_add(more, Ordering::Relaxed) + more;
        if size < self.due_at.load(Ordering::Relaxed).max(self.kind.size_min) {
            return;
        }
        let mut renewing = self.renewing.lock();
        let is_running = renewing.as_ref().is_some_and(|thread| !thread.is_finished());
        if is_running || core.is_closing() {
            return;
        }
        self.due_at.store(2 * size, Ordering::Relaxed);
        let its_core = Arc::clone(core);
        let thread = std::thread::Builder::new().name("annals-renew".into());
        *renewing = thread.spawn(move || work(&its_core)).ok();
    }

    /// Makes the next generation: `copy` takes what counts of what is there before a position, and says how large it is; what
    /// is written meanwhile follows.
    pub(crate) fn renew(
        &self,
        core: &Arc<Core>,
        copy: impl FnOnce(&Store, Position, &Store) -> Result<u64, AppendError>,
    ) -> Result<(), AppendError> {
        let (generation, from) = match &*self.opened.read() {
            Some(opened) => (opened.generation, opened.store.clone()),
            None => return Ok(()),
        };
        let next = generation + 1;
        self.remove(core, next)?;
        let to = self.open(core, next).map_err(as_append_error)?;
        // Nobody is between the parts of what is written, and all of it is durable.
        let copied = {
            let _quiet = self.opened_alone();
            from.settle();
            from.next_position()
        };
        let size_before = self.size.load(Ordering::Relaxed);
        let size = match copy(&from, copied, &to) {
            Ok(size) => size,
            Err(error) => {
                self.give_up(core, to, next);
                return Err(error);
            }
        };
        // Whoever writes or looks now waits.
        let mut opened = self.opened_alone();
        if !opened.as_ref().is_some_and(|opened| Arc::ptr_eq(&opened.store.handle, &from.handle)) {
            // A write failed and it was opened anew meanwhile, which took the next generation for a leftover.
            self.give_up(core, to, next);
            return Ok(());
        }
        opened.take();
        *self.looked.lock() = None;
        match self.take_over(core, generation, copied, &from, &to) {
            Ok(store) => {
                *opened = Some(Opened { generation: next, store });
                // What was written since is in it as it is.
                let since = self.size.load(Ordering::Relaxed).saturating_sub(size_before);
                self.size.store(size + since, Ordering::Relaxed);
                self.due_at.store(2 * (size + since), Ordering::Relaxed);
            }
            Err(error) => {
                // What there was is opened again when it is asked for.
                self.give_up(core, to, next);
                return Err(error);
            }
        }
        drop(opened);
        let core_of_from = Arc::clone(&from.handle.core);
        drop(from);
        wait_for_readers(core, &core_of_from);
        self.remove(core, generation)
    }

    /// It, once nobody writes: those who look meanwhile do not wait behind this, but for the last resort.
    fn opened_alone(&self) -> RwLockWriteGuard<'_, Option<Opened>> {
        let begun = stopwatch();
        while begun.elapsed() < QUIET_TIME {
            if let Some(opened) = self.opened.try_write() {
                return opened;
            }
            std::thread::sleep(QUIET_PAUSE);
        }
        self.opened.write()
    }

    /// Ends a generation: what was written to it meanwhile follows what was copied, and the next one is complete.
    fn take_over(
        &self,
        core: &Arc<Core>,
        generation: u64,
        copied: Position,
        from: &Store,
        to: &Store,
    ) -> Result<Store, AppendError> {
        // It is all durable once the store is closed.
        from.clone().close()?;
        copy_all(&self.open_read_only(core, generation).map_err(failed_read)?, copied, to)?;
        to.clone().close()?;
        self.complete(core, generation + 1)?;
        let store = self.open(core, generation + 1).map_err(as_append_error)?;
        Ok(store)
    }

    /// Removes a generation that did not come about. What stays of it is removed by the next attempt.
    fn give_up(&self, core: &Core, to: Store, next: u64) {
        let _ = to.close();
        let _ = self.remove(core, next);
    }

    /// Opens a generation for writing, and removes others. Where it is damaged and can be done without, it is given up, and
    /// the next one begins with nothing.
    fn open_or_begin(&self, core: &Arc<Core>, generation: u64) -> Result<Opened, OpenError> {
        let failed = |error| match error {
            AppendError::Io(failure) => OpenError::Io(failure),
            error => {
                OpenError::Io(IoFailure::new("remove", &core.dir, std::io::Error::other(error.to_string())))
            }
        };
        let opened = match self.open(core, generation) {
            Err(OpenError::Damage(_)) if self.kind.is_dispensable => {
                self.remove(core, generation + 1).map_err(failed)?;
                drop(self.open(core, generation + 1)?);
                self.complete(core, generation + 1).map_err(failed)?;
                Opened { generation: generation + 1, store: self.open(core, generation + 1)? }
            }
            opened => Opened { generation, store: opened? },
        };
        // What is not known of it counts as little.
        self.size.store(opened.store.next_position().get(), Ordering::Relaxed);
        let others = self.generations(core)?.into_iter().filter(|&other| other != opened.generation);
        for other in others {
            self.remove(core, other).map_err(failed)?;
        }
        Ok(opened)
    }

    fn open(&self, core: &Arc<Core>, generation: u64) -> Result<Store, OpenError> {
        let settings = Settings {
            recent_bytes: RECENT_BYTES,
            cached_heads: CACHED_HEADS,
            id_window: 0,
            compress_above_bytes: Some(COMPRESSED_BYTES_MIN),
            // Nobody waits for what is written there as one does for an append.
            linger: Duration::ZERO,
            ..core.settings.clone()
        };
        Store::open_on(&self.dir(core, generation), settings, Arc::clone(&core.disk), core.clock.clone())
    }

    fn open_read_only(&self, core: &Arc<Core>, generation: u64) -> Result<Store, ReadError> {
        let dir = self.dir(core, generation);
        Store::open_read_only_on(&dir, Arc::clone(&core.disk)).map_err(|error| as_read_error(error, &dir))
    }

    fn name_of(&self, generation: u64) -> String {
        let name = self.kind.name;
        if generation == 0 { name.to_owned() } else { format!("{name}-{generation}") }
    }

    fn dir(&self, core: &Core, generation: u64) -> PathBuf {
        core.dir.join(self.name_of(generation))
    }

    /// The last generation that is complete. `None`: there is none.
    fn find(&self, core: &Core) -> Result<Option<u64>, IoFailure> {
        let is_complete = |&generation: &u64| {
            let needed = if generation == 0 { MANIFEST_NAME } else { COMPLETE_NAME };
            // One that is being removed may be gone by now.
            let names = core.disk.list(&self.dir(core, generation)).unwrap_or_default();
            names.iter().any(|name| name == needed)
        };
        Ok(self.generations(core)?.into_iter().filter(is_complete).max())
    }

    /// All of which there is a directory.
    fn generations(&self, core: &Core) -> Result<Vec<u64>, IoFailure> {
        let names = core.disk.list(&core.dir).map_err(|error| IoFailure::new("list", &core.dir, error))?;
        let generation = |name: &String| match name.strip_prefix(self.kind.name)? {
            "" => Some(0),
            rest => rest.strip_prefix('-')?.parse().ok(),
        };
        Ok(names.iter().filter_map(generation).collect())
    }

    /// Makes it known, durably, that a generation has all that the one before had.
    fn complete(&self, core: &Core, generation: u64) -> Result<(), AppendError> {
        let dir = self.dir(core, generation);
        let written =
            core.disk.write_new(&dir.join(COMPLETE_NAME), b"").and_then(|()| core.disk.sync_dir(&dir));
        written.map_err(|error| AppendError::Io(IoFailure::new("complete", dir, error)))
    }

    /// Removes a generation that is there or not: first what says that it is complete.
    fn remove(&self, core: &Core, generation: u64) -> Result<(), AppendError> {
        let dir = self.dir(core, generation);
        let failed = |error| AppendError::Io(IoFailure::new("remove", &dir, error));
        let mut names = match core.disk.list(&dir) {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if names.iter().any(|name| name == COMPLETE_NAME) {
            // It must not come back where others are gone.
            core.disk
                .remove(&dir.join(COMPLETE_NAME))
                .and_then(|()| core.disk.sync_dir(&dir))
                .map_err(failed)?;
            names.retain(|name| name != COMPLETE_NAME);
        }
        names.iter().try_for_each(|name| core.disk.remove(&dir.join(name))).map_err(failed)?;
        core.disk.remove_dir(&dir).and_then(|()| core.disk.sync_dir(&core.dir)).map_err(failed)
    }
}

/// How long it is looked for a moment in which nobody writes, and how often.
const QUIET_TIME: Duration = Duration::from_secs(2);
const QUIET_PAUSE: Duration = Duration::from_micros(200);

/// How long a generation that is over waits for those who read it.
const READERS_TIME: Duration = Duration::from_secs(5);

/// Waits until nobody reads a store that is closed, or for some seconds: who reads on then replays more.
fn wait_for_readers(core: &Core, of: &Arc<Core>) {
    let begun = stopwatch();
    // This reference is one more.
    while Arc::strong_count(of) > 1 && begun.elapsed() < READERS_TIME && !core.is_closing() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Copies everything from a position on, as it is.
fn copy_all(from: &Store, position: Position, to: &Store) -> Result<(), AppendError> {
    let mut last = None;
    for record in from.read(Read::all().from(position)).map_err(failed_read)? {
        let record = record.map_err(failed_read)?;
        last = Some(copy_one(&record, to)?);
    }
    // Those of one thread settle in their order.
    last.map_or(Ok(()), |ticket| ticket.wait().map(drop))
}

/// Copies one event. When it was written first is of no interest.
pub(crate) fn copy_one(record: &Record, to: &Store) -> Result<Ticket, AppendError> {
    to.append(NewEvent { time: None, ..record.to_new_event() })
}

fn as_append_error(error: OpenError) -> AppendError {
    match error {
        OpenError::Damage(damage) => AppendError::Damage(damage),
        OpenError::Io(failure) => AppendError::Io(failure),
        error => AppendError::Io(IoFailure::new("open", "", std::io::Error::other(error.to_string()))),
    }
}

fn as_read_error(error: OpenError, dir: &Path) -> ReadError {
    match error {
        OpenError::Damage(damage) => ReadError::Damage(damage),
        OpenError::Io(failure) => ReadError::Io(failure),
        error => ReadError::Io(IoFailure::new("open", dir, std::io::Error::other(error.to_string()))),
    }
}
