//! What was made durable, counted: for whoever watches over the store.

use annals_types::{Histogram, Writes};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The buckets double: of groups from one batch to 4,096, of times from 32 us to about a second; the last has all else.
const BUCKETS: usize = 17;
const TIME_MIN: Duration = Duration::from_micros(32);

/// Since the store was opened. Only the writer counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    bytes: AtomicU64,
    batches: Doubling,
    nanoseconds: Doubling,
}

#[derive(Debug, Default)]
struct Doubling {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Doubling {
    fn add(&self, value: u64, smallest: u64) {
        let bucket = (0..BUCKETS - 1).take_while(|bucket| value > smallest << bucket).count();
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn told(&self, smallest: u64) -> Histogram {
        Histogram {
            bounds: (0..BUCKETS - 1).map(|bucket| smallest << bucket).collect(),
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

const fn nanoseconds(time: Duration) -> u64 {
    time.as_secs() * 1_000_000_000 + time.subsec_nanos() as u64
}

impl Tally {
    /// A group of so many batches and bytes took so long.
    pub(crate) fn add(&self, batches: u32, bytes: u64, took: Duration) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.batches.add(batches.into(), 1);
        self.nanoseconds.add(nanoseconds(took), nanoseconds(TIME_MIN));
    }

    pub(crate) fn told(&self) -> Writes {
        let group_batches = self.batches.told(1);
        Writes {
            groups: group_batches.counts.iter().sum(),
            batches: group_batches.sum,
            bytes: self.bytes.load(Ordering::Relaxed),
            group_batches,
            group_nanoseconds: self.nanoseconds.told(nanoseconds(TIME_MIN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_by_buckets() {
        let tally = Tally::default();
        tally.add(1, 10, Duration::from_micros(32));
        tally.add(2, 20, Duration::from_micros(33));
        tally.add(1_000_000, 30, Duration::from_secs(10));
        let writes = tally.told();
        assert_eq!((writes.groups, writes.batches, writes.bytes), (3, 1_000_003, 60));
        assert_eq!(writes.group_batches.bounds[..3], [1, 2, 4]);
        assert_eq!(writes.group_batches.counts[..3], [1, 1, 0]);
        assert_eq!(writes.group_batches.counts.last(), Some(&1));
        assert_eq!(writes.group_nanoseconds.counts[..2], [1, 1]);
        assert_eq!(writes.group_nanoseconds.counts.len(), writes.group_nanoseconds.bounds.len() + 1);
    }
}
