//! How long is waited before something is tried again.

use crate::happening::{Happening, Watcher};
use annals_types::{AppendError, StoreError, SubscriptionError};
use rand::RngExt;
use std::time::Duration;

/// Why something is begun anew whose following has ended.
pub(crate) const ENDED: &str = "nothing more came";

/// Pauses that double from one failure to the next. Of each, between half and all is waited, by chance, so that those who
/// failed together don't meet again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pauses {
    /// The pause after the first failure.
    pub first: Duration,
    /// The longest one.
    pub longest: Duration,
}

impl Pauses {
    /// Who was beaten by another's append is behind by about one append: the first pause is shorter than that takes.
    pub(crate) const fn conflicts() -> Self {
        Self { first: Duration::from_micros(50), longest: Duration::from_millis(20) }
    }

    /// The pause after this many failures.
    #[must_use]
    pub fn after(&self, failures: u32) -> Duration {
        let doubled =
            self.first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        let most = doubled.min(self.longest);
        most.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// A store that cannot be reached is looked for often at first, and every few seconds later.
    pub(crate) const fn outages() -> Self {
        Self { first: Duration::from_millis(20), longest: Duration::from_secs(5) }
    }

    /// Counts a failure, tells of it, and waits.
    pub(crate) async fn rest(&self, watcher: &Watcher, failures: &mut u32, reason: &str) {
        *failures += 1;
        self.rest_after(watcher, *failures, reason).await;
    }

    /// The same after so many failures.
    pub(crate) async fn rest_after(&self, watcher: &Watcher, failures: u32, reason: &str) {
        let pause = self.after(failures);
        watcher.tell(&Happening::Retried { failures, reason, pause });
        tokio::time::sleep(pause).await;
    }

    pub(crate) async fn wait(&self, failures: u32) {
        tokio::time::sleep(self.after(failures)).await;
    }
}

/// Whether the same may do later. Where it may have been done all the same, the cursor tells.
pub(crate) fn is_passing(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Unavailable { is_passing: true, .. }
            | StoreError::Unknown { .. }
            | StoreError::Append(AppendError::DiskFull(_))
            | StoreError::Subscription(SubscriptionError::Append(AppendError::DiskFull(_)))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = Pauses { first: Duration::from_millis(10), longest: Duration::from_secs(1) };
        for (failures, most) in [(1, 10), (2, 20), (4, 80), (8, 1000), (40, 1000), (u32::MAX, 1000)] {
            let pause = pauses.after(failures);
            assert!(
                pause <= Duration::from_millis(most) && pause >= Duration::from_millis(most / 2),
                "{failures}: {pause:?}"
            );
        }
    }
}
