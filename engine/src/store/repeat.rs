//! Whether an append was made before: compared with what is stored where it would have gone.

use super::core::Core;
use super::locate::{Frame, Locator};
use super::lookup::StreamLookup;
use super::prepare::Prepared;
use annals_types::{Append, AppendError, Appended, NewEvent, Position, ReadError, Record};

/// What a look at the stored events says.
pub(crate) enum Repeat {
    /// The batch is stored exactly so: this was the result.
    Same(Appended),
    /// One of its ids is stored, but not as part of this very batch.
    Conflict(AppendError),
    /// It was never appended.
    No,
}

/// Looks at `places`: streams (by ordinal in the batch) and the version there that the first event that the batch
/// adds to the stream would have.
pub(crate) fn find(
    core: &Core,
    append: &Append<'_>,
    prepared: &Prepared<'_>,
    places: &[(usize, u64)],
) -> Result<Repeat, ReadError> {
    for &(stream, version) in places {
        let mut lookup = StreamLookup::new(core, prepared.streams[stream].name);
        let Some(position) = lookup.position(core, version)? else { continue };
        let mut locator = Locator::default();
        let frame = locator.frame(core, position)?;
        let stored = frame.record(position, Some(version))?;
        if let Some(appended) = same_batch(frame, append, prepared)? {
            return Ok(Repeat::Same(appended));
        }
        // Not the same batch: any of its ids there is a conflict.
        if prepared.ids.contains(&stored.id()) {
            let error = AppendError::IdConflict { id: stored.id(), position: Some(stored.position()) };
            return Ok(Repeat::Conflict(error));
        }
    }
    Ok(Repeat::No)
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
