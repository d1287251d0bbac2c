//! The promises to those who append and open, one by one.

use crate::support::{check_prefix, read_all, small, within};
use annals::testing::{Clock, Fault, Model, Repeat, SimulatedDisk, open_simulated, open_with_clock};
use annals::{
    Append, AppendError, Appended, Bound, DiskChoice, ExpectedVersion, InputError, NewEvent, OpenError,
    Position, Query, Read, ReadError, Settings, Store, Ticket, Timestamp, TryAppendError, Uuid, Version,
    limits,
};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const NOW: u64 = 1_700_000_000_000_000_000;

fn open(dir: &Path) -> Store {
    Store::open_with(dir, small(DiskChoice::Auto)).unwrap()
}

fn on_disk(disk: &SimulatedDisk) -> Store {
    let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW)));
    open_simulated(disk, Path::new("/store"), small(DiskChoice::Auto), clock).unwrap()
}

fn event(stream: &str) -> NewEvent<'_> {
    NewEvent::new(stream, "Happened")
}

fn exactly(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exactly(Version::new(version))
}

fn wait(ticket: Result<Ticket, AppendError>) -> Result<Appended, AppendError> {
    ticket.and_then(Ticket::wait)
}

fn append(store: &Store, append: Append<'_>) -> Result<Appended, AppendError> {
    wait(store.append(append))
}

/// A byte that tells events apart.
fn filling(number: u64) -> u8 {
    u8::try_from(number % 251).unwrap()
}

/// A hundred threads append at once with this expectation; their outcomes.
fn race(store: &Store, expected: ExpectedVersion) -> Vec<Result<Appended, AppendError>> {
    const RACERS: usize = 100;
    let start = Barrier::new(RACERS);
    std::thread::scope(|scope| {
        let race = || {
            start.wait();
            append(store, Append::from(event("contested")).expect("contested", expected))
        };
        let racers: Vec<_> = (0..RACERS).map(|_| scope.spawn(race)).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    })
}

#[test]
fn of_a_hundred_racers_one_wins_and_the_others_hear_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for round in 0..20_u64 {
        let expected = round.checked_sub(1).map_or(ExpectedVersion::NoStream, exactly);
        let outcomes = race(&store, expected);
        let winners: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(winners[0].last_version.get(), round);
        for loser in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            let AppendError::WrongVersion { stream, expected: wanted, actual: Some(head) } = loser else {
                panic!("{loser}")
            };
            assert_eq!((stream.as_str(), *wanted, head.version.get()), ("contested", expected, round));
            assert_eq!(head.position, winners[0].first_position());
        }
    }
    assert_eq!(store.next_position().get(), 20);
}

#[test]
fn conditions_on_streams_that_are_not_written_are_kept() {
    let disk = SimulatedDisk::new(1);
    let store = on_disk(&disk);
    let one = || Append::from(event("written"));
    append(&store, one().expect("other", ExpectedVersion::NoStream)).unwrap();
    append(&store, Append::from(event("other"))).unwrap();
    append(&store, one().expect("other", ExpectedVersion::Exists).expect("other", exactly(0))).unwrap();
    for expected in [ExpectedVersion::NoStream, exactly(1)] {
        let refused = append(&store, one().expect("other", expected)).unwrap_err();
        assert!(
            matches!(refused, AppendError::WrongVersion { actual: Some(head), .. } if head.position.get() == 1)
        );
    }
    let refused = append(&store, one().expect("never", ExpectedVersion::Exists)).unwrap_err();
    assert!(matches!(refused, AppendError::WrongVersion { actual: None, .. }), "{refused}");
    let refused = append(&store, one().expect("other", exactly(0)).expect("never", exactly(0))).unwrap_err();
    assert!(matches!(&refused, AppendError::WrongVersion { stream, .. } if stream == "never"), "{refused}");
    assert_eq!(store.next_position().get(), 3, "what was refused left nothing");
}

#[test]
fn a_batch_of_several_streams_is_there_whole_or_not_at_all() {
    let disk = SimulatedDisk::new(1);
    let store = on_disk(&disk);
    append(&store, [event("a"), event("b"), event("a")].into()).unwrap();
    let refused = Append::from([event("a"), event("b"), event("c")]).expect("c", exactly(7));
    append(&store, refused).unwrap_err();
    assert_eq!((store.next_position().get(), store.head("c").unwrap()), (3, None));
    let appended = append(&store, [event("b"), event("c"), event("a")].into()).unwrap();
    assert_eq!((appended.positions, appended.last_version.get()), (3_u64.into()..6_u64.into(), 2));
    let versions: Vec<_> = read_all(&store).unwrap().iter().map(|record| record.version().get()).collect();
    assert_eq!(versions, [0, 0, 1, 1, 0, 2], "a batch's own events count for its later ones");
}

#[test]
fn a_repeat_gets_the_first_result_before_and_after_reopening_and_in_flight() {
    let disk = SimulatedDisk::new(1);
    let mut store = on_disk(&disk);
    append(&store, event("s").into()).unwrap();
    let id = |number| Uuid::from_u128(number);
    let batch = || {
        Append::from([event("s").id(id(1)).json("{}"), event("t").id(id(2)).tag("x")]).expect("s", exactly(0))
    };
    let tickets: Vec<_> = (0..5).map(|_| store.append(batch()).unwrap()).collect();
    let mut outcomes: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait().unwrap()).collect();
    for n in 0..40 {
        append(&store, event("s").binary(vec![n; 1_000]).into()).unwrap();
    }
    outcomes.push(append(&store, batch()).unwrap());
    for _ in 0..2 {
        store.close().unwrap();
        store = on_disk(&disk);
        outcomes.push(append(&store, batch()).unwrap());
    }
    assert!(!outcomes[0].repeated && outcomes[1..].iter().all(|outcome| outcome.repeated), "{outcomes:?}");
    let same =
        |outcome: &Appended| outcome.positions == outcomes[0].positions && outcome.last_version.get() == 0;
    assert!(outcomes.iter().all(same), "{outcomes:?}");
    assert_eq!(store.next_position().get(), 43);

    let altered: [Append<'_>; 5] = [
        Append::from([event("s").id(id(1)).json("[]"), event("t").id(id(2)).tag("x")]),
        Append::from([event("s").id(id(1)).json("{}"), event("t").id(id(3)).tag("x")]),
        Append::from([event("s").id(id(1)).json("{}"), event("t").id(id(2)).tag("y")]),
        Append::from([event("s").id(id(1)).json("{}")]),
        Append::from([event("s").id(id(1)).json("{}"), event("t").id(id(2)).tag("x"), event("t").id(id(4))]),
    ];
    for batch in altered {
        let refused = append(&store, batch.clone().expect("s", exactly(0))).unwrap_err();
        let here = Some(Position::new(1));
        assert!(
            matches!(refused, AppendError::IdConflict { id: conflict, position } if (conflict, position) == (id(1), here)),
            "{refused} for {batch:?}"
        );
    }
    let other = Append::from(event("s").id(id(9))).expect("s", exactly(0));
    assert!(
        matches!(append(&store, other), Err(AppendError::WrongVersion { .. })),
        "another batch is no repeat"
    );
    assert_eq!(store.next_position().get(), 43);
}

#[test]
fn an_id_twice_in_a_batch_is_refused() {
    let store = on_disk(&SimulatedDisk::new(1));
    let id = Uuid::from_u128(5);
    let refused = append(&store, [event("a").id(id), event("b"), event("b").id(id)].into()).unwrap_err();
    assert!(
        matches!(refused, AppendError::IdConflict { id: twice, position: None } if twice == id),
        "{refused}"
    );
    assert_eq!(store.next_position().get(), 0);
}

#[test]
fn input_that_is_over_a_limit_or_malformed_is_refused_by_name() {
    let long = |bytes: usize| "x".repeat(bytes);
    let tags = (0..65).fold(event("s"), |event, tag| event.tag(format!("tag-{tag}")));
    let (time, data) = (Timestamp::new(NOW), vec![0; limits::DATA_BYTES_MAX]);
    let big = || event("s").binary(&data[..]);
    let table: Vec<(&str, Append<'_>)> = vec![
        ("no events", Append::new()),
        ("10001 events in the batch", (0..10_001).map(|_| event("s")).collect()),
        ("stream name is empty", event("").into()),
        ("event type is empty", NewEvent::new("s", "").into()),
        ("tag is empty", event("s").tag("").into()),
        ("stream name is 513 bytes", NewEvent::new(long(513), "T").into()),
        ("event type is 257 bytes", NewEvent::new("s", long(257)).into()),
        ("tag is 257 bytes", event("s").tag(long(257)).into()),
        ("control character", event("a\nb").into()),
        ("control character", event("a\u{85}b").into()),
        ("control character", NewEvent::new("s", "\0").into()),
        ("control character", event("s").tag("\u{7f}").into()),
        ("65 tags of an event", tags.into()),
        ("16777217 bytes of data", event("s").binary(vec![0; limits::DATA_BYTES_MAX + 1]).into()),
        ("65537 bytes of metadata", event("s").metadata(vec![0; limits::METADATA_BYTES_MAX + 1]).into()),
        ("event 1 differs", [event("s").time(time), event("s")].into()),
        ("event 2 differs", [event("s"), event("s"), event("s").time(time)].into()),
        ("bytes in the encoded batch", [big(), big(), big(), big()].into()),
        ("stream name is empty", Append::from(event("s")).expect("", ExpectedVersion::Any)),
        (
            "10001 conditions",
            (0..10_001).fold(event("s").into(), |all: Append<'_>, _| all.expect("s", ExpectedVersion::Any)),
        ),
    ];
    let store = on_disk(&SimulatedDisk::new(1));
    for (text, batch) in table {
        match store.append(batch) {
            Err(AppendError::Input(error)) => {
                assert!(error.to_string().contains(text), "{error}, not {text}")
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(store.next_position().get(), 0);
    let full = (0..64).fold(NewEvent::new(long(512), long(256)), |event, _| event.tag(long(256)));
    append(&store, full.metadata(vec![1; limits::METADATA_BYTES_MAX]).into()).unwrap();
    append(&store, (0..10_000).map(|_| event("s")).collect()).unwrap();
    assert_eq!(store.next_position().get(), 10_001);
    let bound = store.read(Read::all().from(Bound::Version(Version::ZERO))).unwrap_err();
    assert!(matches!(bound, ReadError::Input(InputError::Bound { .. })), "{bound}");
}

#[test]
fn the_largest_event_is_kept_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..limits::DATA_BYTES_MAX).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let store = open(dir.path());
    append(&store, event("small").into()).unwrap();
    append(&store, event("large").binary(&data[..]).into()).unwrap();
    append(&store, event("small").into()).unwrap();
    let check = |store: &Store| {
        let records = read_all(store).unwrap();
        assert_eq!(records.len(), 3);
        assert!(records[1].data() == data, "the large event is as it was given");
    };
    check(&store);
    store.close().unwrap();
    check(&Store::open_read_only(dir.path()).unwrap());
    check(&open(dir.path()));
}

#[test]
fn times_never_run_backwards() {
    let clock = Arc::new(AtomicU64::new(NOW));
    let disk = SimulatedDisk::new(1);
    let open = || {
        let clock = Clock::Manual(Arc::clone(&clock));
        open_simulated(&disk, Path::new("/store"), small(DiskChoice::Auto), clock).unwrap()
    };
    let store = open();
    let times = |store: &Store| -> Vec<u64> {
        read_all(store).unwrap().iter().map(|record| record.time().get() - NOW).collect()
    };
    let at = |time: u64| event("s").time(Timestamp::new(NOW + time));
    append(&store, event("s").into()).unwrap();
    append(&store, at(100).into()).unwrap();
    clock.store(NOW - 1_000_000, Ordering::SeqCst);
    append(&store, event("s").into()).unwrap();
    assert_eq!(times(&store), [0, 100, 100], "a clock that jumps back stands still");

    let refused = append(&store, at(99).into()).unwrap_err();
    assert!(
        matches!(refused, AppendError::TimeBackwards { given, previous } if (given.get(), previous.get()) == (NOW + 99, NOW + 100)),
        "{refused}"
    );
    let refused = append(&store, [at(200), at(150)].into()).unwrap_err();
    assert!(
        matches!(refused, AppendError::TimeBackwards { given, .. } if given.get() == NOW + 150),
        "{refused}"
    );
    append(&store, Append::from([at(99), at(120), at(110)]).raise_times()).unwrap();
    assert_eq!(times(&store)[3..], [100, 120, 120], "raised where that is allowed");

    let ahead = limits::TIME_AHEAD_NS_MAX;
    let refused = append(&store, at(120 + ahead + 1).into()).unwrap_err();
    assert!(
        matches!(refused, AppendError::TimeAhead { given, .. } if given.get() == NOW + 121 + ahead),
        "{refused}"
    );
    append(&store, at(120 + ahead).into()).unwrap();
    clock.store(NOW + 10 * ahead, Ordering::SeqCst);
    append(&store, at(5 * ahead).into()).unwrap();
    store.close().unwrap();
    clock.store(NOW, Ordering::SeqCst);
    let store = open();
    append(&store, event("s").into()).unwrap();
    assert_eq!(times(&store)[6..], [120 + ahead, 5 * ahead, 5 * ahead], "and after reopening, too");
    let since = store.read(Read::all().from(Timestamp::new(NOW + 121))).unwrap().next().unwrap().unwrap();
    assert_eq!(since.position().get(), 6);
}

/// Changes the prelude of a file and makes its checksum right again.
fn patch_prelude(path: &Path, at: usize, byte: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] = byte;
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

fn store_with_an_event(dir: &Path) {
    let store = open(dir);
    append(&store, event("s").into()).unwrap();
    store.close().unwrap();
}

#[test]
fn what_is_no_store_or_not_of_this_release_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let dir = |name: &str| root.path().join(name);
    assert!(matches!(Store::open_read_only(dir("none")), Err(OpenError::NoStore { .. })));
    std::fs::create_dir(dir("empty")).unwrap();
    assert!(matches!(Store::open_read_only(dir("empty")), Err(OpenError::NoStore { .. })));
    std::fs::create_dir(dir("other")).unwrap();
    std::fs::write(dir("other").join("letter.txt"), "dear").unwrap();
    for opened in [Store::open(dir("other")), Store::open_read_only(dir("other"))] {
        assert!(
            matches!(&opened, Err(OpenError::NotAStore { found, .. }) if found.contains("letter.txt")),
            "{opened:?}"
        );
    }
    assert_eq!(std::fs::read_dir(dir("other")).unwrap().count(), 1, "nothing was left there");

    for file in ["manifest", "0000000001.log"] {
        for (at, byte) in [(8, 2), (16, 4)] {
            let dir = dir(&format!("{file}-{at}"));
            store_with_an_event(&dir);
            patch_prelude(&dir.join(file), at, byte);
            for opened in [Store::open(&dir), Store::open_read_only(&dir)] {
                let named = match &opened {
                    Err(OpenError::NewerFormat { file: named, found: 2, .. }) if at == 8 => named,
                    Err(OpenError::UnknownFeatures { file: named, features: 4 }) if at == 16 => named,
                    other => panic!("{file}: {other:?}"),
                };
                assert!(named.ends_with(file), "{named:?}");
            }
        }
    }
    store_with_an_event(&dir("mine"));
    store_with_an_event(&dir("yours"));
    std::fs::copy(dir("yours").join("0000000001.log"), dir("mine").join("0000000001.log")).unwrap();
    for opened in [Store::open(dir("mine")), Store::open_read_only(dir("mine"))] {
        assert!(
            matches!(&opened, Err(OpenError::Foreign { file, .. }) if file.ends_with("0000000001.log")),
            "{opened:?}"
        );
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let default = Settings::default();
    for settings in [
        Settings { segment_bytes_first: 4096, ..default.clone() },
        Settings { segment_bytes_max: 2 << 30, ..default.clone() },
        Settings { segment_bytes_first: 2 << 20, segment_bytes_max: 1 << 20, ..default.clone() },
    ] {
        let opened = Store::open_with(dir.path(), settings);
        assert!(matches!(opened, Err(OpenError::Input(InputError::Setting { .. }))), "{opened:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn there_is_one_writer_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let in_use = || match Store::open(dir.path()) {
        Err(OpenError::InUse { holder, .. }) => holder == Some(std::process::id()),
        other => panic!("{other:?}"),
    };
    let store = open(dir.path());
    append(&store, event("s").into()).unwrap();
    assert!(in_use());
    let beside = Store::open_read_only(dir.path()).unwrap();
    assert!(matches!(beside.append(event("s")), Err(AppendError::ReadOnly)));
    assert!(matches!(
        beside.try_append(&event("s").into()),
        Err(TryAppendError::Failed(AppendError::ReadOnly))
    ));
    let other = store.clone();
    store.close().unwrap();
    let refused = other.append(event("s")).unwrap_err();
    assert!(matches!(refused, AppendError::Poisoned { .. }), "{refused}");
    assert_eq!(read_all(&other).unwrap().len(), 1, "reads go on");
    let store = open(dir.path());
    append(&store, event("s").into()).unwrap();
    assert!(in_use());
    drop(store);
    drop(other);
    assert_eq!(open(dir.path()).next_position().get(), 2);
}

#[test]
fn a_poisoned_store_can_be_reopened_beside_what_is_left_of_it() {
    let disk = SimulatedDisk::new(1);
    let store = on_disk(&disk);
    for _ in 0..5 {
        append(&store, event("s").binary(vec![1; 1_000]).into()).unwrap();
    }
    disk.fail_at(disk.operations() + 1, Fault::EIO, Repeat::ForGood);
    let failed = loop {
        match append(&store, event("s").into()) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, AppendError::UnknownOutcome { .. } | AppendError::Poisoned { .. }), "{failed}");
    disk.clear_faults();
    let reader = store.read(Read::all()).unwrap();
    let other = store.clone();
    assert!(matches!(store.close(), Err(AppendError::Poisoned { .. })));
    let cured = on_disk(&disk);
    append(&cured, event("s").into()).unwrap();
    assert!(reader.map(Result::unwrap).count() >= 5, "reads go on in the poisoned one");
    assert!(matches!(other.append(event("s")), Err(AppendError::Poisoned { .. })));
}

#[test]
fn files_are_their_owner_s_alone() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/b/store");
    let store = open(&dir);
    for _ in 0..30 {
        append(&store, event("s").binary(vec![7; 1_000]).into()).unwrap();
    }
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let check = || {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    };
    check();
    store.close().unwrap();
    check();
    for dir in [&dir, &root.path().join("a/b"), &root.path().join("a")] {
        assert_eq!(mode(dir), 0o700, "{}", dir.display());
    }
}

#[test]
fn a_reader_beside_the_writer_follows_over_rolls_and_seals() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open(dir.path());
    let reader = Store::open_read_only(dir.path()).unwrap();
    let mut model = Model::new();
    let mut delays = Vec::new();
    for n in 0..300_u64 {
        let batch =
            Append::from(event(["a", "b", "c"][usize::from(filling(n % 3))]).binary(vec![filling(n); 2_000]));
        model.append(&batch, Timestamp::ZERO).unwrap();
        let appended = append(&writer, batch).unwrap();
        let acknowledged = Clock::System.now().get();
        assert!(
            reader.wait_for(appended.first_position(), Duration::from_secs(10)).unwrap(),
            "{n} is not seen"
        );
        delays.push(Clock::System.now().get().saturating_sub(acknowledged));
        if n % 25 == 0 {
            let seen = read_all(&reader).unwrap();
            assert_eq!(seen.len() as u64, n + 1);
            assert_eq!(seen.last().unwrap().data(), vec![filling(n); 2_000]);
            let of_stream = reader.read(Read::stream("a")).unwrap().map(Result::unwrap).count();
            assert_eq!(of_stream as u64, n / 3 + 1);
        }
    }
    assert!(writer.stat().unwrap().segments > 8, "it rolled and sealed");
    delays.sort_unstable();
    // The promise is for a machine that is not busy with other tests: the middle of the delays keeps it.
    assert!(delays[delays.len() / 2] < 10_000_000, "half take {} ns or more", delays[delays.len() / 2]);
    writer.close().unwrap();
    assert_eq!(reader.next_position().get(), 300);
    assert!(reader.verify(&mut |_, _| {}).unwrap().is_ok());
    let again = open(dir.path());
    append(&again, event("later").into()).unwrap();
    assert!(
        reader.wait_for(Position::new(300), Duration::from_secs(10)).unwrap(),
        "the next writer is not followed"
    );
    assert_eq!(reader.head("later").unwrap().map(|head| head.position.get()), Some(300));
}

#[test]
fn an_append_that_may_not_wait_says_why_it_would_have_to() {
    let disk = SimulatedDisk::new(1);
    let store = on_disk(&disk);
    store
        .try_append(&Append::from(event("s")).expect("s", ExpectedVersion::NoStream))
        .unwrap()
        .wait()
        .unwrap();
    let refused = store.try_append(&Append::from(event("s")).expect("s", exactly(8))).unwrap().wait();
    assert!(matches!(refused, Err(AppendError::WrongVersion { .. })), "{refused:?}");
    assert!(matches!(store.try_append(&Append::new()), Err(TryAppendError::Failed(AppendError::Input(_)))));
    // No segment is large enough for this one yet; one is made meanwhile.
    let large = Append::from(event("s").binary(vec![1; 200_000]));
    let mut busy = 0;
    within(20, "an append that is tried again", move || {
        let ticket = loop {
            match store.try_append(&large) {
                Ok(ticket) => break ticket,
                Err(TryAppendError::Busy) => busy += 1,
                Err(error) => panic!("{error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        ticket.wait().unwrap();
        assert!(busy > 0, "there was no room at first");
        for _ in 0..300 {
            append(&store, event("filler").binary(vec![1; 2_000]).into()).unwrap();
        }
        store.close().unwrap();
        let store = on_disk(&disk);
        let batch = Append::from(event("s")).expect("s", exactly(1));
        assert!(
            matches!(store.try_append(&batch), Err(TryAppendError::Cold)),
            "its head is in a sealed segment"
        );
        assert_eq!(store.next_position().get(), 302);
        let appended = append(&store, batch).unwrap();
        assert_eq!(appended.last_version.get(), 2);
        store.try_append(&Append::from(event("s")).expect("s", exactly(2))).unwrap().wait().unwrap();
    });
}

#[test]
fn appends_handed_over_together_are_judged_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { segment_bytes_max: 1 << 20, ..Settings::default() };
    let store = Store::open_with(dir.path(), settings).unwrap();
    assert!(store.append_each(&[]).is_empty());
    // More than go under one lock, of sizes that need new segments, with some that are wrong between.
    let appends: Vec<Append<'_>> = (0..200_u64)
        .map(|n| match n % 10 {
            7 => Append::new(),
            8 => Append::from(event("s")).expect("s", ExpectedVersion::NoStream),
            _ => {
                let next = n - n / 10 * 2 - u64::from(n % 10 == 9) * 2;
                let expected = next.checked_sub(1).map_or(ExpectedVersion::NoStream, exactly);
                let bytes = if n % 20 == 3 { 60_000 } else { 10 };
                Append::from(event("s").binary(vec![b'x'; bytes])).expect("s", expected)
            }
        })
        .collect();
    let answers = store.append_each(&appends);
    assert_eq!(answers.len(), appends.len());
    let mut position = 0;
    for (n, answer) in answers.into_iter().enumerate() {
        match n % 10 {
            7 => assert!(matches!(answer, Err(AppendError::Input(_))), "{n}: {answer:?}"),
            8 => {
                let outcome = answer.unwrap().wait();
                let Err(AppendError::WrongVersion { actual: Some(head), .. }) = outcome else {
                    panic!("{n}: {outcome:?}")
                };
                assert_eq!(head.position.get() + 1, position);
            }
            _ => {
                assert_eq!(answer.unwrap().wait().unwrap().positions.start.get(), position, "{n}");
                position += 1;
            }
        }
    }
    assert_eq!(position, 160);
    assert!(store.verify(&mut |_, _| {}).unwrap().is_ok());
    store.close().unwrap();
    let reader = Store::open_read_only(dir.path()).unwrap();
    assert!(
        reader.append_each(&appends[..3]).iter().all(|answer| matches!(answer, Err(AppendError::ReadOnly)))
    );
}

#[test]
fn ids_are_known_within_the_window_and_beyond_it_where_a_version_says_so() {
    const WINDOW: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { id_window: WINDOW, ..small(DiskChoice::Auto) };
    let store = Store::open_with(dir.path(), settings.clone()).unwrap();
    let id = |n: u64| Uuid::from_u128(u128::from(n) + 1);
    let batch =
        |n: u64| Append::from([event("a").id(id(2 * n)), event("b").id(id(2 * n + 1)).binary(vec![1; 200])]);
    // In flight.
    let first = store.append(batch(0)).unwrap();
    let again = store.append(batch(0)).unwrap();
    let (first, again) = (first.wait().unwrap(), again.wait().unwrap());
    assert_eq!(again, Appended { repeated: true, ..first.clone() });
    // Whatever the conditions are, and not where anything differs.
    let unconditional = batch(0).expect("a", ExpectedVersion::NoStream).fail_if_matches(Query::all(), None);
    assert_eq!(append(&store, unconditional).unwrap(), again);
    let conflict = |appended: Result<Appended, AppendError>, n: u64, position: u64| {
        let Err(AppendError::IdConflict { id: known, position: Some(place) }) = appended else {
            panic!("{appended:?}")
        };
        assert_eq!((known, place.get()), (id(n), position));
    };
    conflict(append(&store, event("a").id(id(0)).into()), 0, 0);
    conflict(append(&store, event("c").id(id(1)).into()), 1, 1);
    conflict(append(&store, batch(0).event(event("a"))), 0, 0);
    conflict(append(&store, Append::from([event("new").id(id(900)), event("a").id(id(1))])), 1, 1);
    // After others, in other segments, and after a restart.
    for n in 1..40 {
        append(&store, batch(n)).unwrap();
    }
    assert_eq!(append(&store, batch(0)).unwrap(), again);
    assert!(append(&store, batch(17)).unwrap().repeated);
    store.close().unwrap();
    let store = Store::open_with(dir.path(), settings).unwrap();
    assert!(store.stat().unwrap().segments > 1);
    assert_eq!(append(&store, batch(0)).unwrap(), again);
    assert!(append(&store, batch(39)).unwrap().repeated);
    let tried = store.try_append(&batch(3));
    assert!(matches!(tried, Err(TryAppendError::Cold)), "{tried:?}");
    assert_eq!(store.next_position().get(), 80);
    // Beyond the window, a version has to say so.
    for n in 40..60 {
        append(&store, batch(n)).unwrap();
    }
    let known = batch(0).expect("a", ExpectedVersion::NoStream);
    assert_eq!(append(&store, known).unwrap(), again);
    assert!(!append(&store, batch(0)).unwrap().repeated, "nobody knows it any more");
    assert!(append(&store, batch(0)).unwrap().repeated, "it is new now");
}

/// Appends from where it is woken.
struct Appending(Store, std::sync::mpsc::Sender<Result<Ticket, AppendError>>);

impl Wake for Appending {
    fn wake(self: Arc<Self>) {
        let repeat = Append::from(event("s").id(Uuid::from_u128(1))).expect("s", ExpectedVersion::NoStream);
        // The ticket is waited for elsewhere: it settles with what is in flight, which this very thread writes.
        let _ = self.1.send(self.0.append(repeat));
    }
}

#[test]
fn a_waker_may_repeat_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = Append::from(event("s").id(Uuid::from_u128(1))).expect("s", ExpectedVersion::NoStream);
    append(&store, first).unwrap();
    within(20, "an append in a waker", move || {
        for _ in 0..50 {
            let (sender, receiver) = std::sync::mpsc::channel();
            let waker = Waker::from(Arc::new(Appending(store.clone(), sender)));
            let mut ticket = Box::pin(store.append(event("t")).unwrap());
            if ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                continue;
            }
            let others: Vec<_> = (0..20).map(|_| store.append(event("u")).unwrap()).collect();
            assert!(wait(receiver.recv().unwrap()).unwrap().repeated);
            for other in others {
                other.wait().unwrap();
            }
        }
    });
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn a_ticket_can_be_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    within(20, "awaiting tickets", move || {
        for round in 0..50_u64 {
            let tickets: Vec<_> = (0..20).map(|_| store.append(event("s")).unwrap()).collect();
            for (n, ticket) in tickets.into_iter().enumerate() {
                let appended = block_on(ticket).unwrap();
                assert_eq!(appended.first_position().get(), round * 20 + n as u64);
            }
            let refused = block_on(
                store.append(Append::from(event("s")).expect("s", ExpectedVersion::NoStream)).unwrap(),
            );
            assert!(matches!(refused, Err(AppendError::WrongVersion { .. })), "{refused:?}");
        }
        let dropped: Vec<_> = (0..20).map(|_| store.append(event("s")).unwrap()).collect();
        drop(dropped);
        assert_eq!(block_on(store.append(event("s")).unwrap()).unwrap().first_position().get(), 1_020);
    });
}

#[test]
fn compressed_batches_are_read_as_others() {
    let dir = tempfile::tempdir().unwrap();
    let clock = || Clock::Manual(Arc::new(AtomicU64::new(NOW)));
    let mut model = Model::new();
    let mut sizes = Vec::new();
    for compress_above_bytes in [Some(200), None, Some(200)] {
        let settings = Settings { compress_above_bytes, ..small(DiskChoice::Auto) };
        let store = open_with_clock(dir.path(), settings, clock()).unwrap();
        let before = store.stat().unwrap().segments;
        for n in 0..60_u64 {
            let text = format!("{{\"n\":{n},\"text\":\"{}\"}}", "again and again ".repeat(100));
            let batch =
                Append::from([event("a").json(text.clone()), event("b").json("{}"), event("a").json(text)]);
            model.append(&batch, Timestamp::new(NOW)).unwrap();
            append(&store, batch).unwrap();
        }
        sizes.push(store.stat().unwrap().segments - before);
        check_prefix(&model, &read_all(&store).unwrap(), model.len()).unwrap();
        store.close().unwrap();
    }
    assert!(sizes[0] < sizes[1], "it takes less room: {sizes:?}");
    let store = Store::open_read_only(dir.path()).unwrap();
    check_prefix(&model, &read_all(&store).unwrap(), model.len()).unwrap();
    assert!(store.verify(&mut |_, _| {}).unwrap().is_ok());
    let stream = store.read(Read::stream("a").backwards()).unwrap().map(Result::unwrap).count();
    assert_eq!(stream, 360);
}

#[test]
fn a_thousand_segments_open_fast_and_need_few_open_files() {
    const NAME: &str = "promises::a_thousand_segments_open_fast_and_need_few_open_files";
    const EVENTS: u64 = 1_010;
    if std::env::var_os("ANNALS_FEW_FILES").is_none() {
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env("ANNALS_FEW_FILES", "1")
            .output()
            .unwrap();
        print!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { segment_bytes_max: 16 << 10, ..small(DiskChoice::Buffered) };
    let store = Store::open_with(dir.path(), settings.clone()).unwrap();
    for n in 0..EVENTS {
        let stream = format!("stream-{}", n % 10);
        wait(store.append(event(&stream).binary(vec![filling(n); 7_000]))).unwrap();
    }
    let segments = store.stat().unwrap().segments;
    assert!(segments > 1_000, "{segments}");
    let check = |store: &Store| {
        assert_eq!(read_all(store).unwrap().len() as u64, EVENTS);
        for n in 0..10 {
            let stream = format!("stream-{n}");
            let found: Vec<_> = store.read(Read::stream(&*stream)).unwrap().map(Result::unwrap).collect();
            assert_eq!(found.len(), 101);
            assert!(found.iter().all(|event| event.data() == vec![filling(event.position().get()); 7_000]));
            assert_eq!(store.head(&stream).unwrap().unwrap().version.get(), 100);
        }
    };
    check(&store);
    store.close().unwrap();
    let mut times = Vec::new();
    for _ in 0..5 {
        let begun = Clock::System.now().get();
        let store = Store::open_with(dir.path(), settings.clone()).unwrap();
        times.push((Clock::System.now().get() - begun) / 1_000);
        store.close().unwrap();
    }
    times.sort_unstable();
    println!("{segments} segments: open for writing in {} us (median of {})", times[2], times.len());
    assert!(times[2] < 100_000, "{times:?} us");
    let store = Store::open_with(dir.path(), settings).unwrap();
    check(&store);
    assert!(store.verify(&mut |_, _| {}).unwrap().is_ok());
    check(&Store::open_read_only(dir.path()).unwrap());
}
