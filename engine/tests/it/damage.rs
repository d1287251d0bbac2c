//! Damage: whatever is changed in a store's files, nobody is served a wrong event, and nothing is missing unsaid.
//!
//! `ANNALS_CASES` makes the steps between the bits and blocks that are tried smaller, or larger.

use crate::support::{scored, small, stride};
use annals::testing::{Clock, Model, ModelEvent, SimulatedDisk, open_simulated, open_simulated_read_only};
use annals::{
    Append, AppendError, DiskChoice, ExpectedVersion, NewEvent, OpenError, Position, Read, ReadError, Record,
    Settings, Store, Timestamp, Uuid,
};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

const NOW: u64 = 1_700_000_000_000_000_000;
pub(crate) const BLOCK: usize = 4096;
pub(crate) const SECTOR: usize = 512;

pub(crate) fn open(disk: &SimulatedDisk) -> Result<Store, OpenError> {
    let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW)));
    let settings = Settings { segment_bytes_max: 16 << 10, ..small(DiskChoice::Auto) };
    open_simulated(disk, Path::new("/store"), settings, clock)
}

pub(crate) fn open_read_only(disk: &SimulatedDisk) -> Result<Store, OpenError> {
    open_simulated_read_only(disk, Path::new("/store"))
}

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new("/store").join(name)
}

/// A store and what is in it.
pub(crate) struct Sample {
    pub(crate) disk: SimulatedDisk,
    pub(crate) model: Model,
}

impl Sample {
    pub(crate) fn append(&mut self, store: &Store, streams: &[&str], bytes: usize) {
        let mut append = Append::new();
        for (index, stream) in streams.iter().enumerate() {
            let id = Uuid::from_u128((self.model.len() + index + 1) as u128);
            let data = vec![u8::try_from(id.as_u128() % 251).unwrap(); bytes];
            append = append.event(NewEvent::new((*stream).to_owned(), "Made").id(id).binary(data).tag("a"));
        }
        self.model.append(&append, Timestamp::new(NOW)).unwrap();
        store.append(append).unwrap().wait().unwrap();
    }

    /// A copy, to be damaged.
    pub(crate) fn copy(&self) -> SimulatedDisk {
        self.disk.kill()
    }

    pub(crate) fn bytes(&self, file: &Path) -> Vec<u8> {
        self.disk.contents(file).unwrap()
    }
}

/// A store of several sealed segments of 16 KiB and one that is written, closed cleanly.
fn closed_store() -> Sample {
    let mut sample = Sample { disk: SimulatedDisk::new(7), model: Model::new() };
    let store = open(&sample.disk).unwrap();
    sample.append(&store, &["s"], 20);
    sample.append(&store, &["t", "early", "s"], 10);
    for n in 0..14 {
        sample.append(&store, &["s", "t", "u"][..1 + n % 3], 900);
    }
    sample.append(&store, &["last"], 3_000);
    store.close().unwrap();
    let sealed = sample
        .disk
        .paths()
        .iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "index"))
        .count();
    assert!(sealed >= 2, "the sample has sealed segments");
    sample
}

/// Reads the whole store and each stream; whether damage was reported. Wrong or silently missing events are an error.
fn check_reads(store: &Store, model: &Model) -> Result<bool, String> {
    let everything = model.events().iter().enumerate().map(|(at, event)| (at as u64, at as u64, event));
    let mut reported = check_read(store, Read::all(), |record| record.position().get(), everything)?;
    let streams: BTreeSet<_> = model.events().iter().map(|stored| stored.event.stream.clone()).collect();
    for stream in streams {
        let of_stream = model.events().iter().enumerate().filter(|(_, stored)| stored.event.stream == stream);
        let numbered = of_stream.map(|(at, stored)| (stored.version.get(), at as u64, stored));
        reported |=
            check_read(store, Read::stream(stream.clone()), |record| record.version().get(), numbered)
                .map_err(|problem| format!("stream {stream}: {problem}"))?;
        match store.head(&stream) {
            Ok(head) if head == model.head(&stream) => {}
            Ok(head) => return Err(format!("the head of {stream} is said to be {head:?}")),
            Err(ReadError::Damage(_)) => reported = true,
            Err(error) => return Err(format!("head: {error}")),
        }
    }
    Ok(reported)
}

/// Compares a read with the events that it should give, each with its number in the read and its position.
fn check_read<'a>(
    store: &Store,
    read: Read<'_>,
    number: impl Fn(&Record) -> u64,
    expected: impl Iterator<Item = (u64, u64, &'a ModelEvent)>,
) -> Result<bool, String> {
    let mut reported = false;
    let reader = match store.read(read) {
        Ok(reader) => reader,
        Err(ReadError::Damage(_)) => return Ok(true),
        Err(error) => return Err(format!("read: {error}")),
    };
    let mut expected = expected.peekable();
    let mut gap = false;
    for (count, item) in reader.enumerate() {
        match item {
            Err(ReadError::Damage(_)) => gap = true,
            Err(error) => return Err(format!("read: {error}")),
            Ok(record) => {
                while let Some((missing, ..)) = expected.next_if(|(at, ..)| *at < number(&record)) {
                    if !gap {
                        return Err(format!("number {missing} is silently missing"));
                    }
                }
                match expected.next() {
                    Some((_, position, event)) if event.is(Position::new(position), &record) => {}
                    _ => return Err(format!("a wrong event is served: {record:?}")),
                }
                reported |= gap;
                gap = false;
            }
        }
        if count > 10_000 {
            return Err("the read does not end".to_owned());
        }
    }
    match expected.next() {
        Some((missing, ..)) if !gap => Err(format!("number {missing} and all behind it is silently missing")),
        _ => Ok(reported || gap),
    }
}

/// The rules for a damaged store that is read alone; `is_seen`: the damage must be reported.
pub(crate) fn check_alone(disk: &SimulatedDisk, model: &Model, is_seen: bool) -> Result<(), String> {
    let store = match open_read_only(disk) {
        Ok(store) => store,
        Err(error) => return check_refusal(&error),
    };
    let reported = check_reads(&store, model)?;
    let verified = store.verify(&mut |_, _| {}).map_err(|error| format!("verify: {error}"))?;
    if verified.is_ok() && (is_seen || reported) {
        return Err("verify does not report it".to_owned());
    }
    Ok(())
}

/// The rules for opening a damaged store for writing.
fn check_writing(disk: &SimulatedDisk, model: &Model) -> Result<(), String> {
    match open(disk) {
        Ok(store) => {
            check_reads(&store, model).map(drop).map_err(|problem| format!("for writing: {problem}"))
        }
        Err(error) => check_refusal(&error),
    }
}

fn check_refusal(error: &OpenError) -> Result<(), String> {
    match error {
        OpenError::Damage(_) | OpenError::NewerFormat { .. } | OpenError::UnknownFeatures { .. } => Ok(()),
        OpenError::Foreign { .. } => Ok(()),
        error => Err(format!("opening is refused with {error}")),
    }
}

/// Collects what goes wrong, with a few examples of it.
#[derive(Default)]
pub(crate) struct Problems {
    pub(crate) cases: usize,
    pub(crate) count: usize,
    pub(crate) examples: Vec<String>,
}

impl Problems {
    pub(crate) fn check(&mut self, label: impl Fn() -> String, check: impl FnOnce() -> Result<(), String>) {
        self.cases += 1;
        let result = catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| Err("panics".to_owned()));
        if let Err(problem) = result {
            self.count += 1;
            if self.examples.len() < 8 {
                self.examples.push(format!("{}: {problem}", label()));
            }
        }
    }

    /// There are none. `row`: of the scorecard.
    pub(crate) fn none(self, row: &str) {
        scored(row, self.cases - self.count, self.cases);
        assert_eq!(self.count, 0, "of {} cases:\n{}", self.cases, self.examples.join("\n"));
    }
}

/// The ranges of a log file that hold something: header, frames, seal.
pub(crate) fn used_ranges(log: &[u8]) -> Vec<std::ops::Range<usize>> {
    let number = |at: usize| u32::from_le_bytes(log[at..at + 4].try_into().unwrap()) as usize;
    let mut ranges = Vec::new();
    ranges.push(0..136);
    let mut at = BLOCK;
    while log[at..].starts_with(b"anfr") {
        let end = at + 48 + number(at + 16) + number(at + 20);
        ranges.push(at..end);
        at = end.next_multiple_of(8);
    }
    let seal = at.next_multiple_of(BLOCK);
    if log[seal..].starts_with(b"annalssl") {
        ranges.push(seal..seal + 208);
    }
    ranges
}

/// Whether a changed log file differs in what it holds.
fn is_used_changed(before: &[u8], after: &[u8]) -> bool {
    used_ranges(before).into_iter().any(|range| before[range.clone()] != after[range])
}

/// Flips these bits, one at a time.
fn flip(
    sample: &Sample,
    file: &Path,
    bits: impl Iterator<Item = usize>,
    is_seen: bool,
    problems: &mut Problems,
) {
    let writing = stride(7);
    for (count, bit) in bits.enumerate() {
        let label = || format!("{} bit {} of byte {}", file.display(), bit % 8, bit / 8);
        let damaged = sample.copy();
        damaged.flip_bit(file, bit as u64);
        problems.check(label, || check_alone(&damaged, &sample.model, is_seen));
        if count % writing == 0 {
            problems.check(label, || check_writing(&damaged, &sample.model));
        }
    }
}

pub(crate) fn bits_of(range: &std::ops::Range<usize>, step: usize) -> impl Iterator<Item = usize> + use<> {
    (range.start * 8..range.end * 8).step_by(step)
}

fn flip_log(ordinal: usize) {
    let sample = closed_store();
    let file = path(&format!("{ordinal:010}.log"));
    let mut problems = Problems::default();
    for (index, range) in used_ranges(&sample.bytes(&file)).iter().enumerate() {
        let step = if index < 3 { stride(3) } else { stride(101) };
        flip(&sample, &file, bits_of(range, step), true, &mut problems);
    }
    problems.none("R5");
}

fn active(sample: &Sample) -> usize {
    let begun = |ordinal: &usize| {
        sample.disk.contents(&path(&format!("{ordinal:010}.log"))).is_some_and(|log| log[0] != 0)
    };
    (1..).take_while(begun).last().unwrap()
}

#[test]
fn a_flipped_bit_of_a_sealed_segment_is_found_and_never_served() {
    flip_log(1);
}

#[test]
fn a_flipped_bit_of_the_active_segment_is_found_and_never_served() {
    flip_log(active(&closed_store()));
}

#[test]
fn a_flipped_bit_of_a_segment_in_the_middle_is_found_and_never_served() {
    let sample = closed_store();
    let file = path("0000000002.log");
    let mut problems = Problems::default();
    for range in used_ranges(&sample.bytes(&file)) {
        flip(&sample, &file, bits_of(&range, stride(151)), true, &mut problems);
    }
    problems.none("R5");
}

#[test]
fn a_flipped_bit_of_manifest_mark_or_index_is_found_and_changes_no_answer() {
    let sample = closed_store();
    let mut problems = Problems::default();
    let all_of = |name: &str| 0..sample.bytes(&path(name)).len();
    for (name, range, step) in [
        ("manifest", all_of("manifest"), stride(3)),
        ("mark", 0..64, stride(2)),
        ("mark", 512..576, stride(2)),
        ("mark", 1024..1088, stride(2)),
        ("0000000001.index", all_of("0000000001.index"), stride(149)),
        ("0000000001.index", 0..200, stride(7)),
    ] {
        flip(&sample, &path(name), bits_of(&range, step), true, &mut problems);
    }
    problems.none("R5");
}

#[test]
fn a_flipped_bit_of_what_is_not_used_harms_nothing() {
    let sample = closed_store();
    let mut problems = Problems::default();
    for file in sample.disk.paths() {
        let bytes = sample.bytes(&file);
        let zero = (0..bytes.len()).filter(|&at| bytes[at] == 0).step_by(stride(997));
        flip(&sample, &file, zero.map(|at| at * 8), false, &mut problems);
    }
    problems.none("R5");
}

/// Checks a damaged copy in all ways.
fn check_both(sample: &Sample, damaged: &SimulatedDisk, label: &str, is_seen: bool, problems: &mut Problems) {
    problems.check(|| label.to_owned(), || check_alone(damaged, &sample.model, is_seen));
    problems.check(|| label.to_owned(), || check_writing(damaged, &sample.model));
}

#[test]
fn a_missing_cut_or_zeroed_file_is_named_or_made_anew() {
    let sample = closed_store();
    let mut problems = Problems::default();
    for file in sample.disk.paths() {
        let bytes = sample.bytes(&file);
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let damaged = sample.copy();
        damaged.remove_raw(&file);
        check_both(&sample, &damaged, &format!("{} removed", file.display()), used > 0, &mut problems);
        for len in [0, 1, 63, SECTOR, BLOCK, BLOCK + 100, used / 2, used.saturating_sub(1), bytes.len() - 1] {
            if len >= bytes.len() {
                continue;
            }
            let damaged = sample.copy();
            damaged.truncate(&file, len as u64);
            check_both(
                &sample,
                &damaged,
                &format!("{} cut at {len}", file.display()),
                len < used,
                &mut problems,
            );
        }
        let damaged = sample.copy();
        damaged.overwrite(&file, 0, &vec![0; bytes.len()]);
        check_both(&sample, &damaged, &format!("{} zeroed", file.display()), used > 0, &mut problems);
    }
    problems.none("R6");
}

#[test]
fn files_and_blocks_that_are_swapped_or_doubled_are_never_taken_for_each_other() {
    let sample = closed_store();
    let mut problems = Problems::default();
    let files: Vec<_> = sample.disk.paths();
    for (at, one) in files.iter().enumerate() {
        for other in &files[at + 1..] {
            // Who loses both the last segment and the mark has lost what proves that there was more.
            if other.ends_with("mark") && one.extension().is_some_and(|kind| kind == "log") {
                continue;
            }
            let (first, second) = (sample.bytes(one), sample.bytes(other));
            let swapped = sample.copy();
            swapped.put_raw(one, &second);
            swapped.put_raw(other, &first);
            let label = format!("{} and {} swapped", one.display(), other.display());
            check_both(&sample, &swapped, &label, first != second, &mut problems);
            let doubled = sample.copy();
            doubled.put_raw(other, &first);
            let is_seen = second.iter().any(|&byte| byte != 0);
            check_both(
                &sample,
                &doubled,
                &format!("{} as {}", one.display(), other.display()),
                is_seen,
                &mut problems,
            );
        }
    }
    problems.none("R6");
}

#[test]
fn zeroed_swapped_and_misdirected_blocks_are_found() {
    let sample = closed_store();
    let mut problems = Problems::default();
    let logs: Vec<_> = sample
        .disk
        .paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .collect();
    for unit in [BLOCK, SECTOR] {
        let mut blocks = Vec::new();
        for file in &logs {
            let bytes = sample.bytes(file);
            let used =
                bytes.chunks(unit).enumerate().filter(|(_, block)| block.iter().any(|&byte| byte != 0));
            blocks.extend(used.map(|(index, block)| (file.clone(), index * unit, block.to_vec())));
        }
        let step = if unit == BLOCK { 1 } else { stride(3) };
        for (file, at, _) in blocks.iter().step_by(step) {
            let damaged = sample.copy();
            damaged.overwrite(file, *at as u64, &vec![0; unit]);
            let label = format!("{} {unit} bytes at {at} zeroed", file.display());
            check_both(&sample, &damaged, &label, true, &mut problems);
        }
        let step = if unit == BLOCK { stride(2) } else { stride(41) };
        let pairs = blocks
            .iter()
            .enumerate()
            .flat_map(|(at, one)| blocks[at + 1..].iter().map(move |other| (one, other)));
        for ((file, at, bytes), (other, there, others)) in
            pairs.step_by(step).filter(|(one, other)| one.2 != other.2)
        {
            let damaged = sample.copy();
            damaged.overwrite(other, *there as u64, bytes);
            let label = format!(
                "{unit} bytes at {at} of {} misdirected to {there} of {}",
                file.display(),
                other.display()
            );
            // Of a block that holds the end of the frames, the rest may be all that has changed.
            let is_seen = is_used_changed(&sample.bytes(other), &damaged.contents(other).unwrap());
            check_both(&sample, &damaged, &label, is_seen, &mut problems);
            damaged.overwrite(file, *at as u64, others);
            check_both(
                &sample,
                &damaged,
                &label.replace("misdirected to", "swapped with"),
                true,
                &mut problems,
            );
        }
    }
    problems.none("R6");
}

#[test]
fn an_index_made_anew_over_damage_never_means_absent() {
    let sample = closed_store();
    let mut problems = Problems::default();
    for ordinal in 1..active(&sample) {
        let log = path(&format!("{ordinal:010}.log"));
        let ranges = used_ranges(&sample.bytes(&log));
        for frame in &ranges[1..ranges.len() - 1] {
            let damaged = sample.copy();
            damaged.remove_raw(&path(&format!("{ordinal:010}.index")));
            damaged.overwrite(&log, frame.start as u64, &vec![0; frame.len()]);
            let label = format!("no index {ordinal}, and no frame at {}", frame.start);
            let conditions = damaged.kill();
            problems.check(|| label.clone(), || check_conditions(&conditions, &sample.model));
            check_both(&sample, &damaged, &label, true, &mut problems);
        }
    }
    problems.none("R6");
}

/// No stream that exists is taken for one that does not.
fn check_conditions(disk: &SimulatedDisk, model: &Model) -> Result<(), String> {
    let Ok(store) = open(disk) else { return Ok(()) };
    for stream in ["s", "t", "u", "early", "last"] {
        let append = Append::from(NewEvent::new(stream, "Again")).expect(stream, ExpectedVersion::NoStream);
        match store.append(append).and_then(annals::Ticket::wait) {
            Err(AppendError::WrongVersion { actual, .. }) if actual == model.head(stream) => {}
            Err(AppendError::Damage(_)) => {}
            other => return Err(format!("a stream with events, expected to have none: {other:?}")),
        }
    }
    Ok(())
}

#[test]
fn an_older_copy_of_a_file_harms_nothing_or_is_named() {
    let mut sample = Sample { disk: SimulatedDisk::new(8), model: Model::new() };
    let mut older = Vec::new();
    for round in 0..4 {
        let store = open(&sample.disk).unwrap();
        for _ in 0..6 {
            sample.append(&store, &["s", "t"], 600);
        }
        if round == 1 {
            drop(store);
        } else {
            store.close().unwrap();
        }
        older.push(sample.copy());
    }
    older.pop();
    let mut problems = Problems::default();
    for (round, older) in older.iter().enumerate() {
        for file in older.paths() {
            let Some(now) = sample.disk.contents(&file) else { continue };
            let then = older.contents(&file).unwrap();
            if then == now {
                continue;
            }
            let damaged = sample.copy();
            damaged.put_raw(&file, &then);
            let is_log = file.extension().is_some_and(|kind| kind == "log");
            check_both(
                &sample,
                &damaged,
                &format!("{} as of round {round}", file.display()),
                is_log,
                &mut problems,
            );
        }
    }
    problems.none("R6");
}
