//! Load on a server: durable appends over few and many connections, and reading everything.

use crate::report::{Failure, histogram, microseconds, note, print_line};
use crate::workload::stopwatch;
use annals::{Append, ExpectedVersion, NewEvent, Read, Version};
use annals_client::{Client, Options};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The server; its store is best a new one.
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// How long each run takes.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Only this many connections, with `--in-flight` on each, instead of the usual runs.
    #[arg(long, requires = "in_flight")]
    connections: Option<usize>,
    /// Appends under way on each connection.
    #[arg(long, requires = "connections")]
    in_flight: Option<usize>,
    /// Print for machines: one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Streams of one who appends.
const STREAMS: usize = 64;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        if let (Some(connections), Some(in_flight)) = (arguments.connections, arguments.in_flight) {
            return append(arguments, connections, in_flight).await;
        }
        for (connections, in_flight) in [(1, 1), (1, 1_024), (64, 64)] {
            append(arguments, connections, in_flight).await?;
        }
        read(arguments).await
    })
}

/// Single events of 256 bytes with an exact version, so many under way on each connection.
#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
async fn append(arguments: &Arguments, connections: usize, in_flight: usize) -> Result<(), Failure> {
    let run: u64 = rand::random();
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(Options::new(&*arguments.server)).await?);
    }
    let time = Duration::from_secs(arguments.seconds);
    let begun = stopwatch();
    let mut tasks = Vec::new();
    let latencies: Vec<_> = clients.iter().map(|_| Arc::new(Mutex::new(histogram()))).collect();
    for (connection, client) in clients.iter().enumerate() {
        for slot in 0..in_flight {
            let (client, latency) = (client.clone(), Arc::clone(&latencies[connection]));
            let prefix = format!("load-{run:x}-{connection}-{slot}");
            tasks.push(tokio::spawn(async move {
                let names: Vec<String> = (0..STREAMS).map(|number| format!("{prefix}-{number}")).collect();
                let mut versions = [0_u64; STREAMS];
                let (data, mut turn) = (vec![7; 256], 0);
                while begun.elapsed() < time {
                    let (name, version) = (&names[turn % STREAMS], &mut versions[turn % STREAMS]);
                    let expected = match version.checked_sub(1) {
                        None => ExpectedVersion::NoStream,
                        Some(last) => ExpectedVersion::Exactly(Version::new(last)),
                    };
                    (*version, turn) = (*version + 1, turn + 1);
                    let event = NewEvent::new(name.as_str(), "MeasurementTaken").binary(&data[..]);
                    let asked = stopwatch();
                    client.append(Append::from(event).expect(name.as_str(), expected)).await?;
                    let took = asked.elapsed();
                    note(&mut latency.lock().expect("nobody panics"), took);
                }
                Ok::<(), annals_client::ClientError>(())
            }));
        }
    }
    for task in tasks {
        task.await??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mut latency = histogram();
    for part in latencies {
        latency.add(&*part.lock().expect("nobody panics"))?;
    }
    let rate = latency.len() as f64 / seconds;
    print_line(
        arguments.json,
        &json!({"work": "served_appends", "connections": connections, "in_flight": in_flight,
            "events": latency.len(), "events_per_second": rate.round(), "p50_us": microseconds(&latency, 0.5),
            "p99_us": microseconds(&latency, 0.99), "most_us": microseconds(&latency, 1.0)}),
    );
    Ok(())
}

/// Everything there is, over one connection.
#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
async fn read(arguments: &Arguments) -> Result<(), Failure> {
    let client = Client::connect(Options::new(&*arguments.server)).await?;
    for _ in 0..2 {
        let begun = stopwatch();
        let (mut events, mut count) = (client.read(&Read::all()).await?, 0_u64);
        while let Some(event) = events.next().await {
            event?;
            count += 1;
        }
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        print_line(
            arguments.json,
            &json!({"work": "served_read", "events": count, "events_per_second": rate.round()}),
        );
    }
    Ok(())
}
