//! Queries: reading what they select, and judging conditions on them, in a store with many events.

use crate::report::{Common, Failure, histogram, note, print_line};
use crate::workload::stopwatch;
use annals::testing::time_condition;
use annals::{Append, NewEvent, Position, Query, QueryItem, Read, Store, Uuid};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use std::collections::VecDeque;
use std::time::Duration;

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Events in the store.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// How often each condition is judged.
    #[arg(long, default_value_t = 20_000)]
    conditions: u64,
}

const STREAMS: u64 = 1_000_000;
/// Events of a million that have the same rare tag, or correlation id.
const OF_ONE_KIND: u64 = 10;
const BATCH: u64 = 100;
const IN_FLIGHT: usize = 64;

fn event(random: &mut SmallRng, number: u64, data: &[u8]) -> NewEvent<'static> {
    let stream = random.random_range(0..STREAMS);
    NewEvent::new(format!("category{}-{stream}", stream % 10), format!("Type{}", number % 8))
        .tag(format!("hot:{}", number % 2))
        .tag(format!("warm:{}", random.random_range(0..1000)))
        .tag(format!("rare:{}", scattered(number)))
        .correlation(Uuid::from_u128(u128::from(scattered(number))))
        .binary(data.to_vec())
}

/// A number that one event of so many has: ten of a million, each far from the others.
fn scattered(number: u64) -> u64 {
    number % (STREAMS / OF_ONE_KIND)
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    std::fs::create_dir_all(&arguments.common.dir)?;
    let dir = tempfile::tempdir_in(&arguments.common.dir)?;
    let store = Store::open(dir.path())?;
    let mut random = SmallRng::seed_from_u64(7);
    let mut data = vec![0; 256];
    random.fill(&mut data[..]);
    let begun = stopwatch();
    let mut tickets = VecDeque::new();
    for first in (0..arguments.events).step_by(usize::try_from(BATCH)?) {
        let numbers = first..(first + BATCH).min(arguments.events);
        let batch: Append<'_> = numbers.map(|number| event(&mut random, number, &data)).collect();
        tickets.push_back(store.append(batch)?);
        if tickets.len() == IN_FLIGHT {
            tickets.pop_front().map(annals::Ticket::wait).transpose()?;
        }
    }
    for ticket in tickets {
        ticket.wait()?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let stat = store.stat()?;
    #[expect(clippy::cast_precision_loss, reason = "printed rounded")]
    let (rate, index_bytes) = (
        (arguments.events as f64 / seconds).round(),
        (stat.index_bytes as f64 / arguments.events as f64 * 10.0).round() / 10.0,
    );
    print_line(
        arguments.common.json,
        &json!({"work": "fill", "events": arguments.events, "events_per_second": rate,
            "index_bytes_per_event": index_bytes, "segments": stat.segments}),
    );
    read_all(arguments, &store)?;
    judge_all(arguments, &store, &mut random)
}

fn queries(random: &mut SmallRng) -> [(&'static str, Query<'static>); 6] {
    let rare = scattered(random.random_range(0..STREAMS));
    let rare_tag = || QueryItem::new().tag(format!("rare:{rare}"));
    [
        ("rare_tag", rare_tag().into()),
        ("hot_tag", QueryItem::new().tag("hot:1").into()),
        ("hot_and_rare", rare_tag().tag(format!("hot:{}", rare % 2)).into()),
        ("types_alone", QueryItem::new().of_type("Type3").into()),
        ("category", QueryItem::new().category("category4").into()),
        ("correlation", QueryItem::new().correlation(Uuid::from_u128(u128::from(rare))).into()),
    ]
}

fn read_all(arguments: &Arguments, store: &Store) -> Result<(), Failure> {
    for place in 0..6 {
        let (mut matches, mut bytes, mut touched, mut reads) = (0_u64, 0, 0, 0_u64);
        let begun = stopwatch();
        let mut random = SmallRng::seed_from_u64(1);
        // Rare ones many times, others once.
        while reads == 0 || (begun.elapsed() < Duration::from_secs(1) && reads < 10_000) {
            let (_, query) = &queries(&mut random)[place];
            let mut reader = store.read(Read::query(query.clone()))?;
            for record in &mut reader {
                record?;
                matches += 1;
            }
            bytes += reader.touched().bytes;
            touched += reader.touched().events;
            reads += 1;
        }
        let (name, _) = &queries(&mut random)[place];
        #[expect(clippy::cast_precision_loss, reason = "printed rounded")]
        let per = |count: u64, of: f64| (count as f64 / of * 10.0).round() / 10.0;
        #[expect(clippy::cast_precision_loss, reason = "printed rounded")]
        let found = matches.max(1) as f64;
        print_line(
            arguments.common.json,
            &json!({"work": name, "mode": "read", "matches": matches / reads,
                "events_per_second": per(matches, begun.elapsed().as_secs_f64()),
                "us_per_read": per(u64::try_from(begun.elapsed().as_micros())?, reads_of(reads)),
                "bytes_per_match": per(bytes, found), "events_per_match": per(touched, found)}),
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn reads_of(reads: u64) -> f64 {
    reads as f64
}

/// Conditions that hold, for they ask for what nothing has together: near the end, further back, and from the start on.
fn judge_all(arguments: &Arguments, store: &Store, random: &mut SmallRng) -> Result<(), Failure> {
    let end = store.last_position().map_or(0, Position::get);
    let before_end = |events: u64| Some(Position::new(end.saturating_sub(events)));
    for (mode, after) in [
        ("near_end", before_end(20)),
        ("tenth_before_end", before_end(arguments.events / 10)),
        ("from_start", None),
    ] {
        for kind in ["rare_tag", "hot_and_rare", "types_alone"] {
            let (mut inside, mut outside) = (histogram(), histogram());
            let begun = stopwatch();
            for number in 0..arguments.conditions {
                if begun.elapsed() > Duration::from_secs(5) {
                    break;
                }
                let never = format!("never:{}-{number}", random.random::<u32>());
                let item = match kind {
                    "rare_tag" => QueryItem::new().tag(never),
                    "hot_and_rare" => QueryItem::new().tag("hot:1").tag(never),
                    _ => QueryItem::new().of_type(never),
                };
                let (under_lock, beside) = time_condition(store, &item.into(), after)?;
                note(&mut inside, under_lock);
                note(&mut outside, beside);
            }
            print_line(
                arguments.common.json,
                &json!({"work": kind, "mode": mode, "conditions": inside.len(),
                    "inside_p50_ns": inside.value_at_quantile(0.5), "inside_p99_ns": inside.value_at_quantile(0.99),
                    "outside_p50_ns": outside.value_at_quantile(0.5),
                    "outside_p99_ns": outside.value_at_quantile(0.99)}),
            );
        }
    }
    Ok(())
}
