//! Load on a server: durable appends over few and many connections, and reading everything.

use crate::report::{Failure, histogram, microseconds, note, print_line};
use crate::workload::{Producer, stopwatch};
use annals::{Append, Read};
use annals_client::{Client, ClientError, Options};
use hdrhistogram::Histogram;
use serde_json::json;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

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

/// Single events of 256 bytes with an exact version, so many under way on each connection: as with the embedded store, to random
/// streams out of a million, each of which one connection writes.
#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
async fn append(arguments: &Arguments, connections: usize, in_flight: usize) -> Result<(), Failure> {
    let mut tasks = Vec::new();
    let time = Duration::from_secs(arguments.seconds);
    let run: u32 = rand::random();
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(Options::new(&*arguments.server)).await?);
    }
    let begun = stopwatch();
    for (connection, client) in clients.into_iter().enumerate() {
        let producer = Producer::of_run(run, u32::try_from(connection)?, u32::try_from(connections)?);
        tasks.push(tokio::spawn(append_on(client, producer, in_flight, begun, time)));
    }
    let mut latency = histogram();
    for task in tasks {
        latency.add(task.await??)?;
    }
    let rate = latency.len() as f64 / begun.elapsed().as_secs_f64();
    print_line(
        arguments.json,
        &json!({"work": "served_appends", "connections": connections, "in_flight": in_flight,
            "events": latency.len(), "events_per_second": rate.round(), "p50_us": microseconds(&latency, 0.5),
            "p99_us": microseconds(&latency, 0.99), "most_us": microseconds(&latency, 1.0)}),
    );
    Ok(())
}

/// What one connection appends, and how long each took.
async fn append_on(
    client: Client,
    mut producer: Producer,
    in_flight: usize,
    begun: Instant,
    time: Duration,
) -> Result<Histogram<u64>, ClientError> {
    let (mut under_way, mut latency) = (VecDeque::with_capacity(in_flight), histogram());
    while begun.elapsed() < time {
        while under_way.len() < in_flight {
            let (event, expected) = producer.next();
            let stream = event.stream.clone();
            let append = Append::from(event).expect(stream, expected);
            under_way.push_back((stopwatch(), client.begin_append(append).await?));
        }
        // All that have their answers make room: they come many at a time.
        let (asked, pending) = under_way.pop_front().expect("some are under way");
        pending.outcome().await?;
        note(&mut latency, asked.elapsed());
        while let Some((asked, pending)) = under_way.pop_front_if(|(_, pending)| pending.is_answered()) {
            pending.outcome().await?;
            note(&mut latency, asked.elapsed());
        }
    }
    for (asked, pending) in under_way {
        pending.outcome().await?;
        note(&mut latency, asked.elapsed());
    }
    Ok(latency)
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
