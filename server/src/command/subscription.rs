//! `annals subscription`: durable subscriptions, how they stand, and what was set aside.

use super::arguments::{Subscription as Options, SubscriptionAction as Action, SubscriptionCreate};
use super::follow::place;
use super::values::{OrderName, Place, ResetTo, Start as StartName};
use crate::clock;
use crate::config::Config;
use crate::failure::Failure;
use crate::json;
use crate::output::Output;
use crate::source::Source;
use crate::time;
use annals::{
    Bound, Membership, NewSubscription, Parked, ParkedChoice, Position, QueryItem, Read, Start,
    SubscriptionStatus, Timestamp, Version,
};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// How one stands, as it is printed.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    query: Vec<Value>,
    start: Value,
    membership: &'static str,
    order: &'static str,
    in_flight_max: u32,
    handling_timeout_seconds: f64,
    retries: u32,
    backoff_seconds: f64,
    backoff_max_seconds: f64,
    by_cursor: bool,
    next_position: u64,
    lag: u64,
    open: u64,
    parked: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_age_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'a str>,
}

/// A parked event, as it is printed.
#[derive(Serialize)]
struct ParkedLine<'a> {
    position: u64,
    failures: u32,
    time: String,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Box<RawValue>>,
}

/// Does what is asked for.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let write = |change: &dyn Fn(&Source) -> Result<(), Failure>| {
        let store = config.open_existing_for_writing()?;
        let changed = change(&store);
        let closed = store.close();
        changed.and(closed)
    };
    match &options.action {
        Action::Create(create) => write(&|store| {
            let is_created = store.create_subscription(&new(create)?)?;
            let mut output = Output::open();
            let told = match (config.json, is_created) {
                (true, _) => output.json_line(&json!({ "created": is_created })),
                (false, true) => output.write(|out| writeln!(out, "created")),
                (false, false) => {
                    output.write(|out| writeln!(out, "it is there already, with these settings"))
                }
            };
            output.finish(told)
        }),
        Action::List => list(config),
        Action::Show(name) => show(config, &name.name),
        Action::Reset { name, from } => {
            write(&|store| store.reset_subscription(&name.name, start_of(*from, false)))
        }
        Action::Stop { name, reason } => write(&|store| store.stop_subscription(&name.name, reason)),
        Action::Resume(name) => write(&|store| store.resume_subscription(&name.name)),
        Action::Parked(name) => parked(config, &name.name),
        Action::Replay { name, position } => {
            let which = chosen(position);
            write(&|store| tell(config, "replayed", store.replay_parked(&name.name, &which)?))
        }
        Action::Discard { name, position, .. } => {
            let which = chosen(position);
            write(&|store| tell(config, "discarded", store.discard_parked(&name.name, &which)?))
        }
        Action::Delete(name) => write(&|store| store.delete_subscription(&name.name)),
    }
}

/// Those at the positions that were given, or all.
fn chosen(positions: &[u64]) -> ParkedChoice {
    match positions {
        [] => ParkedChoice::All,
        _ => ParkedChoice::At(positions.iter().copied().map(Position::new).collect()),
    }
}

/// Where that is; a number is a version where there is a stream.
fn start_of(to: ResetTo, has_stream: bool) -> Start {
    match to {
        ResetTo::Start(start) => place(start, has_stream),
        ResetTo::Place(Place::Number(number)) if has_stream => Start::From(Version::new(number).into()),
        ResetTo::Place(Place::Number(position)) => Start::From(Position::new(position).into()),
        ResetTo::Place(Place::Time(time)) => Start::From(time.into()),
    }
}

fn new(create: &SubscriptionCreate) -> Result<NewSubscription<'_>, Failure> {
    let read = create.selection.read();
    let seconds = |option: &str, seconds: f64| {
        Duration::try_from_secs_f64(seconds)
            .map_err(|error| Failure::Usage(format!("{option} {seconds}: {error}; give a number of seconds")))
    };
    let new = NewSubscription {
        stream: read.stream,
        query: read.query,
        start: start_of(create.from, create.selection.stream.is_some()),
        membership: if create.shared { Membership::Shared } else { Membership::Exclusive },
        order: create.order.order(),
        in_flight_max: create.in_flight_max,
        handling_timeout: seconds("--handling-timeout", create.handling_timeout)?,
        retries_max: create.retries,
        backoff: seconds("--backoff", create.backoff)?,
        backoff_max: seconds("--backoff-max", create.backoff_max)?,
        ..NewSubscription::new(&*create.name.name)
    };
    Ok(if create.by_cursor { new.by_cursor() } else { new })
}

/// Prints how many there were.
fn tell(config: &Config, what: &str, count: usize) -> Result<(), Failure> {
    let mut output = Output::open();
    let told = if config.json {
        output.json_line(&json!({ what: count }))
    } else {
        output.write(|out| writeln!(out, "{what} {count}"))
    };
    output.finish(told)
}

fn list(config: &Config) -> Result<(), Failure> {
    let all = config.open_for_reading()?.subscriptions()?;
    let mut output = Output::open();
    let printed = all.iter().try_for_each(|status| {
        if config.json {
            return output.json_line(&line(status));
        }
        output.write(|out| write_short(out, &line(status)))
    });
    output.finish(printed)
}

fn show(config: &Config, name: &str) -> Result<(), Failure> {
    let status = config.open_for_reading()?.subscription(name)?;
    let mut output = Output::open();
    let printed = if config.json {
        output.json_line(&line(&status))
    } else {
        output.write(|out| write_long(out, &line(&status)))
    };
    output.finish(printed)
}

fn parked(config: &Config, name: &str) -> Result<(), Failure> {
    let store = config.open_for_reading()?;
    let mut output = Output::open();
    let printed = store.parked(name)?.iter().try_for_each(|parked| {
        let line = parked_line(&store, parked)?;
        if config.json {
            return output.json_line(&line);
        }
        output.write(|out| {
            let ParkedLine { position, failures, time, reason, .. } = &line;
            writeln!(out, "{position:>8}  {time}  failed {failures} times  {}", reason.escape_debug())
        })
    });
    output.finish(printed)
}

fn parked_line<'a>(store: &Source, parked: &'a Parked) -> Result<ParkedLine<'a>, Failure> {
    // Why it was parked is told even where the event cannot be read.
    let event = store.read(Read::all().from(parked.position).limit(1))?.next().and_then(Result::ok);
    let event = event.and_then(|record| {
        let mut text = Vec::new();
        json::write_event(&mut text, &record).ok()?;
        RawValue::from_string(String::from_utf8(text).ok()?.trim_end().to_owned()).ok()
    });
    Ok(ParkedLine {
        position: parked.position.get(),
        failures: parked.failures,
        time: rfc3339(parked.time)?,
        reason: &parked.reason,
        event,
    })
}

fn rfc3339(time: Timestamp) -> Result<String, Failure> {
    let mut text = Vec::new();
    time::write_rfc3339(&mut text, time).map_err(Failure::Output)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn line(status: &SubscriptionStatus) -> Line<'_> {
    let settings = &status.settings;
    let age = |time: Timestamp| Duration::from_nanos(clock::now().get().saturating_sub(time.get()));
    Line {
        name: &settings.name,
        stream: settings.stream.as_deref(),
        query: settings.query.items.iter().map(item_value).collect(),
        start: start_value(status.start),
        membership: match settings.membership {
            Membership::Exclusive => "exclusive",
            Membership::Shared => "shared",
        },
        order: OrderName::of(settings.order),
        in_flight_max: settings.in_flight_max,
        handling_timeout_seconds: settings.handling_timeout.as_secs_f64(),
        retries: settings.retries_max,
        backoff_seconds: settings.backoff.as_secs_f64(),
        backoff_max_seconds: settings.backoff_max.as_secs_f64(),
        by_cursor: settings.by_cursor,
        next_position: status.next.get(),
        lag: status.lag,
        open: status.open,
        parked: status.parked,
        oldest_position: status.oldest.map(|(position, _)| position.get()),
        oldest_age_seconds: status.oldest.map(|(_, time)| age(time).as_secs_f64()),
        stopped: status.stopped.as_deref(),
    }
}

fn item_value(item: &QueryItem<'_>) -> Value {
    let mut value = json!({});
    let lists = [("types", &item.types), ("tags", &item.tags)];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        value[name] = json!(list);
    }
    let texts = [
        ("stream", item.stream.as_deref().map(str::to_owned)),
        ("category", item.category.as_deref().map(str::to_owned)),
        ("correlation", item.correlation.map(|id| id.to_string())),
        ("causation", item.causation.map(|id| id.to_string())),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            value[name] = json!(text);
        }
    }
    value
}

fn start_value(start: Start) -> Value {
    let place = |bound| match bound {
        Bound::Position(position) => json!({ "position": position.get() }),
        Bound::Version(version) => json!({ "version": version.get() }),
        Bound::Time(time) => json!({ "time": rfc3339(time).unwrap_or_default() }),
    };
    match start {
        Start::First => json!("start"),
        Start::End => json!("end"),
        Start::From(bound) => json!({ "from": place(bound) }),
        Start::After(bound) => json!({ "after": place(bound) }),
    }
}

fn write_short(out: &mut impl Write, line: &Line<'_>) -> std::io::Result<()> {
    let Line { name, next_position, lag, open, parked, .. } = line;
    write!(out, "next {next_position:>8}  lag {lag:>8}  open {open:>6}  parked {parked:>6}  ")?;
    write!(out, "{}", name.escape_debug())?;
    match line.stopped {
        Some(reason) => writeln!(out, "  stopped: {}", reason.escape_debug()),
        None => writeln!(out),
    }
}

fn write_long(out: &mut impl Write, line: &Line<'_>) -> std::io::Result<()> {
    let stopped = line.stopped.map_or_else(|| "no".to_owned(), |reason| reason.escape_debug().to_string());
    let oldest = match (line.oldest_position, line.oldest_age_seconds) {
        (Some(position), Some(age)) => format!("position {position}, {age:.0} s old"),
        _ => "none".to_owned(),
    };
    let rows = [
        ("name", line.name.escape_debug().to_string()),
        ("stream", line.stream.map_or_else(|| "all".to_owned(), |stream| stream.escape_debug().to_string())),
        ("query", if line.query.is_empty() { "all".to_owned() } else { json!(line.query).to_string() }),
        ("start", line.start.as_str().map_or_else(|| line.start.to_string(), str::to_owned)),
        ("members", format!("{}, {} events in flight each", line.membership, line.in_flight_max)),
        ("order", line.order.to_owned()),
        ("handling timeout", format!("{} s", line.handling_timeout_seconds)),
        (
            "retries",
            format!("{}, after {} to {} s", line.retries, line.backoff_seconds, line.backoff_max_seconds),
        ),
        ("by cursor", if line.by_cursor { "yes" } else { "no" }.to_owned()),
        ("next position", line.next_position.to_string()),
        ("lag", line.lag.to_string()),
        ("open", line.open.to_string()),
        ("oldest", oldest),
        ("parked", line.parked.to_string()),
        ("stopped", stopped),
    ];
    rows.iter().try_for_each(|(name, value)| writeln!(out, "{name:<18}{value}"))
}

/// What `follow --subscription` creates where there is none: one member, one event at a time, in position order.
pub(super) fn new_for_printing<'a>(name: &'a str, read: Read<'a>, from: StartName) -> NewSubscription<'a> {
    let start = place(from, read.stream.is_some());
    NewSubscription { stream: read.stream, query: read.query, ..NewSubscription::new(name) }
        .start(start)
        .order(OrderName::Total.order())
}
