//! Whether an append was made before: compared with what is stored where it would have gone.

use super::core::Core;
use super::locate::{Frame, Locator};
use super::lookup::StreamLookup;
use super::prepare::Prepared;
use annals_types::{Advance, Append, AppendError, Appended, NewEvent, Position, ReadError, Record};

/// What a look at the stored events says.
pub(crate) enum Repeat {
    /// The batch is stored exactly so: this was the result.
    Same(Appended),
    /// Its events are stored exactly so, by a batch that did not set these of its cursors.
    OtherCursors(Appended, Vec<Advance<'static>>),
    /// One of its ids is stored, but not as part of this very batch.
    Conflict(AppendError),
    /// It was never appended.
    No,
}

/// Positions of the stored events at `places`: streams (by ordinal in the batch) and the version there that the first event
/// that the batch adds to the stream would have.
pub(crate) fn positions(
    core: &Core,
    prepared: &Prepared<'_>,
    places: &[(usize, u64)],
) -> Result<Vec<Option<u64>>, ReadError> {
    let position = |&(stream, version): &(usize, u64)| {
        StreamLookup::new(core, prepared.streams[stream].name).position(core, version)
    };
    places.iter().map(position).collect()
}

/// Looks at the stored events at `positions`, which are durable.
pub(crate) fn find(
    core: &Core,
    append: &Append<'_>,
    prepared: &Prepared<'_>,
    positions: &[Option<u64>],
) -> Result<Repeat, ReadError> {
    for position in positions.iter().flatten().copied() {
        let mut locator = Locator::default();
        if let Some(repeat) = at(locator.frame(core, position)?, position, append, prepared)? {
            return Ok(repeat);
        }
    }
    Ok(Repeat::No)
}

/// What it means that the event at `position`, which this frame holds, may have one of the batch's ids; `None`: it has not.
pub(crate) fn at(
    frame: &Frame,
    position: u64,
    append: &Append<'_>,
    prepared: &Prepared<'_>,
) -> Result<Option<Repeat>, ReadError> {
    let stored = frame.record(position, None)?;
    if !prepared.ids.contains(&stored.id()) {
        return Ok(None);
    }
    Ok(Some(match same_batch(frame, append, prepared)? {
        Some(appended) => {
            let missing = cursors_not_set(frame, append)?;
            if missing.is_empty() { Repeat::Same(appended) } else { Repeat::OtherCursors(appended, missing) }
        }
        None => {
            Repeat::Conflict(AppendError::IdConflict { id: stored.id(), position: Some(stored.position()) })
        }
    }))
}

/// The first result, if the stored batch has exactly the events of this one.
fn same_batch(
    frame: &Frame,
    append: &Append<'_>,
    prepared: &Prepared<'_>,
) -> Result<Option<Appended>, ReadError> {
    if frame.header.events != prepared.events {
        return Ok(None);
    }
    let first = frame.header.first_position;
    let mut last_version = annals_types::Version::ZERO;
    for (index, event) in append.events.iter().enumerate() {
        let stored = frame.record(first + index as u64, None)?;
        if stored.id() != prepared.ids[index] || !is_same(&stored, event) {
            return Ok(None);
        }
        last_version = stored.version();
    }
    let positions = Position::new(first)..Position::new(frame.header.next_position());
    Ok(Some(Appended { positions, last_version, repeated: true }))
}

/// The cursors of an append that the stored batch did not set, or not to the same places.
fn cursors_not_set(frame: &Frame, append: &Append<'_>) -> Result<Vec<Advance<'static>>, ReadError> {
    if append.advances.is_empty() {
        return Ok(Vec::new());
    }
    let cursors = frame.cursors()?;
    let is_missing = |advance: &&Advance<'_>| {
        !cursors.iter().any(|(name, cursor)| *name == advance.cursor && cursor.position == advance.position)
    };
    let owned = |advance: &Advance<'_>| Advance {
        cursor: advance.cursor.to_string().into(),
        position: advance.position,
    };
    Ok(append.advances.iter().filter(is_missing).map(owned).collect())
}

fn is_same(stored: &Record, event: &NewEvent<'_>) -> bool {
    stored.stream() == event.stream
        && stored.event_type() == event.event_type
        && stored.data() == &*event.data
        && stored.metadata() == &*event.metadata
        && stored.content() == event.content
        && stored.correlation() == event.correlation
        && stored.causation() == event.causation
        && stored.tags().eq(event.tags.iter().map(AsRef::as_ref))
}
