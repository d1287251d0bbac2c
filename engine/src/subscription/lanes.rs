//! Lanes: events that wait for each other, in position order, and which of all can be handed out.

use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// An event that is not done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    /// The hash of its stream.
    pub(super) hash: u64,
    pub(super) failures: u32,
    /// Its last hand-out, as long as that was not answered: to which member, and its number.
    pub(super) handed: Option<(u64, u64)>,
    pub(super) place: Place,
}

/// Where an open event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// It waits for its turn.
    Waiting,
    /// It waits for this moment.
    Later(Instant),
    /// A member holds it, until then.
    InFlight { member: u64, until: Instant },
}

/// All open events of a subscription. Of one lane, only the first can be handed out, and only if none is in flight.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    lane_of: fn(u64, u64) -> u64,
    open: BTreeMap<u64, Open>,
    lanes: HashMap<u64, Lane>,
    /// What can be handed out.
    ready: BTreeSet<u64>,
    /// What waits for a moment.
    later: BTreeSet<(Instant, u64)>,
    /// Until when what is in flight may be held.
    deadlines: BTreeSet<(Instant, u64)>,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    positions: BTreeSet<u64>,
    in_flight: usize,
}

impl Lanes {
    /// `lane_of`: the lane of an event, by its position and the hash of its stream.
    pub(super) fn new(lane_of: fn(u64, u64) -> u64) -> Self {
        Self {
            lane_of,
            open: BTreeMap::new(),
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            later: BTreeSet::new(),
            deadlines: BTreeSet::new(),
        }
    }

    pub(super) fn open(&self) -> &BTreeMap<u64, Open> {
        &self.open
    }

    /// The first that can be handed out.
    pub(super) fn ready(&self) -> Option<u64> {
        self.ready.first().copied()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.deadlines.len()
    }

    /// The first moment that anything waits for.
    pub(super) fn next_moment(&self) -> Option<Instant> {
        [self.later.first(), self.deadlines.first()].into_iter().flatten().map(|&(moment, _)| moment).min()
    }

    /// Something that was in flight for too long, if there is any.
    pub(super) fn overdue(&self, now: Instant) -> Option<u64> {
        self.deadlines.first().filter(|&&(until, _)| until <= now).map(|&(_, position)| position)
    }

    /// What waits for a moment that has come waits for its turn from now on.
    pub(super) fn recall(&mut self, now: Instant) {
        while let Some(&(moment, position)) = self.later.first()
            && moment <= now
        {
            self.put(position, Place::Waiting);
        }
    }

    pub(super) fn insert(&mut self, position: u64, open: Open) {
        self.change(position, |place| *place = Some(open));
    }

    pub(super) fn put(&mut self, position: u64, place: Place) {
        self.change(position, |open| *open = open.map(|open| Open { place, ..open }));
    }

    pub(super) fn remove(&mut self, position: u64) -> Option<Open> {
        self.change(position, Option::take)
    }

    /// Notes its last hand-out.
    pub(super) fn hand(&mut self, position: u64, handed: Option<(u64, u64)>) {
        self.open.get_mut(&position).expect("the caller looked").handed = handed;
    }

    pub(super) fn fail(&mut self, position: u64) -> u32 {
        let open = self.open.get_mut(&position).expect("the caller looked");
        open.failures = open.failures.saturating_add(1);
        open.failures
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.lane_of);
    }

    /// The one way to change what is open: what follows from it is kept here.
    fn change<T>(&mut self, position: u64, change: impl FnOnce(&mut Option<Open>) -> T) -> T {
        let mut place = self.open.remove(&position);
        if let Some(open) = place {
            self.unlink(position, open);
        }
        let changed = change(&mut place);
        if let Some(open) = place {
            self.link(position, open);
            self.open.insert(position, open);
        }
        changed
    }

    fn unlink(&mut self, position: u64, open: Open) {
        let key = (self.lane_of)(position, open.hash);
        let lane = self.lanes.get_mut(&key).expect("what is open has a lane");
        if let Some(first) = lane.positions.first() {
            self.ready.remove(first);
        }
        lane.positions.remove(&position);
        match open.place {
            Place::Waiting => {}
            Place::Later(moment) => drop(self.later.remove(&(moment, position))),
            Place::InFlight { until, .. } => {
                lane.in_flight -= 1;
                self.deadlines.remove(&(until, position));
            }
        }
        if lane.positions.is_empty() {
            self.lanes.remove(&key);
        } else {
            self.look_at(key, None);
        }
    }

    fn link(&mut self, position: u64, open: Open) {
        let key = (self.lane_of)(position, open.hash);
        let lane = self.lanes.entry(key).or_default();
        if let Some(first) = lane.positions.first() {
            self.ready.remove(first);
        }
        lane.positions.insert(position);
        match open.place {
            Place::Waiting => {}
            Place::Later(moment) => drop(self.later.insert((moment, position))),
            Place::InFlight { until, .. } => {
                lane.in_flight += 1;
                self.deadlines.insert((until, position));
            }
        }
        self.look_at(key, Some((position, open.place)));
    }

    /// Notes whether the first of a lane can be handed out. `on_its_way`: what is being put there.
    fn look_at(&mut self, key: u64, on_its_way: Option<(u64, Place)>) {
        let Some(lane) = self.lanes.get(&key).filter(|lane| lane.in_flight == 0) else { return };
        let Some(&first) = lane.positions.first() else { return };
        let place = match on_its_way {
            Some((position, place)) if position == first => Some(place),
            _ => self.open.get(&first).map(|open| open.place),
        };
        if place == Some(Place::Waiting) {
            self.ready.insert(first);
        }
    }
}
