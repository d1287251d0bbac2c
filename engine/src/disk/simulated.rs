//! The simulated disk: files in memory that fail, freeze, lie and lose power where a test says so.
//!
//! It tells apart what a process sees (the cache) from what a power cut leaves (the device). A file is a
//! durable image and the unsynced sector writes since; a directory is its durable names and the unsynced
//! changes since. All chance comes from seeds, so a run can be repeated; the one thing a seed cannot fix is
//! how threads interleave.
//!
//! Paths are looked up from one root: `a/b` and `/a/b` are the same file, and the root always exists.

mod content;
mod damage;
mod faults;
mod file;
mod names;
mod random;
mod state;
mod submitter;
#[cfg(test)]
mod tests;

pub use faults::{Fault, Repeat};

use self::file::{SimulatedFile, SimulatedLock};
use self::names::absolute;
use self::random::Random;
use self::state::State;
use self::submitter::Unordered;
use super::{Access, Disk, File, Lock, OneAtATime, Submitter};
use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How much is told to the pace of [`Disk::preallocate`] at once, as the real disks do.
const ZEROING_BYTES: u64 = 1 << 20;

/// A disk in memory. Clones are the same disk; [`SimulatedDisk::crash`] and [`SimulatedDisk::kill`] make
/// another one and leave this one as it is.
///
/// Every call that changes or syncs something is an *operation* and has a number, from 1: `create_dirs`,
/// `write_new`, `preallocate`, `rename`, `remove`, `remove_dir`, `sync_dir`, `write_durable` (when it is submitted),
/// `punch_from`, and `sync` of a file or a shared map. Reads, locks and stores into a shared map have none.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

impl SimulatedDisk {
    /// An empty disk without limits or faults. `seed` decides what a failed or frozen operation leaves behind
    /// and in which order pending writes complete.
    pub fn new(seed: u64) -> Self {
        Self::with(State::new(Random::new(seed)))
    }

    fn with(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// How many operations there were, failed ones included.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Limits the sum of the lengths of all files, from now on. What is there already stays.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Lets operation `number` fail, and where `repeat` says so every later one too. Of several faults for one
    /// operation the first planned counts.
    pub fn fail_at(&self, number: u64, fault: Fault, repeat: Repeat) {
        self.state().plan.add(number, fault, repeat);
    }

    /// Forgets the planned faults and the planned freeze, so that a disk can be seen to recover. One that is
    /// frozen stays so.
    pub fn clear_faults(&self) {
        self.state().plan = faults::Plan::default();
    }

    /// Stops the machine in the middle of operation `number`: that one may leave a part of its effect, or
    /// nothing, and so may the writes in flight; it and all later ones fail and change nothing more. What is
    /// left is then found through [`SimulatedDisk::crash`] or [`SimulatedDisk::kill`].
    pub fn freeze_at(&self, number: u64) {
        self.state().plan.freeze_at(number);
    }

    /// Whether the planned freeze has happened.
    pub fn is_frozen(&self) -> bool {
        self.state().frozen
    }

    /// From now on syncs and durable writes report success (or not: faults are as planned), but leave everything
    /// unsynced: a device that ignores flushes.
    pub fn lie_about_sync(&self, lie: bool) {
        self.state().lies = lie;
    }

    /// Lets submitters made from now on keep up to `depth` writes in flight and complete them in a random order.
    ///
    /// # Panics
    /// When `depth` is zero.
    pub fn set_depth(&self, depth: usize) {
        assert!(depth > 0, "a submitter that takes no write cannot work");
        self.state().depth = Some(depth);
    }

    /// From now on each operation takes its time where chance says so, up to `most` at a step: what other threads do meanwhile comes in between,
    /// and sees a write half done. Zero: none does.
    pub fn set_slowness(&self, most: Duration) {
        self.state().slowest = most;
    }

    /// Lets an operation take its time, before it does anything.
    fn dawdle(&self) {
        let pause = self.state().pause();
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }

    /// The most writes that were in flight at a time, since the disk was made.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.state().in_flight_most
    }

    /// The disk as it may be found after a power cut now: of each file's unsynced sector writes and of the writes
    /// in flight any subset got through, of each directory's unsynced changes any first part. Each of them is
    /// likely to be lost or kept as a whole. The same seed finds the same on the same disk.
    ///
    /// The result has this disk's capacity, depth and slowness, and neither locks, faults, lies nor operations.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut state = self.state().clone();
        state.random = state.random.fork(seed);
        state.abandon_in_flight();
        state.lose_power();
        state.forget_processes();
        Self::with(state)
    }

    /// The disk after its process was killed now: everything written is there to read, and what was unsynced is
    /// still unsynced, so that a later [`SimulatedDisk::crash`] may lose it. Writes in flight happened or not, and
    /// those that did are durable or not.
    ///
    /// The result has this disk's capacity, depth and slowness, and neither locks, faults, lies nor operations.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut state = self.state().clone();
        state.abandon_in_flight();
        state.forget_processes();
        Self::with(state)
    }
}

impl Default for SimulatedDisk {
    fn default() -> Self {
        Self::new(0)
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never waits: the state may be locked by the thread that prints.
        let operations = self.state.try_lock().map(|state| state.operations);
        f.debug_struct("SimulatedDisk").field("operations", &operations).finish_non_exhaustive()
    }
}

impl Disk for SimulatedDisk {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn create_dirs(&self, dir: &Path) -> io::Result<()> {
        self.dawdle();
        self.state().create_dirs(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.state().tree.list(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        let file = state.tree.find_file(path)?;
        Ok(state.content(file).cached().to_vec())
    }

    fn write_new(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.dawdle();
        self.state().create(path, content.to_vec())
    }

    fn preallocate(&self, path: &Path, len: u64, zeroed: &mut dyn FnMut(u64) -> bool) -> io::Result<()> {
        self.dawdle();
        self.state().preallocate(path, len)?;
        // The lock is free by now, for the pace may take its time or use this disk.
        let mut at = 0;
        while at < len {
            let count = (len - at).min(ZEROING_BYTES);
            at += count;
            if !zeroed(count) {
                break;
            }
        }
        Ok(())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(SimulatedFile::open(self, path, access)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.dawdle();
        self.state().change_names(|tree| tree.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.dawdle();
        self.state().change_names(|tree| tree.remove(path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.dawdle();
        self.state().change_names(|tree| tree.remove_dir(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.dawdle();
        self.state().sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Result<Box<dyn Lock>, Option<u32>>> {
        SimulatedLock::take(self, path)
    }

    fn lock_holder(&self, path: &Path) -> io::Result<Option<u32>> {
        Ok(self.state().locks.get(&absolute(path)).copied())
    }

    fn submitter(&self, wake: Arc<Notify>) -> io::Result<Box<dyn Submitter>> {
        let depth = self.state().depth;
        Ok(match depth {
            None => Box::<OneAtATime>::default(),
            Some(depth) => Box::new(Unordered::new(self.clone(), wake, depth)),
        })
    }
}
