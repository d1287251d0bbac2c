//! Whether any id of a batch is known: among the last so many events, each id is looked up before any condition is judged.
//!
//! As with conditions on queries, what an index finds is looked at in the log, once it is durable.

use super::core::{Core, State};
use super::locate::Locator;
use super::prepare::Prepared;
use super::rebuild;
use super::repeat::{self, Repeat};
use super::view::{View, may_hide_from};
use crate::format::index::IdKey;
use crate::index::slots::half;
use annals_types::{Append, Position, ReadError};
use smallvec::SmallVec;
use std::sync::atomic::Ordering;

/// How far a batch's ids were looked up.
#[derive(Debug, Default)]
pub(crate) struct IdsChecked {
    /// No event before this one, within the window, has one of them.
    until: u64,
    /// Nor have these, which seemed to.
    others: SmallVec<[u64; 1]>,
}

/// What has to be looked at before it is known whether an id is.
#[derive(Debug)]
pub(crate) enum Unknown {
    /// Segments that are not written any more have to be searched, from this position on.
    Unsearched(View, u64),
    /// The event at this position seems to have one.
    Candidate(u64),
    /// What came since this position may have one, and is not known any more.
    Forgotten { since: u64, next: u64 },
}

/// Whether all ids are new, as far as can be said under the lock.
pub(crate) fn check(
    state: &State,
    window: u64,
    append: &Append<'_>,
    prepared: &Prepared<'_>,
) -> Result<(), Unknown> {
    if !prepared.ids_given {
        return Ok(());
    }
    let next = state.next_position;
    let (known, until) = (next.saturating_sub(window), prepared.ids_checked.until);
    check_known(state, known.max(until), append, prepared)?;
    // What it was sent before for, or what has come while it waited here.
    let again = append.again.map(Position::get).filter(|&since| since < known || since > next);
    // Without a window no id is known, and nothing is promised of any.
    match again.or(Some(until).filter(|&until| window > 0 && until > 0 && until < known)) {
        Some(since) => Err(Unknown::Forgotten { since, next }),
        None => Ok(()),
    }
}

/// The same, among the events from a position on.
fn check_known(
    state: &State,
    from: u64,
    append: &Append<'_>,
    prepared: &Prepared<'_>,
) -> Result<(), Unknown> {
    if state.recent_ids.covers(from)
        && given(append, prepared).all(|hash| !state.recent_ids.may_hold(half(hash)))
    {
        return Ok(());
    }
    let active = &state.segments.active.as_ref().expect("only a store open for writing appends").index;
    if from < active.first_position() {
        return Err(Unknown::Unsearched(View::new(&state.segments), from));
    }
    let seems = |position: &u64| *position >= from && !prepared.ids_checked.others.contains(position);
    let candidates = given(append, prepared).flat_map(|hash| active.ids_of(hash)).filter(seems);
    match candidates.min() {
        Some(candidate) => Err(Unknown::Candidate(candidate)),
        None => Ok(()),
    }
}

/// Hashes of the ids that the caller gave.
fn given(append: &Append<'_>, prepared: &Prepared<'_>) -> impl Iterator<Item = u64> {
    let given = append.events.iter().zip(&prepared.ids_hashes).filter(|(event, _)| event.id.is_some());
    given.map(|(_, &hash)| hash)
}

/// What a look outside the lock shows.
pub(crate) enum Seen {
    /// None of the ids is known, as far as was looked.
    New,
    /// One is, and this is what it means.
    Known(Repeat),
    /// The event at this position seems to have one, and cannot be read yet.
    Awaited(u64),
}

/// Looks at what could not be said under the lock.
pub(crate) fn look(
    core: &Core,
    append: &Append<'_>,
    prepared: &mut Prepared<'_>,
    unknown: &Unknown,
) -> Result<Seen, ReadError> {
    match unknown {
        Unknown::Forgotten { .. } => unreachable!("it is refused under the lock"),
        Unknown::Candidate(position) => look_at(core, append, prepared, *position),
        Unknown::Unsearched(view, from) => {
            core.ids_wanted.store(true, Ordering::Release);
            let mut candidates = candidates_in(core, view, *from, append, prepared)?;
            candidates.sort_unstable();
            for position in candidates {
                let seen = look_at(core, append, prepared, position)?;
                if !matches!(seen, Seen::New) {
                    return Ok(seen);
                }
            }
            prepared.ids_checked.until = view.end;
            Ok(Seen::New)
        }
    }
}

fn look_at(
    core: &Core,
    append: &Append<'_>,
    prepared: &mut Prepared<'_>,
    position: u64,
) -> Result<Seen, ReadError> {
    if !core.watermark.is_beyond(position) {
        return Ok(Seen::Awaited(position));
    }
    let mut locator = Locator::default();
    let found = repeat::at(locator.frame(core, position)?, position, append, prepared)?;
    if found.is_none() {
        prepared.ids_checked.others.push(position);
    }
    Ok(found.map_or(Seen::New, Seen::Known))
}

/// Positions from `from` on where an id seems to be.
fn candidates_in(
    core: &Core,
    view: &View,
    from: u64,
    append: &Append<'_>,
    prepared: &Prepared<'_>,
) -> Result<Vec<u64>, ReadError> {
    let mut candidates = Vec::new();
    for closed in view.closed.iter().filter(|closed| closed.next_position > from) {
        candidates.extend(given(append, prepared).flat_map(|hash| closed.index.ids_of(hash)));
    }
    // Of each id, what all segments are asked for.
    let keys: Vec<IdKey> = given(append, prepared).map(|hash| IdKey::new(core.store, hash)).collect();
    for segment in view.sealed.iter().filter(|segment| segment.log.seal.next_position > from) {
        let first = segment.log.seal.first_position;
        let found = rebuild::with_index(core, segment, |index| index.layout.ids_of(&index.bytes, &keys))?;
        // What cannot be read may have one.
        if let Some(hole) = segment.index.holes().iter().find(|hole| may_hide_from(hole, from)) {
            return Err(hole.clone().into());
        }
        candidates.extend(found.into_iter().map(|position| first + u64::from(position)));
    }
    candidates.retain(|&position| position >= from);
    Ok(candidates)
}
