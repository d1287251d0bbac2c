//! What holds for a store as such: who may open it, what of it may be opened, and how it is read and kept.

use crate::support::{
    NOW, append, check_prefix, event, filling, on_disk, open, read_all, small, spans_in, tiny, wait,
    wait_until,
};
use annals::testing::{Clock, Fault, Model, Repeat, SimulatedDisk, open_simulated, open_with_clock};
use annals::{
    Append, AppendError, DamageKind, DiskChoice, InputError, NewEvent, OpenError, Position, Read, Settings,
    Store, Timestamp, TryAppendError,
};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

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

#[test]
fn verification_beside_its_own_writer_takes_nothing_on_its_way_for_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // A new segment every few dozen events.
            while !stop.load(Ordering::SeqCst) {
                append(&store, event("s").binary(vec![1; 1_000]).into()).unwrap();
            }
        });
        for _ in 0..60 {
            let verified = store.verify(&mut |_, _| {}).unwrap();
            assert!(verified.is_ok(), "{:?}", verified.damage);
        }
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap();
    });
}

#[test]
fn a_store_with_spans_that_lost_its_manifest_is_damaged_and_not_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path(), tiny(DiskChoice::Auto)).unwrap();
    for _ in 0..9 {
        store.append(NewEvent::new("s", "T").binary(vec![7; 6_000])).unwrap().wait().unwrap();
    }
    wait_until("a span", || !spans_in(dir.path()).is_empty());
    store.close().unwrap();
    std::fs::write(dir.path().join("span.tmp"), b"half of one").unwrap();
    std::fs::rename(dir.path().join("manifest"), dir.path().join("torn-0000000009-4096")).unwrap();
    for opened in [Store::open(dir.path()), Store::open_read_only(dir.path())] {
        assert!(
            matches!(&opened, Err(OpenError::Damage(damage)) if damage.kind == DamageKind::Missing),
            "{opened:?}"
        );
    }
    std::fs::rename(dir.path().join("torn-0000000009-4096"), dir.path().join("manifest")).unwrap();
    let store = Store::open(dir.path()).unwrap();
    wait_until("the leftover is gone", || !dir.path().join("span.tmp").exists());
    store.close().unwrap();
}

#[test]
fn a_spare_that_could_be_made_anew_in_part_alone_is_not_trusted() {
    for at in 0..40 {
        for seed in 0..4 {
            let disk = SimulatedDisk::new(seed);
            let first = on_disk(&disk);
            wait(first.append(event("s"))).unwrap();
            let disk = { disk.kill() };
            drop(first);
            // Segments are to be larger now, so that the spare is made anew; that fails, and so does removing it.
            let larger = || {
                let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW)));
                let settings = Settings {
                    segment_bytes_first: 128 << 10,
                    segment_bytes_max: 128 << 10,
                    ..small(DiskChoice::Auto)
                };
                open_simulated(&disk, Path::new("/store"), settings, clock)
            };
            let begun = disk.operations();
            disk.fail_at(begun + at, Fault::EIO, Repeat::Once);
            disk.fail_at(begun + at + 1, Fault::EIO, Repeat::Once);
            drop(larger());
            disk.clear_faults();
            let store = larger().unwrap();
            for _ in 0..50 {
                wait(store.append(event("s").binary(vec![1; 1_500]))).unwrap();
            }
            let crashed = disk.crash(seed);
            drop(store);
            let store = on_disk(&crashed);
            assert_eq!(store.next_position().get(), 51, "operation {at}, seed {seed}");
        }
    }
}
