//! A frame, in a segment with salt 1, behind nothing.

use super::{batch, resealed};
use crate::format::batch::Header;
use crate::format::frame::{
    self, Envelope, FRAME_ALIGNMENT_BYTES, FRAME_BYTES_MAX, FRAME_FIXED_BYTES, FrameSeed,
};
use crate::{Append, DamageKind, limits};
use std::borrow::Cow;

/// Takes bytes for a frame. Returns how many events were understood.
#[must_use]
pub fn frame(bytes: &[u8]) -> usize {
    let seed = FrameSeed::new(1);
    let sealed = resealed(bytes, |bytes| {
        let _ = frame::reseal(bytes, 0, 0, seed);
    });
    let understood = |bytes: &[u8]| take_apart(bytes, seed).unwrap_or(0);
    understood(bytes).max(understood(&sealed))
}

/// A frame that holds this, its body compressed where it is larger than `compress_above`. What [`frame`] takes apart.
#[must_use]
pub fn frame_of(append: &Append<'_>, compress_above: Option<usize>) -> Vec<u8> {
    let mut bytes = batch::encode(append, FRAME_FIXED_BYTES);
    frame::wrap(&mut bytes, compress_above);
    let crc = batch::decide_first(&mut bytes[FRAME_FIXED_BYTES..]);
    let place = frame::Place { offset: 0, previous: 0, not_durable: 0, seed: FrameSeed::new(1) };
    let _ = frame::place(&mut bytes, place, crc);
    bytes
}

/// Takes apart the frame at the start of `bytes`, which says that it is at offset 0.
pub(super) fn take_apart(bytes: &[u8], seed: FrameSeed) -> Result<usize, DamageKind> {
    let envelope = Envelope::decode(bytes, 0, seed)?;
    assert!(envelope.frame_bytes() <= (FRAME_BYTES_MAX + FRAME_ALIGNMENT_BYTES) as u64);
    assert!(envelope.frame_bytes().is_multiple_of(FRAME_ALIGNMENT_BYTES as u64));
    let header = envelope.header(bytes)?;
    assert!(envelope.body_range().end <= bytes.len());
    let body = check_bounded(&header, envelope.body(&header, bytes)?);
    let view = frame::view(header, bytes, &body)?;
    Ok(batch::check(&view))
}

/// A body that was decompressed takes no more memory than the header says, and that no more than a batch may.
pub(super) fn check_bounded(header: &Header, body: Cow<'_, [u8]>) -> Vec<u8> {
    assert!(header.body_length as usize <= limits::BATCH_BYTES_MAX);
    match body {
        Cow::Owned(body) => {
            assert!(body.capacity() <= header.body_length as usize, "{} bytes were taken", body.capacity());
            body
        }
        Cow::Borrowed(body) => body.to_vec(),
    }
}
