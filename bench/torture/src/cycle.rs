//! Cycles: a server is given work, cut off in the middle of it, started again, and compared with the journal.

use crate::beside::take_rest;
use crate::check::Log;
use crate::journal::{Journal, Outcome};
use crate::place::{Cut, Place};
use crate::server::{Launch, Server};
use crate::workload::{Workload, ask_again};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// What went wrong other than the store: that is no result.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long something may take that has to come, and how often it is looked for, in milliseconds.
const SOON: u64 = 30_000;
const LOOK_MILLIS: u64 = 20;
/// Cycles that a store lives through, before there is a new one.
pub(crate) const CYCLES_OF_A_STORE: u64 = 10;

/// The machine under a store could not be stopped or started: that says nothing of the store.
#[derive(Debug)]
struct NoPlace(std::io::Error);

impl std::fmt::Display for NoPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the place of a store: {}", self.0)
    }
}

impl std::error::Error for NoPlace {}

/// What is tried, and how.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    pub(crate) launch: Launch,
    pub(crate) cut: Cut,
    pub(crate) seed: u64,
    /// Where images and journals lie meanwhile.
    pub(crate) below: PathBuf,
}

/// What became of some cycles.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Score {
    pub(crate) survived: u64,
    pub(crate) tried: u64,
    /// Events that were there at the end of all stores.
    pub(crate) events: u64,
    /// What is wrong, and with which seed.
    pub(crate) wrong: Vec<String>,
}

impl Score {
    pub(crate) fn add(&mut self, other: Self) {
        self.survived += other.survived;
        self.tried += other.tried;
        self.events += other.events;
        self.wrong.extend(other.wrong);
    }
}

impl Trial {
    /// Goes through so many cycles. A store that fails is given up.
    pub(crate) fn run(&self, runtime: &Runtime, cycles: u64) -> Result<Score, Failure> {
        let (mut score, mut store) = (Score::default(), 0);
        while score.tried < cycles {
            let count = CYCLES_OF_A_STORE.min(cycles - score.tried);
            score.add(self.one_store(runtime, self.seed.wrapping_add(store), count)?);
            store += 1;
        }
        Ok(score)
    }

    fn one_store(&self, runtime: &Runtime, seed: u64, cycles: u64) -> Result<Score, Failure> {
        let mut place = Place::new(&self.below, self.cut, seed)?;
        let noted = self.below.join(format!("journal-{seed}.jsonl"));
        let journal = Arc::new(Journal::new(&noted)?);
        let mut random = SmallRng::seed_from_u64(seed);
        let mut score = Score::default();
        for _ in 0..cycles {
            score.tried += 1;
            let (wrong, events) = match self.one_cycle(runtime, &mut place, &journal, &mut random) {
                Ok(done) => done,
                Err(error) if error.is::<NoPlace>() => return Err(error),
                Err(error) => (vec![format!("it does not go on: {error}")], 0),
            };
            score.events = events;
            if !wrong.is_empty() {
                let told =
                    |error| format!("seed {seed}, cycle {}: {error} (see {})", score.tried, noted.display());
                score.wrong = wrong.into_iter().map(told).collect();
                return Ok(score);
            }
            score.survived += 1;
        }
        drop(std::fs::remove_file(noted));
        Ok(score)
    }

    /// What is wrong afterwards, and how many events there are.
    fn one_cycle(
        &self,
        runtime: &Runtime,
        place: &mut Place,
        journal: &Arc<Journal>,
        random: &mut SmallRng,
    ) -> Result<(Vec<String>, u64), Failure> {
        let server = self.launch.start(place)?;
        let workload = runtime.block_on(Workload::start(&server.address, journal, random.random()))?;
        let millis = random.random_range(50..400);
        // It takes several times as long for the same in a kernel of its own.
        std::thread::sleep(Duration::from_millis(if place.kernel().is_some() { 4 * millis } else { millis }));
        let is_read_before = self.cut != Cut::Kill && random.random_range(0..2) == 0;
        journal.kill();
        if is_read_before || place.kernel().is_none() {
            server.kill()?;
        } else {
            place.crash().map_err(NoPlace)?;
        }
        runtime.block_on(workload.stop());
        // What was accepted after a kill, and read, is there after a cut, too.
        if is_read_before {
            let server = self.launch.start(place)?;
            let wrong = compare(runtime, &server, journal)?.0;
            journal.kill();
            server.kill()?;
            if !wrong.is_empty() {
                return Ok((wrong, 0));
            }
        }
        place.cut().map_err(NoPlace)?;
        let server = self.launch.start(place)?;
        let (mut wrong, _) = compare(runtime, &server, journal)?;
        runtime.block_on(ask_again(&server.address, journal))?;
        let (later, events) = compare(runtime, &server, journal)?;
        wrong.extend(later);
        if random.random_range(0..2) == 0 {
            server.end()?;
            journal.close();
        } else {
            journal.kill();
            server.kill()?
        }
        Ok((wrong, events))
    }

    /// File systems that become full, and have room again.
    pub(crate) fn full_disks(&self, runtime: &Runtime, count: u64) -> Result<Score, Failure> {
        let mut score = Score::default();
        for number in 0..count {
            let seed = self.seed.wrapping_add(number);
            let (mut wrong, events) = self.full_disk(runtime, seed)?;
            wrong.iter_mut().for_each(|error| *error = format!("seed {seed}: {error}"));
            score.add(Score { survived: u64::from(wrong.is_empty()), tried: 1, events, wrong });
        }
        Ok(score)
    }

    fn full_disk(&self, runtime: &Runtime, seed: u64) -> Result<(Vec<String>, u64), Failure> {
        let place = Place::new(&self.below, Cut::Full, seed)?;
        let journal = Arc::new(Journal::new(&self.below.join(format!("full-{seed}.jsonl")))?);
        let server = self.launch.start(&place)?;
        let workload = runtime.block_on(Workload::start(&server.address, &journal, seed))?;
        let mut wrong = Vec::new();
        if !comes(|| journal.count(|outcome| *outcome == Outcome::Refused) > 20) {
            wrong.push("it never became full".to_owned());
        }
        // What is there is served meanwhile.
        let log = runtime.block_on(Log::read(&server.address))?;
        let appended = || journal.count(|outcome| matches!(outcome, Outcome::Appended { .. }));
        let before = appended();
        place.make_room()?;
        if log.len() == 0 || !comes(|| appended() > before + 50) {
            wrong.push("with room again, nothing is appended".to_owned());
        }
        runtime.block_on(workload.stop());
        wrong.extend(compare(runtime, &server, &journal)?.0);
        server.end()?;
        let torn = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("torn-");
        if std::fs::read_dir(place.data())?.flatten().any(torn) {
            wrong.push("something was set aside as torn".to_owned());
        }
        let server = self.launch.start(&place)?;
        let (later, events) = compare(runtime, &server, &journal)?;
        wrong.extend(later);
        server.end()?;
        Ok((wrong, events))
    }

    /// Histories without faults, of a store each.
    pub(crate) fn histories(&self, runtime: &Runtime, count: u64) -> Result<Score, Failure> {
        let mut score = Score::default();
        for number in 0..count {
            let seed = self.seed.wrapping_add(number);
            let place = Place::new(&self.below, Cut::Kill, seed)?;
            let journal = Arc::new(Journal::new(&self.below.join("history.jsonl"))?);
            let server = self.launch.start(&place)?;
            let workload = runtime.block_on(Workload::start(&server.address, &journal, seed))?;
            std::thread::sleep(Duration::from_millis(150));
            runtime.block_on(workload.stop());
            let (wrong, events) = compare(runtime, &server, &journal)?;
            server.end()?;
            score.add(Score {
                survived: u64::from(wrong.is_empty()),
                tried: 1,
                events,
                wrong: wrong.into_iter().map(|error| format!("seed {seed}: {error}")).collect(),
            });
        }
        Ok(score)
    }
}

/// Whether it comes to that, soon.
fn comes(mut is_so: impl FnMut() -> bool) -> bool {
    (0..SOON / LOOK_MILLIS).any(|_| {
        std::thread::sleep(Duration::from_millis(LOOK_MILLIS));
        is_so()
    })
}

fn compare(runtime: &Runtime, server: &Server, journal: &Journal) -> Result<(Vec<String>, u64), Failure> {
    let log = runtime.block_on(Log::read(&server.address))?;
    let events = log.len() as u64;
    let mut wrong = log.check(&mut journal.kept());
    if wrong.is_empty() {
        wrong.extend(runtime.block_on(take_rest(&server.address, journal, events))?);
    }
    Ok((wrong, events))
}
