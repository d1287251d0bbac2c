//! Single examples of what the machine does.

use super::*;

/// A machine with a member that has taken so many events.
fn with_taken(
    settings: NewSubscription<'static>,
    count: u64,
    now: Instant,
) -> (Machine, u64, Vec<DeliveryId>) {
    let mut machine = Machine::new(Standing::new(settings, 0), 0);
    let member = machine.join(now).unwrap();
    (0..count).for_each(|position| machine.offer(Offer { position, hash: position }));
    let taken = (0..count).map(|_| match machine.take(member, now).unwrap() {
        Taken::Delivery { id, .. } => id,
        other => panic!("{other:?}"),
    });
    let taken = taken.collect();
    (machine, member, taken)
}

#[test]
fn pauses_double_up_to_the_longest_and_are_shortened_by_chance() {
    let now = a_moment();
    let second = Duration::from_secs(1);
    let settings = NewSubscription::new("s").retries(u32::MAX, second, 5 * second);
    let (mut machine, member, taken) = with_taken(settings, 1, now);
    let (mut id, mut now) = (taken[0], now);
    for (chance, pause) in
        [(1.0, second), (0.0, second), (0.5, 3 * second), (1.0, 5 * second), (0.0, 5 * second / 2)]
    {
        machine.nack(member, id, &Nack::retry("late"), (now, Timestamp::ZERO), chance).unwrap();
        let moment = machine.next_moment(member).expect("it waits for one");
        assert_eq!(moment - now, pause);
        now = moment;
        machine.tick(now, Timestamp::ZERO);
        let Ok(Taken::Delivery { id: next, .. }) = machine.take(member, now) else { panic!("it is due") };
        id = next;
    }
}

#[test]
fn many_are_acknowledged_all_or_none() {
    let now = a_moment();
    let (mut machine, member, taken) = with_taken(NewSubscription::new("s"), 5, now);
    let wrong = DeliveryId { number: 99, ..taken[4] };
    let refused = machine.ack(member, &[taken[0], wrong, taken[1]]);
    assert_eq!(refused, Err(Refusal::NotInFlight(wrong.position)));
    assert_eq!(machine.in_flight(), 5);
    machine.ack(member, &taken[..4]).unwrap();
    assert_eq!((machine.in_flight(), machine.first_open()), (1, Some(4)));
}

#[test]
fn where_no_more_can_be_parked_it_stops_and_skips_nothing() {
    let now = a_moment();
    let mut machine = Machine::new(Standing::new(NewSubscription::new("s").retries(0, STEP, STEP), 0), 0);
    let member = machine.join(now).unwrap();
    let parked_max = annals_types::limits::PARKED_MAX as u64;
    for position in 0..=parked_max {
        machine.offer(Offer { position, hash: 1 });
        let Ok(Taken::Delivery { id, .. }) = machine.take(member, now) else { panic!("it is ready") };
        machine.nack(member, id, &Nack::retry("x".repeat(5_000)), (now, Timestamp::ZERO), 0.5).unwrap();
    }
    assert_eq!((machine.outline().parked.len() as u64, machine.first_open()), (parked_max, Some(parked_max)));
    assert!(
        machine
            .outline()
            .stopped
            .as_ref()
            .is_some_and(|reason| reason.starts_with("10000 events are parked"))
    );
    assert!(machine.outline().parked.values().all(|entry| entry.reason.len() == 1_024));
}

#[test]
fn what_is_read_ahead_and_what_is_open_is_bounded() {
    let now = a_moment();
    let mut machine =
        Machine::new(Standing::new(NewSubscription::new("s").shared().in_flight_max(1_000), 0), 0);
    let mut members: Vec<u64> = (0..20).map(|_| machine.join(now).unwrap()).collect();
    let mut position = 0;
    // One stream: only its first event can be handed out.
    let taker = members.pop().unwrap();
    loop {
        match machine.take(taker, now).unwrap() {
            Taken::More => machine.offer(Offer { position, hash: 7 }),
            Taken::Delivery { .. } => continue,
            Taken::Nothing => break,
        }
        position += 1;
    }
    assert_eq!(machine.open_count(), 1_001, "one in flight, and those that wait for it");
    machine.reset(Start::First, 0);
    position = 0;
    for member in members {
        loop {
            match machine.take(member, now).unwrap() {
                Taken::More => machine.offer(Offer { position, hash: position }),
                Taken::Delivery { .. } => continue,
                Taken::Nothing => break,
            }
            position += 1;
        }
    }
    assert_eq!(machine.open_count(), annals_types::limits::OPEN_MAX);
}

#[test]
fn what_is_held_for_too_long_is_dealt_with_in_portions_that_a_batch_can_hold() {
    let now = a_moment();
    let settings = NewSubscription::new("s").in_flight_max(1_000).retries(0, STEP, STEP).shared();
    let (mut machine, member, taken) = with_taken(settings, 1_000, now);
    let other = machine.join(now).unwrap();
    (1_000..1_500).for_each(|position| machine.offer(Offer { position, hash: position }));
    for _ in 0..500 {
        assert!(matches!(machine.take(other, now), Ok(Taken::Delivery { .. })));
    }
    let later = now + machine.outline().settings.handling_timeout;
    machine.tick(later, Timestamp::ZERO);
    assert_eq!((machine.outline().parked.len(), machine.notes().len()), (1_000, 1_001));
    assert_eq!(machine.next_moment(member), Some(later), "there is more to do");
    machine.tick(later, Timestamp::ZERO);
    assert_eq!((machine.outline().parked.len(), machine.in_flight()), (1_500, 0));
    assert_eq!(machine.ack(member, &taken[..1]), Err(Refusal::NotInFlight(Position::ZERO)));
}

#[test]
fn what_was_looked_at_up_to_the_greatest_position_is_noted_like_all_else() {
    let standing = Standing::new(NewSubscription::new("s"), u64::MAX);
    let machine = Machine::new(standing.clone(), 0);
    assert!(!machine.is_dirty() && !machine.has_changed());
    assert_eq!(machine.outline(), &standing.outline);
}
