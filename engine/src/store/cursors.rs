//! Cursors: where they are, whether conditions on them hold, and what appends make of them.
//!
//! A cursor is set by a section of a batch. Where all cursors are behind the last sealed segment is in the manifest; what
//! was set since is found when the other segments are scanned.

use super::commit;
use super::core::{Core, State};
use super::read_only;
use super::ticket::Ticket;
use crate::format::batch;
use crate::format::manifest::Manifest;
use crate::striped::Shared;
use annals_types::{Advance, Append, AppendError, Appended, Condition, Cursor, Position, ReadError, limits};
use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};
use std::collections::BTreeMap;

/// Room for so many settings on their way that a cursor keeps.
const HISTORY_KEPT: usize = 64;

/// All cursors of a store, with what is on its way to the device.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    by_name: HashMap<Box<str>, History>,
}

/// Where a cursor was set, oldest first, each with the number of the batch that did it: the last durable one and those behind.
type History = SmallVec<[(u64, Cursor); 1]>;

impl Cursors {
    /// Where a cursor is for the next append.
    fn last(&self, name: &str) -> Option<Cursor> {
        self.by_name.get(name).and_then(|history| history.last()).map(|&(_, cursor)| cursor)
    }

    /// Where a cursor is for readers: `durable` is the first batch that is not.
    fn durable(&self, name: &str, durable: u64) -> Option<Cursor> {
        durable_of(self.by_name.get(name)?, durable)
    }

    fn set(&mut self, name: &str, cursor: Cursor, batch: u64, durable: u64) {
        let Some(history) = self.by_name.get_mut(name) else {
            self.by_name.insert(name.into(), smallvec![(batch, cursor)]);
            return;
        };
        // Of those that are durable, only the last is asked for.
        history.drain(..durable_in(history, durable).saturating_sub(1));
        history.push((batch, cursor));
        if history.capacity() > HISTORY_KEPT && history.len() < history.capacity() / 4 {
            history.shrink_to_fit();
        }
    }
}

/// How many of these are durable: the first ones.
fn durable_in(history: &History, durable: u64) -> usize {
    history.partition_point(|&(batch, _)| batch < durable)
}

fn durable_of(history: &History, durable: u64) -> Option<Cursor> {
    durable_in(history, durable).checked_sub(1).map(|last| history[last].1)
}

/// Notes where a cursor was set.
fn note(set: &mut BTreeMap<Box<str>, Cursor>, name: &str, cursor: Cursor) {
    match set.get_mut(name) {
        Some(known) => *known = cursor,
        None => drop(set.insert(name.into(), cursor)),
    }
}

/// Takes over what is durable: what the manifest has, and what was set in the segments that are not sealed.
pub(crate) fn know_durable(state: &mut State, manifest: &Manifest) {
    let State { segments, cursors, .. } = state;
    let closed = segments.closed.iter().map(|closed| &closed.index);
    let unsealed = closed.chain(segments.active.iter().map(|active| &active.index));
    for (name, cursor) in manifest.cursors.iter().chain(unsealed.flat_map(|index| &index.cursors)) {
        cursors.by_name.insert(name.clone(), smallvec![(0, *cursor)]);
    }
}

/// Takes over what was set, durably, in the active segment.
pub(crate) fn know_active(state: &mut State) {
    let State { segments, cursors, .. } = state;
    for (name, cursor) in segments.active.iter().flat_map(|active| &active.index.cursors) {
        match cursors.by_name.get_mut(name) {
            Some(history) => *history = smallvec![(0, *cursor)],
            None => drop(cursors.by_name.insert(name.clone(), smallvec![(0, *cursor)])),
        }
    }
}

/// Whether all conditions on cursors hold, and those that the append sets can be set.
pub(crate) fn judge(state: &State, append: &Append<'_>) -> Result<(), AppendError> {
    for condition in &append.conditions {
        let Condition::Cursor { cursor, expected } = condition else { continue };
        let actual = state.cursors.last(cursor);
        if actual.and_then(|actual| actual.position) != *expected {
            return Err(AppendError::WrongCursor { cursor: cursor.to_string(), expected: *expected, actual });
        }
    }
    let mut new = 0;
    for advance in &append.advances {
        let cursor = || advance.cursor.to_string();
        let next = Position::new(state.next_position);
        if let Some(position) = advance.position.filter(|&position| position >= next) {
            return Err(AppendError::CursorAfterTheEnd { cursor: cursor(), position, next });
        }
        new += usize::from(!state.cursors.by_name.contains_key(&*advance.cursor));
        if new > 0 && state.cursors.by_name.len() + new > limits::CURSORS_MAX {
            return Err(AppendError::TooManyCursors { cursor: cursor() });
        }
    }
    Ok(())
}

/// Sets the append's cursors: it gets its place, and nothing can fail any more.
pub(crate) fn set(core: &Core, state: &mut State, append: &Append<'_>, batch_bytes: &mut [u8]) {
    let active = state.segments.active.as_mut().expect("only a store open for writing appends");
    for (ordinal, advance) in append.advances.iter().enumerate() {
        let revision = state.cursors.last(&advance.cursor).map_or(0, |cursor| cursor.revision) + 1;
        let cursor = Cursor { position: advance.position, revision };
        batch::put_revision(batch_bytes, ordinal, revision);
        state.cursors.set(&advance.cursor, cursor, state.next_batch, core.watermark.batch());
        note(&mut active.index.cursors, &advance.cursor, cursor);
    }
}

/// What becomes of a repeat: `missing`, the cursors that its earlier batch did not set, are set now, by themselves, if the
/// conditions on cursors hold. Those on the cursors that it did set were judged then.
pub(super) fn set_by_repeat(
    core: &Shared<Core>,
    append: &Append<'_>,
    appended: Appended,
    missing: Vec<Advance<'static>>,
) -> Result<Ticket, AppendError> {
    let was_set = |name: &str| {
        append.advances.iter().any(|advance| advance.cursor == name)
            && !missing.iter().any(|advance| advance.cursor == name)
    };
    let counts = |condition: &&Condition<'_>| matches!(condition, Condition::Cursor { cursor, .. } if !was_set(cursor));
    let conditions = append.conditions.iter().filter(counts).cloned().collect();
    let alone = Append { conditions, advances: missing, ..Append::new() };
    Ok(commit::append(core, &alone)?.of_repeat(appended))
}

/// Catches up with the writer. Damage in what is not sealed may hide where a cursor was set last.
fn refuse_if_hidden(core: &Core) -> Result<(), ReadError> {
    read_only::refresh(core)?;
    let hole = core.state.lock().segments.holes.first().cloned();
    hole.or_else(|| read_only::stopped_at(core)).map_or(Ok(()), |hole| Err(hole.into()))
}

/// Where a cursor is.
pub(crate) fn get(core: &Core, name: &str) -> Result<Option<Cursor>, ReadError> {
    refuse_if_hidden(core)?;
    let state = core.state.lock();
    Ok(state.cursors.durable(name, core.watermark.batch()))
}

/// All cursors, by name.
pub(crate) fn list(core: &Core) -> Result<Vec<(String, Cursor)>, ReadError> {
    refuse_if_hidden(core)?;
    let state = core.state.lock();
    let durable = core.watermark.batch();
    let known = state.cursors.by_name.iter();
    let mut cursors: Vec<(String, Cursor)> =
        known.filter_map(|(name, history)| Some((name.to_string(), durable_of(history, durable)?))).collect();
    drop(state);
    cursors.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(cursors)
}
