//! What is found out about a store.

use crate::error::Damage;
use crate::position::Position;

/// Facts about a store, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Durable events.
    pub events: u64,
    /// Streams with at least one durable event.
    pub streams: u64,
    /// The position that the next event gets.
    pub next_position: Position,
    /// Log segments, the active one included.
    pub segments: u64,
    /// Bytes that the store's files take, reserved space included.
    pub disk_bytes: u64,
    /// Bytes of them that are indexes, on disk and in memory.
    pub index_bytes: u64,
    /// Number of the present or last writer's reign.
    pub epoch: u64,
    /// How the log is written: `ring`, `direct`, `buffered`, `simulated`.
    pub disk: String,
    /// Version of the format.
    pub format: u32,
    /// Process id of the writer, if there is one.
    pub writer: Option<u32>,
}

/// What a store has made durable since it was opened: each group is one write to the device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Writes {
    /// Groups.
    pub groups: u64,
    /// Batches in them.
    pub batches: u64,
    /// Bytes of the log that they took.
    pub bytes: u64,
    /// Batches of each group.
    pub group_batches: Histogram,
    /// Nanoseconds that each group took, from its beginning until it was durable.
    pub group_nanoseconds: Histogram,
}

/// How often which values came.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    /// The greatest value of each bucket but the last, which has no bound.
    pub bounds: Vec<u64>,
    /// Values in each bucket.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Intact events.
    pub events: u64,
    /// Segments looked at.
    pub segments: u64,
    /// Bytes behind the last frame of a store that was not closed cleanly; never acknowledged, no damage.
    pub torn_tail_bytes: u64,
    /// The hash over all batches that are sealed, in hexadecimal, to be kept elsewhere and compared later.
    pub chain: String,
    /// Everything that is wrong.
    pub damage: Vec<Damage>,
}

impl Verified {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.damage.is_empty()
    }
}
