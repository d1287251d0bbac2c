//! The engine's own drivers, which try every operation, bit and block of a simulated disk: run from the source, with all cases that they have.
//! What they print of themselves is put into the scorecard's rows.

use crate::cycle::{Failure, Score};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

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

/// Runs those whose rows are wanted; what came of each row.
pub(crate) fn run(
    source: &Path,
    is_long: bool,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<&'static str, Score>, Failure> {
    let mut scores = BTreeMap::new();
    for drivers in &DRIVERS {
        if drivers.rows.iter().any(|row| is_wanted(row)) {
            let times = if is_long { drivers.long } else { drivers.short };
            scores.extend(run_some(source, drivers, times)?);
        }
    }
    Ok(scores)
}

fn run_some(source: &Path, drivers: &Drivers, times: u32) -> Result<BTreeMap<&'static str, Score>, Failure> {
    let mut command = Command::new("cargo");
    command.current_dir(source).args([
        "test",
        "--quiet",
        "--release",
        "--locked",
        "-p",
        "annals",
        "--test",
        "it",
    ]);
    let output =
        command.args(["--", "--nocapture", drivers.names]).env("ANNALS_CASES", times.to_string()).output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut scores: BTreeMap<&str, Score> = drivers.rows.iter().map(|row| (*row, Score::default())).collect();
    // In the middle of a line, too, where something else was printed first.
    for scored in printed.split("scored ").skip(1) {
        let mut words = scored.split_whitespace();
        let row = words.next().and_then(|row| scores.get_mut(row));
        if let (Some(score), Some(survived), Some(tried)) = (row, words.next(), words.next()) {
            score.survived += survived.parse::<u64>()?;
            score.tried += tried.parse::<u64>()?;
        }
    }
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let wrong = said.lines().find(|line| line.contains("panicked")).unwrap_or("it does not build");
        // What was not told was not survived.
        for score in scores.values_mut() {
            score.tried += u64::from(score.survived == score.tried);
            score.wrong.push(format!("{}: {wrong}", drivers.names));
        }
    }
    Ok(scores)
}
