//! `annals follow`: events as they come, until a signal.

use super::arguments::Follow as Options;
use super::read::print_event;
use super::values::Start;
use crate::config::Config;
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::StopRequest;
use annals::{Follow, Followed, Position, ReadError, Subscription, Version};
use std::time::Duration;

/// How long a wait for new events lasts before signals are looked at again.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause before another attempt when the store's files could not be read.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Attempts to go on before it counts as a failure: a writer that restarts moves files within moments.
const ATTEMPTS_MAX: u32 = 20;

/// Prints events from the given place on, for ever. A signal ends it, as planned.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    if options.subscription.is_some() {
        return Err(Failure::NotYet("following as a subscription (--subscription)".to_owned()));
    }
    let mut follow = followed(options);
    follow.validate().map_err(ReadError::Input)?;
    let stop = StopRequest::watch()?;
    let mut store = config.open_for_reading()?;
    let mut output = Output::open();
    let mut failed_attempts = 0;
    let mut subscription = store.follow(&follow);
    while !stop.is_set() {
        match subscription.map_err(Failure::from).and_then(|subscription| {
            failed_attempts = 0;
            print(subscription, &mut follow, &mut output, config.json, &stop)
        }) {
            Ok(()) => break,
            Err(Failure::Read(ReadError::Io(_))) if failed_attempts < ATTEMPTS_MAX => {
                failed_attempts += 1;
                std::thread::sleep(RETRY_PAUSE);
                // Where even that fails, the store at hand is as good as any for the next attempt.
                store = config.open_for_reading().unwrap_or(store);
                subscription = store.follow(&follow);
            }
            Err(failure) => return output.finish(Err(failure)),
        }
    }
    output.finish(Ok(()))
}

/// What the options ask for.
fn followed(options: &Options) -> Follow<'_> {
    let read = options.selection.read();
    let follow = Follow { stream: read.stream, query: read.query, ..Follow::all() };
    match options.from {
        Start::First => follow,
        Start::Next => follow.from_end(),
        Start::Number(number) if follow.stream.is_some() => follow.from(Version::new(number)),
        Start::Number(number) => follow.from(Position::new(number)),
    }
}

/// Prints what comes until a signal does, and notes in `follow` where another attempt is to go on.
fn print(
    mut subscription: Subscription,
    follow: &mut Follow<'_>,
    output: &mut Output,
    json: bool,
    stop: &StopRequest,
) -> Result<(), Failure> {
    let mut patience = Duration::ZERO;
    while !stop.is_set() {
        let followed = subscription.next_within(patience)?;
        patience = Duration::ZERO;
        match followed {
            Some(Followed::Event(record)) => {
                print_event(output, &record, json)?;
                follow.start = annals::Start::After(record.position().into());
            }
            Some(Followed::CaughtUp { next }) if follow.start == annals::Start::End => {
                follow.start = annals::Start::From(next.into());
            }
            Some(Followed::CaughtUp { .. } | Followed::Progress { .. }) => {}
            None => {
                // Nothing more for the moment: who reads the output has all there is before the wait.
                output.flush()?;
                output.check_reader()?;
                patience = PATIENCE;
            }
        }
    }
    Ok(())
}
