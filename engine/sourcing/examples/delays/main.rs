//! How late flights are, by carrier and route: a projection over the flight records, in memory or in an SQLite database.
//!
//! `annals import bench/data/flights-sample.jsonl.gz --data flights`, and then
//! `cargo run --release --example delays -- --data flights` prints carrier, route, flights and the mean delay in minutes.

#![allow(missing_docs, unreachable_pub, clippy::disallowed_methods)]

#[allow(dead_code, unused_macros)] // it opens its store to read alone
#[path = "../common/mod.rs"]
mod common;
mod model;

use annals_sourcing::{InMemory, Projector, SqliteModel, next, progress_bar};
use annals_types::{EventStore, Read};
use clap::Parser;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(about = "Mean delays of flights, by carrier and route")]
struct Arguments {
    /// The directory of an embedded store.
    #[arg(long, value_name = "DIR", default_value = "data", conflicts_with = "server")]
    data: PathBuf,

    /// A server's address.
    #[arg(long, value_name = "ADDR")]
    server: Option<String>,

    /// Keep the read model in this SQLite database; the next time, only what has come since is read.
    #[arg(long, value_name = "FILE")]
    sqlite: Option<PathBuf>,
}

fn main() -> ExitCode {
    common::end(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sqlite = arguments.sqlite.as_deref();
    let rows = match &arguments.server {
        Some(address) => runtime.block_on(async {
            let client =
                annals_client::Client::connect(annals_client::Options::new(address.as_str())).await?;
            project(client, sqlite).await
        }),
        None => runtime.block_on(project(annals::Store::open_read_only(&arguments.data)?, sqlite)),
    }?;
    for (carrier, route, flights, minutes) in rows {
        println!("{carrier}\t{route}\t{flights}\t{:.2}", minutes / f64::from(flights));
    }
    Ok(())
}

async fn project<S: EventStore>(store: S, sqlite: Option<&Path>) -> Result<Vec<model::Row>, Box<dyn Error>> {
    let mut newest = store.read(&Read::all().backwards().limit(1)).await?;
    let newest = next(&mut newest).await.transpose()?;
    let events = newest.map_or(0, |event| event.position().get() + 1);
    let bar = progress_bar("delays", events.into());
    let begun = Instant::now();
    let rows = match sqlite {
        None => {
            let mut projector = Projector::new(store, InMemory::default(), model::in_memory())?.watch(bar);
            projector.catch_up().await?;
            projector.model().with(model::rows_of)
        }
        Some(file) => {
            let tables = SqliteModel::open(file, "delays", model::TABLES)?;
            let mut projector = Projector::new(store, tables, model::in_tables())?.watch(bar);
            projector.catch_up().await?;
            model::rows_in(projector.model().connection())?
        }
    };
    eprintln!("{} rows of a log of {events} events in {:.2} s", rows.len(), begun.elapsed().as_secs_f64());
    Ok(rows)
}
