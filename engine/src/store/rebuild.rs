//! Indexes of sealed segments: used, or made anew from the log where they are missing or damaged. A missing
//! index never means that something is absent.

use super::core::Core;
use super::sealed::SealedSegment;
use crate::disk::maps::Advice;
use crate::format::batch::View;
use crate::format::frame::{Envelope, FRAME_BYTES_MIN};
use crate::format::index::BadBlock;
use crate::format::segment::{FRAMES_START, SegmentHeader};
use crate::index::keys;
use crate::index::memory::{MemoryIndex, StreamNumber};
use crate::index::sealed::Loaded;
use crate::log::scan::{Frames, Place};
use annals_types::{DamageKind, ReadError, limits};
use bytes::Bytes;
use hashbrown::HashSet;

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
    let mut without_events = vec![true; names.len()];
    events.iter().for_each(|&(stream, ..)| without_events[stream] = false);
    if without_events.contains(&true) || !is_behind(index, envelope, view) {
        return Err(DamageKind::Malformed);
    }
    let known = known_streams(index, view, &names).ok_or(DamageKind::Malformed)?;
    index.push_frame(view.header.first_position, envelope.offset);
    index.cursors.extend(cursors.into_iter().map(|(name, cursor)| (name.into(), cursor)));
    let mut numbers = Vec::with_capacity(names.len());
    for (stream, (name, (hash, known))) in (0..).zip(names.into_iter().zip(known)) {
        let number = known.unwrap_or_else(|| index.add_stream(hash, name, view.first_version(stream)));
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

/// Whether a frame can be where it is in its segment: behind all that is known of it, and with no more positions before it
/// than fit there.
fn is_behind(index: &MemoryIndex, envelope: &Envelope, view: &View<'_>) -> bool {
    let frames_before = envelope.offset / FRAME_BYTES_MIN as u64 + 1;
    let fit = frames_before.saturating_mul(limits::BATCH_EVENTS_MAX as u64);
    // Positions within a segment have 32 bits.
    let fit = fit.min(u64::from(u32::MAX - view.header.events));
    let before = view.header.first_position.checked_sub(index.first_position());
    before.is_some_and(|before| before >= index.events() && before <= fit)
}

/// The hash of each of a frame's streams, with its number if it is known. `None`: their versions do not go on from those that
/// are, but for what damage hides; and that has no more of them than there are positions missing.
fn known_streams(
    index: &MemoryIndex,
    view: &View<'_>,
    names: &[&str],
) -> Option<Vec<(u64, Option<StreamNumber>)>> {
    let mut missing = view.header.first_position - index.first_position() - index.events();
    let mut streams = Vec::with_capacity(names.len());
    for (stream, name) in (0..).zip(names) {
        let hash = index.hash(name);
        let known = index.find(hash, name);
        if let Some(number) = known {
            let hidden = view.first_version(stream).checked_sub(index.next_version(number))?;
            missing = missing.checked_sub(hidden)?;
        }
        streams.push((hash, known));
    }
    let is_each_named_once = names.len() < 2 || names.iter().collect::<HashSet<_>>().len() == names.len();
    is_each_named_once.then_some(streams)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::batch;
    use crate::format::frame::{self, FrameSeed};
    use annals_types::{Append, NewEvent, Uuid};

    const AT: u64 = 4096;

    /// Where a frame is, and what it says of its streams' versions.
    struct Said {
        offset: u64,
        first_position: u64,
        versions: [u64; 2],
    }

    /// Notes a frame of one event of each of these streams, of which each byte is one.
    fn note(index: &mut MemoryIndex, streams: &str, said: &Said) -> Result<(), DamageKind> {
        let names: Vec<String> = streams.chars().map(String::from).collect();
        let append: Append<'_> = names.iter().map(|name| NewEvent::new(name, "T")).collect();
        let ids = vec![Uuid::nil(); names.len()];
        let room = frame::FRAME_FIXED_BYTES;
        let mut bytes = batch::encode(&append, Uuid::nil(), [7; 16], &ids, room, Vec::new()).bytes;
        frame::wrap(&mut bytes, None);
        for (stream, version) in said.versions.into_iter().take(names.len()).enumerate() {
            batch::put_first_version(&mut bytes[room..], stream, version);
        }
        let decided = batch::Decided { epoch: 1, number: 0, first_position: said.first_position, time: 1 };
        note_as(index, bytes, said.offset, decided)
    }

    fn note_as(
        index: &mut MemoryIndex,
        mut bytes: Vec<u8>,
        offset: u64,
        decided: batch::Decided,
    ) -> Result<(), DamageKind> {
        let (room, seed) = (frame::FRAME_FIXED_BYTES, FrameSeed::new(5));
        let crc = batch::decide(&mut bytes[room..], decided);
        frame::place(&mut bytes, frame::Place { offset, previous: 0, not_durable: 0, seed }, crc);
        let envelope = Envelope::decode(&bytes, offset, seed).expect("it was just made");
        let header = envelope.header(&bytes).expect("it was just made");
        let body = envelope.body(&header, &bytes).expect("it was just made");
        add(index, &envelope, &frame::view(header, &bytes, &body).expect("it was just made"))
    }

    #[test]
    fn versions_that_damage_hides_are_no_more_than_positions_are_missing() {
        let said = |offset, first_position, version| Said { offset, first_position, versions: [version; 2] };
        let mut index = MemoryIndex::new(Uuid::nil(), 100);
        assert_eq!(note(&mut index, "a", &said(AT, 100, 7)), Ok(()));
        // Nine positions are missing, and ten versions.
        assert_eq!(note(&mut index, "a", &said(8192, 110, 18)), Err(DamageKind::Malformed));
        assert_eq!(note(&mut index, "a", &said(8192, 110, 7)), Err(DamageKind::Malformed), "it was there");
        assert_eq!((index.events(), index.frames().len()), (1, 1));
        assert_eq!(note(&mut index, "a", &said(8192, 110, 17)), Ok(()));
        assert_eq!((index.events(), index.frames().len()), (11, 2));
    }

    #[test]
    fn positions_that_cannot_be_in_a_segment_are_refused() {
        let mut index = MemoryIndex::new(Uuid::nil(), 100);
        let said = |offset, first_position| Said { offset, first_position, versions: [7; 2] };
        for first_position in [99, 100 + 300_000, 100 + (1 << 33), u64::MAX - 1] {
            assert_eq!(note(&mut index, "a", &said(AT, first_position)), Err(DamageKind::Malformed));
        }
        assert_eq!(note(&mut index, "a", &said(AT, 100 + 280_000)), Ok(()));
    }

    #[test]
    fn a_stream_that_is_named_twice_or_has_no_event_is_refused() {
        let mut index = MemoryIndex::new(Uuid::nil(), 100);
        let append: Append<'_> = [NewEvent::new("a", "T"), NewEvent::new("b", "T")].into_iter().collect();
        let room = frame::FRAME_FIXED_BYTES;
        let bytes = batch::encode(&append, Uuid::nil(), [7; 16], &[Uuid::nil(); 2], room, Vec::new()).bytes;
        let decided = batch::Decided { epoch: 1, number: 0, first_position: 100, time: 1 };
        let changed = |change: &dyn Fn(&mut [u8])| {
            let mut bytes = bytes.clone();
            let header_length = batch::header_bytes(&bytes[room..]);
            let (header, body) = bytes[room..].split_at_mut(header_length);
            change(body);
            batch::reseal_events(header, body);
            let _ = batch::reseal_header(header, body);
            frame::wrap(&mut bytes, None);
            bytes
        };
        // The names are behind the ends of two events and two names; the second event is the last 37 bytes.
        let twice = changed(&|body| body[17] = b'a');
        assert_eq!(note_as(&mut index, twice, AT, decided), Err(DamageKind::Malformed));
        let unused = changed(&|body| {
            let stream = body.len() - 37 + 12;
            body[stream] = 0;
        });
        assert_eq!(note_as(&mut index, unused, AT, decided), Err(DamageKind::Malformed));
        assert_eq!((index.events(), index.stream_count()), (0, 0));
        assert_eq!(note_as(&mut index, changed(&|_| {}), AT, decided), Ok(()));
        assert_eq!(
            note(&mut index, "ab", &Said { offset: 8192, first_position: 102, versions: [1, 1] }),
            Ok(())
        );
    }

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
