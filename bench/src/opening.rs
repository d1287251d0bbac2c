//! Opening a large store, after it was closed and after its process was killed: how long it takes, and what memory.

use crate::report::{Common, Failure, print_line};
use crate::workload::stopwatch;
use annals::{Append, NewEvent, Store, Ticket};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Events in the store.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Streams that they go to.
    #[arg(long, default_value_t = 1_000_000)]
    streams: u64,
    /// Fills the store in this directory and waits to be killed; the rest of the measurement does that.
    #[arg(long, hide = true)]
    fill: Option<PathBuf>,
    /// Opens the store in this directory once and says what it took.
    #[arg(long, hide = true)]
    open: Option<PathBuf>,
}

const BATCH: u64 = 100;
const IN_FLIGHT: usize = 64;
const FILLED: &str = "filled";

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(store) = &arguments.fill {
        return fill(store, arguments);
    }
    if let Some(store) = &arguments.open {
        return open_once(store);
    }
    std::fs::create_dir_all(&arguments.common.dir)?;
    let dir = tempfile::tempdir_in(&arguments.common.dir)?;
    let number = |number: u64| number.to_string();
    let mut filling = Command::new(std::env::current_exe()?)
        .args([
            "opening",
            "--events",
            &number(arguments.events),
            "--streams",
            &number(arguments.streams),
            "--fill",
        ])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    if let Some(output) = filling.stdout.take() {
        BufReader::new(output).read_line(&mut said)?;
    }
    // Everything is durable, and nothing else was done about it.
    filling.kill()?;
    filling.wait()?;
    if said.trim() != FILLED {
        return Err("the store could not be filled".into());
    }
    for after in ["kill", "close", "close", "close"] {
        let output =
            Command::new(std::env::current_exe()?).args(["opening", "--open"]).arg(dir.path()).output()?;
        let mut figures: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        figures["work"] = json!("open");
        figures["after"] = json!(after);
        print_line(arguments.common.json, &figures);
    }
    Ok(())
}

fn fill(dir: &Path, arguments: &Arguments) -> Result<(), Failure> {
    let store = Store::open(dir)?;
    let mut random = SmallRng::seed_from_u64(7);
    let mut tickets: VecDeque<Ticket> = VecDeque::new();
    for first in (0..arguments.events).step_by(usize::try_from(BATCH)?) {
        let mut event = |number: u64| {
            let stream = random.random_range(0..arguments.streams);
            NewEvent::new(format!("stream-{stream}"), "MeasurementTaken")
                .tag(format!("customer:{}", stream / 7))
                .tag(format!("site:{}", number % 5000))
                .tag(format!("order:{}", number / 10))
                .binary(vec![7; 256])
        };
        let batch: Append<'_> = (first..(first + BATCH).min(arguments.events)).map(&mut event).collect();
        tickets.push_back(store.append(batch)?);
        if tickets.len() == IN_FLIGHT {
            tickets.pop_front().map(Ticket::wait).transpose()?;
        }
    }
    tickets.into_iter().try_for_each(|ticket| ticket.wait().map(drop))?;
    println!("{FILLED}");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Opens, says what it took, and closes.
fn open_once(dir: &Path) -> Result<(), Failure> {
    let before = memory()?;
    let begun = stopwatch();
    let store = Store::open(dir)?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = memory()?;
    let events = store.next_position().get();
    let used = store.append(NewEvent::new("opened", "Opened"))?.wait()?;
    let stat = store.stat()?;
    // What is done in the background after opening counts, too.
    std::thread::sleep(Duration::from_secs(2));
    let later = memory()?;
    store.close()?;
    #[expect(clippy::cast_precision_loss, reason = "printed rounded")]
    let index_bytes = (stat.index_bytes as f64 / events as f64 * 10.0).round() / 10.0;
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let figures = json!({"events": events, "streams": stat.streams, "segments": stat.segments,
        "seconds": (seconds * 1000.0).round() / 1000.0, "megabytes_open": megabytes(after.saturating_sub(before)),
        "megabytes_later": megabytes(later.saturating_sub(before)), "index_bytes_per_event": index_bytes,
        "first_position": used.first_position().get()});
    println!("{figures}");
    Ok(())
}

/// Anonymous and shared memory of the process that is resident, in bytes; mapped files are not counted.
fn memory() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Ok((of("RssAnon:") + of("RssShmem:")) * 1024)
}
