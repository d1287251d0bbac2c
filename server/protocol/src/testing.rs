//! The body of a fuzz target: what anybody may have sent is taken apart. It never panics, and what was understood is said again alike.

use crate::{Answer, Request, frame};
use bytes::{Bytes, BytesMut};

/// Longest body that is taken here.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Takes bytes for frames, as they arrive and with the right checksums, which would keep a fuzzer from getting any further; and
/// for one message, whose kind is the first two. Returns how many messages were understood.
#[must_use]
pub fn decode_bytes(bytes: &[u8]) -> usize {
    let mut understood = decode_frames(BytesMut::from(bytes)).max(decode_frames(resealed(bytes)));
    if let Some((kind, body)) = bytes.split_first_chunk() {
        understood += decode_message(u16::from_le_bytes(*kind), &Bytes::copy_from_slice(body));
    }
    understood
}

fn decode_frames(mut buffer: BytesMut) -> usize {
    let mut understood = 0;
    loop {
        match frame::take(&mut buffer, BODY_BYTES_MAX) {
            Ok(Some((header, body))) => {
                assert!(body.len() <= BODY_BYTES_MAX);
                understood += decode_message(header.kind, &body);
            }
            Ok(None) => {
                let needed = frame::needed(&buffer, BODY_BYTES_MAX);
                assert!(needed.is_ok_and(|needed| needed > buffer.len()), "more of it is waited for");
                return understood;
            }
            Err(_) => return understood,
        }
    }
}

/// Frames that follow one another, with the right checksums.
fn resealed(bytes: &[u8]) -> BytesMut {
    let (mut buffer, mut start) = (BytesMut::from(bytes), 0);
    while let Ok(length) = frame::needed(&buffer[start..], BODY_BYTES_MAX)
        && let Some(frame) = buffer.get_mut(start..start + length)
        && length >= frame::HEADER_BYTES
    {
        let checksum = crc32fast::hash(&frame[8..]);
        frame[4..8].copy_from_slice(&checksum.to_le_bytes());
        start += length;
    }
    buffer
}

fn decode_message(kind: u16, body: &Bytes) -> usize {
    let said = |encode: &dyn Fn(&mut BytesMut)| {
        let mut said = BytesMut::new();
        encode(&mut said);
        said.freeze()
    };
    let mut understood = 0;
    if let Ok(request) = Request::decode(kind, body) {
        let again = said(&|to| request.encode(to));
        assert_eq!(Request::decode(request.kind(), &again).as_ref(), Ok(&request));
        understood += 1;
    }
    if let Ok(answer) = Answer::decode(kind, body) {
        let again = said(&|to| answer.encode(to));
        let same = Answer::decode(answer.kind(), &again).expect("what was understood is understood again");
        assert_eq!(said(&|to| same.encode(to)), again);
        // Its pieces are it.
        let mut pieces = answer.into_pieces().into_iter();
        let mut whole = pieces.next().expect("there is at least one");
        pieces.for_each(|piece| whole.join(piece).expect("pieces belong together"));
        assert_eq!(said(&|to| whole.encode(to)), again);
        understood += 1;
    }
    understood
}
