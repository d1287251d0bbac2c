//! Appending and reading back.

use crate::support::within;
use annals::{
    Append, AppendError, DiskChoice, ExpectedVersion, NewEvent, Position, Read, Settings, Store, Version,
};
use std::sync::atomic::{AtomicBool, Ordering};

fn small(disk: DiskChoice) -> Settings {
    Settings { disk, segment_bytes_first: 16 << 10, segment_bytes_max: 64 << 10, ..Settings::default() }
}

#[test]
fn what_was_appended_is_read_back_in_order_on_every_disk_and_after_reopening() {
    for disk in [DiskChoice::Ring, DiskChoice::Direct, DiskChoice::Buffered] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), small(disk)).unwrap();
        for n in 0..2000_u64 {
            let event = NewEvent::new(format!("stream-{}", n % 7), "Counted")
                .json(format!("{{\"n\":{n}}}"))
                .tag("t:1");
            let ticket = store.append(event).unwrap();
            if n % 100 == 99 {
                ticket.wait().unwrap();
            }
        }
        let check = |store: &Store| {
            let all: Vec<_> = store.read(Read::all().limit(2000)).unwrap().map(Result::unwrap).collect();
            assert_eq!(all.len(), 2000);
            for (n, event) in all.iter().enumerate() {
                assert_eq!(event.position().get(), n as u64);
                assert_eq!(event.data(), format!("{{\"n\":{n}}}").as_bytes());
                assert_eq!(event.stream(), format!("stream-{}", n % 7));
                assert_eq!(event.version().get(), n as u64 / 7);
                assert_eq!(event.tags().collect::<Vec<_>>(), ["t:1"]);
            }
            let back: Vec<_> = store
                .read(Read::all().backwards().from(Position::new(1999)))
                .unwrap()
                .map(|e| e.unwrap().position())
                .collect();
            assert!(back.iter().rev().map(|p| p.get()).eq(0..2000));
            let stream: Vec<_> =
                store.read(Read::stream("stream-3")).unwrap().map(|e| e.unwrap().position().get()).collect();
            assert!(stream.iter().copied().eq((0..2000).filter(|n| n % 7 == 3)));
            let some: Vec<_> = store
                .read(Read::stream("stream-3").backwards().from(Version::new(100)).limit(5))
                .unwrap()
                .map(|e| e.unwrap().version().get())
                .collect();
            assert_eq!(some, [100, 99, 98, 97, 96]);
        };
        check(&store);
        store.append(NewEvent::new("x", "Last")).unwrap().wait().unwrap();
        let stat = store.stat().unwrap();
        assert_eq!((stat.events, stat.streams), (2001, 8), "{stat:?}");
        assert!(stat.segments > 5);
        store.close().unwrap();
        let store = Store::open_read_only(dir.path()).unwrap();
        let verified = store.verify(&mut |_, _| {}).unwrap();
        assert!(verified.is_ok(), "{verified:?}");
        assert_eq!(verified.events, 2001);
        let store = Store::open_with(dir.path(), small(disk)).unwrap();
        let head = store.head("stream-3").unwrap().unwrap();
        assert_eq!(head.position, Position::new(1999 - 1999 % 7 + 3 - 7 * u64::from(1999 % 7 < 3)));
        let wrong = store
            .append(
                Append::from(NewEvent::new("stream-3", "X"))
                    .expect("stream-3", ExpectedVersion::Exactly(Version::new(1))),
            )
            .unwrap()
            .wait();
        assert!(
            matches!(wrong, Err(AppendError::WrongVersion { actual: Some(actual), .. }) if actual == head),
            "{wrong:?}"
        );
        drop(store);
        let store = Store::open_read_only(dir.path()).unwrap();
        assert_eq!(store.next_position().get(), 2001);
        check(&store);
    }
}

#[test]
fn after_a_clean_close_what_is_in_the_block_that_is_written_on_is_read_right() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20_u64 {
        let store = Store::open(dir.path()).unwrap();
        for n in 0..10 {
            let text = format!("{}", round * 10 + n);
            store.append(NewEvent::new("numbers", "Counted").json(text)).unwrap().wait().unwrap();
        }
        let all: Vec<_> = store.read(Read::stream("numbers")).unwrap().map(Result::unwrap).collect();
        assert_eq!(all.len() as u64, round * 10 + 10);
        assert!(all.iter().enumerate().all(|(n, event)| event.data() == n.to_string().as_bytes()));
        store.close().unwrap();
    }
    assert_eq!(Store::open_read_only(dir.path()).unwrap().stat().unwrap().segments, 1);
}

#[test]
fn appends_go_on_while_memory_is_short() {
    annals::testing::set_memory_short_from(0);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let event = || NewEvent::new("s", "T").binary(vec![7; 100_000]);
    let tickets: Vec<_> = (0..100).map(|_| store.append(event()).unwrap()).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(
        store.read(Read::stream("s")).unwrap().map(|event| event.unwrap().data().len()).sum::<usize>(),
        10_000_000
    );
    annals::testing::set_memory_short_from(1 << 30);
}

#[test]
fn the_greatest_version_can_be_expected_and_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.append(NewEvent::new("s", "T")).unwrap().wait().unwrap();
    let greatest = ExpectedVersion::Exactly(Version::new(u64::MAX));
    for stream in ["s", "never"] {
        let append = Append::from(NewEvent::new("s", "T")).expect(stream, greatest);
        assert!(matches!(store.append(append).unwrap().wait(), Err(AppendError::WrongVersion { .. })));
    }
    store.append(NewEvent::new("s", "T")).unwrap().wait().unwrap();
}

/// Segments are sealed and heads forgotten faster than a thousand streams are looked up.
#[test]
fn an_append_about_many_cold_streams_is_answered_while_others_append() {
    within(20, "the append about cold streams", append_about_cold_streams);
}

fn append_about_cold_streams() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        segment_bytes_max: 16 << 10,
        cached_heads: 0,
        recent_bytes: 0,
        ..small(DiskChoice::Buffered)
    };
    let store = Store::open_with(dir.path(), settings).unwrap();
    for batch in 0..30 {
        let events: Append<'_> = (0..100).map(|n| NewEvent::new(format!("cold-{batch}-{n}"), "T")).collect();
        store.append(events).unwrap().wait().unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                store.append(NewEvent::new(format!("new-{n}"), "T")).unwrap().wait().unwrap();
            }
        });
        let exist = (0..1000).fold(Append::from(NewEvent::new("s", "T")), |append, n| {
            append.expect(format!("cold-{}-{}", n % 30, n / 30), ExpectedVersion::Exists)
        });
        let answer = store.append(exist).unwrap().wait();
        stop.store(true, Ordering::Relaxed);
        answer.unwrap();
    });
}
