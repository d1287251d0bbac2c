//! Read models that follow the log.

use crate::{Fresh, run, with_server};
use annals::{NewEvent, Position, Read, Store};
use annals_sourcing::rusqlite::{Connection, params};
use annals_sourcing::{
    Cursored, DomainEvent, Handlers, Happening, InMemory, Live, OnFailure, Pauses, ProjectionError,
    ProjectionState, Projector, ReadModel, Schema, SqliteModel,
};
use annals_types::EventStore;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(DomainEvent, serde::Serialize, serde::Deserialize)]
#[event("TagCreated")]
struct TagCreated {
    name: String,
}

#[derive(DomainEvent)]
enum TagUse {
    #[event("TagAssigned")]
    Assigned { name: String },
    #[event("TagRemoved")]
    Removed { name: String },
}

fn append(store: &Store, event_type: &str, name: &str) -> Position {
    let event = NewEvent::new("tags-1", event_type).json(format!(r#"{{"name":"{name}"}}"#));
    store.append(event).unwrap().wait().unwrap().first_position()
}

type Uses = BTreeMap<String, i64>;

fn counting() -> Handlers<Uses> {
    Handlers::new()
        .when::<TagCreated>(|tags: &mut Uses, created, _| {
            tags.insert(created.name.clone(), 0);
            Ok(())
        })
        .when::<TagUse>(|tags, used, _| {
            let (name, by) = match used {
                TagUse::Assigned { name } => (name, 1),
                TagUse::Removed { name } => (name, -1),
            };
            *tags.get_mut(name).ok_or_else(|| format!("there is no tag {name:?}"))? += by;
            Ok(())
        })
}

fn quick() -> Pauses {
    Pauses { first: Duration::from_millis(1), longest: Duration::from_millis(2) }
}

#[test]
fn handlers_by_type_make_a_model_and_other_types_are_no_concern() {
    let fresh = Fresh::new();
    for (event_type, name) in [
        ("TagCreated", "red"),
        ("TagAssigned", "red"),
        ("TagPainted", "?"),
        ("TagAssigned", "red"),
        ("TagRemoved", "red"),
    ] {
        append(&fresh.store, event_type, name);
    }
    run(async {
        let mut projector = Projector::new(fresh.store.clone(), InMemory::default(), counting()).unwrap();
        projector.catch_up().await.unwrap();
        assert_eq!(projector.model().with(Clone::clone), Uses::from([("red".into(), 1)]));
        append(&fresh.store, "TagAssigned", "red");
        projector.catch_up().await.unwrap();
        assert_eq!(projector.model().with(|tags| tags["red"]), 2);
        projector.rebuild().await.unwrap();
        assert_eq!(projector.model().with(|tags| tags["red"]), 2);
    });
}

/// An event that fails is tried again and then parked; nothing else is held up, and it can be handled later.
#[test]
fn what_keeps_failing_is_parked_and_can_be_replayed() {
    for kind in ["memory", "cursor", "sqlite"] {
        let fresh = Fresh::new();
        append(&fresh.store, "TagCreated", "red");
        let failing = append(&fresh.store, "TagAssigned", "blue");
        append(&fresh.store, "TagAssigned", "red");
        run(async {
            match kind {
                "memory" => {
                    let projector =
                        Projector::new(fresh.store.clone(), InMemory::default(), counting()).unwrap();
                    let mut projector = park_and_replay(projector, &fresh.store, failing).await;
                    assert_eq!(
                        projector.model().with(Clone::clone),
                        Uses::from([("blue".into(), 1), ("red".into(), 1)]),
                        "{kind}"
                    );
                }
                "cursor" => {
                    let model = Cursored::new(fresh.store.clone(), "tags", Uses::new());
                    let projector = Projector::new(fresh.store.clone(), model, counting()).unwrap();
                    let mut projector = park_and_replay(projector, &fresh.store, failing).await;
                    assert_eq!(
                        *projector.model().model(),
                        Uses::from([("blue".into(), 1), ("red".into(), 1)]),
                        "{kind}"
                    );
                }
                _ => {
                    let model = sqlite(&fresh, "tags");
                    let projector = Projector::new(fresh.store.clone(), model, in_tables()).unwrap();
                    let mut projector = park_and_replay(projector, &fresh.store, failing).await;
                    assert_eq!(
                        uses(projector.model().connection()),
                        [("blue".into(), 1), ("red".into(), 1)],
                        "{kind}"
                    );
                }
            }
        });
    }
}

async fn park_and_replay<R: ReadModel>(
    projector: Projector<Store, R>,
    store: &Store,
    failing: Position,
) -> Projector<Store, R> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let mut projector = projector.retries(2, quick()).watch(move |happening| {
        tell.lock().unwrap().push(match happening {
            Happening::Retried { failures, .. } => format!("retried {failures}"),
            Happening::Parked { position, reason } => format!("parked {position}: {reason}"),
            other => format!("{other:?}").split(' ').next().unwrap_or_default().to_owned(),
        });
    });
    projector.catch_up().await.unwrap();
    let parked = projector.model().parked().await.unwrap();
    assert_eq!((parked.len(), parked[0].position, parked[0].failures), (1, failing, 3));
    assert!(parked[0].reason.contains("blue"), "{parked:?}");
    let told = std::mem::take(&mut *told.lock().unwrap());
    let expected = [
        "Started",
        "Read",
        "retried 1",
        "retried 2",
        "parked 1: there is no tag \"blue\"",
        "Handled",
        "CaughtUp",
    ];
    assert_eq!(told, expected);
    assert_eq!(projector.replay_parked().await.unwrap(), 0, "it still fails");
    append(store, "TagCreated", "blue");
    projector.catch_up().await.unwrap();
    assert_eq!(projector.replay_parked().await.unwrap(), 1);
    assert!(projector.model().parked().await.unwrap().is_empty());
    projector
}

/// It need not be stopped for that, and what comes meanwhile is handled once.
#[test]
fn what_is_parked_can_be_seen_and_replayed_while_it_runs() {
    let fresh = Fresh::new();
    append(&fresh.store, "TagCreated", "red");
    let failing = append(&fresh.store, "TagAssigned", "blue");
    run(async {
        let projector = Projector::new(fresh.store.clone(), InMemory::default(), counting()).unwrap();
        let mut running = projector.retries(0, quick()).batch_max(3).spawn();
        assert!(running.reached(failing).await);
        let parked = running.parked().await.unwrap().unwrap();
        assert_eq!((parked.len(), parked[0].position), (1, failing));
        assert_eq!(running.replay_parked().await.unwrap(), Some(0), "it still fails");
        let mut last = append(&fresh.store, "TagCreated", "blue");
        for number in 0..200 {
            last = append(&fresh.store, "TagAssigned", "red");
            if number % 20 == 0 {
                running.parked().await.unwrap();
            }
        }
        assert!(running.reached(last).await);
        assert_eq!(running.replay_parked().await.unwrap(), Some(1));
        let model = running.stop().await.unwrap();
        assert_eq!(model.with(Clone::clone), Uses::from([("blue".into(), 1), ("red".into(), 200)]));
    });
}

/// Progress and model are one: whatever fails in a batch, each event is in the tables once.
#[test]
fn sqlite_has_each_event_once_whatever_fails() {
    let fresh = Fresh::new();
    append(&fresh.store, "TagCreated", "red");
    for _ in 0..500 {
        append(&fresh.store, "TagAssigned", "red");
    }
    run(async {
        let calls = Arc::new(AtomicU32::new(0));
        let handlers = {
            let calls = Arc::clone(&calls);
            in_tables().each(move |_, _| {
                // Fails behind what it has written, now and then.
                if calls.fetch_add(1, Ordering::Relaxed) % 97 == 96 { Err("for once".into()) } else { Ok(()) }
            })
        };
        let mut projector = Projector::new(fresh.store.clone(), sqlite(&fresh, "tags"), handlers)
            .unwrap()
            .retries(5, quick());
        projector.catch_up().await.unwrap();
        assert!(projector.model().parked().await.unwrap().is_empty());
        assert_eq!(uses(projector.model().connection()), [("red".into(), 500)]);
        assert!(calls.load(Ordering::Relaxed) > 501);
        drop(projector);
        // Another process goes on behind what is there, and a rebuild is the same.
        append(&fresh.store, "TagRemoved", "red");
        let mut projector = Projector::new(fresh.store.clone(), sqlite(&fresh, "tags"), in_tables()).unwrap();
        projector.catch_up().await.unwrap();
        assert_eq!(uses(projector.model().connection()), [("red".into(), 499)]);
        projector.rebuild().await.unwrap();
        assert_eq!(uses(projector.model().connection()), [("red".into(), 499)]);
    });
}

/// Tables that were made by another schema are made anew: a model is never of two programs.
#[test]
fn a_model_that_has_drifted_from_its_schema_is_made_anew() {
    let fresh = Fresh::new();
    append(&fresh.store, "TagCreated", "red");
    run(async {
        let mut projector = Projector::new(fresh.store.clone(), sqlite(&fresh, "tags"), in_tables()).unwrap();
        projector.catch_up().await.unwrap();
        assert!(!projector.model().has_drifted());
        drop(projector);
        assert!(!sqlite(&fresh, "tags").has_drifted(), "the same schema");
        let schema = Schema {
            create: "CREATE TABLE tag (name TEXT PRIMARY KEY, uses INTEGER NOT NULL, colour TEXT)",
            drop: "DROP TABLE tag",
        };
        let model = SqliteModel::open(fresh.directory.path().join("model.sqlite"), "tags", schema).unwrap();
        assert!(model.has_drifted());
        let coloured = Handlers::<Connection>::new().when::<TagCreated>(|tables, created, _| {
            tables.execute("INSERT INTO tag VALUES (?1, 0, ?1)", [&created.name])?;
            Ok(())
        });
        let mut projector = Projector::new(fresh.store.clone(), model, coloured).unwrap();
        projector.catch_up().await.unwrap();
        let colour: String =
            projector.model().connection().query_row("SELECT colour FROM tag", [], |row| row.get(0)).unwrap();
        assert_eq!(colour, "red");
    });
}

#[test]
fn one_that_is_to_stand_still_where_an_event_fails_does() {
    let fresh = Fresh::new();
    let failing = append(&fresh.store, "TagAssigned", "blue");
    run(async {
        let mut projector = Projector::new(fresh.store.clone(), InMemory::default(), counting())
            .unwrap()
            .retries(1, quick())
            .on_failure(OnFailure::Suspend);
        let error = projector.catch_up().await.unwrap_err();
        assert!(
            matches!(error, ProjectionError::Suspended { position, failures: 2, .. } if position == failing),
            "{error}"
        );
        assert_eq!(projector.model().position().await.unwrap(), None);
    });
}

#[test]
fn a_running_one_can_be_paused_resumed_reset_and_stopped() {
    let fresh = Fresh::new();
    append(&fresh.store, "TagCreated", "red");
    run(async {
        let model = InMemory::default();
        let mut running = Projector::new(fresh.store.clone(), model.clone(), counting()).unwrap().spawn();
        assert!(running.settled().await.is_caught_up);
        let second = append(&fresh.store, "TagAssigned", "red");
        assert!(running.reached(second).await);
        running.pause().await;
        assert_eq!(running.status().state, ProjectionState::Paused);
        let third = append(&fresh.store, "TagAssigned", "red");
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(model.with(|tags| tags["red"]), 1, "it is paused");
        assert_eq!(running.status().lag(&fresh.store).await.unwrap(), 1);
        running.resume().await;
        assert!(running.reached(third).await);
        assert_eq!(model.with(|tags| tags["red"]), 2);
        // From a place on: what is behind it is handled again.
        running.reset(Some(second)).await;
        assert!(running.reached(third).await);
        assert_eq!(model.with(|tags| tags["red"]), 3);
        running.reset(None).await;
        running.settled().await;
        assert_eq!(model.with(|tags| tags["red"]), 2);
        assert_eq!(running.stop().await.unwrap().position().await.unwrap(), Some(third));
    });
}

#[test]
fn a_suspended_one_goes_on_when_it_is_resumed() {
    let fresh = Fresh::new();
    append(&fresh.store, "TagCreated", "red");
    run(async {
        let is_broken = Arc::new(AtomicBool::new(true));
        let handlers = {
            let is_broken = Arc::clone(&is_broken);
            counting().each(
                move |_, _| if is_broken.load(Ordering::Relaxed) { Err("broken".into()) } else { Ok(()) },
            )
        };
        let projector = Projector::new(fresh.store.clone(), InMemory::default(), handlers).unwrap();
        let mut running = projector.retries(0, quick()).on_failure(OnFailure::Suspend).spawn();
        let stands = running.settled().await.state;
        assert!(
            matches!(&stands, ProjectionState::Suspended { reason } if reason.contains("broken")),
            "{stands:?}"
        );
        is_broken.store(false, Ordering::Relaxed);
        running.resume().await;
        assert!(running.settled().await.is_caught_up);
    });
}

/// A model that is built beside the one in use takes its place; there is always one.
#[test]
fn a_new_model_takes_the_place_of_the_one_in_use() {
    let fresh = Fresh::new();
    append(&fresh.store, "TagCreated", "red");
    run(async {
        let mut blue = Projector::new(fresh.store.clone(), InMemory::default(), counting()).unwrap();
        blue.catch_up().await.unwrap();
        let live = Live::new(blue.model().clone());
        let mut blue = blue.spawn();
        let assigned = append(&fresh.store, "TagAssigned", "red");
        assert!(blue.reached(assigned).await);
        // The new one counts double.
        let doubled = counting().when::<TagUse>(|tags, _, _| {
            tags.entry("red".into()).and_modify(|uses| *uses += 1);
            Ok(())
        });
        let mut green = Projector::new(fresh.store.clone(), InMemory::default(), doubled).unwrap();
        green.catch_up().await.unwrap();
        let retired = live.switch(green.model().clone());
        blue.stop().await.unwrap();
        assert_eq!((live.current().with(|tags| tags["red"]), retired.with(|tags| tags["red"])), (2, 1));
    });
}

/// Eight writers at once: each position is seen once, in order, over an end of the process in between.
#[test]
fn a_subscriber_sees_every_position_once_in_order_with_eight_writers() {
    let fresh = Fresh::new();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = fresh.store.clone();
            std::thread::spawn(move || {
                for _ in 0..500 {
                    append(&store, "TagCreated", &format!("of {writer}"));
                }
            })
        })
        .collect();
    let handlers = || {
        Handlers::<Connection>::new().each(|tables, event| {
            let position = i64::try_from(event.position().get())?;
            let seen: i64 = tables.query_row("SELECT COUNT(*) FROM tag", [], |row| row.get(0))?;
            if seen != position {
                return Err(format!("{position} came behind {seen} others").into());
            }
            tables.execute("INSERT INTO tag VALUES (?1, ?2)", params![position.to_string(), position])?;
            Ok(())
        })
    };
    run(async {
        for _ in 0..20 {
            let projector = Projector::new(fresh.store.clone(), sqlite(&fresh, "seen"), handlers()).unwrap();
            let mut projector = projector.on_failure(OnFailure::Suspend).retries(0, quick());
            // Dropped wherever it is.
            let done = tokio::time::timeout(Duration::from_millis(7), projector.run()).await;
            assert!(done.is_err(), "{done:?}");
        }
    });
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    run(async {
        let mut projector = Projector::new(fresh.store.clone(), sqlite(&fresh, "seen"), handlers()).unwrap();
        projector.catch_up().await.unwrap();
        assert_eq!(uses(projector.model().connection()).len(), 4_000);
        assert!(projector.model().parked().await.unwrap().is_empty());
    });
    assert_eq!(fresh.store.read(Read::all()).unwrap().count(), 4_000);
}

const TAGS: Schema = Schema {
    create: "CREATE TABLE tag (name TEXT PRIMARY KEY, uses INTEGER NOT NULL)",
    drop: "DROP TABLE tag",
};

fn sqlite(fresh: &Fresh, name: &str) -> SqliteModel {
    SqliteModel::open(fresh.directory.path().join("model.sqlite"), name, TAGS).unwrap()
}

fn in_tables() -> Handlers<Connection> {
    Handlers::new()
        .when::<TagCreated>(|tables: &mut Connection, created, _| {
            tables.execute("INSERT INTO tag VALUES (?1, 0)", [&created.name])?;
            Ok(())
        })
        .when::<TagUse>(|tables, used, _| {
            let (name, by) = match used {
                TagUse::Assigned { name } => (name, 1),
                TagUse::Removed { name } => (name, -1),
            };
            let changed =
                tables.execute("UPDATE tag SET uses = uses + ?2 WHERE name = ?1", params![name, by])?;
            if changed == 0 { Err(format!("there is no tag {name:?}").into()) } else { Ok(()) }
        })
}

fn uses(tables: &Connection) -> Vec<(String, i64)> {
    let mut statement = tables.prepare("SELECT name, uses FROM tag ORDER BY name").unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// Events of the largest size reach a projection that runs.
#[test]
fn an_event_of_16_mib_reaches_a_live_subscriber() {
    let fresh = Fresh::new();
    run(large_events_come(fresh.store.clone()));
    with_server(|client| run(async { large_events_come(client.await).await }));
}

async fn large_events_come<S: EventStore>(store: S) {
    let handlers = || {
        Handlers::<Vec<usize>>::new().each(|sizes, event| {
            assert!(event.data().iter().all(|byte| *byte == 7));
            sizes.push(event.data().len());
            Ok(())
        })
    };
    let sizes = InMemory::default();
    let mut running = Projector::new(store.clone(), sizes.clone(), handlers()).unwrap().spawn();
    for size in [1, 16 << 20] {
        let event = NewEvent::new("large-1", "Large").binary(vec![7; size]);
        let appended = store.append(event.into()).await.unwrap();
        assert!(running.reached(appended.first_position()).await);
    }
    assert_eq!(sizes.with(Clone::clone), [1, 16 << 20]);
}
