//! What somebody might do to a store, at random or as given bytes choose, but repeatably: the same seed or bytes give the
//! same operations, as long as the model that they are made for goes the same way.

use super::model::Model;
use crate::{
    Append, Condition, ExpectedVersion, NewEvent, Position, Query, QueryItem, Read, Timestamp, Uuid, Version,
};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _, TryRng};
use std::convert::Infallible;

/// A thing to do to a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Append this; it may be wrong, and it may be a repeat.
    Append(Append<'static>),
    /// Append each of these, handed over together.
    AppendEach(Vec<Append<'static>>),
    /// Wait for everything that was appended.
    Settle,
    /// Read this.
    Read(Read<'static>),
    /// Look at the head of this stream.
    Head(String),
    /// Open the store for reading alone beside its writer, and read everything.
    ReadBeside,
    /// Set the clock, in nanoseconds since the Unix epoch.
    SetClock(u64),
    /// Close the store and open it again.
    Reopen,
    /// Stop without closing, and open it again. The chance that the stop needs is in `seed`; it is a cut of the
    /// power where `power` says so, else the end of the process alone.
    Stop {
        /// What the chance of the stop comes from.
        seed: u64,
        /// Whether the power is cut.
        power: bool,
    },
}

/// Earlier appends that can be repeated.
const REMEMBERED: usize = 40;
/// Names of the streams; few, so that they meet.
const STREAMS: [&str; 6] = ["a", "b-1", "b-2", "c-with a longer name-ü", "d", "e"];

/// Names of the cursors.
pub(super) const CURSORS: [&str; 2] = ["handler", "reader-ü"];

/// Types of the events.
const TYPES: [&str; 3] = ["Placed", "Paid", "Shipped"];

/// Where choices come from.
#[derive(Debug)]
enum Choices {
    Seeded(Box<StdRng>),
    /// A byte a choice, so that a fuzzer that changes one changes one choice; behind the last, all are 0.
    Given {
        bytes: Vec<u8>,
        next: usize,
    },
}

impl Choices {
    /// The next given byte.
    fn byte(bytes: &[u8], next: &mut usize) -> u8 {
        let byte = bytes.get(*next).copied().unwrap_or(0);
        *next += 1;
        byte
    }
}

impl TryRng for Choices {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(match self {
            Self::Seeded(random) => random.next_u32(),
            // Whether the upper or the lower bits of it are used.
            Self::Given { bytes, next } => u32::from_le_bytes([Self::byte(bytes, next); 4]),
        })
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(match self {
            Self::Seeded(random) => random.next_u64(),
            Self::Given { bytes, next } => u64::from_le_bytes([Self::byte(bytes, next); 8]),
        })
    }

    fn try_fill_bytes(&mut self, filled: &mut [u8]) -> Result<(), Infallible> {
        match self {
            Self::Seeded(random) => random.fill_bytes(filled),
            Self::Given { bytes, next } => filled.fill_with(|| Self::byte(bytes, next)),
        }
        Ok(())
    }
}

/// Makes operations.
#[derive(Debug)]
pub struct Operations {
    random: Choices,
    /// How many ids were drawn.
    ids: u64,
    clock: u64,
    remembered: Vec<Append<'static>>,
}

impl Operations {
    /// The operations of this seed. The clock begins at `clock`.
    #[must_use]
    pub fn new(seed: u64, clock: u64) -> Self {
        Self::with(Choices::Seeded(Box::new(StdRng::seed_from_u64(seed))), clock)
    }

    /// The operations that these bytes choose.
    #[must_use]
    pub fn chosen_by(bytes: &[u8], clock: u64) -> Self {
        Self::with(Choices::Given { bytes: bytes.to_vec(), next: 0 }, clock)
    }

    fn with(random: Choices, clock: u64) -> Self {
        Self { random, ids: 0, clock, remembered: Vec::new() }
    }

    /// Whether all bytes were used that were to choose.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        matches!(&self.random, Choices::Given { bytes, next } if *next >= bytes.len())
    }

    /// The next operation on a store that is, or will be once all is settled, as the model.
    pub fn next_for(&mut self, model: &Model) -> Operation {
        match self.random.random_range(0..100) {
            0..42 => Operation::Append(self.append(model)),
            42..50 => {
                let count = self.random.random_range(0..6);
                Operation::AppendEach((0..count).map(|_| self.append(model)).collect())
            }
            50..60 => self.repeat().map_or(Operation::Settle, Operation::Append),
            60..68 => Operation::Settle,
            68..82 => Operation::Read(self.read(model)),
            82..86 => Operation::Head(self.stream()),
            86..88 => Operation::ReadBeside,
            88..93 => Operation::SetClock(self.tick()),
            93..96 => Operation::Reopen,
            _ => Operation::Stop { seed: self.random.random(), power: self.random.random() },
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn stream(&mut self) -> String {
        STREAMS[self.random.random_range(0..STREAMS.len())].to_owned()
    }

    /// Mostly on; now and then back, as clocks do.
    fn tick(&mut self) -> u64 {
        let step = self.random.random_range(0..1_000_000_000);
        self.clock = if self.chance(80) { self.clock + step } else { self.clock.saturating_sub(step) };
        self.clock
    }

    fn append(&mut self, model: &Model) -> Append<'static> {
        let events = match self.random.random_range(0..100) {
            0..60 => 1,
            60..95 => self.random.random_range(2..6),
            _ => self.random.random_range(6..80),
        };
        let one_stream = self.chance(60).then(|| self.stream());
        let mut append = Append::new();
        for _ in 0..events {
            let stream = one_stream.clone().unwrap_or_else(|| self.stream());
            append = append.event(self.event(stream));
        }
        if self.chance(10) {
            append = self.with_times(append, model);
        }
        let written: Vec<_> = append.events.iter().map(|event| event.stream.to_string()).collect();
        for _ in 0..[0, 1, 1, 2][self.random.random_range(0..4)] {
            let stream = if self.chance(80) { written[0].clone() } else { self.stream() };
            let expected = self.expected(model, &stream);
            append = append.expect(stream, expected);
        }
        if self.chance(20) {
            let (query, after) = (self.query(model), self.after(model));
            append = append.fail_if_matches(query, after);
        }
        if self.chance(15) {
            append = self.with_cursor(append, model);
        }
        self.remember(&append);
        append
    }

    /// Sets a cursor, and mostly expects it where it is.
    fn with_cursor(&mut self, mut append: Append<'static>, model: &Model) -> Append<'static> {
        let cursor = CURSORS[self.random.random_range(0..CURSORS.len())];
        if self.chance(60) {
            let actual = model.cursor(cursor).and_then(|cursor| cursor.position);
            let expected = if self.chance(80) { actual } else { self.after(model) };
            append = append.expect_cursor(cursor, expected);
        }
        if self.chance(80) { append.advance(cursor, self.after(model)) } else { append }
    }

    /// Mostly near the end, now and then beyond it.
    fn after(&mut self, model: &Model) -> Option<Position> {
        let len = model.len() as u64;
        match self.random.random_range(0..10) {
            0 => None,
            1 => Some(Position::new(self.random.random_range(0..len + 1))),
            2 => Some(Position::new(len + self.random.random_range(0..3))),
            _ => len.checked_sub(1 + self.random.random_range(0..8)).map(Position::new),
        }
    }

    fn event(&mut self, stream: String) -> NewEvent<'static> {
        let mut event = NewEvent::new(stream, TYPES[self.random.random_range(0..TYPES.len())]);
        let data = match self.random.random_range(0..200) {
            0 => 100_000,
            1..60 => self.random.random_range(0..5_000),
            _ => self.random.random_range(0..200),
        };
        // Half noise and half repetition, so that compression has something to do.
        let mut noise = StdRng::seed_from_u64(self.random.random());
        let noise: Vec<u8> = (0..data).map(|at| if at % 2 == 0 { noise.random() } else { b'x' }).collect();
        if self.chance(50) {
            event = event.binary(noise);
        } else {
            event = event.json(format!("{{\"n\":{data}}}"));
        }
        if self.chance(20) {
            event = event.metadata(vec![b'm'; self.random.random_range(0..300)]);
        }
        for tag in 0..[0, 0, 1, 3][self.random.random_range(0..4)] {
            event = event.tag(format!("tag:{tag}"));
        }
        if self.chance(90) {
            event = event.id(self.id());
        }
        if self.chance(20) {
            event = event.correlation(self.id()).causation(self.id());
        }
        event
    }

    /// One that was never drawn, whatever bytes choose: what is repeated is repeated on purpose.
    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u64_pair(self.random.random(), self.ids)
    }

    /// Given times: mostly in order, at times backwards or too far ahead.
    fn with_times(&mut self, mut append: Append<'static>, model: &Model) -> Append<'static> {
        let last = model.events().last().and_then(|stored| stored.event.time).unwrap_or_default().get();
        let mut time = match self.random.random_range(0..10) {
            0 => last.saturating_sub(1 + self.random.random_range(0..1_000)),
            1 => last.max(self.clock) + 61_000_000_000,
            _ => last + self.random.random_range(0..1_000),
        };
        for event in &mut append.events {
            event.time = Some(Timestamp::new(time));
            time += self.random.random_range(0..1_000);
        }
        if self.chance(5) {
            append.events[0].time = Some(Timestamp::new(time + 1));
        }
        append.raise_times = self.chance(40);
        append
    }

    /// Right four times out of five.
    fn expected(&mut self, model: &Model, stream: &str) -> ExpectedVersion {
        let head = model.head(stream).map(|head| head.version);
        if self.chance(20) {
            return match self.random.random_range(0..3) {
                0 => ExpectedVersion::NoStream,
                1 => ExpectedVersion::Exists,
                _ => ExpectedVersion::Exactly(Version::new(self.random.random_range(0..10))),
            };
        }
        match (head, self.random.random_range(0..3)) {
            (_, 0) => ExpectedVersion::Any,
            (None, _) => ExpectedVersion::NoStream,
            (Some(_), 1) => ExpectedVersion::Exists,
            (Some(version), _) => ExpectedVersion::Exactly(version),
        }
    }

    /// An append can be repeated safely where a stream that it writes is expected to be at one place.
    fn remember(&mut self, append: &Append<'static>) {
        let is_fixed = |condition: &Condition<'_>| match condition {
            Condition::Stream { stream, expected } => {
                expected.next_version().is_some() && append.events.iter().any(|event| event.stream == *stream)
            }
            _ => false,
        };
        let fixed = append.conditions.iter().any(is_fixed);
        if fixed {
            if self.remembered.len() == REMEMBERED {
                let forgotten = self.random.random_range(0..REMEMBERED);
                self.remembered.swap_remove(forgotten);
            }
            self.remembered.push(append.clone());
        }
    }

    /// An earlier append, exactly or a little altered.
    fn repeat(&mut self) -> Option<Append<'static>> {
        if self.remembered.is_empty() {
            return None;
        }
        let mut append = self.remembered[self.random.random_range(0..self.remembered.len())].clone();
        let event = self.random.random_range(0..append.events.len());
        match self.random.random_range(0..8) {
            0 => append.events[event].data.to_mut().push(b'!'),
            1 => append.events[event].event_type = "Altered".into(),
            2 => append.events[event].id = Some(self.id()),
            3 if append.events.len() > 1 => drop(append.events.pop()),
            4 => {
                let added = append.events[event].stream.to_string();
                append.events.push(self.event(added));
            }
            5 => append.events[event].tags.push("altered".into()),
            _ => {}
        }
        for event in &mut append.events {
            event.time = None;
        }
        Some(append)
    }

    fn read(&mut self, model: &Model) -> Read<'static> {
        let of_stream = self.chance(60);
        let mut read = if of_stream { Read::stream(self.stream()) } else { Read::all() };
        if self.chance(40) {
            read.query = self.query(model);
        }
        if self.chance(50) {
            read = self.bounded(read, model, of_stream, true);
        }
        if self.chance(40) {
            read = self.bounded(read, model, of_stream, false);
        }
        if self.chance(40) {
            read = read.backwards();
        }
        if self.chance(40) {
            read = read.limit(self.random.random_range(0..50));
        }
        read
    }

    fn query(&mut self, model: &Model) -> Query<'static> {
        (0..self.random.random_range(0..4)).fold(Query::all(), |query, _| query.or(self.query_item(model)))
    }

    /// Asks for little, and mostly for what some event has.
    fn query_item(&mut self, model: &Model) -> QueryItem<'static> {
        let mut item = QueryItem::new();
        for _ in 0..[0, 0, 1, 2][self.random.random_range(0..4)] {
            item = item.of_type(TYPES[self.random.random_range(0..TYPES.len())]);
        }
        for _ in 0..[0, 0, 1, 2][self.random.random_range(0..4)] {
            item = item.tag(format!("tag:{}", self.random.random_range(0..4)));
        }
        if self.chance(20) {
            item = item.stream(self.stream());
        }
        if self.chance(20) {
            item = item.category(self.stream().split('-').next().unwrap_or_default().to_owned());
        }
        let near = self.random.random_range(0..model.len() + 1);
        if let Some(stored) = model.events().get(near) {
            let (correlation, causation) = (stored.event.correlation, stored.event.causation);
            item.correlation = correlation.filter(|_| self.chance(30));
            item.causation = causation.filter(|_| self.chance(30));
        }
        item
    }

    fn bounded(&mut self, read: Read<'static>, model: &Model, of_stream: bool, from: bool) -> Read<'static> {
        let place = self.random.random_range(0..model.len() as u64 + 5);
        let bound = match self.random.random_range(0..3) {
            0 if of_stream => Version::new(place / STREAMS.len() as u64).into(),
            1 => {
                let near = usize::try_from(place).ok().and_then(|place| model.events().get(place));
                let time = near.and_then(|stored| stored.event.time).map_or(self.clock, Timestamp::get);
                Timestamp::new(time.saturating_add(self.random.random_range(0..3)).saturating_sub(1)).into()
            }
            _ => crate::Bound::from(Position::new(place)),
        };
        if from { read.from(bound) } else { read.until(bound) }
    }
}
