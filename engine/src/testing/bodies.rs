//! Bodies of fuzz targets: what parses bytes that anybody may have written. They never panic.

use crate::format::frame::FrameSeed;
use crate::format::manifest::Manifest;
use crate::format::segment::{FRAMES_START, Seal, SegmentHeader};
use crate::format::{batch, frame, mark};
use crate::log::scan::{Frames, Place};
use crate::{Append, DamageKind, Uuid};

/// Scans `bytes` as the first segment of the store that they say they are of: by its header if that is intact, else as frames
/// of a segment with salt 0 that begin at byte 0. Returns the number of good frames, those behind damage included.
#[must_use]
pub fn scan_bytes(bytes: &[u8]) -> usize {
    let store = bytes.get(32..48).and_then(|id| Uuid::from_slice(id).ok()).unwrap_or_default();
    let header = SegmentHeader::decode(bytes, 1, store).ok();
    let _ = Seal::decode(bytes, store);
    let _ = Manifest::decode(bytes);
    let _ = mark::decode(bytes, store);
    let mut place = match &header {
        Some(header) => Place::first(header, SegmentHeader::crc(bytes)),
        None => Place { offset: 0, crc: 0, batch: 0, position: 0, epoch: 0, time: 0 },
    };
    debug_assert!(header.is_none() || place.offset == FRAMES_START);
    let seed = FrameSeed::new(header.map_or(0, |header| header.salt));
    let frames = Frames { bytes, store, seed, limit: bytes.len() as u64, until_batch: u64::MAX };
    let mut count = 0;
    loop {
        let walked = frames.walk(place, |envelope, view| {
            count += 1;
            debug_assert!(frame::candidates(envelope.offset)[0] == envelope.offset);
            for ordinal in 0..view.header.events {
                let _ = view.event(ordinal);
                let _ = view.time(ordinal);
            }
            for stream in 0..view.header.streams {
                let _ = view.name(stream);
            }
            let _: Vec<u64> = view.versions();
            crate::format::digest::BatchDigests::default().one(view).map(drop)
        });
        let behind = walked.map_or(place, |(behind, _): (Place, Option<DamageKind>)| behind);
        let _ = frames.witnessed(behind.offset);
        match frames.resume(behind.offset + 1) {
            Some(next) if next.offset > place.offset => place = next,
            _ => return count,
        }
    }
}

/// A segment of a store with the nil id that holds these batches, each to a stream of its own versions from 0.
/// What [`scan_bytes`] takes apart.
#[must_use]
pub fn segment_of(appends: &[Append<'_>]) -> Vec<u8> {
    let header = first_header(1 << 20);
    let mut bytes = header.encode(Uuid::nil());
    let mut place = Place::first(&header, SegmentHeader::crc(&bytes));
    for append in appends {
        let ids: Vec<Uuid> = append.events.iter().map(|event| event.id.unwrap_or_default()).collect();
        let encoded = batch::encode(append, Uuid::nil(), [7; 16], &ids, frame::FRAME_FIXED_BYTES, Vec::new());
        let mut framed = encoded.bytes;
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
        place.position += u64::from(encoded.events);
        bytes.extend_from_slice(&framed);
    }
    bytes
}

/// The header of a first segment with salt 1.
pub(super) fn first_header(capacity: u64) -> SegmentHeader {
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
