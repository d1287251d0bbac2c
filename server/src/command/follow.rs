//! `annals follow`: events as they come, until a signal.

use super::arguments::Follow;
use super::read::print_event;
use super::selected_stream;
use super::values::Start;
use crate::config::Config;
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::StopRequest;
use annals::{Position, Read, ReadError, Store, Version};
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
    let stream = selected_stream(&options.selection)?;
    let stop = StopRequest::watch()?;
    let mut store = config.open_for_reading()?;
    let mut cursor = Cursor::start(&store, stream, options.from)?;
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
    let waited_for = store.next_position().max(cursor.waited_for_min());
    for record in store.read(cursor.rest())? {
        let record = record?;
        print_event(output, &record, json)?;
        cursor.next = match cursor.stream {
            Some(_) => record.version().get() + 1,
            None => record.position().get() + 1,
        };
        if stop.is_set() {
            break;
        }
    }
    output.flush()?;
    if !stop.is_set() {
        store.wait_for(waited_for, PATIENCE)?;
        output.check_reader()?;
    }
    Ok(())
}

/// What is printed next: a position, or a version of the one stream that is followed.
struct Cursor<'a> {
    stream: Option<&'a str>,
    next: u64,
}

impl<'a> Cursor<'a> {
    fn start(store: &Store, stream: Option<&'a str>, from: Start) -> Result<Self, Failure> {
        let next = match (from, stream) {
            (Start::First, _) => 0,
            (Start::Number(number), _) => number,
            (Start::Next, None) => store.next_position().get(),
            (Start::Next, Some(stream)) => store.head(stream)?.map_or(0, |head| head.version.plus(1).get()),
        };
        Ok(Self { stream, next })
    }

    /// All that is not printed yet.
    fn rest(&self) -> Read<'a> {
        match self.stream {
            Some(stream) => Read::stream(stream).from(Version::new(self.next)),
            None => Read::all().from(Position::new(self.next)),
        }
    }

    /// Nothing before this position can be of interest. A stream's next event can be anywhere.
    fn waited_for_min(&self) -> Position {
        if self.stream.is_some() { Position::ZERO } else { Position::new(self.next) }
    }
}
