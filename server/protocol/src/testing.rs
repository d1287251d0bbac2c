//! The body of a fuzz target: what anybody may have sent is taken apart. It never panics, and what was understood is said again alike.

use crate::{Answer, Request, frame};
use bytes::{Bytes, BytesMut};

/// Longest body that is taken here.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Takes bytes for frames, as they arrive; and for one message, whose kind is the first two, as checksums would keep a fuzzer from
/// getting that far. Returns how many messages were understood.
#[must_use]
pub fn decode_bytes(bytes: &[u8]) -> usize {
    let (mut buffer, mut understood) = (BytesMut::from(bytes), 0);
    while let Ok(Some((header, body))) = frame::take(&mut buffer, BODY_BYTES_MAX) {
        understood += decode_message(header.kind, &body);
    }
    if let Some((kind, body)) = bytes.split_first_chunk() {
        understood += decode_message(u16::from_le_bytes(*kind), &Bytes::copy_from_slice(body));
    }
    understood
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
