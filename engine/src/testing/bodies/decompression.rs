//! Decompression: the body of a frame, whatever it claims to be and however small.

use super::frame;
use crate::format::batch::{self, Decided};
use crate::format::frame::{Envelope, FrameSeed};
use crate::{Append, Uuid};

/// Takes the first four bytes for the length that a body claims to have, and the others for the body, compressed; and then for
/// a body that is compressed here, which must come back. Returns how long it was, decompressed.
#[must_use]
pub fn decompression(bytes: &[u8]) -> usize {
    let Some((claimed, stored)) = bytes.split_first_chunk() else { return 0 };
    let claimed = u32::from_le_bytes(*claimed);
    if let Ok(small) = zstd::bulk::compress(stored, 1) {
        let length = u32::try_from(stored.len()).unwrap_or(u32::MAX);
        assert_eq!(decompressed(length, &small).as_deref(), Some(stored), "it comes back");
        let other = decompressed(claimed, &small);
        assert!(other.is_none_or(|other| claimed >= length && other == stored), "it fits, or is refused");
    }
    decompressed(claimed, stored).map_or(0, |body| body.len())
}

/// The body of a frame that holds `stored` and claims that this is `claimed` bytes, if it can be had.
fn decompressed(claimed: u32, stored: &[u8]) -> Option<Vec<u8>> {
    let mut header = batch::encode(&Append::new(), Uuid::nil(), [7; 16], &[], 0, Vec::new()).bytes;
    batch::state_body_bytes(&mut header, claimed);
    batch::decide(&mut header, Decided { epoch: 1, number: 0, first_position: 0, time: 1 });
    let seed = FrameSeed::new(1);
    let bytes = crate::format::frame::compressed(&header, stored, seed);
    let _ = frame::take_apart(&bytes, seed);
    let envelope = Envelope::decode(&bytes, 0, seed).ok()?;
    assert_eq!(&bytes[envelope.body_range()], stored);
    let header = envelope.header(&bytes).ok()?;
    Some(frame::check_bounded(&header, envelope.body(&header, &bytes).ok()?))
}
