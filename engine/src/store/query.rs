//! Reading what a query selects: segment by segment, a few matches at a time.

use super::core::{Closed, Core, SealedSegment, Segments};
use super::locate::{Locator, Order};
use super::rebuild;
use crate::format::index::BadBlock;
use crate::index::search::{self, Found, Index, Plan, Way};
use annals_types::{Damage, Position, Query, QueryItem, ReadError, Record};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Matches found at a time.
const FOUND_MAX: usize = 128;
/// Leaps at a time: under the lock that appends need, and elsewhere.
const LEAPS_MAX_LOCKED: u32 = 128;
const LEAPS_MAX: u32 = 4096;

/// The events that a query selects among `next..end`, in one direction.
#[derive(Debug)]
pub(crate) struct Selection {
    plan: Plan,
    query: Query<'static>,
    way: Way,
    locator: Locator,
    range: Range<u64>,
    /// The whole range, for damage that begins outside.
    whole: Range<u64>,
    found: VecDeque<Place>,
    touched: Touched,
}

/// What a read has looked at so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// Events of the log, whether they matched or not.
    pub events: u64,
    /// Bytes of the log: of the batches that hold those events.
    pub bytes: u64,
    /// How often the lists of the index were leapt over.
    pub leaps: u64,
}

/// Where an event is that should match, or where damage may hide one.
#[derive(Debug)]
enum Place {
    Match(u64),
    Damaged(u64, Damage),
}

impl Place {
    fn position(&self) -> u64 {
        match self {
            Self::Match(position) | Self::Damaged(position, _) => *position,
        }
    }
}

impl Selection {
    /// What `query` selects of `stream`, if there is one, or of everything.
    pub(crate) fn new(
        core: &Core,
        query: &Query<'_>,
        stream: Option<&str>,
        range: Range<u64>,
        backwards: bool,
    ) -> Self {
        let (way, order) =
            if backwards { (Way::Downwards, Order::Downwards) } else { (Way::Upwards, Order::Upwards) };
        let mut query = query.clone().into_owned();
        if let Some(stream) = stream {
            if query.items.is_empty() {
                query.items.push(QueryItem::new());
            }
            // What asks for another stream, too, matches nothing.
            query.items.retain(|item| item.stream.as_ref().is_none_or(|other| other == stream));
            query.items.iter_mut().for_each(|item| item.stream = Some(stream.to_owned().into()));
        }
        let matches_nothing = stream.is_some() && query.items.is_empty();
        let range = if matches_nothing { range.start..range.start } else { range };
        Self {
            plan: Plan::new(core.store, &query),
            query,
            way,
            locator: Locator::new(order),
            whole: range.clone(),
            range,
            found: VecDeque::new(),
            touched: Touched::default(),
        }
    }

    /// What was looked at so far.
    pub(crate) fn touched(&self) -> Touched {
        Touched { bytes: self.locator.bytes, ..self.touched }
    }

    /// The next event.
    pub(crate) fn next(&mut self, core: &Core) -> Option<Result<Record, ReadError>> {
        loop {
            while self.found.is_empty() {
                if self.range.is_empty() {
                    return None;
                }
                if let Err(error) = self.find(core) {
                    return Some(Err(error));
                }
            }
            let position = match self.found.pop_front().expect("there is one") {
                Place::Damaged(_, damage) => return Some(Err(damage.into())),
                Place::Match(position) => position,
            };
            self.touched.events += 1;
            let record =
                self.locator.frame(core, position).and_then(|frame| Ok(frame.record(position, None)?));
            match record {
                // Another key with the same hash led here.
                Ok(record) if !self.query.matches(&record) => {}
                Err(ReadError::Damage(damage)) => {
                    self.skip(&damage);
                    return Some(Err(damage.into()));
                }
                record => return Some(record),
            }
        }
    }

    /// Goes on behind the positions that cannot be read.
    fn skip(&mut self, damage: &Damage) {
        let within = |position: u64| {
            damage.first_position.is_some_and(|first| position >= first.get())
                && damage.last_position.is_some_and(|last| position <= last.get())
        };
        while self.found.front().is_some_and(|place| within(place.position())) {
            self.found.pop_front();
        }
    }

    /// Searches on in the segment that holds the next position.
    fn find(&mut self, core: &Core) -> Result<(), ReadError> {
        let edge = match self.way {
            Way::Upwards => self.range.start,
            Way::Downwards => self.range.end - 1,
        };
        let state = core.state.lock();
        let holes = state.segments.holes.clone();
        let (home, of) = home_of(&state.segments, edge);
        let part = self.range.start.max(of.start)..self.range.end.min(of.end);
        let relative = relative(&part, of.start);
        let (plan, way) = (&self.plan, self.way);
        let search = |index: Index<'_>, leaps_max: u32| {
            search::search(index, plan, relative.clone(), way, (FOUND_MAX, leaps_max))
        };
        let found = match home {
            Home::Active => {
                let active = state.segments.active.as_ref().expect("it was just there");
                let found = in_memory(search(Index::Memory(&active.index), LEAPS_MAX_LOCKED));
                drop(state);
                found
            }
            Home::Closed(closed) => {
                drop(state);
                in_memory(search(Index::Memory(&closed.index), LEAPS_MAX))
            }
            Home::Sealed(segment) => {
                drop(state);
                match rebuild::with_index(core, &segment, |index| search(Index::Sealed(index), LEAPS_MAX)) {
                    Ok(found) => {
                        self.note(&found, of.start, &part, segment.index.holes());
                        return Ok(());
                    }
                    Err(error) => {
                        // Nothing of it can be told, whatever is asked.
                        self.go_on_behind(&part);
                        return Err(with_positions(error, &of));
                    }
                }
            }
            Home::Nowhere => {
                drop(state);
                Found::default()
            }
        };
        self.note(&found, of.start, &part, &holes);
        Ok(())
    }

    /// Notes what a search of `part` found, relative to `first_position`, and the damage on the way.
    fn note(&mut self, found: &Found, first_position: u64, part: &Range<u64>, holes: &[Damage]) {
        self.touched.leaps += u64::from(found.leaps);
        let absolute = |position: u32| first_position + u64::from(position);
        let searched = match (self.way, found.next.map(absolute)) {
            (_, None) => part.clone(),
            (Way::Upwards, Some(next)) => part.start..next,
            (Way::Downwards, Some(next)) => next + 1..part.end,
        };
        self.found.extend(found.positions.iter().map(|&position| Place::Match(absolute(position))));
        for hole in holes {
            let first = hole.first_position.map_or(part.start, Position::get).max(self.whole.start);
            let end = hole.last_position.map_or(part.end, |last| last.get().saturating_add(1));
            let end = end.min(self.whole.end);
            // Told of where the search comes to it.
            let at = match self.way {
                Way::Upwards => first,
                Way::Downwards => end.saturating_sub(1),
            };
            if first < end && searched.contains(&at) {
                self.found.push_back(Place::Damaged(at, hole.clone()));
            }
        }
        let places = self.found.make_contiguous();
        match self.way {
            Way::Upwards => places.sort_by_key(Place::position),
            Way::Downwards => places.sort_by_key(|place| Reverse(place.position())),
        }
        self.go_on_behind(&searched);
    }

    fn go_on_behind(&mut self, searched: &Range<u64>) {
        match self.way {
            Way::Upwards => self.range.start = searched.end,
            Way::Downwards => self.range.end = searched.start,
        }
    }
}

/// Where a position is.
enum Home {
    Active,
    Closed(Arc<Closed>),
    Sealed(Arc<SealedSegment>),
    /// In a segment that could not be read.
    Nowhere,
}

/// The segment that holds a position, and its positions.
fn home_of(segments: &Segments, position: u64) -> (Home, Range<u64>) {
    let mut behind = u64::MAX;
    if let Some(active) = &segments.active {
        let first = active.index.first_position();
        if position >= first {
            return (Home::Active, first..u64::MAX);
        }
        behind = first;
    }
    for closed in segments.closed.iter().rev() {
        let first = closed.index.first_position();
        if position >= closed.next_position {
            return (Home::Nowhere, closed.next_position..behind);
        }
        if position >= first {
            return (Home::Closed(Arc::clone(closed)), first..closed.next_position);
        }
        behind = first;
    }
    let number = segments.sealed.partition_point(|segment| segment.log.seal.first_position <= position);
    if let Some(next) = segments.sealed.get(number) {
        behind = next.log.seal.first_position;
    }
    let Some(segment) = number.checked_sub(1).map(|number| &segments.sealed[number]) else {
        return (Home::Nowhere, 0..behind);
    };
    let seal = &segment.log.seal;
    if position >= seal.next_position {
        return (Home::Nowhere, seal.next_position..behind);
    }
    (Home::Sealed(Arc::clone(segment)), seal.first_position..seal.next_position)
}

fn in_memory(found: Result<Found, BadBlock>) -> Found {
    found.expect("lists in memory have no blocks that could be damaged")
}

fn relative(part: &Range<u64>, first_position: u64) -> Range<u32> {
    // A segment's events are counted in 32 bits; an active one is searched as far as that goes.
    let relative = |position: u64| u32::try_from(position - first_position).unwrap_or(u32::MAX);
    relative(part.start)..relative(part.end)
}

/// Says of damage that says nothing of positions that all of the segment may be missing.
fn with_positions(error: ReadError, of: &Range<u64>) -> ReadError {
    match error {
        ReadError::Damage(mut damage) if damage.first_position.is_none() => {
            damage.first_position = Some(Position::new(of.start));
            damage.last_position = Some(Position::new(of.end.saturating_sub(1)));
            ReadError::Damage(damage)
        }
        error => error,
    }
}
