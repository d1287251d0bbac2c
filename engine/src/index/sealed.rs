//! The index file of a sealed segment, mapped on its first use.

use crate::disk::maps::{Advice, Mapped, Slot};
use crate::disk::{Access, Disk};
use crate::format::index::{BadBlock, IndexOf, Layout};
use crate::format::prelude::Refusal;
use annals_types::{Damage, DamageKind, Uuid};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::OnceLock;

/// See the module.
#[derive(Debug)]
pub(crate) struct SealedIndex {
    pub(crate) path: PathBuf,
    store: Uuid,
    of: IndexOf,
    loaded: Slot<Loaded>,
    /// Made from the log in place of a file that is missing or damaged, and could not be written.
    remade: OnceLock<Loaded>,
    /// What of the log could not be read when it was made: events there are missing from it.
    holes: OnceLock<Vec<Damage>>,
    /// Held while it is made anew.
    pub(crate) making: Mutex<()>,
}

/// A mapped index with a verified header.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) bytes: Bytes,
    pub(crate) layout: Layout,
}

impl Mapped for Loaded {
    fn is_unreferenced(&self) -> bool {
        self.bytes.is_unreferenced()
    }
}

impl SealedIndex {
    pub(crate) fn new(path: PathBuf, store: Uuid, of: IndexOf) -> Self {
        Self {
            path,
            store,
            of,
            loaded: Slot::default(),
            remade: OnceLock::new(),
            holes: OnceLock::new(),
            making: Mutex::new(()),
        }
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
        match self.remade.get() {
            Some(remade) => look(remade),
            None => look(&*self.loaded.get(|| self.load(disk))?),
        }
    }

    /// Whether its file has a sound header, or it was made anew. What is damaged behind the header shows on use.
    pub(crate) fn is_usable(&self, disk: &dyn Disk) -> bool {
        self.remade.get().is_some() || self.load(disk).is_ok()
    }

    /// Whether it was made anew and is in no file.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.remade.get().is_some()
    }

    fn load(&self, disk: &dyn Disk) -> Result<Loaded, BadBlock> {
        let bad = |kind| BadBlock { offset: 0, kind };
        let opened = disk.open(&self.path, Access::Read).and_then(|file| file.map(Advice::Points));
        let bytes = opened.map_err(|error| {
            bad(match error.kind() {
                std::io::ErrorKind::NotFound => DamageKind::Missing,
                _ => DamageKind::Unreadable,
            })
        })?;
        self.take_apart(bytes).map_err(bad)
    }

    /// Its file was made anew from the log: it is that file from now on.
    pub(crate) fn reload(&self) {
        self.loaded.forget();
    }

    /// Uses these bytes from now on, which were just made from the log and are in no file.
    pub(crate) fn replace(&self, bytes: Bytes, holes: Vec<Damage>) -> Result<(), BadBlock> {
        let loaded = self.take_apart(bytes).map_err(|kind| BadBlock { offset: 0, kind })?;
        let _ = self.holes.set(holes);
        // If another thread was faster, its bytes are the same.
        let _ = self.remade.set(loaded);
        Ok(())
    }

    /// What is missing from the index: that a stream is not found means nothing then.
    pub(crate) fn holes(&self) -> &[Damage] {
        self.holes.get().map_or(&[], Vec::as_slice)
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
