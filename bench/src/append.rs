//! Durable appends, measured from the call to the known durability.

use crate::disk;
use crate::report::{self, Run, histogram, note, print_line};
use crate::workload::{Producer, stopwatch};
use annals::{DiskChoice, Settings, Store, Ticket};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Where to put the store; its file system is what is measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Seconds a run.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Runs of each work; the median is printed.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only this work.
    #[arg(long)]
    work: Option<String>,
    /// How the log is written: auto, ring, direct or buffered.
    #[arg(long, default_value = "auto")]
    disk: String,
    /// Also measures for a minute each.
    #[arg(long)]
    sustained: bool,
}

#[derive(Clone, Copy, Debug)]
struct Work {
    name: &'static str,
    threads: u32,
    events: usize,
    in_flight: usize,
}

const WORKS: [Work; 6] = [
    Work { name: "one_writer", threads: 1, events: 1, in_flight: 1 },
    Work { name: "writers_64", threads: 64, events: 1, in_flight: 1 },
    Work { name: "writers_256", threads: 256, events: 1, in_flight: 1 },
    Work { name: "in_flight_4096", threads: 4, events: 1, in_flight: 1024 },
    Work { name: "batch_100", threads: 8, events: 100, in_flight: 1 },
    Work { name: "batch_100_pipelined", threads: 4, events: 100, in_flight: 64 },
];

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let disk = match arguments.disk.as_str() {
        "ring" => DiskChoice::Ring,
        "direct" => DiskChoice::Direct,
        "buffered" => DiskChoice::Buffered,
        _ => DiskChoice::Auto,
    };
    let settings = Settings { disk, ..Settings::default() };
    std::fs::create_dir_all(&arguments.dir)?;
    let place = tempfile::tempdir_in(&arguments.dir)?;
    let name = Store::open_with(place.path(), settings.clone())?.stat()?.disk;
    let about = serde_json::json!({
        "work": "about", "disk": name, "file_system": disk::file_system(&arguments.dir),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
    });
    print_line(arguments.json, &about);
    let time = Duration::from_secs_f64(arguments.seconds);
    if arguments.work.is_none() {
        for bytes in [4096, 65536, 1 << 20] {
            report::print_disk(arguments.json, 1, bytes, &disk::probe(&arguments.dir, bytes, time.min(Duration::from_secs(2)))?);
        }
    }
    for work in WORKS.iter().filter(|work| arguments.work.as_deref().is_none_or(|name| name == work.name)) {
        let runs = (0..arguments.runs.max(1)).map(|_| one(work, &arguments.dir, &settings, time)).collect::<Result<_, _>>()?;
        report::print(arguments.json, work.name, "burst", runs);
        if arguments.sustained {
            let run = one(work, &arguments.dir, &settings, Duration::from_mins(1))?;
            report::print(arguments.json, work.name, "sustained", vec![run]);
        }
    }
    Ok(())
}

fn one(work: &Work, dir: &Path, settings: &Settings, time: Duration) -> Result<Run, Failure> {
    let dir = tempfile::tempdir_in(dir)?;
    let store = Store::open_with(dir.path(), settings.clone())?;
    let producers: Vec<Producer> = (0..work.threads).map(|index| Producer::new(index, work.threads)).collect();
    let begun = stopwatch();
    let until = begun + time;
    let parts = std::thread::scope(|scope| {
        let store = &store;
        let threads: Vec<_> =
            producers.into_iter().map(|producer| scope.spawn(move || produce(store, producer, work, until))).collect();
        threads.into_iter().map(|thread| thread.join().expect("producers do not panic")).collect::<Result<Vec<_>, _>>()
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut latency = histogram();
    let mut events = 0;
    for (count, part) in parts {
        events += count;
        latency.add(part)?;
    }
    store.close()?;
    Ok(Run { events, seconds, latency })
}

fn produce(
    store: &Store,
    mut producer: Producer,
    work: &Work,
    until: Instant,
) -> Result<(u64, hdrhistogram::Histogram<u64>), Failure> {
    let mut latency = histogram();
    let mut events = 0;
    let mut tickets: VecDeque<(Instant, Ticket)> = VecDeque::with_capacity(work.in_flight);
    let mut settle = |(sent, ticket): (Instant, Ticket)| -> Result<(), Failure> {
        ticket.wait()?;
        note(&mut latency, sent.elapsed());
        events += work.events as u64;
        Ok(())
    };
    loop {
        let sent = stopwatch();
        if sent >= until {
            break;
        }
        let ticket = if work.events == 1 {
            let (event, expected) = producer.next();
            let stream = event.stream.clone();
            store.append(annals::Append::from(event).expect(stream, expected))?
        } else {
            store.append(producer.append(work.events))?
        };
        tickets.push_back((sent, ticket));
        while tickets.len() >= work.in_flight || tickets.front().is_some_and(|(_, ticket)| ticket.is_settled()) {
            let Some(oldest) = tickets.pop_front() else { break };
            settle(oldest)?;
        }
    }
    tickets.into_iter().try_for_each(settle)?;
    Ok((events, latency))
}
