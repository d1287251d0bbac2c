//! Random operations on a store and on its model, which must agree about everything.
//!
//! `ANNALS_CASES` multiplies the number of seeds; `ANNALS_SEED` runs one alone.

use crate::support::{cases, check_prefix, copy_store, read_all, scored, small};
use annals::testing::{
    Clock, Model, Operation, Operations, SimulatedDisk, is_same_outcome, open_pipelined, open_simulated,
    open_simulated_read_only, open_with_clock,
};
use annals::{
    Append, AppendError, Appended, DiskChoice, OpenError, Position, Read, Settings, Store, Ticket, Timestamp,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const CLOCK_START: u64 = 1_700_000_000_000_000_000;
const OPERATIONS: u64 = 150;

/// Where the store is.
enum Place {
    Real { root: tempfile::TempDir, moves: u32, pipelined: bool },
    Simulated { disk: SimulatedDisk },
}

impl Place {
    fn dir(&self) -> PathBuf {
        match self {
            Self::Real { root, moves, .. } => root.path().join(moves.to_string()),
            Self::Simulated { .. } => "/data/store".into(),
        }
    }

    fn open(&self, settings: &Settings, clock: &Arc<AtomicU64>) -> Result<Store, OpenError> {
        let clock = Clock::Manual(Arc::clone(clock));
        match self {
            Self::Real { pipelined: true, .. } => open_pipelined(&self.dir(), settings.clone(), clock),
            Self::Real { .. } => open_with_clock(&self.dir(), settings.clone(), clock),
            Self::Simulated { disk } => open_simulated(disk, &self.dir(), settings.clone(), clock),
        }
    }

    fn open_read_only(&self) -> Result<Store, OpenError> {
        match self {
            Self::Real { .. } => Store::open_read_only(self.dir()),
            Self::Simulated { disk } => open_simulated_read_only(disk, &self.dir()),
        }
    }

    /// What is found after the store's process, or its machine, stopped right now. A real machine is left running.
    fn stop(&mut self, seed: u64, power: bool) {
        match self {
            Self::Real { root, moves, .. } => {
                let from = root.path().join(moves.to_string());
                *moves += 1;
                copy_store(&from, &root.path().join(moves.to_string()));
            }
            Self::Simulated { disk } => *disk = if power { disk.crash(seed) } else { disk.kill() },
        }
    }
}

struct Pending {
    ticket: Ticket,
    expected: Result<Appended, AppendError>,
    /// Length of the model behind it.
    events: usize,
}

struct Driver {
    place: Place,
    settings: Settings,
    clock: Arc<AtomicU64>,
    model: Model,
    store: Option<Store>,
    pending: VecDeque<Pending>,
    /// Events that are known to be durable.
    durable: usize,
}

impl Driver {
    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open between operations")
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Append(append) => self.append(append),
            Operation::AppendEach(appends) => self.append_each(appends),
            Operation::Settle => self.settle(usize::MAX),
            Operation::Read(read) => self.read(self.store(), read),
            Operation::Head(stream) => self.head(stream),
            Operation::ReadBeside => self.read_beside(),
            Operation::SetClock(now) => self.clock.store(*now, Ordering::SeqCst),
            Operation::Reopen => {
                self.settle(usize::MAX);
                self.store.take().unwrap().close().unwrap();
                self.open(self.model.len());
            }
            Operation::Stop { seed, power } => self.stop(*seed, *power),
        }
    }

    fn append(&mut self, append: &Append<'static>) {
        let answer = self.store().append(append.clone());
        self.compare(append, answer);
    }

    fn append_each(&mut self, appends: &[Append<'static>]) {
        let answers = self.store().append_each(appends);
        assert_eq!(answers.len(), appends.len());
        for (append, answer) in appends.iter().zip(answers) {
            self.compare(append, answer);
        }
    }

    fn compare(&mut self, append: &Append<'static>, answer: Result<Ticket, AppendError>) {
        let now = Timestamp::new(self.clock.load(Ordering::SeqCst));
        let expected = self.model.append(append, now);
        match answer {
            Ok(ticket) => self.pending.push_back(Pending { ticket, expected, events: self.model.len() }),
            Err(error) => {
                assert!(is_same_outcome(&Err(error.clone()), &expected), "{error:?} instead of {expected:?}")
            }
        }
    }

    /// Waits for the oldest `count` appends.
    fn settle(&mut self, count: usize) {
        for Pending { ticket, expected, events } in self.pending.drain(..count.min(self.pending.len())) {
            let outcome = ticket.wait();
            assert!(is_same_outcome(&outcome, &expected), "{outcome:?} instead of {expected:?}");
            self.durable = self.durable.max(events);
        }
    }

    /// A read shows what one moment had: all that is acknowledged, and whole batches of what is on its way.
    fn read(&self, store: &Store, read: &Read<'static>) {
        let found: Result<Vec<_>, _> = store.read(read.clone()).unwrap().collect();
        let found = found.unwrap();
        let is_as_of = |visible: usize| {
            let expected = self.model.read(read, visible).unwrap();
            expected.len() == found.len()
                && found.iter().zip(expected).all(|(record, (position, event))| event.is(position, record))
        };
        let possible = self.model.boundaries(self.durable).any(is_as_of);
        let positions: Vec<_> = found.iter().map(|record| record.position().get()).collect();
        assert!(possible, "{read:?} with {} to {} events gave {positions:?}", self.durable, self.model.len());
    }

    fn head(&self, stream: &str) {
        let head = self.store().head(stream).unwrap();
        let possible = self.model.boundaries(self.durable).any(|visible| {
            let mut model = self.model.clone();
            model.truncate(visible);
            model.head(stream) == head
        });
        assert!(possible, "the head of {stream} cannot be {head:?}");
    }

    fn read_beside(&self) {
        let beside = self.place.open_read_only().unwrap();
        check_prefix(&self.model, &read_all(&beside).unwrap(), 0).unwrap();
        if let Some(last) = self.durable.checked_sub(1) {
            assert!(
                beside.wait_for(Position::new(last as u64), Duration::from_secs(5)).unwrap(),
                "it does not follow"
            );
            check_prefix(&self.model, &read_all(&beside).unwrap(), self.durable).unwrap();
        }
    }

    fn stop(&mut self, seed: u64, power: bool) {
        if matches!(self.place, Place::Real { .. }) {
            self.settle(usize::MAX);
        }
        let settled = self.pending.iter().take_while(|pending| pending.ticket.is_settled()).count();
        self.settle(settled);
        self.place.stop(seed, power);
        self.pending.clear();
        self.store = None;
        let least = match self.place.open_read_only() {
            Ok(store) => {
                let seen = read_all(&store).unwrap();
                check_prefix(&self.model, &seen, self.durable).unwrap();
                seen.len()
            }
            Err(OpenError::NoStore { .. }) if self.model.is_empty() => 0,
            Err(error) => panic!("after a stop: {error}"),
        };
        self.open(least);
    }

    /// Opens for writing; what is found there is from then on what the store is.
    fn open(&mut self, least: usize) {
        let store = self.place.open(&self.settings, &self.clock).unwrap();
        let found = read_all(&store).unwrap();
        check_prefix(&self.model, &found, least).unwrap();
        self.model.truncate(found.len());
        self.durable = found.len();
        self.cursors(&store);
        self.store = Some(store);
    }

    fn finish(&mut self) {
        self.settle(usize::MAX);
        self.everything(self.store());
        self.store.take().unwrap().close().unwrap();
        self.everything(&self.place.open_read_only().unwrap());
    }

    /// The cursors are where the model has them, of which all is durable.
    fn cursors(&self, store: &Store) {
        for name in ["handler", "reader-ü"] {
            assert_eq!(store.cursor(name).unwrap(), self.model.cursor(name), "cursor {name}");
        }
    }

    fn everything(&self, store: &Store) {
        check_prefix(&self.model, &read_all(store).unwrap(), self.model.len()).unwrap();
        let verified = store.verify(&mut |_, _| {}).unwrap();
        assert!(verified.is_ok() && verified.events == self.model.len() as u64, "{verified:?}");
        self.cursors(store);
        let mut heads = BTreeMap::new();
        for stored in self.model.events() {
            heads.insert(stored.event.stream.to_string(), self.model.head(&stored.event.stream).unwrap());
        }
        let found: BTreeMap<_, _> = store.streams().unwrap().map(Result::unwrap).collect();
        assert_eq!(found, heads);
        for stream in heads.keys() {
            self.read(store, &Read::stream(stream.clone()));
            self.read(store, &Read::stream(stream.clone()).backwards());
        }
    }
}

/// Says which seed and operation it was when a test fails.
struct Note<'a> {
    name: &'a str,
    seed: u64,
    number: u64,
    operation: String,
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}, seed {}, operation {}: {:.300}",
                self.name, self.seed, self.number, self.operation
            );
        }
    }
}

/// Seeds differ in what is kept in memory and whether bodies are compressed, too.
fn settings(disk: DiskChoice, seed: u64) -> Settings {
    Settings {
        recent_bytes: if seed.is_multiple_of(2) { 0 } else { 16 << 20 },
        id_window: if seed % 3 == 1 { 25 } else { 1_000_000 },
        cached_heads: if seed.is_multiple_of(3) { 2 } else { 1_000 },
        compress_above_bytes: (seed % 4 == 1).then_some(200),
        ..small(disk)
    }
}

fn run(name: &str, seed: u64, place: Place, settings: Settings) -> Result<(), OpenError> {
    let clock = Arc::new(AtomicU64::new(CLOCK_START));
    let store = place.open(&settings, &clock)?;
    let model = Model::with_id_window(usize::try_from(settings.id_window).unwrap());
    let mut driver =
        Driver { place, settings, clock, model, store: Some(store), pending: VecDeque::new(), durable: 0 };
    let mut operations = Operations::new(seed, CLOCK_START);
    let mut note = Note { name, seed, number: 0, operation: String::new() };
    for number in 0..OPERATIONS {
        let operation = operations.next_for(&driver.model);
        note.number = number;
        note.operation = format!("{operation:?}");
        driver.apply(&operation);
    }
    note.operation = "finish".to_owned();
    driver.finish();
    Ok(())
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..cases(count),
    }
}

fn on_real(name: &str, choice: DiskChoice, pipelined: bool) {
    for seed in seeds(4) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("0")).unwrap();
        match run(name, seed, Place::Real { root, moves: 0, pipelined }, settings(choice, seed)) {
            Ok(()) => {}
            Err(OpenError::DiskUnavailable { reason, .. }) => {
                println!("SKIPPED {name}: {reason}");
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn on_simulated(name: &str, depth: Option<usize>) {
    for seed in seeds(25) {
        let disk = SimulatedDisk::new(seed);
        if let Some(depth) = depth {
            disk.set_depth(depth);
        }
        disk_dir(&disk);
        run(name, seed, Place::Simulated { disk }, settings(DiskChoice::Auto, seed)).unwrap();
        scored("R11", 1, 1);
    }
}

/// The directory above the store's is there already.
fn disk_dir(disk: &SimulatedDisk) {
    disk.put_raw(Path::new("/data/neighbour"), b"not of the store");
}

#[test]
fn a_store_on_the_ring_does_as_the_model() {
    on_real("ring", DiskChoice::Ring, false);
}

#[test]
fn a_store_with_writes_in_flight_on_the_ring_does_as_the_model() {
    on_real("ring, pipelined", DiskChoice::Ring, true);
}

#[test]
fn a_store_on_the_direct_disk_does_as_the_model() {
    on_real("direct", DiskChoice::Direct, false);
}

#[test]
fn a_store_on_the_buffered_disk_does_as_the_model() {
    on_real("buffered", DiskChoice::Buffered, false);
}

#[test]
fn a_store_on_the_simulated_disk_does_as_the_model_through_kills_and_power_cuts() {
    on_simulated("simulated", None);
}

#[test]
fn a_store_on_the_simulated_disk_of_depth_1_does_as_the_model_through_kills_and_power_cuts() {
    on_simulated("simulated, depth 1", Some(1));
}

#[test]
fn a_store_on_the_simulated_disk_of_depth_4_does_as_the_model_through_kills_and_power_cuts() {
    on_simulated("simulated, depth 4", Some(4));
}

#[test]
fn the_operations_reach_every_outcome_of_an_append() {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..10 {
        let (mut model, mut clock) = (Model::new(), CLOCK_START);
        let mut operations = Operations::new(seed, CLOCK_START);
        for _ in 0..OPERATIONS {
            let outcome = match operations.next_for(&model) {
                Operation::SetClock(now) => {
                    clock = now;
                    continue;
                }
                Operation::Append(append) => model.append(&append, Timestamp::new(clock)),
                Operation::AppendEach(appends) => {
                    for append in appends {
                        let _ = model.append(&append, Timestamp::new(clock));
                    }
                    continue;
                }
                _ => continue,
            };
            let name = match outcome {
                Ok(appended) if appended.repeated => "repeated",
                Ok(_) => "written",
                Err(AppendError::WrongVersion { .. }) => "wrong version",
                Err(AppendError::IdConflict { position: Some(_), .. }) => "id conflict",
                Err(AppendError::TimeBackwards { .. }) => "time backwards",
                Err(AppendError::TimeAhead { .. }) => "time ahead",
                Err(AppendError::QueryMatched { .. }) => "query matched",
                Err(AppendError::AfterTheEnd { .. }) => "after the end",
                Err(AppendError::WrongCursor { .. }) => "wrong cursor",
                Err(AppendError::CursorAfterTheEnd { .. }) => "cursor after the end",
                Err(error) => panic!("{error}"),
            };
            *counts.entry(name).or_default() += 1;
        }
    }
    assert_eq!(counts.len(), 10, "{counts:?}");
    println!("{counts:?}");
}
