//! What happens beside: readers beside a writer that rolls, a reader beside a creation, frames beside the edges of
//! memory and of segments.

use crate::support::{cases, small};
use annals::testing::{Clock, SimulatedDisk, open_simulated};
use annals::{Append, DiskChoice, ExpectedVersion, NewEvent, OpenError, Position, Read, Settings, Store};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[test]
fn a_store_whose_last_frame_ends_with_a_chunk_of_memory_opens_again() {
    let settings = Settings { segment_bytes_first: 4 << 20, ..Settings::default() };
    // One of these frames ends exactly at 1 MiB of the file.
    for bytes in ((1 << 20) - 4096 - 400..(1 << 20) - 4096).step_by(8) {
        let disk = SimulatedDisk::new(1);
        for events in 1..=2 {
            let store = open_simulated(&disk, Path::new("/store"), settings.clone(), Clock::System).unwrap();
            store.append(NewEvent::new("a", "T").binary(vec![1; bytes])).unwrap().wait().unwrap();
            assert_eq!(store.read(Read::all()).unwrap().map(Result::unwrap).count(), events);
            store.close().unwrap();
        }
    }
}

/// Appends until told to stop; says how much is acknowledged.
fn append_until(store: &Store, stop: &AtomicBool, acknowledged: &AtomicU64) {
    let mut events = acknowledged.load(Ordering::SeqCst);
    while !stop.load(Ordering::SeqCst) {
        let append =
            |n| store.append(NewEvent::new(format!("s-{}", n % 7), "T").binary(vec![7; 1_000])).unwrap();
        let tickets: Vec<_> = (events..events + 8).map(append).collect();
        for ticket in tickets {
            ticket.wait().unwrap();
        }
        events += 8;
        acknowledged.store(events, Ordering::SeqCst);
    }
}

#[test]
fn readers_that_open_beside_a_rolling_writer_find_no_damage_and_miss_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { segment_bytes_max: 16 << 10, ..small(DiskChoice::Auto) };
    let store = Store::open_with(dir.path(), settings).unwrap();
    for n in 0..7 {
        store.append(NewEvent::new(format!("s-{n}"), "T")).unwrap().wait().unwrap();
    }
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(7));
    std::thread::scope(|scope| {
        scope.spawn(|| append_until(&store, &stop, &acknowledged));
        let follower = Store::open_read_only(dir.path()).unwrap();
        let mut reached = 0;
        for opened in 0..cases(1_000) {
            let reader = Store::open_read_only(dir.path()).unwrap();
            for n in 0..7 {
                assert!(reader.head(&format!("s-{n}")).unwrap().is_some());
            }
            let newest = reader.read(Read::all().backwards().limit(50)).unwrap();
            newest.for_each(|event| drop(event.unwrap()));
            if opened % 20 == 0 {
                for event in follower.read(Read::all().from(Position::new(reached))).unwrap() {
                    assert_eq!(event.unwrap().position().get(), reached);
                    reached += 1;
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    let there = acknowledged.load(Ordering::SeqCst);
    assert_eq!(Store::open_read_only(dir.path()).unwrap().next_position().get(), there);
}

#[test]
fn a_reader_that_opened_beside_a_creation_says_that_it_must_open_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lock"), b"").unwrap();
    let reader = Store::open_read_only(dir.path()).unwrap();
    assert_eq!(reader.read(Read::all()).unwrap().count(), 0);
    let store = Store::open_with(dir.path(), small(DiskChoice::Buffered)).unwrap();
    store.append(NewEvent::new("a", "T")).unwrap().wait().unwrap();
    assert!(reader.read(Read::all()).is_err());
    assert_eq!(Store::open_read_only(dir.path()).unwrap().read(Read::all()).unwrap().count(), 1);
}

#[test]
fn the_largest_batches_go_into_the_smallest_segments() {
    let disk = SimulatedDisk::new(1);
    let settings =
        Settings { segment_bytes_first: 16 << 10, segment_bytes_max: 16 << 10, ..Settings::default() };
    let store = open_simulated(&disk, Path::new("/store"), settings.clone(), Clock::System).unwrap();
    let large = |n| NewEvent::new(format!("large-{n}"), "T").binary(vec![3; (16 << 20) - 400]);
    let large: Append<'_> = (0..4).map(large).collect();
    let many: Append<'_> = (0..10_000).map(|n| NewEvent::new(format!("many-{n}"), "T")).collect();
    let conditional = (0..10_000)
        .fold(many.clone(), |append, n| append.expect(format!("none-{n}"), ExpectedVersion::NoStream));
    for append in [large.clone(), many, large, conditional] {
        store.append(append).unwrap().wait().unwrap();
    }
    store.close().unwrap();
    let store = open_simulated(&disk, Path::new("/store"), settings, Clock::System).unwrap();
    assert_eq!(store.head("many-77").unwrap().unwrap().version.get(), 1);
    assert_eq!(store.read(Read::all()).unwrap().map(Result::unwrap).count(), 20_008);
}

/// Opens the store as soon as nobody else has it, appends, and says what it has appended; so many times.
fn take_turns(dir: &Path, writer: u64, turns: u64) -> Vec<(Position, String)> {
    let mut appended = Vec::new();
    while appended.len() < usize::try_from(2 * turns).unwrap() {
        let store = match Store::open_with(dir, small(DiskChoice::Auto)) {
            Ok(store) => store,
            Err(OpenError::InUse { .. }) => {
                std::thread::yield_now();
                continue;
            }
            Err(error) => panic!("writer {writer}: {error}"),
        };
        for _ in 0..2 {
            let stream = format!("{writer}-{}", appended.len());
            let event = NewEvent::new(&*stream, "T").binary(vec![1; 700]);
            let position = store.append(event).unwrap().wait().unwrap().first_position();
            appended.push((position, stream));
        }
        store.close().unwrap();
    }
    appended
}

#[test]
fn what_several_who_want_to_write_at_once_were_told_is_there_is_there() {
    const WRITERS: u64 = 4;
    const TURNS: u64 = 12;
    let tempdir = tempfile::tempdir().unwrap();
    let dir = tempdir.path();
    let told: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || take_turns(dir, writer, TURNS))).collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let store = Store::open_read_only(dir).unwrap();
    let there: Vec<_> = store.read(Read::all()).unwrap().map(Result::unwrap).collect();
    assert_eq!(there.len(), told.len());
    for (position, stream) in told {
        assert_eq!(there[usize::try_from(position.get()).unwrap()].stream(), stream, "position {position}");
    }
}
