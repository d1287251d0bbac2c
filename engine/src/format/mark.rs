//! The mark: a lower bound of what is durable, kept in a mapped file of two slots.
//!
//! ```text
//!  at  bytes
//!   0     64  prelude "annalsmk"
//! 512     64  slot 0                    each slot:  at  bytes
//! 1024    64  slot 1                                 0      8  sequence: the slot with the greater counts
//!                                                    8      8  epoch
//!                                                   16      8  watermark: first batch not known durable
//!                                                   24      8  position that follows from it
//!                                                   32      8  segment that the watermark is in
//!                                                   40      8  offset behind the last durable frame
//!                                                   48      4  1: closed cleanly at this place
//!                                                   52      8  zero
//!                                                   60      4  checksum of bytes 0 to 60, seeded with the store id's
//! ```
//! The slots lie in sectors of their own, so that a torn write spoils one of them at most.

use super::prelude::{Kind, PRELUDE_BYTES, Refusal, seal_header};
use super::{crc, le};
use annals_types::Uuid;

/// Length of the file.
pub(crate) const MARK_BYTES: usize = 4096;
const SLOT_BYTES: usize = 64;
const SLOTS_AT: [usize; 2] = [512, 1024];
const AT_SLOT_CRC: usize = 60;

/// What a slot says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) sequence: u64,
    pub(crate) epoch: u64,
    pub(crate) watermark: u64,
    pub(crate) position: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) clean: bool,
}

/// A new mark file.
pub(crate) fn encode_file(store: Uuid, mark: &Mark) -> Vec<u8> {
    let mut file = vec![0; MARK_BYTES];
    seal_header(&mut file[..PRELUDE_BYTES], Kind::Mark, store);
    let (at, slot) = encode_slot(store, mark);
    le::put(&mut file, at, slot);
    file
}

/// A slot's bytes and where they go.
pub(crate) fn encode_slot(store: Uuid, mark: &Mark) -> (usize, [u8; SLOT_BYTES]) {
    let mut slot = [0; SLOT_BYTES];
    let numbers = [mark.sequence, mark.epoch, mark.watermark, mark.position, mark.segment, mark.offset];
    for (index, number) in numbers.into_iter().enumerate() {
        le::put_u64(&mut slot, 8 * index, number);
    }
    le::put_u32(&mut slot, 48, u32::from(mark.clean));
    let own = crc(seed(store), &slot[..AT_SLOT_CRC]);
    le::put_u32(&mut slot, AT_SLOT_CRC, own);
    (SLOTS_AT[usize::from(mark.sequence % 2 == 1)], slot)
}

fn seed(store: Uuid) -> u32 {
    crc(0, store.as_bytes())
}

/// The newest of the intact slots of a mark file; `None` where neither is intact. The prelude is not
/// needed to believe a slot. One that there can be no next one after is none.
pub(crate) fn decode(file: &[u8], store: Uuid) -> Option<Mark> {
    let slot = |at: usize| {
        let bytes = file.get(at..at + SLOT_BYTES)?;
        if le::u32_at(bytes, AT_SLOT_CRC) != crc(seed(store), &bytes[..AT_SLOT_CRC]) {
            return None;
        }
        Some(Mark {
            sequence: le::u64_at(bytes, 0),
            epoch: le::u64_at(bytes, 8),
            watermark: le::u64_at(bytes, 16),
            position: le::u64_at(bytes, 24),
            segment: le::u64_at(bytes, 32),
            offset: le::u64_at(bytes, 40),
            clean: le::u32_at(bytes, 48) == 1,
        })
    };
    SLOTS_AT
        .into_iter()
        .filter_map(slot)
        .filter(|mark| mark.sequence < u64::MAX)
        .max_by_key(|mark| mark.sequence)
}

/// Makes the checksums of a mark file right.
#[cfg(feature = "testing")]
pub(crate) fn reseal(file: &mut [u8]) {
    let seed = seed(super::prelude::stated_store(file));
    for at in SLOTS_AT {
        if let Some(slot) = file.get_mut(at..at + SLOT_BYTES) {
            let own = crc(seed, &slot[..AT_SLOT_CRC]);
            le::put_u32(slot, AT_SLOT_CRC, own);
        }
    }
    super::prelude::reseal(file);
}

/// Why the file's header is refused, if it is.
pub(crate) fn refusal(file: &[u8], store: Uuid) -> Option<Refusal> {
    super::prelude::verify_header(file, Kind::Mark, Some(store)).err()
}

/// Offset of the first part of a mark file that is not as it was written; a slot that was never written is fine.
pub(crate) fn first_damage(file: &[u8], store: Uuid) -> Option<usize> {
    if refusal(file, store).is_some() {
        return Some(0);
    }
    SLOTS_AT.into_iter().find(|&at| {
        let Some(slot) = file.get(at..at + SLOT_BYTES) else { return true };
        let intact = le::u32_at(slot, AT_SLOT_CRC) == crc(seed(store), &slot[..AT_SLOT_CRC]);
        !intact && slot.iter().any(|&byte| byte != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_after_which_there_can_be_no_other_does_not_count() {
        let store = Uuid::from_u128(5);
        let mark = |sequence| Mark {
            sequence,
            epoch: 1,
            watermark: 2,
            position: 3,
            segment: 1,
            offset: 4096,
            clean: true,
        };
        let mut file = encode_file(store, &mark(8));
        assert_eq!(decode(&file, store), Some(mark(8)));
        let (at, slot) = encode_slot(store, &mark(u64::MAX));
        le::put(&mut file, at, slot);
        assert_eq!(decode(&file, store), Some(mark(8)));
        let (at, slot) = encode_slot(store, &mark(9));
        le::put(&mut file, at, slot);
        assert_eq!(decode(&file, store), Some(mark(9)));
    }
}
