//! A filter over hashes: says for sure that one is absent, or that it may be there. Part of an index.
//!
//! A Bloom filter in blocks of 64 bytes: 480 bits and a check (4 bytes at 60): the lower half of the XXH3-64 of the
//! bits, with a seed to which the number of the block is added (modulo 2^32). A hash falls into block (hash / 2^32) * blocks / 2^32. With m the
//! hash times 0x9E3779B97F4A7C15 (modulo 2^64), its six bits are ((m / 2^(10 i)) mod 1024) * 480 / 1024 for i from 0
//! to 5; bit b is bit b mod 8 of byte b / 8. At most 40 hashes a block on average make one absent hash in about
//! two hundred look present. A look-up reads one block, and verifies it where something is absent: a flipped bit never makes it so.

use super::{le, len_u32, lower_half, to_usize};
use twox_hash::XxHash3_64;

/// Length of a block.
pub(crate) const FILTER_BLOCK_BYTES: usize = 64;
/// Where a block's check is.
pub(super) const FILTER_CHECK_AT: usize = 60;
const BITS: u64 = 480;
const HASHES_PER_BLOCK: usize = 40;

/// Blocks for this many hashes.
pub(crate) fn blocks_for(hashes: usize) -> usize {
    hashes.div_ceil(HASHES_PER_BLOCK)
}

/// The block that a hash falls into.
pub(super) fn block_of(hash: u64, blocks: usize) -> usize {
    to_usize(((hash >> 32) * blocks as u64) >> 32)
}

fn check_of(block: &[u8], seed: u32, number: usize) -> u32 {
    let seed = seed.wrapping_add(len_u32(number));
    lower_half(XxHash3_64::oneshot_with_seed(u64::from(seed), &block[..FILTER_CHECK_AT]))
}

/// The places in its block, of so many, that a hash marks.
pub(super) fn places_of(hash: u64, places: u64) -> [usize; 6] {
    let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    std::array::from_fn(|probe| to_usize(((mixed >> (10 * probe)) & 1023) * places / 1024))
}

/// Encodes a filter over these hashes, of which there are so many.
pub(crate) fn encode(count: usize, hashes: impl Iterator<Item = u64>, seed: u32) -> Vec<u8> {
    let blocks = blocks_for(count);
    let mut bytes = vec![0; blocks * FILTER_BLOCK_BYTES];
    for hash in hashes {
        let block = &mut bytes[block_of(hash, blocks) * FILTER_BLOCK_BYTES..][..FILTER_BLOCK_BYTES];
        for bit in places_of(hash, BITS) {
            block[bit / 8] |= 1 << (bit % 8);
        }
    }
    seal(&mut bytes, seed);
    bytes
}

/// Puts its check into each block.
pub(super) fn seal(bytes: &mut [u8], seed: u32) {
    for (number, block) in bytes.chunks_exact_mut(FILTER_BLOCK_BYTES).enumerate() {
        let own = check_of(block, seed, number);
        le::put_u32(block, FILTER_CHECK_AT, own);
    }
}

/// Whether the block of this number is what it was.
pub(super) fn is_intact(block: &[u8], seed: u32, number: usize) -> bool {
    check_of(block, seed, number) == le::u32_at(block, FILTER_CHECK_AT)
}

/// Whether the hash may be in the filter that is `bytes`; an error is the number of a damaged block.
pub(crate) fn may_hold(bytes: &[u8], seed: u32, hash: u64) -> Result<bool, usize> {
    let blocks = bytes.len() / FILTER_BLOCK_BYTES;
    if blocks == 0 {
        return Ok(false);
    }
    let number = block_of(hash, blocks);
    let block = &bytes[number * FILTER_BLOCK_BYTES..][..FILTER_BLOCK_BYTES];
    if places_of(hash, BITS).into_iter().all(|bit| block[bit / 8] & (1 << (bit % 8)) != 0) {
        // True or not, it leads to a closer look.
        return Ok(true);
    }
    if is_intact(block, seed, number) { Ok(false) } else { Err(number) }
}

#[cfg(test)]
mod tests {
    use super::*;
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
