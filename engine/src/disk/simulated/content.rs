//! What one file holds: on the device, in the cache, and on the way between them.

use super::random::Random;

/// What a device writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// How far a write gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// It can be read, and is lost with the power unless a sync follows.
    Cache,
    /// It is durable.
    Device,
}

/// A file's bytes. After a failed sync the cache differs from the device although nothing is unsynced: that is
/// why both are kept whole.
#[derive(Clone, Default, Debug)]
pub(super) struct Content {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// In the order of the writes.
    unsynced: Vec<Unsynced>,
}

#[derive(Clone, Debug)]
enum Unsynced {
    /// What lay behind `keep` is gone, and zeros follow up to `len`.
    Resized { keep: usize, len: usize },
    /// A sector as the cache had it after a write. It is the whole sector, for a device never gets the later of
    /// two changes to a sector without the earlier one.
    Sector { at: usize, bytes: Vec<u8> },
}

impl Unsynced {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Resized { keep, len } => {
                image.truncate(*keep);
                image.resize(*len, 0);
            }
            Self::Sector { at, bytes } => {
                let end = (at + bytes.len()).min(image.len());
                if *at < end {
                    image[*at..end].copy_from_slice(&bytes[..end - at]);
                }
            }
        }
    }
}

impl Content {
    /// What reads see.
    pub(super) fn cached(&self) -> &[u8] {
        &self.cached
    }

    /// What the device has.
    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// The length that reads see.
    pub(super) fn len(&self) -> usize {
        self.cached.len()
    }

    /// Writes, and grows the file where it is too short.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8], reach: Reach) {
        match reach {
            Reach::Device => self.write_through(at, bytes),
            Reach::Cache => self.write_cached(at, bytes),
        }
    }

    fn write_through(&mut self, at: usize, bytes: &[u8]) {
        self.settle_length();
        let end = at + bytes.len();
        for image in [&mut self.durable, &mut self.cached] {
            image.resize(image.len().max(end), 0);
            image[at..end].copy_from_slice(bytes);
        }
        // An older write of these sectors, which may reach the device after this one, must not undo it.
        for change in &mut self.unsynced {
            if let Unsynced::Sector { at: sector, bytes: older } = change {
                let (start, end) = (at.max(*sector), end.min(*sector + older.len()));
                if start < end {
                    older[start - *sector..end - *sector].copy_from_slice(&bytes[start - at..end - at]);
                }
            }
        }
    }

    /// Makes the length durable, and with it the writes before it changed last: a durable write needs it.
    fn settle_length(&mut self) {
        let last = self.unsynced.iter().rposition(|change| matches!(change, Unsynced::Resized { .. }));
        for change in self.unsynced.drain(..last.map_or(0, |last| last + 1)) {
            change.apply(&mut self.durable);
        }
    }

    fn write_cached(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if end > self.cached.len() {
            self.resize_cached(self.cached.len(), end);
        }
        self.cached[at..end].copy_from_slice(bytes);
        let first = at / SECTOR_BYTES * SECTOR_BYTES;
        for sector in (first..end).step_by(SECTOR_BYTES) {
            let sector_end = (sector + SECTOR_BYTES).min(self.cached.len());
            let bytes = self.cached[sector..sector_end].to_vec();
            self.unsynced.push(Unsynced::Sector { at: sector, bytes });
        }
    }

    fn resize_cached(&mut self, keep: usize, len: usize) {
        let change = Unsynced::Resized { keep, len };
        change.apply(&mut self.cached);
        self.unsynced.push(change);
    }

    /// Empties the file and fills it anew.
    pub(super) fn replace(&mut self, bytes: Vec<u8>, reach: Reach) {
        match reach {
            Reach::Device => {
                self.unsynced.clear();
                self.durable.clone_from(&bytes);
                self.cached = bytes;
            }
            Reach::Cache => {
                self.resize_cached(0, bytes.len());
                self.write_cached(0, &bytes);
            }
        }
    }

    /// Zeroes everything from `at` on and keeps the length.
    pub(super) fn zero_from(&mut self, at: usize, reach: Reach) {
        if at < self.len() {
            let zeros = vec![0; self.len() - at];
            self.write(at, &zeros, reach);
        }
    }

    /// Cuts the file off, or lengthens it by zeros, durably.
    pub(super) fn set_len(&mut self, len: usize) {
        self.settle_length();
        self.durable.resize(len, 0);
        self.cached.resize(len, 0);
        self.unsynced.retain(|change| !matches!(change, Unsynced::Sector { at, .. } if *at >= len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// What a sync that fails does on Linux: the cache keeps what could not be written but takes it for clean, so
    /// that the next sync knows nothing of it.
    pub(super) fn fail_sync(&mut self) {
        self.unsynced.clear();
    }

    /// Leaves what a power cut leaves. Each file has its own odds, so that none and all of its writes are as
    /// likely as a mixture.
    pub(super) fn lose_power(&mut self, random: &mut Random) {
        const ODDS: usize = 4;
        let odds = random.below(ODDS + 1);
        for change in self.unsynced.drain(..) {
            if random.below(ODDS) < odds {
                change.apply(&mut self.durable);
            }
        }
        self.cached.clone_from(&self.durable);
    }
}
