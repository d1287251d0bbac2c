//! Jobs that are taken now and done later.

use crate::{Fresh, beside, run, until};
use annals::{Append, NewEvent, ParkedChoice, QueryItem, Read, Store};
use annals_sourcing::{Context, JobError, Pauses, Queue, QueueSettings};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn settings() -> QueueSettings {
    QueueSettings {
        handling_timeout: Duration::from_millis(200),
        retries_max: 3,
        pauses: Pauses { first: Duration::from_millis(1), longest: Duration::from_millis(5) },
        recovery: Duration::from_millis(20),
    }
}

async fn queue(store: &Store) -> Queue<Store> {
    Queue::open(store.clone(), "mail", settings()).await.unwrap()
}

fn count(store: &Store, event_type: &str) -> usize {
    store.read(Read::query(QueryItem::new().of_type(event_type))).unwrap().count()
}

#[test]
fn a_key_makes_a_job_one() {
    let fresh = Fresh::new();
    run(async {
        let queue = queue(&fresh.store).await;
        let first = queue.enqueue("a", "k1", &1, &Context::new()).await.unwrap();
        let again = queue.enqueue("b", "k1", &2, &Context::new()).await.unwrap();
        assert!(!first.repeated && again.repeated);
        assert_eq!(first.position, again.position);
        let racers: Vec<_> = (0..20)
            .map(|_| {
                let store = fresh.store.clone();
                tokio::spawn(async move {
                    let queue = self::queue(&store).await;
                    queue.enqueue("a", "k2", &3, &Context::new()).await.unwrap().repeated
                })
            })
            .collect();
        let mut added = 0;
        for racer in racers {
            added += u32::from(!racer.await.unwrap());
        }
        assert_eq!(added, 1);
        assert_eq!(count(&fresh.store, "JobEnqueued"), 2);
    });
}

/// Many workers, some of which end in the middle of a job: each job's result is there once, those of one execution in order and never two at a time.
#[test]
fn workers_that_end_anywhere_lose_nothing_and_repeat_nothing_that_was_completed() {
    let fresh = Fresh::new();
    run(async {
        let queue = queue(&fresh.store).await;
        for job in 0..200_u32 {
            queue.enqueue(&(job % 7).to_string(), &job.to_string(), &job, &Context::new()).await.unwrap();
        }
        let busy = Arc::new(Mutex::new(BTreeSet::new()));
        let overlaps = Arc::new(AtomicU32::new(0));
        let spawn = |lives: Duration| {
            let (store, busy, overlaps) = (fresh.store.clone(), Arc::clone(&busy), Arc::clone(&overlaps));
            tokio::spawn(async move {
                let mut worker = self::queue(&store).await.worker().await.unwrap();
                let work = worker.work(|job| {
                    let (busy, overlaps) = (Arc::clone(&busy), Arc::clone(&overlaps));
                    async move {
                        let of = job.of().to_owned();
                        /// Is free again also where the work is dropped.
                        struct Busy(Arc<Mutex<BTreeSet<String>>>, String);
                        impl Drop for Busy {
                            fn drop(&mut self) {
                                self.0.lock().unwrap().remove(&self.1);
                            }
                        }
                        if !busy.lock().unwrap().insert(of.clone()) {
                            overlaps.fetch_add(1, Ordering::Relaxed);
                        }
                        let _busy = Busy(busy, of.clone());
                        tokio::time::sleep(Duration::from_micros(300)).await;
                        let number: u32 = job.decode()?;
                        let result =
                            NewEvent::new(format!("result-{of}"), "MailSent").json(number.to_string());
                        Ok(Append::from(result))
                    }
                });
                tokio::time::timeout(lives, work).await
            })
        };
        let mut round = 0;
        while count(&fresh.store, "MailSent") < 200 {
            let workers: Vec<_> =
                (0..5).map(|index| spawn(Duration::from_millis(5 + (round * 7 + index * 3) % 40))).collect();
            for worker in workers {
                let ended = worker.await.unwrap();
                assert!(ended.is_err(), "{ended:?}");
            }
            round += 1;
            assert!(round < 500);
        }
        // Whoever comes later finds nothing to do.
        assert!(spawn(Duration::from_millis(300)).await.unwrap().is_err());
        assert_eq!(overlaps.load(Ordering::Relaxed), 0);
    });
    let mut by_execution = BTreeMap::<String, Vec<u32>>::new();
    for event in fresh.store.read(Read::query(QueryItem::new().of_type("MailSent"))).unwrap() {
        let event = event.unwrap();
        let number = std::str::from_utf8(event.data()).unwrap().parse().unwrap();
        by_execution.entry(event.stream().to_owned()).or_default().push(number);
    }
    for (of, numbers) in (0..7).zip(by_execution.values()) {
        assert_eq!(*numbers, (of..200).step_by(7).collect::<Vec<_>>());
    }
    assert_eq!(count(&fresh.store, "JobCompleted"), 200);
}

#[test]
fn what_becomes_of_a_job_that_fails_depends_on_why() {
    let fresh = Fresh::new();
    run(async {
        let queue = queue(&fresh.store).await;
        for kind in ["transient", "recoverable", "permanent", "hopeless"] {
            queue.enqueue(kind, kind, &kind, &Context::new()).await.unwrap();
        }
        let tries = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
        let is_mended = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut worker = queue.worker().await.unwrap();
        let work = worker.work(|job| {
            let (tries, is_mended) = (Arc::clone(&tries), Arc::clone(&is_mended));
            async move {
                let kind: String = job.decode()?;
                let tried = {
                    let mut tries = tries.lock().unwrap();
                    let tried = tries.entry(kind.clone()).or_default();
                    *tried += 1;
                    *tried
                };
                match (kind.as_str(), tried) {
                    (_, _) if is_mended.load(Ordering::Relaxed) => Ok(Append::new()),
                    ("transient", 1..=2) => Err(JobError::transient("busy")),
                    ("recoverable", 1) => Err(JobError::recoverable("no paper")),
                    ("permanent", _) => Err(JobError::permanent("no such address")),
                    ("hopeless", _) => Err(JobError::transient("again")),
                    _ => Ok(Append::new()),
                }
            }
        });
        beside(
            work,
            until(async || {
                count(&fresh.store, "JobCompleted") == 2 && queue.parked().await.unwrap().len() == 2
            }),
        )
        .await;
        let expected = [("hopeless", 4), ("permanent", 1), ("recoverable", 2), ("transient", 3)];
        assert_eq!(*tries.lock().unwrap(), expected.map(|(kind, count)| (kind.to_owned(), count)).into());
        let parked = queue.parked().await.unwrap();
        let reasons: Vec<_> = parked.iter().map(|parked| parked.reason.as_str()).collect();
        assert_eq!(reasons, ["no such address", "again"]);
        assert_eq!(count(&fresh.store, "JobCompleted"), 2);
        is_mended.store(true, Ordering::Relaxed);
        assert_eq!(queue.replay(&ParkedChoice::All).await.unwrap(), 2);
        let work = worker.work(|_| async { Ok(Append::new()) });
        beside(work, until(async || count(&fresh.store, "JobCompleted") == 4)).await;
        assert!(queue.parked().await.unwrap().is_empty());
        assert_eq!(count(&fresh.store, "JobCompleted"), 4);
    });
}

#[test]
fn a_name_that_would_end_the_category_is_refused() {
    let fresh = Fresh::new();
    run(async {
        for name in ["", "mail-out"] {
            let error = Queue::open(fresh.store.clone(), name, settings()).await.unwrap_err().to_string();
            assert!(error.contains("no name of a queue"), "{error}");
        }
    });
}
