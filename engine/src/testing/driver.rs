//! The driver: what is done to a store is done to the model, too, and what both say is compared. It panics where they differ.

use super::{Clock, Model, Operation, SimulatedDisk, check_prefix, is_same_outcome};
use super::{open_simulated, open_simulated_read_only};
use crate::{
    Append, AppendError, Appended, OpenError, Position, Read, ReadError, Record, Settings, Store, Ticket,
    Timestamp,
};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where a store is.
pub trait Place: fmt::Debug {
    /// Opens the store for writing.
    ///
    /// # Errors
    /// As [`Store::open`].
    fn open(&self, settings: &Settings, clock: Clock) -> Result<Store, OpenError>;

    /// Opens the store for reading alone.
    ///
    /// # Errors
    /// As [`Store::open_read_only`].
    fn open_read_only(&self) -> Result<Store, OpenError>;

    /// Goes on with what is found after the store's process, or where `power` says so its machine, stopped right now.
    fn stop(&mut self, seed: u64, power: bool);

    /// Whether what is on its way has to arrive before a stop: nothing really ends then, and what is copied must not change.
    fn settles_before_a_stop(&self) -> bool;
}

/// A store on a simulated disk.
#[derive(Debug)]
pub struct SimulatedPlace {
    disk: SimulatedDisk,
}

const SIMULATED_DIR: &str = "/data/store";

impl SimulatedPlace {
    /// On this disk. The directory above the store's is there already.
    #[must_use]
    pub fn new(disk: SimulatedDisk) -> Self {
        disk.put_raw(Path::new("/data/neighbour"), b"not of the store");
        Self { disk }
    }
}

impl Place for SimulatedPlace {
    fn open(&self, settings: &Settings, clock: Clock) -> Result<Store, OpenError> {
        open_simulated(&self.disk, Path::new(SIMULATED_DIR), settings.clone(), clock)
    }

    fn open_read_only(&self) -> Result<Store, OpenError> {
        open_simulated_read_only(&self.disk, Path::new(SIMULATED_DIR))
    }

    fn stop(&mut self, seed: u64, power: bool) {
        self.disk = if power { self.disk.crash(seed) } else { self.disk.kill() };
    }

    fn settles_before_a_stop(&self) -> bool {
        false
    }
}

/// An append whose outcome was not looked at yet.
#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    expected: Result<Appended, AppendError>,
    /// Length of the model behind it.
    events: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Driver<P> {
    place: P,
    settings: Settings,
    clock: Arc<AtomicU64>,
    model: Model,
    store: Option<Store>,
    pending: VecDeque<Pending>,
    /// Events that are known to be durable.
    durable: usize,
}

impl<P: Place> Driver<P> {
    /// Makes a store where there is none. Its clock begins at `clock`.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn new(place: P, settings: Settings, clock: u64) -> Result<Self, OpenError> {
        let clock = Arc::new(AtomicU64::new(clock));
        let store = Some(place.open(&settings, Clock::Manual(Arc::clone(&clock)))?);
        let model = Model::with_id_window(usize::try_from(settings.id_window).unwrap_or(usize::MAX));
        Ok(Self { place, settings, clock, model, store, pending: VecDeque::new(), durable: 0 })
    }

    /// What the store is once all is settled.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open between operations")
    }

    /// Does this to both.
    ///
    /// # Panics
    /// When they differ.
    pub fn apply(&mut self, operation: &Operation) {
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
                self.close();
                self.open(self.model.len());
            }
            Operation::Stop { seed, power } => self.stop(*seed, *power),
        }
    }

    /// Waits for everything, compares all that there is, closes the store, and compares once more.
    ///
    /// # Panics
    /// When they differ.
    pub fn finish(mut self) {
        self.settle(usize::MAX);
        self.everything(self.store());
        self.close();
        self.everything(&self.place.open_read_only().expect("what was closed can be read"));
    }

    fn close(&mut self) {
        let store = self.store.take().expect("it is open between operations");
        store.close().expect("nothing failed");
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
        let found = store.read(read.clone()).expect("the read is a sound one");
        let found: Vec<Record> = found.collect::<Result<_, _>>().expect("nothing is damaged");
        let is_as_of = |visible: usize| {
            let expected = self.model.read(read, visible).expect("the read is a sound one");
            expected.len() == found.len()
                && found.iter().zip(expected).all(|(record, (position, event))| event.is(position, record))
        };
        let possible = self.model.boundaries(self.durable).any(is_as_of);
        let positions: Vec<_> = found.iter().map(|record| record.position().get()).collect();
        assert!(possible, "{read:?} with {} to {} events gave {positions:?}", self.durable, self.model.len());
    }

    fn head(&self, stream: &str) {
        let head = self.store().head(stream).expect("nothing is damaged");
        let possible = self.model.boundaries(self.durable).any(|visible| {
            let mut model = self.model.clone();
            model.truncate(visible);
            model.head(stream) == head
        });
        assert!(possible, "the head of {stream} cannot be {head:?}");
    }

    fn read_beside(&self) {
        let beside = self.place.open_read_only().expect("nothing is damaged");
        self.check_prefix(&beside, 0);
        if let Some(last) = self.durable.checked_sub(1) {
            let last = Position::new(last as u64);
            let follows = beside.wait_for(last, Duration::from_secs(5));
            assert!(follows.expect("nothing is damaged"), "it does not follow");
            self.check_prefix(&beside, self.durable);
        }
    }

    /// All that is in a store is a prefix of the model of at least this length; its length.
    fn check_prefix(&self, store: &Store, least: usize) -> usize {
        let found = read_all(store).expect("nothing is damaged");
        if let Err(difference) = check_prefix(&self.model, &found, least) {
            panic!("{difference}");
        }
        found.len()
    }

    fn stop(&mut self, seed: u64, power: bool) {
        if self.place.settles_before_a_stop() {
            self.settle(usize::MAX);
        }
        let settled = self.pending.iter().take_while(|pending| pending.ticket.is_settled()).count();
        self.settle(settled);
        self.place.stop(seed, power);
        self.pending.clear();
        self.store = None;
        let least = match self.place.open_read_only() {
            Ok(store) => self.check_prefix(&store, self.durable),
            Err(OpenError::NoStore { .. }) if self.model.is_empty() => 0,
            Err(error) => panic!("after a stop: {error}"),
        };
        self.open(least);
    }

    /// Opens for writing; what is found there is from then on what the store is.
    fn open(&mut self, least: usize) {
        let opened = self.place.open(&self.settings, Clock::Manual(Arc::clone(&self.clock)));
        let store = opened.expect("what a stop or a close left can be opened");
        let found = self.check_prefix(&store, least);
        self.model.truncate(found);
        self.durable = found;
        self.cursors(&store);
        self.store = Some(store);
    }

    /// The cursors are where the model has them, of which all is durable.
    fn cursors(&self, store: &Store) {
        for name in super::operations::CURSORS {
            let cursor = store.cursor(name).expect("nothing is damaged");
            assert_eq!(cursor, self.model.cursor(name), "cursor {name}");
        }
    }

    fn everything(&self, store: &Store) {
        self.check_prefix(store, self.model.len());
        let verified = store.verify(&mut |_, _| {}).expect("it can be read");
        assert!(verified.is_ok() && verified.events == self.model.len() as u64, "{verified:?}");
        self.cursors(store);
        let streams = self.model.events().iter().map(|stored| stored.event.stream.to_string());
        let heads: BTreeMap<_, _> =
            streams.filter_map(|stream| Some((stream.clone(), self.model.head(&stream)?))).collect();
        let found: Result<BTreeMap<_, _>, _> = store.streams().expect("it can be read").collect();
        assert_eq!(found.expect("nothing is damaged"), heads);
        for stream in heads.keys() {
            self.read(store, &Read::stream(stream.clone()));
            self.read(store, &Read::stream(stream.clone()).backwards());
        }
    }
}

/// Everything in a store.
///
/// # Errors
/// As [`Store::read`]; the first that there is.
pub fn read_all(store: &Store) -> Result<Vec<Record>, ReadError> {
    store.read(Read::all())?.collect()
}
