//! Snapshots: events of a store of their own, in the stream that they are of. Their data is the state, or the end of it;
//! their metadata says what it is the state of.
//!
//! ```text
//! metadata of an event of type "Snapshot"
//!  at  bytes
//!   0      4  schema of the state, for the application
//!   4      4  number of events of type "Part" before it in its stream, with its id as their correlation, that its
//!             state begins with
//!   8      8  version of the last event that is folded
//!  16      8  that event's position
//!  24      8  its time
//!  32      8  epoch of its batch
//!  40      8  number of its batch
//!  48     16  its id
//!  64         the snapshot's name
//!
//! metadata of an event of type "Deleted"
//!   0      8  version of the snapshots that no longer count, of those before it in its stream; all bits set: every one
//!   8         their name
//! ```

use super::le;
use annals_types::{Position, Timestamp, Uuid, Version, limits};

/// Types of the events.
pub(crate) const SNAPSHOT_TYPE: &str = "Snapshot";
pub(crate) const PART_TYPE: &str = "Part";
pub(crate) const DELETED_TYPE: &str = "Deleted";

/// Length of a snapshot's metadata before its name.
pub(crate) const SNAPSHOT_FIXED_BYTES: usize = 64;
/// Length of a deletion's metadata before the name.
pub(crate) const DELETED_FIXED_BYTES: usize = 8;
/// Parts of a state that has them are this long, but for the last.
pub(crate) const PART_BYTES: usize = limits::DATA_BYTES_MAX;
/// All that the largest state can have before its last.
const PARTS_MAX: u32 = 3;

const _: () = assert!(limits::SNAPSHOT_BYTES_MAX == (PARTS_MAX as usize + 1) * PART_BYTES);

/// What a snapshot is of: an event, and by its batch the whole history before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SnapshotOf {
    pub(crate) version: Version,
    pub(crate) position: Position,
    pub(crate) time: Timestamp,
    pub(crate) epoch: u64,
    pub(crate) batch: u64,
    pub(crate) event: Uuid,
}

/// The metadata of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SnapshotNote<'a> {
    pub(crate) schema: u32,
    pub(crate) parts: u32,
    pub(crate) of: SnapshotOf,
    pub(crate) name: &'a str,
}

impl<'a> SnapshotNote<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; SNAPSHOT_FIXED_BYTES];
        le::put_u32(&mut bytes, 0, self.schema);
        le::put_u32(&mut bytes, 4, self.parts);
        let of = &self.of;
        let numbers = [of.version.get(), of.position.get(), of.time.get(), of.epoch, of.batch];
        for (place, number) in numbers.into_iter().enumerate() {
            le::put_u64(&mut bytes, 8 + 8 * place, number);
        }
        le::put(&mut bytes, 48, of.event.as_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        bytes
    }

    /// `None`: it is none that any release wrote.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, name) = bytes.split_at_checked(SNAPSHOT_FIXED_BYTES)?;
        let number = |place: usize| le::u64_at(fixed, 8 + 8 * place);
        let of = SnapshotOf {
            version: Version::new(number(0)),
            position: Position::new(number(1)),
            time: Timestamp::new(number(2)),
            epoch: number(3),
            batch: number(4),
            event: Uuid::from_bytes(le::array_at(fixed, 48)),
        };
        let (schema, parts) = (le::u32_at(fixed, 0), le::u32_at(fixed, 4));
        let note = Self { schema, parts, of, name: std::str::from_utf8(name).ok()? };
        (parts <= PARTS_MAX).then_some(note)
    }
}

/// The metadata of a deletion. `version`: `None`: all snapshots of that name.
pub(crate) fn encode_deleted(name: &str, version: Option<Version>) -> Vec<u8> {
    let mut bytes = version.map_or(u64::MAX, Version::get).to_le_bytes().to_vec();
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

/// The same, as it was before it was encoded.
pub(crate) fn decode_deleted(bytes: &[u8]) -> Option<(&str, Option<Version>)> {
    let (fixed, name) = bytes.split_at_checked(DELETED_FIXED_BYTES)?;
    let version = Some(le::u64_at(fixed, 0)).filter(|&version| version != u64::MAX).map(Version::new);
    Some((std::str::from_utf8(name).ok()?, version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            numbers in any::<[u64; 5]>(), event in any::<u128>(), schema in any::<u32>(), parts in 0..=3_u32, name in "\\PC{0,40}",
        ) {
            let of = SnapshotOf {
                version: Version::new(numbers[0]),
                position: Position::new(numbers[1]),
                time: Timestamp::new(numbers[2]),
                epoch: numbers[3],
                batch: numbers[4],
                event: Uuid::from_u128(event),
            };
            let note = SnapshotNote { schema, parts, of, name: &name };
            let encoded = note.encode();
            prop_assert_eq!(SnapshotNote::decode(&encoded), Some(note));
            for version in [None, Some(Version::new(numbers[0] / 2))] {
                let encoded = encode_deleted(&name, version);
                prop_assert_eq!(decode_deleted(&encoded), Some((name.as_str(), version)));
            }
        }

        #[test]
        fn nothing_else_is(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(note) = SnapshotNote::decode(&bytes) {
                prop_assert_eq!(note.encode(), bytes.clone());
            }
            if let Some((name, version)) = decode_deleted(&bytes) {
                prop_assert_eq!(encode_deleted(name, version), bytes);
            }
        }
    }
}
