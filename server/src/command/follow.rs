//! `annals follow`: events as they come, until a signal.

use super::arguments::Follow;
use super::read::print_event;
use super::values::Start;
use crate::config::Config;
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::StopRequest;
use annals::{Bound, Position, Read, ReadError, Store, Version};
use std::time::Duration;

/// How long a wait for new events lasts before signals are looked at again.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause before another attempt when the store's files could not be read.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Attempts to go on before it counts as a failure: a writer that restarts moves files within moments.
const ATTEMPTS_MAX: u32 = 20;

/// Prints events from the given place on, for ever. A signal ends it, as planned.
pub(super) fn run(config: &Config, options: &Follow) -> Result<(), Failure> {
    if options.subscription.is_some() {
        return Err(Failure::NotYet("following as a subscription (--subscription)".to_owned()));
    }
    let read = options.selection.read();
    read.validate().map_err(ReadError::Input)?;
    let stop = StopRequest::watch()?;
    let mut store = config.open_for_reading()?;
    let mut cursor = Cursor::start(&store, read, options.from)?;
    let mut output = Output::open();
    let mut failed_attempts = 0;
    while !stop.is_set() {
        match advance(&store, &mut cursor, &mut output, config.json, &stop) {
            Ok(()) => failed_attempts = 0,
            Err(Failure::Read(ReadError::Io(_))) if failed_attempts < ATTEMPTS_MAX => {
                failed_attempts += 1;
                std::thread::sleep(RETRY_PAUSE);
                // Where even that fails, the store at hand is as good as any for the next attempt.
                store = config.open_for_reading().unwrap_or(store);
            }
            Err(failure) => return output.finish(Err(failure)),
        }
    }
    output.finish(Ok(()))
}

/// Prints what is there, then waits for more.
fn advance(
    store: &Store,
    cursor: &mut Cursor<'_>,
    output: &mut Output,
    json: bool,
    stop: &StopRequest,
) -> Result<(), Failure> {
    // Taken before reading: what is appended meanwhile ends the wait at once.
    let seen = store.next_position();
    let waited_for = seen.max(cursor.waited_for_min());
    for record in store.read(cursor.rest())? {
        let record = record?;
        print_event(output, &record, json)?;
        cursor.next = Bound::Position(record.position().plus(1));
        if stop.is_set() {
            break;
        }
    }
    if !stop.is_set() {
        cursor.nothing_before(seen);
    }
    output.flush()?;
    if !stop.is_set() {
        store.wait_for(waited_for, PATIENCE)?;
        output.check_reader()?;
    }
    Ok(())
}

/// What is followed, and what is printed next: a place in the order, or a version of the one stream that is followed.
struct Cursor<'a> {
    read: Read<'a>,
    next: Bound,
}

impl<'a> Cursor<'a> {
    fn start(store: &Store, read: Read<'a>, from: Start) -> Result<Self, Failure> {
        let next = match (from, &read.stream) {
            (Start::First, _) => Bound::Position(Position::ZERO),
            (Start::Number(number), None) => Bound::Position(Position::new(number)),
            (Start::Number(number), Some(_)) => Bound::Version(Version::new(number)),
            (Start::Next, None) => Bound::Position(store.next_position()),
            (Start::Next, Some(stream)) => {
                Bound::Version(store.head(stream)?.map_or(Version::ZERO, |head| head.version.plus(1)))
            }
        };
        Ok(Self { read, next })
    }

    /// All that is not printed yet.
    fn rest(&self) -> Read<'a> {
        self.read.clone().from(self.next)
    }

    /// All before this position was looked at: a selection that nothing matches is not searched again and again.
    fn nothing_before(&mut self, seen: Position) {
        if let Bound::Position(next) = &mut self.next {
            *next = (*next).max(seen);
        }
    }

    /// Nothing before this position can be of interest. A stream's next event can be anywhere.
    fn waited_for_min(&self) -> Position {
        match self.next {
            Bound::Position(next) => next,
            _ => Position::ZERO,
        }
    }
}
