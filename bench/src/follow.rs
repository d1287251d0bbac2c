//! Following: how long after an acknowledgement a follower has the event, and what one that stopped reading costs.

use crate::report::{Common, Failure, histogram, microseconds, note, print_line};
use crate::workload::{Producer, stopwatch};
use annals::{Append, Follow, Followed, Following, NewEvent, NewSubscription, Position, Settings, Store};
use hdrhistogram::Histogram;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// How long each run takes.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// How often appends are measured with and without followers that have stopped reading, in turns.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Followers that have stopped reading, for the memory that each costs.
    #[arg(long, default_value_t = 200)]
    stopped: usize,
}

/// Blocking writers beside which followers have stopped.
const WRITERS: u32 = 8;
/// Events of a batch that followers stop in, and bytes of each.
const BATCH: u64 = 20;
const EVENT_BYTES: usize = 4_000;
/// Events that members of durable subscriptions handle.
const HANDLED: u64 = 200_000;
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    std::fs::create_dir_all(&arguments.common.dir)?;
    let works =
        [("follow_blocking", block as Follower), ("follow_awaiting", poll), ("follow_member", be_member)];
    for (work, follower) in works {
        let latency = latencies(arguments, follower)?;
        print_line(
            arguments.common.json,
            &json!({"work": work, "events": latency.len(), "p50_us": microseconds(&latency, 0.5),
                "p99_us": microseconds(&latency, 0.99), "most_us": microseconds(&latency, 1.0)}),
        );
    }
    handled_by_members(arguments)?;
    cost_of_stopped(arguments)
}

/// Says when it had each event that is appended from now on; it is told once it is ready.
type Follower = fn(&Store, &mpsc::Sender<Instant>);

/// From the acknowledgement in one thread to the event in another, with one writer.
fn latencies(arguments: &Arguments, follower: Follower) -> Result<Histogram<u64>, Failure> {
    let dir = tempfile::tempdir_in(&arguments.common.dir)?;
    let store = Store::open(dir.path())?;
    let (had, events) = mpsc::channel::<Instant>();
    store.create_subscription(&NewSubscription::new("member"))?;
    let thread = {
        let store = store.clone();
        std::thread::spawn(move || follower(&store, &had))
    };
    // It has caught up with nothing.
    events.recv_timeout(PATIENCE)?;
    let mut latency = histogram();
    let begun = stopwatch();
    let mut producer = Producer::new(0, 1);
    while begun.elapsed() < Duration::from_secs(arguments.seconds) {
        let (event, expected) = producer.next();
        let stream = event.stream.clone().into_owned();
        store.append(Append::from(event).expect(stream, expected))?.wait()?;
        let acknowledged = stopwatch();
        let had = events.recv_timeout(PATIENCE)?;
        note(&mut latency, had.saturating_duration_since(acknowledged));
    }
    store.close()?;
    thread.join().map_err(|_| "the follower failed")?;
    Ok(latency)
}

fn block(store: &Store, had: &mpsc::Sender<Instant>) {
    let following = store.follow(&Follow::all().from_end()).expect("the store is open");
    for followed in following {
        tell(followed, had);
    }
}

fn poll(store: &Store, had: &mpsc::Sender<Instant>) {
    use futures_core::Stream as _;
    let following = store.follow(&Follow::all().from_end()).expect("the store is open");
    let mut stream = std::pin::pin!(following.into_stream());
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        match stream.as_mut().poll_next(&mut context) {
            std::task::Poll::Ready(Some(followed)) => tell(followed, had),
            std::task::Poll::Ready(None) => return,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

fn tell(followed: Result<Followed, annals::ReadError>, had: &mpsc::Sender<Instant>) {
    if matches!(followed, Ok(Followed::Event(_) | Followed::CaughtUp { .. })) {
        // The other end has gone when the measurement is over.
        let _ = had.send(stopwatch());
    }
}

/// A member of a durable subscription.
fn be_member(store: &Store, had: &mpsc::Sender<Instant>) {
    let mut member = store.join("member").expect("it was created");
    let _ = had.send(stopwatch());
    while let Ok(Some(delivery)) = member.next_within(PATIENCE) {
        let _ = had.send(stopwatch());
        if member.ack(delivery.id).is_err() {
            return;
        }
    }
}

/// How many events a second members of a durable subscription take and acknowledge, one by one.
#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
fn handled_by_members(arguments: &Arguments) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(&arguments.common.dir)?;
    let store = Store::open(dir.path())?;
    for number in 0..HANDLED / 100 {
        let event = |place: u64| {
            NewEvent::new(format!("s-{}", (number * 7 + place) % 1_000), "Noted").binary(vec![7; 200])
        };
        store.append((0..100).map(event).collect::<Append<'_>>())?.wait()?;
    }
    for (name, members) in [("exclusive", 1), ("shared", 1), ("shared", 2)] {
        let new = NewSubscription::new(format!("{name} {members}"));
        let new = if name == "shared" { new.shared() } else { new };
        store.create_subscription(&new)?;
        let begun = stopwatch();
        std::thread::scope(|scope| {
            let handle = || {
                let mut member = store.join(&new.name)?;
                while let Some(delivery) = member.next_within(Duration::ZERO)? {
                    member.ack(delivery.id)?;
                }
                Ok::<(), annals::SubscriptionError>(())
            };
            let threads: Vec<_> = (0..members).map(|_| scope.spawn(handle)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| Ok::<(), Failure>(thread.join().map_err(|_| "a member failed")??))
        })?;
        let rate = HANDLED as f64 / begun.elapsed().as_secs_f64();
        print_line(
            arguments.common.json,
            &json!({"work": format!("handled_{name}"), "members": members, "events": HANDLED, "events_per_second": rate.round()}),
        );
    }
    Ok(store.close()?)
}

/// Appends beside followers that stopped in the middle of a batch, and beside none, in turns, to one store.
fn cost_of_stopped(arguments: &Arguments) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(&arguments.common.dir)?;
    // All that is followed is in the active segment: what is sealed is read from maps, and costs no memory in any case.
    let store =
        Store::open_with(dir.path(), Settings { segment_bytes_first: 64 << 20, ..Settings::default() })?;
    let event = |_| NewEvent::new("followed", "Noted").binary(vec![7; EVENT_BYTES]);
    for _ in 0..arguments.stopped {
        store.append((0..BATCH).map(event).collect::<Append<'_>>())?.wait()?;
    }
    let mut producers: Vec<Producer> = (0..WRITERS).map(|index| Producer::new(index, WRITERS)).collect();
    let time = Duration::from_secs(arguments.seconds);
    let (mut rates, mut memory) = ([Vec::new(), Vec::new()], 0);
    for round in 0..arguments.rounds {
        // The first to be measured is another one each time.
        for side in [round % 2, (round + 1) % 2] {
            let held = if side == 1 { stop(&store, arguments.stopped, &mut memory)? } else { Vec::new() };
            rates[side].push(rate(&store, &mut producers, time)?);
            drop(held);
        }
    }
    store.close()?;
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let [mut without, mut with] = rates;
    let (without, with) = (median(&mut without), median(&mut with));
    print_line(
        arguments.common.json,
        &json!({"work": "beside_stopped", "followers": arguments.stopped, "writers": WRITERS,
            "events_per_second_without": without.round(), "events_per_second_with": with.round(),
            "ratio": (1000.0 * with / without).round() / 1000.0,
            "bytes_each": memory / arguments.stopped.max(1) as u64, "rounds": arguments.rounds}),
    );
    Ok(())
}

/// Followers that each read on to the middle of another batch, and then no further.
fn stop(store: &Store, count: usize, memory: &mut u64) -> Result<Vec<Following>, Failure> {
    let before = anonymous_bytes()?;
    let mut held = Vec::with_capacity(count);
    for first in (0..count as u64).map(|number| number * BATCH) {
        let mut following = store.follow(&Follow::all().from(Position::new(first)))?;
        for _ in 0..BATCH / 2 {
            following.next_within(Duration::ZERO)?.ok_or("an event is missing")?;
        }
        held.push(following);
    }
    *memory = (*memory).max(anonymous_bytes()?.saturating_sub(before));
    Ok(held)
}

/// Anonymous memory of this process.
fn anonymous_bytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status"))?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).ok_or("the system does not say")?;
    let kilobytes: u64 = line.split_whitespace().nth(1).ok_or("the system does not say")?.parse()?;
    Ok(kilobytes << 10)
}

/// Events a second of blocking writers, one for each of these.
#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
fn rate(store: &Store, producers: &mut [Producer], time: Duration) -> Result<f64, Failure> {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = stopwatch();
    let write = |producer: &mut Producer| {
        while !stop.load(Ordering::Relaxed) {
            let (event, expected) = producer.next();
            let stream = event.stream.clone().into_owned();
            store.append(Append::from(event).expect(stream, expected))?.wait()?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<(), Failure>(())
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = producers.iter_mut().map(|producer| scope.spawn(|| write(producer))).collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "a writer failed")?)
    })?;
    Ok(count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
}
