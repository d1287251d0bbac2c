//! What is appended: batches that can be made again from a number, so that what is left of them can be compared byte for byte.

use annals_types::{Append, ExpectedVersion, NewEvent, NewSnapshot, Position, QueryItem, Uuid, Version};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt as _, SeedableRng as _};

/// Tags that conditions on queries are about.
pub(crate) const TAGS: u32 = 6;
/// Length of a stream's state: bytes of its last event's id.
pub(crate) const STATE_BYTES: usize = 200;
/// The type of all events.
const EVENT_TYPE: &str = "Torture";

/// An event that is to be appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Planned {
    pub(crate) stream: String,
    pub(crate) id: Uuid,
    pub(crate) bytes: usize,
    pub(crate) tag: Option<u32>,
}

/// What a batch is appended under.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Terms {
    Any,
    /// The stream has no events.
    NoStream(String),
    /// The stream's last event has this version.
    Exactly(String, u64),
    /// No event with this tag is behind this position.
    NoMatch(u32, Option<u64>),
}

/// A batch that is to be appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Planned>,
    pub(crate) terms: Terms,
    /// A stream of these events, and the state that they lead to, where that is written with them.
    pub(crate) state: Option<(String, Vec<u8>)>,
}

/// The bytes of an event.
pub(crate) fn data(id: Uuid, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    let (upper, lower) = id.as_u64_pair();
    SmallRng::seed_from_u64(upper ^ lower).fill_bytes(&mut data);
    data
}

pub(crate) fn tag_name(tag: u32) -> String {
    format!("tag:{tag}")
}

impl Planned {
    pub(crate) fn draw(random: &mut SmallRng, stream: String, is_tagged: bool) -> Self {
        let bytes = match random.random_range(0..1_000) {
            0..=3 => random.random_range(100_000..300_000),
            4..=50 => random.random_range(4_000..40_000),
            _ => random.random_range(0..300),
        };
        let tag = (is_tagged || random.random_range(0..4) == 0).then(|| random.random_range(0..TAGS));
        Self { stream, id: Uuid::from_u128(random.random()), bytes, tag }
    }
}

impl Batch {
    /// The same, with the state of its first event's stream.
    pub(crate) fn with_state(mut self) -> Self {
        let stream = self.events[0].stream.clone();
        let last = self.events.iter().rfind(|event| event.stream == stream);
        self.state = last.map(|last| (stream, data(last.id, STATE_BYTES)));
        self
    }

    /// As it is sent.
    pub(crate) fn append(&self) -> Append<'_> {
        let mut append = Append::new();
        if let Some((stream, state)) = &self.state {
            append = append.snapshot(NewSnapshot::new(stream.as_str(), 1, state));
        }
        for planned in &self.events {
            let event = NewEvent::new(planned.stream.clone(), EVENT_TYPE).id(planned.id);
            let event = event.binary(data(planned.id, planned.bytes));
            append = append.event(match planned.tag {
                Some(tag) => event.tag(tag_name(tag)),
                None => event,
            });
        }
        match &self.terms {
            Terms::Any => append,
            Terms::NoStream(stream) => append.expect(stream.clone(), ExpectedVersion::NoStream),
            Terms::Exactly(stream, version) => {
                append.expect(stream.clone(), ExpectedVersion::Exactly(Version::new(*version)))
            }
            Terms::NoMatch(tag, after) => {
                append.fail_if_matches(QueryItem::new().tag(tag_name(*tag)), after.map(Position::new))
            }
        }
    }
}
