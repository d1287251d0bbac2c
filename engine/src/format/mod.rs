//! The bytes on disk: one file per on-disk thing, each with its layout, encoder and verifier.
//!
//! Knows nothing of files or time. Everything is little-endian. `docs/format.md` describes the same
//! layouts for people who write their own reader; a test compares its tables with these constants.

pub(crate) mod batch;
pub(crate) mod digest;
pub(crate) mod event;
pub(crate) mod filter;
pub(crate) mod frame;
pub(crate) mod hash;
pub(crate) mod index;
pub(crate) mod key;
pub(crate) mod manifest;
pub(crate) mod mark;
pub(crate) mod prelude;
mod record;
pub(crate) mod section;
pub(crate) mod segment;
pub(crate) mod snapshot;
pub(crate) mod span;
pub(crate) mod subscription;
mod view;

/// The format version that this release writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Device writes, file headers and seals are multiples of this, and aligned to it.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Frames begin at multiples of this.
pub(crate) const FRAME_ALIGNMENT: usize = 8;

/// `bytes` rounded up to a multiple of `unit`, a power of two.
pub(crate) const fn align_up(bytes: u64, unit: usize) -> u64 {
    (bytes + unit as u64 - 1) & !(unit as u64 - 1)
}

/// `bytes` rounded down to a multiple of `unit`, a power of two.
pub(crate) const fn align_down(bytes: u64, unit: usize) -> u64 {
    bytes & !(unit as u64 - 1)
}

/// Little-endian numbers at fixed places. They panic when the place is outside: callers check
/// lengths first.
pub(crate) mod le {
    pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_le_bytes(array_at(bytes, at))
    }

    pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(array_at(bytes, at))
    }

    pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(array_at(bytes, at))
    }

    pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        *bytes[at..].first_chunk().expect("the caller checked the length")
    }

    pub(crate) fn put(bytes: &mut [u8], at: usize, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
        put(bytes, at, value.to_le_bytes());
    }

    pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
        put(bytes, at, value.to_le_bytes());
    }

    pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
        put(bytes, at, value.to_le_bytes());
    }
}

/// The CRC-32 (IEEE) of `bytes`, continued from `seed`.
pub(crate) fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// A length that its limit keeps within 32 bits.
pub(crate) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("limits keep lengths within 32 bits")
}

/// A length or number that its limit keeps within 16 bits.
pub(crate) fn len_u16(len: usize) -> u16 {
    u16::try_from(len).expect("limits keep this within 16 bits")
}

/// The upper 32 bits.
pub(crate) const fn upper_half(number: u64) -> u32 {
    lower_half(number >> 32)
}

/// The lower 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "cutting off is what it is for")]
pub(crate) const fn lower_half(number: u64) -> u32 {
    number as u32
}

/// An offset in a file or a number of bytes, as a length in memory.
pub(crate) fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("this crate runs on 64-bit systems")
}

const _: () = assert!(usize::BITS == 64, "offsets are used as lengths");
const _: () = assert!(BLOCK_BYTES.is_multiple_of(FRAME_ALIGNMENT));
