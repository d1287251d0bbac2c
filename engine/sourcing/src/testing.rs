//! For tests of applications: given events, when a command, then events; and a store in memory.

use crate::decider::Decider;
use crate::decoding::{Decoded, Decoding, UnknownType};
use crate::event::DomainEvent;
use crate::{Codec, Json};
use annals_types::{ContentKind, Position, Record, RecordParts, Timestamp, Version};
use bytes::Bytes;
use std::fmt::Debug;
use uuid::Uuid;

/// A decider, to which these events happened.
///
/// ```
/// # use annals_sourcing::{Decider, DomainEvent, testing::given};
/// # #[derive(Clone, Debug, PartialEq, DomainEvent)]
/// # enum Light { #[event("SwitchedOn")] On, #[event("SwitchedOff")] Off }
/// # struct Switch;
/// # impl Decider for Switch {
/// #     type State = bool;
/// #     type Command = bool;
/// #     type Event = Light;
/// #     type Error = &'static str;
/// #     fn initial(&self) -> bool { false }
/// #     fn evolve(&self, is_on: &mut bool, event: &Light) { *is_on = *event == Light::On; }
/// #     fn decide(&self, is_on: &bool, wanted: &bool) -> Result<Vec<Light>, &'static str> {
/// #         if is_on == wanted { Err("it is so already") } else { Ok(vec![if *wanted { Light::On } else { Light::Off }]) }
/// #     }
/// # }
/// given(&Switch, []).when(&true).then([Light::On]);
/// given(&Switch, [Light::On]).when(&true).then_refused("it is so already");
/// ```
pub fn given<D: Decider>(decider: &D, events: impl IntoIterator<Item = D::Event>) -> Given<'_, D> {
    let mut state = decider.initial();
    for event in events {
        decider.evolve(&mut state, &event);
    }
    Given { decider, state }
}

/// A decider in some state.
#[derive(Debug)]
pub struct Given<'a, D: Decider> {
    decider: &'a D,
    state: D::State,
}

impl<D: Decider> Given<'_, D> {
    /// What a command leads to.
    pub fn when(self, command: &D::Command) -> When<D> {
        let decided = self.decider.decide(&self.state, command);
        let mut state = self.state;
        for event in decided.iter().flatten() {
            self.decider.evolve(&mut state, event);
        }
        When { decided, state }
    }

    /// The state.
    pub fn state(&self) -> &D::State {
        &self.state
    }
}

/// What a command led to.
#[derive(Debug)]
pub struct When<D: Decider> {
    decided: Result<Vec<D::Event>, D::Error>,
    state: D::State,
}

impl<D: Decider> When<D>
where
    D::Event: Debug + PartialEq,
    D::Error: Debug,
{
    /// It led to just these events; the state with them.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = D::Event>) -> D::State {
        let expected: Vec<_> = expected.into_iter().collect();
        match self.decided {
            Ok(events) => assert_eq!(events, expected, "left: what happened, right: what was expected"),
            Err(error) => panic!("it was refused with {error:?}; expected was {expected:?}"),
        }
        self.state
    }

    /// It led to nothing, and was not refused.
    ///
    /// # Panics
    /// It was, or something happened.
    #[track_caller]
    pub fn then_nothing(self) {
        self.then([]);
    }

    /// It was refused with this.
    ///
    /// # Panics
    /// It was not.
    #[track_caller]
    pub fn then_refused<E>(self, expected: E)
    where
        D::Error: PartialEq<E>,
        E: Debug,
    {
        match self.decided {
            Ok(events) => panic!("it was not refused: {events:?} happened; expected was {expected:?}"),
            Err(error) => assert_eq!(error, expected, "left: how it was refused, right: what was expected"),
        }
    }
}

/// A record as a store would have it, for handlers and routes that want one: of this stream, at this position.
///
/// # Panics
/// When the event cannot be written as JSON.
pub fn record<E: DomainEvent>(stream: &str, position: u64, event: &E) -> Record {
    let event_type = event.event_type();
    let data = event.encode(&Json).expect("a test has events that can be written");
    let metadata = if event_type.schema == 1 {
        Vec::new()
    } else {
        format!(r#"{{"schema":{}}}"#, event_type.schema).into_bytes()
    };
    let mut buffer = Vec::new();
    let mut put = |bytes: &[u8]| {
        let start = u32::try_from(buffer.len()).expect("a test's events are small");
        buffer.extend_from_slice(bytes);
        start..u32::try_from(buffer.len()).expect("a test's events are small")
    };
    let parts = RecordParts {
        position: Position::new(position),
        version: Version::new(position),
        time: Timestamp::new(position),
        id: Uuid::from_u128(u128::from(position) + 1),
        correlation: None,
        causation: None,
        content: if Json::CONTENT == ContentKind::Json { ContentKind::Json } else { ContentKind::Binary },
        stream: put(stream.as_bytes()),
        event_type: put(event_type.name.as_bytes()),
        tags: put(b""),
        metadata: put(&metadata),
        data: put(&data),
    };
    Record::new(Bytes::from(buffer), parts)
}

/// The commands that a reactor's route makes of an event: what a process manager is told, or what its decisions make others do.
pub fn routed<T: DomainEvent, C, O: IntoIterator<Item = crate::Order<C>>>(
    route: impl Fn(&T, &Record) -> O,
    stream: &str,
    trigger: &T,
) -> Vec<crate::Order<C>> {
    route(trigger, &record(stream, 0, trigger)).into_iter().collect()
}

/// What a projection's handlers make of these events, which are all of one stream; and what failed.
pub fn projected<M: Default + Send + 'static, E: DomainEvent>(
    handlers: &crate::Handlers<M>,
    events: &[E],
) -> (M, Vec<crate::ModelError>) {
    let mut model = M::default();
    let mut failures = Vec::new();
    for (position, event) in (0..).zip(events) {
        if let Err(error) = handlers.handle(&mut model, &record("test-1", position, event)) {
            failures.push(error);
        }
    }
    (model, failures)
}

/// Whether each event of a kind can be read back as it is stored: for a test that has one of each.
///
/// # Panics
/// One cannot.
#[track_caller]
pub fn assert_stored_as<E: DomainEvent + Debug + PartialEq>(event: &E, json: &str) {
    let stored = event.encode(&Json).map(|data| String::from_utf8_lossy(&data).into_owned());
    assert_eq!(stored.as_deref(), Ok(json), "left: how it is stored, right: what was expected");
    let decoding = Decoding::<E, Json>::new(Json).map(|decoding| decoding.unknown(UnknownType::Error));
    let read = decoding.map(|decoding| decoding.decode(&record("test-1", 0, event)));
    assert!(
        matches!(&read, Ok(Ok(Decoded::Event { event: found, .. })) if found == event),
        "it is read as {read:?}"
    );
}

/// A store in memory, with all the promises of one on a disk, but that it ends with the process: the same code on a simulated disk.
///
/// # Panics
/// When there is no memory for it.
#[cfg(feature = "testing")]
#[must_use]
pub fn in_memory() -> annals::Store {
    let disk = annals::testing::SimulatedDisk::new(0);
    let settings = annals::Settings { segment_bytes_first: 64 << 10, ..annals::Settings::default() };
    let dir = std::path::Path::new("/memory");
    annals::testing::open_simulated(&disk, dir, settings, annals::testing::Clock::System)
        .expect("a new store can be made in memory")
}
