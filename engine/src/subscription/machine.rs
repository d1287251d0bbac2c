//! Handing out: who may take what, and what becomes of what was taken.

use super::lanes::{Lanes, Open, Place};
use super::standing::{Outline, ParkedEntry, Standing};
use crate::format::subscription::Note;
use annals_types::{DeliveryId, DeliveryOrder, Membership, Nack, Position, Start, Timestamp, limits};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    outline: Outline,
    lanes: Lanes,
    /// In the order in which they joined: the first of an exclusive subscription is the one that is handed events.
    members: BTreeMap<u64, Member>,
    members_ever: u64,
    deliveries_ever: u64,
    /// What is to be noted besides the progress, durably before it is relied on.
    notes: Vec<Note>,
    /// Whether anything was acknowledged or failed that is not noted yet.
    is_dirty: bool,
    /// What `next` was when it was noted.
    noted_next: u64,
}

/// What was held for too long is dealt with so many at a time: what is noted of it fits into one batch.
const OVERDUE_MAX: usize = 1_000;
/// So far it may look on, where nothing matches, before that is noted: to be looked at again costs some milliseconds.
const LOOKED_AT_MAX: u64 = 100_000;

#[derive(Clone, Debug)]
struct Member {
    heard: Instant,
    held: u32,
}

/// What a member that asks for an event gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// It is to handle this one.
    Delivery { id: DeliveryId, attempt: u32 },
    /// There is none, unless more is offered.
    More,
    /// There is none for it, for now.
    Nothing,
}

/// What a machine could hand out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MayGive {
    /// An event that it has.
    Ready,
    /// One that is still to be offered.
    More,
    Nothing,
}

/// An event that matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    pub(crate) position: u64,
    /// The hash of its stream's name.
    pub(crate) hash: u64,
}

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The member is none, any more.
    Lost,
    NotInFlight(Position),
    NotParked(Position),
    Stopped(String),
    TooManyMembers,
}

impl Machine {
    /// Goes on from how a subscription stands. Nobody is a member; hand-outs have numbers greater than `deliveries_before`.
    pub(crate) fn new(standing: Standing, deliveries_before: u64) -> Self {
        let Standing { outline, open } = standing;
        let mut lanes = Lanes::new(match outline.settings.order {
            DeliveryOrder::ByStream => |_, hash| hash,
            DeliveryOrder::Total => |_, _| 0,
            DeliveryOrder::Unordered => |position, _| position,
        });
        for (position, (hash, failures)) in open {
            lanes.insert(position, Open { hash, failures, handed: None, place: Place::Waiting });
        }
        Self {
            noted_next: outline.next,
            outline,
            lanes,
            members: BTreeMap::new(),
            members_ever: 0,
            deliveries_ever: deliveries_before,
            notes: Vec::new(),
            is_dirty: false,
        }
    }

    /// How the subscription stands, but for what is open.
    pub(crate) fn outline(&self) -> &Outline {
        &self.outline
    }

    pub(crate) fn open_count(&self) -> usize {
        self.lanes.open().len()
    }

    pub(crate) fn first_open(&self) -> Option<u64> {
        self.lanes.open().keys().next().copied()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.lanes.in_flight()
    }

    pub(crate) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// A new member, the last in turn.
    pub(crate) fn join(&mut self, now: Instant) -> Result<u64, Refusal> {
        if self.members.len() >= limits::MEMBERS_MAX {
            return Err(Refusal::TooManyMembers);
        }
        self.members_ever += 1;
        self.members.insert(self.members_ever, Member { heard: now, held: 0 });
        Ok(self.members_ever)
    }

    /// A member is none any more, and what it holds waits for its turn again.
    pub(crate) fn leave(&mut self, member: u64) {
        if self.members.get(&member).is_some_and(|member| member.held > 0) {
            self.held(member).into_iter().for_each(|position| self.lanes.put(position, Place::Waiting));
        }
        self.members.remove(&member);
    }

    /// All that a member holds has failed.
    pub(crate) fn fail_held(&mut self, member: u64, reason: &str, wall: Timestamp) {
        for position in self.held(member) {
            self.take_back(position);
            self.fail(position, reason, None, wall);
        }
    }

    fn held(&self, member: u64) -> Vec<u64> {
        let is_held = |open: &Open| matches!(open.place, Place::InFlight { member: by, .. } if by == member);
        self.lanes.open().iter().filter(|(_, open)| is_held(open)).map(|(&position, _)| position).collect()
    }

    /// Who alone may take, if not all may.
    pub(crate) fn only_taker(&self) -> Option<u64> {
        match self.outline.settings.membership {
            Membership::Exclusive => self.members.keys().next().copied(),
            Membership::Shared => None,
        }
    }

    /// Whether a member may take, if there is anything to take.
    pub(crate) fn is_in_turn(&self, member: u64) -> bool {
        self.members.contains_key(&member) && self.only_taker().is_none_or(|taker| taker == member)
    }

    /// A member was heard of, by whatever it asked for.
    pub(crate) fn hear(&mut self, member: u64, now: Instant) -> Result<(), Refusal> {
        self.members.get_mut(&member).ok_or(Refusal::Lost)?.heard = now;
        Ok(())
    }

    /// What happens by itself by now: time-outs, retries, takeovers. `wall`: the time of day, for what is parked.
    pub(crate) fn tick(&mut self, now: Instant, wall: Timestamp) {
        for _ in 0..OVERDUE_MAX {
            let Some(position) = self.lanes.overdue(now) else { break };
            let holder = self.take_back(position);
            let reason =
                format!("it was held for {:?} without an answer", self.outline.settings.handling_timeout);
            self.fail(position, &reason, None, wall);
            if self.only_taker().is_some() && self.members.len() > 1 {
                self.leave(holder);
            }
        }
        while let Some(taker) = self.only_taker()
            && self.members.len() > 1
            && self.members[&taker].heard + self.outline.settings.handling_timeout <= now
        {
            self.leave(taker);
        }
        self.lanes.recall(now);
    }

    /// When the next thing happens by itself that a member that waits has to see.
    pub(crate) fn next_moment(&self, member: u64) -> Option<Instant> {
        let taker = self.only_taker().filter(|&taker| taker != member);
        let lapse = taker.map(|taker| self.members[&taker].heard + self.outline.settings.handling_timeout);
        [self.lanes.next_moment(), lapse].into_iter().flatten().min()
    }

    /// Whether whoever may take could get something, as far as is known here.
    pub(crate) fn may_give(&self) -> MayGive {
        if self.outline.stopped.is_some() {
            return MayGive::Nothing;
        }
        match (self.lanes.ready(), self.has_room()) {
            (Some(_), _) => MayGive::Ready,
            (None, true) => MayGive::More,
            (None, false) => MayGive::Nothing,
        }
    }

    /// Whether a member may hold no more than it does.
    pub(crate) fn is_full(&self, member: u64) -> bool {
        self.members.get(&member).is_some_and(|member| member.held >= self.outline.settings.in_flight_max)
    }

    /// Hands the next event to a member, if there is one for it.
    pub(crate) fn take(&mut self, member: u64, now: Instant) -> Result<Taken, Refusal> {
        let held = self.members.get(&member).ok_or(Refusal::Lost)?.held;
        if let Some(reason) = &self.outline.stopped {
            return Err(Refusal::Stopped(reason.clone()));
        }
        if !self.is_in_turn(member) || held >= self.outline.settings.in_flight_max {
            return Ok(Taken::Nothing);
        }
        let Some(position) = self.lanes.ready() else {
            return Ok(if self.has_room() { Taken::More } else { Taken::Nothing });
        };
        self.deliveries_ever += 1;
        let number = self.deliveries_ever;
        let until = now + self.outline.settings.handling_timeout;
        let attempt = self.lanes.open()[&position].failures.saturating_add(1);
        self.lanes.hand(position, Some((member, number)));
        self.lanes.put(position, Place::InFlight { member, until });
        self.members.get_mut(&member).expect("it was found").held += 1;
        Ok(Taken::Delivery { id: DeliveryId { position: Position::new(position), number }, attempt })
    }

    /// Whether there is a point in offering more, and room for it.
    fn has_room(&self) -> bool {
        let open = self.lanes.open().len();
        let waiting = open - self.lanes.in_flight();
        let is_in_vain = self.outline.settings.order == DeliveryOrder::Total && open > 0;
        !is_in_vain && open < limits::OPEN_MAX && waiting < limits::WAITING_MAX
    }

    /// The next event that matches, behind all before.
    pub(crate) fn offer(&mut self, offer: Offer) {
        debug_assert!(offer.position >= self.outline.next, "what is open or parked lies before");
        self.outline.next = offer.position + 1;
        let open = Open { hash: offer.hash, failures: 0, handed: None, place: Place::Waiting };
        self.lanes.insert(offer.position, open);
    }

    /// Nothing more matches before this position.
    pub(crate) fn pass(&mut self, next: u64) {
        self.outline.next = self.outline.next.max(next);
    }

    /// Events are done. All of these are, or none. It is not too late as long as nobody was handed them again.
    pub(crate) fn ack(&mut self, member: u64, ids: &[DeliveryId]) -> Result<(), Refusal> {
        self.check_unanswered(member, ids)?;
        for id in ids {
            // Of one that is named twice, the second time changes nothing.
            if self.is_unanswered(member, *id) {
                self.take_back_if_held(id.position.get());
                self.lanes.remove(id.position.get());
                self.is_dirty = true;
            }
        }
        Ok(())
    }

    /// A member was not given an event that it took: somebody else may take it.
    pub(crate) fn give_back(&mut self, member: u64, id: DeliveryId) {
        if self.check_unanswered(member, &[id]).is_ok() && self.take_back_if_held(id.position.get()) {
            self.lanes.hand(id.position.get(), None);
        }
    }

    /// A member could not handle an event. `chance`: of 0 to 1, which part of the second half of the pause is waited.
    pub(crate) fn nack(
        &mut self,
        member: u64,
        id: DeliveryId,
        nack: &Nack<'_>,
        (now, wall): (Instant, Timestamp),
        chance: f64,
    ) -> Result<(), Refusal> {
        self.check_unanswered(member, &[id])?;
        let position = id.position.get();
        let was_held = self.take_back_if_held(position);
        self.lanes.hand(position, None);
        match nack {
            // Where it was taken back before, that it failed is known.
            Nack::Retry(_) if !was_held => {}
            Nack::Retry(reason) => self.fail(position, reason, Some((now, chance)), wall),
            Nack::Park(reason) => {
                self.lanes.fail(position);
                self.park(position, reason, wall);
            }
            Nack::Skip(_) => {
                self.lanes.remove(position);
                self.is_dirty = true;
            }
            Nack::Stop(reason) => self.stop(reason),
        }
        Ok(())
    }

    /// A member needs more time for all that it holds.
    pub(crate) fn renew(&mut self, member: u64, now: Instant) -> Result<(), Refusal> {
        self.hear(member, now)?;
        let until = now + self.outline.settings.handling_timeout;
        let renewed = |open: &Open| match open.place {
            Place::InFlight { member: by, .. } if by == member => Some(Place::InFlight { member, until }),
            _ => None,
        };
        let places: Vec<(u64, Place)> = self
            .lanes
            .open()
            .iter()
            .filter_map(|(&position, open)| Some((position, renewed(open)?)))
            .collect();
        places.into_iter().for_each(|(position, place)| self.lanes.put(position, place));
        Ok(())
    }

    /// Hands out nothing any more.
    pub(crate) fn stop(&mut self, reason: &str) {
        self.outline.stopped = Some(cut(reason));
        self.is_dirty = true;
    }

    /// Hands out events again.
    pub(crate) fn resume(&mut self) {
        self.outline.stopped = None;
        self.is_dirty = true;
    }

    /// Begins again, with what is at `next` or behind. What is in flight is no more; what is parked there comes again.
    pub(crate) fn reset(&mut self, start: Start, next: u64) {
        (self.outline.start, self.outline.next) = (start, next);
        self.lanes.clear();
        self.members.values_mut().for_each(|member| member.held = 0);
        let again: Vec<u64> = self.outline.parked.split_off(&next).into_keys().collect();
        self.is_dirty = true;
        if !again.is_empty() {
            self.notes.push(Note::Unparked(again));
        }
    }

    /// Parked events are handed out again, as if for the first time. All of these are, or none; how many there were.
    pub(crate) fn replay(&mut self, positions: &[Position]) -> Result<usize, Refusal> {
        let unparked = self.unpark(positions)?;
        let count = unparked.len();
        for (position, entry) in unparked {
            let open = Open { hash: entry.hash, failures: 0, handed: None, place: Place::Waiting };
            self.lanes.insert(position, open);
        }
        Ok(count)
    }

    /// Parked events are done with. All of these are, or none; how many there were.
    pub(crate) fn discard(&mut self, positions: &[Position]) -> Result<usize, Refusal> {
        self.unpark(positions).map(|unparked| unparked.len())
    }

    /// The notes that say all that was not noted yet. They are true together.
    pub(crate) fn notes(&self) -> Vec<Note> {
        let open = self.lanes.open().iter().map(|(&position, open)| (position, open.hash, open.failures));
        [self.outline.progress(open)].into_iter().chain(self.notes.iter().cloned()).collect()
    }

    /// What [`Self::notes`] says was noted.
    pub(crate) fn set_noted(&mut self) {
        (self.is_dirty, self.noted_next) = (false, self.outline.next);
        self.notes.clear();
    }

    /// Whether there is anything to note that must not be lost.
    pub(crate) fn has_notes(&self) -> bool {
        !self.notes.is_empty()
    }

    /// Whether there is anything to note soon.
    pub(crate) fn is_dirty(&self) -> bool {
        self.is_dirty
            || self.has_notes()
            || self.outline.next.saturating_sub(self.noted_next) >= LOOKED_AT_MAX
    }

    /// Whether anything is not noted.
    pub(crate) fn has_changed(&self) -> bool {
        self.is_dirty() || self.outline.next != self.noted_next
    }

    /// Whether this was the last hand-out of an event, to this member, and was not answered.
    fn is_unanswered(&self, member: u64, id: DeliveryId) -> bool {
        let open = self.lanes.open().get(&id.position.get());
        open.is_some_and(|open| open.handed == Some((member, id.number)))
    }

    fn check_unanswered(&self, member: u64, ids: &[DeliveryId]) -> Result<(), Refusal> {
        if !self.members.contains_key(&member) {
            return Err(Refusal::Lost);
        }
        match ids.iter().find(|&&id| !self.is_unanswered(member, id)) {
            Some(id) => Err(Refusal::NotInFlight(id.position)),
            None => Ok(()),
        }
    }

    /// Takes back what is in flight; whether it was.
    fn take_back_if_held(&mut self, position: u64) -> bool {
        let is_held = matches!(self.lanes.open()[&position].place, Place::InFlight { .. });
        if is_held {
            self.take_back(position);
        }
        is_held
    }

    /// Takes what is in flight from whoever holds it; it waits.
    fn take_back(&mut self, position: u64) -> u64 {
        let place = self.lanes.open()[&position].place;
        let Place::InFlight { member, .. } = place else { unreachable!("the caller looked") };
        self.lanes.put(position, Place::Waiting);
        self.members.get_mut(&member).expect("who holds anything is a member").held -= 1;
        member
    }

    /// What waits has failed: it is handed out again, after a pause if it is to, or parked.
    fn fail(&mut self, position: u64, reason: &str, pause: Option<(Instant, f64)>, wall: Timestamp) {
        let failures = self.lanes.fail(position);
        self.is_dirty = true;
        if failures > self.outline.settings.retries_max {
            self.park(position, reason, wall);
        } else if let Some((now, chance)) = pause {
            self.lanes.put(position, Place::Later(now + self.pause(failures, chance)));
        }
    }

    /// The pause after so many failures.
    fn pause(&self, failures: u32, chance: f64) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let whole =
            self.outline.settings.backoff.saturating_mul(doubled).min(self.outline.settings.backoff_max);
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// Sets what waits aside, or stops where that cannot be, or there is no more room for it: it is never skipped.
    fn park(&mut self, position: u64, reason: &str, time: Timestamp) {
        if self.outline.settings.by_cursor {
            // The cursor would say that it is handled.
            self.stop(reason);
            return;
        }
        if self.outline.parked.len() >= limits::PARKED_MAX {
            self.stop(&format!(
                "{} events are parked, and one more failed: {reason}",
                self.outline.parked.len()
            ));
            return;
        }
        let Open { hash, failures, .. } = self.lanes.remove(position).expect("the caller looked");
        let entry = ParkedEntry { hash, failures, time, reason: cut(reason) };
        self.notes.push(entry.note(position));
        self.outline.parked.insert(position, entry);
    }

    fn unpark(&mut self, positions: &[Position]) -> Result<Vec<(u64, ParkedEntry)>, Refusal> {
        if let Some(&missing) =
            positions.iter().find(|position| !self.outline.parked.contains_key(&position.get()))
        {
            return Err(Refusal::NotParked(missing));
        }
        let unparked: Vec<(u64, ParkedEntry)> = positions
            .iter()
            .filter_map(|position| self.outline.parked.remove_entry(&position.get()))
            .collect();
        if !unparked.is_empty() {
            self.notes.push(Note::Unparked(unparked.iter().map(|&(position, _)| position).collect()));
        }
        Ok(unparked)
    }
}

/// A reason within its limit.
fn cut(reason: &str) -> String {
    reason[..reason.floor_char_boundary(limits::REASON_BYTES_MAX)].to_owned()
}
