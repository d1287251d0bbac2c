//! Side stores: what belongs to the log and is no part of it, in a store of its own inside the store's directory.
//!
//! It is opened when it is first used, so that a store that has none costs nothing more; written by the process that
//! writes the store, and closed with it.

use super::Store;
use super::core::{Core, LOCK_NAME, MANIFEST_NAME};
use crate::clock::stopwatch;
use crate::disk::Access;
use annals_types::{AppendError, IoFailure, OpenError, ReadError, Settings};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a reader beside a writer believes that there is none.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// Newest bytes that it keeps in memory: what was written is seldom read soon.
const RECENT_BYTES: u64 = 1 << 20;
/// Streams whose heads it remembers.
const CACHED_HEADS: usize = 100_000;
/// What is longer is compressed: below, taking it apart again costs more than it saves.
const COMPRESSED_BYTES_MIN: usize = 4 << 10;

/// What files are called that were set aside begins so, as a tail that was torn off does.
const SET_ASIDE_PREFIX: &str = "torn-";

/// See the module.
#[derive(Debug)]
pub(crate) struct Side {
    /// Its directory.
    name: &'static str,
    opened: RwLock<Option<Store>>,
    /// When it was looked for last, and was not there.
    absent: Mutex<Option<Instant>>,
}

impl Side {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, opened: RwLock::default(), absent: Mutex::default() }
    }

    /// It, to be written to; made where there is none. It stays as it is until the guard is dropped.
    pub(crate) fn writable(&self, core: &Arc<Core>) -> Result<MappedRwLockReadGuard<'_, Store>, AppendError> {
        loop {
            if let Ok(store) = RwLockReadGuard::try_map(self.opened.read(), Option::as_ref) {
                return Ok(store);
            }
            let mut opened = self.opened.write();
            super::commit::refuse_if_closed(core)?;
            if opened.is_none() {
                *opened = Some(self.open_or_begin(core).map_err(as_append_error)?);
            }
        }
    }

    /// It, if there is one.
    pub(crate) fn readable(&self, core: &Arc<Core>) -> Result<Option<Store>, ReadError> {
        if let Some(store) = &*self.opened.read() {
            return Ok(Some(store.clone()));
        }
        let is_writing = core.follower.get().is_none();
        let seen_absent = *self.absent.lock();
        // The one process that could make it is this one, or another.
        if seen_absent.is_some_and(|seen| is_writing || seen.elapsed() < LOOK_PERIOD) {
            return Ok(None);
        }
        let mut opened = self.opened.write();
        if opened.is_none() {
            if !self.exists(core)? {
                *self.absent.lock() = Some(stopwatch());
                return Ok(None);
            }
            let store = if is_writing && super::commit::refuse_if_closed(core).is_ok() {
                self.open_or_begin(core)
            } else {
                Store::open_read_only_on(&self.dir(core), Arc::clone(&core.disk))
            };
            *opened = Some(store.map_err(|error| as_read_error(error, self.dir(core)))?);
        }
        Ok(opened.clone())
    }

    /// It, if there is one, as another process would read it: damage is not set aside.
    pub(crate) fn opened_to_read(&self, core: &Arc<Core>) -> Result<Option<Store>, ReadError> {
        if !self.exists(core)? {
            return Ok(None);
        }
        let opened = Store::open_read_only_on(&self.dir(core), Arc::clone(&core.disk));
        opened.map(Some).map_err(|error| as_read_error(error, self.dir(core)))
    }

    /// Bytes that its files take.
    pub(crate) fn bytes(&self, core: &Core) -> u64 {
        let names = core.disk.list(&self.dir(core)).unwrap_or_default();
        let len = |name: &String| core.disk.open(&self.dir(core).join(name), Access::Read)?.len();
        names.iter().map(|name| len(name).unwrap_or(0)).sum()
    }

    /// Closes it, if it was opened; reading it goes on.
    pub(crate) fn close(&self) -> Result<(), AppendError> {
        let opened = self.opened.write();
        opened.as_ref().map_or(Ok(()), |store| store.clone().close())
    }

    /// Its directory.
    pub(crate) fn dir(&self, core: &Core) -> PathBuf {
        core.dir.join(self.name)
    }

    fn exists(&self, core: &Core) -> Result<bool, ReadError> {
        match core.disk.list(&self.dir(core)) {
            Ok(names) => Ok(!names.is_empty()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(IoFailure::new("list", self.dir(core), error).into()),
        }
    }

    /// Opens it for writing; begins anew where it is damaged.
    fn open_or_begin(&self, core: &Arc<Core>) -> Result<Store, OpenError> {
        match self.open(core) {
            Err(OpenError::Damage(_)) => {
                self.set_aside(core)?;
                self.open(core)
            }
            opened => opened,
        }
    }

    /// Gives all its files names under which they are not found any more; the manifest last, by which it is known. What was
    /// set aside before is replaced.
    fn set_aside(&self, core: &Core) -> Result<(), IoFailure> {
        let dir = self.dir(core);
        let failed = |error| IoFailure::new("set aside", &dir, error);
        let mut names = core.disk.list(&dir).map_err(failed)?;
        names.retain(|name| !name.starts_with(SET_ASIDE_PREFIX) && name != LOCK_NAME);
        names.sort_by_key(|name| name == MANIFEST_NAME);
        for name in names {
            let aside = format!("{SET_ASIDE_PREFIX}{name}");
            core.disk.rename(&dir.join(&name), &dir.join(aside)).map_err(failed)?;
        }
        core.disk.sync_dir(&dir).map_err(failed)
    }

    fn open(&self, core: &Arc<Core>) -> Result<Store, OpenError> {
        let settings = Settings {
            recent_bytes: RECENT_BYTES,
            cached_heads: CACHED_HEADS,
            id_window: 0,
            compress_above_bytes: Some(COMPRESSED_BYTES_MIN),
            ..core.settings.clone()
        };
        let store = Store::open_on(&self.dir(core), settings, Arc::clone(&core.disk), core.clock.clone())?;
        *self.absent.lock() = None;
        Ok(store)
    }
}

fn as_append_error(error: OpenError) -> AppendError {
    match error {
        OpenError::Damage(damage) => AppendError::Damage(damage),
        OpenError::Io(failure) => AppendError::Io(failure),
        error => AppendError::Io(IoFailure::new("open", "", std::io::Error::other(error.to_string()))),
    }
}

fn as_read_error(error: OpenError, dir: PathBuf) -> ReadError {
    match error {
        OpenError::Damage(damage) => ReadError::Damage(damage),
        OpenError::Io(failure) => ReadError::Io(failure),
        error => ReadError::Io(IoFailure::new("open", dir, std::io::Error::other(error.to_string()))),
    }
}
