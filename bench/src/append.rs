//! Durable appends, measured from the call to the known durability.

use crate::disk;
use crate::report::{self, Common, Failure, Run, histogram, note, print_line};
use crate::workload::{Producer, stopwatch};
use annals::testing::{Pipeline, Placed};
use annals::{Append, DiskChoice, Settings, Store, Ticket};
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
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
    /// Size up to which segments grow, in MiB; 0: the default.
    #[arg(long, default_value_t = 0)]
    segment: u64,
    /// Also measures for a minute each, and what --ceiling measures.
    #[arg(long)]
    sustained: bool,
    /// Also measures the bare pipeline: no index, no conditions, one file.
    #[arg(long)]
    ceiling: bool,
}

#[derive(Clone, Copy, Debug)]
struct Work {
    name: &'static str,
    threads: u32,
    events: usize,
    in_flight: usize,
    /// Appends handed over together.
    run: usize,
    /// Whether each has three tags and a condition on a query, in place of one on its stream.
    bounded: bool,
}

/// What is measured of the disk itself: writes at a time, and their size.
const PROBES: [(usize, usize); 5] = [(1, 4 << 10), (4, 4 << 10), (1, 64 << 10), (4, 256 << 10), (1, 1 << 20)];

/// How long a sustained run is.
const SUSTAINED: Duration = Duration::from_mins(1);

const WORKS: [Work; 8] = [
    Work { name: "one_writer", threads: 1, events: 1, in_flight: 1, run: 1, bounded: false },
    Work { name: "writers_64", threads: 64, events: 1, in_flight: 1, run: 1, bounded: false },
    Work { name: "writers_256", threads: 256, events: 1, in_flight: 1, run: 1, bounded: false },
    Work { name: "in_flight_4096", threads: 4, events: 1, in_flight: 1024, run: 1, bounded: false },
    Work { name: "in_flight_4096_runs", threads: 4, events: 1, in_flight: 1024, run: 32, bounded: false },
    Work { name: "in_flight_4096_query", threads: 4, events: 1, in_flight: 1024, run: 32, bounded: true },
    Work { name: "batch_100", threads: 8, events: 100, in_flight: 1, run: 1, bounded: false },
    Work { name: "batch_100_pipelined", threads: 4, events: 100, in_flight: 64, run: 1, bounded: false },
];

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let disk = match arguments.disk.as_str() {
        "ring" => DiskChoice::Ring,
        "direct" => DiskChoice::Direct,
        "buffered" => DiskChoice::Buffered,
        _ => DiskChoice::Auto,
    };
    let mut settings = Settings { disk, ..Settings::default() };
    if arguments.segment > 0 {
        settings.segment_bytes_max = arguments.segment << 20;
    }
    std::fs::create_dir_all(&arguments.common.dir)?;
    let place = tempfile::tempdir_in(&arguments.common.dir)?;
    let name = Store::open_with(place.path(), settings.clone())?.stat()?.disk;
    let about = serde_json::json!({
        "work": "about", "disk": name, "file_system": disk::file_system(&arguments.common.dir),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
    });
    print_line(arguments.common.json, &about);
    let time = Duration::from_secs_f64(arguments.seconds);
    if arguments.work.is_none() {
        for (depth, bytes) in PROBES {
            let run = disk::probe(&arguments.common.dir, depth, bytes, time.min(Duration::from_secs(2)))?;
            report::print_disk(arguments.common.json, depth, bytes, &run);
        }
    }
    for work in WORKS.iter().filter(|work| arguments.work.as_deref().is_none_or(|name| name == work.name)) {
        let measure = |mode, name, time, runs: usize| -> Result<(), Failure> {
            let runs = (0..runs.max(1)).map(|_| one(work, &arguments.common.dir, &settings, time, mode));
            report::print(arguments.common.json, work.name, name, runs.collect::<Result<_, _>>()?);
            Ok(())
        };
        measure(Mode::Burst, "burst", time, arguments.runs)?;
        if arguments.sustained {
            measure(Mode::Sustained, "sustained", SUSTAINED, 1)?;
        }
        if arguments.ceiling || arguments.sustained {
            measure(Mode::Ceiling, "ceiling", time, arguments.runs)?;
        }
    }
    Ok(())
}

/// What is measured: a store, or the bare pipeline below it.
#[derive(Debug)]
enum Target {
    Store(Store),
    Ceiling(Pipeline),
}

/// An append on its way to either.
#[derive(Debug)]
enum OnItsWay {
    Ticket(Ticket),
    Placed(Placed),
}

impl Target {
    fn append(&self, append: Append<'_>) -> Result<OnItsWay, Failure> {
        Ok(match self {
            Self::Store(store) => OnItsWay::Ticket(store.append(append)?),
            Self::Ceiling(pipeline) => OnItsWay::Placed(pipeline.append(&append)),
        })
    }

    fn append_each(&self, appends: &[Append<'_>]) -> Result<Vec<OnItsWay>, Failure> {
        match self {
            Self::Store(store) => {
                store.append_each(appends).into_iter().map(|ticket| Ok(OnItsWay::Ticket(ticket?))).collect()
            }
            Self::Ceiling(pipeline) => {
                Ok(appends.iter().map(|append| OnItsWay::Placed(pipeline.append(append))).collect())
            }
        }
    }

    fn is_settled(&self, append: &OnItsWay) -> bool {
        match (self, append) {
            (_, OnItsWay::Ticket(ticket)) => ticket.is_settled(),
            (Self::Ceiling(pipeline), OnItsWay::Placed(placed)) => pipeline.is_settled(*placed),
            (Self::Store(_), OnItsWay::Placed(_)) => false,
        }
    }

    fn wait(&self, append: OnItsWay) -> Result<(), Failure> {
        match (self, append) {
            (_, OnItsWay::Ticket(ticket)) => {
                ticket.wait()?;
            }
            (Self::Ceiling(pipeline), OnItsWay::Placed(placed)) => pipeline.wait(placed),
            (Self::Store(_), OnItsWay::Placed(_)) => {}
        }
        Ok(())
    }
}

/// How a work is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Burst,
    Sustained,
    Ceiling,
}

fn one(work: &Work, dir: &Path, settings: &Settings, time: Duration, mode: Mode) -> Result<Run, Failure> {
    let dir = tempfile::tempdir_in(dir)?;
    let store = match mode {
        Mode::Ceiling => Target::Ceiling(Pipeline::open(dir.path(), settings)?),
        Mode::Burst | Mode::Sustained => Target::Store(Store::open_with(dir.path(), settings.clone())?),
    };
    let producers: Vec<Producer> =
        (0..work.threads).map(|index| Producer::new(index, work.threads)).collect();
    let begun = stopwatch();
    let until = begun + time;
    let parts = std::thread::scope(|scope| {
        let store = &store;
        let threads: Vec<_> = producers
            .into_iter()
            .map(|producer| scope.spawn(move || produce(store, producer, work, until)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("producers do not panic"))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut latency = histogram();
    let mut events = 0;
    for (count, part) in parts {
        events += count;
        latency.add(part)?;
    }
    if let Target::Store(store) = store {
        store.close()?;
    }
    Ok(Run { events, seconds, latency })
}

fn produce(
    store: &Target,
    mut producer: Producer,
    work: &Work,
    until: Instant,
) -> Result<(u64, hdrhistogram::Histogram<u64>), Failure> {
    let mut latency = histogram();
    let mut events = 0;
    let mut tickets: VecDeque<(Instant, OnItsWay)> = VecDeque::with_capacity(work.in_flight);
    loop {
        let sent = stopwatch();
        if sent >= until {
            break;
        }
        if work.run > 1 {
            let appends = match (work.bounded, store) {
                (true, Target::Store(store)) => producer.bounded(work.run, store.last_position()),
                _ => producer.run(work.run),
            };
            for append in store.append_each(&appends)? {
                tickets.push_back((sent, append));
            }
            while tickets.len() + work.run > work.in_flight
                || tickets.front().is_some_and(|(_, ticket)| store.is_settled(ticket))
            {
                events += settle(store, &mut tickets, &mut latency)?;
            }
            continue;
        }
        let ticket = if work.events == 1 {
            let (event, expected) = producer.next();
            let stream = event.stream.clone();
            store.append(Append::from(event).expect(stream, expected))?
        } else {
            store.append(producer.append(work.events))?
        };
        tickets.push_back((sent, ticket));
        if tickets.len() >= work.in_flight
            || tickets.front().is_some_and(|(_, ticket)| store.is_settled(ticket))
        {
            events += settle(store, &mut tickets, &mut latency)? * work.events as u64;
        }
    }
    while !tickets.is_empty() {
        events += settle(store, &mut tickets, &mut latency)? * work.events as u64;
    }
    Ok((events, latency))
}

/// Waits for the oldest ticket, and takes all that are settled by then: they became durable together, at most as
/// long ago as the last look. Returns how many.
fn settle(
    store: &Target,
    tickets: &mut VecDeque<(Instant, OnItsWay)>,
    latency: &mut hdrhistogram::Histogram<u64>,
) -> Result<u64, Failure> {
    let Some((sent, oldest)) = tickets.pop_front() else { return Ok(0) };
    store.wait(oldest)?;
    let now = stopwatch();
    note(latency, now.duration_since(sent));
    let mut count = 1;
    while let Some((sent, ticket)) = tickets.pop_front_if(|(_, ticket)| store.is_settled(ticket)) {
        store.wait(ticket)?;
        note(latency, now.duration_since(sent));
        count += 1;
    }
    Ok(count)
}
