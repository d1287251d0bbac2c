//! Looking up what is in few of many sealed segments.

use crate::report::{Common, Failure, histogram, note, print_line};
use crate::workload::stopwatch;
use annals::{Append, NewEvent, Query, QueryItem, Read, Settings, Store};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use std::time::Duration;

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Sealed segments of each store, about: the same events in so many pieces.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1000])]
    segments: Vec<u64>,
    /// Events of each store.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// How often each thing is looked up.
    #[arg(long, default_value_t = 1000)]
    looks: u64,
}

const EVENTS_PER_STREAM: u64 = 10;
const BATCH: usize = 20;
/// What an event of 100 bytes takes, about.
const EVENT_BYTES: u64 = 185;
/// What a segment takes besides: a block before the events, one behind, and what no batch fits into any more.
const BLOCKS_BYTES: u64 = 9 << 10;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    std::fs::create_dir_all(&arguments.common.dir)?;
    for &segments in &arguments.segments {
        let dir = tempfile::tempdir_in(&arguments.common.dir)?;
        let segment_bytes = arguments.events * EVENT_BYTES / segments.max(1) + BLOCKS_BYTES;
        let segment_bytes = segment_bytes.max(16 << 10);
        let settings = Settings {
            segment_bytes_first: segment_bytes,
            segment_bytes_max: segment_bytes,
            cached_heads: 0,
            ..Settings::default()
        };
        let store = Store::open_with(dir.path(), settings.clone())?;
        fill(&store, arguments.events)?;
        seal_all(&store)?;
        store.close()?;
        // What is in memory until now is sealed or read from the log; spans are made meanwhile.
        let store = Store::open_with(dir.path(), settings)?;
        std::thread::sleep(Duration::from_secs(2));
        measure(arguments, &store)?;
    }
    Ok(())
}

/// Ten events of each stream, here and there; each has a tag that one other event has.
fn fill(store: &Store, events: u64) -> Result<(), Failure> {
    let mut random = SmallRng::seed_from_u64(7);
    let mut numbers: Vec<u64> = (0..events).collect();
    for at in (1..numbers.len()).rev() {
        numbers.swap(at, random.random_range(0..=at));
    }
    for numbers in numbers.chunks(BATCH) {
        let event = |&number: &u64| {
            NewEvent::new(stream(number / EVENTS_PER_STREAM), "Noted")
                .tag(tag(number / 2))
                .tag(format!("shared:{}", number % 100))
                .binary(vec![7; 100])
        };
        // Durable by the time the store is closed.
        drop(store.append(numbers.iter().map(event).collect::<Append<'_>>())?);
    }
    Ok(())
}

/// Appends other events until all before them are in segments that will be sealed.
fn seal_all(store: &Store) -> Result<(), Failure> {
    let before = store.stat()?.segments;
    while store.stat()?.segments == before {
        let other = |_| NewEvent::new("other", "Other").binary(vec![7; 1000]);
        store.append((0..BATCH).map(other).collect::<Append<'_>>())?.wait()?;
    }
    Ok(())
}

fn stream(number: u64) -> String {
    format!("thing-{number}")
}

fn tag(number: u64) -> String {
    format!("rare:{number}")
}

fn measure(arguments: &Arguments, store: &Store) -> Result<(), Failure> {
    let segments = store.stat()?.segments;
    let streams = (arguments.events / EVENTS_PER_STREAM).max(1);
    for work in ["head_of_no_stream", "head_of_a_cold_stream", "read_of_10_events", "rare_tag"] {
        let mut times = histogram();
        // The first round warms up: both look for the same.
        for round in 0..2 {
            let mut random = SmallRng::seed_from_u64(3);
            for look in 0..arguments.looks {
                let number = random.random_range(0..streams);
                let begun = stopwatch();
                let found = match work {
                    "head_of_a_cold_stream" => u64::from(store.head(&stream(number))?.is_some()),
                    "head_of_no_stream" => u64::from(store.head(&format!("absent-{look}"))?.is_none()),
                    "read_of_10_events" => count(store, Read::stream(stream(number)))?,
                    _ => count(store, Read::query(Query::from(QueryItem::new().tag(tag(number)))))?,
                };
                if round == 1 {
                    note(&mut times, begun.elapsed());
                }
                if found == 0 {
                    return Err(format!("{work}: nothing was found").into());
                }
            }
        }
        print_line(
            arguments.common.json,
            &json!({"work": work, "segments": segments, "looks": times.len(),
                "p50_ns": times.value_at_quantile(0.5), "p99_ns": times.value_at_quantile(0.99)}),
        );
    }
    Ok(())
}

fn count(store: &Store, read: Read<'_>) -> Result<u64, Failure> {
    let mut count = 0;
    for record in store.read(read)? {
        record?;
        count += 1;
    }
    Ok(count)
}
