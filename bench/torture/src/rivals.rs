//! The cuts of the scorecard on any store that has an adapter: what it has acknowledged, and what of that is there afterwards.

use crate::adapter::{Adapter, Running};
use crate::cycle::{CYCLES_OF_A_STORE, Failure};
use crate::history::{Faults, History};
use crate::place::{Cut, Place};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The adapter of the store: see bench/rivals/README.md
    #[arg(long)]
    adapter: PathBuf,
    /// So many cuts of each sort
    #[arg(long, default_value_t = 10)]
    cuts: u64,
    /// What is done depends on it, as far as it does not depend on who comes first; default: by chance
    #[arg(long)]
    seed: Option<u64>,
    /// Where images lie meanwhile
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub(crate) dir: PathBuf,
    /// Print for machines: one JSON object a line
    #[arg(long)]
    json: bool,
    /// Options of the adapter, behind --
    #[arg(last = true)]
    options: Vec<String>,
}

/// A sort of cuts, and the row of the scorecard that has it, too.
#[derive(Debug)]
struct Sort {
    row: &'static str,
    name: &'static str,
    what: &'static str,
    cut: Cut,
}

const SORTS: [Sort; 4] = [
    Sort { row: "R1", name: "ext4", what: "power cuts, ext4", cut: Cut::Power("ext4") },
    Sort { row: "R1", name: "xfs", what: "power cuts, XFS", cut: Cut::Power("xfs") },
    Sort { row: "R2", name: "cache", what: "power cuts under a volatile cache", cut: Cut::Cache },
    Sort { row: "R4", name: "kill", what: "kill -9 under load", cut: Cut::Kill },
];

/// What came of cuts of one sort.
#[derive(Debug, Default)]
struct Tally {
    cuts: u64,
    acknowledged: u64,
    faults: Faults,
    /// What is wrong, and with which seed.
    wrong: Vec<String>,
}

/// What is tried, and how.
#[derive(Debug)]
struct Trial<'a> {
    adapter: &'a Adapter,
    sort: &'a Sort,
    seed: u64,
    /// Where images and histories lie meanwhile.
    below: &'a Path,
}

/// What is wrong, and in words, if it is more than numbers.
type Wrong = (Faults, Option<String>);

pub(crate) fn check(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.adapter.is_file() {
        return Ok(());
    }
    Err(format!("there is no {}: see bench/rivals/README.md", arguments.adapter.display()).into())
}

/// Whether nothing was wrong. `below`: where images and histories lie meanwhile.
pub(crate) fn run(arguments: &Arguments, below: &Path) -> Result<bool, Failure> {
    // Only a path with a slash in it is not searched for.
    let binary = std::path::absolute(&arguments.adapter)?;
    let adapter = Adapter { binary, options: arguments.options.clone() };
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let store = introduce(&adapter, below)?;
    if !arguments.json {
        println!("{store}; seed {seed}");
    }
    let mut is_well = true;
    for sort in &SORTS {
        if let Some(reason) = Place::is_missing(sort.cut) {
            println!("SKIPPED {} {}: {reason}", sort.row, sort.what);
            continue;
        }
        let tally = Trial { adapter: &adapter, sort, seed, below }.run(arguments.cuts)?;
        print(arguments.json, sort, &store, seed, &tally);
        is_well &= tally.faults.is_none();
    }
    Ok(is_well)
}

/// How the store is set, as it says in a place where nothing happens to it.
fn introduce(adapter: &Adapter, below: &Path) -> Result<String, Failure> {
    let place = Place::new(below, Cut::Kill, 0)?;
    let mut running = adapter.start(&place.data())?;
    let settings = running.ready()?;
    running.end()?;
    Ok(settings)
}

fn print(is_json: bool, sort: &Sort, store: &str, seed: u64, tally: &Tally) {
    let Tally { cuts, acknowledged, faults, wrong } = tally;
    let Faults { lost, corrupt, disordered, vanished, unopened } = faults;
    if is_json {
        let line = json!({"row": sort.row, "cut": sort.name, "what": sort.what, "store": store, "seed": seed, "cuts": cuts,
            "acknowledged": acknowledged, "lost": lost, "corrupt": corrupt, "disordered": disordered,
            "vanished": vanished, "unopened": unopened, "wrong": wrong});
        println!("{line}");
        return;
    }
    println!(
        "{} {:34} {cuts:>4} cuts {acknowledged:>9} acknowledged {lost:>6} lost {corrupt:>4} corrupt \
         {disordered:>4} disordered {vanished:>4} shown and gone {unopened:>4} not opened",
        sort.row, sort.what
    );
    wrong.iter().for_each(|wrong| println!("   {wrong}"));
}

impl Trial<'_> {
    /// Goes through so many cuts. A store that fails is given up.
    fn run(&self, cuts: u64) -> Result<Tally, Failure> {
        let (mut tally, mut store) = (Tally::default(), 0);
        while tally.cuts < cuts {
            let count = CYCLES_OF_A_STORE.min(cuts - tally.cuts);
            self.one_store(self.seed.wrapping_add(store), count, &mut tally)?;
            store += 1;
        }
        Ok(tally)
    }

    fn one_store(&self, seed: u64, cuts: u64, tally: &mut Tally) -> Result<(), Failure> {
        let mut place = Place::new(self.below, self.sort.cut, seed)?;
        let mut history = History::default();
        let mut random = SmallRng::seed_from_u64(seed);
        for cycle in 1..=cuts {
            let (faults, words) = self.one_cycle(&mut place, &mut history, &mut random)?;
            tally.cuts += 1;
            tally.faults.add(faults);
            if !faults.is_none() {
                let noted = self.below.join(format!("history-{}-{seed}.txt", self.sort.name));
                history.write(&noted)?;
                let words = words.unwrap_or_else(|| format!("{faults:?}"));
                tally.wrong.push(format!("seed {seed}, cycle {cycle}: {words} (see {})", noted.display()));
                break;
            }
        }
        tally.acknowledged += history.acknowledged();
        Ok(())
    }

    /// With the same draws in the same order as a cycle of the scorecard.
    fn one_cycle(
        &self,
        place: &mut Place,
        history: &mut History,
        random: &mut SmallRng,
    ) -> Result<Wrong, Failure> {
        let mut running = self.adapter.start(&place.data())?;
        let mut of_load = SmallRng::seed_from_u64(random.random());
        let time = Duration::from_millis(random.random_range(50..400));
        if let Err(words) = running.ready() {
            return Ok(unopened(words));
        }
        if let Some(words) = running.work(history, &mut of_load, time)? {
            return Ok(unopened(words));
        }
        // What was accepted after a kill, and read, should be there after a cut, too.
        if self.sort.cut != Cut::Kill && random.random_range(0..2) == 0 {
            let wrong = self.look(place, history, Running::kill)?;
            if !wrong.0.is_none() {
                return Ok(wrong);
            }
        }
        place.cut()?;
        let is_ended = random.random_range(0..2) == 0;
        self.look(place, history, if is_ended { Running::end } else { Running::kill })
    }

    /// Opens the store, compares what it holds, and ends it in this way.
    fn look(
        &self,
        place: &Place,
        history: &mut History,
        end: fn(Running) -> Result<(), String>,
    ) -> Result<Wrong, Failure> {
        let mut running = self.adapter.start(&place.data())?;
        let held = match running.ready().and_then(|_| running.dump()) {
            Ok(held) => held,
            Err(words) => return Ok(unopened(words)),
        };
        let faults = history.compare(&held);
        Ok(match end(running) {
            Ok(()) => (faults, None),
            Err(words) => (Faults { unopened: 1, ..faults }, Some(words)),
        })
    }
}

fn unopened(words: String) -> Wrong {
    (Faults { unopened: 1, ..Faults::default() }, Some(words))
}
