//! The segments that are not written any more, at one moment, and searching them without the lock.

use super::core::{Closed, Core, Segments};
use super::rebuild;
use super::sealed::SealedSegments;
use crate::format::index::BadBlock;
use crate::index::memory::MemoryIndex;
use crate::index::search::{self, Found, Index, Plan, Way};
use crate::index::span::SpanFilter;
use annals_types::{Damage, Position, ReadError};
use std::ops::Range;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) sealed: Arc<SealedSegments>,
    pub(crate) closed: Vec<Arc<Closed>>,
    /// What of unsealed segments could not be read.
    holes: Vec<Damage>,
    /// Behind their last event: where the active segment begins, if there is one.
    pub(crate) end: u64,
}

/// A segment, or none.
enum Home<'a> {
    Closed(&'a Closed),
    /// Its place among the sealed ones.
    Sealed(usize),
    /// What should be there could not be read.
    Nowhere,
}

/// What a search of one segment showed.
#[derive(Debug, Default)]
pub(crate) struct Searched {
    /// The positions that were to be searched.
    pub(crate) part: Range<u64>,
    /// Where events have keys with the right hashes, in the order of the search.
    pub(crate) positions: Vec<u64>,
    /// Where it goes on; `None`: `part` was searched to its end.
    pub(crate) next: Option<u64>,
    pub(crate) leaps: u32,
    /// Damage that may hide more.
    pub(crate) holes: Vec<Damage>,
}

impl Searched {
    fn new(part: Range<u64>, first_position: u64, found: Found, holes: &[Damage]) -> Self {
        let absolute = |position: u32| first_position + u64::from(position);
        Self {
            part,
            positions: found.positions.into_iter().map(absolute).collect(),
            next: found.next.map(absolute),
            leaps: found.leaps,
            holes: holes.to_vec(),
        }
    }
}

impl View {
    pub(crate) fn new(segments: &Segments) -> Self {
        Self {
            sealed: Arc::clone(&segments.sealed),
            closed: segments.closed.iter().cloned().collect(),
            holes: segments.holes.clone(),
            end: segments.active.as_ref().map_or(u64::MAX, |active| active.index.first_position()),
        }
    }

    /// The segment that holds a position, and its positions.
    fn home(&self, position: u64) -> (Home<'_>, Range<u64>) {
        let mut behind = self.end;
        for closed in self.closed.iter().rev() {
            let first = closed.index.first_position();
            if position >= closed.next_position {
                return (Home::Nowhere, closed.next_position..behind);
            }
            if position >= first {
                return (Home::Closed(closed), first..closed.next_position);
            }
            behind = first;
        }
        let number = self.sealed.partition_point(|segment| segment.log.seal.first_position <= position);
        if let Some(next) = self.sealed.get(number) {
            behind = next.log.seal.first_position;
        }
        let Some(number) = number.checked_sub(1) else {
            return (Home::Nowhere, 0..behind);
        };
        let seal = &self.sealed[number].log.seal;
        if position >= seal.next_position {
            return (Home::Nowhere, seal.next_position..behind);
        }
        (Home::Sealed(number), seal.first_position..seal.next_position)
    }

    /// Searches what lies of `range`, which is not empty, in the segment that `way` comes to first. An error is about all
    /// of the part that goes with it.
    pub(crate) fn search(
        &self,
        core: &Core,
        plan: &Plan,
        range: &Range<u64>,
        way: Way,
        limits: (usize, u32),
    ) -> Result<Searched, (Range<u64>, ReadError)> {
        let (home, of) = self.home(way.edge(range));
        match home {
            Home::Nowhere => {
                let part = part_of(range, &of);
                Ok(Searched { part, holes: self.holes.clone(), ..Searched::default() })
            }
            Home::Closed(closed) => {
                Ok(search_memory(&closed.index, plan, &part_of(range, &of), way, limits).with(&self.holes))
            }
            Home::Sealed(number) => self.search_sealed(core, plan, range, way, limits, number),
        }
    }

    /// Searches sealed segments, from the one at `number` on, until something is found.
    fn search_sealed(
        &self,
        core: &Core,
        plan: &Plan,
        range: &Range<u64>,
        way: Way,
        limits: (usize, u32),
        mut number: usize,
    ) -> Result<Searched, (Range<u64>, ReadError)> {
        let mut all = Searched::default();
        loop {
            let parts_of = |filter: SpanFilter<'_>| plan.parts_that_may_match(|hash| filter.parts_with(hash));
            let next = self.sealed.next_that_may_match(core, number, way, parts_of);
            all.go_on(self.passed_over(number, next, range, way), way);
            let Some(next) = next else { return Ok(all) };
            let part = part_of(range, &self.positions(next));
            if part.is_empty() {
                return Ok(all);
            }
            match self.search_one(core, plan, part, way, limits, next) {
                Ok(searched) => all.go_on(searched, way),
                // First of all what was searched before, and then this again.
                Err(_) if !all.part.is_empty() => return Ok(all),
                Err(error) => return Err(error),
            }
            let behind = match way {
                Way::Upwards => Some(next + 1).filter(|&behind| behind < self.sealed.len()),
                Way::Downwards => next.checked_sub(1),
            };
            let is_outcome = !all.positions.is_empty() || !all.holes.is_empty() || all.next.is_some();
            match behind.filter(|_| !is_outcome && all.leaps < limits.1) {
                Some(behind) if !part_of(range, &self.positions(behind)).is_empty() => number = behind,
                _ => return Ok(all),
            }
        }
    }

    /// The positions of sealed segments from the one at `number` on up to the `next`, which is not one of them: searched, for
    /// nothing there matches.
    fn passed_over(&self, number: usize, next: Option<usize>, range: &Range<u64>, way: Way) -> Searched {
        let from = self.positions(number);
        let of = match (way, next.map(|next| self.positions(next))) {
            (Way::Upwards, Some(next)) => from.start..next.start,
            (Way::Upwards, None) => {
                from.start..self.sealed.last().map_or(0, |last| last.log.seal.next_position)
            }
            (Way::Downwards, Some(next)) => next.end..from.end,
            (Way::Downwards, None) => 0..from.end,
        };
        Searched { part: part_of(range, &of), leaps: 1, ..Searched::default() }
    }

    fn search_one(
        &self,
        core: &Core,
        plan: &Plan,
        part: Range<u64>,
        way: Way,
        limits: (usize, u32),
        number: usize,
    ) -> Result<Searched, (Range<u64>, ReadError)> {
        let segment = &self.sealed[number];
        let of = self.positions(number);
        let relative = relative(&part, of.start);
        let found = rebuild::with_index(core, segment, |index| {
            search::search(Index::Sealed(index), plan, relative.clone(), way, limits)
        });
        match found {
            Ok(found) => Ok(Searched::new(part, of.start, found, segment.index.holes())),
            Err(error) => Err((part, with_positions(error, &of))),
        }
    }

    /// The positions of a sealed segment.
    fn positions(&self, number: usize) -> Range<u64> {
        let seal = &self.sealed[number].log.seal;
        seal.first_position..seal.next_position
    }

    /// The damage of unsealed segments.
    pub(crate) fn holes(&self) -> &[Damage] {
        &self.holes
    }
}

impl Searched {
    /// Adds what was searched next.
    fn go_on(&mut self, next: Self, way: Way) {
        let part = match way {
            _ if self.part.is_empty() => next.part,
            Way::Upwards => self.part.start..next.part.end,
            Way::Downwards => next.part.start..self.part.end,
        };
        *self = Self { part, leaps: self.leaps + next.leaps, ..next };
    }

    /// With this damage, too.
    pub(crate) fn with(self, holes: &[Damage]) -> Self {
        Self { holes: holes.to_vec(), ..self }
    }

    /// The damage, if any, that may hide an event at `position` or behind.
    pub(crate) fn hidden_from(&self, position: u64) -> Option<&Damage> {
        self.holes.iter().find(|hole| may_hide_from(hole, position))
    }
}

/// Whether damage may hide an event at `position` or behind.
pub(crate) fn may_hide_from(hole: &Damage, position: u64) -> bool {
    hole.last_position.is_none_or(|last| last.get() >= position)
}

/// Searches `part` of a segment whose index is in memory.
pub(crate) fn search_memory(
    index: &MemoryIndex,
    plan: &Plan,
    part: &Range<u64>,
    way: Way,
    limits: (usize, u32),
) -> Searched {
    let first = index.first_position();
    let found: Result<Found, BadBlock> =
        search::search(Index::Memory(index), plan, relative(part, first), way, limits);
    let found = found.expect("lists in memory have no blocks that could be damaged");
    Searched::new(part.clone(), first, found, &[])
}

fn part_of(range: &Range<u64>, of: &Range<u64>) -> Range<u64> {
    let (start, end) = (range.start.max(of.start), range.end.min(of.end));
    start..end.max(start)
}

fn relative(part: &Range<u64>, first_position: u64) -> Range<u32> {
    // A segment's events are counted in 32 bits; one that is written is searched as far as that goes.
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
