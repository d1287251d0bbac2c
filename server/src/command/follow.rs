//! `annals follow`: events as they come, until a signal.

use super::arguments::Follow as Options;
use super::read::print_event;
use super::subscription::new_for_printing;
use super::values::Start;
use crate::config::Config;
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::StopRequest;
use crate::source::{Following, Member, Source};
use annals::{Follow, Followed, NewSubscription, Position, ReadError, SubscriptionError, Version};
use std::time::Duration;

/// How long a wait for new events lasts before signals are looked at again.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause before another attempt when the store's files could not be read.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Attempts to go on before it counts as a failure: a writer that restarts moves files within moments.
const ATTEMPTS_MAX: u32 = 20;

/// Prints events from the given place on, for ever. A signal ends it, as planned.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    if let Some(name) = &options.subscription {
        return run_as_member(config, options, name);
    }
    let mut follow = followed(options);
    follow.validate().map_err(ReadError::Input)?;
    let stop = StopRequest::watch()?;
    let mut store = config.open_for_reading()?;
    let mut output = Output::open();
    let mut failed_attempts = 0;
    let mut following = store.follow(&follow);
    while !stop.is_set() {
        match following.and_then(|following| {
            failed_attempts = 0;
            print(following, &mut follow, &mut output, config.json, &stop)
        }) {
            Ok(()) => break,
            Err(Failure::Read(ReadError::Io(_))) if failed_attempts < ATTEMPTS_MAX => {
                failed_attempts += 1;
                std::thread::sleep(RETRY_PAUSE);
                // Where even that fails, the store at hand is as good as any for the next attempt.
                store = config.open_for_reading().unwrap_or(store);
                following = store.follow(&follow);
            }
            Err(failure) => return output.finish(Err(failure)),
        }
    }
    output.finish(Ok(()))
}

/// What the options ask for.
fn followed(options: &Options) -> Follow<'_> {
    let read = options.selection.read();
    let start = place(options.from.unwrap_or(Start::Next), read.stream.is_some());
    Follow { stream: read.stream, query: read.query, start, ..Follow::all() }
}

/// Where that is; a number is a version where there is a stream.
pub(super) fn place(start: Start, has_stream: bool) -> annals::Start {
    match start {
        Start::First => annals::Start::First,
        Start::Next => annals::Start::End,
        Start::Number(number) if has_stream => annals::Start::From(Version::new(number).into()),
        Start::Number(number) => annals::Start::From(Position::new(number).into()),
    }
}

/// Prints what a durable subscription hands to a member, which acknowledges what has left for whoever reads the output.
fn run_as_member(config: &Config, options: &Options, name: &str) -> Result<(), Failure> {
    let stop = StopRequest::watch()?;
    let store = config.open_existing_for_writing()?;
    let mut output = Output::open();
    let printed = attach(&store, options, name)
        .and_then(|mut member| print_deliveries(&mut member, &mut output, config.json, &stop));
    let printed = output.finish(printed);
    let closed = store.close();
    printed.and(closed)
}

/// Joins the subscription; creates it where there is none. What was given must be what it is.
fn attach(store: &Source, options: &Options, name: &str) -> Result<Member, Failure> {
    let given = options.selection.read();
    let asked = new_for_printing(name, given, options.from.unwrap_or(Start::Next));
    let there = match store.subscription(name) {
        Ok(there) => there.settings,
        Err(Failure::Subscription(SubscriptionError::Unknown { .. })) => {
            store.create_subscription(&asked)?;
            return store.join(name);
        }
        Err(failure) => return Err(failure),
    };
    let is_selected = asked.stream.is_some() || !asked.query.is_all();
    let like_asked = NewSubscription {
        stream: if is_selected { asked.stream } else { there.stream.clone() },
        query: if is_selected { asked.query } else { there.query.clone() },
        start: if options.from.is_some() { asked.start } else { there.start },
        ..there.clone()
    };
    match there.difference(&like_asked) {
        None => store.join(name),
        Some(difference) => {
            Err(SubscriptionError::Exists { name: name.to_owned(), difference: difference.into() }.into())
        }
    }
}

fn print_deliveries(
    member: &mut Member,
    output: &mut Output,
    json: bool,
    stop: &StopRequest,
) -> Result<(), Failure> {
    while !stop.is_set() {
        match member.next_within(PATIENCE)? {
            Some(delivery) => {
                print_event(output, &delivery, json)?;
                output.flush()?;
                match member.ack(delivery.id) {
                    // Whoever reads the output has taken too long: it was handed out again, and will be printed again.
                    Err(Failure::Subscription(SubscriptionError::NotInFlight { .. })) => {}
                    acknowledged => acknowledged?,
                }
            }
            None => output.check_reader()?,
        }
    }
    Ok(())
}

/// Prints what comes until a signal does, and notes in `follow` where another attempt is to go on.
fn print(
    mut following: Following,
    follow: &mut Follow<'_>,
    output: &mut Output,
    json: bool,
    stop: &StopRequest,
) -> Result<(), Failure> {
    let mut patience = Duration::ZERO;
    while !stop.is_set() {
        let followed = following.next_within(patience)?;
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
