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

/// What requests other than appends may take of each processor, all together, and new connections: a half.
const SHARE: u32 = 2;
/// How many times as long as the turns of its own requests a connection waits at the most.
const WAIT_OF_OWN: u32 = 64;
/// What letting a connection in, and hearing who it is, takes of a processor about.
const CONNECTION_TAKES: Duration = Duration::from_micros(100);

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
        wait(now, self.next(now, length)).await;
    }
}

async fn wait(now: Instant, turn: Instant) {
    if turn.saturating_duration_since(now) >= WAIT_MIN {
        tokio::time::sleep_until(turn).await;
    }
}

/// How fast requests other than appends are looked at, and new connections: as fast as they come, until they would leave too little to who
/// appends.
#[derive(Debug)]
pub(super) struct Looks {
    requests: Turns,
    connections: Turns,
    processors: u32,
}

/// What one connection has asked for.
#[derive(Debug, Default)]
pub(super) struct Asks(Turns);

impl Looks {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let processors = u32::try_from(processors).unwrap_or(u32::MAX);
        Self { requests: Turns::default(), connections: Turns::default(), processors }
    }

    /// Waits until requests of a connection may be looked at that take about so much of a processor.
    pub(super) async fn turn(&self, asks: &Asks, takes: Duration) {
        let now = now();
        wait(now, self.turn_of(asks, now, self.length(takes))).await;
    }

    /// Waits until one more connection may be let in.
    pub(super) async fn connection(&self) {
        self.connections.take(self.length(CONNECTION_TAKES)).await;
    }

    /// When that is: behind all others, but who asks for little waits little, however much others ask for.
    fn turn_of(&self, asks: &Asks, now: Instant, length: Duration) -> Instant {
        let of_own = asks.0.next(now, length) + length - now;
        let of_all = self.requests.next(now, length) - now;
        now + of_all.min(of_own * WAIT_OF_OWN)
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
        let (looks, begun) = (Looks { processors: 4, ..Looks::new() }, now());
        let takes = Duration::from_micros(20);
        let asks = Asks::default();
        // Each processor has half a second in each for them.
        let length = looks.length(takes);
        assert_eq!(length * 4 * 500_000 / 20, Duration::from_secs(1));
        let last = (0..1_000).map(|_| looks.turn_of(&asks, begun, length)).last().unwrap();
        assert_eq!(last - begun, 999 * length);
        // Who comes later than that waits for nothing.
        let later = begun + Duration::from_secs(1);
        assert_eq!(looks.turn_of(&asks, later, length), later);
    }

    #[test]
    fn who_asks_for_little_waits_little_though_others_ask_for_more_than_can_be_done() {
        let (looks, now) = (Looks::new(), now());
        let (much, little) = (Asks::default(), Asks::default());
        let length = Duration::from_micros(20);
        let last = (0..10_000).map(|_| looks.turn_of(&much, now, length)).last().unwrap();
        assert_eq!(last - now, WAIT_MAX);
        assert_eq!(looks.turn_of(&little, now, length) - now, WAIT_OF_OWN * length);
    }
}
