//! The stores of a directory: opened when they are first asked for, closed when nobody has used them for a while.

use super::now;
use crate::failure::Failure as CommandFailure;
use crate::locate;
use annals::{OpenError, ReadError, Settings, Store};
use annals_protocol::Failure;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Stores {
    data: PathBuf,
    /// Each store has a directory of its own in `data`; else that is the only one.
    are_many: bool,
    settings: Settings,
    places: Mutex<HashMap<String, Arc<Place>>>,
    is_closed: AtomicBool,
    opener: Opener,
    /// Where waiting is done.
    waiting: Handle,
}

/// Where a store is while it is open. Held by whoever opens, closes or drops it: others of its name wait for that, without a
/// thread, and nobody else does.
type Place = tokio::sync::Mutex<Option<Open>>;

#[derive(Debug)]
struct Open {
    store: Arc<InUse>,
    /// Since when nobody uses it, as far as that was seen.
    idle_since: Option<Instant>,
}

/// A store that somebody uses: as long as this is held, it is not closed for being idle.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) name: String,
    pub(super) store: Store,
    is_dropped: AtomicBool,
}

impl InUse {
    fn new(name: &str, store: Store) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), store, is_dropped: AtomicBool::new(false) })
    }

    /// Whether it was not dropped meanwhile.
    pub(super) fn is_there(&self) -> Result<(), Failure> {
        if self.is_dropped.load(Ordering::Acquire) {
            return Err(Failure::NoStore { name: self.name.clone() });
        }
        Ok(())
    }
}

/// Starts the threads that open and close stores. A store's own threads have the priority of that which opened it, and this one has
/// the process's.
#[derive(Debug)]
struct Opener(std::sync::mpsc::Sender<Job>);

type Job = Box<dyn FnOnce() + Send>;

impl Opener {
    fn start() -> Self {
        let (sender, jobs) = std::sync::mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for job in jobs {
                std::thread::spawn(job);
            }
        });
        Self(sender)
    }

    /// Has something done that waits for the disk.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, done) = oneshot::channel();
        let job = Box::new(move || drop(sender.send(work())));
        let failed = || Failure::Internal("there is no thread to open a store".to_owned());
        self.0.send(job).map_err(|_| failed())?;
        done.await.unwrap_or_else(|_| Err(failed()))
    }
}

impl Stores {
    /// `default`: that one, if it is open already.
    pub(super) fn new(data: PathBuf, settings: Settings, default: Option<Store>, waiting: Handle) -> Self {
        let are_many = !locate::is_store(&data) && !locate::names(&data).is_empty();
        let place = |store| {
            let store = InUse::new(locate::STORE_DEFAULT, store);
            let open = Open { store, idle_since: None };
            (locate::STORE_DEFAULT.to_owned(), Arc::new(Place::new(Some(open))))
        };
        let places = Mutex::new(default.map(place).into_iter().collect());
        let (is_closed, opener) = (AtomicBool::new(false), Opener::start());
        Self { data, are_many, settings, places, is_closed, opener, waiting }
    }

    /// Whether any append is known again by the ids of its events.
    pub(super) fn are_ids_known(&self) -> bool {
        self.settings.id_window > 0
    }

    fn place(&self, name: &str) -> Arc<Place> {
        Arc::clone(self.places.lock().entry(name.to_owned()).or_default())
    }

    fn all_places(&self) -> Vec<Arc<Place>> {
        self.places.lock().values().cloned().collect()
    }

    /// The store of that name, if it is open and nobody is just opening or closing it.
    fn open_already(&self, name: &str) -> Option<Arc<InUse>> {
        let place = self.places.lock().get(name).cloned()?;
        let open = place.try_lock().ok()?;
        open.as_ref().map(|open| Arc::clone(&open.store))
    }

    /// The store of that name. What was begun for somebody who does not wait for it is there for the next.
    pub(super) async fn get(self: &Arc<Self>, name: &str) -> Result<Arc<InUse>, Failure> {
        // Said again and logged no longer than names are: they come from anybody.
        if !locate::is_name(name) {
            return Err(Failure::NoStore { name: locate::shortened(name) });
        }
        if let Some(open) = self.open_already(name) {
            return Ok(open);
        }
        let (stores, name) = (Arc::clone(self), name.to_owned());
        let opening = tokio::spawn(async move {
            let place = stores.place(&name);
            let opened = stores.open_at(&name, &place).await;
            // What is not there takes no memory, however many such names are asked for.
            if opened.is_err() {
                let mut places = stores.places.lock();
                if Arc::strong_count(&place) == 2 && place.try_lock().is_ok_and(|open| open.is_none()) {
                    places.remove(&name);
                }
            }
            opened
        });
        opening.await.unwrap_or_else(|error| Err(Failure::Internal(error.to_string())))
    }

    async fn open_at(self: &Arc<Self>, name: &str, place: &Place) -> Result<Arc<InUse>, Failure> {
        let mut open = place.lock().await;
        if let Some(open) = &mut *open {
            open.idle_since = None;
            return Ok(Arc::clone(&open.store));
        }
        // A thread is started for what is there alone: the names of others may be many.
        let (stores, named) = (Arc::clone(self), name.to_owned());
        let found = self.waiting.spawn_blocking(move || stores.find(&named)).await;
        let dir = found.map_err(|error| Failure::Internal(error.to_string()))??;
        let (stores, named) = (Arc::clone(self), name.to_owned());
        let store = self.opener.run(move || stores.open_now(&named, &dir));
        let store = store.await?;
        *open = Some(Open { store: Arc::clone(&store), idle_since: None });
        Ok(store)
    }

    /// The directory of a store that is there, or is made by being asked for. Looks at the disk.
    fn find(&self, name: &str) -> Result<PathBuf, Failure> {
        let no_store = || Failure::NoStore { name: name.to_owned() };
        let dir = self.dir(name).map_err(|_| no_store())?;
        // Only the default one is made by being asked for, and only where it is the only one.
        let is_made = name == locate::STORE_DEFAULT && !self.are_many;
        if is_made || locate::is_store(&dir) { Ok(dir) } else { Err(no_store()) }
    }

    /// The directory of a store.
    fn dir(&self, name: &str) -> Result<PathBuf, CommandFailure> {
        if self.are_many {
            locate::new_store(&self.data, name)
        } else {
            locate::locate(&self.data, Some(name))
        }
    }

    fn open_now(&self, name: &str, dir: &Path) -> Result<Arc<InUse>, Failure> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Failure::ShuttingDown);
        }
        let store =
            Store::open_with(dir, self.settings.clone()).map_err(|error| failed_open(name, &error))?;
        tracing::info!(store = name, "opened");
        Ok(InUse::new(name, store))
    }

    /// Creates a store, where all are in a directory of their own.
    pub(super) async fn create(self: &Arc<Self>, name: &str) -> Result<(), Failure> {
        let dir = locate::new_store(&self.data, name).map_err(|error| unsupported(&error))?;
        let place = self.place(name);
        let mut open = place.lock().await;
        let (stores, named) = (Arc::clone(self), name.to_owned());
        let is_open = open.is_some();
        let created = self.opener.run(move || {
            if is_open || locate::is_store(&dir) {
                return Err(Failure::StoreExists { name: named });
            }
            stores.open_now(&named, &dir)
        });
        *open = Some(Open { store: created.await?, idle_since: None });
        Ok(())
    }

    /// Drops a store with all that is in it; to whoever uses it, it is not there any more.
    pub(super) async fn drop_store(self: &Arc<Self>, name: &str) -> Result<(), Failure> {
        let dir = locate::new_store(&self.data, name).map_err(|error| unsupported(&error))?;
        let place = self.place(name);
        let mut open = place.lock().await;
        let (stores, named, known) = (Arc::clone(self), name.to_owned(), open.take());
        let dropped = self.opener.run(move || {
            if !locate::is_store(&dir) {
                return Err(Failure::NoStore { name: named });
            }
            // Opened where it is not, so that no other process has it.
            let store = match known {
                Some(open) => open.store,
                None => stores.open_now(&named, &dir)?,
            };
            store.is_dropped.store(true, Ordering::Release);
            let removed = locate::remove(&dir, || Ok(store.store.clone().close()?));
            tracing::warn!(store = named, is_removed = removed.is_ok(), "dropped");
            removed.map_err(|error| Failure::Internal(error.to_string()))
        });
        dropped.await
    }

    /// Names of all stores.
    pub(super) fn names(&self) -> Vec<String> {
        locate::names(&self.data)
    }

    /// All that are open.
    pub(super) fn all_open(&self) -> Vec<Arc<InUse>> {
        let open = |place: Arc<Place>| Some(Arc::clone(&place.try_lock().ok()?.as_ref()?.store));
        self.all_places().into_iter().filter_map(open).collect()
    }

    /// Closes those that nobody has used for so long.
    pub(super) async fn close_idle(&self, idle: Duration) {
        for place in self.all_places() {
            let Ok(mut open) = place.try_lock() else { continue };
            let Some(known) = &mut *open else { continue };
            if Arc::strong_count(&known.store) > 1 {
                known.idle_since = None;
            } else if known.idle_since.get_or_insert_with(now).elapsed() >= idle {
                let store = Arc::clone(&known.store);
                let closed = self.opener.run(move || {
                    match store.store.clone().close() {
                        Ok(()) => tracing::info!(store = store.name, "closed, as nobody uses it"),
                        Err(error) => tracing::error!(store = store.name, %error, "closed"),
                    }
                    Ok(())
                });
                // Whoever asks for it meanwhile waits.
                let _ = closed.await;
                *open = None;
            }
        }
    }

    /// Closes all, for good. Blocks; not to be called where tasks run.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        for place in self.all_places() {
            let Some(open) = place.blocking_lock().take() else { continue };
            // What failed was told to whoever appended it.
            if let Err(error) = open.store.store.clone().close() {
                tracing::error!(store = open.store.name, %error, "closed");
            }
        }
    }
}

fn failed_open(name: &str, error: &OpenError) -> Failure {
    tracing::error!(store = name, %error, "could not be opened");
    match error {
        OpenError::Damage(damage) => return Failure::Read(ReadError::Damage(damage.clone())),
        OpenError::InUse { .. } => return Failure::StoreInUse { name: name.to_owned() },
        _ => {}
    }
    Failure::Internal(format!("the store \"{}\" could not be opened: {error}", name.escape_debug()))
}

fn unsupported(error: &CommandFailure) -> Failure {
    Failure::Unsupported { reason: error.to_string() }
}
