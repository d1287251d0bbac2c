//! The index file of a sealed segment, mapped on its first use.

use crate::disk::{Access, Disk};
use crate::format::index::{BadBlock, IndexOf, Layout};
use crate::format::prelude::Refusal;
use annals_types::{DamageKind, Uuid};
use bytes::Bytes;
use parking_lot::RwLock;
use std::path::PathBuf;

/// See the module.
#[derive(Debug)]
pub(crate) struct SealedIndex {
    pub(crate) path: PathBuf,
    store: Uuid,
    of: IndexOf,
    loaded: RwLock<Option<Loaded>>,
}

/// A mapped index with a verified header.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) bytes: Bytes,
    pub(crate) layout: Layout,
}

impl SealedIndex {
    pub(crate) fn new(path: PathBuf, store: Uuid, of: IndexOf) -> Self {
        Self { path, store, of, loaded: RwLock::new(None) }
    }

    /// Which segment it is of.
    pub(crate) fn of(&self) -> IndexOf {
        self.of
    }

    /// Looks at the index. An error says that the file cannot be used, and where: it is to be rebuilt.
    pub(crate) fn look<T>(
        &self,
        disk: &dyn Disk,
        look: impl Fn(&Loaded) -> Result<T, BadBlock>,
    ) -> Result<T, BadBlock> {
        if let Some(loaded) = &*self.loaded.read() {
            return look(loaded);
        }
        let loaded = self.load(disk)?;
        look(self.loaded.write().insert(loaded))
    }

    fn load(&self, disk: &dyn Disk) -> Result<Loaded, BadBlock> {
        let bad = |kind| BadBlock { offset: 0, kind };
        let bytes = disk.open(&self.path, Access::Read).and_then(|file| file.map()).map_err(|error| {
            bad(match error.kind() {
                std::io::ErrorKind::NotFound => DamageKind::Missing,
                _ => DamageKind::Unreadable,
            })
        })?;
        self.take_apart(bytes).map_err(bad)
    }

    /// Uses these bytes from now on, which were just made from the log.
    pub(crate) fn replace(&self, bytes: Bytes) -> Result<(), BadBlock> {
        let loaded = self.take_apart(bytes).map_err(|kind| BadBlock { offset: 0, kind })?;
        *self.loaded.write() = Some(loaded);
        Ok(())
    }

    fn take_apart(&self, bytes: Bytes) -> Result<Loaded, DamageKind> {
        let layout = Layout::decode(&bytes, self.store, self.of).map_err(|refusal| match refusal {
            Refusal::Damaged(kind) => kind,
            Refusal::Newer { .. } | Refusal::UnknownFeatures { .. } => DamageKind::Malformed,
            Refusal::Foreign { .. } => DamageKind::Misplaced,
        })?;
        Ok(Loaded { bytes, layout })
    }
}
