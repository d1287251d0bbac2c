//! Making spans, and indexes that are missing: in the background, from what is sealed. Until they are there, answers
//! take longer and are the same.

use super::core::{Core, is_full};
use super::sealed::{SealedSegment, SealedSegments};
use super::{rebuild, recent};
use crate::format::span::{PARTS, Parts};
use crate::index::span::Span;
use crate::log::SPAN_TEMPORARY_NAME;
use crate::threads::stand_back;
use annals_types::{IoFailure, ReadError};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether something is to be made.
const PERIOD: Duration = Duration::from_millis(500);
/// Looks after a failure that make nothing, unless a segment was sealed meanwhile: some thirty seconds.
const LOOKS_PASSED_OVER: u32 = 60;
/// Largest filter of a span, in bytes: it is made in memory. What would need a larger one has none.
const SPAN_BYTES_MAX: usize = 64 << 20;
/// How far the thread stands back behind those that append. No further: who needs an index that it makes waits for it.
const NICENESS: i32 = 5;

/// What came of making something.
enum Made<T> {
    Done(T),
    /// It is not to be: too large, or what it would be made of is damaged.
    Never,
    /// The store closes.
    Interrupted,
}

/// Makes what is missing until the store closes.
pub(crate) fn keep(core: &Arc<Core>) {
    stand_back(NICENESS);
    // Whatever an earlier writer left half done.
    let _ = core.disk.remove(&core.dir.join(SPAN_TEMPORARY_NAME));
    let (mut indexed, mut failed_at, mut looks) = (0, None, 0);
    loop {
        let sealed = Arc::clone(&core.state.lock().segments.sealed);
        looks += 1;
        // What failed is not tried over and over.
        if failed_at != Some(sealed.len()) || looks > LOOKS_PASSED_OVER {
            let made = make_indexes(core, &sealed, &mut indexed).and_then(|()| make_spans(core, &sealed));
            failed_at = made.is_err().then_some(sealed.len());
            looks = 0;
        }
        // What is damaged will be told to who reads it.
        let _ = recent::fill(core);
        let state = core.state.lock();
        if ends(core) {
            return;
        }
        drop(core.work.wait_for(state, PERIOD));
    }
}

fn ends(core: &Core) -> bool {
    core.is_closing() || core.watermark.poison().is_some()
}

/// Sees to it that every segment from the one at `next` on has an index.
fn make_indexes(core: &Core, sealed: &SealedSegments, next: &mut usize) -> Result<(), IoFailure> {
    while let Some(segment) = sealed.get(*next) {
        if ends(core) {
            return Ok(());
        }
        // What of it is damaged will be told to who reads it.
        if !segment.index.is_usable(core.disk.as_ref())
            && rebuild::with_index(core, segment, |_| Ok(())).is_ok()
            && segment.index.is_in_memory()
            && segment.index.holes().is_empty()
        {
            // It could not be written: made one after the other, the others would fill the memory.
            let failed = std::io::Error::other("an index could not be written");
            return Err(IoFailure::new("write", &segment.index.path, failed));
        }
        *next += 1;
    }
    Ok(())
}

fn make_spans(core: &Core, sealed: &SealedSegments) -> Result<(), IoFailure> {
    let mut outcome = Ok(());
    for (span, segments) in sealed.spans() {
        if ends(core) {
            break;
        }
        if !span.is_wanted(core.disk.as_ref()) {
            continue;
        }
        match content(core, span, segments, || !ends(core)) {
            Ok(Made::Done(content)) => match write(core, span, &content) {
                Err(failure) if is_full(&failure.source) => return Err(failure),
                written => outcome = outcome.and(written),
            },
            Ok(Made::Never) | Err(ReadError::Damage(_)) => span.give_up(),
            Ok(Made::Interrupted) => break,
            Err(error) => {
                let failure = IoFailure::new("read", &span.path, std::io::Error::other(error.to_string()));
                outcome = outcome.and(Err(failure));
            }
        }
    }
    outcome
}

/// Writes a span. It is believed by its checksums and its chain alone: however far this gets, nothing has to be undone.
fn write(core: &Core, span: &Span, content: &[u8]) -> Result<(), IoFailure> {
    let temporary = core.dir.join(SPAN_TEMPORARY_NAME);
    let written = core
        .disk
        .write_new(&temporary, content)
        .and_then(|()| core.disk.rename(&temporary, &span.path))
        .and_then(|()| core.disk.sync_dir(&core.dir));
    if let Err(error) = written {
        // It takes room that may be needed.
        let _ = core.disk.remove(&temporary);
        return Err(IoFailure::new("write", &span.path, error));
    }
    span.reload();
    Ok(())
}

/// What the file of a span must hold, if it can be told without making any index anew.
pub(crate) fn expected_content(core: &Core, span: &Span, segments: &[Arc<SealedSegment>]) -> Option<Vec<u8>> {
    let is_there = |segment: &Arc<SealedSegment>| segment.index.is_usable(core.disk.as_ref());
    match segments.iter().all(is_there).then(|| content(core, span, segments, || true)) {
        Some(Ok(Made::Done(content))) => Some(content),
        _ => None,
    }
}

fn content(
    core: &Core,
    span: &Span,
    segments: &[Arc<SealedSegment>],
    goes_on: impl Fn() -> bool,
) -> Result<Made<Vec<u8>>, ReadError> {
    let parts = segments.chunks(segments.len() / PARTS);
    let mut most = 0;
    for segments in parts.clone() {
        let mut hashes = 0;
        for segment in segments {
            if !goes_on() {
                return Ok(Made::Interrupted);
            }
            hashes += rebuild::with_index(core, segment, |index| Ok(index.layout.hash_count()))?;
        }
        most = most.max(hashes);
    }
    if Parts::bytes_for(most) > SPAN_BYTES_MAX {
        return Ok(Made::Never);
    }
    let filter = RefCell::new(Parts::with_room_for(most));
    for (part, segments) in parts.enumerate() {
        for segment in segments {
            if !goes_on() {
                return Ok(Made::Interrupted);
            }
            // Should the index turn out to be damaged on the way, some are added twice, which changes nothing.
            let insert = |hash| filter.borrow_mut().insert(part, hash);
            rebuild::with_index(core, segment, |index| index.layout.each_hash(&index.bytes, insert))?;
            if !segment.index.holes().is_empty() {
                return Ok(Made::Never);
            }
        }
    }
    Ok(Made::Done(filter.into_inner().encode(core.store, &span.of)))
}
