//! The hashes that an index finds names, keys and ids by.
//!
//! XXH3-64 of the name or key, seeded with the first 8 bytes of the store id plus a kind: 0 for names of streams, else
//! that of the key. A key is a category (1: a stream's name before its first `-`, all of it where there is none), a type
//! (2), a tag (3), a correlation id (4) or a causation id (5) of an event; an event's own id has kind 6.

use super::le;
use annals_types::Uuid;
use twox_hash::XxHash3_64;

/// Kinds of keys, as they count in a key's hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(crate) enum KeyKind {
    Category = 1,
    Type = 2,
    Tag = 3,
    Correlation = 4,
    Causation = 5,
    Id = 6,
}

/// The kind that counts in the hash of half of an id's hash.
const KIND_OF_ID_HALF: u8 = 7;

/// Half of a hash, mixed: whatever bits of the hash tell keys apart, its uppermost do.
pub(crate) fn half(hash: u64) -> u32 {
    super::upper_half(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The hash of a stream's name in the index of this store.
pub(crate) fn hash_name(store: Uuid, name: &str) -> u64 {
    hash_of_kind(store, 0, name.as_bytes())
}

/// The hash of a key in the index of this store.
pub(crate) fn hash_key(store: Uuid, kind: KeyKind, key: &[u8]) -> u64 {
    hash_of_kind(store, kind as u8, key)
}

/// What stands for an id in the filter.
pub(super) fn filter_hash(store: Uuid, half: u32) -> u64 {
    full_hash(store, KIND_OF_ID_HALF, &half.to_le_bytes())
}

fn full_hash(store: Uuid, kind: u8, key: &[u8]) -> u64 {
    let seed = le::u64_at(store.as_bytes(), 0).wrapping_add(u64::from(kind));
    XxHash3_64::oneshot_with_seed(seed, key)
}

fn hash_of_kind(store: Uuid, kind: u8, key: &[u8]) -> u64 {
    let hash = full_hash(store, kind, key);
    #[cfg(any(test, feature = "testing"))]
    let hash = hash & HASH_MASK.get();
    hash
}

#[cfg(any(test, feature = "testing"))]
std::thread_local! {
    static HASH_MASK: std::cell::Cell<u64> = const { std::cell::Cell::new(u64::MAX) };
}

/// Lets hashes have so many bits alone, on this thread, so that many keys share one.
#[cfg(any(test, feature = "testing"))]
pub fn shrink_hashes(bits: u32) {
    HASH_MASK.set((1 << bits) - 1);
}
