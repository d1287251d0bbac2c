//! What an append needs that cannot be had under the lock: heads, ids and events of segments that are not written any
//! more, and of those on their way to the disk.

use super::boundary::{Boundary, Outcome, Unjudged};
use super::commit::{failed_read, last_assigned, refuse_if_closed};
use super::core::Core;
use super::cursors;
use super::ids::{self, Seen, Unknown};
use super::lookup::{self, SealedView};
use super::prepare::Prepared;
use super::repeat::{self, Repeat};
use super::ticket::{Decided, Ticket};
use crate::striped::Shared;
use annals_types::{Append, AppendError, ReadError};

/// Looks streams up in sealed segments, for all of a run: one after the other, each would be placed by itself. `cold`: of each
/// append, the places of its streams. What fails for a later one fails when its turn comes.
pub(super) fn look_up_each(
    core: &Core,
    prepared: &mut [Prepared<'_>],
    cold: &[Vec<usize>],
    view: &SealedView,
) -> Result<(), ReadError> {
    let mut each =
        prepared.iter_mut().zip(cold).map(|(prepared, streams)| look_up(core, prepared, streams, view));
    let first = each.next().unwrap_or(Ok(()));
    if first.is_ok() {
        // Up to one that fails.
        let _ = each.try_for_each(|looked| looked);
    }
    first
}

/// Looks streams up in sealed segments. What is written is in memory afterwards; the rest is remembered.
fn look_up(
    core: &Core,
    prepared: &mut Prepared<'_>,
    streams: &[usize],
    view: &SealedView,
) -> Result<(), ReadError> {
    for &place in streams {
        let key = prepared.streams[place];
        let found = lookup::find_head(core, view, key, prepared.found[place])?;
        if place >= prepared.written {
            lookup::remember(core, key, found);
        }
        prepared.found[place] = Some(found);
    }
    Ok(())
}

/// Looks for ids where that cannot be done under the lock. `Some`: one is known.
pub(super) fn look_for_ids(
    core: &Shared<Core>,
    append: &Append<'_>,
    prepared: &mut Prepared<'_>,
    unknown: &Unknown,
    assigned: (u64, u64),
) -> Result<Option<Ticket>, AppendError> {
    let decided = match ids::look(core, append, prepared, unknown).map_err(failed_read)? {
        Seen::New | Seen::Known(Repeat::No) => return Ok(None),
        Seen::Awaited(position) => return await_durable(core, Some(position), assigned).map(|()| None),
        Seen::Known(Repeat::Same(appended)) => Decided::Repeated(appended),
        Seen::Known(Repeat::OtherCursors(appended, missing)) => {
            return cursors::set_by_repeat(core, append, appended, missing).map(Some);
        }
        Seen::Known(Repeat::Conflict(error)) => Decided::Rejected(error),
    };
    let (batch, group) = last_assigned(&core.state.lock());
    Ok(Some(Ticket::new(core.share(), batch, group, decided)))
}

/// Judges what of a condition on a query cannot be judged under the lock. `Some`: it does not hold. `assigned`: all that it
/// was judged against by then.
pub(super) fn judge(
    core: &Shared<Core>,
    boundary: &mut Boundary<'_>,
    unjudged: &Unjudged,
    assigned: (u64, u64),
) -> Result<Option<Ticket>, AppendError> {
    let outcome = match unjudged {
        Unjudged::Unsearched(view) => boundary.search(core, view),
        Unjudged::Candidate(position) => boundary.look_at(core, *position),
        Unjudged::Unfinished | Unjudged::Rejected(_) => Ok(()),
    };
    match outcome {
        Ok(()) => Ok(None),
        Err(Outcome::Rejected(error)) => {
            let (batch, group) = last_assigned(&core.state.lock());
            Ok(Some(Ticket::new(core.share(), batch, group, Decided::Rejected(error))))
        }
        Err(Outcome::Failed(error)) => Err(failed_read(error)),
        Err(Outcome::Awaited(position)) => await_durable(core, Some(position), assigned).map(|()| None),
    }
}

/// Waits until the event at `position`, which is in a batch up to `(batch, group)`, can be read.
fn await_durable(core: &Core, position: Option<u64>, (batch, group): (u64, u64)) -> Result<(), AppendError> {
    if position.is_some_and(|position| !core.watermark.is_beyond(position)) {
        core.watermark.wait(batch, group);
        refuse_if_closed(core)?;
    }
    Ok(())
}

/// What becomes of a batch whose place is taken by events that it may be a repeat of.
pub(super) fn answer_occupied(
    core: &Shared<Core>,
    append: &Append<'_>,
    prepared: &Prepared<'_>,
    places: &[(usize, u64)],
    otherwise: AppendError,
    (batch, group): (u64, u64),
) -> Result<Ticket, AppendError> {
    // They can be read once they are durable; the answer has to wait for that in any case.
    let positions = repeat::positions(core, prepared, places).map_err(failed_read)?;
    await_durable(core, positions.iter().flatten().copied().max(), (batch, group))?;
    let decided = match repeat::find(core, append, prepared, &positions).map_err(failed_read)? {
        Repeat::Same(appended) => Decided::Repeated(appended),
        Repeat::OtherCursors(appended, missing) => {
            return cursors::set_by_repeat(core, append, appended, missing);
        }
        Repeat::Conflict(error) => Decided::Rejected(error),
        Repeat::No => Decided::Rejected(otherwise),
    };
    let (batch, group) = last_assigned(&core.state.lock());
    Ok(Ticket::new(core.share(), batch, group, decided))
}
