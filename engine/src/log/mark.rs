//! The mark of an open store: follows every advance of the watermark, and is synced now and then.

use crate::disk::SharedMap;
use crate::format::mark::{self, Mark};
use annals_types::Uuid;
use parking_lot::Mutex;
use std::io;

/// See the module.
#[derive(Debug)]
pub(crate) struct Marker {
    store: Uuid,
    inner: Mutex<Inner>,
    /// A map of its own for syncing, so that the writer never waits for one.
    syncing: Mutex<Syncing>,
}

#[derive(Debug)]
struct Inner {
    map: Box<dyn SharedMap>,
    last: Mark,
}

#[derive(Debug)]
struct Syncing {
    map: Box<dyn SharedMap>,
    sequence: u64,
}

impl Marker {
    /// Takes over two maps of one mark file whose newest slot says `last`.
    pub(crate) fn new(store: Uuid, maps: [Box<dyn SharedMap>; 2], last: Mark) -> Self {
        let [map, syncing] = maps;
        let syncing = Syncing { map: syncing, sequence: last.sequence };
        Self { store, inner: Mutex::new(Inner { map, last }), syncing: Mutex::new(syncing) }
    }

    /// Writes the next slot; its sequence is given to it here.
    pub(crate) fn store(&self, mark: Mark) {
        let mut inner = self.inner.lock();
        inner.last = Mark { sequence: inner.last.sequence + 1, ..mark };
        let (at, slot) = mark::encode_slot(self.store, &inner.last);
        inner.map.store(at, &slot);
    }

    /// Makes the newest slot durable, if it is not.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut syncing = self.syncing.lock();
        let sequence = self.inner.lock().last.sequence;
        if syncing.sequence != sequence {
            syncing.map.sync()?;
            syncing.sequence = sequence;
        }
        Ok(())
    }
}
