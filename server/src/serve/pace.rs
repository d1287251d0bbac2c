//! Turns of those who share the processors with who appends. Many who follow a busy store are sent more at a time instead, a little
//! later; and who asks for more than the processors can do beside is looked at more slowly.

use super::now;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Between the turns of two followers: all together have 5,000 a second.
const INTERVAL_EACH: Duration = Duration::from_micros(200);
/// Whose turn is as soon as that is not kept waiting: timers are no finer.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// Nobody waits longer than about that for what is there: where so many follow, their turns lie closer together.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// What requests other than appends may take of each processor, all together: a half.
const SHARE: u32 = 2;

/// Turns, one after the other.
#[derive(Debug, Default)]
struct Turns {
    /// When the next one may be.
    next: Mutex<Option<Instant>>,
}

impl Turns {
    /// The next turn of who asks at this moment, and takes so long.
    fn next(&self, now: Instant, length: Duration) -> Instant {
        let mut next = self.next.lock();
        // Turns that are not taken, as those who had them have left, do not add up.
        let turn = next.map_or(now, |next| next.clamp(now, now + WAIT_MAX));
        *next = Some(turn + length);
        turn
    }

    /// Waits for it.
    async fn take(&self, length: Duration) {
        let now = now();
        let turn = self.next(now, length);
        if turn.saturating_duration_since(now) >= WAIT_MIN {
            tokio::time::sleep_until(turn).await;
        }
    }
}

/// How fast requests other than appends are looked at: as fast as they come, until they would leave too little to who appends.
#[derive(Debug)]
pub(super) struct Looks {
    turns: Turns,
    processors: u32,
}

impl Looks {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { turns: Turns::default(), processors: u32::try_from(processors).unwrap_or(u32::MAX) }
    }

    /// Waits until requests may be looked at that take about so much of a processor.
    pub(super) async fn turn(&self, takes: Duration) {
        self.turns.take(self.length(takes)).await;
    }

    /// How long a turn is.
    fn length(&self, takes: Duration) -> Duration {
        takes * SHARE / self.processors
    }
}

/// Hands out turns to those who follow: were all sent something at the same moment, whoever appends would wait for all of that.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many follow.
    count: AtomicUsize,
    turns: Turns,
}

/// One who follows, as long as it does.
#[derive(Debug)]
pub(super) struct Follower<'a>(&'a Pace);

impl Pace {
    pub(super) fn enter(&self) -> Follower<'_> {
        self.count.fetch_add(1, Ordering::Relaxed);
        Follower(self)
    }

    /// How long a turn is.
    fn each(&self) -> Duration {
        let count = u32::try_from(self.count.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        INTERVAL_EACH.min(WAIT_MAX / count.max(1))
    }
}

impl Follower<'_> {
    /// Waits until it may be sent something: each asks before it is, so that a few never wait.
    pub(super) async fn turn(&mut self) {
        self.0.turns.take(self.0.each()).await;
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
            (0..count).map(|_| pace.turns.next(now, pace.each())).last().unwrap() - now
        };
        assert!(last_turn(5, begun, &mut followers) < WAIT_MIN);
        let later = begun + Duration::from_secs(1);
        assert_eq!(last_turn(200, later, &mut followers), 199 * INTERVAL_EACH);
        let later = later + Duration::from_secs(1);
        let last = last_turn(10_000, later, &mut followers);
        assert!(last < WAIT_MAX && last > WAIT_MAX * 9 / 10, "{last:?}");
        followers.clear();
        assert_eq!(pace.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn requests_are_looked_at_as_they_come_until_they_take_half_of_the_processors() {
        let (looks, begun) = (Looks { turns: Turns::default(), processors: 4 }, now());
        let takes = Duration::from_micros(20);
        // Each processor has half a second in each for them.
        let length = looks.length(takes);
        assert_eq!(length * 4 * 500_000 / 20, Duration::from_secs(1));
        let last = (0..1_000).map(|_| looks.turns.next(begun, length)).last().unwrap();
        assert_eq!(last - begun, 999 * length);
        // Who comes later than that waits for nothing.
        let later = begun + Duration::from_secs(1);
        assert_eq!(looks.turns.next(later, length), later);
    }
}
