//! Trips: a saga of payments and seats that are had side by side, with a way back; and what can be seen of it.
//!
//! `cargo run --example trip`; with `--server ADDR` or `--data DIR` on a store of yours.

#![allow(missing_docs, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod model;

use annals_sourcing::{InMemory, Projector, SagaView};
use annals_types::EventStore;
use clap::Parser;
use model::Agency;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(about = "Trips: a saga with steps side by side and a way back")]
struct Arguments {
    #[command(flatten)]
    place: common::Place,

    /// How many seats the flight has.
    #[arg(long, default_value_t = 2)]
    seats: usize,
}

fn main() -> ExitCode {
    common::end(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    with_store!(&arguments.place, store => travel(store, arguments.seats))
}

async fn travel<S: EventStore>(store: S, seats: usize) -> Result<(), Box<dyn Error>> {
    let agency = Agency::new(store.clone(), seats)?;
    let asking = async {
        // The second one costs more than any card is good for; for the fourth there is no seat left.
        for (trip, cents) in [("t1", 20_000), ("t2", 900_000), ("t3", 30_000), ("t4", 10_000)] {
            if let Err(error) = agency.request(trip, "LH400", cents).await {
                println!("{trip}: {error}");
            }
            loop {
                let there = agency.trips.load(format!("trip-{trip}")).await?.state;
                if there.is_confirmed || there.cancelled.is_some() {
                    println!("{trip}: {}", there.cancelled.unwrap_or_else(|| "confirmed".to_owned()));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        // What is to be undone is undone soon.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, Box<dyn Error>>(())
    };
    tokio::select! {
        ended = agency.run() => ended?,
        asked = asking => asked?,
    }
    let sagas = InMemory::<SagaView>::default();
    Projector::new(store, sagas.clone(), SagaView::handlers())?.catch_up().await?;
    sagas.with(|sagas| {
        for run in sagas.runs() {
            println!("{} {}", run.saga, run.instance);
            for step in run.steps() {
                let event = step.event.as_ref().map_or("", |(_, _, event_type)| event_type);
                let failure = step.failure.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                println!("  {} ({event}{failure}), behind {} others", step.name, step.previous.len());
            }
        }
    });
    Ok(())
}
