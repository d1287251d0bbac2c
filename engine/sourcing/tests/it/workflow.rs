//! The workflow example: replays, snapshots, pages, workers, tenants, the audit trail.

#[path = "../../examples/workflow/model.rs"]
mod model;

use crate::{Fresh, run, with_address, with_server};
use annals::{Append, Load, NewEvent, Read, Settings, Store, Timestamp, Version};
use annals_sourcing::testing::given;
use annals_sourcing::{HandleError, Pauses, QueueSettings};
use annals_types::EventStore;
use model::{Move, Moved, NoWay, Workflow, Workflows};
use std::time::Duration;

fn settings() -> QueueSettings {
    QueueSettings {
        handling_timeout: Duration::from_millis(300),
        retries_max: 2,
        pauses: Pauses { first: Duration::from_millis(1), longest: Duration::from_millis(5) },
        recovery: Duration::from_millis(10),
    }
}

async fn open<S: EventStore>(store: S) -> Workflows<S> {
    Workflows::open(store, 20, settings()).await.unwrap()
}

#[test]
fn only_what_leads_on_from_a_state_is_allowed() {
    let moved = |name: &str, from: &str, to: &str| Moved {
        name: name.into(),
        from_state: from.into(),
        to_state: to.into(),
        payload: Default::default(),
    };
    given(&Workflow, []).when(&Move::new("submit")).then([moved("submit", "new", "submitted")]);
    let no_way = NoWay { state: "new".into(), name: "close".into() };
    given(&Workflow, []).when(&Move::new("close")).then_refused(no_way);
}

/// The report of a replay: from which snapshot, how many events, how long; to any version or time, and without snapshots.
#[test]
fn a_replay_says_what_it_did() {
    let fresh = Fresh::new();
    run(async {
        let workflows = open(fresh.store.clone()).await;
        workflows.submit("1", &Move::new("submit"), "ada").await.unwrap();
        for number in 0..40 {
            workflows.submit("1", &Move::new("comment").with("n", number), "bob").await.unwrap();
        }
        let stream = model::stream("1");
        let replay = async |load: Load<'_>| workflows.executions.replay(&load).await.unwrap();
        let now = replay(Load::stream(&*stream)).await;
        assert!(now.report.snapshot.is_some() && now.report.events < 41, "{:?}", now.report);
        assert!(now.report.duration > Duration::ZERO);
        let whole = replay(Load::stream(&*stream).without_snapshots()).await;
        assert_eq!((whole.report.snapshot, whole.report.events), (None, 41));
        assert_eq!(whole.state, now.state);
        // Before the newest snapshot: never from the future.
        let early = replay(Load::stream(&*stream).until(Version::new(5))).await;
        assert_eq!((early.state.moves, early.state.data["n"].as_u64()), (6, Some(4)));
        let time = fresh
            .store
            .read(Read::stream(&*stream).from(Version::new(7)).limit(1))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .time();
        let then = replay(Load::stream(&*stream).until(time)).await;
        assert!(then.state.moves >= 8);
        assert_eq!(replay(Load::stream(&*stream).until(Timestamp::new(1))).await.state.state, "new");
    });
}

#[test]
fn snapshots_are_made_by_hand_looked_up_and_pruned_to_the_newest() {
    let fresh = Fresh::with(Settings { snapshots_kept: 2, ..Settings::default() });
    run(async {
        let workflows = open(fresh.store.clone()).await;
        workflows.submit("1", &Move::new("submit"), "ada").await.unwrap();
        for version in 0..4 {
            assert_eq!(
                workflows.executions.snapshot("execution-1").await.unwrap(),
                Some(Version::new(version))
            );
            workflows.submit("1", &Move::new("comment"), "bob").await.unwrap();
        }
        let (there, _) = fresh.store.snapshots("execution-1").unwrap();
        let versions: Vec<_> = there.iter().map(|snapshot| snapshot.version.get()).collect();
        assert_eq!(versions, [3, 2], "the newest two");
        assert!(fresh.store.snapshots("execution-2").unwrap().0.is_empty());
    });
}

/// Reads within times, the newest, and a page with how many there are.
#[test]
fn events_are_read_by_time_and_by_page() {
    let fresh = Fresh::new();
    let at = |seconds: u64| Timestamp::new(1_700_000_000_000_000_000 + seconds * 1_000_000_000);
    for second in 0..30 {
        let event = NewEvent::new("execution-1", "WorkflowMoved")
            .time(at(second))
            .json(r#"{"name":"comment","from_state":"submitted","to_state":"submitted"}"#);
        fresh.store.append(event).unwrap().wait().unwrap();
    }
    let count = |read: Read<'_>| fresh.store.read(read).unwrap().count();
    let stream = || Read::stream("execution-1");
    assert_eq!(count(stream().from(at(10))), 20);
    assert_eq!(count(stream().until(at(10))), 11);
    assert_eq!(count(stream().from(at(10)).until(at(12))), 3);
    let newest = fresh.store.read(stream().backwards().limit(1)).unwrap().next().unwrap().unwrap();
    assert_eq!(newest.version(), Version::new(29));
    run(async {
        let workflows = open(fresh.store.clone()).await;
        let (page, total) = workflows.audit("1", 20, 7).await.unwrap();
        assert_eq!((page.len(), page[0].version, total), (7, Version::new(20), 30));
        let by_id = workflows.event("1", page[3].id).await.unwrap().unwrap();
        assert_eq!(by_id.version(), Version::new(23));
        assert!(workflows.event("1", annals::Uuid::from_u128(7)).await.unwrap().is_none());
    });
}

/// All within one millisecond: they keep their order and are all there, also behind a snapshot that was made in the middle.
#[test]
fn a_hundred_thousand_events_within_a_millisecond_are_all_there_in_order() {
    let fresh = Fresh::new();
    let now = Timestamp::new(1_700_000_000_000_000_000);
    let batch = |from: u32| -> Append<'static> {
        (from..from + 10_000)
            .map(|number| {
                let data = format!(
                    r#"{{"name":"c","from_state":"s","to_state":"s{number}","payload":{{"n":{number}}}}}"#
                );
                NewEvent::new("execution-1", "WorkflowMoved").time(now).json(data)
            })
            .collect()
    };
    run(async {
        let workflows = open(fresh.store.clone()).await;
        for ten_thousand in 0..10 {
            fresh.store.append(batch(ten_thousand * 10_000)).unwrap().wait().unwrap();
            if ten_thousand == 4 {
                workflows.executions.snapshot("execution-1").await.unwrap();
            }
        }
        let there = workflows.executions.load("execution-1").await.unwrap();
        assert_eq!((there.report.snapshot, there.report.events), (Some(Version::new(49_999)), 50_000));
        assert_eq!((there.state.moves, there.state.state.as_str()), (100_000, "s99999"));
    });
}

async fn enqueued_moves_are_made_once<S: EventStore>(store: S) {
    let workflows = open(store.clone()).await;
    for execution in 0..10 {
        workflows.submit(&execution.to_string(), &Move::new("submit"), "ada").await.unwrap();
    }
    for number in 0..100 {
        let wanted = Move::new("comment").with("n", number);
        let (execution, key) = ((number % 10).to_string(), format!("k{number}"));
        let first = workflows.enqueue(&execution, &key, &wanted, "bob").await.unwrap();
        let again = workflows.enqueue(&execution, &key, &wanted, "bob").await.unwrap();
        assert!(!first.repeated && again.repeated);
    }
    // What leads nowhere is a dead letter.
    workflows.enqueue("3", "bad", &Move::new("close"), "bob").await.unwrap();
    for round in 0..200_u64 {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    let workflows = open(store).await;
                    let mut worker = workflows.queue.worker().await.unwrap();
                    worker.work(|job| workflows.work(job)).await
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(10 + round % 30)).await;
        workers.iter().for_each(tokio::task::JoinHandle::abort);
        let mut moves = 0;
        for execution in 0..10 {
            moves +=
                workflows.executions.load(model::stream(&execution.to_string())).await.unwrap().state.moves;
        }
        if moves == 110 && workflows.queue.parked().await.unwrap().len() == 1 {
            break;
        }
        assert!(round < 199, "{moves} moves");
    }
    for execution in 0..10_u64 {
        let (lines, total) = workflows.audit(&execution.to_string(), 1, 100).await.unwrap();
        assert_eq!((lines.len(), total), (10, 11));
        assert!(lines.iter().all(|line| line.user.as_deref() == Some("bob")), "{lines:?}");
        let state = workflows.executions.load(model::stream(&execution.to_string())).await.unwrap().state;
        assert_eq!(state.data["n"].as_u64(), Some(90 + execution));
    }
    let parked = workflows.queue.parked().await.unwrap();
    assert!(parked[0].reason.contains("nothing leads on by \"close\""), "{parked:?}");
}

#[test]
fn enqueued_moves_are_made_once_whatever_ends() {
    let fresh = Fresh::new();
    run(enqueued_moves_are_made_once(fresh.store.clone()));
    with_server(|client| run(async { enqueued_moves_are_made_once(client.await).await }));
}

#[test]
fn the_audit_trail_says_who_what_when_and_from_where_to_where() {
    let fresh = Fresh::new();
    run(async {
        let workflows = open(fresh.store.clone()).await;
        workflows.submit("1", &Move::new("submit"), "ada").await.unwrap();
        workflows.submit("1", &Move::new("reject"), "eve").await.unwrap();
        let refused = workflows.submit("1", &Move::new("close"), "mallory").await;
        assert!(matches!(refused, Err(HandleError::Refused(NoWay { .. }))));
        let (lines, _) = workflows.audit("1", 0, 10).await.unwrap();
        let told: Vec<_> = lines
            .iter()
            .map(|line| {
                format!(
                    "{} {} {}>{}",
                    line.user.as_deref().unwrap(),
                    line.name,
                    line.from_state,
                    line.to_state
                )
            })
            .collect();
        assert_eq!(told, ["ada submit new>submitted", "eve reject submitted>rejected"]);
        assert!(lines[0].time > Timestamp::ZERO && lines[0].time <= lines[1].time);
    });
}

/// A tenant is a store: what there isn't is an error, one never sees the other, and one is exported and dropped by itself.
#[test]
fn tenants_are_stores_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Store::open_read_only(directory.path().join("nobody"));
    assert!(missing.is_err(), "a tenant that there is not");
    for tenant in ["a", "b"] {
        let store = Store::open(directory.path().join(tenant)).unwrap();
        run(async {
            let workflows = open(store.clone()).await;
            workflows.submit("1", &Move::new("submit").with("tenant", tenant), "ada").await.unwrap();
            let there = workflows.executions.load("execution-1").await.unwrap();
            assert_eq!(there.state.data["tenant"].as_str(), Some(tenant));
        });
        store.close().unwrap();
    }
    std::fs::remove_dir_all(directory.path().join("a")).unwrap();
    let left = Store::open(directory.path().join("b")).unwrap();
    assert_eq!(left.read(Read::stream("execution-1")).unwrap().count(), 1);
    drop(left);
    with_address(|address| {
        run(async {
            let client =
                annals_client::Client::connect(annals_client::Options::new(address.as_str())).await.unwrap();
            let of = async |tenant: &str| {
                annals_client::Client::connect(annals_client::Options::new(address.as_str()).store(tenant))
                    .await
            };
            let refused = match of("nobody").await {
                Ok(client) => client.head("x").await.is_err(),
                Err(_) => true,
            };
            assert!(refused, "a tenant that there is not");
            for tenant in ["a", "b"] {
                client.create_store(tenant).await.unwrap();
                let workflows = open(of(tenant).await.unwrap()).await;
                workflows.submit("1", &Move::new("submit").with("tenant", tenant), "ada").await.unwrap();
            }
            client.drop_store("a").await.unwrap();
            let b = open(of("b").await.unwrap()).await;
            let there = b.executions.load("execution-1").await.unwrap();
            assert_eq!(there.state.data["tenant"].as_str(), Some("b"));
            assert_eq!(client.stores().await.unwrap().iter().filter(|name| *name == "a").count(), 0);
        });
    });
}
