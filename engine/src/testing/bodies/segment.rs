//! A segment: its header, its frames, its seal, and the index that is made of it.

use super::{batch as batches, resealed};
use crate::format::batch::View;
use crate::format::digest::BatchDigests;
use crate::format::frame::{Envelope, FrameSeed};
use crate::format::index::{IndexOf, Layout};
use crate::format::prelude;
use crate::format::segment::{FRAMES_START, Seal, SegmentHeader, stated_ordinal};
use crate::format::{BLOCK_BYTES, batch, frame};
use crate::index::memory::MemoryIndex;
use crate::log::scan::{Frames, Place};
use crate::store::rebuild;
use crate::{Append, DamageKind, Uuid};

/// What a seal begins with.
const SEAL_MAGIC: &[u8] = b"annalssl";

/// Takes bytes for the segment of the store that they say they are. Returns the number of good frames.
#[must_use]
pub fn segment(bytes: &[u8]) -> usize {
    let sealed = resealed(bytes, reseal);
    for bytes in [bytes, &sealed[..]] {
        check_header(bytes);
        blocks_of_seals(bytes).for_each(|at| check_seal(&bytes[at..]));
    }
    scan_closely(bytes).max(scan_closely(&sealed))
}

/// Makes the checksums right, of the header, of all frames that follow one another, and of seals; and ties frames to their
/// places.
pub(super) fn reseal(bytes: &mut [u8]) {
    prelude::reseal(bytes);
    let seals: Vec<usize> = blocks_of_seals(bytes).collect();
    seals.into_iter().for_each(|at| prelude::reseal(&mut bytes[at..]));
    let Some(header) = header_of(bytes) else { return };
    let seed = FrameSeed::new(header.salt);
    let (mut end, mut previous) = (FRAMES_START, SegmentHeader::crc(bytes));
    loop {
        let begins_at = |&offset: &u64| {
            usize::try_from(offset)
                .is_ok_and(|at| bytes.get(at..).is_some_and(|rest| rest.starts_with(&frame::FRAME_MAGIC)))
        };
        let Some(offset) = frame::candidates(end).into_iter().find(begins_at) else { return };
        let rest = &mut bytes[crate::format::to_usize(offset)..];
        let Some((crc, length)) = frame::reseal(rest, offset, previous, seed) else { return };
        (end, previous) = (offset + length, crc);
    }
}

fn header_of(bytes: &[u8]) -> Option<SegmentHeader> {
    SegmentHeader::decode(bytes, stated_ordinal(bytes), prelude::stated_store(bytes)).ok()
}

fn blocks_of_seals(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let blocks = (0..bytes.len()).step_by(BLOCK_BYTES);
    blocks.filter(|&at| bytes[at..].starts_with(SEAL_MAGIC))
}

fn check_header(bytes: &[u8]) {
    if let Some(header) = header_of(bytes) {
        let store = prelude::stated_store(bytes);
        assert_eq!(SegmentHeader::decode(&header.encode(store), header.ordinal, store), Ok(header));
    }
}

fn check_seal(block: &[u8]) {
    let store = prelude::stated_store(block);
    if let Ok(seal) = Seal::decode(block, store) {
        assert!(seal.first_batch <= seal.next_batch && seal.first_position <= seal.next_position);
        assert_eq!(Seal::decode(&seal.encode(store), store), Ok(seal));
    }
}

/// Scans `bytes` as the segment of the store that they say they are: by its header if that is intact, else as frames
/// of a segment with salt 0 that begin at byte 0. Returns the number of good frames, those behind damage included.
#[must_use]
pub fn scan_bytes(bytes: &[u8]) -> usize {
    scan(bytes, |_, view| {
        for ordinal in 0..view.header.events {
            let _ = (view.event(ordinal), view.time(ordinal));
        }
        for stream in 0..view.header.streams {
            let _ = view.name(stream);
        }
        let _: Vec<u64> = view.versions();
        BatchDigests::default().one(view).map(drop)
    })
}

/// The same; asserts what must hold of what is good, and of the index that is made of it.
fn scan_closely(bytes: &[u8]) -> usize {
    let store = prelude::stated_store(bytes);
    let first_position = header_of(bytes).map_or(0, |header| header.first_position);
    let mut index = MemoryIndex::new(store, first_position);
    let count = scan(bytes, |envelope, view| {
        let _ = batches::check(view);
        rebuild::add(&mut index, envelope, view)
    });
    check_index(&index, store);
    count
}

fn scan(bytes: &[u8], mut visit: impl FnMut(&Envelope, &View<'_>) -> Result<(), DamageKind>) -> usize {
    let header = header_of(bytes);
    let mut place = match &header {
        Some(header) => Place::first(header, SegmentHeader::crc(bytes)),
        None => Place { offset: 0, crc: 0, batch: 0, position: 0, epoch: 0, time: 0 },
    };
    debug_assert!(header.is_none() || place.offset == FRAMES_START);
    let (store, seed) =
        (prelude::stated_store(bytes), FrameSeed::new(header.map_or(0, |header| header.salt)));
    let frames = Frames { bytes, store, seed, limit: bytes.len() as u64, until_batch: u64::MAX };
    let mut count = 0;
    loop {
        // Behind what was visited: of what was good and not wanted, the rest is looked at by itself.
        let (mut offset, mut position) = (place.offset, place.position);
        let walked = frames.walk(place, |envelope, view| {
            count += 1;
            debug_assert!(frame::candidates(envelope.offset)[0] == envelope.offset);
            visit(envelope, view)?;
            (offset, position) = (envelope.offset + envelope.frame_bytes(), view.header.next_position());
            Ok::<(), DamageKind>(())
        });
        debug_assert!(walked.is_err() || walked.is_ok_and(|(behind, _)| behind.offset == offset));
        let _ = frames.witnessed(offset);
        match frames.resume(offset + 1) {
            Some(next) if next.offset > place.offset && next.position >= position => place = next,
            _ => return count,
        }
    }
}

/// An index of whatever was read can be made, and is one.
fn check_index(index: &MemoryIndex, store: Uuid) {
    let of = IndexOf { ordinal: 1, salt: 1, first_position: index.first_position(), last_crc: 0 };
    let bytes = index.encode(of);
    let layout = Layout::decode(&bytes, store, of).expect("what was encoded is decoded");
    assert_eq!(layout.frames(), index.frames().len());
    for (_, number, _) in index.streams() {
        assert!(index.head(number).position.get() >= index.first_position());
    }
}

/// A segment of a store with the nil id that holds these batches, each to a stream of its own versions from 0.
/// What [`segment`] takes apart.
#[must_use]
pub fn segment_of(appends: &[Append<'_>]) -> Vec<u8> {
    let header = first_header(1 << 20);
    let mut bytes = header.encode(Uuid::nil());
    let mut place = Place::first(&header, SegmentHeader::crc(&bytes));
    for append in appends {
        let mut framed = batches::encode(append, frame::FRAME_FIXED_BYTES);
        frame::wrap(&mut framed, None);
        let decided =
            batch::Decided { epoch: 1, number: place.batch, first_position: place.position, time: 1 };
        let crc = batch::decide(&mut framed[frame::FRAME_FIXED_BYTES..], decided);
        let at = frame::Place {
            offset: place.offset,
            previous: place.crc,
            not_durable: 0,
            seed: FrameSeed::new(1),
        };
        place.crc = frame::place(&mut framed, at, crc);
        place.offset += framed.len() as u64;
        place.batch += 1;
        place.position += append.events.len() as u64;
        bytes.extend_from_slice(&framed);
    }
    bytes
}

/// The header of a first segment with salt 1.
pub(in crate::testing) fn first_header(capacity: u64) -> SegmentHeader {
    SegmentHeader {
        ordinal: 1,
        epoch: 1,
        salt: 1,
        first_batch: 0,
        first_position: 0,
        previous_time: 0,
        predecessor_end: 0,
        predecessor_crc: 0,
        capacity,
    }
}
