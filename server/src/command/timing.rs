//! The rule for times of imported events: never smaller than the event's before, never far ahead.

use annals::{Timestamp, limits};

/// The rule, and how often it raised a time.
#[derive(Debug)]
pub(super) struct TimeRule {
    floor: Option<Timestamp>,
    clock: fn() -> Timestamp,
    now: Timestamp,
    raised: u64,
}

/// Why an event cannot have its time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("its time is more than a minute ahead of the clock and of the event before it")]
pub(super) struct TooFarAhead;

impl TimeRule {
    /// Begins without knowing any time but that of this clock.
    pub(super) fn new(clock: fn() -> Timestamp) -> Self {
        Self { floor: None, clock, now: clock(), raised: 0 }
    }

    /// The time of the event before, where it is known.
    pub(super) fn floor(&self) -> Option<Timestamp> {
        self.floor
    }

    /// Notes the time of the event before; `None` where the store gives it one.
    pub(super) fn set_floor(&mut self, floor: Option<Timestamp>) {
        self.floor = floor;
    }

    /// How many times were raised.
    pub(super) fn raised(&self) -> u64 {
        self.raised
    }

    /// The time that an event gets that comes after one with the time `floor`.
    pub(super) fn admit(&mut self, given: Timestamp, floor: Timestamp) -> Result<Timestamp, TooFarAhead> {
        if self.is_far_ahead(given, floor) {
            return Err(TooFarAhead);
        }
        self.raised += u64::from(given < floor);
        let time = given.max(floor);
        self.floor = Some(time);
        Ok(time)
    }

    /// The clock is asked only where the answer may depend on it.
    fn is_far_ahead(&mut self, given: Timestamp, floor: Timestamp) -> bool {
        let is_ahead = |of: Timestamp| given.get() > of.get().saturating_add(limits::TIME_AHEAD_NS_MAX);
        if !is_ahead(floor) || !is_ahead(self.now) {
            return false;
        }
        self.now = (self.clock)();
        is_ahead(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::new(1_000_000_000_000_000_000);

    fn rule() -> TimeRule {
        TimeRule::new(|| NOW)
    }

    #[test]
    fn times_that_run_backwards_are_raised_and_counted() {
        let mut rule = rule();
        for (given, expected) in [(5, 5), (3, 5), (5, 5), (9, 9), (0, 9)] {
            let floor = rule.floor().unwrap_or_default();
            assert_eq!(rule.admit(Timestamp::new(given), floor), Ok(Timestamp::new(expected)));
        }
        assert_eq!(rule.raised(), 2);
    }

    #[test]
    fn a_far_future_is_refused_and_leaves_no_trace() {
        let mut rule = rule();
        let edge = Timestamp::new(NOW.get() + limits::TIME_AHEAD_NS_MAX);
        assert_eq!(rule.admit(edge.plus(1), NOW), Err(TooFarAhead));
        assert_eq!(rule.admit(Timestamp::new(u64::MAX), NOW), Err(TooFarAhead));
        assert_eq!(rule.floor(), None);
        assert_eq!(rule.admit(edge, NOW), Ok(edge));
        // A minute ahead of the event before is enough.
        let next = edge.plus(limits::TIME_AHEAD_NS_MAX);
        assert_eq!(rule.admit(next, edge), Ok(next));
    }
}
