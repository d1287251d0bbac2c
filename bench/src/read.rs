//! Loading: many short streams out of a million events, and a long stream from its snapshot.

use crate::report::{Common, Failure, histogram, microseconds, note, print_line};
use crate::workload::stopwatch;
use annals::{Append, Load, NewEvent, NewSnapshot, Read, Store, Version};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Events of the short streams, ten each.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Loads of each kind.
    #[arg(long, default_value_t = 100_000)]
    loads: u64,
}

const SHORT: u64 = 10;
const BATCH: usize = 100;
const EVENT_BYTES: usize = 256;
/// The long stream, and where its snapshot is.
const LONG: u64 = 1_000;
const SNAPSHOT_AT: u64 = 989;
const SNAPSHOT_BYTES: usize = 1_024;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    std::fs::create_dir_all(&arguments.common.dir)?;
    let dir = tempfile::tempdir_in(&arguments.common.dir)?;
    let store = Store::open(dir.path())?;
    fill(&store, arguments.events)?;
    let streams = (arguments.events / SHORT).max(1);
    let mut random = SmallRng::seed_from_u64(5);
    // Once without being timed: all of it is in memory then.
    for record in store.read(Read::all())? {
        record?;
    }
    let loads = arguments.loads;
    time(arguments, "load_10_events_of_random_streams", loads, SHORT, || {
        count(&store, &Load::stream(name(random.random_range(0..streams))))
    })?;
    // Events that were appended one by one, and ten at a time.
    for batch in [1, SHORT] {
        let named = |work: &str| format!("{work}_by_{batch}");
        let (short, long) = (format!("short-{batch}"), format!("long-{batch}"));
        let load = |stream: &str| Load::stream(stream.to_owned());
        let short = time(arguments, &named("load_10_events"), loads, SHORT, || count(&store, &load(&short)))?;
        let suffix = LONG - SNAPSHOT_AT - 1;
        let from_snapshot =
            time(arguments, &named("load_from_snapshot"), loads, suffix, || count(&store, &load(&long)))?;
        let replay = time(arguments, &named("load_1000_events"), loads.min(2_000), LONG, || {
            count(&store, &load(&long).without_snapshots())
        })?;
        let ratio =
            |of: &Histogram<u64>| (100.0 * microseconds(of, 0.5) / microseconds(&short, 0.5)).round() / 100.0;
        print_line(
            arguments.common.json,
            &json!({"work": named("ratios"), "from_snapshot": ratio(&from_snapshot), "from_the_start": ratio(&replay)}),
        );
    }
    Ok(store.close()?)
}

fn name(number: u64) -> String {
    format!("thing-{number}")
}

/// Streams of ten events that are far apart; and two of each length that are measured by themselves.
fn fill(store: &Store, events: u64) -> Result<(), Failure> {
    let streams = (events / SHORT).max(1);
    let event = |name: String| NewEvent::new(name, "MeasurementTaken").binary(vec![7; EVENT_BYTES]);
    let numbers: Vec<u64> = (0..events).map(|number| number % streams).collect();
    for numbers in numbers.chunks(BATCH) {
        // Durable by the time that the store is read.
        drop(store.append(numbers.iter().map(|&number| event(name(number))).collect::<Append<'_>>())?);
    }
    for batch in [1, SHORT] {
        for (stream, length) in [("long", LONG), ("short", SHORT)] {
            let stream = format!("{stream}-{batch}");
            for _ in 0..length / batch {
                let events = (0..batch).map(|_| event(stream.clone()));
                store.append(events.collect::<Append<'_>>())?.wait()?;
            }
        }
        let (stream, state) = (format!("long-{batch}"), vec![9; SNAPSHOT_BYTES]);
        store.write_snapshot(&NewSnapshot::new(stream, 1, &state), Version::new(SNAPSHOT_AT))?;
    }
    Ok(())
}

fn count(store: &Store, load: &Load<'_>) -> Result<u64, Failure> {
    let mut count = 0;
    for event in store.load(load)?.events {
        event?;
        count += 1;
    }
    Ok(count)
}

/// Loads over and over, and prints how that went.
#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
fn time(
    arguments: &Arguments,
    work: &str,
    loads: u64,
    events_each: u64,
    mut load: impl FnMut() -> Result<u64, Failure>,
) -> Result<Histogram<u64>, Failure> {
    let (mut latency, mut events, whole) = (histogram(), 0, stopwatch());
    for _ in 0..loads {
        let begun = stopwatch();
        let count = load()?;
        note(&mut latency, begun.elapsed());
        if count != events_each {
            return Err(format!("{work}: {count} events instead of {events_each}").into());
        }
        events += count;
    }
    let seconds = whole.elapsed().as_secs_f64();
    print_line(
        arguments.common.json,
        &json!({"work": work, "loads": loads, "events_per_second": (events as f64 / seconds).round(),
            "p50_us": microseconds(&latency, 0.5), "p99_us": microseconds(&latency, 0.99)}),
    );
    Ok(latency)
}
