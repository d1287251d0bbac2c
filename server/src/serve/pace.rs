//! How often those who follow are sent something: many who follow a busy store share the processors with who appends to it, and
//! are sent more at a time instead, a little later.

use super::now;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Between the turns of two followers: all together have 10,000 a second.
const INTERVAL_EACH: Duration = Duration::from_micros(100);
/// Whose turn is as soon as that is not kept waiting: timers are no finer.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// Nobody waits longer than about that for what is there: where so many follow, their turns lie closer together.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Hands out turns, one after the other: were all sent something at the same moment, whoever appends would wait for all of that.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many follow.
    count: AtomicUsize,
    /// When the next turn may be.
    next: Mutex<Option<Instant>>,
}

/// One who follows, as long as it does.
#[derive(Debug)]
pub(super) struct Follower<'a>(&'a Pace);

impl Pace {
    pub(super) fn enter(&self) -> Follower<'_> {
        self.count.fetch_add(1, Ordering::Relaxed);
        Follower(self)
    }

    /// The next turn of who asks at this moment.
    fn turn(&self, now: Instant) -> Instant {
        let count = u32::try_from(self.count.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let each = INTERVAL_EACH.min(WAIT_MAX / count.max(1));
        let mut next = self.next.lock();
        // Turns that are not taken, as those who had them have left, do not add up.
        let turn = next.map_or(now, |next| next.clamp(now, now + WAIT_MAX));
        *next = Some(turn + each);
        turn
    }
}

impl Follower<'_> {
    /// Waits until it may be sent something: each asks before it is, so that a few never wait.
    pub(super) async fn turn(&mut self) {
        let now = now();
        let turn = self.0.turn(now);
        if turn.saturating_duration_since(now) >= WAIT_MIN {
            tokio::time::sleep_until(turn).await;
        }
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_sent_all_at_once_and_many_one_after_the_other() {
        let pace = Pace::default();
        let (begun, mut followers) = (now(), Vec::new());
        let last_turn = |count: usize, now: Instant, followers: &mut Vec<_>| {
            followers.resize_with(count, || pace.enter());
            (0..count).map(|_| pace.turn(now)).last().unwrap() - now
        };
        assert!(last_turn(10, begun, &mut followers) < WAIT_MIN);
        let later = begun + Duration::from_secs(1);
        assert_eq!(last_turn(200, later, &mut followers), 199 * INTERVAL_EACH);
        let later = later + Duration::from_secs(1);
        let last = last_turn(10_000, later, &mut followers);
        assert!(last < WAIT_MAX && last > WAIT_MAX * 9 / 10, "{last:?}");
        followers.clear();
        assert_eq!(pace.count.load(Ordering::Relaxed), 0);
    }
}
