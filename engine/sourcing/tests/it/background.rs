//! Corners of what goes on in the background, in which things were once lost, doubled, or stood still.

use crate::corners::{Wallet, troute};
use crate::{Fresh, run};
use annals::{Append, NewEvent, Position, QueryItem, Read, Store};
use annals_sourcing::rusqlite::Connection;
use annals_sourcing::*;
use annals_types::Record;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[derive(DomainEvent)]
enum Timed {
    #[event("Began")]
    Began { x: u32 },
}

#[test]
fn two_deadlines_of_one_event_both_pass() {
    let fresh = Fresh::new();
    fresh.store.append(NewEvent::new("case-1", "Began").json(r#"{"x":1}"#)).unwrap().wait().unwrap();
    run(async {
        let timers = Timers::new("t", fresh.store.clone(), |_: &Timed, r: &Record| {
            vec![
                Deadline::after(r, Duration::from_millis(20), "case-1", "reminder"),
                Deadline::after(r, Duration::from_millis(60), "case-1", "escalation"),
            ]
        })
        .unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(300), timers.run()).await;
        assert_eq!(
            fresh.store.read(Read::query(QueryItem::new().of_type("TimeoutElapsed"))).unwrap().count(),
            2
        );
    });
}

#[test]
fn deadlines_of_two_timers_with_one_key_both_pass() {
    let fresh = Fresh::new();
    fresh.store.append(NewEvent::new("case-1", "Began").json(r#"{"x":1}"#)).unwrap().wait().unwrap();
    run(async {
        let timers = |name: &'static str, ms: u64| {
            Timers::new(name, fresh.store.clone(), move |_: &Timed, r: &Record| {
                Some(Deadline::after(r, Duration::from_millis(ms), format!("{name}-1"), "case 1"))
            })
            .unwrap()
        };
        let (a, b) = (timers("billing", 20), timers("shipping", 60));
        let _ =
            tokio::time::timeout(Duration::from_millis(300), async { tokio::join!(a.run(), b.run()) }).await;
        assert_eq!(
            fresh.store.read(Read::query(QueryItem::new().of_type("TimeoutElapsed"))).unwrap().count(),
            2
        );
    });
}

#[derive(DomainEvent, serde::Serialize, serde::Deserialize)]
#[event("Hit")]
struct Hit {
    n: u32,
}

fn hit(store: &Store, n: u32) -> Position {
    store
        .append(NewEvent::new("h-1", "Hit").json(format!(r#"{{"n":{n}}}"#)))
        .unwrap()
        .wait()
        .unwrap()
        .first_position()
}

const SCHEMA: Schema = Schema { create: "CREATE TABLE hits (n INTEGER)", drop: "DROP TABLE hits" };
fn hits() -> Handlers<Connection> {
    Handlers::new().when::<Hit>(|c: &mut Connection, h, _| {
        c.execute("INSERT INTO hits VALUES (?1)", [h.n])?;
        Ok(())
    })
}

fn quick() -> Pauses {
    Pauses { first: Duration::from_millis(1), longest: Duration::from_millis(2) }
}

#[test]
fn two_projectors_of_one_model_never_handle_an_event_twice() {
    let fresh = Fresh::new();
    let path = fresh.directory.path().join("model.sqlite");
    run(async {
        let a = Projector::new(fresh.store.clone(), SqliteModel::open(&path, "h", SCHEMA).unwrap(), hits())
            .unwrap()
            .spawn();
        let b = Projector::new(fresh.store.clone(), SqliteModel::open(&path, "h", SCHEMA).unwrap(), hits())
            .unwrap()
            .spawn();
        tokio::time::sleep(Duration::from_millis(50)).await;
        for n in 0..10 {
            hit(&fresh.store, n);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop((a, b));
        let count: u32 = Connection::open(&path)
            .unwrap()
            .query_row("SELECT count(*) FROM hits", [], |r| r.get(0))
            .unwrap();
        assert_eq!(count, 10);
    });
}

#[test]
fn what_comes_again_after_a_reset_is_parked_no_more() {
    let fresh = Fresh::new();
    hit(&fresh.store, 0);
    hit(&fresh.store, 1);
    run(async {
        static FAILS: AtomicU32 = AtomicU32::new(1);
        let handlers = Handlers::new().when::<Hit>(|c: &mut Connection, h, _| {
            if h.n == 1 && FAILS.load(Ordering::Relaxed) == 1 {
                return Err("no".into());
            }
            c.execute("INSERT INTO hits VALUES (?1)", [h.n])?;
            Ok(())
        });
        let model = SqliteModel::on(Connection::open_in_memory().unwrap(), "h", SCHEMA).unwrap();
        let mut p = Projector::new(fresh.store.clone(), model, handlers).unwrap().retries(0, quick());
        p.catch_up().await.unwrap();
        FAILS.store(0, Ordering::Relaxed);
        p.model().reset(Some(Position::new(0))).await.unwrap();
        p.catch_up().await.unwrap();
        let replayed = p.replay_parked().await.unwrap();
        let count: u32 = p
            .model()
            .connection()
            .query_row("SELECT count(*) FROM hits WHERE n=1", [], |r| r.get(0))
            .unwrap();
        assert_eq!((count, replayed), (1, 0), "the event was handled twice");
    });
}

#[test]
fn a_model_elsewhere_is_emptied_when_it_is_rebuilt() {
    let fresh = Fresh::new();
    hit(&fresh.store, 1);
    run(async {
        static FAILS: AtomicU32 = AtomicU32::new(1);
        let handlers = Handlers::<u32>::new().when::<Hit>(|c: &mut u32, _, _| {
            if FAILS.load(Ordering::Relaxed) == 1 {
                return Err("no".into());
            }
            *c += 1;
            Ok(())
        });
        let mut p = Projector::new(
            fresh.store.clone(),
            Cursored::new(fresh.store.clone(), "c", 0_u32).emptied_by(|count| *count = 0),
            handlers,
        )
        .unwrap()
        .retries(0, quick());
        p.catch_up().await.unwrap();
        FAILS.store(0, Ordering::Relaxed);
        p.rebuild().await.unwrap();
        assert_eq!(*p.model().model(), 1);
        p.rebuild().await.unwrap();
        let after = *p.model().model();
        let replayed = p.replay_parked().await.unwrap();
        assert_eq!(
            (after, replayed),
            (1, 0),
            "rebuild empties the model; nothing is parked after a rebuild without failures"
        );
    });
}

#[test]
fn a_handler_that_panics_is_told() {
    let fresh = Fresh::new();
    hit(&fresh.store, 1);
    run(async {
        let handlers = Handlers::<u32>::new().when::<Hit>(|_: &mut u32, _, _| panic!("bug"));
        let mut r =
            Projector::new(fresh.store.clone(), InMemory::<u32>::default(), handlers).unwrap().spawn();
        let status = tokio::time::timeout(Duration::from_secs(2), r.settled()).await.unwrap();
        assert_ne!(status.state, ProjectionState::Running, "{status:?}");
    });
}

fn qs(ms: u64) -> QueueSettings {
    QueueSettings {
        handling_timeout: Duration::from_millis(ms),
        retries_max: 3,
        pauses: quick(),
        recovery: Duration::from_millis(20),
    }
}

#[test]
fn a_worker_that_took_too_long_goes_on() {
    let fresh = Fresh::new();
    run(async {
        let queue = Queue::open(fresh.store.clone(), "mail", qs(100)).await.unwrap();
        queue.enqueue("a", "1", &1, &Context::new()).await.unwrap();
        let mut w1 = queue.worker().await.unwrap();
        let mut w2 = queue.worker().await.unwrap();
        let work = |_: Job| async {
            std::thread::sleep(Duration::from_millis(400));
            Ok(Append::new())
        };
        let (a, b) = (
            tokio::spawn(async move { tokio::time::timeout(Duration::from_secs(2), w1.work(work)).await }),
            tokio::spawn(async move { tokio::time::timeout(Duration::from_secs(2), w2.work(work)).await }),
        );
        let (a, b) = (a.await.unwrap(), b.await.unwrap());
        assert!(a.is_err() && b.is_err(), "a worker ended: {a:?} {b:?}");
    });
}

#[test]
fn keys_of_two_queues_do_not_meet() {
    let fresh = Fresh::new();
    run(async {
        let one = Queue::open(fresh.store.clone(), "mail", qs(100)).await.unwrap();
        let two = Queue::open(fresh.store.clone(), "mail:eu", qs(100)).await.unwrap();
        two.enqueue("a", "7", &1, &Context::new()).await.unwrap();
        assert!(!one.enqueue("a", "eu:7", &1, &Context::new()).await.unwrap().repeated);
    });
}

#[test]
fn a_job_that_another_one_completed_is_no_dead_letter() {
    let fresh = Fresh::new();
    run(async {
        let queue = Queue::open(fresh.store.clone(), "mail", qs(1000)).await.unwrap();
        queue.enqueue("a", "1", &1, &Context::new()).await.unwrap();
        let mut w = queue.worker().await.unwrap();
        let store = fresh.store.clone();
        // Another worker that had it completes it while this one works; this one's decider says: that was done already.
        w.work_once(&|job: Job| {
            let store = store.clone();
            async move {
                store.append(job.completed_by(Append::new())).unwrap().wait().unwrap();
                Err(JobError::permanent("it is done already"))
            }
        })
        .await
        .unwrap();
        assert_eq!(queue.parked().await.unwrap().len(), 0, "a job that is completed is a dead letter");
    });
}

#[test]
fn timers_of_a_closed_store_do_not_spin() {
    let fresh = Fresh::new();
    fresh.store.append(NewEvent::new("case-1", "Began").json(r#"{"x":0}"#)).unwrap().wait().unwrap();
    run(async {
        let count = Arc::new(AtomicU32::new(0));
        let c = Arc::clone(&count);
        let timers = Timers::new("t", fresh.store.clone(), |_: &Timed, _: &Record| None::<Deadline>)
            .unwrap()
            .watch(move |h| {
                if matches!(h, Happening::Started { .. }) && c.fetch_add(1, Ordering::Relaxed) > 20_000 {
                    panic!("it spins");
                }
            });
        let task = tokio::spawn(async move { timers.run().await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let store = fresh.store.clone();
        tokio::task::spawn_blocking(move || store.close()).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begun = count.load(Ordering::Relaxed);
        task.abort();
        let _ = task.await;
        assert!(begun < 100, "begun {begun} times in half a second");
    });
}

#[test]
fn timers_and_a_reactor_of_one_name_do_not_meet() {
    let fresh = Fresh::new();
    for _ in 0..1_200 {
        drop(fresh.store.append(NewEvent::new("t-1", "Trig").json(r#"{"a":"w-1","b":0,"to":""}"#)).unwrap());
    }
    drop(fresh.store.append(NewEvent::new("t-1", "Began").json(r#"{"x":0}"#)).unwrap().wait());
    run(async {
        let timers =
            Timers::new("billing", fresh.store.clone(), |_: &Timed, _: &Record| None::<Deadline>).unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(1500), timers.run()).await;
        let r =
            Reactor::new("billing", Repository::new(fresh.store.clone(), Wallet).unwrap(), troute).unwrap();
        r.catch_up().await.unwrap();
        assert_eq!(fresh.store.read(Read::stream("w-1")).unwrap().count(), 1_200);
    });
}
