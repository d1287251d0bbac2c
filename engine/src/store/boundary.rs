//! Conditions on queries, the boundaries of a decision: no event behind a position matches.
//!
//! What is in closed and sealed segments is searched outside the lock; of the active one, what came since, under it. A
//! search finds hashes of keys: whether the event really matches is seen when it is read, which is once it is durable.
//! So a rejection always has its evidence, and an accepted append has none against it, in flight or not.

use super::core::{Core, State};
use super::locate::Locator;
use super::view::{Searched, View, search_memory};
use crate::index::search::{Plan, Way};
use annals_types::{AppendError, Position, Query, ReadError};
#[cfg(any(test, feature = "testing"))]
use {crate::clock::stopwatch, std::time::Duration};

/// Leaps at a time: under the lock, and elsewhere.
const LEAPS_MAX_LOCKED: u32 = 64;
const LEAPS_MAX: u32 = 4096;
/// Leaps after which a query counts as too broad for a condition: half a second, about.
const LEAPS_MAX_IN_ALL: u64 = 4_000_000;

fn leaps_max_in_all() -> u64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(fewer) = FEWER_LEAPS.get() {
        return fewer;
    }
    LEAPS_MAX_IN_ALL
}

#[cfg(any(test, feature = "testing"))]
std::thread_local! {
    static FEWER_LEAPS: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// Lets conditions of appends on this thread take so many leaps alone.
#[cfg(any(test, feature = "testing"))]
pub fn limit_leaps(leaps: u64) {
    FEWER_LEAPS.set(Some(leaps));
}

/// A condition on a query, and how far it is known to hold.
#[derive(Debug)]
pub(crate) struct Boundary<'a> {
    query: &'a Query<'a>,
    plan: Plan,
    after: Option<Position>,
    /// No event before this one matches, but for those up to `after`.
    checked: u64,
    leaps: u64,
}

/// Why a condition could not be judged under the lock.
#[derive(Debug)]
pub(crate) enum Unjudged {
    /// Segments that are not written any more have to be searched.
    Unsearched(View),
    /// The event at this position seems to match.
    Candidate(u64),
    /// There is more to search than the lock may be held for.
    Unfinished,
    /// The answer is no.
    Rejected(AppendError),
}

impl<'a> Boundary<'a> {
    pub(crate) fn new(core: &Core, query: &'a Query<'a>, after: Option<Position>) -> Self {
        let plan = Plan::new(core.store, query);
        plan.keys().for_each(|hash| core.fetch_key(hash));
        let checked = after.map_or(0, |after| after.get().saturating_add(1));
        Self { query, plan, after, checked, leaps: 0 }
    }

    /// Whether it holds against every batch so far.
    pub(crate) fn judge(&mut self, state: &State) -> Result<(), Unjudged> {
        let next = state.next_position;
        if let Some(after) = self.after.filter(|after| after.get() >= next) {
            let next = Position::new(next);
            return Err(Unjudged::Rejected(AppendError::AfterTheEnd { after, next }));
        }
        if self.checked == next {
            return Ok(());
        }
        let active = &state.segments.active.as_ref().expect("only a store open for writing appends").index;
        if self.checked < active.first_position() {
            return Err(Unjudged::Unsearched(View::new(&state.segments)));
        }
        let limits = (1, LEAPS_MAX_LOCKED);
        let searched = search_memory(active, &self.plan, &(self.checked..next), Way::Upwards, limits);
        match self.note(&searched, next).map_err(Unjudged::Rejected)? {
            Some(candidate) => Err(Unjudged::Candidate(candidate)),
            None if self.checked == next => Ok(()),
            None => Err(Unjudged::Unfinished),
        }
    }

    /// Notes how far a search came, of all up to `end`; returns what seems to match.
    fn note(&mut self, searched: &Searched, end: u64) -> Result<Option<u64>, AppendError> {
        self.leaps += u64::from(searched.leaps);
        if let Some(&position) = searched.positions.first() {
            self.checked = position;
            return Ok(Some(position));
        }
        self.checked = searched.next.unwrap_or(searched.part.end);
        if self.leaps > leaps_max_in_all() && self.checked < end {
            let reached = Position::new(self.checked);
            return Err(AppendError::QueryTooBroad { leaps: self.leaps, reached });
        }
        Ok(None)
    }

    /// Searches segments that are not written any more. `Err`: the outcome, which is no.
    pub(crate) fn search(&mut self, core: &Core, view: &View) -> Result<(), Outcome> {
        while self.checked < view.end {
            let range = self.checked..view.end;
            let searched = view.search(core, &self.plan, &range, Way::Upwards, (1, LEAPS_MAX));
            let searched = searched.map_err(|(_, error)| error)?;
            // What cannot be read may match.
            if let Some(hole) = searched.hidden_from(self.checked) {
                return Err(ReadError::from(hole.clone()).into());
            }
            if let Some(candidate) = self.note(&searched, view.end).map_err(Outcome::Rejected)? {
                self.look_at(core, candidate)?;
            }
        }
        Ok(())
    }

    /// Looks whether the event at `candidate`, which has keys with the right hashes and is durable, really matches.
    pub(crate) fn look_at(&mut self, core: &Core, candidate: u64) -> Result<(), Outcome> {
        if !core.watermark.is_beyond(candidate) {
            return Err(Outcome::Awaited(candidate));
        }
        let mut locator = Locator::default();
        let record = locator.frame(core, candidate)?.record(candidate, None).map_err(ReadError::from)?;
        if self.query.matches(&record) {
            let (after, position) = (self.after, Position::new(candidate));
            return Err(Outcome::Rejected(AppendError::QueryMatched { after, position }));
        }
        self.checked = candidate + 1;
        Ok(())
    }
}

/// Why a condition does not hold, or cannot be judged.
#[derive(Debug)]
pub(crate) enum Outcome {
    Rejected(AppendError),
    /// The event at this position seems to match, and is not durable yet.
    Awaited(u64),
    Failed(ReadError),
}

impl From<ReadError> for Outcome {
    fn from(error: ReadError) -> Self {
        Self::Failed(error)
    }
}

/// How long a condition takes to judge, under the lock and outside.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn time(
    core: &Core,
    query: &Query<'_>,
    after: Option<Position>,
) -> Result<(Duration, Duration), AppendError> {
    let (mut inside, mut outside) = (Duration::ZERO, Duration::ZERO);
    let begun = stopwatch();
    let mut boundary = Boundary::new(core, query, after);
    outside += begun.elapsed();
    loop {
        let state = core.state.lock();
        let begun = stopwatch();
        let judged = boundary.judge(&state);
        inside += begun.elapsed();
        drop(state);
        let begun = stopwatch();
        let outcome = match judged {
            Ok(()) => return Ok((inside, outside)),
            Err(Unjudged::Rejected(error)) => return Err(error),
            Err(Unjudged::Unsearched(view)) => boundary.search(core, &view),
            Err(Unjudged::Candidate(position)) => boundary.look_at(core, position),
            Err(Unjudged::Unfinished) => Ok(()),
        };
        outside += begun.elapsed();
        match outcome {
            Ok(()) | Err(Outcome::Awaited(_)) => {}
            Err(Outcome::Rejected(error)) => return Err(error),
            Err(Outcome::Failed(error)) => {
                let error = std::io::Error::other(error.to_string());
                return Err(AppendError::Io(annals_types::IoFailure::new("judge", "", error)));
            }
        }
    }
}
