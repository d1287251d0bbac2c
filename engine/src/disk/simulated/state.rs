//! Everything a simulated disk is, behind its one lock, and what each operation does to it.

use super::content::{Content, Reach, SECTOR_BYTES};
use super::faults::{Failure, Fate, Plan};
use super::names::{FileId, Tree};
use super::random::Random;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A disk and the processes that use it. A copy of it is another disk.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) tree: Tree,
    /// Files without a name stay until the power is lost: they may be open, or their removal not durable.
    files: BTreeMap<FileId, Content>,
    file_next: u64,
    pub(super) capacity: u64,
    pub(super) operations: u64,
    pub(super) plan: Plan,
    pub(super) frozen: bool,
    pub(super) lies: bool,
    pub(super) depth: Option<usize>,
    /// The longest that a step of an operation waits; zero: none does.
    pub(super) slowest: Duration,
    pub(super) random: Random,
    in_flight: BTreeMap<InFlightId, DurableWrite>,
    in_flight_next: u64,
    pub(super) in_flight_most: usize,
    /// Who holds which lock.
    pub(super) locks: BTreeMap<PathBuf, u32>,
    /// The files that are open for durable writes, by the address of the one handle that may write each.
    pub(super) writers: BTreeMap<usize, FileId>,
}

/// A durable write that was submitted and has not completed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct InFlightId(u64);

/// A durable write that was numbered and whose fate is decided.
#[derive(Clone, Debug)]
pub(super) struct DurableWrite {
    file: FileId,
    at: usize,
    bytes: Vec<u8>,
    /// What is written, step by step.
    steps: Vec<Range<usize>>,
    /// How it fails after these steps.
    failure: Option<Failure>,
}

impl State {
    pub(super) fn new(random: Random) -> Self {
        Self {
            tree: Tree::new(),
            files: BTreeMap::new(),
            file_next: 0,
            capacity: u64::MAX,
            operations: 0,
            plan: Plan::default(),
            frozen: false,
            lies: false,
            depth: None,
            slowest: Duration::ZERO,
            random,
            in_flight: BTreeMap::new(),
            in_flight_next: 0,
            in_flight_most: 0,
            locks: BTreeMap::new(),
            writers: BTreeMap::new(),
        }
    }

    /// How long the next step of an operation waits: one of four does.
    pub(super) fn pause(&mut self) -> Duration {
        if self.slowest.is_zero() || self.random.below(4) > 0 {
            return Duration::ZERO;
        }
        let thousandths = u32::try_from(self.random.below(1_001)).expect("it is small");
        self.slowest * thousandths / 1_000
    }

    pub(super) fn content(&self, file: FileId) -> &Content {
        self.files.get(&file).expect("a file outlives its names")
    }

    pub(super) fn content_mut(&mut self, file: FileId) -> &mut Content {
        self.files.get_mut(&file).expect("a file outlives its names")
    }

    /// How far a write gets that is to be durable.
    fn reach(&self) -> Reach {
        if self.lies { Reach::Cache } else { Reach::Device }
    }

    /// Numbers an operation and says what becomes of it; fails where nothing happens any more.
    fn begin(&mut self) -> io::Result<Fate> {
        self.operations += 1;
        if self.frozen {
            return Err(stopped());
        }
        let fate = self.plan.fate(self.operations);
        if fate == Fate::Freezes {
            self.frozen = true;
            self.abandon_in_flight();
        }
        Ok(fate)
    }

    /// Carries out what happens whole or not at all, and no further than the cache where the machine stops.
    fn all_or_nothing(&mut self, change: impl FnOnce(&mut Self, Reach) -> io::Result<()>) -> io::Result<()> {
        match self.begin()? {
            Fate::Passes { .. } => change(self, self.reach()),
            Fate::Fails(failure) => Err(failure.error()),
            Fate::Freezes => {
                if self.random.coin() {
                    change(self, Reach::Cache)?;
                }
                Err(stopped())
            }
        }
    }

    pub(super) fn create_dirs(&mut self, dir: &Path) -> io::Result<()> {
        self.all_or_nothing(|state, reach| state.tree.create_dirs(dir, reach == Reach::Device))
    }

    /// A removal or a renaming, unsynced.
    pub(super) fn change_names(
        &mut self,
        change: impl FnOnce(&mut Tree) -> io::Result<()>,
    ) -> io::Result<()> {
        self.all_or_nothing(|state, _| change(&mut state.tree))
    }

    pub(super) fn punch_from(&mut self, file: FileId, offset: u64) -> io::Result<()> {
        let at = to_usize(offset)?;
        self.all_or_nothing(|state, reach| {
            state.content_mut(file).zero_from(at, reach);
            Ok(())
        })
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        match self.begin()? {
            Fate::Passes { .. } if self.lies => self.tree.list(dir).map(drop),
            Fate::Passes { .. } => self.tree.sync(dir),
            Fate::Fails(failure) => {
                self.tree.fail_sync(dir)?;
                Err(failure.error())
            }
            // Half a sync is one of the things that a power cut finds anyway.
            Fate::Freezes => Err(stopped()),
        }
    }

    pub(super) fn sync(&mut self, file: FileId) -> io::Result<()> {
        match self.begin()? {
            Fate::Passes { .. } => {
                if !self.lies {
                    self.content_mut(file).sync();
                }
                Ok(())
            }
            Fate::Fails(failure) => {
                self.content_mut(file).fail_sync();
                Err(failure.error())
            }
            Fate::Freezes => Err(stopped()),
        }
    }

    /// A file of zeros.
    pub(super) fn preallocate(&mut self, path: &Path, len: u64) -> io::Result<()> {
        let count = to_usize(len)?;
        self.create_with(path, len, || vec![0; count])
    }

    /// A file of this content, under a name that is not durable yet; one of that name loses it.
    pub(super) fn create(&mut self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        self.create_with(path, content.len() as u64, || content)
    }

    /// `content` makes `len` bytes, and is not asked to where there is no room for them.
    fn create_with(&mut self, path: &Path, len: u64, content: impl FnOnce() -> Vec<u8>) -> io::Result<()> {
        let fate = self.begin()?;
        let has_room = self.has_room(self.tree.find_file(path).ok(), len);
        let error = match fate {
            Fate::Passes { .. } => {
                if !has_room {
                    self.put_anew(path, Vec::new(), Reach::Cache)?;
                    return Err(ErrorKind::StorageFull.into());
                }
                return self.put_anew(path, content(), self.reach()).map(drop);
            }
            Fate::Fails(failure) => failure.error(),
            Fate::Freezes => stopped(),
        };
        // It came to its end when the file was opened, filled or synced.
        match self.random.below(3) {
            0 => {}
            2 if has_room => {
                let file = self.put_anew(path, content(), Reach::Cache)?;
                if !self.frozen {
                    self.content_mut(file).fail_sync();
                }
            }
            _ => drop(self.put_anew(path, Vec::new(), Reach::Cache)?),
        }
        Err(error)
    }

    /// A new file under this name; one that was there loses it, as readers may have it mapped.
    fn put_anew(&mut self, path: &Path, content: Vec<u8>, reach: Reach) -> io::Result<FileId> {
        match self.tree.remove(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => self.put(path, content, reach),
        }
    }

    /// Fills the file of that name, which is made where it is missing.
    pub(super) fn put(&mut self, path: &Path, content: Vec<u8>, reach: Reach) -> io::Result<FileId> {
        let file = match self.tree.find_file(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = FileId(self.file_next);
                self.tree.link(path, file)?;
                self.file_next += 1;
                self.files.insert(file, Content::default());
                file
            }
            Err(error) => return Err(error),
        };
        self.content_mut(file).replace(content, reach);
        Ok(file)
    }

    /// Whether a file, or one yet to be made, may get this long.
    fn has_room(&self, file: Option<FileId>, len: u64) -> bool {
        let own = file.map_or(0, |file| self.content(file).len() as u64);
        if self.capacity == u64::MAX || len <= own {
            return true;
        }
        let others = self.tree.file_ids().into_iter().filter(|other| Some(*other) != file);
        let used: u64 = others.map(|other| self.content(other).len() as u64).sum();
        used.saturating_add(len) <= self.capacity
    }

    /// Numbers a durable write and decides what becomes of it.
    pub(super) fn begin_write(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: Vec<u8>,
    ) -> io::Result<DurableWrite> {
        let at = to_usize(offset)?;
        let fate = self.begin()?;
        let (sectors, len) = (bytes.len() / SECTOR_BYTES, bytes.len());
        let whole = 0..len;
        let (steps, failure) = match fate {
            Fate::Passes { in_halves: false } | Fate::Freezes => (vec![whole], None),
            Fate::Passes { in_halves: true } => {
                let half = sectors / 2 * SECTOR_BYTES;
                (vec![0..half, half..len], None)
            }
            Fate::Fails(Failure::AfterSome) => {
                let some = 0..self.random.below(sectors.max(1)) * SECTOR_BYTES;
                (vec![some], Some(Failure::AfterSome))
            }
            Fate::Fails(failure) => (Vec::new(), Some(failure)),
        };
        let write = DurableWrite { file, at, bytes, steps, failure };
        if fate == Fate::Freezes {
            self.abandon(&write);
            return Err(stopped());
        }
        Ok(write)
    }

    /// One step of a durable write.
    pub(super) fn land(&mut self, write: &DurableWrite, step: Range<usize>) -> io::Result<()> {
        if self.frozen {
            return Err(stopped());
        }
        let at = write.at + step.start;
        let end = write.at + step.end;
        if !self.has_room(Some(write.file), end as u64) {
            return Err(ErrorKind::StorageFull.into());
        }
        let reach = self.reach();
        self.content_mut(write.file).write(at, &write.bytes[step], reach);
        Ok(())
    }

    /// Keeps a durable write for later.
    pub(super) fn keep_in_flight(&mut self, write: DurableWrite) -> InFlightId {
        let id = InFlightId(self.in_flight_next);
        self.in_flight_next += 1;
        self.in_flight.insert(id, write);
        self.in_flight_most = self.in_flight_most.max(self.in_flight.len());
        id
    }

    /// Hands a kept write back, to complete it.
    pub(super) fn take_in_flight(&mut self, id: InFlightId) -> io::Result<DurableWrite> {
        self.in_flight.remove(&id).ok_or_else(stopped)
    }

    /// Ends the writes in flight as the end of their process or their machine does.
    pub(super) fn abandon_in_flight(&mut self) {
        while let Some((_, write)) = self.in_flight.pop_first() {
            self.abandon(&write);
        }
    }

    /// A write that nobody waits for any more was not begun, or is somewhere in the device, or is durable.
    fn abandon(&mut self, write: &DurableWrite) {
        let reach = match self.random.below(3) {
            0 => return,
            1 => Reach::Cache,
            _ => self.reach(),
        };
        if self.has_room(Some(write.file), (write.at + write.bytes.len()) as u64) {
            self.content_mut(write.file).write(write.at, &write.bytes, reach);
        }
    }

    /// What a power cut does to names and contents.
    pub(super) fn lose_power(&mut self) {
        self.tree.lose_power(&mut self.random);
        let named = self.tree.file_ids();
        self.files.retain(|file, _| named.contains(file));
        for content in self.files.values_mut() {
            content.lose_power(&mut self.random);
        }
    }

    /// What the end of all processes does, to begin anew with an honest disk.
    pub(super) fn forget_processes(&mut self) {
        self.operations = 0;
        self.plan = Plan::default();
        self.frozen = false;
        self.lies = false;
        self.locks.clear();
        self.writers.clear();
    }
}

impl DurableWrite {
    pub(super) fn steps(&self) -> &[Range<usize>] {
        &self.steps
    }

    /// How it ends once its steps are done.
    pub(super) fn result(&self) -> io::Result<()> {
        self.failure.map_or(Ok(()), |failure| Err(failure.error()))
    }
}

/// What a stopped machine would say if it could.
fn stopped() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}

fn to_usize(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| ErrorKind::FileTooLarge.into())
}
