//! Scanning: the frames that follow one another in a segment's bytes, and what is behind the last of them.

use crate::format::batch::View;
use crate::format::frame::{self, Envelope, FRAME_ALIGNMENT_BYTES, FRAME_MAGIC, FrameSeed};
use crate::format::segment::SegmentHeader;
use crate::format::{align_up, to_usize};
use annals_types::{DamageKind, Uuid};

/// What a frame must fit to be the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Behind the frame before.
    pub(crate) offset: u64,
    /// That frame's checksum, or the segment header's.
    pub(crate) crc: u32,
    pub(crate) batch: u64,
    pub(crate) position: u64,
    pub(crate) epoch: u64,
    pub(crate) time: u64,
}

impl Place {
    /// Before the first frame of a segment, whose header has this checksum.
    pub(crate) fn first(header: &SegmentHeader, header_crc: u32) -> Self {
        Self {
            offset: crate::format::segment::FRAMES_START,
            crc: header_crc,
            batch: header.first_batch,
            position: header.first_position,
            epoch: 0,
            time: header.previous_time,
        }
    }
}

/// A segment's bytes, and what its frames are bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) store: Uuid,
    pub(crate) seed: FrameSeed,
    /// Where frames end at the latest.
    pub(crate) limit: u64,
    /// The first batch that is of no interest.
    pub(crate) until_batch: u64,
}

impl Frames<'_> {
    /// Visits the frames from `place` on until one is not good. Returns the place behind the last, and what is
    /// wrong with what follows (`None`: all of it up to the limits was read).
    pub(crate) fn walk<E>(
        &self,
        mut place: Place,
        mut visit: impl FnMut(&Envelope, &View<'_>) -> Result<(), E>,
    ) -> Result<(Place, Option<DamageKind>), E> {
        loop {
            if place.offset >= self.limit || place.batch >= self.until_batch {
                return Ok((place, None));
            }
            let mut wrong = None;
            for offset in frame::candidates(place.offset) {
                match self.frame_at(offset) {
                    Ok((envelope, header, body)) => {
                        if let Some(kind) = misfit(&envelope, &header, &place, self.store) {
                            wrong = Some(kind);
                            continue;
                        }
                        let frame = &self.bytes[to_usize(offset)..];
                        let checked = frame::view(header, frame, &body)
                            .and_then(|view| view.verify_body().map(|()| view));
                        match checked {
                            Ok(view) => {
                                place = Place {
                                    offset: offset + envelope.frame_bytes(),
                                    crc: envelope.crc,
                                    batch: header.number + 1,
                                    position: header.next_position(),
                                    epoch: header.epoch,
                                    time: view.last_time().max(place.time),
                                };
                                visit(&envelope, &view)?;
                                wrong = None;
                                break;
                            }
                            Err(kind) => wrong = Some(kind),
                        }
                    }
                    Err(kind) => {
                        wrong.get_or_insert(kind);
                    }
                }
            }
            if wrong.is_some() {
                return Ok((place, wrong));
            }
        }
    }

    fn frame_at(
        &self,
        offset: u64,
    ) -> Result<(Envelope, crate::format::batch::Header, std::borrow::Cow<'_, [u8]>), DamageKind> {
        let frame = self.bytes.get(to_usize(offset)..).ok_or(DamageKind::Missing)?;
        let envelope = Envelope::decode(frame, offset, self.seed)?;
        if offset + envelope.frame_bytes() > self.limit {
            return Err(DamageKind::Malformed);
        }
        let header = envelope.header(frame)?;
        let body = envelope.body(&header, frame)?;
        Ok((envelope, header, body))
    }

    /// The first good frame header at or behind `offset`.
    fn next_envelope(&self, offset: u64) -> Option<Envelope> {
        let limit = self.limit.min(self.bytes.len() as u64);
        let mut at = align_up(offset, FRAME_ALIGNMENT_BYTES);
        while at < limit {
            let rest = &self.bytes[to_usize(at)..];
            if rest.starts_with(&FRAME_MAGIC)
                && let Ok(envelope) = Envelope::decode(rest, at, self.seed)
            {
                return Some(envelope);
            }
            at += FRAME_ALIGNMENT_BYTES as u64;
        }
        None
    }

    /// The greatest batch number that a good frame header behind `offset` names as the first not known
    /// durable when it was written: all below it was acknowledged. 0 where there is none.
    pub(crate) fn witnessed(&self, offset: u64) -> u64 {
        let mut greatest = 0;
        let mut at = offset;
        while let Some(envelope) = self.next_envelope(at) {
            greatest = greatest.max(envelope.not_durable);
            at = envelope.offset + FRAME_ALIGNMENT_BYTES as u64;
        }
        greatest
    }

    /// A whole, good frame at or behind `offset` that can follow a gap: where it is, and the place before it.
    pub(crate) fn resume(&self, offset: u64) -> Option<Place> {
        let mut at = offset;
        while let Some(envelope) = self.next_envelope(at) {
            at = envelope.offset + FRAME_ALIGNMENT_BYTES as u64;
            if let Ok((envelope, header, body)) = self.frame_at(envelope.offset)
                && header.store == self.store
                && frame::view(header, &self.bytes[to_usize(envelope.offset)..], &body)
                    .is_ok_and(|view| view.verify_body().is_ok())
            {
                return Some(Place {
                    offset: envelope.offset,
                    crc: envelope.previous,
                    batch: header.number,
                    position: header.first_position,
                    epoch: header.epoch,
                    time: 0,
                });
            }
        }
        None
    }

    /// Behind the last byte from `start` on that is not zero; `start` where all are.
    pub(crate) fn used_end(&self, start: u64) -> u64 {
        let limit = self.limit.min(self.bytes.len() as u64);
        if start >= limit {
            return start;
        }
        let bytes = &self.bytes[to_usize(start)..to_usize(limit)];
        bytes.iter().rposition(|&byte| byte != 0).map_or(start, |last| start + last as u64 + 1)
    }
}

/// Why an intact frame is not the next one, if it is not.
fn misfit(
    envelope: &Envelope,
    header: &crate::format::batch::Header,
    place: &Place,
    store: Uuid,
) -> Option<DamageKind> {
    let fits = envelope.previous == place.crc
        && header.store == store
        && header.number == place.batch
        && header.first_position == place.position
        && header.epoch >= place.epoch;
    (!fits).then_some(DamageKind::Misplaced)
}
