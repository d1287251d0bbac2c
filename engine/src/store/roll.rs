//! Rolling: the active segment is closed and the spare becomes the active one.

use super::core::{Active, Closed, Core, State};
use super::keeper::ReadySpare;
use crate::format::segment::{FRAMES_START, SegmentHeader};
use crate::index::memory::MemoryIndex;
use crate::log::unsealed::Unsealed;
use std::sync::Arc;

/// Goes on in the spare, which is ready and large enough. The writer makes its header durable before anything
/// in it, and after everything before it.
pub(crate) fn roll(core: &Core, state: &mut State) {
    let spare = state.spare.take().expect("the caller saw that it is ready");
    let tail = state.tail.as_mut().expect("only a store open for writing rolls");
    let header = SegmentHeader {
        ordinal: spare.ordinal,
        epoch: core.epoch,
        salt: spare.salt,
        first_batch: state.next_batch,
        first_position: state.next_position,
        previous_time: state.last_time,
        predecessor_end: tail.frames_end,
        predecessor_crc: tail.last_crc,
        capacity: spare.capacity,
    };
    let (end, last_crc) = (tail.frames_end, tail.last_crc);
    let block = header.encode(core.store);
    let log = begin(spare, header);
    tail.roll(Arc::clone(&log), FRAMES_START, block.clone(), SegmentHeader::crc(&block));
    let before = state.segments.active.take().expect("only a store open for writing rolls");
    let index = match state.spare_index.take() {
        Some(index) => index.begun_at(state.next_position),
        None => MemoryIndex::new(core.store, state.next_position),
    };
    state.segments.active = Some(Active { log, index });
    state.segments.closed.push_back(Arc::new(Closed {
        log: before.log,
        index: before.index,
        end,
        last_crc,
        next_batch: state.next_batch,
        next_position: state.next_position,
        greatest_time: state.last_time,
    }));
}

/// The spare as a segment with this header, which is yet to be written.
pub(crate) fn begin(spare: ReadySpare, header: SegmentHeader) -> Arc<Unsealed> {
    Arc::new(Unsealed::new(header, spare.path, spare.file, FRAMES_START))
}
