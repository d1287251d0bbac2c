//! What is run from the source: the engine's own drivers, which try every operation, bit and block of a simulated disk, with all cases that
//! they have; fuzz targets; and clients that misbehave. What they print of themselves is put into the scorecard's rows.

use crate::cycle::{Failure, Score};
use crate::journal::now;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the names of some drivers begin with, the rows that they are of, and how many times more than usual they try, in a short run
/// and in a long one.
struct Drivers {
    names: &'static str,
    rows: &'static [&'static str],
    short: u32,
    long: u32,
}

/// As many as there are: no driver has more.
const ALL: u32 = 1_000;

const DRIVERS: [Drivers; 4] = [
    Drivers { names: "damage::", rows: &["R5", "R6"], short: ALL, long: ALL },
    Drivers { names: "torn_tail::", rows: &["R7"], short: ALL, long: ALL },
    Drivers { names: "crash::", rows: &["R8", "R9"], short: ALL, long: ALL },
    Drivers { names: "model::a_store_on_the_simulated", rows: &["R11"], short: 27, long: 2_700 },
];

/// How often it is told how far a row is.
const PROGRESS_PERIOD: Duration = Duration::from_secs(30);

/// How long each fuzz target runs, in a short run and in a long one.
const FUZZ_SECONDS: (&str, &str) = ("30", "600");

/// What came of a row, and why some of it was not tried.
type Told = (Score, Vec<String>);

/// Runs those whose rows are wanted; what came of each row.
pub(crate) fn run(
    source: &Path,
    is_long: bool,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<&'static str, Told>, Failure> {
    let mut scores = BTreeMap::new();
    if is_wanted("R13") {
        let seconds = if is_long { FUZZ_SECONDS.1 } else { FUZZ_SECONDS.0 };
        scores.insert(
            "R13",
            told(Command::new(source.join("fuzz/run")).arg(seconds), "survived ", "crashed ")?,
        );
    }
    if is_wanted("R14") {
        let mut command = test(source, "annals-server");
        command.args(["--", "--nocapture", "--test-threads=1", "raw::", "hardship::"]);
        scores.insert("R14", told(&mut command, "... ok", "... FAILED")?);
    }
    for drivers in &DRIVERS {
        if drivers.rows.iter().any(|row| is_wanted(row)) {
            let times = if is_long { drivers.long } else { drivers.short };
            let some = run_some(source, drivers, times)?;
            scores.extend(some.into_iter().map(|(row, score)| (row, (score, Vec::new()))));
        }
    }
    Ok(scores)
}

/// The integration tests of a package.
fn test(source: &Path, package: &str) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(source);
    command.args(["test", "--release", "--locked", "-p", package, "--test", "it"]);
    command
}

/// What a command tells of each thing that it tries, by a word in a line of its own. What it says that it has skipped counts as not
/// tried, whatever else it says of it.
fn told(command: &mut Command, survived: &str, failed: &str) -> Result<Told, Failure> {
    let output = command.output()?;
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // In the middle of a line, too, where something else was printed first.
    let skipped = [&printed, &said].into_iter().flat_map(|all| all.lines());
    let skipped = skipped.filter_map(|line| Some(line.split_once("SKIPPED ")?.1.to_owned()));
    let skipped: Vec<String> = skipped.collect();
    let is_skipped = |line: &str| {
        skipped.iter().any(|skipped| skipped.split_once(": ").is_some_and(|(name, _)| line.contains(name)))
    };
    let mut score = Score::default();
    for line in printed.lines().filter(|line| !is_skipped(line)) {
        if line.contains(failed) {
            score.tried += 1;
            score.wrong.push(line.to_owned());
        } else if line.contains(survived) {
            score.tried += 1;
            score.survived += 1;
        }
    }
    let is_nothing_tried = score.tried == 0 && skipped.is_empty();
    if score.wrong.is_empty() && (is_nothing_tried || !output.status.success()) {
        score.tried += 1;
        score.wrong.push(said.lines().last().unwrap_or("nothing was tried").to_owned());
    }
    Ok((score, skipped))
}

fn run_some(source: &Path, drivers: &Drivers, times: u32) -> Result<BTreeMap<&'static str, Score>, Failure> {
    let mut command = test(source, "annals");
    command.args(["--", "--nocapture", drivers.names]).env("ANNALS_CASES", times.to_string());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (printed, errors) = (child.stdout.take(), child.stderr.take());
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        errors.map(|mut errors| errors.read_to_end(&mut said)).transpose().map(|_| said)
    });
    let mut scores: BTreeMap<&str, Score> = drivers.rows.iter().map(|row| (*row, Score::default())).collect();
    let mut told = now();
    for line in BufReader::new(printed.ok_or("its output is gone")?).split(b'\n') {
        let line = line?;
        // In the middle of a line, too, where something else was printed first.
        for scored in String::from_utf8_lossy(&line).split("scored ").skip(1) {
            let mut words = scored.split_whitespace();
            let row = words.next().and_then(|row| scores.get_mut(row));
            if let (Some(score), Some(survived), Some(tried)) = (row, words.next(), words.next()) {
                score.survived += survived.parse::<u64>()?;
                score.tried += tried.parse::<u64>()?;
            }
        }
        if told.elapsed() >= PROGRESS_PERIOD {
            told = now();
            for (row, score) in &scores {
                eprintln!("{row}: {} of {} so far", score.survived, score.tried);
            }
        }
    }
    let status = child.wait()?;
    let said = said.join().map_err(|_| "what it said could not be read")??;
    let is_something_not_tried = scores.values().any(|score| score.tried == 0);
    if is_something_not_tried || !status.success() {
        let said = String::from_utf8_lossy(&said);
        let wrong = said
            .lines()
            .find(|line| line.contains("panicked"))
            .unwrap_or("it does not build, or has no such tests");
        // What was not told was not survived.
        for score in scores.values_mut() {
            score.tried += u64::from(score.survived == score.tried);
            score.wrong.push(format!("{}: {wrong}", drivers.names));
        }
    }
    Ok(scores)
}
