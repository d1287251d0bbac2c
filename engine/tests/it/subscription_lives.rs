//! Random lives of a durable subscription: whatever happens, with faults and without, nothing is lost.

use crate::subscription::{fill, position};
use crate::support::{Random, cases, on_disk};
use annals::testing::{Fault, Repeat, SimulatedDisk};
use annals::{
    DeliveryId, DeliveryOrder, Member, Nack, NewSubscription, ParkedChoice, Position, Start, Store,
    SubscriptionError,
};
use std::collections::BTreeSet;
use std::time::Duration;

const EVENTS: u64 = 24;
const STREAMS: u64 = 3;

/// A life, and what those outside know of it.
struct Life {
    random: Random,
    disk: SimulatedDisk,
    store: Store,
    order: DeliveryOrder,
    /// Whether what is held is taken back after a moment: then nobody can say from outside who holds what.
    is_short: bool,
    members: Vec<(Member, Vec<DeliveryId>)>,
    /// Said to be done, whatever the answer was.
    done: BTreeSet<u64>,
    /// Acknowledged since the process began.
    acknowledged: BTreeSet<u64>,
    /// Acknowledged before a close: it does not come again.
    over: BTreeSet<u64>,
    parked: BTreeSet<u64>,
    /// Whether a write has failed since the process began.
    has_failed: bool,
}

impl Life {
    fn begin(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = SimulatedDisk::new(seed);
        let store = on_disk(&disk);
        fill(&store, STREAMS, EVENTS);
        let order =
            [DeliveryOrder::ByStream, DeliveryOrder::Total, DeliveryOrder::Unordered][random.below(3)];
        let is_short = random.below(4) == 0;
        let timeout = if is_short { Duration::from_millis(15) } else { Duration::from_secs(100) };
        let small = |number: usize| u32::try_from(number).unwrap();
        let new = NewSubscription::new("work")
            .order(order)
            .in_flight_max(1 + small(random.below(5)))
            .retries(small(random.below(3)), Duration::ZERO, Duration::ZERO)
            .handling_timeout(timeout);
        let new = if random.below(2) == 0 { new.shared() } else { new };
        store.create_subscription(&new).unwrap();
        Self {
            random,
            disk,
            store,
            order,
            is_short,
            members: Vec::new(),
            done: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            over: BTreeSet::new(),
            parked: BTreeSet::new(),
            has_failed: false,
        }
    }

    fn step(&mut self) {
        match self.random.below(24) {
            0 | 1 if self.members.len() < 4 => {
                // A fault may hinder it.
                self.members.extend(self.store.join("work").ok().map(|member| (member, Vec::new())));
            }
            2 if !self.members.is_empty() => {
                let leaving = self.random.below(self.members.len());
                drop(self.members.remove(leaving));
            }
            3..=11 => self.take(),
            12..=18 => self.answer(),
            19 => self.unpark(),
            20 => self.reset(),
            21 => {
                std::thread::sleep(Duration::from_millis(if self.random.below(3) == 0 { 120 } else { 20 }));
            }
            22 => self.members.iter().for_each(|(member, _)| drop(member.renew())),
            _ => self.resume(),
        }
    }

    fn take(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let by = self.random.below(self.members.len());
        match self.members[by].0.next_within(Duration::ZERO) {
            Ok(Some(delivery)) => {
                let taken = position(&delivery);
                assert!(
                    !self.over.contains(&taken),
                    "{taken} was acknowledged before a close, and comes again"
                );
                let held = self.members.iter().flat_map(|(_, held)| held.iter().map(|id| id.position.get()));
                if !self.is_short && !self.has_failed {
                    let waits = held.clone().any(|other| match self.order {
                        DeliveryOrder::ByStream => other % STREAMS == taken % STREAMS,
                        DeliveryOrder::Total => true,
                        DeliveryOrder::Unordered => other == taken,
                    });
                    assert!(
                        !waits,
                        "{taken} was handed out while others are held: {:?}",
                        held.collect::<Vec<_>>()
                    );
                }
                self.members[by].1.push(delivery.id);
            }
            Ok(None) => {}
            Err(SubscriptionError::Stopped { .. }) => self.resume(),
            Err(SubscriptionError::Lost { .. }) => drop(self.members.remove(by)),
            Err(_) => self.members.clear(),
        }
    }

    fn answer(&mut self) {
        let holding: Vec<usize> =
            (0..self.members.len()).filter(|&member| !self.members[member].1.is_empty()).collect();
        if holding.is_empty() {
            return;
        }
        let by = holding[self.random.below(holding.len())];
        let (member, held) = &mut self.members[by];
        let id = held.remove(self.random.below(held.len()));
        let answered = id.position.get();
        let kind = self.random.below(8);
        let outcome = match kind {
            0 => member.nack(id, &Nack::retry("late")),
            1 => member.nack(id, &Nack::park("wrong")),
            2 => member.nack(id, &Nack::skip("old")),
            3 => member.nack(id, &Nack::stop("enough")),
            _ => member.ack(id),
        };
        match &outcome {
            Ok(()) if kind == 1 => drop(self.parked.insert(answered)),
            Ok(()) if kind > 3 => drop(self.acknowledged.insert(answered)),
            _ => {}
        }
        let is_refused = matches!(
            outcome,
            Err(SubscriptionError::NotInFlight { .. }
                | SubscriptionError::Lost { .. }
                | SubscriptionError::Interrupted { .. })
        );
        if !is_refused && (kind == 2 || kind > 3) {
            self.done.insert(answered);
        }
        if matches!(outcome, Err(SubscriptionError::Interrupted { .. } | SubscriptionError::Append(_))) {
            self.members.clear();
        }
    }

    fn listed(&self) -> Option<Vec<u64>> {
        let parked = self.store.parked("work").ok()?;
        Some(parked.iter().map(|parked| parked.position.get()).collect())
    }

    fn unpark(&mut self) {
        let Some(listed) = self.listed() else { return };
        assert!(
            self.parked.iter().all(|parked| listed.contains(parked)),
            "{:?}, but {listed:?}",
            self.parked
        );
        let Some(&chosen) = listed.get(self.random.below(listed.len().max(1))) else { return };
        let which = Position::new(chosen).into();
        self.parked.remove(&chosen);
        let outcome = if self.random.below(2) == 0 {
            self.done.remove(&chosen);
            self.store.replay_parked("work", &which)
        } else {
            self.done.insert(chosen);
            self.store.discard_parked("work", &which)
        };
        if outcome.is_err() {
            self.members.clear();
        }
    }

    fn reset(&mut self) {
        let to = self.random.below(usize::try_from(EVENTS).unwrap() + 1) as u64;
        let listed = self.listed().unwrap_or_default();
        let outcome = self.store.reset_subscription("work", Start::From(Position::new(to).into()));
        // All before counts as done; where it failed, all behind may, too.
        self.done.extend((0..to).filter(|position| !listed.contains(position)));
        if outcome.is_ok() {
            self.done.retain(|&position| position < to);
        } else {
            self.members.clear();
        }
        for known in [&mut self.parked, &mut self.over, &mut self.acknowledged] {
            known.retain(|&position| position < to);
        }
        self.members.iter_mut().for_each(|(_, held)| held.clear());
    }

    fn resume(&mut self) {
        if self.store.resume_subscription("work").is_err() {
            self.members.clear();
        }
    }

    /// The process ends, in one way or another, and the next one begins.
    fn end_process(&mut self, seed: u64) {
        self.disk.clear_faults();
        let way = self.random.below(3);
        if way == 0 {
            self.members.clear();
            let closed = self.store.clone().close();
            if closed.is_ok() && !self.has_failed {
                self.over.append(&mut self.acknowledged);
            }
            self.disk = self.disk.kill();
        } else {
            self.disk = if way == 1 { self.disk.kill() } else { self.disk.crash(seed) };
            self.members.clear();
        }
        self.acknowledged.clear();
        self.store = on_disk(&self.disk);
        self.has_failed = false;
        let listed = self.listed().expect("it is there");
        assert!(
            self.parked.iter().all(|parked| listed.contains(parked)),
            "{:?}, but {listed:?}",
            self.parked
        );
    }

    /// All that is not done comes.
    fn check(mut self) {
        self.resume();
        self.store.replay_parked("work", &ParkedChoice::All).unwrap();
        let (mut member, mut came) = (self.store.join("work").unwrap(), BTreeSet::new());
        while let Some(delivery) = member.next_within(Duration::from_millis(1)).unwrap() {
            came.insert(position(&delivery));
            // Where it is taken back at once, it comes once more.
            let _ = member.ack(delivery.id);
        }
        let lost: Vec<u64> = (0..EVENTS)
            .filter(|position| !self.done.contains(position) && !came.contains(position))
            .collect();
        assert!(lost.is_empty(), "{lost:?} are lost; {came:?} came, and {:?} are done", self.done);
    }
}

fn live(seed: u64, with_faults: bool) {
    let mut life = Life::begin(seed);
    for _ in 0..3 {
        for _ in 0..60 {
            if with_faults && life.random.below(25) == 0 {
                let fault = [Fault::EIO, Fault::ENOSPC, Fault::ShortThenError][life.random.below(3)];
                let at = life.disk.operations() + life.random.below(4) as u64;
                life.disk.fail_at(at, fault, Repeat::Once);
                life.has_failed = true;
            }
            life.step();
        }
        life.end_process(seed);
    }
    life.check();
}

/// Lives that wait for each other's pauses as little as possible.
fn live_many(count: u64, with_faults: bool) {
    let next = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if seed >= count {
                        return;
                    }
                    let lived = std::panic::catch_unwind(|| live(seed, with_faults));
                    assert!(lived.is_ok(), "seed {seed}, with faults: {with_faults}");
                }
            });
        }
    });
}

#[test]
fn no_event_is_lost_and_none_is_held_twice_in_any_life() {
    live_many(cases(150), false);
}

#[test]
fn no_event_is_lost_where_writes_fail() {
    live_many(cases(150), true);
}
