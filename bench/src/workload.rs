//! The workload: events of 256 bytes of data and a type of 16 bytes, to random streams out of a million.

use annals::{Append, ExpectedVersion, NewEvent, Position, QueryItem, Version};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt as _, SeedableRng as _};
use std::time::Instant;

/// Events whose streams are drawn at a time.
const DRAWN_AHEAD: usize = 32;
/// Streams that events go to.
pub(crate) const STREAMS: u32 = 1_000_000;
const EVENT_TYPE: &str = "MeasurementTaken";

/// A time to measure from.
#[expect(clippy::disallowed_methods, reason = "measuring is what this crate is for")]
pub(crate) fn stopwatch() -> Instant {
    Instant::now()
}

/// Writes a stream's name. The formatting of the standard library would take a twentieth of what is measured.
fn put_name(name: &mut String, prefix: &str, number: u32) {
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut rest = number;
    while at == digits.len() || rest > 0 {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    name.clear();
    name.push_str(prefix);
    name.push_str(std::str::from_utf8(&digits[at..]).expect("digits"));
}

/// One producer's events: to streams that it alone writes, each at the exact version.
#[derive(Debug)]
pub(crate) struct Producer {
    random: SmallRng,
    /// This producer writes the streams whose number is `index` modulo `count`.
    index: u32,
    count: u32,
    /// Events appended to each of its streams: some sixty in a minute.
    versions: Vec<u16>,
    /// The next events' streams and versions, the next one last.
    drawn: Vec<(u32, ExpectedVersion)>,
    data: Vec<u8>,
    /// What the names of its streams begin with.
    prefix: String,
    name: String,
    names: Vec<String>,
    turn: u64,
}

impl Producer {
    pub(crate) fn new(index: u32, count: u32) -> Self {
        Self::named("stream-".to_owned(), index, count)
    }

    /// One whose streams are those of a run alone, in a store that others were run on.
    pub(crate) fn of_run(run: u32, index: u32, count: u32) -> Self {
        Self::named(format!("stream-{run:x}-"), index, count)
    }

    fn named(prefix: String, index: u32, count: u32) -> Self {
        let mut random = SmallRng::seed_from_u64(u64::from(index) + 1);
        let mut data = vec![0; 256];
        random.fill_bytes(&mut data);
        Self {
            random,
            index,
            count,
            versions: vec![0; (STREAMS / count) as usize + 1],
            drawn: Vec::with_capacity(DRAWN_AHEAD),
            data,
            prefix,
            name: String::new(),
            names: Vec::new(),
            turn: 0,
        }
    }

    /// The next event, with the version that its stream must have.
    pub(crate) fn next(&mut self) -> (NewEvent<'_>, ExpectedVersion) {
        if self.drawn.is_empty() {
            self.draw_each(DRAWN_AHEAD);
            self.drawn.reverse();
        }
        let (number, expected) = self.drawn.pop().expect("some were drawn");
        put_name(&mut self.name, &self.prefix, number);
        (NewEvent::new(self.name.as_str(), EVENT_TYPE).binary(&self.data[..]), expected)
    }

    /// The number of the next event's stream, and the version that it must have.
    fn draw(&mut self) -> (u32, ExpectedVersion) {
        let own = self.random.random_range(0..STREAMS / self.count);
        let version = &mut self.versions[own as usize];
        let expected = match version.checked_sub(1) {
            None => ExpectedVersion::NoStream,
            Some(head) => ExpectedVersion::Exactly(Version::new(u64::from(head))),
        };
        *version += 1;
        (own * self.count + self.index, expected)
    }

    /// Draws so many events' streams. Their versions are in no cache: all are asked for before any is needed, as what a
    /// producer knows of its streams is no work of the store.
    fn draw_each(&mut self, count: usize) {
        self.drawn.clear();
        for _ in 0..count {
            let drawn = self.draw();
            self.drawn.push(drawn);
        }
    }

    /// Appends of one event each, handed over together.
    pub(crate) fn run(&mut self, count: usize) -> Vec<Append<'_>> {
        self.draw_each(count);
        self.names.resize_with(count, String::new);
        for (name, (number, _)) in self.names.iter_mut().zip(&self.drawn) {
            put_name(name, &self.prefix, *number);
        }
        let drawn = self.drawn.drain(..);
        let appends = self.names.iter().zip(drawn).map(|(name, (_, expected))| {
            let event = NewEvent::new(name.as_str(), EVENT_TYPE).binary(&self.data[..]);
            Append::from(event).expect(name.as_str(), expected)
        });
        appends.collect()
    }

    /// Appends of one event each with three tags, on the condition that nothing about its entity came after `after`.
    pub(crate) fn bounded(&mut self, count: usize, after: Option<Position>) -> Vec<Append<'_>> {
        let append = |_| {
            // Each entity comes again only when all others of this producer have: nothing of it is in flight.
            let own = u32::try_from(self.turn * 7919 % u64::from(STREAMS / self.count))
                .expect("fewer than streams");
            self.turn += 1;
            let number = own * self.count + self.index;
            let entity = format!("entity:{number}");
            let event = NewEvent::new(format!("stream-{number}"), EVENT_TYPE)
                .binary(&self.data[..])
                .tag(entity.clone())
                .tag(format!("group:{}", number % 1000))
                .tag(format!("tenant:{}", number % 10));
            Append::from(event).fail_if_matches(QueryItem::new().of_type(EVENT_TYPE).tag(entity), after)
        };
        (0..count).map(append).collect()
    }

    /// An append of `count` events, with exact versions.
    pub(crate) fn append(&mut self, count: usize) -> Append<'static> {
        let mut append = Append::new();
        for _ in 0..count {
            let (event, expected) = self.next();
            let known = append.events.iter().any(|other: &NewEvent<'_>| other.stream == event.stream);
            let stream = event.stream.clone().into_owned();
            let event = NewEvent::new(stream.clone(), EVENT_TYPE).binary(event.data.into_owned());
            append.events.push(event);
            if !known {
                append = append.expect(stream, expected);
            }
        }
        append
    }
}
