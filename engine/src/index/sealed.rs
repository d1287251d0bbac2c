//! The index file of a sealed segment, mapped on its first use.

use crate::disk::{Access, Disk};
use crate::format::index::{BadBlock, IndexOf, Layout};
use crate::format::prelude::Refusal;
use annals_types::{DamageKind, Uuid};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::PathBuf;

/// See the module.
#[derive(Debug)]
pub(crate) struct SealedIndex {
    pub(crate) path: PathBuf,
    store: Uuid,
    of: IndexOf,
    loaded: Mutex<Option<Loaded>>,
}

/// A mapped index with a verified header.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) bytes: Bytes,
    pub(crate) layout: Layout,
}

impl SealedIndex {
    pub(crate) fn new(path: PathBuf, store: Uuid, of: IndexOf) -> Self {
        Self { path, store, of, loaded: Mutex::new(None) }
    }

    /// Which segment it is of.
    pub(crate) fn of(&self) -> IndexOf {
        self.of
    }

    /// The index. An error says that the file cannot be used, and where: it is to be rebuilt.
    pub(crate) fn load(&self, disk: &dyn Disk) -> Result<Loaded, BadBlock> {
        let mut loaded = self.loaded.lock();
        if let Some(loaded) = &*loaded {
            return Ok(loaded.clone());
        }
        let bad = |kind| BadBlock { offset: 0, kind };
        let bytes = disk
            .open(&self.path, Access::Read)
            .and_then(|file| file.map())
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => bad(DamageKind::Missing),
                _ => bad(DamageKind::Unreadable),
            })?;
        let layout = Layout::decode(&bytes, self.store, self.of).map_err(|refusal| match refusal {
            Refusal::Damaged(kind) => bad(kind),
            Refusal::Newer { .. } | Refusal::UnknownFeatures { .. } => bad(DamageKind::Malformed),
            Refusal::Foreign { .. } => bad(DamageKind::Misplaced),
        })?;
        Ok(loaded.insert(Loaded { bytes, layout }).clone())
    }

    /// Uses these bytes from now on, which were just made from the log.
    pub(crate) fn replace(&self, bytes: Bytes) -> Result<Loaded, BadBlock> {
        let layout = Layout::decode(&bytes, self.store, self.of)
            .map_err(|_| BadBlock { offset: 0, kind: DamageKind::Malformed })?;
        Ok(self.loaded.lock().insert(Loaded { bytes, layout }).clone())
    }
}
