//! The scorecard: a row for each sort of fault, with what was survived of what was tried.

use crate::cycle::{Failure, Score, Trial};
use crate::place::{Cut, Place};
use crate::server::Launch;
use crate::{drivers, planted};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::runtime::Runtime;

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The command `annals`; default: beside this one
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Many more cycles of each: hours
    #[arg(long)]
    long: bool,
    /// Only this row
    #[arg(long, value_name = "ROW")]
    only: Option<String>,
    /// So many cycles of each row, in place of the usual numbers
    #[arg(long)]
    cycles: Option<u64>,
    /// What is done depends on it, as far as it does not depend on who comes first; default: by chance
    #[arg(long)]
    seed: Option<u64>,
    /// Where images lie meanwhile
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub(crate) dir: PathBuf,
    /// The source whose tests are run, and that bugs are planted in a copy of
    #[arg(long, default_value = ".")]
    source: PathBuf,
    /// Print for machines: one JSON object a line
    #[arg(long)]
    json: bool,
}

/// A row: its name, what is tried, and how often in a short run and in a long one.
struct Row {
    id: &'static str,
    what: &'static str,
    short: u64,
    long: u64,
    tries: &'static [(Cut, &'static str)],
}

const POWER: [(Cut, &str); 4] = [
    (Cut::Power("ext4"), "ring"),
    (Cut::Power("xfs"), "ring"),
    (Cut::Power("ext4"), "direct"),
    (Cut::Power("xfs"), "direct"),
];

/// The first two are all that a short run has time for: each way of writing that goes past the kernel's memory, and each file system.
const KERNEL: [(Cut, &str); 6] = [
    (Cut::Kernel("ext4"), "ring"),
    (Cut::Kernel("xfs"), "direct"),
    (Cut::Kernel("ext4"), "buffered"),
    (Cut::Kernel("xfs"), "ring"),
    (Cut::Kernel("ext4"), "direct"),
    (Cut::Kernel("xfs"), "buffered"),
];

const ROWS: [Row; 6] = [
    Row { id: "R1", what: "power cuts", short: 20, long: 600, tries: &POWER },
    Row {
        id: "R2",
        what: "power cuts under a volatile cache",
        short: 10,
        long: 200,
        tries: &[(Cut::Cache, "ring"), (Cut::Cache, "direct")],
    },
    Row { id: "R3", what: "kernels that crash", short: 2, long: 30, tries: &KERNEL },
    Row { id: "R4", what: "kill -9 under load", short: 20, long: 500, tries: &[(Cut::Kill, "ring")] },
    Row { id: "R10", what: "full disks", short: 5, long: 50, tries: &[(Cut::Full, "buffered")] },
    Row { id: "R12", what: "linearizable histories", short: 50, long: 2_000, tries: &[] },
];

/// Rows of what is run from the source.
const DRIVEN: [(&str, &str); 8] = [
    ("R5", "flipped bits"),
    ("R6", "damaged, swapped, doubled blocks"),
    ("R7", "torn tails"),
    ("R8", "failing operations"),
    ("R9", "stops at each operation, twice"),
    ("R11", "random lives on a simulated disk"),
    ("R13", "fuzz targets"),
    ("R14", "clients that misbehave"),
];
const PLANTED: Row = Row { id: "R15", what: "planted bugs caught", short: 3, long: u64::MAX, tries: &[] };

/// Plants bugs one after the other; which ones, if not all, depends on the seed.
fn plant(
    arguments: &Arguments,
    seed: u64,
    below: &Path,
    from_outside: &dyn Fn(&Path) -> Result<Score, Failure>,
) -> Result<Score, Failure> {
    let patches = planted::patches(&arguments.source)?;
    let wanted = arguments.cycles.unwrap_or(if arguments.long { PLANTED.long } else { PLANTED.short });
    let begin = usize::try_from(seed % patches.len().max(1) as u64)?;
    let copy = planted::Copy::new(&arguments.source, below)?;
    let mut score = Score::default();
    for patch in patches.iter().cycle().skip(begin).take(patches.len()) {
        if score.tried >= wanted {
            break;
        }
        score.tried += 1;
        let name = patch.file_stem().unwrap_or_default().to_string_lossy();
        match copy.catches(&std::path::absolute(patch)?, from_outside)? {
            Some(by) => {
                score.survived += 1;
                eprintln!("{name}: caught by {by}");
            }
            None => score.wrong.push(format!("{name}: nobody has noticed")),
        }
    }
    Ok(score)
}

/// The command that is tried, where it is one.
pub(crate) fn check(arguments: &Arguments) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe()?.with_file_name("annals");
    let binary = arguments.binary.clone().unwrap_or(beside);
    if !binary.is_file() {
        let binary = binary.display();
        return Err(format!("there is no {binary}: build annals-server, or say --binary FILE").into());
    }
    if let Some(only) = &arguments.only {
        let ids = ROWS.iter().map(|row| row.id).chain([PLANTED.id]);
        let ids: Vec<_> = ids.chain(DRIVEN.iter().map(|(id, _)| *id)).collect();
        if !ids.contains(&only.as_str()) {
            return Err(format!("there is no row {only}; there are {}", ids.join(", ")).into());
        }
    }
    let from_source = DRIVEN.iter().map(|(id, _)| *id).chain([PLANTED.id]);
    let needs_source = arguments.cycles.is_none() || arguments.only.as_deref() == Some(PLANTED.id);
    let is_wanted = |id: &str| arguments.only.as_deref().is_none_or(|only| only == id);
    if needs_source && from_source.into_iter().any(is_wanted) && !planted::is_source(&arguments.source) {
        let source = arguments.source.display();
        return Err(format!("{source} is no source of Annals: say --source DIR").into());
    }
    Ok(binary)
}

/// Whether all that was tried was survived. `below`: where images and journals lie meanwhile.
pub(crate) fn run(arguments: &Arguments, below: &Path) -> Result<bool, Failure> {
    let binary = check(arguments)?;
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let is_wanted = |row: &&Row| arguments.only.as_deref().is_none_or(|only| only == row.id);
    let mut is_well = true;
    let trial = |binary: &Path, cut, disk| Trial {
        launch: Launch { binary: binary.to_owned(), disk },
        cut,
        seed,
        below: below.to_owned(),
    };
    for row in ROWS.iter().filter(is_wanted) {
        let cycles = arguments.cycles.unwrap_or(if arguments.long { row.long } else { row.short });
        let (score, skipped) = try_row(row, cycles, &runtime, |cut, disk| trial(&binary, cut, disk))?;
        print(arguments, row, seed, &score, &skipped);
        is_well &= score.survived == score.tried;
    }
    // With so many cycles, only what has cycles.
    if arguments.cycles.is_none() {
        let is_wanted = |row: &str| arguments.only.as_deref().is_none_or(|only| only == row);
        for (id, (score, skipped)) in drivers::run(&arguments.source, arguments.long, is_wanted)? {
            let what = DRIVEN.iter().find(|(row, _)| *row == id).map_or("", |(_, what)| *what);
            let row = Row { id, what, short: 0, long: 0, tries: &[] };
            if is_wanted(id) {
                print(arguments, &row, seed, &score, &skipped);
                is_well &= score.survived == score.tried;
            }
        }
    }
    if is_wanted(&&PLANTED) && (arguments.only.is_some() || arguments.long) {
        let from_outside = |binary: &Path| -> Result<Score, Failure> {
            let mut score = Score::default();
            for row in &ROWS {
                let (tried, _) = try_row(row, row.short, &runtime, |cut, disk| trial(binary, cut, disk))?;
                score.add(tried);
                if !score.wrong.is_empty() {
                    break;
                }
            }
            Ok(score)
        };
        let score = plant(arguments, seed, below, &from_outside)?;
        print(arguments, &PLANTED, seed, &score, &[]);
        is_well &= score.survived == score.tried;
    }
    Ok(is_well)
}

fn try_row(
    row: &Row,
    cycles: u64,
    runtime: &Runtime,
    trial: impl Fn(Cut, &'static str) -> Trial,
) -> Result<(Score, Vec<String>), Failure> {
    if row.tries.is_empty() {
        return Ok((trial(Cut::Kill, "ring").histories(runtime, cycles)?, Vec::new()));
    }
    let (mut score, mut skipped) = (Score::default(), Vec::new());
    let tries = row.tries.len() as u64;
    for (number, (cut, disk)) in (0..).zip(row.tries) {
        // Their sum is as many as are wanted.
        let share = cycles / tries + u64::from(number < cycles % tries);
        match Place::is_missing(*cut) {
            _ if share == 0 => {}
            Some(reason) => skipped.push(format!("{} {cut:?} {disk}: {reason}", row.id)),
            None if *cut == Cut::Full => score.add(trial(*cut, disk).full_disks(runtime, share)?),
            None => score.add(trial(*cut, disk).run(runtime, share)?),
        }
    }
    Ok((score, skipped))
}

fn print(arguments: &Arguments, row: &Row, seed: u64, score: &Score, skipped: &[String]) {
    let Score { survived, tried, events, wrong } = score;
    if arguments.json {
        let line = json!({"row": row.id, "what": row.what, "survived": survived, "tried": tried, "events": events,
            "seed": seed, "commit": commit(), "wrong": wrong, "skipped": skipped});
        println!("{line}");
        return;
    }
    println!("{:4} {:36} {survived:>5} of {tried:>5}   {events:>8} events   seed {seed}", row.id, row.what);
    wrong.iter().for_each(|wrong| println!("     {wrong}"));
    skipped.iter().for_each(|skipped| println!("SKIPPED {skipped}"));
    if survived < tried {
        let long = if arguments.long { " --long" } else { "" };
        let cycles = arguments.cycles.map_or_else(String::new, |cycles| format!(" --cycles {cycles}"));
        println!("     again: annals-torture scorecard --only {}{long}{cycles} --seed {seed}", row.id);
    }
}

/// Which source was tried, where that can be found out.
fn commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
