//! Snapshots: the state that they lead to is right whatever there is of them.

use crate::support::{NOW, cases, copy_store, event, exactly, on_disk, open, small, wait, wait_until};
use annals::testing::{Clock, SimulatedDisk, open_simulated};
use annals::{
    Append, AppendError, DiskChoice, ExpectedVersion, InputError, Load, NewEvent, NewSnapshot, Position,
    Store, Timestamp, Version, limits,
};
use proptest::prelude::*;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The fold of the tests: the events' numbers, each times three and added to what was before.
fn fold(state: u64, data: &[u8]) -> u64 {
    state.wrapping_mul(3).wrapping_add(u64::from_le_bytes(data.try_into().unwrap()))
}

fn numbered(stream: &str, number: u64) -> NewEvent<'static> {
    NewEvent::new(stream.to_owned(), "Counted").binary(number.to_le_bytes().to_vec())
}

/// The state that a load leads to, and the version that its snapshot has.
fn loaded(store: &Store, load: &Load<'_>) -> (u64, Option<u64>) {
    let loaded = store.load(load).unwrap();
    let from = loaded.snapshot.as_ref().map(|snapshot| snapshot.version.get());
    let begun =
        loaded.snapshot.map_or(0, |snapshot| u64::from_le_bytes(snapshot.data[..].try_into().unwrap()));
    (loaded.events.fold(begun, |state, event| fold(state, event.unwrap().data())), from)
}

fn write(store: &Store, stream: &str, version: u64, state: u64) -> Result<(), AppendError> {
    store.write_snapshot(&NewSnapshot::new(stream, 1, &state.to_le_bytes()), Version::new(version))
}

#[derive(Clone, Debug)]
enum Step {
    /// Events, so many nanoseconds after those before.
    Append {
        events: u64,
        later: u64,
    },
    /// The same, with the state that they lead to.
    WithSnapshot {
        later: u64,
    },
    /// The state at one of the versions that are there.
    Snapshot {
        at: prop::sample::Index,
    },
    Delete,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..6_u64, 0..3_u64).prop_map(|(events, later)| Step::Append { events, later }),
        3 => (0..3_u64).prop_map(|later| Step::WithSnapshot { later }),
        3 => any::<prop::sample::Index>().prop_map(|at| Step::Snapshot { at }),
        1 => Just(Step::Delete),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_state_at_any_version_and_time_is_right_whatever_snapshots_there_are(steps in steps()) {
        let disk = SimulatedDisk::new(1);
        let mut store = on_disk(&disk);
        let (mut states, mut times, mut time) = (Vec::new(), Vec::new(), 1_000);
        for step in steps {
            let (events, later, snapshot) = match step {
                Step::Append { events, later } => (events, later, false),
                Step::WithSnapshot { later } => (2, later, true),
                Step::Snapshot { at } => {
                    if !states.is_empty() {
                        let at = at.index(states.len());
                        write(&store, "s", at as u64, states[at]).unwrap();
                    }
                    continue;
                }
                Step::Delete => {
                    store.delete_snapshots("s", "", None).unwrap();
                    prop_assert!(store.snapshots("s").unwrap().0.is_empty());
                    continue;
                }
                Step::Reopen => {
                    store.close().unwrap();
                    store = on_disk(&disk);
                    continue;
                }
            };
            time += later;
            let mut append = Append::new().event(event("other").time(Timestamp::new(time)));
            for _ in 0..events {
                let number = states.len() as u64 * 7 + 1;
                append = append.event(numbered("s", number).time(Timestamp::new(time)));
                states.push(fold(states.last().copied().unwrap_or(0), &number.to_le_bytes()));
                times.push(time);
            }
            let state = states.last().unwrap().to_le_bytes();
            if snapshot {
                append = append.snapshot(NewSnapshot::new("s", 1, &state));
            }
            wait(store.append(append)).unwrap();
        }
        let state_at = |count: usize| count.checked_sub(1).map_or(0, |last| states[last]);
        prop_assert_eq!(loaded(&store, &Load::stream("s")).0, state_at(states.len()));
        for (version, &state) in states.iter().enumerate() {
            let load = Load::stream("s").until(Version::new(version as u64));
            prop_assert_eq!(loaded(&store, &load).0, state);
            prop_assert_eq!(loaded(&store, &load.without_snapshots()), (state, None));
        }
        for time in 998..=time + 1 {
            let count = times.partition_point(|&then| then <= time);
            prop_assert_eq!(loaded(&store, &Load::stream("s").until(Timestamp::new(time))).0, state_at(count));
        }
        for position in 0..store.next_position().get() {
            let count = store.read(annals::Read::stream("s").until(Position::new(position))).unwrap().count();
            prop_assert_eq!(loaded(&store, &Load::stream("s").until(Position::new(position))).0, state_at(count));
        }
        prop_assert!(store.snapshots("s").unwrap().0.len() <= 3);
    }
}

#[test]
fn a_snapshot_is_found_with_its_append_and_by_version_time_name_and_schema() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(store.load(&Load::stream("s")).unwrap().snapshot.is_none());
    for number in 0..5_u64 {
        let state = [u8::try_from(number).unwrap()];
        let append = Append::from(event("s").time(Timestamp::new(10 * number))).snapshot(NewSnapshot::new(
            "s",
            u32::try_from(number).unwrap(),
            &state,
        ));
        wait(store.append(append)).unwrap();
    }
    store.write_snapshot(&NewSnapshot::new("s", 9, "named").name("other"), Version::new(2)).unwrap();
    // Two streams that share a name but for their category have nothing in common.
    wait(store.append(event("t"))).unwrap();
    let from = |load: &Load<'_>| store.load(load).unwrap().snapshot.map(|snapshot| snapshot.version.get());
    assert_eq!(from(&Load::stream("s")), Some(4), "exactly at the head");
    assert_eq!(store.load(&Load::stream("s")).unwrap().events.count(), 0);
    assert_eq!(from(&Load::stream("s").until(Version::new(3))), Some(3));
    assert_eq!(from(&Load::stream("s").until(Timestamp::new(29))), Some(2));
    assert_eq!(from(&Load::stream("s").until(Version::new(1))), None, "only the last three are kept");
    assert_eq!(from(&Load::stream("s").schemas(0..=3)), Some(3));
    assert_eq!(from(&Load::stream("s").name("other")), Some(2));
    assert_eq!(from(&Load::stream("s").without_snapshots()), None);
    assert_eq!(from(&Load::stream("t")), None);
    assert_eq!(store.snapshot_streams().unwrap(), ["s"]);
    let (listed, passed_over) = store.snapshots("s").unwrap();
    let listed: Vec<_> = listed.iter().map(|snapshot| (&*snapshot.name, snapshot.version.get())).collect();
    assert_eq!(listed, [("other", 2), ("", 4), ("", 3), ("", 2)]);
    assert!(passed_over.is_empty());
    store.delete_snapshots("s", "", Some(Version::new(3))).unwrap();
    assert_eq!(from(&Load::stream("s").until(Version::new(3))), Some(2));
    // Beside the writer, too.
    let reader = Store::open_read_only(dir.path()).unwrap();
    assert_eq!(reader.load(&Load::stream("s")).unwrap().snapshot.map(|snapshot| snapshot.schema), Some(4));
    assert!(matches!(write(&reader, "s", 1, 1), Err(AppendError::ReadOnly)));
}

#[test]
fn bad_snapshots_are_refused_by_name_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    wait(store.append(event("s"))).unwrap();
    match write(&store, "s", 1, 7) {
        Err(AppendError::NoSuchVersion { stream, version, head: Some(head) }) => {
            assert_eq!((stream.as_str(), version.get(), head.version.get()), ("s", 1, 0));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(write(&store, "nobody", 0, 7), Err(AppendError::NoSuchVersion { head: None, .. })));
    let large = vec![1; limits::SNAPSHOT_BYTES_MAX + 1];
    let refused = store.write_snapshot(&NewSnapshot::new("s", 1, &large), Version::ZERO);
    assert!(matches!(refused, Err(AppendError::Input(InputError::TooMany { .. }))), "{refused:?}");
    let other = Append::from(event("t")).snapshot(NewSnapshot::new("s", 1, "x"));
    assert!(matches!(
        store.append(other),
        Err(AppendError::Input(InputError::SnapshotOfAnother { stream })) if stream == "s"
    ));
    let rejected = Append::from(event("s")).expect("s", exactly(7)).snapshot(NewSnapshot::new("s", 1, "x"));
    assert!(matches!(wait(store.append(rejected)), Err(AppendError::WrongVersion { .. })));
    assert!(store.snapshots("s").unwrap().0.is_empty());
    assert_eq!(store.next_position(), Position::new(1));
    // A repeat's snapshot is ignored.
    let id = annals::Uuid::from_u128(5);
    let append = || Append::from(event("u").id(id)).expect("u", ExpectedVersion::NoStream);
    wait(store.append(append())).unwrap();
    assert!(wait(store.append(append().snapshot(NewSnapshot::new("u", 1, "x")))).unwrap().repeated);
    assert!(store.snapshots("u").unwrap().0.is_empty());
}

#[test]
fn the_largest_snapshot_is_put_together_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut byte = 7_u8;
    let mut state = vec![0; limits::SNAPSHOT_BYTES_MAX];
    // No compressor makes it smaller.
    let mut seed = 1_u64;
    for place in &mut state {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        byte = byte.wrapping_add(u8::try_from(seed >> 56).unwrap());
        *place = byte;
    }
    wait(store.append(Append::from(event("s")).snapshot(NewSnapshot::new("s", 1, &state)))).unwrap();
    store.close().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let loaded = store.load(&Load::stream("s")).unwrap();
    assert!(loaded.snapshot.is_some_and(|snapshot| snapshot.data == state), "{:?}", loaded.passed_over);
}

#[test]
fn a_snapshot_of_a_history_that_a_crash_cut_is_never_used() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let id = annals::Uuid::from_u128(77);
    let store = open(&whole);
    wait(store.append(numbered("s", 1))).unwrap();
    // What a crash leaves that lost all that follows, of the log alone.
    copy_store(&whole, &cut);
    for number in 2..7_u64 {
        let version = number - 1;
        let state =
            (1..=number).fold(0, |state, number: u64| fold(state, &number.to_le_bytes())).to_le_bytes();
        let event = if number == 2 { numbered("s", number).id(id) } else { numbered("s", number) };
        let append = Append::from(event).snapshot(NewSnapshot::new("s", 1, &state));
        wait(store.append(append)).unwrap();
        assert_eq!(loaded(&store, &Load::stream("s")), (u64::from_le_bytes(state), Some(version)));
    }
    store.close().unwrap();
    copy_store(&whole.join("snapshots"), &cut.join("snapshots"));
    let store = open(&cut);
    assert_eq!(loaded(&store, &Load::stream("s")), (1, None));
    let (none, passed_over) = store.snapshots("s").unwrap();
    assert_eq!((none.len(), passed_over.len()), (0, 5));
    // The same event again, with another in its history's place, or with the same.
    wait(store.append(numbered("s", 50))).unwrap();
    wait(store.append(numbered("s", 2).id(id))).unwrap();
    let replayed = loaded(&store, &Load::stream("s").without_snapshots());
    assert_eq!(loaded(&store, &Load::stream("s")), replayed);
    // However many cannot be used, the newest of the others are kept.
    let state = replayed.0;
    write(&store, "s", 2, state).unwrap();
    assert_eq!(loaded(&store, &Load::stream("s")), (state, Some(2)));
}

#[test]
fn a_crash_between_events_and_their_snapshot_leaves_a_state_that_is_right() {
    for seed in 0..cases(60) {
        let disk = SimulatedDisk::new(seed);
        let store = on_disk(&disk);
        wait(store.append(numbered("s", 1))).unwrap();
        write(&store, "s", 0, 1).unwrap();
        disk.freeze_at(disk.operations() + 1 + seed % 8);
        let mut state = 1;
        let tickets: Vec<_> = (2..8_u64)
            .map(|number| {
                state = fold(state, &number.to_le_bytes());
                let bytes = state.to_le_bytes();
                store.append(Append::from(numbered("s", number)).snapshot(NewSnapshot::new("s", 1, &bytes)))
            })
            .collect();
        let acknowledged = tickets.into_iter().map(wait).take_while(Result::is_ok).count() as u64;
        let disk = disk.crash(seed);
        drop(store);
        let store = on_disk(&disk);
        let (state, from) = loaded(&store, &Load::stream("s"));
        assert_eq!(state, loaded(&store, &Load::stream("s").without_snapshots()).0, "seed {seed}");
        // The first one was acknowledged: it is not pushed out by any that cannot be used.
        assert!(from >= Some(acknowledged), "seed {seed}: {from:?}, {acknowledged} were acknowledged");
    }
}

#[test]
fn lost_and_damaged_snapshots_cost_a_longer_replay_alone() {
    let states = |store: &Store| loaded(store, &Load::stream("s"));
    let disk = SimulatedDisk::new(3);
    let store = on_disk(&disk);
    for number in 0..4_u64 {
        wait(store.append(numbered("s", number))).unwrap();
    }
    let state = states(&store).0;
    write(&store, "s", 2, loaded(&store, &Load::stream("s").until(Version::new(2))).0).unwrap();
    assert_eq!(states(&store), (state, Some(2)));
    store.close().unwrap();
    let files: Vec<_> = annals::testing::visible_paths(&disk)
        .into_iter()
        .filter(|path| path.starts_with("/store/snapshots"))
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let len = disk.contents(&file).unwrap().len() as u64;
        for bit in (0..8 * len.min(6_000)).step_by(997) {
            let copy = disk.kill();
            copy.flip_bit(&file, bit);
            check_goes_on(&copy, state, &file);
        }
        let copy = disk.kill();
        copy.remove_raw(&file);
        check_goes_on(&copy, state, &file);
    }
}

/// The state is right, and snapshots can be written again.
fn check_goes_on(disk: &SimulatedDisk, state: u64, file: &Path) {
    let reader = annals::testing::open_simulated_read_only(disk, Path::new("/store")).unwrap();
    assert_eq!(loaded(&reader, &Load::stream("s")).0, state, "{file:?}");
    drop(reader);
    let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW)));
    let store = open_simulated(disk, Path::new("/store"), small(DiskChoice::Auto), clock).unwrap();
    assert_eq!(loaded(&store, &Load::stream("s")).0, state, "{file:?}");
    write(&store, "s", 3, state).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    assert_eq!(loaded(&store, &Load::stream("s")), (state, Some(3)), "{file:?}");
    store.close().unwrap();
}

#[test]
fn a_full_disk_refuses_a_snapshot_and_its_events_together() {
    let disk = SimulatedDisk::new(9);
    let store = on_disk(&disk);
    let state = vec![5; 300_000];
    wait(store.append(Append::from(event("s")).snapshot(NewSnapshot::new("s", 1, "small")))).unwrap();
    let bytes: usize = annals::testing::visible_files(&disk).values().map(Vec::len).sum();
    disk.set_capacity(bytes as u64 + 100_000);
    let next = store.next_position();
    let with = || Append::from(event("s")).snapshot(NewSnapshot::new("s", 1, &state));
    let refused = wait(store.append(with()));
    assert!(matches!(refused, Err(AppendError::DiskFull(_))), "{refused:?}");
    assert_eq!(store.next_position(), next, "the events are not there either");
    disk.set_capacity(u64::MAX);
    wait(store.append(with())).unwrap();
    assert!(store.load(&Load::stream("s")).unwrap().snapshot.is_some_and(|s| s.data == state));
}

/// Writes the state of one of few streams again and again, until it fails; what was acknowledged of each stream last.
fn write_many(store: &Store, numbers: Range<u64>) -> [Option<u64>; 4] {
    let mut last = [None; 4];
    for number in numbers {
        let stream = number % 4;
        let name = format!("s-{stream}");
        let state = (number / 4).to_le_bytes();
        let append = Append::from(event(&name)).snapshot(NewSnapshot::new(&*name, 1, &state));
        if wait(store.append(append)).is_err() {
            break;
        }
        last[usize::try_from(stream).unwrap()] = Some(number / 4);
    }
    last
}

/// What was acknowledged is found, with the right state.
fn check_last(store: &Store, last: [Option<u64>; 4], label: &str) {
    for (stream, acknowledged) in last.into_iter().enumerate() {
        let loaded = store.load(&Load::stream(format!("s-{stream}"))).unwrap();
        let version = loaded.snapshot.as_ref().map(|snapshot| snapshot.version.get());
        assert!(
            version >= acknowledged,
            "{label}: {version:?} instead of {acknowledged:?}: {:?}",
            loaded.passed_over
        );
        if let Some(snapshot) = loaded.snapshot {
            assert_eq!(snapshot.data, snapshot.version.get().to_le_bytes()[..], "{label}");
        }
    }
}

#[test]
fn what_no_longer_counts_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let last = write_many(&store, 0..3_000);
    wait_until("the first generation's end", || !dir.path().join("snapshots").exists());
    let reader = Store::open_read_only(dir.path()).unwrap();
    check_last(&reader, last, "beside the writer");
    let last = write_many(&store, 3_000..4_000);
    // It may be that a reader learns of the next generation a moment later.
    std::thread::sleep(Duration::from_millis(200));
    check_last(&reader, last, "beside the writer, later");
    check_last(&store, last, "the writer");
    assert!(store.verify(&mut |_, _| {}).unwrap().is_ok());
    store.close().unwrap();
    let store = open(dir.path());
    check_last(&store, last, "reopened");
    assert_eq!(store.snapshots("s-1").unwrap().0.len(), 3);
}

#[test]
fn a_machine_that_stops_while_snapshots_are_left_behind_keeps_what_was_acknowledged() {
    let operations = {
        let disk = SimulatedDisk::new(1);
        let store = on_disk(&disk);
        write_many(&store, 0..1_400);
        let is_left = |path: &std::path::PathBuf| path.ends_with("snapshots-1/complete");
        wait_until("a generation is left behind", || {
            annals::testing::visible_paths(&disk).iter().any(is_left)
        });
        store.close().unwrap();
        disk.operations()
    };
    // The store looks first when it has a thousand of them.
    for seed in 0..cases(24) {
        let disk = SimulatedDisk::new(seed);
        let store = on_disk(&disk);
        disk.freeze_at(operations * 7 / 10 + seed * 37 % (operations * 3 / 10));
        let last = write_many(&store, 0..1_400);
        let disk = disk.crash(seed);
        drop(store);
        let store = on_disk(&disk);
        check_last(&store, last, &format!("seed {seed}"));
        write(&store, "s-0", 0, 9).unwrap();
        store.close().unwrap();
        let left: Vec<_> = annals::testing::visible_paths(&disk)
            .into_iter()
            .filter(|path| path.ends_with("manifest") && path.starts_with("/store"))
            .collect();
        assert!(left.len() <= 2, "seed {seed}: one generation is left: {left:?}");
    }
}

#[test]
fn a_reader_that_met_a_store_of_snapshots_being_made_finds_it_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    wait(store.append(event("s"))).unwrap();
    let side = dir.path().join("snapshots");
    std::fs::create_dir(&side).unwrap();
    std::fs::write(side.join("lock"), b"").unwrap();
    let reader = Store::open_read_only(dir.path()).unwrap();
    assert!(reader.snapshots("s").unwrap().0.is_empty());
    write(&store, "s", 0, 7).unwrap();
    wait_until("the snapshot", || reader.snapshots("s").unwrap().0.len() == 1);
}

#[test]
fn a_fault_is_over_when_it_is_over() {
    use annals::testing::{Fault, Repeat};
    for number in 0..40 {
        for fault in [Fault::EIO, Fault::ENOSPC] {
            let disk = SimulatedDisk::new(number);
            let store = on_disk(&disk);
            wait(store.append(event("s"))).unwrap();
            write(&store, "s", 0, 7).unwrap();
            store.close().unwrap();
            let store = on_disk(&disk);
            disk.fail_at(disk.operations() + number, fault, Repeat::Once);
            let _ = store.snapshots("s").unwrap();
            let _ = write(&store, "s", 0, 8);
            disk.clear_faults();
            // The log was not touched: a failed write of the snapshots' store is its own affair.
            wait(store.append(event("s"))).unwrap();
            write(&store, "s", 1, 9).unwrap();
            let first = store.snapshots("s").unwrap().0.first().map(|snapshot| snapshot.data.to_vec());
            assert_eq!(first.as_deref(), Some(&9_u64.to_le_bytes()[..]), "operation {number}, {fault:?}");
        }
    }
}

#[test]
fn a_snapshot_of_several_parts_survives_what_leaves_others_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for stream in ["large", "small"] {
        wait(store.append(event(stream))).unwrap();
    }
    let state = vec![7; limits::DATA_BYTES_MAX + 10];
    for number in 0..990 {
        write(&store, "small", 0, number).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| store.write_snapshot(&NewSnapshot::new("large", 1, &state), Version::ZERO).unwrap());
        for number in 0..30 {
            write(&store, "small", 0, number).unwrap();
        }
    });
    wait_until("the first generation's end", || !dir.path().join("snapshots").exists());
    let (listed, passed_over) = store.snapshots("large").unwrap();
    assert_eq!(listed.len(), 1, "{passed_over:?}");
}
