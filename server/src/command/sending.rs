//! Batches of an import on their way: built, sent, and awaited in order.

use crate::failure::Failure;
use crate::source::{Pending, Source};
use annals::{Append, AppendError, NewEvent, Uuid};
use std::collections::VecDeque;

/// Batches in flight before the oldest is awaited: enough that the disk always has work.
const BATCHES_IN_FLIGHT_MAX: usize = 64;
/// Bytes in flight before the oldest is awaited: a server takes them from a buffer of ours.
const BYTES_IN_FLIGHT_MAX: usize = 64 << 20;

/// A batch being filled.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    events: Vec<NewEvent<'a>>,
    /// Of the events' data, about.
    bytes: usize,
    /// Ids that lines gave, with the number of the line: to name it when the store refuses the id.
    given: Vec<(Uuid, u64)>,
}

impl<'a> Batch<'a> {
    /// An empty batch with room.
    pub(super) fn with_capacity(events: usize) -> Self {
        Self { events: Vec::with_capacity(events), ..Self::default() }
    }

    /// Adds an event; `given` where its line gave its id.
    pub(super) fn push(&mut self, event: NewEvent<'a>, given: Option<(Uuid, u64)>) {
        self.bytes += event.data.len() + event.metadata.len();
        self.events.push(event);
        self.given.extend(given);
    }

    /// How many events it has.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether an event with a time, or one without, can be in it: a batch has only one sort.
    pub(super) fn admits(&self, is_timed: bool) -> bool {
        self.events.first().is_none_or(|first| first.time.is_some() == is_timed)
    }
}

/// What became of the batches that are settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Settled {
    /// Events newly added.
    pub(super) events: u64,
    /// Events that the store says it had.
    pub(super) repeated: u64,
}

/// Batches that are sent and not settled, oldest first.
#[derive(Debug, Default)]
pub(super) struct Flight {
    sent: VecDeque<Sent>,
    bytes: usize,
    settled: Settled,
}

#[derive(Debug)]
struct Sent {
    pending: Pending,
    given: Vec<(Uuid, u64)>,
    bytes: usize,
}

impl Flight {
    /// Sends a batch, unless it is empty; waits for the oldest where too many are in flight.
    pub(super) fn send(&mut self, store: &Source, batch: Batch<'_>) -> Result<(), Failure> {
        if batch.events.is_empty() {
            return Ok(());
        }
        while self.sent.len() >= BATCHES_IN_FLIGHT_MAX
            || self.bytes + batch.bytes > BYTES_IN_FLIGHT_MAX && !self.sent.is_empty()
        {
            self.settle_oldest()?;
        }
        let bytes = batch.bytes;
        // Times were raised and counted already. This covers what the clock gave to events without one.
        let append: Append<'_> = batch.events.into_iter().collect();
        match store.append(append.raise_times()) {
            Ok(pending) => {
                self.sent.push_back(Sent { pending, given: batch.given, bytes });
                self.bytes += bytes;
                Ok(())
            }
            Err(failure) => Err(named(failure, &batch.given)),
        }
    }

    /// Waits for every batch in flight, and gives the first failure of any.
    pub(super) fn settle_all(&mut self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        while !self.sent.is_empty() {
            outcome = outcome.and(self.settle_oldest());
        }
        outcome
    }

    /// What became of the batches settled so far.
    pub(super) fn settled(&self) -> Settled {
        self.settled
    }

    fn settle_oldest(&mut self) -> Result<(), Failure> {
        let Some(Sent { pending, given, bytes }) = self.sent.pop_front() else { return Ok(()) };
        self.bytes -= bytes;
        let appended = pending.wait().map_err(|failure| named(failure, &given))?;
        let count = appended.positions.end.get() - appended.positions.start.get();
        if appended.repeated {
            self.settled.repeated += count;
        } else {
            self.settled.events += count;
        }
        Ok(())
    }
}

/// The failure of a batch, as that of a line where one is to blame.
fn named(failure: Failure, given: &[(Uuid, u64)]) -> Failure {
    let line = match &failure {
        Failure::Append(AppendError::IdConflict { id, .. }) => given.iter().find(|(given, _)| given == id),
        _ => None,
    };
    match line {
        Some(&(_, line)) => Failure::BadLine { line, reason: failure.to_string() },
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals::{Position, Timestamp};

    #[test]
    fn a_batch_has_only_one_sort_of_events() {
        let mut batch = Batch::default();
        assert!(batch.admits(true) && batch.admits(false));
        batch.push(NewEvent::new("a", "T").time(Timestamp::new(1)), None);
        assert!(batch.admits(true) && !batch.admits(false));
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn a_refused_id_names_its_line() {
        let id = Uuid::from_u128(7);
        let conflict = || Failure::Append(AppendError::IdConflict { id, position: Some(Position::new(3)) });
        let failure = named(conflict(), &[(Uuid::from_u128(1), 10), (id, 11)]);
        assert!(matches!(failure, Failure::BadLine { line: 11, .. }));
        assert!(matches!(named(conflict(), &[]), Failure::Append(_)));
    }
}
