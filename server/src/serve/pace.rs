//! How often those who follow are sent something: many who follow a busy store share the processors with who appends to it, and
//! are sent more at a time instead, a little later.

use super::now;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What one more follower adds to the time between two sends to each: all together have some 10,000 sends a second.
const INTERVAL_EACH: Duration = Duration::from_micros(100);
/// With shorter ones nobody is kept waiting: timers are no finer.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// Nobody waits longer than that for what is there.
const INTERVAL_MAX: Duration = Duration::from_millis(50);

/// How many follow.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicUsize);

/// One who follows, as long as it does.
#[derive(Debug)]
pub(super) struct Follower<'a> {
    pace: &'a Pace,
    sent: Option<Instant>,
}

impl Pace {
    pub(super) fn enter(&self) -> Follower<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Follower { pace: self, sent: None }
    }

    fn interval(&self) -> Duration {
        let count = u32::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        INTERVAL_EACH.saturating_mul(count).min(INTERVAL_MAX)
    }
}

impl Follower<'_> {
    /// Waits until it may be sent something again: who was sent nothing for a while, not at all.
    pub(super) async fn turn(&mut self) {
        let interval = self.pace.interval();
        if let Some(sent) = self.sent
            && interval >= INTERVAL_MIN
        {
            tokio::time::sleep_until(sent + interval).await;
        }
        self.sent = Some(now());
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        self.pace.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_sent_all_at_once_and_many_share() {
        let pace = Pace::default();
        let mut followers: Vec<_> = (0..9).map(|_| pace.enter()).collect();
        assert!(pace.interval() < INTERVAL_MIN);
        followers.extend((0..191).map(|_| pace.enter()));
        assert_eq!(pace.interval(), Duration::from_millis(20));
        followers.extend((0..9_000).map(|_| pace.enter()));
        assert_eq!(pace.interval(), INTERVAL_MAX);
        followers.clear();
        assert_eq!(pace.interval(), Duration::ZERO);
    }
}
