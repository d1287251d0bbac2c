//! What a kill or a power cut leaves of the last batches: whole, torn or damaged, and told apart.

use crate::damage::{
    BLOCK, Problems, SECTOR, Sample, bits_of, check_alone, open, open_read_only, path, used_ranges,
};
use crate::support::{read_all, stride};
use annals::testing::{Model, SimulatedDisk};
use annals::{OpenError, Position, Store};
use std::path::PathBuf;
use std::time::Duration;

/// A store whose process was killed; what its mark was before its last appends, and where its frames are.
struct Killed {
    sample: Sample,
    log: PathBuf,
    mark_before: Vec<u8>,
    frames: Vec<std::ops::Range<usize>>,
}

fn killed_store(last_bytes: usize) -> Killed {
    let mut sample = Sample { disk: SimulatedDisk::new(9), model: Model::new() };
    let store = open(&sample.disk).unwrap();
    let mark_before = sample.disk.contents(&path("mark")).unwrap();
    for n in 0..4 {
        sample.append(&store, &["s", "t"][..1 + n % 2], 100);
    }
    sample.append(&store, &["s", "u"], last_bytes);
    // The mark follows what was acknowledged, a moment later.
    let last = Position::new(sample.model.len() as u64 - 1);
    assert!(open_read_only(&sample.disk).unwrap().wait_for(last, Duration::from_secs(10)).unwrap());
    sample.disk = sample.disk.kill();
    drop(store);
    let log = path("0000000001.log");
    let frames = used_ranges(&sample.bytes(&log))[1..].to_vec();
    assert_eq!(frames.len(), 5);
    assert!(sample.bytes(&log)[frames[4].start..].starts_with(b"anfr"), "all is in one segment");
    Killed { sample, log, mark_before, frames }
}

impl Killed {
    /// The same store after a longer absence of syncs: its mark proves nothing of the last appends.
    fn without_mark(&self) -> SimulatedDisk {
        let disk = self.sample.copy();
        disk.put_raw(&path("mark"), &self.mark_before);
        disk
    }

    /// Events in the first `frames` batches.
    fn events_in(&self, frames: usize) -> usize {
        (0..=self.sample.model.len())
            .filter(|&events| self.sample.model.is_boundary(events))
            .nth(frames)
            .unwrap()
    }

    /// The prefix of `frames` batches is there, exactly, and the rest was set aside where it was `torn`.
    fn check_cut(&self, disk: &SimulatedDisk, frames: usize, torn: bool) -> Result<(), String> {
        let expected = self.events_in(frames);
        let exact = |store: &Store| {
            let records = read_all(store).map_err(|error| format!("read: {error}"))?;
            let same = records.iter().zip(self.sample.model.events()).enumerate();
            let same =
                same.into_iter().all(|(at, (record, event))| event.is(Position::new(at as u64), record));
            if same && records.len() == expected {
                Ok(())
            } else {
                Err(format!("{} of {expected} events", records.len()))
            }
        };
        exact(&open_read_only(disk).map_err(|error| format!("open to read alone: {error}"))?)?;
        let store = open(disk).map_err(|error| format!("open: {error}"))?;
        exact(&store)?;
        let aside = disk.paths().iter().any(|path| path.to_string_lossy().contains("torn"));
        if aside == torn { Ok(()) } else { Err(format!("a torn tail was set aside: {aside}")) }
    }

    /// Opening for writing is refused, and reading alone says what is missing.
    fn check_refused(&self, disk: &SimulatedDisk) -> Result<(), String> {
        check_alone(disk, &self.sample.model, true)?;
        match open(disk) {
            Err(OpenError::Damage(_)) => Ok(()),
            other => Err(format!("opened in spite of it: {:?}", other.map(|store| store.next_position()))),
        }
    }
}

#[test]
fn a_tail_cut_anywhere_is_refused_where_the_mark_knows_better() {
    let killed = killed_store(1_000);
    let mut problems = Problems::default();
    let end = killed.frames[4].end;
    for at in (BLOCK..end).step_by(stride(40)) {
        let disk = killed.sample.copy();
        disk.overwrite(&killed.log, at as u64, &vec![0; end - at]);
        problems.check(|| format!("zero from {at}"), || killed.check_refused(&disk));
        let disk = killed.sample.copy();
        disk.truncate(&killed.log, at as u64);
        problems.check(|| format!("cut at {at}"), || killed.check_refused(&disk));
    }
    problems.none("R7");
}

#[test]
fn a_tail_cut_anywhere_is_a_torn_tail_where_nothing_witnesses_it() {
    let killed = killed_store(1_000);
    let mut problems = Problems::default();
    let end = killed.frames[4].end;
    for at in (BLOCK..=end).step_by(stride(24)).chain(killed.frames.iter().map(|frame| frame.end)) {
        let whole = killed.frames.iter().take_while(|frame| frame.end <= at).count();
        let disk = killed.without_mark();
        let part = &killed.sample.bytes(&killed.log)
            [killed.frames.get(whole).map_or(at, |next| next.start.min(at))..at];
        let torn = part.iter().any(|&byte| byte != 0);
        disk.overwrite(&killed.log, at as u64, &vec![0; end - at]);
        // A frame's header without its body witnesses what it was written after, and that is all there.
        problems.check(|| format!("zero from {at}"), || killed.check_cut(&disk, whole, torn));
    }
    problems.none("R7");
}

#[test]
fn every_subset_of_the_last_batch_s_blocks_is_whole_or_a_torn_tail() {
    let mut problems = Problems::default();
    for (unit, last_bytes) in [(SECTOR, 1_300), (BLOCK, 3_000)] {
        let killed = killed_store(last_bytes);
        let last = &killed.frames[4];
        let first = last.start / unit * unit;
        let mark = marked(&killed.sample);
        let blocks: Vec<_> = (first..last.end).step_by(unit).collect();
        assert!((2..=8).contains(&blocks.len()), "{}", blocks.len());
        for subset in (1..1_u32 << blocks.len()).step_by(stride(if unit == SECTOR { 3 } else { 1 })) {
            let disk = killed.without_mark();
            for (_, block) in blocks.iter().enumerate().filter(|(index, _)| subset & (1 << index) != 0) {
                // What lies before the last batch in its first block was durable before: a sector is old or new.
                let start = (*block).max(last.start);
                disk.overwrite(&killed.log, start as u64, &vec![0; (block + unit).min(last.end) - start]);
            }
            let left =
                disk.contents(&killed.log).unwrap()[last.start..last.end].iter().any(|&byte| byte != 0);
            let label = || format!("blocks of {unit}, subset {subset:b}");
            let witnessed = disk.kill();
            witnessed.put_raw(&path("mark"), &mark);
            problems.check(label, || killed.check_refused(&witnessed));
            problems.check(label, || killed.check_cut(&disk, 4, left));
        }
    }
    problems.none("R7");
}

/// The mark as the process that was killed left it.
fn marked(sample: &Sample) -> Vec<u8> {
    annals::testing::visible_files(&sample.disk).remove(&path("mark")).unwrap()
}

#[test]
fn damage_in_front_of_an_intact_batch_is_refused_without_a_mark_too() {
    let killed = killed_store(1_000);
    let mut problems = Problems::default();
    for frame in &killed.frames[..4] {
        for bit in bits_of(frame, stride(31)) {
            let disk = killed.without_mark();
            disk.flip_bit(&killed.log, bit as u64);
            problems.check(|| format!("bit {} of byte {}", bit % 8, bit / 8), || killed.check_refused(&disk));
        }
    }
    problems.none("R7");
}
