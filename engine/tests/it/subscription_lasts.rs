//! What lasts of a durable subscription: through the end of its process, of its machine, faults, and damage.

use crate::subscription::{SECOND, drain, fill, next, position};
use crate::support::{NOW, cases, event, exactly, on_disk, open, small, tiny, wait, wait_until, within};
use annals::testing::{Clock, Fault, Repeat, SimulatedDisk, open_simulated};
use annals::{
    Append, AppendError, DeliveryOrder, DiskChoice, Nack, NewSubscription, Position, ReadError, Start, Store,
    SubscriptionError, limits,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

fn simulated(disk: &SimulatedDisk) -> Result<Store, annals::OpenError> {
    let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW)));
    open_simulated(disk, Path::new("/store"), small(DiskChoice::Auto), clock)
}

/// A life in which everything happens to a subscription; what was answered, in turn.
fn live(store: &Store, answered: &mut Vec<&'static str>) -> Result<(), SubscriptionError> {
    store.create_subscription(&NewSubscription::new("work").order(DeliveryOrder::Unordered))?;
    answered.push("created");
    let mut member = store.join("work")?;
    let mut take =
        || member.next_within(Duration::ZERO).map(|delivery| delivery.expect("there are enough").id);
    let (one, two, three) = (take()?, take()?, take()?);
    member.nack(one, &Nack::park("later"))?;
    answered.push("parked 0");
    member.nack(two, &Nack::skip("old"))?;
    answered.push("skipped 1");
    member.nack(three, &Nack::park("later"))?;
    answered.push("parked 2");
    store.discard_parked("work", &Position::ZERO.into())?;
    answered.push("discarded 0");
    store.replay_parked("work", &Position::new(2).into())?;
    answered.push("replayed 2");
    store.stop_subscription("work", "a pause")?;
    answered.push("stopped");
    store.resume_subscription("work")?;
    answered.push("resumed");
    store.reset_subscription("work", Start::From(Position::new(4).into()))?;
    answered.push("reset to 4");
    store.delete_subscription("work")?;
    answered.push("deleted");
    Ok(())
}

/// How the subscription stands where so much was answered: parked events, and what is handed out; whether it is stopped.
type Expected = (Vec<u64>, Vec<u64>, bool);

fn expected(answered: usize) -> Option<Expected> {
    let all = |from: u64| (from..8).collect::<Vec<_>>();
    let with_2_from = |first: &[u64]| first.iter().copied().chain(3..8).collect::<Vec<_>>();
    Some(match answered {
        0 | 10 => return None,
        1 => (vec![], all(0), false),
        2 => (vec![0], all(1), false),
        3 => (vec![0], all(2), false),
        4 => (vec![0, 2], all(3), false),
        5 => (vec![2], all(3), false),
        6 | 8 => (vec![], with_2_from(&[2]), false),
        7 => (vec![], vec![], true),
        _ => (vec![], all(4), false),
    })
}

fn stands(store: &Store) -> Option<Expected> {
    let parked = match store.parked("work") {
        Ok(parked) => parked.iter().map(|parked| parked.position.get()).collect(),
        Err(SubscriptionError::Unknown { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    let is_stopped = store.subscription("work").unwrap().stopped.is_some();
    let handed = if is_stopped { Vec::new() } else { drain(&mut store.join("work").unwrap()) };
    Some((parked, handed, is_stopped))
}

#[test]
fn what_was_answered_lasts_wherever_the_process_or_the_machine_stops() {
    let operations = {
        let disk = SimulatedDisk::new(1);
        let store = on_disk(&disk);
        fill(&store, 4, 8);
        let first = disk.operations();
        live(&store, &mut Vec::new()).unwrap();
        first..disk.operations() + 30
    };
    let mut reached = std::collections::BTreeSet::new();
    for at in operations {
        // With fewer, not every answer is reached.
        for seed in 0..cases(4).max(4) {
            let disk = SimulatedDisk::new(seed);
            let store = on_disk(&disk);
            fill(&store, 4, 8);
            disk.freeze_at(at);
            let mut answered = Vec::new();
            let _ = live(&store, &mut answered);
            let disk = if seed == 0 { disk.kill() } else { disk.crash(seed) };
            drop(store);
            let store = on_disk(&disk);
            let stands = stands(&store);
            reached.insert(answered.len());
            // What was on its way may have arrived.
            let may_be: Vec<_> = (answered.len()..=answered.len() + 1).map(expected).collect();
            assert!(may_be.contains(&stands), "operation {at}, seed {seed}: {stands:?} after {answered:?}");
            store.close().unwrap();
        }
    }
    assert!(reached.len() > 9, "{reached:?}");
}

#[test]
fn a_fault_loses_nothing_but_acknowledgements() {
    for number in 0..60 {
        for fault in [Fault::EIO, Fault::ENOSPC] {
            let disk = SimulatedDisk::new(number);
            let store = on_disk(&disk);
            fill(&store, 4, 8);
            store.create_subscription(&NewSubscription::new("work")).unwrap();
            disk.fail_at(disk.operations() + number % 12, fault, Repeat::Once);
            let mut parked = Vec::new();
            let mut member = store.join("work").unwrap();
            for round in 0..20 {
                match member.next_within(Duration::ZERO) {
                    Ok(Some(delivery)) if round % 3 == 0 => {
                        if member.nack(delivery.id, &Nack::park("later")).is_ok() {
                            parked.push(position(&delivery));
                        }
                    }
                    Ok(Some(delivery)) => drop(member.ack(delivery.id)),
                    Ok(None) => break,
                    Err(SubscriptionError::Interrupted { .. }) => member = store.join("work").unwrap(),
                    Err(error) => panic!("{error}"),
                }
            }
            disk.clear_faults();
            drop(member);
            // The log was not touched: a failed write of the subscriptions' store is its own affair.
            wait(store.append(event("s"))).unwrap();
            let label = format!("operation {number}, {fault:?}");
            let there: Vec<_> =
                store.parked("work").unwrap().iter().map(|parked| parked.position.get()).collect();
            assert!(parked.iter().all(|position| there.contains(position)), "{label}: {parked:?}, {there:?}");
            let disk = disk.kill();
            drop(store);
            let store = on_disk(&disk);
            let again: Vec<_> =
                store.parked("work").unwrap().iter().map(|parked| parked.position.get()).collect();
            assert_eq!(again, there, "{label}");
        }
    }
}

#[test]
fn a_full_disk_is_said_and_over_when_there_is_room() {
    let disk = SimulatedDisk::new(5);
    let store = on_disk(&disk);
    fill(&store, 1, 1);
    store.create_subscription(&NewSubscription::new("work")).unwrap();
    let mut member = store.join("work").unwrap();
    let delivery = next(&mut member);
    let reason = "x".repeat(limits::REASON_BYTES_MAX);
    let mut refused = None;
    disk.set_capacity(annals::testing::visible_files(&disk).values().map(|file| file.len() as u64).sum());
    for number in 0..2_000 {
        if let Err(error) = store.stop_subscription("work", &reason) {
            refused = Some((number, error));
            break;
        }
    }
    let Some((_, SubscriptionError::Append(AppendError::DiskFull(_)))) = refused else {
        panic!("{refused:?}")
    };
    // Nothing was changed, and nobody has lost anything by it.
    assert!(matches!(member.nack(delivery.id, &Nack::park("x")), Err(SubscriptionError::Append(_))));
    assert!(store.parked("work").unwrap().is_empty());
    disk.set_capacity(u64::MAX);
    member.ack(delivery.id).unwrap();
    assert!(store.subscription("work").unwrap().stopped.is_some());
    store.resume_subscription("work").unwrap();
    assert_eq!(drain(&mut member), [0; 0]);
}

#[test]
fn damage_in_the_log_stops_a_subscription_and_nothing_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = || Store::open_with(dir.path(), tiny(DiskChoice::Auto)).unwrap();
    let store = tiny();
    for number in 0..6 {
        wait(store.append(event("s").binary(vec![number; 5_000]))).unwrap();
    }
    store.create_subscription(&NewSubscription::new("work")).unwrap();
    wait_until("five segments are sealed", || store.stat().unwrap().segments > 5);
    store.close().unwrap();
    let file = dir.path().join("0000000004.log");
    let mut bytes = std::fs::read(&file).unwrap();
    let at =
        bytes.windows(5_000).position(|window| window == [3; 5_000]).expect("it has a segment for itself");
    bytes[at + 7] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let store = tiny();
    let mut member = store.join("work").unwrap();
    for expected in 0..3 {
        let delivery = next(&mut member);
        assert_eq!(position(&delivery), expected);
        member.ack(delivery.id).unwrap();
    }
    for _ in 0..2 {
        let damage = member.next_within(SECOND);
        assert!(matches!(damage, Err(SubscriptionError::Read(ReadError::Damage(_)))), "{damage:?}");
        let stopped = member.next_within(SECOND);
        assert!(matches!(stopped, Err(SubscriptionError::Stopped { .. })), "{stopped:?}");
        // Going on without a decision meets it again.
        store.resume_subscription("work").unwrap();
    }
    store.reset_subscription("work", Start::From(Position::new(4).into())).unwrap();
    assert_eq!(drain(&mut member), [4, 5]);
}

#[test]
fn what_was_noted_long_ago_is_left_behind() {
    let disk = SimulatedDisk::new(2);
    let store = on_disk(&disk);
    fill(&store, 1, 3);
    for name in ["busy", "quiet", "gone"] {
        store.create_subscription(&NewSubscription::new(name)).unwrap();
    }
    let mut member = store.join("quiet").unwrap();
    let delivery = next(&mut member);
    member.nack(delivery.id, &Nack::park("later")).unwrap();
    store.delete_subscription("gone").unwrap();
    let renewed = || {
        annals::testing::visible_paths(&disk).iter().any(|path| path.ends_with("subscriptions-1/complete"))
    };
    for number in 0..6_000 {
        store.stop_subscription("busy", &format!("pause {number}")).unwrap();
        store.resume_subscription("busy").unwrap();
    }
    wait_until("the next generation", renewed);
    store.stop_subscription("busy", "the last one").unwrap();
    let check = |store: &Store| {
        let names: Vec<_> = store.subscriptions().unwrap();
        let names: Vec<_> =
            names.iter().map(|status| (&*status.settings.name, status.stopped.as_deref())).collect();
        assert_eq!(names, [("busy", Some("the last one")), ("quiet", None)]);
        assert_eq!(store.parked("quiet").unwrap()[0].reason, "later");
    };
    check(&store);
    let disk = disk.kill();
    drop((member, store));
    let store = on_disk(&disk);
    check(&store);
    assert_eq!(drain(&mut store.join("quiet").unwrap()), [1, 2]);
}

#[test]
fn the_state_of_subscriptions_is_never_given_up() {
    let disk = SimulatedDisk::new(4);
    let store = on_disk(&disk);
    fill(&store, 1, 3);
    store.create_subscription(&NewSubscription::new("work")).unwrap();
    assert_eq!(drain(&mut store.join("work").unwrap()), [0, 1, 2]);
    store.close().unwrap();
    let intact = disk.kill();
    let log = Path::new("/store/subscriptions/0000000001.log");
    let bytes = intact.contents(log).unwrap();
    let at = bytes.windows(8).position(|window| window == b"Progress").expect("it is in its log");
    let damaged = disk.kill();
    damaged.flip_bit(log, 8 * at as u64);
    // The log is as good as ever; what is damaged says so, and is not begun anew.
    let store = simulated(&damaged).unwrap();
    wait(store.append(event("s-0").tag("more"))).unwrap();
    for result in
        [store.join("work").map(drop), store.create_subscription(&NewSubscription::new("new")).map(drop)]
    {
        let error = result.unwrap_err();
        assert!(error.to_string().starts_with("damage:"), "{error}");
    }
    let verified = store.verify(&mut |_, _| {}).unwrap();
    assert!(verified.damage.iter().any(|damage| damage.file.starts_with("subscriptions")), "{verified:?}");
    store.close().unwrap();
    assert!(simulated(&intact).unwrap().subscription("work").unwrap().lag == 0);
}

#[test]
fn a_member_in_a_closing_store_ends() {
    within(60, "closing", || {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        store.create_subscription(&NewSubscription::new("work").shared()).unwrap();
        let members: Vec<_> = (0..4)
            .map(|_| {
                let mut member = store.join("work").unwrap();
                std::thread::spawn(move || member.next_within(Duration::from_secs(3_600)).unwrap().is_none())
            })
            .collect();
        std::thread::sleep(Duration::from_millis(50));
        // The last one but for what the members have.
        drop(store);
        assert!(members.into_iter().all(|member| member.join().unwrap()));
        let store = open(dir.path());
        wait(store.append(Append::from(event("s")).expect("s", exactly(0)))).unwrap_err();
    });
}

#[test]
fn what_is_known_after_a_write_of_unknown_outcome_is_what_is_there() {
    for (at, seed) in (0..5).flat_map(|at| (0..cases(3)).map(move |seed| (at, seed))) {
        let disk = SimulatedDisk::new(seed);
        let store = on_disk(&disk);
        fill(&store, 1, 4);
        store.create_subscription(&NewSubscription::new("work").order(DeliveryOrder::Unordered)).unwrap();
        let mut member = store.join("work").unwrap();
        let id = next(&mut member).id;
        member.nack(id, &Nack::park("later")).unwrap();
        disk.fail_at(disk.operations() + at, Fault::ShortThenError, Repeat::Once);
        let replayed = store.replay_parked("work", &Position::ZERO.into());
        disk.clear_faults();
        drop(member);
        let handled = drain(&mut store.join("work").unwrap());
        let known = store.parked("work").unwrap().len();
        std::thread::sleep(Duration::from_millis(150));
        let disk = disk.kill();
        drop(store);
        let store = on_disk(&disk);
        let label = format!("operation {at}, seed {seed}: {replayed:?}");
        assert_eq!(store.parked("work").unwrap().len(), known, "{label}");
        let again = drain(&mut store.join("work").unwrap());
        assert!(known == 1 || handled.contains(&0) || again.contains(&0), "{label}: event 0 is lost");
    }
}

#[test]
fn what_is_parked_as_a_member_joins_is_noted() {
    let disk = SimulatedDisk::new(3);
    let store = on_disk(&disk);
    fill(&store, 1, 1);
    let new =
        NewSubscription::new("work").handling_timeout(SECOND / 50).retries(0, Duration::ZERO, Duration::ZERO);
    store.create_subscription(&new).unwrap();
    let mut first = store.join("work").unwrap();
    next(&mut first);
    std::thread::sleep(SECOND / 25);
    let second = store.join("work").unwrap();
    assert_eq!(store.parked("work").unwrap().len(), 1);
    let disk = disk.kill();
    drop((first, second, store));
    assert_eq!(on_disk(&disk).parked("work").unwrap().len(), 1);
}

#[test]
fn hand_outs_of_before_are_not_those_of_now() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 1);
    let new = || NewSubscription::new("work");
    store.create_subscription(&new()).unwrap();
    let before = next(&mut store.join("work").unwrap()).id;
    store.delete_subscription("work").unwrap();
    store.create_subscription(&new()).unwrap();
    let mut member = store.join("work").unwrap();
    assert_ne!(next(&mut member).id, before);
    assert!(matches!(member.ack(before), Err(SubscriptionError::NotInFlight { .. })));
}

#[test]
fn whoever_closes_first_what_was_acknowledged_is_noted() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        fill(&store, 1, 1);
        let names: Vec<String> = (0..8).map(|number| format!("work {number}")).collect();
        let members: Vec<_> = names
            .iter()
            .map(|name| {
                store.create_subscription(&NewSubscription::new(name)).unwrap();
                let mut member = store.join(name).unwrap();
                let id = next(&mut member).id;
                member.ack(id).unwrap();
                member
            })
            .collect();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| store.clone().close().unwrap());
            }
        });
        drop((members, store));
        let store = open(dir.path());
        assert!(names.iter().all(|name| store.subscription(name).unwrap().next.get() == 1));
    }
}

#[test]
fn one_that_is_idle_keeps_nothing_of_what_was_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1, 2);
    for name in ["idle", "busy"] {
        store.create_subscription(&NewSubscription::new(name)).unwrap();
    }
    let mut idle = store.join("idle").unwrap();
    let id = next(&mut idle).id;
    idle.ack(id).unwrap();
    let reason = "x".repeat(limits::REASON_BYTES_MAX);
    let renewed = || dir.path().join("subscriptions-1/complete").exists();
    while !renewed() {
        store.stop_subscription("busy", &reason).unwrap();
    }
    let left = || {
        let open = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        open.filter(|path| path.starts_with(dir.path()) && path.to_string_lossy().ends_with("(deleted)"))
            .count()
    };
    wait_until("all of the first generation is closed", || left() == 0);
}
