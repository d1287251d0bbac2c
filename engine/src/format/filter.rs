//! A filter over hashes: says for sure that one is absent, or that it may be there. Part of an index.
//!
//! A Bloom filter in blocks of 64 bytes: 480 bits and a checksum (4 bytes at 60) seeded like that of the index's
//! blocks, with the number of the filter's block. A hash falls into block (hash / 2^32) * blocks / 2^32. With m the
//! hash times 0x9E3779B97F4A7C15 (modulo 2^64), its six bits are ((m / 2^(10 i)) mod 1024) * 480 / 1024 for i from 0
//! to 5; bit b is bit b mod 8 of byte b / 8. At most 40 hashes a block on average make one absent hash in about
//! two hundred look present. A look-up reads one block and verifies it: a flipped bit never makes anything absent.

use super::{crc, le, len_u32, to_usize};

/// Length of a block.
pub(crate) const FILTER_BLOCK_BYTES: usize = 64;
const BLOCK_CRC_AT: usize = 60;
const BITS: u64 = 480;
const HASHES_PER_BLOCK: usize = 40;

/// Blocks for this many hashes.
pub(crate) fn blocks_for(hashes: usize) -> usize {
    hashes.div_ceil(HASHES_PER_BLOCK)
}

fn block_of(hash: u64, blocks: usize) -> usize {
    to_usize(((hash >> 32) * blocks as u64) >> 32)
}

fn bits_of(hash: u64) -> [usize; 6] {
    let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    std::array::from_fn(|probe| to_usize(((mixed >> (10 * probe)) & 1023) * BITS / 1024))
}

/// Encodes a filter over these hashes, of which there are so many.
pub(crate) fn encode(count: usize, hashes: impl Iterator<Item = u64>, seed: u32) -> Vec<u8> {
    let blocks = blocks_for(count);
    let mut bytes = vec![0; blocks * FILTER_BLOCK_BYTES];
    for hash in hashes {
        let block = &mut bytes[block_of(hash, blocks) * FILTER_BLOCK_BYTES..][..FILTER_BLOCK_BYTES];
        for bit in bits_of(hash) {
            block[bit / 8] |= 1 << (bit % 8);
        }
    }
    for (number, block) in bytes.chunks_exact_mut(FILTER_BLOCK_BYTES).enumerate() {
        let own = crc(seed.wrapping_add(len_u32(number)), &block[..BLOCK_CRC_AT]);
        le::put_u32(block, BLOCK_CRC_AT, own);
    }
    bytes
}

/// Whether the hash may be in the filter that is `bytes`; an error is the number of a damaged block.
pub(crate) fn may_hold(bytes: &[u8], seed: u32, hash: u64) -> Result<bool, usize> {
    let blocks = bytes.len() / FILTER_BLOCK_BYTES;
    if blocks == 0 {
        return Ok(false);
    }
    let number = block_of(hash, blocks);
    let block = &bytes[number * FILTER_BLOCK_BYTES..][..FILTER_BLOCK_BYTES];
    if crc(seed.wrapping_add(len_u32(number)), &block[..BLOCK_CRC_AT]) != le::u32_at(block, BLOCK_CRC_AT) {
        return Err(number);
    }
    Ok(bits_of(hash).into_iter().all(|bit| block[bit / 8] & (1 << (bit % 8)) != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use twox_hash::XxHash3_64;

    fn hash(number: u64) -> u64 {
        XxHash3_64::oneshot(&number.to_le_bytes())
    }

    #[test]
    fn what_was_put_in_is_there_and_little_else_seems_to_be() {
        let filter = encode(10_000, (0..10_000).map(hash), 7);
        assert!((0..10_000).all(|number| may_hold(&filter, 7, hash(number)) == Ok(true)));
        let wrong =
            (10_000..110_000).filter(|&number| may_hold(&filter, 7, hash(number)) == Ok(true)).count();
        assert!(wrong < 1_500, "{wrong} of 100,000 absent hashes seem to be there");
    }

    #[test]
    fn no_flipped_bit_makes_anything_absent() {
        let good = encode(30, (0..30).map(hash), 7);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!((0..30).all(|number| may_hold(&bad, 7, hash(number)) != Ok(false)), "bit {bit}");
        }
    }

    #[test]
    fn an_empty_filter_holds_nothing() {
        let filter = encode(0, std::iter::empty(), 7);
        assert_eq!(may_hold(&filter, 7, 1), Ok(false));
    }
}
