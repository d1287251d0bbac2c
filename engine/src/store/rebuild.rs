//! Indexes of sealed segments: used, or made anew from the log where they are missing or damaged. A missing
//! index never means that something is absent.

use super::core::{Core, SealedSegment};
use crate::disk::maps::Advice;
use crate::format::batch::View;
use crate::format::frame::Envelope;
use crate::format::index::BadBlock;
use crate::format::segment::{FRAMES_START, SegmentHeader};
use crate::index::keys;
use crate::index::memory::MemoryIndex;
use crate::index::sealed::Loaded;
use crate::log::scan::{Frames, Place};
use annals_types::{DamageKind, ReadError};
use bytes::Bytes;

/// Calls `look` with the segment's index; where the index turns out to be damaged, once more with a new one.
pub(crate) fn with_index<T>(
    core: &Core,
    segment: &SealedSegment,
    look: impl Fn(&Loaded) -> Result<T, BadBlock>,
) -> Result<T, ReadError> {
    if let Ok(found) = segment.index.look(core.disk.as_ref(), &look) {
        return Ok(found);
    }
    // One at a time: the others find what the first has made, and nobody takes a file that is being made for damaged.
    let _one = segment.index.making.lock();
    if let Ok(found) = segment.index.look(core.disk.as_ref(), &look) {
        return Ok(found);
    }
    rebuild(core, segment)?;
    segment.index.look(core.disk.as_ref(), &look).map_err(|bad| damaged_index(segment, bad))
}

fn damaged_index(segment: &SealedSegment, bad: BadBlock) -> ReadError {
    crate::log::damage_at(&segment.index.path, bad.offset, bad.kind, None).into()
}

/// Makes the index anew from the log, uses it, and tries to write it.
fn rebuild(core: &Core, segment: &SealedSegment) -> Result<(), ReadError> {
    let bytes = segment.log.bytes(core.disk.as_ref(), Advice::Scan)?;
    let seal = &segment.log.seal;
    let frames = Frames {
        bytes: &bytes,
        store: core.store,
        seed: segment.log.seed(),
        limit: seal.end,
        until_batch: u64::MAX,
    };
    let mut index = MemoryIndex::new(core.store, seal.first_position);
    let mut place = Place {
        offset: FRAMES_START,
        crc: SegmentHeader::crc(&bytes),
        batch: seal.first_batch,
        position: seal.first_position,
        epoch: 0,
        time: 0,
    };
    let mut holes = Vec::new();
    loop {
        let walked = frames.walk(place, |envelope, view| add(&mut index, envelope, view));
        let (behind, wrong) =
            walked.map_err(|kind| crate::log::damage_at(&segment.log.path, place.offset, kind, None))?;
        // Over damage, to the next good frame: positions between are missing from the index, and reading them says so.
        let Some(kind) = wrong else { break };
        let next = frames.resume(behind.offset + 8).filter(|next| next.position >= behind.position);
        let until = next.map_or(seal.next_position, |next| next.position);
        if until > behind.position {
            let positions = Some((behind.position, until - 1));
            holes.push(crate::log::damage_at(&segment.log.path, behind.offset, kind, positions));
        }
        match next {
            Some(next) => place = next,
            None => break,
        }
    }
    let encoded = Bytes::from(index.encode(segment.index.of()));
    // Only a writer writes; without the file, the index is in memory, and made anew when the store is opened again.
    if core.marker.is_some() && holes.is_empty() && core.disk.write_new(&segment.index.path, &encoded).is_ok()
    {
        segment.index.reload();
        return Ok(());
    }
    segment.index.replace(encoded, holes).map_err(|bad| damaged_index(segment, bad))
}

/// Notes a frame and its events, which were verified.
pub(crate) fn add(index: &mut MemoryIndex, envelope: &Envelope, view: &View<'_>) -> Result<(), DamageKind> {
    // All of it, or nothing: what an index knows can be read.
    for ordinal in 0..view.header.events {
        view.event(ordinal)?;
    }
    for stream in 0..view.header.streams {
        view.name(stream)?;
    }
    index.push_frame(view.header.first_position, envelope.offset);
    let mut numbers = Vec::with_capacity(usize::from(view.header.streams));
    for stream in 0..view.header.streams {
        let name = view.name(stream)?;
        let number = index.stream_for(index.hash(name), name, view.first_version(stream));
        // Versions that a damaged frame held: they lead to where it was, and reading them says so.
        while index.next_version(number) < view.first_version(stream) {
            index.push_event(number, view.header.first_position.saturating_sub(1));
        }
        numbers.push(number);
    }
    for ordinal in 0..view.header.events {
        let stream = usize::from(view.stream_of(ordinal)?);
        let number = *numbers.get(stream).ok_or(DamageKind::Malformed)?;
        let position = view.header.first_position + u64::from(ordinal);
        index.push_event(number, position);
        let id = keys::of_stored(index.store(), view, ordinal, |hash| index.push_key(hash, position))?;
        index.push_id(id, position);
    }
    Ok(())
}
