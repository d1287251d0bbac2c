//! Making spans, and indexes that are missing: in the background, from what is sealed. Until they are there, answers
//! take longer and are the same.

use super::core::Core;
use super::rebuild;
use super::sealed::{SealedSegment, SealedSegments};
use crate::format::span::{PARTS, Parts};
use crate::index::span::Span;
use annals_types::{IoFailure, ReadError};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether something is to be made.
const PERIOD: Duration = Duration::from_millis(500);
/// Largest filter of a span, in bytes: it is made in memory. What would need a larger one has none.
const SPAN_BYTES_MAX: usize = 64 << 20;
/// What a new span is called until it is complete.
const SPAN_TEMPORARY_NAME: &str = "span.tmp";
/// How far the thread stands back behind all others.
const NICENESS: i32 = 19;

/// Makes what is missing until the store closes.
pub(crate) fn keep(core: &Arc<Core>) {
    // It is a matter of speed alone.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
    let (mut indexed, mut failed_at) = (0, None);
    loop {
        let sealed = Arc::clone(&core.state.lock().segments.sealed);
        // What could not be written is tried again after the next segment, not over and over.
        if failed_at != Some(sealed.len()) {
            failed_at = make_spans(core, &sealed).is_err().then_some(sealed.len());
        }
        for segment in &sealed[indexed..] {
            if ends(core) {
                return;
            }
            if !segment.index.is_usable(core.disk.as_ref()) {
                // What of it is damaged will be told to who reads it.
                let _ = rebuild::with_index(core, segment, |_| Ok(()));
            }
        }
        indexed = sealed.len();
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

fn make_spans(core: &Core, sealed: &SealedSegments) -> Result<(), IoFailure> {
    for (span, segments) in sealed.spans() {
        if ends(core) {
            break;
        }
        if !span.is_wanted(core.disk.as_ref()) {
            continue;
        }
        match content(core, span, segments) {
            Ok(Some(content)) => write(core, span, &content)?,
            // What cannot be read now is not read over and over, either.
            Ok(None) | Err(_) => span.give_up(),
        }
    }
    Ok(())
}

/// Writes a span. It is believed by its checksums and its chain alone: however far this gets, nothing has to be undone.
fn write(core: &Core, span: &Span, content: &[u8]) -> Result<(), IoFailure> {
    let temporary = core.dir.join(SPAN_TEMPORARY_NAME);
    core.disk
        .write_new(&temporary, content)
        .and_then(|()| core.disk.rename(&temporary, &span.path))
        .and_then(|()| core.disk.sync_dir(&core.dir))
        .map_err(|error| IoFailure::new("write", &span.path, error))?;
    span.reload();
    Ok(())
}

/// What a span's file holds. `None`: it would be too large, or would lack something.
pub(crate) fn content(
    core: &Core,
    span: &Span,
    segments: &[Arc<SealedSegment>],
) -> Result<Option<Vec<u8>>, ReadError> {
    let parts = segments.chunks(segments.len() / PARTS);
    let mut most = 0;
    for segments in parts.clone() {
        let mut hashes = 0;
        for segment in segments {
            hashes += rebuild::with_index(core, segment, |index| Ok(index.layout.hash_count()))?;
        }
        most = most.max(hashes);
    }
    if Parts::bytes_for(most) > SPAN_BYTES_MAX {
        return Ok(None);
    }
    let filter = RefCell::new(Parts::with_room_for(most));
    for (part, segments) in parts.enumerate() {
        for segment in segments {
            // Should the index turn out to be damaged on the way, some are added twice, which changes nothing.
            let insert = |hash| filter.borrow_mut().insert(part, hash);
            rebuild::with_index(core, segment, |index| index.layout.each_hash(&index.bytes, insert))?;
            if !segment.index.holes().is_empty() {
                return Ok(None);
            }
        }
    }
    Ok(Some(filter.into_inner().encode(core.store, &span.of)))
}
