//! Load on a server, or on a store in this process, by the same code: durable appends over few and many connections, and reading
//! everything.
//!
//! Without a rate, each connection keeps so many appends under way, and a latency is from sending one to its answer. With a rate,
//! appends are due at fixed moments, whether earlier ones are answered or not, and a latency is from that moment: what waits
//! behind something slow counts as slow, too (no coordinated omission).

use crate::report::{Failure, histogram, microseconds, note, print_line};
use crate::workload::{Producer, stopwatch};
use annals::{Append, EventStore, Read, Store, Ticket};
use annals_client::{Client, Options, PendingAppend, Pipeline};
use futures_core::Stream;
use hdrhistogram::Histogram;
use serde_json::json;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The server; its store is best a new one.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "data", conflicts_with = "data")]
    server: Option<String>,
    /// A store in this process instead: a directory, best one that does not exist.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Appends a second, all connections together, at fixed moments; default: as many as go.
    #[arg(long, value_name = "APPENDS", requires = "connections")]
    rate: Option<u32>,
    /// How long each run takes.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Only this many connections, with `--in-flight` on each, instead of the usual runs.
    #[arg(long, value_name = "COUNT")]
    connections: Option<usize>,
    /// Appends under way on each connection.
    #[arg(long, requires = "connections", value_name = "COUNT")]
    in_flight: Option<usize>,
    /// Print for machines: one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let runs = match (arguments.connections, arguments.in_flight) {
        (Some(connections), in_flight) => vec![(connections, in_flight.unwrap_or(1))],
        _ => vec![(1, 1), (1, 1_024), (64, 64)],
    };
    runtime.block_on(async {
        match (&arguments.server, &arguments.data) {
            (Some(server), _) => {
                for (connections, in_flight) in &runs {
                    let mut clients = Vec::new();
                    for _ in 0..*connections {
                        clients.push(Client::connect(Options::new(server)).await?.pipeline().await?);
                    }
                    append(arguments, "served", clients, *in_flight).await?;
                }
                let client = Client::connect(Options::new(server)).await?;
                if arguments.connections.is_none() {
                    read(arguments, "served", &client).await?;
                }
            }
            (None, Some(data)) => {
                let store = Store::open(data)?;
                for (connections, in_flight) in &runs {
                    append(arguments, "embedded", vec![store.clone(); *connections], *in_flight).await?;
                }
                if arguments.connections.is_none() {
                    read(arguments, "embedded", &store).await?;
                }
                store.close()?;
            }
            (None, None) => unreachable!("one of them is required"),
        }
        Ok(())
    })
}

/// Something that appends one after the other, without waiting for what it began.
pub(crate) trait Appender: Send + Sync + 'static {
    type Pending: Future<Output = Result<(), Failure>> + Send;
    fn begin(&self, append: Append<'_>) -> impl Future<Output = Result<Self::Pending, Failure>> + Send;
    /// Whether awaiting it does not wait.
    fn is_ready(pending: &Self::Pending) -> bool;
}

/// An append of a client, on its way.
pub(crate) struct Sent(Option<PendingAppend>, Option<Outcome>);

type Outcome = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

impl Future for Sent {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(pending) = self.0.take() {
            self.1 = Some(Box::pin(async move { Ok(pending.outcome().await.map(drop)?) }));
        }
        self.1.as_mut().expect("it was begun").as_mut().poll(context)
    }
}

impl Appender for Pipeline {
    type Pending = Sent;

    async fn begin(&self, append: Append<'_>) -> Result<Sent, Failure> {
        Ok(Sent(Some(Self::begin(self, append).await?), None))
    }

    fn is_ready(pending: &Sent) -> bool {
        pending.0.as_ref().is_some_and(PendingAppend::is_answered)
    }
}

/// An append of a store, on its way.
pub(crate) struct Begun(Ticket);

impl Future for Begun {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|outcome| Ok(outcome.map(drop)?))
    }
}

impl Appender for Store {
    type Pending = Begun;

    async fn begin(&self, append: Append<'_>) -> Result<Begun, Failure> {
        Ok(Begun(Self::append(self, append)?))
    }

    fn is_ready(pending: &Begun) -> bool {
        pending.0.is_settled()
    }
}

/// Single events of 256 bytes with an exact version, so many under way on each connection: as with the embedded store, to random
/// streams out of a million, each of which one connection writes.
#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
async fn append<A: Appender>(
    arguments: &Arguments,
    mode: &str,
    appenders: Vec<A>,
    in_flight: usize,
) -> Result<(), Failure> {
    let mut tasks = Vec::new();
    let (time, run) = (Duration::from_secs(arguments.seconds), rand::random());
    let connections = u32::try_from(appenders.len())?;
    let begun = stopwatch();
    for (connection, appender) in appenders.into_iter().enumerate() {
        let producer = Producer::of_run(run, u32::try_from(connection)?, connections);
        tasks.push(match arguments.rate {
            Some(rate) => tokio::spawn(at_a_rate(appender, producer, rate / connections, time)),
            None => tokio::spawn(as_many_as_go(appender, producer, in_flight, begun, time)),
        });
    }
    let mut latency = histogram();
    for task in tasks {
        latency.add(task.await??)?;
    }
    let rate = latency.len() as f64 / begun.elapsed().as_secs_f64();
    print_line(
        arguments.json,
        &json!({"work": "load_appends", "mode": mode, "connections": connections, "in_flight": in_flight,
            "rate": arguments.rate, "events": latency.len(), "events_per_second": rate.round(),
            "p50_us": microseconds(&latency, 0.5), "p90_us": microseconds(&latency, 0.9),
            "p99_us": microseconds(&latency, 0.99), "p999_us": microseconds(&latency, 0.999),
            "most_us": microseconds(&latency, 1.0)}),
    );
    Ok(())
}

/// Keeps so many appends under way, and measures how long each is.
async fn as_many_as_go<A: Appender>(
    appender: A,
    mut producer: Producer,
    in_flight: usize,
    begun: Instant,
    time: Duration,
) -> Result<Histogram<u64>, Failure> {
    let (mut under_way, mut latency) = (VecDeque::with_capacity(in_flight), histogram());
    while begun.elapsed() < time {
        while under_way.len() < in_flight {
            under_way.push_back((stopwatch(), appender.begin(append_of(&mut producer)).await?));
        }
        // All that have their answers make room: they come many at a time.
        let (asked, pending) = under_way.pop_front().expect("some are under way");
        pending.await?;
        note(&mut latency, asked.elapsed());
        while let Some((asked, pending)) = under_way.pop_front_if(|(_, pending)| A::is_ready(pending)) {
            pending.await?;
            note(&mut latency, asked.elapsed());
        }
    }
    for (asked, pending) in under_way {
        pending.await?;
        note(&mut latency, asked.elapsed());
    }
    Ok(latency)
}

/// Begins so many appends a second, each when it is due, and measures from then.
pub(crate) async fn at_a_rate<A: Appender>(
    appender: A,
    mut producer: Producer,
    rate: u32,
    time: Duration,
) -> Result<Histogram<u64>, Failure> {
    let (sender, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let settling = tokio::spawn(async move {
        let mut latency = histogram();
        while let Some((due, pending)) = begun.recv().await {
            let pending: A::Pending = pending;
            pending.await?;
            note(&mut latency, stopwatch().saturating_duration_since(due));
        }
        Ok::<_, Failure>(latency)
    });
    let (start, runtime) = (stopwatch(), tokio::runtime::Handle::current());
    let period = Duration::from_secs(1) / rate.max(1);
    // On a thread of its own: it wakes far closer to its moment than the timers of a runtime do.
    let pacing = tokio::task::spawn_blocking(move || {
        for turn in 0.. {
            let due = start + period * turn;
            if due.duration_since(start) >= time {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(stopwatch()));
            let begun = runtime.block_on(appender.begin(append_of(&mut producer)))?;
            if sender.send((due, begun)).is_err() {
                break;
            }
        }
        Ok::<_, Failure>(())
    });
    pacing.await??;
    settling.await?
}

/// Everything there is, over one connection.
#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
async fn read<S: EventStore>(arguments: &Arguments, mode: &str, store: &S) -> Result<(), Failure> {
    for _ in 0..2 {
        let begun = stopwatch();
        let (mut events, mut count) = (store.read(&Read::all()).await?, 0_u64);
        while let Some(event) = poll_fn(|context| Pin::new(&mut events).poll_next(context)).await {
            event?;
            count += 1;
        }
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        print_line(
            arguments.json,
            &json!({"work": "load_read", "mode": mode, "events": count, "events_per_second": rate.round()}),
        );
    }
    Ok(())
}

/// An append of a producer, as it is sent.
fn append_of(producer: &mut Producer) -> Append<'_> {
    let (event, expected) = producer.next();
    let stream = event.stream.clone();
    Append::from(event).expect(stream, expected)
}
