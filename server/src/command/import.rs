//! `annals import`: appends JSON lines in order, pipelined, adding nothing twice.
//!
//! One thread reads, decompresses, splits and parses; this one judges and appends; the store's own
//! writes. Per line: one pass over its JSON, one hash for its id, one look-up of its stream.

use super::arguments::Import as Options;
use super::known::{Known, Verdict};
use super::notes::Notes;
use super::parsed::{Identified, Line, ParsedChunk};
use super::sending::{Batch, Flight};
use super::timing::TimeRule;
use crate::clock::{self, Stopwatch};
use crate::config::Config;
use crate::failure::Failure;
use crate::lines::{Lines, Received};
use crate::output::Output;
use crate::progress::{Progress, Unit};
use crate::signals::StopRequest;
use crate::source::Source;
use annals::{NewEvent, Position, Read, Timestamp, Uuid, limits};
use annals_client::ClientError;
use serde::Serialize;
use std::io::Write;
use std::time::Duration;

/// Events a batch where nothing says otherwise.
const BATCH_EVENTS_DEFAULT: usize = 1000;
/// How long a wait for lines lasts before signals are looked at again.
const PATIENCE: Duration = Duration::from_millis(100);

/// What came of an import, in the order in which it is printed.
#[derive(Serialize)]
struct Summary {
    lines: u64,
    events: u64,
    repeated: u64,
    skipped: u64,
    time_raised: u64,
    streams: u64,
    seconds: f64,
    events_per_second: u64,
}

/// Imports a file; prints the summary whatever happens.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let batch_events = batch_events(options.batch.or(config.batch))?;
    let stop = StopRequest::watch()?;
    let stopwatch = Stopwatch::start();
    // Before the store: a file that is not there must not leave an empty store behind.
    let mut lines = Lines::open(&options.file, batch_events, ParsedChunk::of)?;
    let store = config.open_for_writing(&options.tuning)?;
    let mut import = Import {
        store: &store,
        batch_events,
        skip_bad: options.skip_bad,
        known: Known::new(store.next_position()? == Position::ZERO),
        times: TimeRule::new(clock::now),
        flight: Flight::default(),
        notes: Notes::new(config.json),
        lines: 0,
        repeated: 0,
        skipped: 0,
    };
    let outcome = import.take_lines(&mut lines, &stop);
    let settled = import.flight.settle_all();
    let summary = import.summary(stopwatch.elapsed());
    let outcome = worse(outcome, settled).map_err(|failure| match failure {
        Failure::Server(
            error @ (ClientError::Lost { .. } | ClientError::Unreachable { .. } | ClientError::Late),
        ) => Failure::ImportLost(error),
        failure => failure,
    });
    let printed = print(config.json, &summary);
    let closed = store.close();
    outcome.and(printed).and(closed)
}

fn batch_events(asked: Option<u64>) -> Result<usize, Failure> {
    let Some(asked) = asked else { return Ok(BATCH_EVENTS_DEFAULT) };
    match usize::try_from(asked) {
        Ok(count) if (1..=limits::BATCH_EVENTS_MAX).contains(&count) => Ok(count),
        _ => {
            let max = limits::BATCH_EVENTS_MAX;
            Err(Failure::Usage(format!("--batch {asked}: a batch has 1 to {max} events")))
        }
    }
}

/// The failure to tell of: one of the store's before one of the file's.
fn worse(taken: Result<(), Failure>, settled: Result<(), Failure>) -> Result<(), Failure> {
    match (taken, settled) {
        (Err(Failure::BadLine { .. } | Failure::Interrupted), Err(failure)) => Err(failure),
        (taken, settled) => taken.and(settled),
    }
}

/// An import under way.
struct Import<'s> {
    store: &'s Source,
    batch_events: usize,
    skip_bad: bool,
    known: Known,
    times: TimeRule,
    flight: Flight,
    notes: Notes,
    lines: u64,
    repeated: u64,
    skipped: u64,
}

/// Why a line was not taken: it is bad itself, or nothing can go on.
enum Refusal {
    Line(String),
    Run(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Run(failure)
    }
}

impl Import<'_> {
    fn take_lines(&mut self, lines: &mut Lines<ParsedChunk>, stop: &StopRequest) -> Result<(), Failure> {
        let mut progress = Progress::start(Unit::Bytes);
        let outcome = loop {
            if stop.is_set() {
                break Err(Failure::Interrupted);
            }
            let taken = match lines.receive(PATIENCE) {
                Ok(Received::Chunk(chunk)) => chunk.take_lines(|lines| self.take_chunk(lines)),
                Ok(Received::Nothing) => Ok(()),
                Ok(Received::End) => break Ok(()),
                Err(failure) => Err(failure),
            };
            if taken.is_err() {
                break taken;
            }
            let (done, total) = lines.progress();
            progress.show(done, total);
        };
        progress.clear();
        outcome
    }

    /// Takes the lines of a chunk, and sends all of them: batches borrow from their chunk.
    fn take_chunk(&mut self, lines: Vec<Line<'_>>) -> Result<(), Failure> {
        let mut batch = Batch::with_capacity(self.batch_events);
        for line in lines {
            let number = line.number;
            match self.take_line(line, &mut batch) {
                Ok(()) => self.lines += 1,
                Err(Refusal::Run(failure)) => return Err(failure),
                Err(Refusal::Line(reason)) if self.skip_bad => {
                    self.lines += 1;
                    self.skipped += 1;
                    self.notes.bad_line(number, &reason);
                }
                Err(Refusal::Line(reason)) => {
                    self.send(&mut batch)?;
                    return Err(Failure::BadLine { line: number, reason });
                }
            }
            if batch.len() >= self.batch_events {
                self.send(&mut batch)?;
            }
        }
        self.send(&mut batch)
    }

    fn take_line<'a>(&mut self, line: Line<'a>, batch: &mut Batch<'a>) -> Result<(), Refusal> {
        let bad = |reason: &dyn std::fmt::Display| Refusal::Line(reason.to_string());
        self.notes.unknown_fields(&line.unknown);
        let Identified { mut event, id, is_id_given } = line.event.map_err(|error| bad(&error))?;
        if self.is_repeated(&event, id, is_id_given, batch)? {
            self.repeated += 1;
            return Ok(());
        }
        if !batch.admits(event.time.is_some()) {
            self.send(batch)?;
        }
        match event.time {
            Some(time) => {
                let floor = self.floor()?;
                event.time = Some(self.times.admit(time, floor).map_err(|error| bad(&error))?);
            }
            // The store gives it the clock's time; what that is shows only once it is appended.
            None => self.times.set_floor(None),
        }
        batch.push(event, is_id_given.then_some((id, line.number)));
        Ok(())
    }

    /// Whether the store, or what is on its way there, has this event already.
    fn is_repeated<'a>(
        &mut self,
        event: &NewEvent<'a>,
        id: Uuid,
        is_id_given: bool,
        batch: &mut Batch<'a>,
    ) -> Result<bool, Refusal> {
        let mut verdict = self.known.judge(self.store, event, id, is_id_given)?;
        if verdict == Verdict::Unsettled {
            self.send(batch)?;
            self.flight.settle_all()?;
            verdict = self.known.judge_settled(self.store, event, id)?;
        }
        match verdict {
            Verdict::New | Verdict::Unsettled => Ok(false),
            Verdict::Repeated => Ok(true),
            Verdict::Conflict(version) => Err(Refusal::Line(format!(
                "its id {id} is that of version {version} of the stream, which has another type or other data \
                 than this \"{}\" of {} bytes",
                event.event_type,
                event.data.len()
            ))),
        }
    }

    /// The time of the event before the next. Events without a time must be appended to have one.
    fn floor(&mut self) -> Result<Timestamp, Failure> {
        if let Some(floor) = self.times.floor() {
            return Ok(floor);
        }
        self.flight.settle_all()?;
        let last = self.store.read(Read::all().backwards().limit(1))?.next().transpose()?;
        let floor = last.map_or(Timestamp::ZERO, |record| record.time());
        self.times.set_floor(Some(floor));
        Ok(floor)
    }

    /// Sends the batch and leaves an empty one.
    fn send(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure> {
        if batch.len() == 0 {
            return Ok(());
        }
        let full = std::mem::replace(batch, Batch::with_capacity(self.batch_events));
        self.flight.send(self.store, full)
    }

    fn summary(&self, elapsed: Duration) -> Summary {
        let settled = self.flight.settled();
        let milliseconds = elapsed.as_millis().max(1);
        let events_per_second = u128::from(settled.events) * 1000 / milliseconds;
        Summary {
            lines: self.lines,
            events: settled.events,
            repeated: self.repeated + settled.repeated,
            skipped: self.skipped,
            time_raised: self.times.raised(),
            streams: self.known.streams(),
            seconds: (elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
            events_per_second: u64::try_from(events_per_second).unwrap_or(u64::MAX),
        }
    }
}

fn print(json: bool, summary: &Summary) -> Result<(), Failure> {
    let mut output = Output::open();
    let printed =
        if json { output.json_line(summary) } else { output.write(|out| write_readable(out, summary)) };
    output.finish(printed)
}

fn write_readable(out: &mut impl Write, summary: &Summary) -> std::io::Result<()> {
    write!(out, "{} events in {} streams from {} lines", summary.events, summary.streams, summary.lines)?;
    for (count, what) in [
        (summary.repeated, "repeated"),
        (summary.skipped, "skipped"),
        (summary.time_raised, "with a raised time"),
    ] {
        if count > 0 {
            write!(out, ", {count} {what}")?;
        }
    }
    writeln!(out, ", in {} s ({} events/s)", summary.seconds, summary.events_per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_their_limits() {
        assert_eq!(batch_events(None).unwrap(), 1000);
        assert_eq!(batch_events(Some(10_000)).unwrap(), 10_000);
        for asked in [0, 10_001, u64::MAX] {
            assert!(matches!(batch_events(Some(asked)), Err(Failure::Usage(_))));
        }
    }

    #[test]
    fn the_stores_failure_is_told_before_the_files() {
        let full = || Err(Failure::Append(annals::AppendError::ReadOnly));
        let bad = || Err(Failure::BadLine { line: 1, reason: String::new() });
        assert!(matches!(worse(bad(), full()), Err(Failure::Append(_))));
        assert!(matches!(worse(bad(), Ok(())), Err(Failure::BadLine { .. })));
        assert!(matches!(worse(full(), bad()), Err(Failure::Append(_))));
        assert!(worse(Ok(()), Ok(())).is_ok());
    }
}
