//! Deadlines pass once, and not where they were cleared.

use crate::{Fresh, beside, run, until};
use annals::{NewEvent, QueryItem, Read, Store};
use annals_sourcing::{Deadline, DomainEvent, TimeoutElapsed, Timers};
use annals_types::Record;
use std::time::Duration;

#[derive(DomainEvent)]
enum Timed {
    #[event("StepStarted")]
    Started { step: u32, within_ms: u64 },
    #[event("StepDone")]
    Done { step: u32 },
}

fn deadlines(event: &Timed, record: &Record) -> Option<Deadline> {
    Some(match event {
        Timed::Started { step, within_ms } => Deadline::after(
            record,
            Duration::from_millis(*within_ms),
            record.stream(),
            format!("step {step}"),
        ),
        Timed::Done { step } => Deadline::clear(format!("step {step}")),
    })
}

fn start(store: &Store, step: u32, within_ms: u64) {
    let data = format!(r#"{{"step":{step},"within_ms":{within_ms}}}"#);
    store.append(NewEvent::new(format!("case-{step}"), "StepStarted").json(data)).unwrap().wait().unwrap();
}

fn done(store: &Store, step: u32) {
    let data = format!(r#"{{"step":{step}}}"#);
    store.append(NewEvent::new(format!("case-{step}"), "StepDone").json(data)).unwrap().wait().unwrap();
}

fn elapsed(store: &Store) -> Vec<Record> {
    store.read(Read::query(QueryItem::new().of_type("TimeoutElapsed"))).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_deadline_passes_once_and_not_where_it_was_cleared() {
    let fresh = Fresh::new();
    let started: Vec<_> = (0..50).map(|step| start(&fresh.store, step, 1_000 + u64::from(step))).collect();
    assert_eq!(started.len(), 50);
    for step in (0..50).filter(|step| step % 3 == 0) {
        done(&fresh.store, step);
    }
    run(async {
        // Several at once, each for a moment: as when processes end.
        for round in 0..10 {
            let hosts: Vec<_> = (0..2)
                .map(|_| {
                    let timers = Timers::new("steps", fresh.store.clone(), deadlines).unwrap();
                    tokio::spawn(async move { timers.run().await })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(10 + round)).await;
            hosts.iter().for_each(tokio::task::JoinHandle::abort);
        }
        let timers = Timers::new("steps", fresh.store.clone(), deadlines).unwrap();
        let expected = (0..50).filter(|step| step % 3 != 0).count();
        beside(timers.run(), until(async || elapsed(&fresh.store).len() >= expected)).await;
        let timers = Timers::new("steps", fresh.store.clone(), deadlines).unwrap();
        beside(timers.run(), tokio::time::sleep(Duration::from_millis(100))).await;
    });
    let elapsed = elapsed(&fresh.store);
    let mut keys: Vec<_> = elapsed
        .iter()
        .map(|event| {
            let TimeoutElapsed { key, due } =
                TimeoutElapsed::decode(event.event_type(), event.data(), &annals_sourcing::Json)
                    .unwrap()
                    .unwrap();
            assert!(event.time().get() >= due, "{key} passed before its time");
            key
        })
        .collect();
    keys.sort();
    let mut expected: Vec<_> =
        (0..50).filter(|step| step % 3 != 0).map(|step| format!("step {step}")).collect();
    expected.sort();
    assert_eq!(keys, expected);
    let first = fresh.store.read(Read::stream("case-1")).unwrap().next().unwrap().unwrap();
    let caused = elapsed.iter().find(|event| event.stream() == "case-1").unwrap();
    assert_eq!(caused.causation(), Some(first.id()));
}

#[test]
fn a_deadline_that_is_set_anew_passes_then() {
    let fresh = Fresh::new();
    start(&fresh.store, 1, 50);
    start(&fresh.store, 1, 120);
    run(async {
        let timers = Timers::new("steps", fresh.store.clone(), deadlines).unwrap();
        beside(timers.run(), until(async || !elapsed(&fresh.store).is_empty())).await;
        let timers = Timers::new("steps", fresh.store.clone(), deadlines).unwrap();
        beside(timers.run(), tokio::time::sleep(Duration::from_millis(100))).await;
    });
    let elapsed = elapsed(&fresh.store);
    assert_eq!(elapsed.len(), 1);
    let second = fresh.store.read(Read::stream("case-1")).unwrap().nth(1).unwrap().unwrap();
    assert_eq!(elapsed[0].causation(), Some(second.id()));
}

/// Where it begins again is behind what is done with: a long log is not read from its start.
#[test]
fn it_does_not_read_a_long_log_from_its_start() {
    let fresh = Fresh::new();
    for step in 0..1_500 {
        let data = format!(r#"{{"step":{step},"within_ms":60000}}"#);
        drop(fresh.store.append(NewEvent::new("case-1", "StepStarted").json(data)).unwrap());
        let data = format!(r#"{{"step":{step}}}"#);
        drop(fresh.store.append(NewEvent::new("case-1", "StepDone").json(data)).unwrap());
    }
    start(&fresh.store, 5_000, 60_000);
    run(async {
        let timers = Timers::new("steps", fresh.store.clone(), deadlines).unwrap();
        let noted = || {
            fresh
                .store
                .cursor("timers:steps")
                .unwrap()
                .and_then(|cursor| cursor.position)
                .map_or(0, annals::Position::get)
        };
        beside(timers.run(), until(async || noted() >= 1_999)).await;
        assert!(noted() < 3_000, "{}", noted());
    });
}

/// What clears a deadline counts from when it is durable, not from when it has come to the timers.
#[test]
fn what_was_cleared_in_time_never_passes() {
    let fresh = Fresh::new();
    for round in 0..40 {
        start(&fresh.store, round, 3_000);
    }
    run(async {
        let timers = Timers::new("steps", fresh.store.clone(), deadlines).unwrap();
        let store = fresh.store.clone();
        let clearing = async {
            // The reactor that the timers are on is kept busy until after the time.
            tokio::time::sleep(Duration::from_millis(10)).await;
            (0..40).for_each(|round| done(&store, round));
            std::thread::sleep(Duration::from_millis(3_100));
            tokio::time::sleep(Duration::from_millis(60)).await;
        };
        tokio::select! {
            ended = timers.run() => panic!("{ended:?}"),
            () = clearing => {}
        }
    });
    assert_eq!(elapsed(&fresh.store).len(), 0);
}
