//! The write path: the one way in which a batch gets into the log.
//!
//! An append is checked and encoded on the caller's thread; then, under one lock, judged against every batch
//! before it and given its place; then copied into the image. The writer thread makes it durable, and the
//! ticket settles. What has to touch a sealed segment happens outside the lock, and the judging starts again.

use super::core::{Core, PoisonOnPanic, State, is_full};
use super::gate::Wake;
use super::lookup::{self, Known, SealedView};
use super::prepare::Prepared;
use super::repeat::{self, Repeat};
use super::ticket::{Decided, Ticket};
use crate::disk::is_memory_short;
use crate::format::batch;
use crate::format::digest;
use crate::format::frame;
use crate::index::heads::Entry;
use crate::index::memory::{MemoryIndex, StreamNumber};
use crate::log::tail::Reserved;
use crate::striped::Shared;
use annals_types::{
    Append, AppendError, Appended, Head, IoFailure, Position, ReadError, Timestamp, Version, limits,
};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Reserved and not yet durable bytes beyond which appends wait: what repair looks through is bounded by it.
pub(crate) const NOT_DURABLE_BYTES_MAX: u64 = 64 << 20;
/// Closed segments that may wait to be sealed; with more, appends that need a new segment wait.
pub(crate) const CLOSED_SEGMENTS_MAX: usize = 2;

/// How long an append that waits for the device sleeps between two looks, should nothing wake it.
const BACKLOG_LOOK: Duration = Duration::from_millis(100);

/// Frames up to this size are copied in less time than it takes to wake a thread.
const QUICKLY_COPIED_BYTES_MAX: usize = 32 << 10;

/// Why a batch did not get its place at once.
enum Obstacle {
    /// The heads of these streams, by their places, have to be looked up in sealed segments.
    Cold(Vec<usize>, SealedView),
    /// These streams (by ordinal) already have events of these versions, which the batch would add: it may be a
    /// repeat, or else fails with this.
    Occupied { places: Vec<(usize, u64)>, otherwise: AppendError },
    /// Too much is on its way to the device.
    Backlog,
    /// There is no segment for it yet.
    NoRoom,
    /// The answer is no.
    Rejected(AppendError),
}

/// What is known of the streams that are written or conditions are about, in that order.
type Heads = SmallVec<[KnownHead; 2]>;

/// A stream's head, and where it is remembered.
#[derive(Clone, Copy, Debug)]
struct KnownHead {
    head: Option<Head>,
    entry: Option<Entry>,
}

/// Where a placed batch goes in memory.
struct Placed {
    reserved: Reserved,
    wake: bool,
    number: u64,
    appended: Appended,
}

/// Appends, waiting where it must.
pub(crate) fn append(core: &Shared<Core>, append: &Append<'_>) -> Result<Ticket, AppendError> {
    let mut prepared = Prepared::new(core, append)?;
    let _guard = PoisonOnPanic::new(core);
    let mut failures_seen = None;
    loop {
        let durable_before = core.watermark.position();
        let mut state = core.state.lock();
        refuse_if_closed(core)?;
        match place(core, &mut state, append, &mut prepared) {
            Ok(placed) => return Ok(finish(core, &prepared, placed, state.release())),
            Err(Obstacle::Rejected(error)) => return Ok(rejected(core, &state, error)),
            Err(Obstacle::Cold(streams, view)) => {
                drop(state);
                look_up(core, &mut prepared, &streams, &view).map_err(failed_read)?;
            }
            Err(Obstacle::Occupied { places, otherwise }) => {
                let (batch, group) = last_assigned(&state);
                drop(state);
                // What it may be a repeat of can be read once it is durable; the answer has to wait for that in any case.
                core.watermark.wait(batch, group);
                refuse_if_closed(core)?;
                let repeat = repeat::find(core, append, &prepared, &places).map_err(failed_read)?;
                return Ok(answer_repeat(core, repeat, otherwise));
            }
            Err(Obstacle::Backlog) => {
                drop(state);
                core.watermark.wait_beyond(durable_before, BACKLOG_LOOK);
            }
            Err(Obstacle::NoRoom) => {
                state.spare.want(prepared.frame.len() as u64);
                core.room_awaited.store(true, Ordering::Release);
                let (spares_seen, seals_seen) =
                    *failures_seen.get_or_insert((state.spare.failures(), state.seal_failures));
                core.work.ring();
                state = core.room.wait(state);
                // Failures from before this append began say nothing: they are tried again for it.
                let debt = state.segments.closed.len() >= CLOSED_SEGMENTS_MAX;
                let failed_again = debt && state.seal_failures > seals_seen;
                let unsealed = state.seal_failure.as_ref().filter(|_| failed_again);
                if let Some(failure) = state.spare.failure_after(spares_seen).or(unsealed) {
                    return Err(no_room(failure.clone()));
                }
            }
        }
    }
}

/// Appends if that needs no waiting and no disk; else says why not.
pub(crate) fn try_append(core: &Shared<Core>, append: &Append<'_>) -> Result<Ticket, TryAppendError> {
    let mut prepared = Prepared::new(core, append).map_err(TryAppendError::Failed)?;
    let _guard = PoisonOnPanic::new(core);
    let mut state = core.state.lock();
    refuse_if_closed(core).map_err(TryAppendError::Failed)?;
    match place(core, &mut state, append, &mut prepared) {
        Ok(placed) => Ok(finish(core, &prepared, placed, state.release())),
        Err(Obstacle::Rejected(error)) => Ok(rejected(core, &state, error)),
        Err(Obstacle::Cold(..) | Obstacle::Occupied { .. }) => Err(TryAppendError::Cold),
        Err(Obstacle::Backlog) => Err(TryAppendError::Busy),
        Err(Obstacle::NoRoom) => {
            state.spare.want(prepared.frame.len() as u64);
            core.work.ring();
            match state.spare.failure() {
                Some(failure) => Err(TryAppendError::Failed(no_room(failure.clone()))),
                None => Err(TryAppendError::Busy),
            }
        }
    }
}

/// Why [`Store::try_append`](crate::Store::try_append) did not append. Nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TryAppendError {
    /// Too much is on its way to the device, or the next segment is not ready: try again soon.
    #[error("the store is busy; try again, or use an append that waits")]
    Busy,
    /// A condition needs a look at the disk: use an append that waits.
    #[error("a condition needs the disk; use an append that waits")]
    Cold,
    /// It fails whichever way it is tried.
    #[error(transparent)]
    Failed(#[from] AppendError),
}

fn refuse_if_closed(core: &Core) -> Result<(), AppendError> {
    if let Some(reason) = core.watermark.poison() {
        return Err(AppendError::Poisoned { reason: Arc::clone(reason) });
    }
    if core.is_closing() {
        return Err(AppendError::Poisoned { reason: "the store was closed".into() });
    }
    Ok(())
}

fn no_room(failure: IoFailure) -> AppendError {
    if is_full(&failure.source) { AppendError::DiskFull(failure) } else { AppendError::Io(failure) }
}

fn failed_read(error: ReadError) -> AppendError {
    match error {
        ReadError::Damage(damage) => AppendError::Damage(damage),
        ReadError::Io(failure) => AppendError::Io(failure),
        ReadError::Input(error) => AppendError::Input(error),
        _ => AppendError::Io(IoFailure::new("read", "", std::io::Error::other(error.to_string()))),
    }
}

/// All batches assigned so far: what a rejection was judged against.
fn last_assigned(state: &State) -> (u64, u64) {
    (state.next_batch, state.tail.as_ref().map_or(0, |tail| tail.last_group))
}

fn rejected(core: &Shared<Core>, state: &State, error: AppendError) -> Ticket {
    let (batch, group) = last_assigned(state);
    Ticket::new(core.share(), batch, group, Decided::Rejected(error))
}

fn answer_repeat(core: &Shared<Core>, repeat: Repeat, otherwise: AppendError) -> Ticket {
    let (batch, group) = last_assigned(&core.state.lock());
    match repeat {
        // Settled with everything before now: the earlier batch is among that.
        Repeat::Same(appended) => Ticket::new(core.share(), batch, group, Decided::Repeated(appended)),
        Repeat::Conflict(error) => Ticket::new(core.share(), batch, group, Decided::Rejected(error)),
        Repeat::No => Ticket::new(core.share(), batch, group, Decided::Rejected(otherwise)),
    }
}

/// Judges the batch against every batch before it and gives it its place. Changes nothing unless all holds.
fn place(
    core: &Core,
    state: &mut State,
    append: &Append<'_>,
    prepared: &mut Prepared<'_>,
) -> Result<Placed, Obstacle> {
    let heads = known_heads(state, prepared)?;
    judge(prepared, &heads)?;
    let time = decide_time(append, prepared, state.last_time)?;
    make_room(core, state, prepared.frame.len() as u64)?;
    Ok(assign(core, state, prepared, &heads, time))
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

/// The heads of all streams that are written or conditions are about, in that order.
fn known_heads(state: &mut State, prepared: &Prepared<'_>) -> Result<Heads, Obstacle> {
    state.make_room_for_heads(prepared.streams.len());
    let mut heads = Heads::with_capacity(prepared.streams.len());
    let mut cold = Vec::new();
    if prepared.streams.len() > 1 {
        // One after the other, each would be waited for.
        prepared.streams.iter().for_each(|key| state.heads.fetch(key.hash));
    }
    for (place, key) in prepared.streams.iter().enumerate() {
        match lookup::head_in_memory(&mut state.heads, *key, prepared.found[place]) {
            Known::Here(entry) => {
                heads.push(KnownHead { head: state.heads.head(entry), entry: Some(entry) });
            }
            Known::Elsewhere(head) => heads.push(KnownHead { head, entry: None }),
            Known::Cold => cold.push(place),
        }
    }
    if cold.is_empty() { Ok(heads) } else { Err(Obstacle::Cold(cold, SealedView::new(state))) }
}

fn judge(prepared: &Prepared<'_>, heads: &[KnownHead]) -> Result<(), Obstacle> {
    let mut failed = None;
    let mut occupied = Vec::new();
    for condition in &prepared.conditions {
        let actual = heads[condition.stream].head;
        if condition.expected.holds(actual.map(|head| head.version)) {
            continue;
        }
        let key = &prepared.streams[condition.stream];
        let error =
            AppendError::WrongVersion { stream: key.name.to_string(), expected: condition.expected, actual };
        // A stream that is written, at a version fixed by the condition, with an id of the caller's: look whether
        // that very event is there already. Ids are looked up before any condition is judged.
        let next = condition.expected.next_version().map(Version::get);
        let written = condition.stream < prepared.written;
        if let (Some(version), Some(head)) = (next, actual)
            && written
            && prepared.ids_given
            && version <= head.version.get()
        {
            occupied.push((condition.stream, version));
        }
        failed = failed.or(Some(error));
    }
    match failed {
        None => Ok(()),
        Some(error) if occupied.is_empty() => Err(Obstacle::Rejected(error)),
        Some(otherwise) => Err(Obstacle::Occupied { places: occupied, otherwise }),
    }
}

/// The batch's time, and that of its last event.
fn decide_time(append: &Append<'_>, prepared: &Prepared<'_>, last_time: u64) -> Result<(u64, u64), Obstacle> {
    let now = prepared.now.get().max(last_time);
    let Some((first, last)) = prepared.given_times else {
        return Ok((now, now));
    };
    if first < last_time && !append.raise_times {
        return Err(Obstacle::Rejected(AppendError::TimeBackwards {
            given: Timestamp::new(first),
            previous: Timestamp::new(last_time),
        }));
    }
    if last > now.saturating_add(limits::TIME_AHEAD_NS_MAX) {
        return Err(Obstacle::Rejected(AppendError::TimeAhead {
            given: Timestamp::new(last),
            now: prepared.now,
        }));
    }
    Ok((first.max(last_time), last.max(last_time)))
}

/// Makes sure that a frame of this length fits, in this segment or the next.
fn make_room(core: &Core, state: &mut State, frame_bytes: u64) -> Result<(), Obstacle> {
    let tail = state.tail.as_ref().expect("only a store open for writing appends");
    let not_durable = tail.reserved_total - core.durable_total.load(Ordering::Acquire);
    let is_too_much = not_durable + frame_bytes > NOT_DURABLE_BYTES_MAX || is_memory_short();
    if not_durable > 0 && is_too_much {
        return Err(Obstacle::Backlog);
    }
    let index = state.segments.active.as_ref().map(|active| &active.index);
    if tail.fits(frame_bytes) && index.is_some_and(MemoryIndex::has_room) {
        return Ok(());
    }
    if state.segments.closed.len() >= CLOSED_SEGMENTS_MAX || !state.spare.holds(frame_bytes) {
        return Err(Obstacle::NoRoom);
    }
    super::roll::roll(core, state);
    Ok(())
}

/// Nothing can fail any more: numbers, positions, versions and time are given, and the index knows the events.
fn assign(
    core: &Core,
    state: &mut State,
    prepared: &mut Prepared<'_>,
    heads: &[KnownHead],
    (time, last_time): (u64, u64),
) -> Placed {
    let (number, first_position) = (state.next_batch, state.next_position);
    let next_position = first_position + u64::from(prepared.events);
    let active = state.segments.active.as_mut().expect("only a store open for writing appends");
    let tail = state.tail.as_mut().expect("only a store open for writing appends");
    let batch_bytes = &mut prepared.frame[frame::FRAME_FIXED_BYTES..];
    let mut numbers: SmallVec<[StreamNumber; 2]> = SmallVec::with_capacity(prepared.written);
    for (ordinal, key) in prepared.streams[..prepared.written].iter().enumerate() {
        let KnownHead { head, entry } = heads[ordinal];
        let first_version = head.map_or(0, |head| head.version.get() + 1);
        batch::put_first_version(batch_bytes, ordinal, first_version);
        let is_here = |head: Head| head.position.get() >= active.index.first_position();
        numbers.push(match entry.filter(|_| head.is_some_and(is_here)) {
            Some(entry) => state.heads.number(entry),
            None => active.index.add_stream(key.hash, key.name, first_version),
        });
    }
    let crc = batch::decide(batch_bytes, batch::Decided { epoch: core.epoch, number, first_position, time });
    let place = tail.place(core.watermark.batch());
    let frame_bytes = prepared.frame.len() as u64;
    let frame_crc = frame::place(&mut prepared.frame, place, crc);
    active.index.push_frame(first_position, place.offset);
    for event in 0..prepared.events {
        let ordinal = prepared.ordinals.get(event as usize).map_or(0, |&ordinal| usize::from(ordinal));
        active.index.push_event(numbers[ordinal], first_position + u64::from(event));
    }
    for (ordinal, key) in prepared.streams[..prepared.written].iter().enumerate() {
        let (number, head) = (numbers[ordinal], active.index.head(numbers[ordinal]));
        match heads[ordinal].entry {
            Some(entry) => state.heads.set(entry, head, number),
            None => state.heads.insert(key.hash, key.name, Some(head), Some(number)),
        }
    }
    let [of_heads, of_streams] = &core.whereabouts;
    state.heads.tell(of_heads);
    active.index.tell(of_streams);
    let reserved = tail.push(frame_bytes, frame_crc, number + 1, next_position);
    let wake = tail.wants_wake();
    let last_ordinal = prepared.ordinals.last().map_or(0, |&ordinal| usize::from(ordinal));
    let last_version = Version::new(active.index.next_version(numbers[last_ordinal]) - 1);
    state.next_batch = number + 1;
    state.next_position = next_position;
    state.last_time = last_time;
    if state.spare.is_due(tail.offset, tail.segment.header.capacity) {
        core.work.ring();
    }
    let appended = Appended {
        positions: Position::new(first_position)..Position::new(next_position),
        last_version,
        repeated: false,
    };
    Placed { reserved, wake, number, appended }
}

/// Copies the frame into its place, and has it written. The lock's next holder is woken once the place is filled: the
/// writer waits for all places of a group, and whoever wakes another may lose its core to it.
fn finish(core: &Shared<Core>, prepared: &Prepared<'_>, placed: Placed, next: Wake<'_>) -> Ticket {
    let mut next = Some(next);
    if prepared.frame.len() > QUICKLY_COPIED_BYTES_MAX {
        drop(next.take());
    }
    let group = placed.reserved.group;
    let guard = FillGuard { core, group, filled: false };
    let segment = placed.reserved.fill(&prepared.frame);
    guard.done();
    drop(next);
    if placed.wake {
        core.alarm.ring();
    }
    // While the device writes: what sealing will need of this batch, whose bytes are at hand here.
    let view = frame::own_view(&prepared.frame, prepared.plain_body.as_deref());
    if let Ok(digest) = view.and_then(|view| digest::batch_digest(&view)) {
        segment.digests.set(placed.number - segment.header.first_batch, &digest);
    }
    Ticket::new(core.share(), placed.number + 1, group, Decided::Written(placed.appended))
}

/// Sees to it that a reserved place is counted as filled whatever happens, or the writer would wait for it for
/// ever; a place that was not really filled poisons the store before anything of it is written.
struct FillGuard<'a> {
    core: &'a Core,
    group: u64,
    filled: bool,
}

impl FillGuard<'_> {
    fn done(mut self) {
        self.filled = true;
    }
}

impl Drop for FillGuard<'_> {
    fn drop(&mut self) {
        if !self.filled {
            self.core.watermark.poison_with("an append panicked while it was being copied");
        }
        self.core.fills.add(self.group);
        if !self.filled {
            self.core.poison("an append panicked while it was being copied");
        }
    }
}
