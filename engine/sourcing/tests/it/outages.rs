//! Servers that go away and come back, and questions in between: nothing is given up, and nothing done twice.

use crate::repository::{Task, TaskCommand, TaskEvent};
use crate::{Fresh, run, until};
use annals::{NewEvent, Position, QueryItem, Settings, Store};
use annals_client::{Client, Options};
use annals_server::serve::{self, Server};
use annals_sourcing::{
    Context, Cursored, Handlers, InMemory, Order, Pauses, ProjectionState, Projector, Queue, QueueSettings,
    Reactor, ReadModel, Repository,
};
use annals_types::{Append, Record};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::task::block_in_place;

/// A server on this directory of a store, or of stores.
pub(crate) fn server_at(data: &Path, listen: SocketAddr) -> Server {
    let (settings, limits) = (Settings::default(), serve::Limits::default());
    let options = serve::Options { admin: None, data: data.to_owned(), listen, settings, limits };
    Server::start(options).unwrap()
}

type Log = Vec<u64>;

fn logging(calls: &Arc<AtomicU32>) -> Handlers<Log> {
    let calls = Arc::clone(calls);
    Handlers::new().each(move |log: &mut Log, event| {
        calls.fetch_add(1, Ordering::Relaxed);
        if event.event_type() == "Bad" {
            return Err("bad".into());
        }
        log.push(event.position().get());
        Ok(())
    })
}

/// A worker, a reactor and a projection that is asked all the time; none of them ends, and each goes on.
#[test]
fn a_server_that_comes_back_finds_all_of_them_at_work() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    Store::open(data.join("default")).unwrap().close().unwrap();
    let server = server_at(&data, ([127, 0, 0, 1], 0).into());
    let address = server.address();
    run(async {
        let client = Client::connect(Options::new(address.to_string())).await.unwrap();
        let pauses = Pauses { first: Duration::from_millis(10), longest: Duration::from_millis(100) };
        let settings = QueueSettings { pauses, ..QueueSettings::default() };
        let queue = Queue::open(client.clone(), "mail", settings).await.unwrap();
        let done = Arc::new(AtomicU32::new(0));
        let mut worker = queue.worker().await.unwrap();
        let working = tokio::spawn({
            let done = Arc::clone(&done);
            async move {
                let work = |_| {
                    let done = Arc::clone(&done);
                    async move {
                        done.fetch_add(1, Ordering::Relaxed);
                        Ok(Append::new())
                    }
                };
                worker.work(work).await
            }
        });
        let tasks = Repository::new(client.clone(), Task).unwrap();
        let follow_up = |event: &TaskEvent, _: &Record| match event {
            TaskEvent::Created { title } if title == "first" => {
                Some(Order::new("task-2", TaskCommand::Create("second")))
            }
            _ => None,
        };
        let reactor = Reactor::new("follow-up", tasks.clone(), follow_up).unwrap();
        let reacting = tokio::spawn(async move { reactor.run().await });
        let calls = Arc::default();
        let mut running =
            Projector::new(client.clone(), InMemory::<Log>::default(), logging(&calls)).unwrap().spawn();
        // One whose progress is on the server, too.
        let model = Cursored::new(client.clone(), "log", Log::new());
        let mut cursored = Projector::new(client.clone(), model, logging(&calls)).unwrap().spawn();
        queue.enqueue("ada", "k1", &1, &Context::new()).await.unwrap();
        until(async || done.load(Ordering::Relaxed) == 1).await;

        block_in_place(|| server.stop());
        for _ in 0..20 {
            running.parked().await.unwrap();
            let _ = tokio::time::timeout(Duration::from_millis(5), cursored.parked()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let server = block_in_place(|| server_at(&data, address));

        queue.enqueue("ada", "k2", &1, &Context::new()).await.unwrap();
        let created = tasks.handle("task-1", &TaskCommand::Create("first"), &Context::new()).await.unwrap();
        until(async || done.load(Ordering::Relaxed) == 2).await;
        until(async || tasks.load("task-2").await.is_ok_and(|second| second.version.is_some())).await;
        assert!(running.reached(created.last_position().unwrap()).await, "{:?}", running.status());
        assert!(!working.is_finished() && !reacting.is_finished());
        assert_eq!(running.status().state, ProjectionState::Running);
        assert!(cursored.reached(created.last_position().unwrap()).await, "{:?}", cursored.status());
        working.abort();
        reacting.abort();
        drop((running, cursored, queue, tasks, client));
        block_in_place(|| server.stop());
    });
}

fn bad_one_among(store: &Store, others: u32) -> (Position, Position) {
    let append = |event_type| store.append(NewEvent::new("x-1", event_type)).unwrap().wait().unwrap();
    (0..others).for_each(|_| _ = append("A"));
    let bad = append("Bad").first_position();
    (0..others).for_each(|_| _ = append("A"));
    (bad, append("A").first_position())
}

/// Somebody who looks again and again, as a page does that shows how all stands, makes no difference.
#[test]
fn who_asks_what_is_parked_changes_nothing() {
    let fresh = Fresh::new();
    let (bad, last) = bad_one_among(&fresh.store, 50);
    run(async {
        let pauses = Pauses { first: Duration::from_millis(40), longest: Duration::from_millis(80) };
        for kind in ["memory", "cursor"] {
            let calls = Arc::new(AtomicU32::new(0));
            let log = match kind {
                "memory" => {
                    let model = InMemory::<Log>::default();
                    let projector = Projector::new(fresh.store.clone(), model, logging(&calls)).unwrap();
                    ask_on_and_on(projector.retries(3, pauses), bad, last).await.with(Clone::clone)
                }
                _ => {
                    let model = Cursored::new(fresh.store.clone(), "asked", Log::new());
                    let projector = Projector::new(fresh.store.clone(), model, logging(&calls)).unwrap();
                    ask_on_and_on(projector.retries(3, pauses), bad, last).await.model().clone()
                }
            };
            assert_eq!(log.len(), 101, "{kind}: each is there once");
            assert_eq!(calls.load(Ordering::Relaxed), 101 + 4, "{kind}: the bad one is tried four times");
        }
    });
}

async fn ask_on_and_on<R: ReadModel + 'static>(
    projector: Projector<Store, R>,
    bad: Position,
    last: Position,
) -> R {
    // Its own notes of what it parks are not for it.
    let running = projector.query(QueryItem::new().stream("x-1")).batch_max(7).spawn();
    let mut asked = 0;
    while running.status().position < Some(last) {
        running.parked().await.unwrap().unwrap();
        asked += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert!(asked < 10_000, "{:?}", running.status());
    }
    assert!(asked > 5, "it was asked {asked} times only");
    let parked = running.parked().await.unwrap().unwrap();
    assert_eq!((parked.len(), parked[0].position, parked[0].failures), (1, bad, 4));
    running.stop().await.unwrap()
}
