//! A sealed segment: immutable, mapped on its first use.

use super::unsealed::frame_in;
use super::{damage_at, segment_name};
use crate::disk::{Access, Disk};
use crate::format::frame::{Envelope, FrameSeed};
use crate::format::segment::Seal;
use annals_types::{Damage, DamageKind, IoFailure, ReadError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) seal: Seal,
    pub(crate) path: PathBuf,
    seed: FrameSeed,
    map: Mutex<Option<Bytes>>,
}

impl Sealed {
    pub(crate) fn new(dir: &Path, seal: Seal) -> Self {
        let path = dir.join(segment_name(seal.ordinal));
        Self { seal, path, seed: FrameSeed::new(seal.salt), map: Mutex::new(None) }
    }

    pub(crate) fn seed(&self) -> FrameSeed {
        self.seed
    }

    /// The whole file. Its descriptor is closed once it is mapped.
    pub(crate) fn bytes(&self, disk: &dyn Disk) -> Result<Bytes, ReadError> {
        let mut map = self.map.lock();
        if let Some(bytes) = &*map {
            return Ok(bytes.clone());
        }
        let opened = disk.open(&self.path, Access::Read).and_then(|file| file.map());
        let bytes = match opened {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(self.damage(0, DamageKind::Missing).into());
            }
            other => other.map_err(|error| IoFailure::new("map", &self.path, error))?,
        };
        if (bytes.len() as u64) < self.seal.end {
            return Err(self.damage(bytes.len() as u64, DamageKind::Missing).into());
        }
        *map = Some(bytes.clone());
        Ok(bytes)
    }

    /// The frame at `offset` of [`Self::bytes`].
    pub(crate) fn frame(&self, bytes: &Bytes, offset: u64) -> Result<(Envelope, Bytes), Damage> {
        if offset >= self.seal.end {
            return Err(self.damage(offset, DamageKind::Malformed));
        }
        frame_in(bytes, offset, self.seed).map_err(|kind| damage_at(&self.path, offset, kind, None))
    }

    /// Damage of the whole segment from `offset` on.
    fn damage(&self, offset: u64, kind: DamageKind) -> Damage {
        let positions = (self.seal.first_position < self.seal.next_position)
            .then(|| (self.seal.first_position, self.seal.next_position - 1));
        damage_at(&self.path, offset, kind, positions)
    }
}
