//! Frames: what a message is wrapped in on its way.
//!
//! ```text
//!  at  bytes
//!   0      4  length of the body
//!   4      4  CRC-32 of the header from byte 8 on, and of the body
//!   8      8  number of the request; its answers repeat it
//!  16      2  kind of the message
//!  18      1  flags: 1: further answers to the request follow
//!  19      1  zero
//!  20      4  handle of the store that it is about
//!  24         body
//! ```

use bytes::{Buf, Bytes, BytesMut};

/// Length of a frame's header.
pub const HEADER_BYTES: usize = 24;
/// Flag of an answer that others to the same request follow.
pub const FLAG_MORE: u8 = 1;
/// Longest body of any frame (72 MiB): the largest batch, with room for what surrounds it.
pub const BODY_BYTES_MAX: usize = 72 << 20;

/// What a frame says besides its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Number of the request.
    pub request: u64,
    /// Kind of the message.
    pub kind: u16,
    /// Whether further answers to the request follow.
    pub has_more: bool,
    /// The store that it is about: 0, or what opening it answered.
    pub store: u32,
}

/// Why bytes are no frame. The connection is of no more use: nobody knows where the next frame begins.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It is longer than it may be.
    #[error("a frame of {length} bytes; at most {length_max} are allowed")]
    TooLong {
        /// Length of its body.
        length: usize,
        /// The limit.
        length_max: usize,
    },
    /// It is not what was sent.
    #[error("a frame whose checksum does not match")]
    Checksum,
    /// It has flags that do not exist.
    #[error("a frame with unknown flags")]
    Flags,
}

/// Begins a frame behind what is in the buffer; its body is appended, then [`finish`] is called with what this returns.
pub fn begin(buffer: &mut BytesMut, header: Header) -> usize {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 8]);
    buffer.extend_from_slice(&header.request.to_le_bytes());
    buffer.extend_from_slice(&header.kind.to_le_bytes());
    buffer.extend_from_slice(&[if header.has_more { FLAG_MORE } else { 0 }, 0]);
    buffer.extend_from_slice(&header.store.to_le_bytes());
    start
}

/// Ends a frame that was begun at `start`. Returns the length of its body.
///
/// # Errors
/// [`FrameError::TooLong`]; the frame is taken back then.
pub fn finish(buffer: &mut BytesMut, start: usize) -> Result<usize, FrameError> {
    let length = buffer.len() - start - HEADER_BYTES;
    let Some(stated) = u32::try_from(length).ok().filter(|_| length <= BODY_BYTES_MAX) else {
        buffer.truncate(start);
        return Err(FrameError::TooLong { length, length_max: BODY_BYTES_MAX });
    };
    buffer[start..start + 4].copy_from_slice(&stated.to_le_bytes());
    let checksum = crc32fast::hash(&buffer[start + 8..]);
    buffer[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    Ok(length)
}

/// How many bytes have to be in the buffer for its first frame: the header's, or all. Known once the header is there.
///
/// # Errors
/// [`FrameError::TooLong`], before any room is made for it.
pub fn needed(buffer: &[u8], length_max: usize) -> Result<usize, FrameError> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(HEADER_BYTES) };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > length_max {
        return Err(FrameError::TooLong { length, length_max });
    }
    Ok(HEADER_BYTES + length)
}

/// Takes the first frame out of the buffer. `None`: not all of it is there yet.
///
/// # Errors
/// It is no frame: see [`FrameError`].
pub fn take(buffer: &mut BytesMut, length_max: usize) -> Result<Option<(Header, Bytes)>, FrameError> {
    let needed = needed(buffer, length_max)?;
    if buffer.len() < needed || needed == HEADER_BYTES && buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let mut frame = buffer.split_to(needed).freeze();
    let stated = le_u32(&frame, 4);
    if crc32fast::hash(&frame[8..]) != stated {
        return Err(FrameError::Checksum);
    }
    if frame[18] & !FLAG_MORE != 0 || frame[19] != 0 {
        return Err(FrameError::Flags);
    }
    let header = Header {
        request: u64::from(le_u32(&frame, 8)) | u64::from(le_u32(&frame, 12)) << 32,
        kind: u16::from_le_bytes([frame[16], frame[17]]),
        has_more: frame[18] == FLAG_MORE,
        store: le_u32(&frame, 20),
    };
    frame.advance(HEADER_BYTES);
    Ok(Some((header, frame)))
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_are_taken_as_they_were_put_however_they_arrive(
            frames in prop::collection::vec((any::<u64>(), any::<u16>(), any::<bool>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..60)), 1..6),
            pieces in prop::collection::vec(1..40_usize, 1..50),
        ) {
            let mut sent = BytesMut::new();
            for (request, kind, has_more, store, body) in &frames {
                let header = Header { request: *request, kind: *kind, has_more: *has_more, store: *store };
                let start = begin(&mut sent, header);
                sent.extend_from_slice(body);
                prop_assert_eq!(finish(&mut sent, start), Ok(body.len()));
            }
            let (mut received, mut taken, mut pieces) = (BytesMut::new(), Vec::new(), pieces.into_iter().cycle());
            while !sent.is_empty() {
                let piece = sent.split_to(pieces.next().unwrap().min(sent.len()));
                received.extend_from_slice(&piece);
                while let Some((header, body)) = take(&mut received, 1_000).unwrap() {
                    taken.push((header.request, header.kind, header.has_more, header.store, body.to_vec()));
                }
            }
            prop_assert_eq!(taken, frames);
        }

        #[test]
        fn a_frame_with_any_changed_bit_is_refused_or_waited_for(body in prop::collection::vec(any::<u8>(), 0..40), bit in any::<prop::sample::Index>()) {
            let mut buffer = BytesMut::new();
            let start = begin(&mut buffer, Header { request: 7, kind: 3, has_more: false, store: 1 });
            buffer.extend_from_slice(&body);
            finish(&mut buffer, start).unwrap();
            let bit = bit.index(buffer.len() * 8);
            buffer[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(take(&mut buffer, 1_000), Ok(Some(_))));
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_there() {
        let mut buffer = BytesMut::from(&1_001_u32.to_le_bytes()[..]);
        assert_eq!(take(&mut buffer, 1_000), Err(FrameError::TooLong { length: 1_001, length_max: 1_000 }));
        let mut buffer = BytesMut::new();
        let start = begin(&mut buffer, Header::default());
        buffer.resize(HEADER_BYTES + BODY_BYTES_MAX + 1, 0);
        assert!(finish(&mut buffer, start).is_err() && buffer.is_empty());
    }
}
