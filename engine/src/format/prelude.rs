//! The first 64 bytes of every file, the same in all versions of the format.
//!
//! ```text
//!  at  bytes
//!   0      8  magic: "annals" and two letters for the kind of file
//!   8      4  format version
//!  12      4  header length, these 64 bytes included
//!  16      8  features that a reader must understand (bits)
//!  24      8  features that a reader may ignore (bits)
//!  32     16  store id
//!  48      4  checksum of the header's bytes from 64 to the header length
//!  52      8  zero
//!  60      4  checksum of bytes 0 to 60
//! ```
//! The checksum is judged before the version: a wrong one is damage, never "a newer release".

use super::{FORMAT_VERSION, crc, le, len_u32, to_usize};
use annals_types::{DamageKind, Uuid};

/// Length of the prelude.
pub(crate) const PRELUDE_BYTES: usize = 64;
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 8;
const AT_HEADER_LENGTH: usize = 12;
const AT_FEATURES: usize = 16;
const AT_OPTIONAL_FEATURES: usize = 24;
const AT_STORE: usize = 32;
const AT_HEADER_CRC: usize = 48;
const AT_ZERO: usize = 52;
const AT_CRC: usize = 60;
/// Longest header that is believed before its checksum was seen (a manifest of a million segments).
const HEADER_BYTES_MAX: usize = 256 << 20;

/// The kinds of file, and of blocks inside files that begin with a prelude.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Segment,
    Seal,
    Index,
    Span,
    Manifest,
    Mark,
}

impl Kind {
    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Segment => b"annalssg",
            Self::Seal => b"annalssl",
            Self::Index => b"annalsix",
            Self::Span => b"annalssp",
            Self::Manifest => b"annalsmf",
            Self::Mark => b"annalsmk",
        }
    }
}

/// Why a header was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    Damaged(DamageKind),
    Newer { found: u32 },
    UnknownFeatures { features: u64 },
    Foreign { found: Uuid },
}

/// Fills in the prelude of `header`, whose bytes from 64 on are complete.
pub(crate) fn seal_header(header: &mut [u8], kind: Kind, store: Uuid) {
    assert!(header.len() >= PRELUDE_BYTES, "a header begins with a prelude");
    let length = len_u32(header.len());
    let (prelude, rest) = header.split_at_mut(PRELUDE_BYTES);
    le::put(prelude, AT_MAGIC, kind.magic());
    le::put_u32(prelude, AT_VERSION, FORMAT_VERSION);
    le::put_u32(prelude, AT_HEADER_LENGTH, length);
    le::put_u64(prelude, AT_FEATURES, 0);
    le::put_u64(prelude, AT_OPTIONAL_FEATURES, 0);
    le::put(prelude, AT_STORE, store.as_bytes());
    le::put_u32(prelude, AT_HEADER_CRC, crc(0, rest));
    le::put_u64(prelude, AT_ZERO, 0);
    let own = crc(0, &prelude[..AT_CRC]);
    le::put_u32(prelude, AT_CRC, own);
}

/// Verifies the header at the start of `bytes` and returns it, as long as it says, with its store.
/// `store`: the store it must belong to, where that is known.
pub(crate) fn verify_header(bytes: &[u8], kind: Kind, store: Option<Uuid>) -> Result<(Uuid, &[u8]), Refusal> {
    let damaged = |kind| Err(Refusal::Damaged(kind));
    let Some(prelude) = bytes.first_chunk::<PRELUDE_BYTES>() else {
        return damaged(DamageKind::Missing);
    };
    if le::u32_at(prelude, AT_CRC) != crc(0, &prelude[..AT_CRC]) {
        return damaged(DamageKind::Checksum);
    }
    if prelude[AT_MAGIC..AT_VERSION] != kind.magic()[..] {
        return damaged(DamageKind::Misplaced);
    }
    let version = le::u32_at(prelude, AT_VERSION);
    if version > FORMAT_VERSION {
        return Err(Refusal::Newer { found: version });
    }
    let features = le::u64_at(prelude, AT_FEATURES);
    if features != 0 {
        return Err(Refusal::UnknownFeatures { features });
    }
    let found = Uuid::from_bytes(le::array_at(prelude, AT_STORE));
    if store.is_some_and(|expected| expected != found) {
        return Err(Refusal::Foreign { found });
    }
    let length = to_usize(u64::from(le::u32_at(prelude, AT_HEADER_LENGTH)));
    if version == 0 || !(PRELUDE_BYTES..=HEADER_BYTES_MAX).contains(&length) {
        return damaged(DamageKind::Malformed);
    }
    let Some(header) = bytes.get(..length) else {
        return damaged(DamageKind::Missing);
    };
    if le::u32_at(prelude, AT_HEADER_CRC) != crc(0, &header[PRELUDE_BYTES..]) {
        return damaged(DamageKind::Checksum);
    }
    Ok((found, header))
}

/// The store that a header says it is of; the nil one, where it is too short to say.
#[cfg(feature = "testing")]
pub(crate) fn stated_store(bytes: &[u8]) -> Uuid {
    bytes.get(AT_STORE..AT_STORE + 16).map_or_else(Uuid::nil, |id| Uuid::from_bytes(le::array_at(id, 0)))
}

/// Makes the checksums of the header at the start of `bytes` right, whatever it says.
#[cfg(feature = "testing")]
pub(crate) fn reseal(bytes: &mut [u8]) {
    if bytes.len() < PRELUDE_BYTES {
        return;
    }
    let length = le::u32_at(bytes, AT_HEADER_LENGTH) as usize;
    if let Some(rest) = bytes.get(PRELUDE_BYTES..length) {
        let of_rest = crc(0, rest);
        le::put_u32(bytes, AT_HEADER_CRC, of_rest);
    }
    let own = crc(0, &bytes[..AT_CRC]);
    le::put_u32(bytes, AT_CRC, own);
}

/// The prelude's own checksum, as stored.
pub(crate) fn stored_crc(bytes: &[u8]) -> u32 {
    le::u32_at(bytes, AT_CRC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut header = vec![7; 100];
        seal_header(&mut header, Kind::Mark, Uuid::from_u128(9));
        header
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found() {
        let good = header();
        assert!(verify_header(&good, Kind::Mark, Some(Uuid::from_u128(9))).is_ok());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let refusal = verify_header(&bad, Kind::Mark, Some(Uuid::from_u128(9)));
            assert_eq!(refusal, Err(Refusal::Damaged(DamageKind::Checksum)), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_or_foreign_header_is_refused_by_name() {
        let mut newer = header();
        le::put_u32(&mut newer, AT_VERSION, FORMAT_VERSION + 1);
        let own = crc(0, &newer[..AT_CRC]);
        le::put_u32(&mut newer, AT_CRC, own);
        let refusal = verify_header(&newer, Kind::Mark, None);
        assert_eq!(refusal, Err(Refusal::Newer { found: FORMAT_VERSION + 1 }));
        let header = header();
        let foreign = verify_header(&header, Kind::Mark, Some(Uuid::from_u128(1)));
        assert_eq!(foreign, Err(Refusal::Foreign { found: Uuid::from_u128(9) }));
    }
}
