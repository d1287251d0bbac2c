//! The stores of a directory: opened when they are first asked for, closed when nobody has used them for a while.

use crate::failure::Failure as CommandFailure;
use crate::locate;
use annals::{OpenError, Settings, Store};
use annals_protocol::Failure;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Stores {
    data: PathBuf,
    settings: Settings,
    places: Mutex<HashMap<String, Arc<Place>>>,
    is_closed: AtomicBool,
}

/// Where a store is while it is open. Held by whoever opens, closes or drops it; others of its name wait for that, and nobody else.
#[derive(Debug, Default)]
struct Place(Mutex<Option<Open>>);

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
}

impl Stores {
    /// `default`: that one, if it is open already.
    pub(super) fn new(data: PathBuf, settings: Settings, default: Option<Store>) -> Self {
        let place = |store| {
            let name = locate::STORE_DEFAULT.to_owned();
            let store = Arc::new(InUse { name: name.clone(), store });
            (name, Arc::new(Place(Mutex::new(Some(Open { store, idle_since: None })))))
        };
        let places = Mutex::new(default.map(place).into_iter().collect());
        Self { data, settings, places, is_closed: AtomicBool::new(false) }
    }

    fn place(&self, name: &str) -> Arc<Place> {
        Arc::clone(self.places.lock().entry(name.to_owned()).or_default())
    }

    /// The store of that name, if it is open and nobody is just opening or closing it.
    pub(super) fn open_already(&self, name: &str) -> Option<Arc<InUse>> {
        let place = self.places.lock().get(name).cloned()?;
        let open = place.0.try_lock()?;
        open.as_ref().map(|open| Arc::clone(&open.store))
    }

    /// The store of that name. Waits for the disk.
    pub(super) fn get(&self, name: &str) -> Result<Arc<InUse>, Failure> {
        let no_store = || Failure::NoStore { name: name.to_owned() };
        let dir = locate::locate(&self.data, Some(name)).map_err(|_| no_store())?;
        // Only the default one is made by being asked for.
        if name != locate::STORE_DEFAULT && !locate::is_store(&dir) {
            return Err(no_store());
        }
        let place = self.place(name);
        let mut open = place.0.lock();
        if let Some(open) = &mut *open {
            open.idle_since = None;
            return Ok(Arc::clone(&open.store));
        }
        // Dropped meanwhile: it is not made again.
        if name != locate::STORE_DEFAULT && !locate::is_store(&dir) {
            return Err(no_store());
        }
        self.open(name, &dir, &mut open)
    }

    fn open(
        &self,
        name: &str,
        dir: &std::path::Path,
        open: &mut Option<Open>,
    ) -> Result<Arc<InUse>, Failure> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Failure::ShuttingDown);
        }
        let store =
            Store::open_with(dir, self.settings.clone()).map_err(|error| failed_open(name, &error))?;
        tracing::info!(store = name, "opened");
        let store = Arc::new(InUse { name: name.to_owned(), store });
        *open = Some(Open { store: Arc::clone(&store), idle_since: None });
        Ok(store)
    }

    /// Creates a store, where all are in a directory of their own. Waits for the disk.
    pub(super) fn create(&self, name: &str) -> Result<(), Failure> {
        let dir = locate::new_store(&self.data, name).map_err(|error| unsupported(&error))?;
        let place = self.place(name);
        let mut open = place.0.lock();
        if open.is_some() || locate::is_store(&dir) {
            return Err(Failure::StoreExists { name: name.to_owned() });
        }
        self.open(name, &dir, &mut open).map(|_| ())
    }

    /// Drops a store with all that is in it; whoever uses it is told that it is closed. Waits for the disk.
    pub(super) fn drop_store(&self, name: &str) -> Result<(), Failure> {
        let dir = locate::new_store(&self.data, name).map_err(|error| unsupported(&error))?;
        if !locate::is_store(&dir) {
            return Err(Failure::NoStore { name: name.to_owned() });
        }
        let place = self.place(name);
        let mut open = place.0.lock();
        if open.is_none() {
            // So that no other process has it.
            self.open(name, &dir, &mut open)?;
        }
        let store = open.take().expect("it is open").store.store.clone();
        let removed = locate::remove(&dir, || Ok(store.close()?));
        tracing::warn!(store = name, is_removed = removed.is_ok(), "dropped");
        removed.map_err(|error| Failure::Internal(error.to_string()))
    }

    /// Names of all stores.
    pub(super) fn names(&self) -> Vec<String> {
        locate::names(&self.data)
    }

    /// All that are open.
    pub(super) fn all_open(&self) -> Vec<Arc<InUse>> {
        let places: Vec<Arc<Place>> = self.places.lock().values().cloned().collect();
        let open = |place: &Arc<Place>| Some(Arc::clone(&place.0.try_lock()?.as_ref()?.store));
        places.iter().filter_map(open).collect()
    }

    /// Closes those that nobody has used for so long. Waits for the disk.
    pub(super) fn close_idle(&self, idle: Duration) {
        let places: Vec<(String, Arc<Place>)> =
            self.places.lock().iter().map(|(name, place)| (name.clone(), Arc::clone(place))).collect();
        for (name, place) in places {
            let Some(mut open) = place.0.try_lock() else { continue };
            let Some(known) = &mut *open else { continue };
            if Arc::strong_count(&known.store) > 1 {
                known.idle_since = None;
            } else if known.idle_since.get_or_insert_with(super::now).elapsed() >= idle {
                let store = open.take().expect("it is open").store.store.clone();
                match store.close() {
                    Ok(()) => tracing::info!(store = name, "closed, as nobody uses it"),
                    Err(error) => tracing::error!(store = name, %error, "closed"),
                }
            }
        }
    }

    /// Closes all, for good.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        let places: Vec<Arc<Place>> = self.places.lock().drain().map(|(_, place)| place).collect();
        for place in places {
            let Some(open) = place.0.lock().take() else { continue };
            // What failed was told to whoever appended it.
            if let Err(error) = open.store.store.clone().close() {
                tracing::error!(store = open.store.name, %error, "closed");
            }
        }
    }
}

fn failed_open(name: &str, error: &OpenError) -> Failure {
    tracing::error!(store = name, %error, "could not be opened");
    Failure::Internal(format!("the store \"{}\" could not be opened: {error}", name.escape_debug()))
}

fn unsupported(error: &CommandFailure) -> Failure {
    Failure::Unsupported { reason: error.to_string() }
}
