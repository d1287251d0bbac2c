//! A store that can be exchanged for another one, as when a backup is put back.

use annals::Store;
use annals_types::{
    Append, Appended, Cursor, EventStore, Follow, Head, Load, Loaded, NewSnapshot, NewSubscription, Parked,
    ParkedChoice, Read, StoreError, Version,
};
use parking_lot::Mutex;
use std::sync::Arc;

#[derive(Clone)]
pub(crate) struct Exchanged {
    pub(crate) now: Arc<Mutex<Store>>,
}

impl Exchanged {
    pub(crate) fn new(store: &Store) -> Self {
        Self { now: Arc::new(Mutex::new(store.clone())) }
    }

    fn store(&self) -> Store {
        self.now.lock().clone()
    }
}

impl EventStore for Exchanged {
    type Events = <Store as EventStore>::Events;
    type Following = <Store as EventStore>::Following;
    type Member = <Store as EventStore>::Member;

    async fn append(&self, append: Append<'_>) -> Result<Appended, StoreError> {
        EventStore::append(&self.store(), append).await
    }

    async fn read(&self, read: &Read<'_>) -> Result<Self::Events, StoreError> {
        EventStore::read(&self.store(), read).await
    }

    async fn load(&self, load: &Load<'_>) -> Result<Loaded<Self::Events>, StoreError> {
        EventStore::load(&self.store(), load).await
    }

    async fn follow(&self, follow: &Follow<'_>) -> Result<Self::Following, StoreError> {
        EventStore::follow(&self.store(), follow).await
    }

    async fn head(&self, stream: &str) -> Result<Option<Head>, StoreError> {
        EventStore::head(&self.store(), stream).await
    }

    async fn cursor(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        EventStore::cursor(&self.store(), name).await
    }

    async fn write_snapshot(&self, snapshot: &NewSnapshot<'_>, version: Version) -> Result<(), StoreError> {
        EventStore::write_snapshot(&self.store(), snapshot, version).await
    }

    async fn create_subscription(&self, new: &NewSubscription<'_>) -> Result<bool, StoreError> {
        EventStore::create_subscription(&self.store(), new).await
    }

    async fn parked(&self, subscription: &str) -> Result<Vec<Parked>, StoreError> {
        EventStore::parked(&self.store(), subscription).await
    }

    async fn replay_parked(&self, subscription: &str, which: &ParkedChoice) -> Result<usize, StoreError> {
        EventStore::replay_parked(&self.store(), subscription, which).await
    }

    async fn join(&self, subscription: &str) -> Result<Self::Member, StoreError> {
        EventStore::join(&self.store(), subscription).await
    }
}
