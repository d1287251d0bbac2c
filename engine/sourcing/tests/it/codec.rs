//! An application whose events are not JSON: everything that reads events reads them, and JSON beside them.

use crate::{Fresh, beside, run, until};
use annals::{ContentKind, NewEvent, Read};
use annals_sourcing::{
    Codec, CodecError, Context, Deadline, Decider, DomainEvent, Handlers, InMemory, Json, Order, Projector,
    Reactor, Repository, TimeoutElapsed, Timers,
};
use annals_types::Record;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// JSON from its end to its beginning: nothing else can read it.
#[derive(Clone, Copy)]
struct Backwards;

impl Codec for Backwards {
    const CONTENT: ContentKind = ContentKind::Binary;

    fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, CodecError> {
        Ok(Json.encode(value)?.into_iter().rev().collect())
    }

    fn decode<T: DeserializeOwned>(&self, data: &[u8]) -> Result<T, CodecError> {
        Json.decode(&data.iter().rev().copied().collect::<Vec<_>>())
    }
}

#[derive(Clone, Debug, PartialEq, DomainEvent)]
enum Lamp {
    #[event("LampLit")]
    Lit { by: u32 },
    #[event("LampOut")]
    Out { by: u32 },
}

struct Lamps;

impl Decider for Lamps {
    type State = Vec<Lamp>;
    type Command = Lamp;
    type Event = Lamp;
    type Error = String;

    fn initial(&self) -> Vec<Lamp> {
        Vec::new()
    }

    fn evolve(&self, state: &mut Vec<Lamp>, event: &Lamp) {
        state.push(event.clone());
    }

    fn decide(&self, _: &Vec<Lamp>, command: &Lamp) -> Result<Vec<Lamp>, String> {
        Ok(vec![command.clone()])
    }
}

#[derive(DomainEvent)]
enum Heard {
    #[event("LampLit")]
    Lit { by: u32 },
    #[event("TimeoutElapsed")]
    Elapsed(TimeoutElapsed),
}

#[test]
fn events_in_another_codec_are_read_by_everything() {
    let fresh = Fresh::new();
    run(async {
        let lamps = Repository::in_codec(fresh.store.clone(), Lamps, Backwards).unwrap();
        lamps.handle("lamp-1", &Lamp::Lit { by: 7 }, &Context::new()).await.unwrap();
        // Somebody else writes JSON.
        fresh.store.append(NewEvent::new("lamp-1", "LampLit").json(r#"{"by":8}"#)).unwrap().wait().unwrap();
        let there = lamps.load("lamp-1").await.unwrap();
        assert_eq!(there.state, [Lamp::Lit { by: 7 }, Lamp::Lit { by: 8 }]);
        let stored = fresh.store.read(Read::all()).unwrap().next().unwrap().unwrap();
        assert_eq!((stored.content(), stored.data()), (ContentKind::Binary, br#"}7:"yb"{"#.as_slice()));

        let deadlines = |lamp: &Lamp, record: &Record| match lamp {
            Lamp::Lit { by } => {
                Some(Deadline::after(record, Duration::from_millis(1), "timeouts", format!("{by}")))
            }
            Lamp::Out { .. } => None,
        };
        let timers = Timers::in_codec("lamps", fresh.store.clone(), deadlines, Backwards).unwrap();
        let elapsed = || fresh.store.read(Read::stream("timeouts")).unwrap().count();
        beside(timers.run(), until(async || elapsed() == 2)).await;

        let route = |heard: &Heard, _: &Record| match heard {
            Heard::Lit { by } => Order::new("lamp-2", Lamp::Lit { by: by + 100 }),
            Heard::Elapsed(elapsed) => Order::new("lamp-3", Lamp::Out { by: elapsed.key.parse().unwrap() }),
        };
        let reactor = Reactor::new("lamps", lamps.clone(), move |heard: &Heard, event: &Record| {
            // What it leads to leads to nothing more.
            (!event.stream().ends_with('2')).then(|| route(heard, event))
        });
        reactor.unwrap().catch_up().await.unwrap();
        assert_eq!(lamps.load("lamp-2").await.unwrap().state, [Lamp::Lit { by: 107 }, Lamp::Lit { by: 108 }]);
        assert_eq!(lamps.load("lamp-3").await.unwrap().state.len(), 2);

        let handlers = Handlers::new().when_in(Backwards, |count: &mut u32, _: &Lamp, _| {
            *count += 1;
            Ok(())
        });
        let mut projector =
            Projector::new(fresh.store.clone(), InMemory::<u32>::default(), handlers).unwrap();
        projector.catch_up().await.unwrap();
        assert_eq!(projector.model().with(|count| *count), 6);
    });
}
