//! Indexes of sealed segments: used, or made anew from the log where they are missing or damaged. A missing
//! index never means that something is absent.

use super::core::Core;
use super::sealed::SealedSegment;
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

/// Notes a frame and its events, which were verified: all of it, or nothing, for what an index knows can be read.
pub(crate) fn add(index: &mut MemoryIndex, envelope: &Envelope, view: &View<'_>) -> Result<(), DamageKind> {
    let (mut events, mut keys) = (Vec::with_capacity(view.header.events as usize), Vec::new());
    for ordinal in 0..view.header.events {
        let (stream, id) = keys::of_stored(index.store(), view, ordinal, |hash| keys.push(hash))?;
        events.push((usize::from(stream), id, keys.len()));
    }
    let names = (0..view.header.streams).map(|stream| view.name(stream)).collect::<Result<Vec<_>, _>>()?;
    let cursors = view.cursors().collect::<Result<Vec<_>, _>>()?;
    index.push_frame(view.header.first_position, envelope.offset);
    index.cursors.extend(cursors.into_iter().map(|(name, cursor)| (name.into(), cursor)));
    let mut numbers = Vec::with_capacity(names.len());
    for (stream, name) in (0..).zip(names) {
        let number = index.stream_for(index.hash(name), name, view.first_version(stream));
        // Versions that a damaged frame held: they lead to where it was, and reading them says so.
        while index.next_version(number) < view.first_version(stream) {
            index.push_event(number, view.header.first_position.saturating_sub(1));
        }
        numbers.push(number);
    }
    let mut keys_start = 0;
    for (position, (stream, id, keys_end)) in (view.header.first_position..).zip(events) {
        index.push_event(numbers[stream], position);
        keys[keys_start..keys_end].iter().for_each(|&hash| index.push_key(hash, position));
        index.push_id(id, position);
        keys_start = keys_end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::batch;
    use crate::format::frame::{self, FrameSeed};
    use annals_types::{Append, NewEvent, Uuid};

    #[test]
    fn a_frame_that_cannot_be_taken_apart_is_not_half_in_the_index() {
        let append =
            Append::from([NewEvent::new("a", "T").tag("x"), NewEvent::new("b", "U").binary(vec![7; 50])]);
        let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let room = frame::FRAME_FIXED_BYTES;
        let mut bytes = batch::encode(&append, Uuid::nil(), [7; 16], &ids, room, Vec::new()).bytes;
        let plain = frame::wrap(&mut bytes, None);
        let decided = batch::Decided { epoch: 1, number: 0, first_position: 0, time: 1 };
        let crc = batch::decide(&mut bytes[room..], decided);
        let seed = FrameSeed::new(5);
        frame::place(&mut bytes, frame::Place { offset: 4096, previous: 0, not_durable: 0, seed }, crc);
        let envelope = Envelope::decode(&bytes, 4096, seed).expect("it was just made");
        let note = |bytes: &[u8]| {
            let mut index = MemoryIndex::new(Uuid::nil(), 0);
            let view = frame::own_view(bytes, plain.as_deref()).expect("its header is sound");
            let added = add(&mut index, &envelope, &view);
            (added, index.frames().len(), index.stream_count(), index.keys().count())
        };
        assert_eq!(note(&bytes), (Ok(()), 1, 2, 5));
        // In the second event.
        let last = envelope.body_range().end - 1;
        bytes[last] ^= 1;
        assert_eq!(note(&bytes), (Err(DamageKind::Checksum), 0, 0, 0));
    }
}
