//! The write path: the one way in which a batch gets into the log.
//!
//! An append is checked and encoded on the caller's thread; then, under one lock, judged against every batch
//! before it and given its place; then copied into the image. The writer thread makes it durable, and the
//! ticket settles. What has to touch a sealed segment happens outside the lock, and the judging starts again.

use super::boundary::Unjudged;
use super::core::{Core, PoisonOnPanic, State, is_full};
use super::cursors;
use super::filling::{Step, Steps, Unfilled, finish};
use super::gate::GateGuard;
use super::ids::{self, Unknown};
use super::lookup::{self, Known, SealedView};
use super::outside;
use super::prepare::Prepared;
use super::snapshots;
use super::ticket::{Decided, Ticket};
use crate::disk::is_memory_short;
use crate::format::batch;
use crate::format::frame;
use crate::format::snapshot::SnapshotOf;
use crate::index::heads::Entry;
use crate::index::memory::{MemoryIndex, StreamNumber};
use crate::index::slots::half;
use crate::striped::Shared;
use annals_types::{
    Append, AppendError, Appended, Head, IoFailure, Position, ReadError, Timestamp, Version, limits,
};
use smallvec::SmallVec;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Reserved and not yet durable bytes beyond which appends wait: what repair looks through is bounded by it.
pub(crate) const NOT_DURABLE_BYTES_MAX: u64 = 64 << 20;
/// Closed segments that may wait to be sealed; with more, appends that need a new segment wait.
pub(crate) const CLOSED_SEGMENTS_MAX: usize = 2;

/// How long an append that waits for the device sleeps between two looks, should nothing wake it.
const BACKLOG_LOOK: Duration = Duration::from_millis(100);

/// Appends that are placed under one lock, at the most, and bytes of their frames, about: others wait meanwhile.
const RUN_APPENDS_MAX: usize = 32;
const RUN_BYTES_MAX: usize = 256 << 10;

/// Why a batch did not get its place at once.
enum Obstacle {
    /// Heads have to be looked up in sealed segments.
    Cold(SealedView),
    /// These streams (by ordinal) already have events of these versions, which the batch would add: it may be a
    /// repeat, or else fails with this.
    Occupied { places: Vec<(usize, u64)>, otherwise: AppendError },
    /// Whether an id is known cannot be said under the lock.
    Unknown(Unknown),
    /// This one of the conditions on queries cannot be judged under the lock.
    Unjudged(usize, Unjudged),
    /// Too much is on its way to the device.
    Backlog,
    /// There is no segment yet for so many bytes.
    NoRoom(u64),
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

/// Appends, waiting where it must.
pub(crate) fn append(core: &Shared<Core>, append: &Append<'_>) -> Result<Ticket, AppendError> {
    append_promised(core, append, 0).map(|(ticket, _)| ticket)
}

/// The same, into room of which so much was promised; also says what the append's snapshot is of.
pub(super) fn append_promised(
    core: &Shared<Core>,
    append: &Append<'_>,
    promised: u64,
) -> Result<(Ticket, Option<SnapshotOf>), AppendError> {
    fetch_streams(core, slice::from_ref(append));
    let mut prepared = [Prepared::new(core, append)?];
    prepared[0].promised = promised;
    let mut answer = None;
    append_prepared(core, slice::from_ref(append), &mut prepared, &mut |outcome| answer = Some(outcome));
    let ticket = answer.expect("each append is answered")?;
    Ok((ticket, prepared[0].snapshot_of))
}

/// Asks for what finding the first stream of each will touch: encoding takes as long as memory does. Others are asked for
/// once all streams of an append are known.
fn fetch_streams(core: &Core, appends: &[Append<'_>]) {
    let events = appends.iter().filter_map(|append| append.events.first());
    events.for_each(|event| core.fetch_slots(core.hash(&event.stream)));
}

/// Appends one after the other, as [`append`] does, but many under one lock.
pub(crate) fn append_each(
    core: &Shared<Core>,
    appends: &[Append<'_>],
    answer: &mut dyn FnMut(Result<Ticket, AppendError>),
) {
    let mut rest = appends;
    while !rest.is_empty() {
        let (mut run, failed) = prepare_run(core, rest);
        let (now, later) = rest.split_at(run.len());
        append_prepared(core, now, &mut run, answer);
        rest = match failed {
            Some(error) => {
                answer(Err(error));
                &later[1..]
            }
            None => later,
        };
    }
}

/// Prepares the first of these, as many as are to be placed under one lock. Also returns what is wrong with the next one.
fn prepare_run<'a>(core: &Core, appends: &'a [Append<'_>]) -> (Vec<Prepared<'a>>, Option<AppendError>) {
    let count = appends.len().min(RUN_APPENDS_MAX);
    let (mut run, mut bytes) = (Vec::with_capacity(count), 0);
    fetch_streams(core, &appends[..count]);
    for append in &appends[..count] {
        match Prepared::new(core, append) {
            Ok(prepared) => {
                bytes += prepared.frame.len();
                run.push(prepared);
            }
            Err(error) => return (run, Some(error)),
        }
        if bytes > RUN_BYTES_MAX {
            break;
        }
    }
    (run, None)
}

/// Appends one after the other, as many under one lock as nothing stands in the way of.
fn append_prepared(
    core: &Shared<Core>,
    mut appends: &[Append<'_>],
    mut prepared: &mut [Prepared<'_>],
    answer: &mut dyn FnMut(Result<Ticket, AppendError>),
) {
    let _guard = PoisonOnPanic::new(core);
    let mut failures_seen = None;
    while !appends.is_empty() {
        let durable_before = core.watermark.position();
        let mut state = core.state.lock();
        if let Err(error) = refuse_if_closed(core) {
            drop(state);
            return appends.iter().for_each(|_| answer(Err(error.clone())));
        }
        fetch_known(&state, prepared);
        let (unfilled, obstacle) = place_run(core, &mut state, appends, prepared);
        if !unfilled.steps.is_empty() {
            let count = unfilled.steps.len();
            finish(core, &prepared[..count], unfilled, state.release(), answer);
            (appends, prepared) = (&appends[count..], &mut prepared[count..]);
            failures_seen = None;
            continue;
        }
        // `Some`: the answer, without a place.
        let outcome = match obstacle.expect("nothing was placed") {
            Obstacle::Rejected(_) => unreachable!("a rejection is an answer"),
            Obstacle::Cold(view) => {
                let cold: Vec<_> =
                    prepared.iter().map(|prepared| cold_streams(&mut state, prepared)).collect();
                drop(state);
                outside::look_up_each(core, prepared, &cold, &view).map_err(failed_read).map(|()| None)
            }
            Obstacle::Occupied { places, otherwise } => {
                let assigned = last_assigned(&state);
                drop(state);
                outside::answer_occupied(core, &appends[0], &prepared[0], &places, otherwise, assigned)
                    .map(Some)
            }
            Obstacle::Unknown(unknown) => {
                let assigned = last_assigned(&state);
                drop(state);
                outside::look_for_ids(core, &appends[0], &mut prepared[0], &unknown, assigned)
            }
            Obstacle::Unjudged(place, unjudged) => {
                let assigned = last_assigned(&state);
                drop(state);
                outside::judge(core, &mut prepared[0].boundaries[place], &unjudged, assigned)
            }
            Obstacle::Backlog => {
                drop(state);
                core.watermark.wait_beyond(durable_before, BACKLOG_LOOK);
                Ok(None)
            }
            Obstacle::NoRoom(bytes) => wait_for_room(core, state, bytes, &mut failures_seen).map(|()| None),
        };
        if let Some(outcome) = outcome.transpose() {
            answer(outcome);
            (appends, prepared) = (&appends[1..], &mut prepared[1..]);
            failures_seen = None;
        }
    }
}

/// Waits until there may be room for so many bytes of frames. `failures_seen`: how often making room had failed when the
/// append came.
pub(super) fn wait_for_room(
    core: &Core,
    mut state: GateGuard<'_, State>,
    bytes: u64,
    failures_seen: &mut Option<(u64, u64)>,
) -> Result<(), AppendError> {
    state.spare.want(bytes);
    core.room_awaited.store(true, Ordering::Release);
    let (spares_seen, seals_seen) =
        *failures_seen.get_or_insert((state.spare.failures(), state.seal_failures));
    core.work.ring();
    state = core.room.wait(state);
    // Failures from before this append began say nothing: they are tried again for it.
    let debt = state.segments.closed.len() >= CLOSED_SEGMENTS_MAX;
    let failed_again = debt && state.seal_failures > seals_seen;
    let unsealed = state.seal_failure.as_ref().filter(|_| failed_again);
    match state.spare.failure_after(spares_seen).or(unsealed) {
        Some(failure) => Err(no_room(failure.clone())),
        None => Ok(()),
    }
}

/// Appends one after the other, as long as that needs no waiting and no disk; then says why not.
pub(crate) fn try_append_each(
    core: &Shared<Core>,
    appends: &[Append<'_>],
    answer: &mut dyn FnMut(Result<Ticket, AppendError>),
) -> Result<(), TryAppendError> {
    let mut rest = appends;
    while !rest.is_empty() {
        let (mut run, failed) = prepare_run(core, rest);
        let _guard = PoisonOnPanic::new(core);
        let mut state = core.state.lock();
        refuse_if_closed(core).map_err(TryAppendError::Failed)?;
        fetch_known(&state, &run);
        let (unfilled, obstacle) = place_run(core, &mut state, &rest[..run.len()], &mut run);
        let placed = unfilled.steps.len();
        if placed > 0 {
            finish(core, &run[..placed], unfilled, state.release(), answer);
        } else {
            drop(state);
        }
        if let Some(obstacle) = obstacle {
            return Err(why_not(core, &obstacle));
        }
        rest = &rest[placed..];
        if let Some(error) = failed {
            answer(Err(error));
            rest = &rest[1..];
        }
    }
    Ok(())
}

/// What stands in the way of an append that must not wait.
fn why_not(core: &Core, obstacle: &Obstacle) -> TryAppendError {
    match obstacle {
        Obstacle::Rejected(_) => unreachable!("a rejection is an answer"),
        Obstacle::Cold(_) | Obstacle::Occupied { .. } | Obstacle::Unknown(_) | Obstacle::Unjudged(..) => {
            TryAppendError::Cold
        }
        Obstacle::Backlog => TryAppendError::Busy,
        Obstacle::NoRoom(bytes) => {
            let mut state = core.state.lock();
            state.spare.want(*bytes);
            core.work.ring();
            match state.spare.failure() {
                Some(failure) => TryAppendError::Failed(no_room(failure.clone())),
                None => TryAppendError::Busy,
            }
        }
    }
}

/// Asks for what placing several will touch: one after the other, each would be waited for.
fn fetch_known(state: &State, prepared: &[Prepared<'_>]) {
    if prepared.len() > 1 {
        for prepared in prepared {
            prepared.streams.iter().for_each(|key| state.heads.fetch(key.hash));
            prepared.ids_hashes.iter().for_each(|&hash| state.recent_ids.fetch(half(hash)));
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

/// What came of appends that must not wait.
#[derive(Debug)]
pub struct TriedAppends {
    /// What [`Store::append`](crate::Store::append) would have returned, for each of the first so many.
    pub answers: Vec<Result<Ticket, AppendError>>,
    /// Why the next one, and those behind it, are not written; `None`: there is none.
    pub stopped: Option<TryAppendError>,
}

pub(super) fn refuse_if_closed(core: &Core) -> Result<(), AppendError> {
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

pub(super) fn failed_read(error: ReadError) -> AppendError {
    match error {
        ReadError::Damage(damage) => AppendError::Damage(damage),
        ReadError::Io(failure) => AppendError::Io(failure),
        ReadError::Input(error) => AppendError::Input(error),
        _ => AppendError::Io(IoFailure::new("read", "", std::io::Error::other(error.to_string()))),
    }
}

/// All batches assigned so far: what a rejection was judged against.
pub(super) fn last_assigned(state: &State) -> (u64, u64) {
    (state.next_batch, state.tail.as_ref().map_or(0, |tail| tail.last_group))
}

/// Gives batches their places, in their order, or says no, up to the first that something stands in the way of.
fn place_run<'a>(
    core: &'a Core,
    state: &mut State,
    appends: &[Append<'_>],
    prepared: &mut [Prepared<'_>],
) -> (Unfilled<'a>, Option<Obstacle>) {
    let mut unfilled = Unfilled { core, steps: Steps::with_capacity(prepared.len()) };
    for (append, prepared) in appends.iter().zip(prepared) {
        unfilled.steps.push(match place(core, state, append, prepared) {
            Ok(step) => step,
            Err(Obstacle::Rejected(error)) => {
                let (batch, group) = last_assigned(state);
                Step { batch, group, decided: Decided::Rejected(error), reserved: None, wake: false }
            }
            Err(obstacle) => return (unfilled, Some(obstacle)),
        });
    }
    (unfilled, None)
}

/// Judges the batch against every batch before it and gives it its place. Changes nothing unless all holds.
fn place(
    core: &Core,
    state: &mut State,
    append: &Append<'_>,
    prepared: &mut Prepared<'_>,
) -> Result<Step, Obstacle> {
    ids::check(state, core.settings.id_window, append, prepared).map_err(unknown_ids)?;
    let heads = known_heads(state, prepared)?;
    judge(prepared, &heads)?;
    for (place, boundary) in prepared.boundaries.iter_mut().enumerate() {
        boundary.judge(state).map_err(|unjudged| match unjudged {
            Unjudged::Rejected(error) => Obstacle::Rejected(error),
            unjudged => Obstacle::Unjudged(place, unjudged),
        })?;
    }
    cursors::judge(state, append).map_err(Obstacle::Rejected)?;
    let time = decide_time(append, prepared, state.last_time)?;
    make_room(core, state, prepared.frame.len() as u64, prepared.promised)?;
    Ok(assign(core, state, append, prepared, &heads, time))
}

fn unknown_ids(unknown: Unknown) -> Obstacle {
    match unknown {
        Unknown::Forgotten { since, next } => Obstacle::Rejected(AppendError::TooLateToRepeat {
            since: Position::new(since),
            next: Position::new(next),
        }),
        unknown => Obstacle::Unknown(unknown),
    }
}

/// The heads of all streams that are written or conditions are about, in that order.
fn known_heads(state: &mut State, prepared: &Prepared<'_>) -> Result<Heads, Obstacle> {
    state.make_room_for_heads(prepared.streams.len());
    let mut heads = Heads::with_capacity(prepared.streams.len());
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
            Known::Cold => return Err(Obstacle::Cold(SealedView::new(state))),
        }
    }
    Ok(heads)
}

/// The streams, by their places, whose heads have to be looked up in sealed segments.
fn cold_streams(state: &mut State, prepared: &Prepared<'_>) -> Vec<usize> {
    let is_cold = |&place: &usize| {
        let known = lookup::head_in_memory(&mut state.heads, prepared.streams[place], prepared.found[place]);
        known == Known::Cold
    };
    (0..prepared.streams.len()).filter(is_cold).collect()
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
    if prepared.events == 0 {
        // Events may still be given an earlier time than now.
        return Ok((last_time, last_time));
    }
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

/// Makes sure that a frame of this length fits, in this segment or the next. `promised`: how much room was promised to it.
fn make_room(core: &Core, state: &mut State, frame_bytes: u64, promised: u64) -> Result<(), Obstacle> {
    let tail = state.tail.as_ref().expect("only a store open for writing appends");
    let not_durable = tail.reserved_total - core.durable_total.load(Ordering::Acquire);
    let is_too_much = not_durable + frame_bytes > NOT_DURABLE_BYTES_MAX || is_memory_short();
    if not_durable > 0 && is_too_much {
        return Err(Obstacle::Backlog);
    }
    // Beside what was promised to others.
    let bytes = frame_bytes + state.promised - promised;
    if has_room(core, state, bytes) { Ok(()) } else { Err(Obstacle::NoRoom(bytes)) }
}

/// Whether so many bytes of frames fit the active segment, which the next one becomes where they do not.
pub(super) fn has_room(core: &Core, state: &mut State, bytes: u64) -> bool {
    let tail = state.tail.as_ref().expect("only a store open for writing appends");
    let index = state.segments.active.as_ref().map(|active| &active.index);
    if tail.fits(bytes) && index.is_some_and(MemoryIndex::has_room) {
        return true;
    }
    if state.segments.closed.len() >= CLOSED_SEGMENTS_MAX || !state.spare.holds(bytes) {
        return false;
    }
    super::roll::roll(core, state);
    true
}

/// Nothing can fail any more: numbers, positions, versions and time are given, and the index knows the events.
fn assign(
    core: &Core,
    state: &mut State,
    append: &Append<'_>,
    prepared: &mut Prepared<'_>,
    heads: &[KnownHead],
    (time, last_time): (u64, u64),
) -> Step {
    let (number, first_position) = (state.next_batch, state.next_position);
    let next_position = first_position + u64::from(prepared.events);
    let batch_bytes = &mut prepared.frame[frame::FRAME_FIXED_BYTES..];
    cursors::set(core, state, append, batch_bytes);
    let active = state.segments.active.as_mut().expect("only a store open for writing appends");
    let tail = state.tail.as_mut().expect("only a store open for writing appends");
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
        let position = first_position + u64::from(event);
        active.index.push_event(numbers[ordinal], position);
        let id = prepared.ids_hashes[event as usize];
        active.index.push_id(id, position);
        state.recent_ids.push(half(id), position);
        prepared.keys_of(event).iter().for_each(|&hash| active.index.push_key(hash, position));
    }
    for (ordinal, key) in prepared.streams[..prepared.written].iter().enumerate() {
        let (number, head) = (numbers[ordinal], active.index.head(numbers[ordinal]));
        match heads[ordinal].entry {
            Some(entry) => state.heads.set(entry, head, number),
            None => state.heads.insert(key.hash, key.name, Some(head), Some(number)),
        }
    }
    let [of_heads, of_streams, of_keys, of_ids] = &core.whereabouts;
    state.heads.tell(of_heads);
    active.index.tell(of_streams, of_keys, of_ids);
    let reserved = tail.push(frame_bytes, frame_crc, number + 1, next_position);
    state.promised -= prepared.promised;
    if let Some(snapshot) = &append.snapshot {
        let last_version = |ordinal: usize| active.index.next_version(numbers[ordinal]) - 1;
        let decided = batch::Decided { epoch: core.epoch, number, first_position, time };
        let of = snapshots::of_batch(append, prepared, &snapshot.stream, decided, last_version);
        prepared.snapshot_of = Some(of);
    }
    let wake = tail.wants_wake();
    let last_ordinal = prepared.ordinals.last().map_or(0, |&ordinal| usize::from(ordinal));
    let last_stream = numbers.get(last_ordinal).copied();
    let last_version = last_stream.map_or(0, |number| active.index.next_version(number) - 1);
    state.next_batch = number + 1;
    state.next_position = next_position;
    state.last_time = last_time;
    if state.spare.is_due(tail.offset, tail.segment.header.capacity) {
        core.work.ring();
    }
    let appended = Appended {
        positions: Position::new(first_position)..Position::new(next_position),
        last_version: Version::new(last_version),
        repeated: false,
    };
    let (batch, group, decided) = (number + 1, reserved.group, Decided::Written(appended));
    Step { batch, group, decided, reserved: Some(reserved), wake }
}
