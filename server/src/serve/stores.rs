//! The stores of a directory: opened when they are first asked for, and kept open.

use crate::locate;
use annals::{OpenError, Settings, Store};
use annals_protocol::Failure;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;

/// See the module.
#[derive(Debug)]
pub(super) struct Stores {
    data: PathBuf,
    settings: Settings,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_name: HashMap<String, Store>,
    is_closed: bool,
}

impl Stores {
    /// `default`: that one, if it is open already.
    pub(super) fn new(data: PathBuf, settings: Settings, default: Option<Store>) -> Self {
        let by_name = default.map(|store| (locate::STORE_DEFAULT.to_owned(), store)).into_iter().collect();
        Self { data, settings, open: Mutex::new(Open { by_name, is_closed: false }) }
    }

    /// The store of that name. Waits for the disk.
    pub(super) fn get(&self, name: &str) -> Result<Store, Failure> {
        let dir =
            locate::locate(&self.data, Some(name)).map_err(|_| Failure::NoStore { name: name.to_owned() })?;
        let mut open = self.open.lock();
        if open.is_closed {
            return Err(Failure::ShuttingDown);
        }
        if let Some(store) = open.by_name.get(name) {
            return Ok(store.clone());
        }
        // Only the default one is made by being asked for.
        if name != locate::STORE_DEFAULT && !locate::is_store(&dir) {
            return Err(Failure::NoStore { name: name.to_owned() });
        }
        let store = Store::open_with(&dir, self.settings.clone()).map_err(|error| failed_open(&error))?;
        open.by_name.insert(name.to_owned(), store.clone());
        Ok(store)
    }

    /// Creates a store, where all are in a directory of their own.
    pub(super) fn create(&self, name: &str) -> Result<(), Failure> {
        let dir = locate::new_store(&self.data, name)
            .map_err(|error| Failure::Forbidden { what: error.to_string() })?;
        if locate::is_store(&dir) {
            return Err(Failure::StoreExists { name: name.to_owned() });
        }
        let mut open = self.open.lock();
        if open.is_closed {
            return Err(Failure::ShuttingDown);
        }
        let store = Store::open_with(&dir, self.settings.clone()).map_err(|error| failed_open(&error))?;
        open.by_name.insert(name.to_owned(), store);
        Ok(())
    }

    /// Names of all stores.
    pub(super) fn names(&self) -> Vec<String> {
        locate::names(&self.data)
    }

    /// Closes all, for good.
    pub(super) fn close(&self) {
        let mut open = self.open.lock();
        open.is_closed = true;
        for (_, store) in open.by_name.drain() {
            // What failed was told to whoever appended it.
            let _ = store.close();
        }
    }
}

fn failed_open(error: &OpenError) -> Failure {
    Failure::Internal(error.to_string())
}
