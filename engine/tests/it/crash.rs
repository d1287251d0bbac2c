//! Crashes and failing disks: every operation of a small life of a store is made to be the last, or to fail, and
//! what is found then must keep the promises.
//!
//! `ANNALS_CASES` makes the steps of the sampled tests smaller, or larger.

use crate::support::{check_prefix, read_all, scored, small, stride, tiny, wait_until, within};
use annals::testing::{
    Clock, Fault, Model, Repeat, SimulatedDisk, open_simulated, open_simulated_read_only, visible_files,
    visible_paths,
};
use annals::{
    Append, AppendError, DiskChoice, ExpectedVersion, Load, NewEvent, NewSnapshot, OpenError, Store, Ticket,
    Timestamp, Uuid, Version,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const NOW: u64 = 1_700_000_000_000_000_000;
/// A case that takes longer hangs.
const SECONDS_MAX: u64 = 20;

fn open(disk: &SimulatedDisk) -> Result<Store, OpenError> {
    let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW)));
    open_simulated(disk, Path::new("/data/store"), small(DiskChoice::Auto), clock)
}

fn open_read_only(disk: &SimulatedDisk) -> Result<Store, OpenError> {
    open_simulated_read_only(disk, Path::new("/data/store"))
}

/// Where a life ended before its time.
#[derive(Debug)]
enum Failure {
    Open(OpenError),
    Append(AppendError),
    Close(AppendError),
}

/// What is known of a store: every batch that was ever handed to it, in order, and what it said of them.
#[derive(Default)]
struct Life {
    model: Model,
    acknowledged: usize,
    /// Whether it was ever opened: then it exists.
    opened: bool,
    store: Option<Store>,
    made: u64,
    /// How often the cursor was set, as was acknowledged, and as was tried.
    set: (u64, u64),
}

impl Life {
    fn batch(&mut self, streams: &[&str], bytes: usize) -> Append<'static> {
        let mut append = Append::new();
        for stream in streams {
            self.made += 1;
            let data = vec![u8::try_from(self.made % 251).unwrap(); bytes];
            let event = NewEvent::new((*stream).to_owned(), "Made").id(Uuid::from_u128(self.made.into()));
            append = append.event(event.binary(data));
        }
        append
    }

    fn open(&mut self, disk: &SimulatedDisk) -> Result<(), Failure> {
        self.store = Some(open(disk).map_err(Failure::Open)?);
        self.opened = true;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Failure> {
        self.store.take().unwrap().close().map_err(Failure::Close)
    }

    /// Appends, as the next in the model's order; without a place there if it was refused.
    fn begin(&mut self, append: &Append<'_>) -> Result<Ticket, Failure> {
        let before = self.model.len();
        self.model.append(append, Timestamp::new(NOW)).unwrap();
        let ticket = self.store.as_ref().unwrap().append(append.clone());
        ticket.map_err(|error| {
            self.model.truncate(before);
            Failure::Append(error)
        })
    }

    fn append(&mut self, streams: &[&str], bytes: usize) -> Result<(), Failure> {
        let batch = self.batch(streams, bytes);
        let ticket = self.begin(&batch)?;
        ticket.wait().map_err(Failure::Append)?;
        self.acknowledged = self.model.len();
        Ok(())
    }

    /// Appends two events to a stream with its state: what its last event is.
    fn append_with_state(&mut self, stream: &'static str, bytes: usize) -> Result<(), Failure> {
        let batch = self.batch(&[stream, stream], bytes);
        let state = self.made.to_le_bytes();
        let ticket = self.begin(&batch.snapshot(NewSnapshot::new(stream, 1, &state)))?;
        ticket.wait().map_err(Failure::Append)?;
        self.acknowledged = self.model.len();
        Ok(())
    }

    /// Writes the state that a stream had at a version, which is `made`, by itself.
    fn write_state(&mut self, stream: &str, version: u64, made: u64) -> Result<(), Failure> {
        let state = made.to_le_bytes();
        let snapshot = NewSnapshot::new(stream, 1, &state);
        let store = self.store.as_ref().unwrap();
        store.write_snapshot(&snapshot, Version::new(version)).map_err(Failure::Append)
    }

    /// Sets a cursor, without events.
    fn set_cursor(&mut self) -> Result<(), Failure> {
        let store = self.store.as_ref().unwrap();
        self.set.1 += 1;
        let ticket = store.append(Append::new().advance("c", None)).map_err(Failure::Append)?;
        ticket.wait().map_err(Failure::Append)?;
        self.set.0 = self.set.1;
        Ok(())
    }

    /// Several appends on their way together.
    fn append_many(&mut self, count: usize, bytes: usize) -> Result<(), Failure> {
        let mut tickets = Vec::new();
        for n in 0..count {
            let batch = self.batch(&["many", "other"][..1 + n % 2], bytes);
            tickets.push((self.begin(&batch)?, self.model.len()));
        }
        for (ticket, events) in tickets {
            ticket.wait().map_err(Failure::Append)?;
            self.acknowledged = events;
        }
        Ok(())
    }

    /// Creates, appends one by one and together, rolls, seals, closes, reopens: all that a store does.
    fn live(&mut self, disk: &SimulatedDisk) -> Result<(), Failure> {
        self.open(disk)?;
        self.append(&["s"], 100)?;
        self.append(&["s"], 100)?;
        self.append(&["s", "t", "s"], 500)?;
        for _ in 0..6 {
            self.append(&["s"], 2_000)?;
        }
        self.append_many(6, 1_500)?;
        self.set_cursor()?;
        self.append(&["u"], 10)?;
        self.close()?;
        self.open(disk)?;
        self.append(&["t"], 20)?;
        self.set_cursor()?;
        self.append_many(12, 2_000)?;
        self.append(&["u", "s"], 6_000)?;
        self.close()?;
        self.open(disk)?;
        self.append(&["u"], 10)?;
        self.close()
    }
}

impl Life {
    /// Appends and writes states beside the log.
    fn keep_states(&mut self, disk: &SimulatedDisk) -> Result<(), Failure> {
        self.open(disk)?;
        self.append_with_state("s", 100)?;
        self.append(&["s", "t"], 100)?;
        self.append_with_state("t", 4_000)?;
        self.write_state("s", 2, 3)?;
        self.append_many(3, 500)?;
        self.append_with_state("s", 3_000)?;
        self.close()?;
        self.open(disk)?;
        self.append_with_state("t", 10)?;
        self.append_with_state("s", 6_000)?;
        self.close()
    }

    /// Fills so many segments that a span is made.
    fn fill_a_span(&mut self, disk: &SimulatedDisk) -> Result<(), Failure> {
        let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW)));
        let opened = open_simulated(disk, Path::new("/data/store"), tiny(DiskChoice::Auto), clock);
        self.store = Some(opened.map_err(Failure::Open)?);
        self.opened = true;
        for _ in 0..9 {
            self.append(&["s"], 6_000)?;
        }
        let is_span = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "span");
        wait_until("a span", || disk.is_frozen() || visible_paths(disk).iter().any(is_span));
        self.close()?;
        self.open(disk)?;
        self.append(&["t"], 20)?;
        self.close()
    }
}

/// Whether what is found keeps the promises: of the life's events at least `least` are there, the store can be used,
/// and what it shows once it shows for ever.
fn check(disk: &SimulatedDisk, life: &Life, least: usize, seed: u64) -> Result<(), String> {
    let checked = AssertUnwindSafe(|| check_or_panic(disk, life, least, seed));
    catch_unwind(checked).unwrap_or_else(|_| Err("panicked, as is said above".to_owned()))
}

fn check_or_panic(disk: &SimulatedDisk, life: &Life, least: usize, seed: u64) -> Result<(), String> {
    let seen = check_reading_alone(disk, life, least)?;
    let store = open(disk).map_err(|error| format!("open: {error}"))?;
    let records = read_all(&store).map_err(|error| format!("read: {error}"))?;
    check_prefix(&life.model, &records, least.max(seen))?;
    let set =
        store.cursor("c").map_err(|error| format!("cursor: {error}"))?.map_or(0, |cursor| cursor.revision);
    if !(life.set.0..=life.set.1).contains(&set) {
        return Err(format!("the cursor was set {set} times, and not {:?}", life.set));
    }
    let shown = records.len();
    for (name, cut) in
        [("kill", disk.kill()), ("cut", disk.crash(seed)), ("kill and cut", disk.kill().crash(seed + 1))]
    {
        let vanished = |error| format!("{shown} were shown, and after a {name} right then: {error}");
        check_shown(&cut, life, shown).map_err(vanished)?;
    }
    let verified = store.verify(&mut |_, _| {}).map_err(|error| format!("verify: {error}"))?;
    if !verified.is_ok() {
        return Err(format!("{:?}", verified.damage));
    }
    let mut later =
        Life { model: life.model.clone(), made: 1_000_000, store: Some(store), ..Life::default() };
    later.model.truncate(shown);
    // Each stream has the versions again, of other events, that were on their way when it ended.
    let again = [["s"; 8], ["t"; 8], ["later"; 8]].concat();
    later.append(&again, 10).map_err(|error| format!("going on: {error:?}"))?;
    check_states(later.store.as_ref().unwrap())?;
    later.close().map_err(|error| format!("closing: {error:?}"))?;
    check_states(&open(disk).map_err(|error| format!("open for states: {error}"))?)?;
    let again = check_shown(disk, &later, shown + again.len());
    again.map_err(|error| format!("after going on with {shown}: {error}"))
}

/// A stream's state is that of the event at its version.
fn check_states(store: &Store) -> Result<(), String> {
    for stream in ["s", "t"] {
        let loaded = store.load(&Load::stream(stream)).map_err(|error| format!("load {stream}: {error}"))?;
        let Some(state) = loaded.snapshot else { continue };
        let records = read_all(store).map_err(|error| format!("read: {error}"))?;
        let of = records.iter().find(|record| record.stream() == stream && record.version() == state.version);
        let of = of.map(|record| u64::try_from(record.id().as_u128()).unwrap_or(0).to_le_bytes());
        if of.is_none_or(|made| state.data[..] != made) {
            return Err(format!("{stream} at version {} has the state of another event", state.version));
        }
    }
    Ok(())
}

/// Reading alone shows whole batches and changes nothing. Returns how much was seen.
fn check_reading_alone(disk: &SimulatedDisk, life: &Life, least: usize) -> Result<usize, String> {
    let before = visible_files(disk);
    let seen = match open_read_only(disk) {
        Ok(store) => {
            let records = read_all(&store).map_err(|error| format!("read alone: {error}"))?;
            check_prefix(&life.model, &records, least).map_err(|error| format!("read alone: {error}"))?;
            records.len()
        }
        Err(OpenError::NoStore { .. }) if !life.opened => 0,
        Err(error) => return Err(format!("open to read alone: {error}")),
    };
    if visible_files(disk) == before { Ok(seen) } else { Err("reading alone changed a file".to_owned()) }
}

/// What was shown is there, to read alone and for writing.
fn check_shown(disk: &SimulatedDisk, life: &Life, shown: usize) -> Result<(), String> {
    let alone = open_read_only(disk).map_err(|error| format!("open to read alone: {error}"))?;
    let records = read_all(&alone).map_err(|error| format!("read alone: {error}"))?;
    check_prefix(&life.model, &records, shown)?;
    drop(alone);
    let store = open(disk).map_err(|error| format!("open: {error}"))?;
    let records = read_all(&store).map_err(|error| format!("read: {error}"))?;
    check_prefix(&life.model, &records, shown)
}

/// The disks that may be found after this one stopped.
fn found_after(disk: &SimulatedDisk, seed: u64) -> [(&'static str, SimulatedDisk); 3] {
    [("cut 1", disk.crash(seed)), ("cut 2", disk.crash(seed + 1)), ("kill", disk.kill())]
}

fn disk_of(seed: u64, depth: Option<usize>) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    if let Some(depth) = depth {
        disk.set_depth(depth);
    }
    disk
}

/// What is done in a life.
type Live = fn(&mut Life, &SimulatedDisk) -> Result<(), Failure>;

/// Lives until operation `number` stops the machine; `None`: the life was over before that.
fn life_until(number: u64, depth: Option<usize>, live: Live) -> Option<(SimulatedDisk, Life)> {
    let disk = disk_of(number, depth);
    disk.freeze_at(number);
    let mut life = Life::default();
    let end = live(&mut life, &disk);
    life.store = None;
    if !disk.is_frozen() {
        end.unwrap();
        return None;
    }
    Some((disk, life))
}

fn stop_at_every_operation(depth: Option<usize>, live: Live) {
    let (mut problems, mut tried) = (Vec::new(), 0);
    let most_in_flight = Arc::new(AtomicUsize::new(0));
    for number in 1.. {
        let most = Arc::clone(&most_in_flight);
        let case = move || {
            let (disk, life) = life_until(number, depth, live)?;
            most.fetch_max(disk.most_in_flight(), Ordering::Relaxed);
            let found = found_after(&disk, number);
            let check = |(name, disk): &(&str, SimulatedDisk)| {
                let result = check(disk, &life, life.acknowledged, number);
                result.err().map(|problem| format!("stopped at operation {number}, {name}: {problem}"))
            };
            Some(found.iter().filter_map(check).collect::<Vec<_>>())
        };
        match within(SECONDS_MAX, &format!("stopped at operation {number}"), case) {
            Some(found) => problems.extend(found),
            None => break,
        }
        tried += 1;
        assert!(number < 10_000, "a life ends");
    }
    scored("R9", if problems.is_empty() { tried } else { 0 }, tried);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    let most_in_flight = most_in_flight.load(Ordering::Relaxed);
    assert!(
        depth.is_none_or(|depth| most_in_flight >= depth.min(2)),
        "{most_in_flight} writes were in flight"
    );
}

#[test]
fn a_machine_that_stops_at_any_operation_keeps_what_was_acknowledged_and_seen() {
    stop_at_every_operation(None, Life::live);
}

#[test]
fn a_machine_with_4_writes_in_flight_that_stops_at_any_operation_keeps_what_was_acknowledged_and_seen() {
    stop_at_every_operation(Some(4), Life::live);
}

#[test]
fn a_machine_that_stops_at_any_operation_while_a_span_is_made_keeps_what_was_acknowledged_and_seen() {
    stop_at_every_operation(None, Life::fill_a_span);
}

#[test]
fn a_machine_that_stops_at_any_operation_of_keeping_states_shows_none_of_an_event_that_is_not_there() {
    stop_at_every_operation(None, Life::keep_states);
    stop_at_every_operation(Some(4), Life::keep_states);
}

/// Stops recovery at each of its operations, too.
fn check_recovery(base: &SimulatedDisk, life: &Life, label: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for operation in 1.. {
        let disk = base.kill();
        disk.freeze_at(operation);
        let mut life =
            Life { model: life.model.clone(), opened: life.opened, set: life.set, ..Life::default() };
        let mut least = 0;
        if let Ok(store) = open(&disk) {
            life.opened = true;
            least = read_all(&store).map_or(0, |records| records.len());
        }
        if !disk.is_frozen() {
            return problems;
        }
        for (name, found) in found_after(&disk, operation) {
            let result = check(&found, &life, least.max(life.acknowledged), operation);
            problems.extend(
                result.err().map(|problem| format!("{label}, recovery's {operation}, {name}: {problem}")),
            );
        }
    }
    problems
}

#[test]
fn a_recovery_that_is_stopped_at_any_operation_loses_nothing() {
    let (mut problems, mut tried) = (Vec::new(), 0);
    for number in (1..).step_by(stride(9)) {
        let case = move || {
            let (disk, life) = life_until(number, number.is_multiple_of(2).then_some(4), Life::live)?;
            let mut problems = Vec::new();
            for (name, base) in &found_after(&disk, number)[1..] {
                let label = format!("stopped at operation {number}, {name}");
                problems.extend(check_recovery(base, &life, &label));
            }
            Some(problems)
        };
        match within(2 * SECONDS_MAX, &format!("recovery after operation {number}"), case) {
            Some(found) => problems.extend(found),
            None => break,
        }
        tried += 1;
    }
    scored("R9", if problems.is_empty() { tried } else { 0 }, tried);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// One life on a disk of which an operation fails; what is wrong, and whether the fault's operation came at all.
fn live_with(fault: Fault, repeat: Repeat, number: u64) -> Result<bool, String> {
    let disk = disk_of(number, number.is_multiple_of(3).then_some(4));
    disk.fail_at(number, fault, repeat);
    let mut life = Life::default();
    let end = life.live(&disk);
    let struck = disk.operations() >= number;
    let full = matches!(fault, Fault::ENOSPC);
    match &end {
        Err(problem) if fault == Fault::Short || !struck => return Err(format!("failed with {problem:?}")),
        Ok(())
        | Err(
            Failure::Open(OpenError::Io(_))
            | Failure::Close(AppendError::Poisoned { .. } | AppendError::Io(_)),
        ) => {}
        Err(Failure::Append(AppendError::DiskFull(_))) if full => check_resumes(&mut life, &disk, repeat)?,
        Err(Failure::Append(AppendError::Io(_))) if !full => check_resumes(&mut life, &disk, repeat)?,
        Err(Failure::Append(AppendError::Poisoned { .. } | AppendError::UnknownOutcome { .. })) => {
            check_poisoned(&mut life)?
        }
        Err(problem) => return Err(format!("failed with {problem:?}")),
    }
    life.store = None;
    disk.clear_faults();
    for (name, found) in found_after(&disk, number) {
        check(&found, &life, life.acknowledged, number).map_err(|problem| format!("{name}: {problem}"))?;
    }
    // In the same process, too: nothing is left locked.
    check(&disk, &life, life.acknowledged, number).map_err(|problem| format!("reopened: {problem}"))?;
    Ok(struck)
}

fn check_reads(life: &Life) -> Result<(), String> {
    let records =
        read_all(life.store.as_ref().unwrap()).map_err(|error| format!("reads do not go on: {error}"))?;
    check_prefix(&life.model, &records, life.acknowledged)
}

/// Appends were refused before anything was written: once the cause is gone they succeed.
fn check_resumes(life: &mut Life, disk: &SimulatedDisk, repeat: Repeat) -> Result<(), String> {
    check_reads(life)?;
    disk.clear_faults();
    match life.append(&["resumed"], 8_000) {
        Ok(()) => check_reads(life),
        // What failed for good may have failed the keeper of the mark, too, before it was well again.
        Err(Failure::Append(AppendError::Poisoned { .. })) if repeat == Repeat::ForGood => {
            check_poisoned(life)
        }
        Err(problem) => Err(format!("does not resume: {problem:?}")),
    }
}

/// The writer has stopped for good: appends are refused with their own error, and reads go on.
fn check_poisoned(life: &mut Life) -> Result<(), String> {
    check_reads(life)?;
    match life.append(&["refused"], 10) {
        Err(Failure::Append(AppendError::Poisoned { .. })) => {}
        other => return Err(format!("a poisoned writer answered {other:?}")),
    }
    check_reads(life)?;
    match life.close() {
        Err(Failure::Close(AppendError::Poisoned { .. })) => Ok(()),
        other => Err(format!("closing a poisoned writer answered {other:?}")),
    }
}

fn fail_every_operation(repeat: Repeat) {
    let (mut problems, mut tried) = (Vec::new(), 0);
    for fault in [Fault::EIO, Fault::ENOSPC, Fault::Short, Fault::ShortThenError] {
        for number in (1..).step_by(stride(2)) {
            let label = format!("{fault:?} {repeat:?} at operation {number}");
            tried += 1;
            match within(SECONDS_MAX, &label, move || live_with(fault, repeat, number)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(problem) => problems.push(format!("{label}: {problem}")),
            }
        }
    }
    scored("R8", tried - problems.len(), tried);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn an_operation_that_fails_once_loses_nothing_that_was_acknowledged() {
    fail_every_operation(Repeat::Once);
}

#[test]
fn a_disk_that_fails_for_good_loses_nothing_that_was_acknowledged() {
    fail_every_operation(Repeat::ForGood);
}

#[test]
fn a_full_disk_refuses_appends_and_serves_again_once_there_is_room() {
    let case = || {
        let disk = SimulatedDisk::new(1);
        disk.set_capacity(150 << 10);
        let mut life = Life::default();
        life.open(&disk).unwrap();
        let refused = loop {
            match life.append(&["s"], 3_000) {
                Ok(()) => assert!(life.model.len() < 100, "it is never full"),
                Err(problem) => break problem,
            }
        };
        assert!(matches!(refused, Failure::Append(AppendError::DiskFull(_))), "{refused:?}");
        let there = life.model.len();
        check_reads(&life).unwrap();
        let again = life.append(&["s", "t"], 5_000).unwrap_err();
        assert!(matches!(again, Failure::Append(AppendError::DiskFull(_))), "{again:?}");
        life.append(&["s"], 1).unwrap();
        assert_eq!(life.model.len(), there + 1, "what still fits is taken");
        disk.set_capacity(u64::MAX);
        for _ in 0..20 {
            life.append(&["s"], 3_000).unwrap();
        }
        check_reads(&life).unwrap();
        let verified = life.store.as_ref().unwrap().verify(&mut |_, _| {}).unwrap();
        assert!(verified.is_ok(), "{verified:?}");
        life.close().unwrap();
        check(&disk, &life, life.acknowledged, 1).unwrap();
    };
    within(SECONDS_MAX, "a full disk", case);
}

#[test]
fn a_lost_reply_is_answered_with_the_first_result_after_any_crash() {
    for number in (30..).step_by(stride(11)) {
        let Some((disk, life)) = life_until(number, None, Life::live) else { break };
        for (name, found) in found_after(&disk, number) {
            let store = open(&found).unwrap();
            let there = store.next_position().get();
            // The client of every batch repeats what it wrote to its stream's next version then.
            for (position, stored) in life.model.events().iter().enumerate() {
                let alone = life.model.is_boundary(position) && life.model.is_boundary(position + 1);
                if !alone || position as u64 > there {
                    continue;
                }
                let event = NewEvent { time: None, ..stored.event.clone() };
                let expected = match stored.version.get().checked_sub(1) {
                    Some(before) => ExpectedVersion::Exactly(before.into()),
                    None => ExpectedVersion::NoStream,
                };
                let stream = event.stream.clone();
                let outcome =
                    store.append(Append::from(event).expect(stream, expected)).unwrap().wait().unwrap();
                assert_eq!(outcome.first_position().get(), position as u64, "stopped at {number}, {name}");
                assert_eq!(outcome.repeated, (position as u64) < there, "stopped at {number}, {name}");
                if position as u64 == there {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_disk_that_lies_about_durability_is_caught() {
    let caught = |disk: &SimulatedDisk, life: &Life| {
        let problem = |seed| check(&disk.crash(seed), life, life.acknowledged, seed).err();
        (0..10).filter_map(problem).collect::<Vec<_>>()
    };
    let disk = SimulatedDisk::new(1);
    disk.lie_about_sync(true);
    let mut life = Life::default();
    life.live(&disk).unwrap();
    assert!(caught(&disk, &life).len() >= 5, "a device that never keeps anything must be noticed");

    let disk = SimulatedDisk::new(2);
    let mut life = Life::default();
    life.open(&disk).unwrap();
    life.append(&["s"], 100).unwrap();
    disk.lie_about_sync(true);
    life.append(&["s"], 100).unwrap();
    let problems = caught(&disk, &life);
    assert!(problems.iter().any(|problem| problem.contains("1 events are there, of 2")), "{problems:?}");

    let disk = SimulatedDisk::new(3);
    let mut life = Life::default();
    life.live(&disk).unwrap();
    assert_eq!(caught(&disk, &life), Vec::<String>::new(), "an honest one is not");
}
