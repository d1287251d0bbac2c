//! Corners of deciding in which things were once lost, doubled, or stood still.

use crate::{Fresh, run};
use annals::{NewEvent, Read, Store};
use annals_sourcing::*;
use annals_types::{EventStore, Load, Record};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, DomainEvent)]
pub(crate) enum Money {
    #[event("Put")]
    Put { to: String, cents: i64 },
    #[event("Noted")]
    Noted { n: i64 },
}

pub(crate) struct Wallet;
pub(crate) enum Ask {
    Put(String, i64),
    Need(i64),
}

impl Decider for Wallet {
    type State = i64;
    type Command = Ask;
    type Event = Money;
    type Error = String;
    fn initial(&self) -> i64 {
        0
    }
    fn evolve(&self, s: &mut i64, e: &Money) {
        if let Money::Put { cents, .. } = e {
            *s += cents
        }
    }
    fn decide(&self, s: &i64, c: &Ask) -> Result<Vec<Money>, String> {
        match c {
            Ask::Put(to, cents) => {
                Ok(vec![Money::Put { to: to.clone(), cents: *cents }, Money::Noted { n: *s }])
            }
            Ask::Need(n) if *s < *n => Err(format!("only {s}")),
            Ask::Need(n) => Ok(vec![Money::Noted { n: *n }]),
        }
    }
    fn place(&self, e: &Money) -> Place {
        match e {
            Money::Put { to, .. } => Place::stream(to.clone()),
            _ => Place::default(),
        }
    }
}

#[test]
fn what_goes_to_another_stream_is_no_part_of_a_remembered_state() {
    let fresh = Fresh::new();
    run(async {
        let cached =
            Repository::new(fresh.store.clone(), Wallet).unwrap().cache(NonZeroUsize::new(9).unwrap());
        let plain = Repository::new(fresh.store.clone(), Wallet).unwrap();
        cached.handle("w-1", &Ask::Put("w-2".into(), 100), &Context::new()).await.unwrap();
        let wrong = cached.handle("w-1", &Ask::Need(100), &Context::new()).await;
        let right = plain.handle("w-1", &Ask::Need(100), &Context::new()).await;
        assert!(wrong.is_err() == right.is_err(), "cached: {wrong:?}; plain: {right:?}");
    });
}

#[test]
fn what_goes_to_another_stream_is_no_part_of_a_snapshot() {
    let fresh = Fresh::new();
    run(async {
        let repo = Repository::new(fresh.store.clone(), Wallet)
            .unwrap()
            .snapshots(Snapshots::new(SnapshotPolicy::Every(1), 1));
        repo.handle("w-1", &Ask::Put("w-2".into(), 100), &Context::new()).await.unwrap();
        let with = repo.load("w-1").await.unwrap().state;
        let without = repo.replay(&Load::stream("w-1").without_snapshots()).await.unwrap().state;
        assert_eq!(with, without);
    });
}

#[derive(DomainEvent)]
pub(crate) enum Trig {
    #[event("Trig")]
    T { a: String, b: i64, to: String },
}

fn trig(store: &Store, a: &str, b: i64, to: &str) {
    store
        .append(NewEvent::new("t-1", "Trig").json(format!(r#"{{"a":"{a}","b":{b},"to":"{to}"}}"#)))
        .unwrap()
        .wait()
        .unwrap();
}

pub(crate) fn troute(t: &Trig, _: &Record) -> Option<Order<Ask>> {
    let Trig::T { a, b, to } = t;
    Some(Order::new(a.clone(), if to.is_empty() { Ask::Need(*b) } else { Ask::Put(to.clone(), *b) }))
}

/// order 1 for w-1 puts 100 into w-2; order 2 (same batch) needs 100 in w-2.
#[test]
fn an_order_is_decided_on_what_earlier_ones_put_into_its_stream() {
    let fresh = Fresh::new();
    trig(&fresh.store, "w-2", 0, ""); // begins w-2 in this batch
    trig(&fresh.store, "w-1", 100, "w-2");
    trig(&fresh.store, "w-2", 100, "");
    run(async {
        let r = Reactor::new("r", Repository::new(fresh.store.clone(), Wallet).unwrap(), troute).unwrap();
        r.catch_up().await.unwrap();
        let refused = fresh.store.read(Read::stream("refused-r")).unwrap().count();
        assert_eq!(refused, 0, "one at a time it is accepted");
    });
}

/// after such a batch the shared cache double folds
#[test]
fn what_earlier_orders_put_into_a_stream_is_remembered_once() {
    let fresh = Fresh::new();
    trig(&fresh.store, "w-2", 0, "");
    trig(&fresh.store, "w-1", 100, "w-2");
    trig(&fresh.store, "w-2", 0, "");
    run(async {
        let repo = Repository::new(fresh.store.clone(), Wallet).unwrap().cache(NonZeroUsize::new(9).unwrap());
        Reactor::new("r", repo.clone(), troute).unwrap().catch_up().await.unwrap();
        let cached = repo.load("w-2").await.unwrap().state;
        let plain = Repository::new(fresh.store.clone(), Wallet).unwrap().load("w-2").await.unwrap().state;
        assert_eq!(cached, plain);
    });
}

/// A decider whose events all go elsewhere, on a stale remembered state: nothing guards.
struct Outward;
impl Decider for Outward {
    type State = bool;
    type Command = ();
    type Event = Light;
    type Error = String;
    fn initial(&self) -> bool {
        false
    }
    fn evolve(&self, closed: &mut bool, e: &Light) {
        match e {
            Light::Closed => *closed = true,
            Light::Opened => *closed = false,
            Light::Sent => {}
        }
    }
    fn decide(&self, closed: &bool, _: &()) -> Result<Vec<Light>, String> {
        if *closed { Err("closed".into()) } else { Ok(vec![Light::Sent]) }
    }
    fn place(&self, e: &Light) -> Place {
        match e {
            Light::Sent => Place::stream("outbox-1"),
            _ => Place::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, DomainEvent)]
enum Light {
    #[event("Closed")]
    Closed,
    #[event("Opened")]
    Opened,
    #[event("Sent")]
    Sent,
}

#[test]
fn what_leads_to_events_elsewhere_alone_is_guarded_too() {
    let fresh = Fresh::new();
    fresh.store.append(NewEvent::new("door-1", "Opened").json("{}")).unwrap().wait().unwrap();
    run(async {
        let repo =
            Repository::new(fresh.store.clone(), Outward).unwrap().cache(NonZeroUsize::new(9).unwrap());
        repo.load("door-1").await.unwrap();
        fresh.store.append(NewEvent::new("door-1", "Closed").json("{}")).unwrap().wait().unwrap();
        trig(&fresh.store, "door-1", 0, "");
        let r = Reactor::new("r", repo, |_: &Trig, _: &Record| Some(Order::new("door-1", ()))).unwrap();
        r.catch_up().await.unwrap();
        assert_eq!(
            fresh.store.read(Read::stream("outbox-1")).unwrap().count(),
            0,
            "it was closed before the trigger"
        );
    });
}

#[test]
fn a_step_that_was_refused_has_failed() {
    let fresh = Fresh::new();
    trig(&fresh.store, "w-1", 100, "");
    run(async {
        let saga = SagaContext::launch("trip", "pay").unwrap();
        let s = saga.clone();
        let r = Reactor::new(
            "r",
            Repository::new(fresh.store.clone(), Wallet).unwrap(),
            move |_: &Trig, _: &Record| Some(Order::new("w-1", Ask::Need(100)).sagas(s.clone())),
        )
        .unwrap();
        r.catch_up().await.unwrap();
        let mut p =
            Projector::new(fresh.store.clone(), InMemory::<SagaView>::default(), SagaView::handlers())
                .unwrap();
        p.catch_up().await.unwrap();
        p.model().with(|v| {
            let run = v.run(saga.get("trip").unwrap().instance).unwrap();
            assert!(!run.is_done(), "its only step was refused: {:?}", run.steps());
        });
    });
}

#[test]
fn a_step_that_fails_later_has_failed() {
    let fresh = Fresh::new();
    run(async {
        let saga = SagaContext::launch("trip", "pay").unwrap();
        let repo = Repository::new(fresh.store.clone(), Wallet).unwrap();
        repo.handle("w-1", &Ask::Need(0), &Context::new().sagas(saga.clone())).await.unwrap();
        let failed = saga.clone().failed("trip", "card declined").unwrap();
        repo.handle("w-1", &Ask::Need(0), &Context::new().sagas(failed)).await.unwrap();
        let mut p =
            Projector::new(fresh.store.clone(), InMemory::<SagaView>::default(), SagaView::handlers())
                .unwrap();
        p.catch_up().await.unwrap();
        p.model().with(|v| assert_eq!(v.failed().count(), 1, "{:?}", v.runs().next().unwrap()));
    });
}

#[test]
fn an_event_without_fields_may_have_no_data() {
    let fresh = Fresh::new();
    fresh.store.append(NewEvent::new("door-1", "Closed")).unwrap().wait().unwrap();
    run(async {
        Repository::new(fresh.store.clone(), Outward).unwrap().load("door-1").await.unwrap();
    });
}

#[test]
fn a_stream_that_is_named_twice_is_one() {
    let fresh = Fresh::new();
    run(async {
        let repo = Repository::new(fresh.store.clone(), Wallet).unwrap();
        let done = repo
            .transact(["w-1", "w-1"], &Context::new(), |_| {
                Ok(vec![Money::Put { to: "w-1".into(), cents: 5 }])
            })
            .await;
        assert!(done.is_ok(), "{done:?}");
    });
}

#[test]
fn metadata_of_other_writers_are_read_field_by_field() {
    #[derive(Clone, Debug, PartialEq, DomainEvent)]
    #[events(upcasts = ups)]
    enum Price {
        #[event("PriceSet", schema = 2)]
        Set { cents: u64 },
    }
    fn ups() -> Upcasts {
        Upcasts::none()
            .json("PriceSet", 1, |d| d["cents"] = serde_json::json!(d["euros"].as_u64().unwrap_or(0) * 100))
    }
    let fresh = Fresh::new();
    let mut e = NewEvent::new("p-1", "PriceSet").json(r#"{"cents":5}"#);
    e = e.metadata(br#"{"schema":2,"user":{"id":7}}"#.to_vec());
    fresh.store.append(e).unwrap().wait().unwrap();
    let r = fresh.store.read(Read::stream("p-1")).unwrap().next().unwrap().unwrap();
    let d = Decoding::<Price, Json>::new(Json).unwrap().decode(&r).unwrap();
    assert_eq!(d, Decoded::Event { event: Price::Set { cents: 5 }, was_upcast: false });
}

#[test]
fn a_state_is_loaded_where_its_snapshot_cannot_be_written() {
    let fresh = Fresh::new();
    for _ in 0..5 {
        fresh.store.append(NewEvent::new("w-1", "Noted").json(r#"{"n":1}"#)).unwrap().wait().unwrap();
    }
    let dir = fresh.directory.path().to_owned();
    fresh.store.close().unwrap();
    let store = Store::open_read_only(&dir).unwrap();
    run(async {
        let repo = Repository::new(store, Wallet)
            .unwrap()
            .snapshots(Snapshots::new(SnapshotPolicy::AfterReplayed(2), 1));
        let loaded = repo.load("w-1").await;
        assert!(loaded.is_ok(), "{:?}", loaded.err());
    });
}

/// A busy stream that others write to all the time, and a reactor whose batches touch it.
#[test]
fn a_reactor_comes_on_beside_others_who_write_all_the_time() {
    let fresh = Fresh::new();
    for n in 0..256 {
        let data = format!(r#"{{"a":"w-{n}","b":0,"to":""}}"#);
        drop(fresh.store.append(NewEvent::new("t-1", "Trig").json(data)).unwrap());
    }
    trig(&fresh.store, "w-0", 0, "");
    // streams have some length
    for n in 0..256 {
        for _ in 0..50 {
            drop(fresh.store.append(NewEvent::new(format!("w-{n}"), "Noted").json(r#"{"n":1}"#)).unwrap());
        }
    }
    let stop = Arc::new(AtomicU32::new(0));
    let (begins, begun) = std::sync::mpsc::channel();
    let writer = {
        let (store, stop) = (fresh.store.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            while stop.load(Ordering::Relaxed) == 0 {
                store.append(NewEvent::new("w-0", "Noted").json(r#"{"n":1}"#)).unwrap().wait().unwrap();
                let _ = begins.send(());
                std::thread::sleep(Duration::from_millis(25));
            }
        })
    };
    begun.recv().unwrap();
    run(async {
        let repo =
            Repository::new(fresh.store.clone(), Wallet).unwrap().cache(NonZeroUsize::new(1_000).unwrap());
        let done = tokio::time::timeout(
            Duration::from_secs(30),
            Reactor::new("r", repo, troute).unwrap().catch_up(),
        )
        .await;
        stop.store(1, Ordering::Relaxed);
        writer.join().unwrap();
        done.unwrap().unwrap();
    });
}

struct Bulky;
#[derive(Clone, Debug, PartialEq, DomainEvent)]
enum Bulk {
    #[event("Bulk")]
    Bulk { text: String },
}

impl Decider for Bulky {
    type State = ();
    type Command = ();
    type Event = Bulk;
    type Error = String;
    fn initial(&self) {}
    fn evolve(&self, _: &mut (), _: &Bulk) {}
    fn decide(&self, _: &(), _: &()) -> Result<Vec<Bulk>, String> {
        Ok(vec![Bulk::Bulk { text: "x".repeat(1 << 20) }])
    }
}

#[test]
fn a_batch_that_is_too_large_for_a_server_is_appended_in_parts() {
    crate::with_server(|client| {
        run(async {
            let client = client.await;
            for _ in 0..90 {
                EventStore::append(
                    &client,
                    NewEvent::new("t-1", "Trig").json(r#"{"a":"w-1","b":0,"to":""}"#).into(),
                )
                .await
                .unwrap();
            }
            let r =
                Reactor::new("r", Repository::new(client.clone(), Bulky).unwrap(), |_: &Trig, _: &Record| {
                    Some(Order::new("bulk-1", ()))
                })
                .unwrap();
            let done = r.catch_up().await;
            assert!(done.is_ok(), "{done:?}");
        })
    });
}

#[test]
fn a_batch_that_is_too_large_is_appended_in_parts() {
    let fresh = Fresh::new();
    run(async {
        for _ in 0..90 {
            trig(&fresh.store, "w-1", 0, "");
        }
        let r = Reactor::new(
            "r",
            Repository::new(fresh.store.clone(), Bulky).unwrap(),
            |_: &Trig, _: &Record| Some(Order::new("bulk-1", ())),
        )
        .unwrap();
        let done = r.catch_up().await;
        assert!(done.is_ok(), "{done:?}");
        assert_eq!(fresh.store.read(Read::stream("bulk-1")).unwrap().count(), 90);
    });
}

/// A store that was dropped and made anew below a repository that remembers.
#[test]
fn a_snapshot_is_left_out_where_the_caller_appends_more() {
    let fresh = Fresh::new();
    run(async {
        let repo = Repository::new(fresh.store.clone(), Wallet)
            .unwrap()
            .snapshots(Snapshots::new(SnapshotPolicy::Every(1), 1));
        repo.transact_with(
            "w-2",
            &Context::new(),
            |_| Ok(vec![Money::Noted { n: 1 }]),
            |append| append.event(NewEvent::new("w-2", "Put").json(r#"{"to":"w-2","cents":7}"#)),
        )
        .await
        .unwrap();
        let with = repo.load("w-2").await.unwrap().state;
        let without = repo.replay(&Load::stream("w-2").without_snapshots()).await.unwrap().state;
        assert_eq!(with, without);
    });
}
