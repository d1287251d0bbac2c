//! A sealed segment: immutable, mapped on its first use.

use super::unsealed::frame_in;
use super::{damage_at, segment_name};
use crate::disk::maps::{Advice, Slot};
use crate::disk::{Access, Disk};
use crate::format::frame::{Envelope, FrameSeed};
use crate::format::segment::Seal;
use annals_types::{Damage, DamageKind, IoFailure, ReadError};
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) seal: Seal,
    pub(crate) path: PathBuf,
    seed: FrameSeed,
    /// One for reading in order and one for reading here and there; they share the pages.
    scanned: Slot<Bytes>,
    pointed_at: Slot<Bytes>,
}

impl Sealed {
    pub(crate) fn new(dir: &Path, seal: Seal) -> Self {
        let path = dir.join(segment_name(seal.ordinal));
        let (scanned, pointed_at) = (Slot::default(), Slot::default());
        Self { seal, path, seed: FrameSeed::new(seal.salt), scanned, pointed_at }
    }

    pub(crate) fn seed(&self) -> FrameSeed {
        self.seed
    }

    /// The whole file.
    pub(crate) fn bytes(&self, disk: &dyn Disk, advice: Advice) -> Result<Bytes, ReadError> {
        let slot = match advice {
            Advice::Scan => &self.scanned,
            Advice::Points => &self.pointed_at,
        };
        slot.get(|| self.map(disk, advice)).map(|bytes| Bytes::clone(&bytes))
    }

    /// Maps the file. Its descriptor is closed then.
    fn map(&self, disk: &dyn Disk, advice: Advice) -> Result<Bytes, ReadError> {
        let opened = disk.open(&self.path, Access::Read).and_then(|file| file.map(advice));
        let bytes = match opened {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(self.damage(0, DamageKind::Missing).into());
            }
            other => other.map_err(|error| IoFailure::new("map", &self.path, error))?,
        };
        if (bytes.len() as u64) < self.seal.end {
            return Err(self.damage(bytes.len() as u64, DamageKind::Missing).into());
        }
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
