//! The machine against what is true, whatever happens in whatever order: what can happen, and what is true of it then.

mod examples;
mod visits;

use super::machine::{Machine, Offer, Refusal, Taken};
use super::standing::{Outline, Standing};
use crate::format::subscription::Note;
use annals_types::{
    DeliveryId, DeliveryOrder, Membership, Nack, NewSubscription, Position, Start, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// A step of time: half of the handling time-out, and the pause before a retry.
const STEP: Duration = Duration::from_secs(1);
const RETRIES_MAX: u32 = 1;

/// Some moment to begin with.
#[expect(clippy::disallowed_methods, reason = "which one is of no importance")]
fn a_moment() -> Instant {
    Instant::now()
}

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Op {
    Offer,
    Join,
    /// What a member does, the first, second, … of those that have joined.
    Leave(usize),
    Take(usize),
    Ack(usize),
    Retry(usize),
    Park(usize),
    Skip(usize),
    Stop(usize),
    Renew(usize),
    /// It acknowledges what it held for too long, which nobody was handed since.
    LateAck(usize),
    /// Time goes by.
    Wait,
    Resume,
    Replay,
    Discard,
    Reset(u64),
    Flush,
    /// The process ends and another goes on from what was noted.
    Crash,
}

/// What has become of an event, as those outside see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Whoever handles it has not said that it is done.
    Due,
    Done,
    Parked,
}

/// What a member holds, and since when.
#[derive(Clone, Copy, Debug)]
struct Held {
    id: DeliveryId,
    since: Instant,
}

/// A machine, and what is true of it by other reckoning.
#[derive(Clone, Debug)]
struct World {
    machine: Machine,
    now: Instant,
    /// Streams of all events, by position.
    streams: Vec<u64>,
    fates: Vec<Fate>,
    /// How often each failed since it was offered, reset or replayed.
    failures: Vec<u32>,
    /// Until when a failed event waits at least.
    not_before: BTreeMap<u64, Instant>,
    members: BTreeMap<u64, Vec<Held>>,
    /// What was taken back from whom, until it is handed out again.
    late: BTreeMap<u64, (u64, DeliveryId)>,
    heard: BTreeMap<u64, Instant>,
    stopped: bool,
    /// The first position that was never offered since the last reset.
    next: u64,
    noted: Noted,
}

/// What is durable.
#[derive(Clone, Debug)]
struct Noted {
    standing: Option<Standing>,
    fates: Vec<Fate>,
    failures: Vec<u32>,
    stopped: bool,
    next: u64,
}

impl World {
    fn new(settings: NewSubscription<'static>, streams: Vec<u64>, now: Instant) -> Self {
        let (fates, failures) = (vec![Fate::Due; streams.len()], vec![0; streams.len()]);
        let standing = Standing::new(settings, 0);
        Self {
            machine: Machine::new(standing.clone(), 0),
            now,
            streams,
            fates: fates.clone(),
            failures: failures.clone(),
            not_before: BTreeMap::new(),
            members: BTreeMap::new(),
            late: BTreeMap::new(),
            heard: BTreeMap::new(),
            stopped: false,
            next: 0,
            noted: Noted { standing: Some(standing), fates, failures, stopped: false, next: 0 },
        }
    }

    fn timeout(&self) -> Duration {
        self.machine.outline().settings.handling_timeout
    }

    fn wall() -> Timestamp {
        Timestamp::new(7)
    }

    fn member(&self, rank: usize) -> Option<u64> {
        self.members.keys().nth(rank).copied()
    }

    fn held_by_others(&self, position: u64) -> bool {
        self.members.values().flatten().any(|held| held.id.position.get() == position)
    }

    /// What is offered and neither done nor parked.
    fn is_open(&self, position: u64) -> bool {
        position < self.next && self.fates[usize::try_from(position).unwrap()] == Fate::Due
    }

    /// Whether an open event has to wait for another one.
    fn waits_for(&self, position: u64) -> bool {
        let of = |position: u64| self.streams[usize::try_from(position).unwrap()];
        let lane_has = |other: u64| match self.machine.outline().settings.order {
            DeliveryOrder::ByStream => of(other) == of(position),
            DeliveryOrder::Total => true,
            DeliveryOrder::Unordered => false,
        };
        (0..self.next)
            .filter(|&other| other != position && self.is_open(other) && lane_has(other))
            .any(|other| other < position || self.held_by_others(other))
    }

    /// What should have happened by itself by now.
    fn expect_by_now(&mut self) {
        let (timeout, now) = (self.timeout(), self.now);
        let is_exclusive = self.machine.outline().settings.membership == Membership::Exclusive;
        loop {
            let overdue =
                self.members.iter().flat_map(|(&member, held)| held.iter().map(move |&held| (member, held)));
            let first = overdue
                .filter(|(_, held)| held.since + timeout <= now)
                .min_by_key(|(_, held)| (held.since, held.id.position));
            let Some((member, held)) = first else { break };
            self.members.get_mut(&member).unwrap().retain(|other| other.id != held.id);
            self.late.insert(held.id.position.get(), (member, held.id));
            self.fail(held.id.position.get(), false);
            if is_exclusive && self.members.len() > 1 {
                self.forget(member);
            }
        }
        while is_exclusive && self.members.len() > 1 {
            let first = *self.members.keys().next().unwrap();
            if self.heard[&first] + timeout > now {
                break;
            }
            self.forget(first);
        }
    }

    fn forget(&mut self, member: u64) {
        self.members.remove(&member);
        self.heard.remove(&member);
    }

    fn fail(&mut self, position: u64, with_pause: bool) {
        let at = usize::try_from(position).unwrap();
        self.failures[at] += 1;
        if self.failures[at] > RETRIES_MAX {
            self.fates[at] = Fate::Parked;
        } else if with_pause {
            self.not_before.insert(position, self.now + STEP);
        }
    }

    /// Does it, where it can be done, and checks what the machine makes of it.
    fn step(&mut self, op: Op) {
        self.expect_by_now();
        self.machine.tick(self.now, Self::wall());
        self.write_down(self.machine.has_notes());
        match op {
            Op::Offer => self.offer(),
            Op::Join => {
                let member = self.machine.join(self.now).unwrap();
                self.members.insert(member, Vec::new());
                self.heard.insert(member, self.now);
            }
            Op::Wait => {
                self.now += STEP;
                self.expect_by_now();
                self.machine.tick(self.now, Self::wall());
            }
            Op::Resume => {
                self.machine.resume();
                self.stopped = false;
            }
            Op::Replay | Op::Discard => self.unpark(matches!(op, Op::Replay)),
            Op::Reset(to) => self.reset(to),
            Op::Flush => {}
            Op::Crash => self.crash(),
            Op::LateAck(rank) => self.ack_late(rank),
            Op::Leave(rank)
            | Op::Take(rank)
            | Op::Ack(rank)
            | Op::Retry(rank)
            | Op::Park(rank)
            | Op::Skip(rank)
            | Op::Stop(rank)
            | Op::Renew(rank) => {
                if let Some(member) = self.member(rank) {
                    self.act(op, member);
                }
            }
        }
        let is_lasting = matches!(
            op,
            Op::Resume | Op::Replay | Op::Discard | Op::Reset(_) | Op::Flush | Op::Skip(_) | Op::Stop(_)
        );
        self.write_down(is_lasting || self.machine.has_notes());
        self.check();
    }

    fn offer(&mut self) {
        if let Some(&hash) = self.streams.get(usize::try_from(self.next).unwrap()) {
            self.machine.offer(Offer { position: self.next, hash });
            self.next += 1;
        }
    }

    fn act(&mut self, op: Op, member: u64) {
        let first = self.members[&member].first().copied();
        let done = match (op, first) {
            (Op::Leave(_), _) => {
                self.machine.leave(member);
                self.forget(member);
                return;
            }
            (Op::Take(_), _) => return self.take(member),
            (Op::Renew(_), _) => {
                self.machine.renew(member, self.now).unwrap();
                self.heard.insert(member, self.now);
                let now = self.now;
                self.members.get_mut(&member).unwrap().iter_mut().for_each(|held| held.since = now);
                return;
            }
            (_, None) => {
                let never = DeliveryId { position: Position::ZERO, number: 0 };
                let refused = self.machine.ack(member, &[never]);
                assert_eq!(refused, Err(Refusal::NotInFlight(Position::ZERO)));
                return;
            }
            (Op::Ack(_), Some(held)) => self.machine.ack(member, &[held.id, held.id]),
            (op, Some(held)) => {
                let nack = match op {
                    Op::Retry(_) => Nack::retry("it is late"),
                    Op::Park(_) => Nack::park("it is wrong"),
                    Op::Skip(_) => Nack::skip("it is old"),
                    _ => Nack::stop("it is too much"),
                };
                self.machine.nack(member, held.id, &nack, (self.now, Self::wall()), 1.0)
            }
        };
        assert_eq!(done, Ok(()), "what is held can be answered");
        let held = self.members.get_mut(&member).unwrap().remove(0);
        // Nothing can be answered twice, and by nobody else.
        let again = self.machine.ack(member, &[held.id]);
        assert_eq!(again, Err(Refusal::NotInFlight(held.id.position)));
        let at = usize::try_from(held.id.position.get()).unwrap();
        match op {
            Op::Ack(_) | Op::Skip(_) => self.fates[at] = Fate::Done,
            Op::Retry(_) => self.fail(held.id.position.get(), true),
            Op::Park(_) => {
                self.failures[at] += 1;
                self.fates[at] = Fate::Parked;
            }
            _ => self.stopped = true,
        }
    }

    fn ack_late(&mut self, rank: usize) {
        let Some(member) = self.member(rank) else { return };
        let late =
            self.late.iter().find(|(_, (by, _))| *by == member).map(|(&position, &(_, id))| (position, id));
        let Some((position, id)) = late else { return };
        let done = self.machine.ack(member, &[id]);
        if self.is_open(position) {
            assert_eq!(done, Ok(()), "nobody was handed it again");
            self.fates[usize::try_from(position).unwrap()] = Fate::Done;
        } else {
            assert_eq!(done, Err(Refusal::NotInFlight(id.position)));
        }
        self.late.remove(&position);
    }

    fn take(&mut self, member: u64) {
        self.machine.hear(member, self.now).unwrap();
        self.heard.insert(member, self.now);
        let taken = self.machine.take(member, self.now);
        if self.stopped {
            assert!(matches!(taken, Err(Refusal::Stopped(_))), "{taken:?}");
            return;
        }
        let settings = &self.machine.outline().settings;
        let is_in_turn =
            settings.membership == Membership::Shared || self.members.keys().next() == Some(&member);
        let has_room = self.members[&member].len() < settings.in_flight_max as usize;
        let mut may = (0..self.next).filter(|&position| {
            let is_paused = self.not_before.get(&position).is_some_and(|&moment| moment > self.now);
            self.is_open(position)
                && !self.held_by_others(position)
                && !is_paused
                && !self.waits_for(position)
        });
        match (taken.unwrap(), may.next()) {
            (Taken::Delivery { id, attempt }, Some(position)) if is_in_turn && has_room => {
                assert_eq!(id.position.get(), position, "the first of those that may be is handed out");
                assert_eq!(attempt, self.failures[usize::try_from(position).unwrap()] + 1);
                let since = self.now;
                self.late.remove(&position);
                self.members.get_mut(&member).unwrap().push(Held { id, since });
            }
            (Taken::More, None) if is_in_turn && has_room => {}
            (Taken::Nothing, None) => {}
            (Taken::Nothing, Some(_)) if !is_in_turn || !has_room => {}
            (taken, may) => panic!("{taken:?}, but {may:?} may be handed out to {member} in {self:#?}"),
        }
    }

    fn unpark(&mut self, again: bool) {
        let parked = (0..self.fates.len()).filter(|&at| self.fates[at] == Fate::Parked);
        let first = parked.map(|at| Position::new(at as u64)).next();
        let chosen: Vec<Position> = first.into_iter().collect();
        let twice = [&chosen[..], &chosen[..]].concat();
        let done = if again { self.machine.replay(&twice) } else { self.machine.discard(&twice) };
        assert_eq!(done, Ok(chosen.len()));
        for position in chosen {
            let at = usize::try_from(position.get()).unwrap();
            self.fates[at] = if again { Fate::Due } else { Fate::Done };
            self.failures[at] = 0;
            self.late.remove(&position.get());
            self.not_before.remove(&position.get());
            let refused = self.machine.replay(&[position]);
            assert_eq!(refused, Err(Refusal::NotParked(position)));
        }
    }

    fn reset(&mut self, to: u64) {
        self.machine.reset(Start::From(Position::new(to).into()), to);
        self.next = to;
        self.members.values_mut().for_each(Vec::clear);
        self.late.clear();
        self.not_before.clear();
        for at in 0..self.fates.len() {
            let is_behind = at as u64 >= to;
            if is_behind || self.fates[at] == Fate::Due {
                self.fates[at] = if is_behind { Fate::Due } else { Fate::Done };
                self.failures[at] = 0;
            }
        }
    }

    /// Notes are written together; what was noted before and what is noted now lead to how it stands.
    fn write_down(&mut self, now: bool) {
        if !now {
            return;
        }
        for note in self.machine.notes() {
            let decoded = Note::decode("s", note.event_type(), &note.encode());
            self.noted.standing = Standing::fold(self.noted.standing.take(), decoded.expect("it is decoded"));
        }
        self.machine.set_noted();
        let Self { fates, failures, stopped, next, .. } = self;
        let noted = &mut self.noted;
        (noted.fates, noted.failures) = (fates.clone(), failures.clone());
        (noted.stopped, noted.next) = (*stopped, *next);
        // The notes that are written in place of all of these say the same.
        let standing = self.noted.standing.as_ref();
        let again = standing.unwrap().notes().fold(None, Standing::fold);
        assert_eq!(again.as_ref(), standing);
    }

    fn crash(&mut self) {
        self.machine = Machine::new(self.noted.standing.clone().unwrap(), 0);
        let Noted { fates, failures, stopped, next, .. } = self.noted.clone();
        (self.fates, self.failures, self.stopped, self.next) = (fates, failures, stopped, next);
        self.members.clear();
        self.late.clear();
        self.heard.clear();
        self.not_before.clear();
    }

    /// What must hold at any time.
    fn check(&self) {
        let machine = &self.machine;
        let due: BTreeSet<u64> = (0..self.next).filter(|&position| self.is_open(position)).collect();
        assert_eq!(machine.outline().next, self.next);
        assert_eq!(machine.open_count(), due.len(), "what is not done is open, {self:#?}");
        assert_eq!(machine.first_open(), due.first().copied());
        let is_parked = |position: &u64| self.fates[usize::try_from(*position).unwrap()] == Fate::Parked;
        let parked: BTreeSet<u64> = (0..self.fates.len() as u64).filter(is_parked).collect();
        assert_eq!(machine.outline().parked.keys().copied().collect::<BTreeSet<_>>(), parked);
        assert_eq!(machine.in_flight(), self.members.values().map(Vec::len).sum::<usize>(), "{self:#?}");
        assert_eq!(machine.member_count(), self.members.len());
        assert_eq!(machine.outline().stopped.is_some(), self.stopped);
        if let Some(limit) = self.members.values().map(Vec::len).max() {
            assert!(limit <= machine.outline().settings.in_flight_max as usize);
        }
    }

    /// Whatever has happened, a member that goes on gets to the end of it.
    fn check_that_it_ends(mut self) {
        self.step(Op::Resume);
        while !self.members.is_empty() {
            self.step(Op::Leave(0));
        }
        self.step(Op::Join);
        for _ in 0..self.streams.len() {
            self.step(Op::Offer);
        }
        for _ in 0..8 * self.streams.len() {
            self.step(Op::Take(0));
            self.step(Op::Ack(0));
            self.step(Op::Wait);
        }
        assert!(!self.fates.contains(&Fate::Due), "{self:#?}");
    }

    /// What tells apart states from which different things can happen.
    fn fingerprint(&self) -> String {
        let mut text = String::new();
        // Of what is held, waited for and heard, only how long ago it was matters, and only up to the time-out.
        let steps = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs().min(3);
        let rank = |member: &u64| self.members.keys().position(|other| other == member);
        let _ = write!(text, "{:?}{:?}{}{}", self.fates, self.failures, self.stopped, self.next);
        for (position, &moment) in &self.not_before {
            let _ = write!(text, "w{position}:{}", steps(self.now, moment));
        }
        for (member, held) in &self.members {
            let _ = write!(text, "m{:?}h{}", rank(member), steps(self.heard[member], self.now));
            for held in held {
                let _ = write!(text, "p{}s{}", held.id.position, steps(held.since, self.now));
            }
        }
        for (position, (member, _)) in &self.late {
            let _ = write!(text, "l{position}:{:?}", rank(member));
        }
        let Noted { standing, .. } = &self.noted;
        let standing = standing.as_ref().map(|standing| {
            let Outline { next, parked, stopped, .. } = &standing.outline;
            (next, &standing.open, parked.keys().collect::<Vec<_>>(), stopped.is_some())
        });
        let _ = write!(
            text,
            "{standing:?}{:?}{:?}{}",
            self.noted.fates,
            self.noted.failures,
            self.machine.is_dirty()
        );
        text
    }
}

fn settings(membership: Membership, order: DeliveryOrder, in_flight_max: u32) -> NewSubscription<'static> {
    NewSubscription { membership, order, ..NewSubscription::new("s") }
        .in_flight_max(in_flight_max)
        .handling_timeout(2 * STEP)
        .retries(RETRIES_MAX, STEP, STEP)
}
