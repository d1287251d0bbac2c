//! What follows from events is in the store exactly once.

use crate::{Fresh, run};
use annals::{Append, NewEvent, QueryItem, Read, Store};
use annals_sourcing::{
    Decider, DomainEvent, Happening, Order, Reactor, Repository, SourcingError, TriggerRefused,
};
use annals_types::Record;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[derive(DomainEvent)]
enum Trigger {
    #[event("OrderPlaced")]
    Placed { order: u32, customer: u32 },
}

#[derive(Clone, Debug, PartialEq, DomainEvent)]
enum CustomerEvent {
    #[event("PointsGranted")]
    Granted { order: u32, total: u32 },
}

/// Grants a point for each order, and refuses those of the thirteenth.
struct Customer;

impl Decider for Customer {
    type State = u32;
    type Command = u32;
    type Event = CustomerEvent;
    type Error = &'static str;

    fn initial(&self) -> u32 {
        0
    }

    fn evolve(&self, points: &mut u32, CustomerEvent::Granted { total, .. }: &CustomerEvent) {
        *points = *total;
    }

    fn decide(&self, points: &u32, order: &u32) -> Result<Vec<CustomerEvent>, &'static str> {
        if order % 13 == 12 {
            return Err("unlucky");
        }
        Ok(vec![CustomerEvent::Granted { order: *order, total: points + 1 }])
    }
}

fn place(store: &Store, orders: std::ops::Range<u32>) {
    for order in orders {
        let data = format!(r#"{{"order":{order},"customer":{}}}"#, order % 5);
        drop(store.append(NewEvent::new(format!("order-{order}"), "OrderPlaced").json(data)).unwrap());
    }
    store.append(NewEvent::new("other-1", "Other")).unwrap().wait().unwrap();
}

fn route(Trigger::Placed { order, customer }: &Trigger, _: &Record) -> Option<Order<u32>> {
    Some(Order::new(format!("customer-{customer}"), *order))
}

fn customers(store: &Store) -> Repository<Store, Customer> {
    Repository::new(store.clone(), Customer).unwrap().cache(NonZeroUsize::new(3).unwrap())
}

/// Each order has led to one event, in order for each customer, with the running total right.
fn check(store: &Store, orders: u32) {
    let mut totals = [0; 5];
    let mut granted = Vec::new();
    for event in store.read(Read::query(QueryItem::new().of_type("PointsGranted"))).unwrap() {
        let event = event.unwrap();
        let CustomerEvent::Granted { order, total } =
            CustomerEvent::decode(event.event_type(), event.data(), &annals_sourcing::Json).unwrap().unwrap();
        let customer = usize::try_from(order % 5).unwrap();
        totals[customer] += 1;
        assert_eq!(total, totals[customer], "order {order}");
        assert_eq!(event.stream(), format!("customer-{customer}"));
        assert!(event.causation().is_some() && event.correlation() == event.causation());
        granted.push(order);
    }
    granted.sort_unstable();
    assert_eq!(granted, (0..orders).filter(|order| order % 13 != 12).collect::<Vec<_>>());
    let refused: Vec<_> = store
        .read(Read::stream("refused-points"))
        .unwrap()
        .map(|event| {
            let event = event.unwrap();
            let refused = TriggerRefused::decode(event.event_type(), event.data(), &annals_sourcing::Json);
            refused.unwrap().unwrap().reason
        })
        .collect();
    assert_eq!(refused.len(), (0..orders).filter(|order| order % 13 == 12).count());
    assert!(refused.iter().all(|reason| reason == "unlucky"));
}

#[test]
fn what_follows_is_there_once_and_what_is_refused_is_told() {
    for batch_max in [1, 7, 256] {
        let fresh = Fresh::new();
        place(&fresh.store, 0..300);
        run(async {
            let reactor =
                Reactor::new("points", customers(&fresh.store), route).unwrap().batch_max(batch_max);
            reactor.catch_up().await.unwrap();
            reactor.catch_up().await.unwrap();
            check(&fresh.store, 300);
            place(&fresh.store, 300..400);
            Reactor::new("points", customers(&fresh.store), route).unwrap().catch_up().await.unwrap();
            check(&fresh.store, 400);
        });
    }
}

/// A batch is decided again where somebody was quicker; what it refuses is told when that is in the store, once.
#[test]
fn a_refusal_is_told_once_however_often_it_is_decided() {
    let fresh = Fresh::new();
    place(&fresh.store, 0..26);
    run(async {
        let told = Arc::new(AtomicU32::new(0));
        let decided = Arc::new(AtomicU32::new(0));
        let disturbing = {
            let (store, decided) = (fresh.store.clone(), Arc::clone(&decided));
            move |heard: &Trigger, record: &Record| {
                // Somebody else comes to the same stream, between the decision and the append, twice.
                if decided.fetch_add(1, Ordering::Relaxed) < 52 && record.position().get() == 25 {
                    let granted =
                        NewEvent::new("customer-0", "PointsGranted").json(r#"{"order":1000,"total":1}"#);
                    store.append(granted).unwrap().wait().unwrap();
                }
                route(heard, record)
            }
        };
        let reactor = Reactor::new("points", customers(&fresh.store), disturbing).unwrap().watch({
            let told = Arc::clone(&told);
            move |happening| {
                told.fetch_add(u32::from(matches!(happening, Happening::Refused { .. })), Ordering::Relaxed);
            }
        });
        reactor.catch_up().await.unwrap();
        assert!(decided.load(Ordering::Relaxed) >= 3 * 26, "it was decided {decided:?} times");
        assert_eq!(told.load(Ordering::Relaxed), 2);
        assert_eq!(fresh.store.read(Read::stream("refused-points")).unwrap().count(), 2);
    });
}

/// Wherever it is dropped, and however many do it at once: once.
#[test]
fn it_is_once_with_three_at_once_that_are_dropped_anywhere() {
    let fresh = Fresh::new();
    let writer = {
        let store = fresh.store.clone();
        std::thread::spawn(move || place(&store, 0..3_000))
    };
    run(async {
        for round in 0..20_u64 {
            let hosts: Vec<_> = (0..3)
                .map(|_| {
                    let reactor = Reactor::new("points", customers(&fresh.store), route).unwrap();
                    let reactor = reactor.batch_max(16).patience(Duration::from_millis(3));
                    tokio::spawn(async move { reactor.run().await })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(3 + round)).await;
            for host in hosts {
                host.abort();
                if let Ok(ended) = host.await {
                    panic!("{ended:?}");
                }
            }
        }
        writer.join().unwrap();
        Reactor::new("points", customers(&fresh.store), route).unwrap().catch_up().await.unwrap();
    });
    check(&fresh.store, 3_000);
}

/// One works and the other stands by; when the one ends, the other takes over.
#[test]
fn the_one_that_stands_by_takes_over() {
    let fresh = Fresh::new();
    run(async {
        let host = |stood_back: Arc<AtomicU32>| {
            Reactor::new("points", customers(&fresh.store), route)
                .unwrap()
                .patience(Duration::from_millis(50))
                .watch(move |happening| {
                    stood_back
                        .fetch_add(u32::from(matches!(happening, Happening::StoodBack)), Ordering::Relaxed);
                })
        };
        let counts = [Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0))];
        let [first, second] = counts.clone().map(|count| {
            let reactor = host(count);
            tokio::spawn(async move { reactor.run().await })
        });
        for orders in 0..10 {
            place(&fresh.store, orders * 10..(orders + 1) * 10);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        check(&fresh.store, 100);
        // Whichever works is ended.
        let [one, other] = counts.map(|count| count.load(Ordering::Relaxed));
        let (ended, left) = if one < other { (first, second) } else { (second, first) };
        ended.abort();
        place(&fresh.store, 100..110);
        let mut waited = 0;
        // The last event is of another type.
        let last =
            fresh.store.read(Read::all().backwards().limit(2)).unwrap().last().unwrap().unwrap().position();
        while fresh.store.cursor("reactor:points").unwrap().unwrap().position < Some(last) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            waited += 1;
            assert!(waited < 500, "nobody took over");
        }
        check(&fresh.store, 110);
        left.abort();
    });
}

/// An event that cannot be read stops it there: what is before is handled, nothing behind is, and nothing is skipped.
#[test]
fn what_cannot_be_read_is_never_skipped() {
    let fresh = Fresh::new();
    place(&fresh.store, 0..5);
    fresh.store.append(NewEvent::new("order-5", "OrderPlaced").json("broken")).unwrap().wait().unwrap();
    place(&fresh.store, 6..8);
    run(async {
        let reactor = Reactor::new("points", customers(&fresh.store), route).unwrap();
        let error = reactor.catch_up().await.unwrap_err();
        assert!(matches!(&error, SourcingError::Unreadable { stream, .. } if stream == "order-5"), "{error}");
        check(&fresh.store, 5);
    });
}

/// Others write to the same streams meanwhile.
#[test]
fn others_who_write_to_the_streams_meanwhile_are_taken_into_account() {
    let fresh = Fresh::new();
    place(&fresh.store, 0..5);
    run(async {
        let repository = customers(&fresh.store);
        Reactor::new("points", repository.clone(), route).unwrap().catch_up().await.unwrap();
        let other = NewEvent::new("customer-0", "PointsGranted").json(r#"{"order":1000,"total":500}"#);
        fresh.store.append(Append::from(other)).unwrap().wait().unwrap();
        place(&fresh.store, 5..6);
        // It remembers that the customer had one point.
        Reactor::new("points", repository, route).unwrap().catch_up().await.unwrap();
        let newest = fresh
            .store
            .read(Read::stream("customer-0").backwards().limit(1))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        assert_eq!(newest.data(), br#"{"order":5,"total":501}"#);
    });
}
