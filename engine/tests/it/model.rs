//! Random operations on a store and on its model, which must agree about everything.
//!
//! `ANNALS_CASES` multiplies the number of seeds, or divides it; `ANNALS_SEED` runs one alone.

use crate::support::{cases, copy_store, scored, small};
use annals::testing::{
    Clock, Driver, Model, Operation, Operations, Place, SimulatedDisk, SimulatedPlace, open_pipelined,
    open_with_clock,
};
use annals::{AppendError, DiskChoice, OpenError, Settings, Store, Timestamp};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const CLOCK_START: u64 = 1_700_000_000_000_000_000;
const OPERATIONS: u64 = 150;

/// A store in a real directory. A stop copies its files, and leaves the machine running.
#[derive(Debug)]
struct RealPlace {
    root: tempfile::TempDir,
    moves: u32,
    pipelined: bool,
}

impl RealPlace {
    fn dir(&self) -> PathBuf {
        self.root.path().join(self.moves.to_string())
    }
}

impl Place for RealPlace {
    fn open(&self, settings: &Settings, clock: Clock) -> Result<Store, OpenError> {
        if self.pipelined {
            open_pipelined(&self.dir(), settings.clone(), clock)
        } else {
            open_with_clock(&self.dir(), settings.clone(), clock)
        }
    }

    fn open_read_only(&self) -> Result<Store, OpenError> {
        Store::open_read_only(self.dir())
    }

    fn stop(&mut self, _: u64, _: bool) {
        let from = self.dir();
        self.moves += 1;
        copy_store(&from, &self.dir());
    }

    fn settles_before_a_stop(&self) -> bool {
        true
    }
}

/// Says which seed and operation it was when a test fails.
struct Note<'a> {
    name: &'a str,
    seed: u64,
    number: u64,
    operation: String,
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}, seed {}, operation {}: {:.300}",
                self.name, self.seed, self.number, self.operation
            );
        }
    }
}

/// Seeds differ in what is kept in memory and whether bodies are compressed, too.
fn settings(disk: DiskChoice, seed: u64) -> Settings {
    Settings {
        recent_bytes: if seed.is_multiple_of(2) { 0 } else { 16 << 20 },
        id_window: if seed % 3 == 1 { 25 } else { 1_000_000 },
        cached_heads: if seed.is_multiple_of(3) { 2 } else { 1_000 },
        compress_above_bytes: (seed % 4 == 1).then_some(200),
        ..small(disk)
    }
}

fn run(name: &str, seed: u64, place: impl Place, settings: Settings) -> Result<(), OpenError> {
    let mut driver = Driver::new(place, settings, CLOCK_START)?;
    let mut operations = Operations::new(seed, CLOCK_START);
    let mut note = Note { name, seed, number: 0, operation: String::new() };
    for number in 0..OPERATIONS {
        let operation = operations.next_for(driver.model());
        note.number = number;
        note.operation = format!("{operation:?}");
        driver.apply(&operation);
    }
    note.operation = "finish".to_owned();
    driver.finish();
    Ok(())
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..cases(count),
    }
}

fn on_real(name: &str, choice: DiskChoice, pipelined: bool) {
    for seed in seeds(4) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("0")).unwrap();
        match run(name, seed, RealPlace { root, moves: 0, pipelined }, settings(choice, seed)) {
            Ok(()) => {}
            Err(OpenError::DiskUnavailable { reason, .. }) => {
                println!("SKIPPED {name}: {reason}");
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn on_simulated(name: &str, depth: Option<usize>) {
    for seed in seeds(25) {
        let disk = SimulatedDisk::new(seed);
        if let Some(depth) = depth {
            disk.set_depth(depth);
        }
        if seed % 5 == 2 {
            disk.set_slowness(Duration::from_micros(200));
        }
        run(name, seed, SimulatedPlace::new(disk), settings(DiskChoice::Auto, seed)).unwrap();
        scored("R11", 1, 1);
    }
}

#[test]
fn a_store_on_the_ring_does_as_the_model() {
    on_real("ring", DiskChoice::Ring, false);
}

#[test]
fn a_store_with_writes_in_flight_on_the_ring_does_as_the_model() {
    on_real("ring, pipelined", DiskChoice::Ring, true);
}

#[test]
fn a_store_on_the_direct_disk_does_as_the_model() {
    on_real("direct", DiskChoice::Direct, false);
}

#[test]
fn a_store_on_the_buffered_disk_does_as_the_model() {
    on_real("buffered", DiskChoice::Buffered, false);
}

#[test]
fn a_store_on_the_simulated_disk_does_as_the_model_through_kills_and_power_cuts() {
    on_simulated("simulated", None);
}

#[test]
fn a_store_on_the_simulated_disk_of_depth_1_does_as_the_model_through_kills_and_power_cuts() {
    on_simulated("simulated, depth 1", Some(1));
}

#[test]
fn a_store_on_the_simulated_disk_of_depth_4_does_as_the_model_through_kills_and_power_cuts() {
    on_simulated("simulated, depth 4", Some(4));
}

#[test]
fn the_operations_reach_every_outcome_of_an_append() {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..10 {
        let (mut model, mut clock) = (Model::new(), CLOCK_START);
        let mut operations = Operations::new(seed, CLOCK_START);
        for _ in 0..OPERATIONS {
            let outcome = match operations.next_for(&model) {
                Operation::SetClock(now) => {
                    clock = now;
                    continue;
                }
                Operation::Append(append) => model.append(&append, Timestamp::new(clock)),
                Operation::AppendEach(appends) => {
                    for append in appends {
                        let _ = model.append(&append, Timestamp::new(clock));
                    }
                    continue;
                }
                _ => continue,
            };
            let name = match outcome {
                Ok(appended) if appended.repeated => "repeated",
                Ok(_) => "written",
                Err(AppendError::WrongVersion { .. }) => "wrong version",
                Err(AppendError::IdConflict { position: Some(_), .. }) => "id conflict",
                Err(AppendError::TimeBackwards { .. }) => "time backwards",
                Err(AppendError::TimeAhead { .. }) => "time ahead",
                Err(AppendError::QueryMatched { .. }) => "query matched",
                Err(AppendError::AfterTheEnd { .. }) => "after the end",
                Err(AppendError::WrongCursor { .. }) => "wrong cursor",
                Err(AppendError::CursorAfterTheEnd { .. }) => "cursor after the end",
                Err(error) => panic!("{error}"),
            };
            *counts.entry(name).or_default() += 1;
        }
    }
    assert_eq!(counts.len(), 10, "{counts:?}");
    println!("{counts:?}");
}
