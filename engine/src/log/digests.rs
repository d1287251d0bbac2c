//! The digests of a segment's batches, each worked out by whoever appended the batch while it still had its bytes at
//! hand. Sealing chains them and need not read the segment again.

use crate::format::digest::Digest;
use crate::format::frame::FRAME_BYTES_MIN;
use crate::format::{le, to_usize};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Digests whose memory is taken at a time (32 KiB).
const CHUNK_DIGESTS: usize = 1024;

/// A digest as words. Zero: not there yet. A true zero, once in 2^64, counts as missing, too.
type Words = [AtomicU64; size_of::<Digest>() / 8];

/// See the module.
#[derive(Debug)]
pub(crate) struct Digests {
    chunks: Box<[OnceLock<Box<[Words]>>]>,
}

impl Digests {
    /// Room for the digests of all batches that a segment of this size can hold.
    pub(crate) fn new(segment_bytes: u64) -> Self {
        let batches = to_usize(segment_bytes) / FRAME_BYTES_MIN + 1;
        Self { chunks: (0..batches.div_ceil(CHUNK_DIGESTS)).map(|_| OnceLock::new()).collect() }
    }

    /// Notes the digest of a batch by its place among the segment's.
    pub(crate) fn set(&self, place: u64, digest: &Digest) {
        let place = to_usize(place);
        let chunk = self.chunks[place / CHUNK_DIGESTS]
            .get_or_init(|| (0..CHUNK_DIGESTS).map(|_| Words::default()).collect());
        for (at, word) in chunk[place % CHUNK_DIGESTS].iter().enumerate() {
            word.store(le::u64_at(digest, 8 * at), Ordering::Relaxed);
        }
    }

    /// The digest of a batch, if it is there.
    pub(crate) fn get(&self, place: u64) -> Option<Digest> {
        let place = to_usize(place);
        let words = self.chunks.get(place / CHUNK_DIGESTS)?.get()?;
        let mut digest = Digest::default();
        for (at, word) in words[place % CHUNK_DIGESTS].iter().enumerate() {
            // Each word is written once, so each that is there is right, whatever the order they come in.
            let word = word.load(Ordering::Relaxed);
            if word == 0 {
                return None;
            }
            le::put_u64(&mut digest, 8 * at, word);
        }
        Some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_there_once_they_were_set_and_not_before() {
        let digests = Digests::new(1 << 20);
        let digest = |place: u64| {
            std::array::from_fn(|at| u8::try_from((place + at as u64) % 250 + 1).expect("small"))
        };
        let last = (1 << 20) / FRAME_BYTES_MIN as u64;
        for place in [0, 1, 1023, 1024, last] {
            assert_eq!(digests.get(place), None);
            digests.set(place, &digest(place));
            assert_eq!(digests.get(place), Some(digest(place)));
        }
        assert_eq!(digests.get(2), None);
        assert_eq!(digests.get(u64::from(u32::MAX)), None);
    }
}
