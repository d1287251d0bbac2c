//! Filling the filter over the ids of the newest events, once somebody appends events with ids of their own: from what the
//! indexes of segments have of them, in the background.

use super::core::Core;
use super::rebuild;
use super::view::{View, may_hide_from};
use crate::index::recent::{Generation, RecentIds};
use annals_types::ReadError;
use std::sync::atomic::Ordering;

/// Largest window whose ids are held in memory, in 32 MB a generation: with a larger one, each id is looked for.
const IDS_MAX: usize = 8_000_000;

/// Fills it, where it is wanted and is not there. Not where what it would be made of is damaged: then each id is looked for.
pub(super) fn fill(core: &Core) -> Result<(), ReadError> {
    if !core.ids_wanted.load(Ordering::Acquire) {
        return Ok(());
    }
    let (view, from) = {
        let state = core.state.lock();
        let from = state.next_position.saturating_sub(core.settings.id_window);
        if state.recent_ids.covers(from) || state.segments.active.is_none() {
            return Ok(());
        }
        (View::new(&state.segments), from)
    };
    let window = usize::try_from(core.settings.id_window).unwrap_or(usize::MAX);
    if window > IDS_MAX || view.end.saturating_sub(from) > IDS_MAX as u64 {
        return Ok(());
    }
    let Some((older, from)) = older(core, &view, from)? else { return Ok(()) };
    // Before the lock: it is megabytes.
    let mut newer = Generation::with_capacity(window);
    let mut state = core.state.lock();
    let active = &state.segments.active.as_ref().expect("a store does not lose it").index;
    if active.first_position() != view.end {
        // A segment has ended meanwhile: the next attempt has it.
        return Ok(());
    }
    active.id_halves().for_each(|half| newer.add(half));
    state.recent_ids = RecentIds::new(from, older, newer, view.end, window);
    Ok(())
}

/// The ids of what is not written any more, from a position on or a little before.
fn older(core: &Core, view: &View, from: u64) -> Result<Option<(Generation, u64)>, ReadError> {
    let sealed: Vec<_> = view.sealed.iter().filter(|segment| segment.log.seal.next_position > from).collect();
    let closed: Vec<_> = view.closed.iter().filter(|closed| closed.next_position > from).collect();
    let first_sealed = sealed.first().map(|segment| segment.log.seal.first_position);
    let first = first_sealed.or(closed.first().map(|closed| closed.index.first_position()));
    let first = first.unwrap_or(view.end).min(view.end);
    let mut older = Generation::with_capacity(usize::try_from(view.end - first).unwrap_or(usize::MAX));
    for segment in sealed {
        let halves = rebuild::with_index(core, segment, |index| {
            let mut halves = Vec::new();
            index.layout.each_id(&index.bytes, |half| halves.push(half))?;
            Ok(halves)
        })?;
        if segment.index.holes().iter().any(|hole| may_hide_from(hole, from)) {
            return Ok(None);
        }
        halves.into_iter().for_each(|half| older.add(half));
    }
    for closed in closed {
        closed.index.id_halves().for_each(|half| older.add(half));
    }
    Ok(Some((older, first)))
}
