//! Damage done on purpose, for tests: at once, to the device and the cache alike, and no operation.
//!
//! Files are found by the names that reads see. A path that is not there is a mistake of the test, so it panics.

use super::SimulatedDisk;
use super::content::Reach;
use super::names::FileId;
use super::state::State;
use std::io;
use std::path::{Path, PathBuf};

impl SimulatedDisk {
    /// Inverts one bit of a file: bit `bit % 8`, counted from the lowest, of byte `bit / 8`.
    ///
    /// # Panics
    /// When there is no such file or no such bit on the device.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let mut state = self.state();
        let file = found(state.tree.find_file(path), path);
        let at = usize::try_from(bit / 8).expect("a bit within the file");
        let byte = *state.content(file).durable().get(at).expect("a bit within the file");
        state.content_mut(file).write(at, &[byte ^ (1 << (bit % 8))], Reach::Device);
    }

    /// Replaces bytes of a file; lengthens it where they go beyond its end.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).expect("an offset within memory");
        self.change(path, |state, file| state.content_mut(file).write(at, bytes, Reach::Device));
    }

    /// Cuts a file off at `len`, or lengthens it by zeros.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn truncate(&self, path: &Path, len: u64) {
        let len = usize::try_from(len).expect("a length within memory");
        self.change(path, |state, file| state.content_mut(file).set_len(len));
    }

    /// What the device has of a file; `None`: there is no such file.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.tree.find_file(path).ok()?;
        Some(state.content(file).durable().to_vec())
    }

    /// The paths of all files, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().tree.files().into_iter().map(|(path, _)| path).collect()
    }

    /// Removes a file; makes all names in its directory durable with that.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn remove_raw(&self, path: &Path) {
        found(self.state().tree.remove_durably(path), path);
    }

    /// Makes a file, its directories too, or replaces its content; makes all names in its directory durable with
    /// that.
    ///
    /// # Panics
    /// When `path`, or one above it, is something else than a file or a directory respectively.
    pub fn put_raw(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        if let Some(parent) = path.parent() {
            found(state.tree.create_dirs(parent, true), path);
        }
        found(state.put(path, bytes.to_vec(), Reach::Device), path);
        found(state.tree.sync_parent(path), path);
    }

    fn change(&self, path: &Path, change: impl FnOnce(&mut State, FileId)) {
        let mut state = self.state();
        let file = found(state.tree.find_file(path), path);
        change(&mut state, file);
    }
}

fn found<T>(result: io::Result<T>, path: &Path) -> T {
    result.unwrap_or_else(|error| panic!("{} on the simulated disk: {error}", path.display()))
}
