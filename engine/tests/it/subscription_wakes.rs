//! Durable subscriptions: how members that wait are woken.

use crate::subscription::{SECOND, fill, next, position};
use crate::support::{block_on, now, open, wait_until, within};
use annals::{DeliveryOrder, Member, Nack, NewSubscription, Position, Store};
use futures_core::Stream;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

#[test]
fn what_waits_is_awaited_without_a_thread() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 1);
    let new = NewSubscription::new("work").handling_timeout(SECOND / 4).retries(5, SECOND / 20, SECOND / 20);
    store.create_subscription(&new).unwrap();
    let (mut first, mut second) = (store.join("work").unwrap(), store.join("work").unwrap());
    let delivery = block_on(&mut first).unwrap().unwrap();
    first.nack(delivery.id, &Nack::retry("later")).unwrap();
    // Woken by the moment when it is due again.
    let again = block_on(&mut first).unwrap().unwrap();
    assert_eq!((again.position(), again.attempt), (Position::ZERO, 2));
    // Woken by the moment when the other one has lost its place.
    let taken_over = block_on(&mut second).unwrap().unwrap();
    assert_eq!((taken_over.position(), taken_over.attempt), (Position::ZERO, 3));
    second.ack(taken_over.id).unwrap();
    // Woken by an append, and by the end.
    let late = store.clone();
    let appending = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        fill(&late, 1, 1);
    });
    let delivery = block_on(&mut second).unwrap().unwrap();
    second.ack(delivery.id).unwrap();
    appending.join().unwrap();
    let closing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        store.close().unwrap();
    });
    assert!(block_on(&mut second).is_none());
    closing.join().unwrap();
}

#[test]
fn acknowledgements_are_noted_within_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 3);
    store.create_subscription(&NewSubscription::new("work")).unwrap();
    let mut member = store.join("work").unwrap();
    let reader = Store::open_read_only(dir.path()).unwrap();
    for count in 1..=3 {
        let delivery = next(&mut member);
        member.ack(delivery.id).unwrap();
        let begun = now();
        wait_until("it is noted", || reader.subscription("work").unwrap().next.get() >= count);
        assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
    }
}

#[test]
fn who_waits_for_an_answer_learns_of_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 2);
    let new = || NewSubscription::new("");
    let cases = [
        ("full", new().in_flight_max(1).order(DeliveryOrder::Unordered)),
        ("total", new().order(DeliveryOrder::Total)),
        ("shared", new().order(DeliveryOrder::Total).shared()),
    ];
    for (name, new) in cases {
        store.create_subscription(&NewSubscription { name: name.into(), ..new }).unwrap();
        let mut member = store.join(name).unwrap();
        let first = next(&mut member);
        let acknowledger = member.acknowledger();
        let mut waiting = if name == "shared" { store.join(name).unwrap() } else { member };
        let answering = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            acknowledger.ack(first.id).unwrap();
            acknowledger
        });
        let begun = now();
        assert_eq!(position(&next(&mut waiting)), 1, "{name}");
        // A third of the handling time-out is when it would look again by itself.
        assert!(begun.elapsed() < 5 * SECOND, "{name}: {:?}", begun.elapsed());
        drop(answering.join().unwrap());
    }
}

/// A waker that owns a member, and panics where it is woken.
struct Owning(Mutex<Option<Member>>);

impl Wake for Owning {
    fn wake(self: Arc<Self>) {
        assert!(self.0.lock().unwrap().is_none(), "it panics where its member waits");
    }
}

#[test]
fn wakers_may_own_members_and_panic() {
    within(30, "dropping and panicking wakers", || {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        store
            .create_subscription(&NewSubscription::new("work").shared().handling_timeout(SECOND / 10))
            .unwrap();
        let poll = |member: &mut Member, waker: &Waker| {
            assert!(Pin::new(member).poll_next(&mut Context::from_waker(waker)).is_pending());
        };
        let (mut first, mut second) = (store.join("work").unwrap(), store.join("work").unwrap());
        poll(&mut second, Waker::noop());
        let waker = Waker::from(Arc::new(Owning(Mutex::new(Some(second)))));
        poll(&mut first, &waker);
        drop(waker);
        // It is woken, and panics, on the thread that keeps the time; that goes on for others.
        std::thread::sleep(SECOND / 5);
        fill(&store, 1, 1);
        let delivery = next(&mut first);
        first.ack(delivery.id).unwrap();
        let reader = Store::open_read_only(dir.path()).unwrap();
        wait_until("it is noted", || reader.subscription("work").unwrap().next.get() == 1);
        drop(first);
    });
}
