//! Shipments: a process manager, with the parts that do its work, on an embedded store or on a server.
//!
//! `cargo run --example shipments -- 12EEQ9CS9K10 V74YCBYHC8A3` arranges two shipments and prints what became of them. What begins with 1 is domestic,
//! else international; what ends with 1 fails at the carrier, with 2 at the collection, with 3 at the collection at first.
//! `--workers 10 --shipments 1000` is a load test.

#![allow(missing_docs, unreachable_pub, clippy::disallowed_methods)]

mod collection;
#[path = "../common/mod.rs"]
mod common;
mod manifestation;
mod process;
mod system;

use annals_sourcing::{InMemory, Projector, next};
use annals_types::{EventStore, Follow, Followed, QueryItem, Read};
use clap::Parser;
use process::Stage;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use system::System;

#[derive(Parser)]
#[command(about = "Arranges shipments: an event-sourced process manager")]
struct Arguments {
    /// The shipments' numbers.
    #[arg(value_name = "ID", default_values_t = ["12EEQ9CS9K10", "12EEQ9CS9K11", "12EEQ9CS9K12", "12EEQ9CS9K13", "V74YCBYHC8A0", "V74YCBYHC8A1", "V74YCBYHC8A2", "V74YCBYHC8A3"].map(str::to_owned))]
    ids: Vec<String>,

    /// Moves the shipments to this definition of the process, as long as they are not manifested.
    #[arg(long, value_name = "NAME")]
    category: Option<String>,

    #[command(flatten)]
    place: common::Place,

    /// Load test: so many who start shipments.
    #[arg(long, value_name = "N")]
    workers: Option<u32>,

    /// Load test: how many each of them starts.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    shipments: u32,

    /// Load test: how long each waits between two.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay_ms: u64,
}

fn main() -> ExitCode {
    common::end(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    with_store!(&arguments.place, store => arrange(store, &arguments))
}

async fn arrange<S: EventStore>(store: S, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let system = Arc::new(System::new(store.clone())?);
    let running = tokio::spawn({
        let system = Arc::clone(&system);
        async move { system.run().await }
    });
    eprintln!("running");
    let done = match arguments.workers {
        Some(workers) => load_test(&system, store, workers, arguments).await,
        None => some(&system, store, arguments).await,
    };
    if running.is_finished() {
        running.await??;
    } else {
        running.abort();
    }
    done
}

/// Arranges these and prints what became of them.
async fn some<S: EventStore>(
    system: &System<S>,
    store: S,
    arguments: &Arguments,
) -> Result<(), Box<dyn Error>> {
    for id in &arguments.ids {
        if let Err(error) = system.start(id).await {
            eprintln!("{id}: {error}");
        }
        if let Some(category) = &arguments.category
            && let Err(error) = system.change_category(id, category).await
        {
            eprintln!("{id}: {error}");
        }
    }
    let overview = InMemory::default();
    let mut watching = Projector::new(store.clone(), overview.clone(), process::overview())?.spawn();
    let mut newest = None;
    for id in &arguments.ids {
        let mut following = store.follow(&Follow::stream(system::process(id))).await?;
        // What ends with 3 fails before it is completed.
        let last = if id.ends_with('3') {
            &["ProcessCompleted"][..]
        } else {
            &["ProcessCompleted", "ProcessFailed"]
        };
        while let Some(followed) = next(&mut following).await {
            if let Followed::Event(event) = followed?
                && last.contains(&event.event_type())
            {
                break;
            }
        }
        let loaded = system.processes.load(&system::process(id)).await?;
        newest = newest.max(loaded.position);
        let there = loaded.state;
        let why = match there.failure {
            Some(why) if there.stage == Stage::Completed => format!(" (at first: {why})"),
            Some(why) => format!(" ({why})"),
            None => String::new(),
        };
        println!("{id}: {:?}{why}", there.stage);
        if there.stage == Stage::Completed {
            println!("{}", serde_json::to_string_pretty(&there.outcome)?);
        }
    }
    // The read model follows: it is waited for before it is read.
    if let Some(newest) = newest
        && !watching.reached(newest).await
    {
        return Err("the overview does not go on".into());
    }
    let mut by_stage = std::collections::BTreeMap::<_, u32>::new();
    overview.with(|overview| {
        overview.values().for_each(|(stage, ..)| *by_stage.entry(format!("{stage:?}")).or_default() += 1);
    });
    println!("all processes by stage: {by_stage:?}");
    watching.stop().await;
    Ok(())
}

/// Starts shipments as fast as it goes, waits until all are done with, and prints how fast that was.
async fn load_test<S: EventStore>(
    system: &Arc<System<S>>,
    store: S,
    workers: u32,
    arguments: &Arguments,
) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let run: u32 = rand::random();
    let started: Vec<_> = (0..workers)
        .map(|worker| {
            let (system, shipments) = (Arc::clone(system), arguments.shipments);
            let delay = Duration::from_millis(arguments.delay_ms);
            tokio::spawn(async move {
                for number in 0..shipments {
                    // As random numbers of letters and digits are: one in 36 is domestic, and as many end with 1, 2 and 3 each.
                    let letter = |n: u32| char::from_digit(n % 36, 36).unwrap_or('0').to_ascii_uppercase();
                    let seed = (worker * shipments + number).wrapping_mul(2_654_435_761) >> 8;
                    let id = format!("{}{run:08X}{worker:02}{number:05}{}", letter(seed), letter(seed / 36));
                    system.start(&id).await.map_err(|error| error.to_string())?;
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    for started in started {
        started.await??;
    }
    let accepted = begun.elapsed();
    let total = u64::from(workers) * u64::from(arguments.shipments);
    let ends = QueryItem::new().of_type("ProcessCompleted").of_type("ProcessFailed");
    let mut following = store.follow(&Follow::query(ends)).await?;
    let mut finished = std::collections::HashMap::new();
    let (mut completed, mut at_end) = (0, 0);
    while at_end < total {
        let Some(followed) = next(&mut following).await else {
            break;
        };
        let Followed::Event(event) = followed? else { continue };
        let id = event.stream().to_owned();
        if !id.contains(&format!("{run:08X}")) {
            continue;
        }
        let is_completed = event.event_type() == "ProcessCompleted";
        completed += u64::from(is_completed);
        // What ends with 3 comes to its end when it is completed.
        let is_end = is_completed || !id.trim_end_matches("-Process").ends_with('3');
        if is_end && finished.insert(id, ()).is_none() {
            at_end += 1;
        }
    }
    let elapsed = begun.elapsed();
    let mut newest = store.read(&Read::all().backwards().limit(1)).await?;
    let events = match next(&mut newest).await {
        Some(event) => event?.position().get() + 1,
        None => 0,
    };
    let messages = system.messages.load(Ordering::Relaxed);
    let rate = |count: u64| count as f64 / elapsed.as_secs_f64();
    println!(
        "{total} shipments ({completed} completed) in {:.2} s; accepted in {:.2} s",
        elapsed.as_secs_f64(),
        accepted.as_secs_f64()
    );
    println!("{:>10.0} shipments/s", rate(total));
    println!("{:>10.0} events/s ({events} events in the store)", rate(events));
    println!("{:>10.0} messages/s ({messages} events and commands handled)", rate(messages));
    println!("{:>10} MB of anonymous memory", anonymous_memory().unwrap_or(0) >> 20);
    Ok(())
}

/// Anonymous memory that this process has resident, in bytes: what cannot be dropped and read again.
fn anonymous_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? << 10)
}
