//! Durable subscriptions: what is handed to whom, and what of it lasts.

use crate::support::{block_on, cases, event, now, on_disk, open, wait, wait_until};
use annals::testing::SimulatedDisk;
use annals::{
    AppendError, Delivery, DeliveryId, DeliveryOrder, InputError, Member, Nack, NewEvent, NewSubscription,
    ParkedChoice, Position, QueryItem, Start, Store, SubscriptionError, Timestamp, Version, limits,
};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Long enough for whatever is there already, and for a thread that gets no processor for a while.
const SOON: Duration = Duration::from_secs(20);

pub(crate) fn fill(store: &Store, streams: u64, events: u64) {
    let tickets: Vec<_> =
        (0..events).map(|number| store.append(event(&format!("s-{}", number % streams)))).collect();
    for ticket in tickets {
        wait(ticket).unwrap();
    }
}

/// The next event, which is there.
pub(crate) fn next(member: &mut Member) -> Delivery {
    member.next_within(SOON).unwrap().expect("there is one")
}

/// That there is none.
fn none(member: &mut Member) {
    let more = member.next_within(Duration::from_millis(20)).unwrap();
    assert!(more.is_none(), "{more:?}");
}

pub(crate) fn position(delivery: &Delivery) -> u64 {
    delivery.position().get()
}

/// Handles all that there is; the positions, in order.
pub(crate) fn drain(member: &mut Member) -> Vec<u64> {
    let mut positions = Vec::new();
    while let Some(delivery) = member.next_within(Duration::ZERO).unwrap() {
        positions.push(position(&delivery));
        member.ack(delivery.id).unwrap();
    }
    positions
}

#[test]
fn what_was_acknowledged_does_not_come_again_and_the_rest_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 5, 10);
    let new = NewSubscription::new("all").order(DeliveryOrder::Unordered);
    assert!(store.create_subscription(&new).unwrap());
    assert!(!store.create_subscription(&new).unwrap(), "it is there, with these settings");
    let mut member = store.join("all").unwrap();
    let taken: Vec<_> = (0..10).map(|_| next(&mut member)).collect();
    assert_eq!(taken.iter().map(position).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    none(&mut member);
    let ids: Vec<_> = [0, 1, 3, 4, 8].iter().map(|&place: &usize| taken[place].id).collect();
    member.ack_each(&ids).unwrap();
    let status = store.subscription("all").unwrap();
    assert_eq!((status.next.get(), status.lag, status.open, status.in_flight), (10, 0, 5, Some(5)));
    assert_eq!((status.oldest.unwrap().0.get(), status.members), (2, Some(1)));
    store.close().unwrap();
    assert!(member.next_within(SECOND).unwrap().is_none() && member.has_ended());
    assert!(matches!(member.ack(taken[2].id), Err(SubscriptionError::Closed)));

    let store = open(dir.path());
    let mut member = store.join("all").unwrap();
    assert_eq!(drain(&mut member), [2, 5, 6, 7, 9]);
    // Live: what is appended while it waits.
    let late = store.clone();
    let appending = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        fill(&late, 1, 1);
    });
    assert_eq!(position(&next(&mut member)), 10);
    appending.join().unwrap();
}

#[test]
fn a_subscription_brings_what_it_asks_for_from_where_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..40_u64 {
        let event =
            NewEvent::new(format!("s-{}", number % 4), if number % 3 == 0 { "Third" } else { "Other" });
        wait(store.append(event.tag(format!("five:{}", number % 5)).time(Timestamp::new(100 * number))))
            .unwrap();
    }
    let third = || NewSubscription::new("third").query(QueryItem::new().of_type("Third").tag("five:0"));
    let one = || NewSubscription::new("one").stream("s-1");
    let cases: [(NewSubscription<'_>, &[u64]); 8] = [
        (third(), &[0, 15, 30]),
        (third().start(Start::After(Position::new(15).into())), &[30]),
        (third().start(Start::From(Timestamp::new(1_500).into())), &[15, 30]),
        (third().start(Start::After(Timestamp::new(1_500).into())), &[30]),
        (one().start(Start::From(Version::new(8).into())), &[33, 37]),
        (one().start(Start::After(Version::new(8).into())), &[37]),
        (one().start(Start::End), &[]),
        (one().start(Start::From(Version::new(11).into())), &[]),
    ];
    for (number, (new, expected)) in cases.into_iter().enumerate() {
        let name = format!("subscription {number}");
        store.create_subscription(&NewSubscription { name: name.clone().into(), ..new }).unwrap();
        assert_eq!(drain(&mut store.join(&name).unwrap()), expected, "{number}");
    }
    // Versions 10 and 11 of that stream: one begins with the second.
    for number in 40..48_u64 {
        wait(store.append(NewEvent::new("s-1", "Late").time(Timestamp::new(100 * number)))).unwrap();
    }
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(drain(&mut store.join("subscription 6").unwrap()), (40..48).collect::<Vec<_>>());
    assert_eq!(drain(&mut store.join("subscription 7").unwrap()), (41..48).collect::<Vec<_>>());
    assert_eq!(store.subscriptions().unwrap().len(), 8);
}

#[test]
fn of_an_exclusive_subscription_the_next_member_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 3, 6);
    let lease = Duration::from_millis(400);
    let new =
        NewSubscription::new("one").order(DeliveryOrder::Unordered).handling_timeout(lease).in_flight_max(2);
    store.create_subscription(&new).unwrap();
    let mut first = store.join("one").unwrap();
    let mut second = store.join("one").unwrap();
    let taken = next(&mut first);
    first.ack(taken.id).unwrap();
    let held = [next(&mut first), next(&mut first)];
    none(&mut first);
    none(&mut second);
    assert!(first.is_in_turn() && !second.is_in_turn());
    // It stops acknowledging.
    let begun = now();
    let delivery = next(&mut second);
    assert!(begun.elapsed() < lease + SECOND, "{:?}", begun.elapsed());
    assert_eq!((position(&delivery), delivery.attempt), (1, 2));
    assert!(matches!(first.ack(held[0].id), Err(SubscriptionError::Lost { .. })));
    assert!(matches!(first.next_within(SECOND), Err(SubscriptionError::Lost { .. })));
    assert!(matches!(second.ack(held[0].id), Err(SubscriptionError::NotInFlight { .. })));
    // It is dropped, while another waits on a thread of its own.
    let mut third = store.join("one").unwrap();
    let waiting = std::thread::spawn(move || {
        let delivery = next(&mut third);
        (position(&delivery), third)
    });
    wait_until("the third waits", || store.subscription("one").unwrap().members == Some(2));
    std::thread::sleep(Duration::from_millis(50));
    let begun = now();
    drop(second);
    let (taken_over, mut third) = waiting.join().unwrap();
    assert_eq!(taken_over, 1);
    assert!(begun.elapsed() < lease / 2, "it was told at once: {:?}", begun.elapsed());
    // Alone, it keeps its place however silent it is, but not what it holds.
    std::thread::sleep(lease + lease / 2);
    assert_eq!(drain(&mut third), [1, 2, 3, 4, 5]);
    let mut fourth = store.join("one").unwrap();
    fill(&store, 1, 1);
    // It holds nothing, and is not heard of.
    assert_eq!(position(&next(&mut fourth)), 6);
    assert!(matches!(third.next_within(SECOND), Err(SubscriptionError::Lost { .. })));
}

#[test]
fn a_member_that_renews_or_waits_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let lease = Duration::from_millis(200);
    store.create_subscription(&NewSubscription::new("one").handling_timeout(lease)).unwrap();
    let mut first = store.join("one").unwrap();
    let mut second = store.join("one").unwrap();
    let waiting = std::thread::spawn(move || {
        let delivery = next(&mut first);
        (delivery, first)
    });
    assert!(second.next_within(3 * lease).unwrap().is_none(), "the first waits, and keeps its place");
    fill(&store, 1, 1);
    let (delivery, first) = waiting.join().unwrap();
    for _ in 0..8 {
        std::thread::sleep(lease / 4);
        first.renew().unwrap();
        assert!(second.next_within(Duration::ZERO).unwrap().is_none());
    }
    first.ack(delivery.id).unwrap();
    none(&mut second);
}

const EVENTS: u64 = 3_000;

#[test]
fn members_compete_and_each_stream_stays_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create_subscription(&NewSubscription::new("work").shared().in_flight_max(7)).unwrap();
    let done: Mutex<BTreeMap<String, Vec<u64>>> = Mutex::default();
    let workers: Mutex<BTreeMap<usize, usize>> = Mutex::default();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (store, done, workers) = (&store, &done, &workers);
            scope.spawn(move || {
                let mut member = store.join("work").unwrap();
                let mut held = Vec::new();
                while done.lock().unwrap().values().map(|versions| versions.len() as u64).sum::<u64>()
                    < EVENTS
                {
                    match member.next_within(Duration::from_millis(1)).unwrap() {
                        Some(delivery) => held.push(delivery),
                        None if held.is_empty() => {}
                        None => {
                            for delivery in held.drain(..) {
                                let version = delivery.version().get();
                                done.lock()
                                    .unwrap()
                                    .entry(delivery.stream().to_owned())
                                    .or_default()
                                    .push(version);
                                *workers.lock().unwrap().entry(worker).or_default() += 1;
                                member.ack(delivery.id).unwrap();
                            }
                        }
                    }
                }
            });
        }
        scope.spawn(|| fill(&store, 40, EVENTS));
    });
    for (stream, versions) in done.into_inner().unwrap() {
        assert!(versions.iter().copied().eq(0..EVENTS / 40), "{stream}: {versions:?}");
    }
    let workers = workers.into_inner().unwrap();
    assert!(workers.len() == 4 && workers.values().all(|&count| count > 50), "{workers:?}");
    let status = store.subscription("work").unwrap();
    assert_eq!((status.open, status.lag, status.oldest), (0, 0, None));
}

#[test]
fn what_fails_is_tried_again_then_parked_and_parked_events_are_replayed_or_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 6);
    let pause = Duration::from_millis(60);
    let new = NewSubscription::new("work").retries(2, pause, SECOND);
    store.create_subscription(&new).unwrap();
    let mut member = store.join("work").unwrap();
    for attempt in 1..=3 {
        let begun = now();
        let delivery = next(&mut member);
        assert_eq!((position(&delivery), delivery.attempt), (0, attempt));
        if attempt > 1 {
            assert!(begun.elapsed() > pause / 3, "attempt {attempt} came after {:?}", begun.elapsed());
        }
        member.nack(delivery.id, &Nack::retry(format!("failure {attempt}"))).unwrap();
    }
    let parked = store.parked("work").unwrap();
    assert_eq!((parked.len(), parked[0].position.get(), parked[0].failures), (1, 0, 3));
    assert_eq!(parked[0].reason, "failure 3");
    // Its stream goes on behind it.
    let delivery = next(&mut member);
    assert_eq!(position(&delivery), 1);
    none(&mut member);
    member.nack(delivery.id, &Nack::park("no such customer")).unwrap();
    let delivery = next(&mut member);
    assert_eq!(position(&delivery), 2);
    member.nack(delivery.id, &Nack::skip("of no interest")).unwrap();
    let stopping = next(&mut member);
    member.nack(stopping.id, &Nack::stop("the schema is unknown")).unwrap();
    let stopped = member.next_within(SECOND);
    assert!(
        matches!(&stopped, Err(SubscriptionError::Stopped { reason, .. }) if reason == "the schema is unknown")
    );
    // As another process sees it, at once: it was durable before it was answered.
    let reader = Store::open_read_only(dir.path()).unwrap();
    let status = reader.subscription("work").unwrap();
    assert_eq!((status.parked, status.in_flight, status.members), (2, None, None));
    assert_eq!(status.stopped.as_deref(), Some("the schema is unknown"));
    assert_eq!(status.oldest.unwrap().0.get(), 3);
    let parked = reader.parked("work").unwrap();
    assert_eq!(parked.iter().map(|parked| parked.position.get()).collect::<Vec<_>>(), [0, 1]);
    drop((reader, member));
    store.close().unwrap();

    let store = open(dir.path());
    let mut member = store.join("work").unwrap();
    assert!(matches!(member.next_within(SECOND), Err(SubscriptionError::Stopped { .. })));
    store.resume_subscription("work").unwrap();
    let missing = store.replay_parked("work", &ParkedChoice::At(vec![Position::ZERO, Position::new(5)]));
    assert!(
        matches!(missing, Err(SubscriptionError::NotParked { position }) if position == Position::new(5))
    );
    assert_eq!(store.parked("work").unwrap().len(), 2, "none was changed");
    assert_eq!(store.replay_parked("work", &Position::ZERO.into()).unwrap(), 1);
    assert_eq!(store.discard_parked("work", &ParkedChoice::All).unwrap(), 1);
    let again = next(&mut member);
    assert_eq!((position(&again), again.attempt), (0, 1));
    member.ack(again.id).unwrap();
    assert_eq!(drain(&mut member), [3, 4, 5]);
    assert!(store.parked("work").unwrap().is_empty());
}

#[test]
fn a_subscription_begins_again_where_it_is_reset_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..10 {
        wait(store.append(event("s").time(Timestamp::new(100 * number)))).unwrap();
    }
    store.create_subscription(&NewSubscription::new("work").order(DeliveryOrder::Unordered)).unwrap();
    let mut member = store.join("work").unwrap();
    for _ in 0..3 {
        let delivery = next(&mut member);
        member.nack(delivery.id, &Nack::park("later")).unwrap();
    }
    let held = next(&mut member);
    store.reset_subscription("work", Start::From(Position::new(1).into())).unwrap();
    // What it held is no longer its own, though it will be handed the same event again.
    assert!(matches!(member.ack(held.id), Err(SubscriptionError::NotInFlight { .. })));
    assert_eq!(store.parked("work").unwrap().len(), 1, "those behind come again");
    assert_eq!(drain(&mut member), (1..10).collect::<Vec<_>>());
    store.reset_subscription("work", Start::From(Timestamp::new(750).into())).unwrap();
    store.close().unwrap();
    let store = open(dir.path());
    let mut member = store.join("work").unwrap();
    assert_eq!(drain(&mut member), [8, 9]);
    store.reset_subscription("work", Start::End).unwrap();
    none(&mut member);
    let beyond = store.reset_subscription("work", Start::After(Position::new(10).into()));
    assert!(matches!(beyond, Err(SubscriptionError::AfterTheEnd { position, next })
        if (position.get(), next.get()) == (11, 10)));
    store.reset_subscription("work", Start::First).unwrap();
    assert_eq!(store.parked("work").unwrap().len(), 0);
    assert_eq!(drain(&mut member).len(), 10);
}

#[test]
fn bad_input_is_refused_by_name_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 2);
    let unknown = |result: Result<(), SubscriptionError>| {
        assert!(
            matches!(&result, Err(SubscriptionError::Unknown { name }) if name == "nobody"),
            "{result:?}"
        );
        assert_eq!(result.unwrap_err().to_string(), "there is no subscription \"nobody\"; create it first");
    };
    unknown(store.join("nobody").map(drop));
    unknown(store.subscription("nobody").map(drop));
    unknown(store.parked("nobody").map(drop));
    unknown(store.reset_subscription("nobody", Start::First));
    unknown(store.replay_parked("nobody", &ParkedChoice::All).map(drop));
    unknown(store.discard_parked("nobody", &ParkedChoice::All).map(drop));
    unknown(store.stop_subscription("nobody", ""));
    unknown(store.resume_subscription("nobody"));
    unknown(store.delete_subscription("nobody"));
    assert!(!dir.path().join("subscriptions").exists(), "nothing was made for that");
    let input = |new: NewSubscription<'_>| match store.create_subscription(&new) {
        Err(SubscriptionError::Input(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(input(NewSubscription::new("")), InputError::Empty { .. }));
    assert!(matches!(input(NewSubscription::new("a\nb")), InputError::ControlCharacter { .. }));
    assert!(matches!(input(NewSubscription::new("n".repeat(257))), InputError::TooLong { .. }));
    let new = || NewSubscription::new("work");
    assert!(matches!(input(new().in_flight_max(0)), InputError::Setting { setting: "in_flight_max", .. }));
    assert!(matches!(input(new().in_flight_max(1_001)), InputError::Setting { .. }));
    assert!(matches!(input(new().handling_timeout(Duration::ZERO)), InputError::Setting { .. }));
    assert!(matches!(input(new().handling_timeout(Duration::MAX)), InputError::Setting { .. }));
    assert!(matches!(input(new().retries(1, SECOND, SECOND / 2)), InputError::Setting { .. }));
    assert!(matches!(input(new().by_cursor().shared()), InputError::CursorOfMany));
    assert!(matches!(input(new().start(Start::From(Version::ZERO.into()))), InputError::Bound { .. }));
    let beyond = store.create_subscription(&new().start(Start::From(Position::new(3).into())));
    assert!(matches!(beyond, Err(SubscriptionError::AfterTheEnd { .. })));

    assert!(store.subscriptions().unwrap().is_empty());
}

#[test]
fn what_does_not_fit_what_is_there_is_refused_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 2);
    let new = || NewSubscription::new("work");
    store.create_subscription(&new()).unwrap();
    let mut member = store.join("work").unwrap();
    let delivery = next(&mut member);
    member.ack(delivery.id).unwrap();
    let other = store.create_subscription(&new().query(QueryItem::new().tag("t")));
    let Err(error) = other else { panic!("it has other settings") };
    assert_eq!(
        error.to_string(),
        "there is a subscription \"work\" with another query; choose another name, or delete it with all that is known of it"
    );
    let wrong = DeliveryId { number: delivery.id.number + 1, ..delivery.id };
    for id in [delivery.id, wrong] {
        let refused = member.ack(id);
        assert!(
            matches!(refused, Err(SubscriptionError::NotInFlight { position }) if position == Position::ZERO)
        );
        assert!(member.nack(id, &Nack::park("")).is_err());
    }
    let reader = Store::open_read_only(dir.path()).unwrap();
    let read_only = |result: Result<(), SubscriptionError>| {
        assert!(matches!(result, Err(SubscriptionError::Append(AppendError::ReadOnly))), "{result:?}");
    };
    read_only(reader.join("work").map(drop));
    read_only(reader.create_subscription(&new()).map(drop));
    read_only(reader.reset_subscription("work", Start::First));
    read_only(reader.delete_subscription("work"));
    assert_eq!(reader.subscriptions().unwrap().len(), 1);

    store.delete_subscription("work").unwrap();
    assert!(matches!(member.next_within(SECOND), Err(SubscriptionError::Deleted { .. })));
    assert!(store.subscriptions().unwrap().is_empty() && store.join("work").is_err());
    // The same name again is another one.
    store.create_subscription(&new()).unwrap();
    assert_eq!(drain(&mut store.join("work").unwrap()), [0, 1]);
    let members: Vec<_> = (0..limits::MEMBERS_MAX).map(|_| store.join("work").unwrap()).collect();
    assert!(matches!(store.join("work"), Err(SubscriptionError::TooManyMembers { .. })));
    drop(members);
    let clone = store.clone();
    store.close().unwrap();
    assert!(matches!(clone.join("work"), Err(SubscriptionError::Closed)));
    assert_eq!(clone.subscription("work").unwrap().next.get(), 2);
}

/// A processor that appends one event for each of those that it is handed.
fn process(store: &Store, delivery: &Delivery) -> Result<(), AppendError> {
    let copy = NewEvent::new("copies", "Copied").json(position(delivery).to_string());
    wait(store.append(delivery.handled_by(copy.into()))).map(drop)
}

fn copies(store: &Store) -> Vec<u64> {
    let copies = store.read(annals::Read::stream("copies")).unwrap();
    copies.map(|copy| String::from_utf8_lossy(copy.unwrap().data()).parse().unwrap()).collect()
}

#[test]
fn who_appends_handles_each_event_exactly_once() {
    for seed in 0..cases(40) {
        let disk = SimulatedDisk::new(seed);
        let store = on_disk(&disk);
        fill(&store, 3, 12);
        let new = NewSubscription::new("copying").query(QueryItem::new().category("s")).by_cursor();
        store.create_subscription(&new).unwrap();
        disk.freeze_at(disk.operations() + 1 + seed);
        let mut member = store.join("copying").unwrap();
        while let Ok(Some(delivery)) = member.next_within(Duration::ZERO) {
            if process(&store, &delivery).is_err() || member.ack(delivery.id).is_err() {
                break;
            }
        }
        let disk = disk.crash(seed);
        drop((member, store));
        let store = on_disk(&disk);
        let mut member = store.join("copying").unwrap();
        let mut handed = 0;
        while let Some(delivery) = member.next_within(Duration::ZERO).unwrap() {
            process(&store, &delivery).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            handed += 1;
            // It may die here: the cursor says it all.
            if handed % 3 == 0 {
                drop(member);
                member = store.join("copying").unwrap();
            } else {
                member.ack(delivery.id).unwrap();
            }
        }
        assert_eq!(copies(&store), (0..12).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn a_member_that_lost_its_place_cannot_handle_an_event_a_second_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 2);
    let new = NewSubscription::new("copying").stream("s-0").by_cursor().handling_timeout(SECOND / 10);
    store.create_subscription(&new).unwrap();
    let (mut first, mut second) = (store.join("copying").unwrap(), store.join("copying").unwrap());
    let delivery = next(&mut first);
    let again = next(&mut second);
    assert_eq!(delivery.position(), again.position());
    process(&store, &again).unwrap();
    second.ack(again.id).unwrap();
    let late = process(&store, &delivery);
    assert!(matches!(late, Err(AppendError::WrongCursor { .. })), "{late:?}");
    assert_eq!(copies(&store), [0]);
    // Reset, it begins again, and so does the cursor.
    process(&store, &next(&mut second)).unwrap();
    store.reset_subscription("copying", Start::First).unwrap();
    assert_eq!(store.cursor("copying").unwrap().unwrap().position, None);
    assert_eq!(position(&next(&mut second)), 0);
}

#[test]
fn a_subscription_by_cursor_stops_where_it_would_park() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 3);
    let new =
        NewSubscription::new("copying").stream("s-0").by_cursor().retries(1, Duration::ZERO, Duration::ZERO);
    store.create_subscription(&new).unwrap();
    let mut member = store.join("copying").unwrap();
    for nack in [Nack::park("wrong"), Nack::retry("late"), Nack::retry("later")] {
        let delivery = next(&mut member);
        assert_eq!(position(&delivery), 0);
        let is_to_stop = delivery.attempt > 1 || matches!(nack, Nack::Park(_));
        member.nack(delivery.id, &nack).unwrap();
        if is_to_stop {
            assert!(matches!(member.next_within(SECOND), Err(SubscriptionError::Stopped { .. })), "{nack:?}");
            assert!(store.parked("copying").unwrap().is_empty());
            store.resume_subscription("copying").unwrap();
        }
    }
    while let Some(delivery) = member.next_within(Duration::ZERO).unwrap() {
        process(&store, &delivery).unwrap();
        member.ack(delivery.id).unwrap();
    }
    assert_eq!(copies(&store), [0, 1, 2]);
}

#[test]
fn a_stopped_subscription_says_so_once_and_its_members_wait_until_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 1);
    store.create_subscription(&NewSubscription::new("work").shared()).unwrap();
    store.stop_subscription("work", "a pause").unwrap();
    let (mut blocking, mut awaiting) = (store.join("work").unwrap(), store.join("work").unwrap());
    assert!(matches!(blocking.next_within(SECOND), Err(SubscriptionError::Stopped { .. })));
    assert!(matches!(block_on(&mut awaiting), Some(Err(SubscriptionError::Stopped { .. }))));
    none(&mut blocking);
    let other = store.clone();
    let resuming = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        other.resume_subscription("work").unwrap();
    });
    let delivery = block_on(&mut awaiting).unwrap().unwrap();
    awaiting.ack(delivery.id).unwrap();
    resuming.join().unwrap();
    // What ends a member ends it once.
    store.delete_subscription("work").unwrap();
    assert!(matches!(block_on(&mut awaiting), Some(Err(SubscriptionError::Deleted { .. }))));
    assert!(block_on(&mut awaiting).is_none() && awaiting.has_ended() && !awaiting.is_in_turn());
    assert!(matches!(blocking.next_within(SECOND), Err(SubscriptionError::Deleted { .. })));
    assert!(blocking.next_within(SECOND).unwrap().is_none());
}

#[test]
fn an_answer_is_not_too_late_as_long_as_nobody_else_has_the_event() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 2);
    let new = NewSubscription::new("work")
        .handling_timeout(Duration::from_millis(30))
        .order(DeliveryOrder::Unordered);
    store.create_subscription(&new).unwrap();
    let mut member = store.join("work").unwrap();
    let (first, second) = (next(&mut member), next(&mut member));
    std::thread::sleep(Duration::from_millis(60));
    member.ack(first.id).unwrap();
    let again = next(&mut member);
    assert_eq!((again.position(), again.attempt), (second.position(), 2));
    assert!(matches!(member.ack(second.id), Err(SubscriptionError::NotInFlight { .. })));
    member.ack(again.id).unwrap();
    none(&mut member);
}

#[test]
fn an_event_whose_handler_panics_fails_and_is_parked_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 1);
    store
        .create_subscription(&NewSubscription::new("work").retries(1, Duration::ZERO, Duration::ZERO))
        .unwrap();
    for attempt in 1..=2 {
        let mut member = store.join("work").unwrap();
        let handler = std::thread::spawn(move || {
            let delivery = next(&mut member);
            assert_ne!(delivery.attempt, attempt, "it is meant to fail");
        });
        handler.join().unwrap_err();
    }
    assert_eq!(store.parked("work").unwrap()[0].reason, "its handler panicked");
    none(&mut store.join("work").unwrap());
}
