//! Reading what a query selects: segment by segment, a few matches at a time.

use super::core::Core;
use super::locate::{Locator, Order};
use super::view::{Searched, View, search_memory};
use crate::index::search::{Plan, Way};
use annals_types::{Damage, Position, Query, QueryItem, ReadError, Record};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ops::Range;

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
    /// Nothing can match.
    void: bool,
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

/// How far a read has come.
pub(crate) enum Step {
    /// To this event.
    Record(Record),
    /// Nowhere yet; there may be more.
    OnTheWay,
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
        let void = stream.is_some() && query.items.is_empty();
        let range = if void { range.end..range.end } else { range };
        Self {
            plan: Plan::new(core.store, &query),
            query,
            way,
            locator: Locator::new(order),
            whole: range.clone(),
            range,
            void,
            found: VecDeque::new(),
            touched: Touched::default(),
        }
    }

    /// What was looked at so far.
    pub(crate) fn touched(&self) -> Touched {
        Touched { bytes: self.locator.bytes, ..self.touched }
    }

    /// Goes on to `end`, which is not before the end so far.
    pub(crate) fn extend(&mut self, end: u64) {
        self.range.end = end.max(self.range.start);
        self.whole.end = self.range.end;
        if self.void {
            self.range.start = end;
        }
    }

    /// What matches before this position was given.
    pub(crate) fn passed(&self) -> u64 {
        self.found.front().map_or(self.range.start, Place::position)
    }

    /// Where its frames are found.
    pub(crate) fn locator(&mut self) -> &mut Locator {
        &mut self.locator
    }

    /// The next event, or a step on the way to it.
    pub(crate) fn step(&mut self, core: &Core) -> Option<Result<Step, ReadError>> {
        let Some(place) = self.found.pop_front() else {
            if self.range.is_empty() {
                return None;
            }
            return Some(self.find(core).map(|()| Step::OnTheWay));
        };
        let position = match place {
            Place::Damaged(_, damage) => return Some(Err(damage.into())),
            Place::Match(position) => position,
        };
        self.touched.events += 1;
        let record = self.locator.frame(core, position).and_then(|frame| Ok(frame.record(position, None)?));
        Some(match record {
            // Another key with the same hash led here.
            Ok(record) if !self.query.matches(&record) => Ok(Step::OnTheWay),
            Ok(record) => Ok(Step::Record(record)),
            Err(ReadError::Damage(damage)) => {
                self.skip(&damage);
                Err(damage.into())
            }
            Err(error) => Err(error),
        })
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
        let state = core.state.lock();
        let view = View::new(&state.segments);
        let searched = match &state.segments.active {
            Some(active) if self.way.edge(&self.range) >= view.end => {
                let part = self.range.start.max(view.end)..self.range.end;
                let limits = (FOUND_MAX, LEAPS_MAX_LOCKED);
                Ok(search_memory(&active.index, &self.plan, &part, self.way, limits).with(view.holes()))
            }
            _ => {
                drop(state);
                view.search(core, &self.plan, &self.range, self.way, (FOUND_MAX, LEAPS_MAX))
            }
        };
        match searched {
            Ok(searched) => {
                self.note(searched);
                Ok(())
            }
            Err((part, error)) => {
                // Nothing of it can be told, whatever is asked.
                self.go_on_behind(&part);
                Err(error)
            }
        }
    }

    /// Notes what a search found, and the damage on the way.
    fn note(&mut self, found: Searched) {
        self.touched.leaps += u64::from(found.leaps);
        let part = found.part;
        let searched = match (self.way, found.next) {
            (_, None) => part.clone(),
            (Way::Upwards, Some(next)) => part.start..next,
            (Way::Downwards, Some(next)) => next + 1..part.end,
        };
        self.found.extend(found.positions.into_iter().map(Place::Match));
        for hole in found.holes {
            let first = hole.first_position.map_or(part.start, Position::get).max(self.whole.start);
            let end = hole.last_position.map_or(part.end, |last| last.get().saturating_add(1));
            let end = end.min(self.whole.end);
            // Told of where the search comes to it.
            let at = match self.way {
                Way::Upwards => first,
                Way::Downwards => end.saturating_sub(1),
            };
            if first < end && searched.contains(&at) {
                self.found.push_back(Place::Damaged(at, hole));
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
