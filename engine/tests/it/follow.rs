//! Following: what is there and what comes, each once, in order, without a seam.

use crate::support::{block_on, event, open, read_all, small, wait, wait_until, within};
use annals::{
    Append, DiskChoice, Follow, Followed, Following, InputError, NewEvent, Position, QueryItem, Read,
    ReadError, Record, Settings, Store, Timestamp, Version,
};
use futures_core::Stream;
use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;

use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn append(store: &Store, append: impl Into<Append<'static>>) -> u64 {
    wait(store.append(append)).unwrap().positions.start.get()
}

/// The positions of the events that come before it has caught up.
fn until_caught_up(following: &mut Following) -> (Vec<u64>, u64) {
    let mut positions = Vec::new();
    loop {
        match following.next_within(SOON).unwrap().expect("it comes soon") {
            Followed::Event(record) => positions.push(record.position().get()),
            Followed::CaughtUp { next } => return (positions, next.get()),
            Followed::Progress { .. } => {}
        }
    }
}

fn next_event(following: &mut Following) -> Record {
    loop {
        let followed = following.next_within(SOON).unwrap().expect("it comes soon");
        if let Some(record) = followed.into_event() {
            return record;
        }
    }
}

#[test]
fn what_is_there_comes_and_then_what_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..300 {
        append(&store, NewEvent::new(format!("s-{}", n % 3), "Happened").binary(vec![1; 500]));
    }
    let mut all = store.follow(&Follow::all()).unwrap();
    let mut one = store.follow(&Follow::stream("s-1")).unwrap();
    let mut tagged = store.follow(&Follow::query(QueryItem::new().tag("rare"))).unwrap();
    let mut live = store.follow(&Follow::all().from_end()).unwrap();
    assert_eq!(until_caught_up(&mut all), ((0..300).collect(), 300));
    assert_eq!(until_caught_up(&mut one), ((0..300).filter(|n| n % 3 == 1).collect(), 300));
    assert_eq!(until_caught_up(&mut tagged), (vec![], 300));
    assert_eq!(until_caught_up(&mut live), (vec![], 300));
    append(&store, event("s-1").tag("rare"));
    for following in [&mut all, &mut one, &mut tagged, &mut live] {
        assert_eq!(next_event(following).position().get(), 300);
        assert!(following.next_within(Duration::ZERO).unwrap().is_none(), "it is live still");
    }
    assert_eq!(next_event_version(&mut one, &store), Version::new(101));
}

fn next_event_version(following: &mut Following, store: &Store) -> Version {
    append(store, event("s-1"));
    next_event(following).version()
}

#[test]
fn it_begins_where_it_is_told_to_also_at_places_that_are_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let at = |n: u64| Timestamp::new(1_000 * (n / 2));
    let timed =
        |n: u64| NewEvent::new(if n.is_multiple_of(2) { "even" } else { "odd" }, "Happened").time(at(n));
    for n in 0..10 {
        append(&store, timed(n));
    }
    let mut begun = Vec::new();
    let mut begin =
        |follow: Follow<'static>, wanted: Vec<u64>| begun.push((store.follow(&follow).unwrap(), wanted));
    begin(Follow::all().from(Position::new(3)), (3..14).collect());
    begin(Follow::all().after(Position::new(3)), (4..14).collect());
    begin(Follow::all().from(Position::new(12)), vec![12, 13]);
    begin(Follow::all().after(Position::new(u64::MAX)), vec![]);
    begin(Follow::all().from(at(4)), (4..14).collect());
    begin(Follow::all().after(at(4)), (6..14).collect());
    begin(Follow::all().from(Timestamp::new(5_500)), vec![12, 13]);
    begin(Follow::all().after(at(11)), vec![12, 13]);
    begin(Follow::stream("odd").from(Version::new(2)), vec![5, 7, 9, 11, 13]);
    begin(Follow::stream("odd").after(Version::new(2)), vec![7, 9, 11, 13]);
    begin(Follow::stream("odd").from(Version::new(6)), vec![13]);
    begin(Follow::stream("even").from(Position::new(3)), vec![4, 6, 8, 10, 12]);
    begin(Follow::stream("even").after(at(6)), vec![8, 10, 12]);
    begin(Follow::stream("nobody"), vec![]);
    for n in 10..14 {
        append(&store, timed(n));
    }
    let mut last = store.follow(&Follow::all().from_end()).unwrap();
    store.close().unwrap();
    for (number, (following, wanted)) in begun.into_iter().enumerate() {
        let events = following.filter_map(|followed| followed.unwrap().into_event());
        assert_eq!(
            events.map(|record| record.position().get()).collect::<Vec<_>>(),
            wanted,
            "number {number}"
        );
    }
    assert!(matches!(last.next(), Some(Ok(Followed::CaughtUp { .. }))));
    assert!(last.next().is_none() && last.has_ended());
}

#[test]
fn a_version_without_a_stream_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = store.follow(&Follow::all().after(Version::new(1)));
    assert!(matches!(refused, Err(ReadError::Input(InputError::Bound { .. }))));
}

#[test]
fn progress_is_told_in_time_where_nothing_matches() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let often = Duration::from_millis(50);
    let sparse = || Follow::query(QueryItem::new().tag("never")).progress_every(often);
    let mut blocking = store.follow(&sparse()).unwrap();
    assert_eq!(until_caught_up(&mut blocking), (vec![], 0));
    let mut stream = store.follow(&sparse()).unwrap().into_stream();
    assert!(matches!(block_on(&mut stream), Some(Ok(Followed::CaughtUp { .. }))));
    append(&store, event("s"));
    // Without another append: who waits is woken by the time alone.
    for followed in [blocking.next(), block_on(&mut stream)] {
        assert!(
            matches!(followed, Some(Ok(Followed::Progress { next })) if next == Position::new(1)),
            "{followed:?}"
        );
    }
    assert!(blocking.next_within(3 * often).unwrap().is_none(), "it is told once");
}

#[test]
fn a_store_is_opened_and_closed_inside_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.append(event("s")).unwrap().await.unwrap();
        store.close().unwrap();
    });
}

#[test]
fn thousands_follow_without_a_thread_each() {
    within(60, "two thousand streams", || {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let before = threads();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sums = runtime.block_on(async {
            let tasks: Vec<_> = (0..2_000)
                .map(|n| {
                    let tag = format!("n:{}", n % 4);
                    let follow = Follow::query(QueryItem::new().tag(tag));
                    let mut stream = store.follow(&follow).unwrap().into_stream();
                    tokio::spawn(async move {
                        let mut seen = 0;
                        while let Some(followed) =
                            poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await
                        {
                            seen += u64::from(followed.unwrap().into_event().is_some());
                        }
                        seen
                    })
                })
                .collect();
            for n in 0..40 {
                let ticket = store.append(event("s").tag(format!("n:{}", n % 4))).unwrap();
                ticket.await.unwrap();
                tokio::task::yield_now().await;
            }
            // Other tests may run in this process meanwhile.
            assert!(threads() < before + 500, "{} threads, {before} before", threads());
            store.close().unwrap();
            let mut sums = Vec::new();
            for task in tasks {
                sums.push(task.await.unwrap());
            }
            sums
        });
        assert!(sums.iter().all(|&seen| seen == 10), "{sums:?}");
    });
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn a_reader_beside_a_writer_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, event("s"));
    let reader = Store::open_read_only(dir.path()).unwrap();
    let mut blocking = reader.follow(&Follow::all()).unwrap();
    let mut stream = reader.follow(&Follow::stream("s").from_end()).unwrap().into_stream();
    assert_eq!(until_caught_up(&mut blocking), (vec![0], 1));
    assert!(matches!(block_on(&mut stream), Some(Ok(Followed::CaughtUp { .. }))));
    let writer = std::thread::spawn(move || {
        for _ in 0..100 {
            append(&store, event("s").binary(vec![3; 3_000]));
            std::thread::sleep(Duration::from_millis(1));
        }
        store.close().unwrap();
    });
    for position in 1..=100 {
        assert_eq!(next_event(&mut blocking).position().get(), position);
        let followed = block_on(&mut stream).unwrap().unwrap();
        assert_eq!(followed.into_event().map(|record| record.position().get()), Some(position));
    }
    writer.join().unwrap();
}

#[test]
fn a_store_that_fails_says_so_to_who_follows() {
    use annals::testing::{Clock, Fault, Repeat, SimulatedDisk, open_simulated};
    let disk = SimulatedDisk::new(5);
    let store =
        open_simulated(&disk, Path::new("/store"), small(DiskChoice::Auto), Clock::default()).unwrap();
    append(&store, event("s"));
    let mut following = store.follow(&Follow::all()).unwrap();
    disk.fail_at(disk.operations() + 1, Fault::EIO, Repeat::ForGood);
    assert!(wait(store.append(event("s"))).is_err());
    assert_eq!(until_caught_up(&mut following), (vec![0], 1));
    assert!(matches!(following.next(), Some(Err(ReadError::Stopped { .. }))));
    assert!(following.next().is_none());
}

#[test]
fn one_that_falls_behind_says_when_it_has_caught_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut following = store.follow(&Follow::all()).unwrap();
    assert_eq!(until_caught_up(&mut following), (vec![], 0));
    let tickets: Vec<_> = (0..1_500).map(|_| store.append(event("s")).unwrap()).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(until_caught_up(&mut following), ((0..1_500).collect(), 1_500));
    assert!(following.next_within(Duration::ZERO).unwrap().is_none());
}

#[test]
fn events_that_share_one_time_keep_their_order_and_are_all_there() {
    const EVENTS: u64 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let same = Timestamp::new(7_000_000);
    let batches: Vec<_> = (0..EVENTS)
        .step_by(1_000)
        .map(|first| {
            let one =
                |n: u64| NewEvent::new(format!("s-{}", n % 7), "Happened").binary(n.to_le_bytes().to_vec());
            let batch: Append<'_> = (first..first + 1_000).map(|n| one(n).time(same)).collect();
            store.append(batch).unwrap()
        })
        .collect();
    for ticket in batches {
        ticket.wait().unwrap();
    }
    let number = |record: &Record| u64::from_le_bytes(record.data().try_into().unwrap());
    let numbers = |read: Read<'_>| -> Vec<u64> {
        store.read(read).unwrap().map(|record| number(&record.unwrap())).collect()
    };
    let all: Vec<u64> = (0..EVENTS).collect();
    assert_eq!(numbers(Read::all().from(same).until(same)), all);
    assert_eq!(numbers(Read::all().from(same.plus(1))), Vec::<u64>::new());
    assert_eq!(numbers(Read::stream("s-3").until(same)), (3..EVENTS).step_by(7).collect::<Vec<_>>());
    let mut followed = store.follow(&Follow::all().from(same)).unwrap();
    assert_eq!(until_caught_up(&mut followed), (all, EVENTS));
    assert_eq!(read_all(&store).unwrap().len() as u64, EVENTS);
}

/// Environment variable: how many stop reading in the process that does nothing else. It makes the test below that process.
const STOPPED: &str = "ANNALS_STOPPED_FOLLOWERS";
const STOPPED_MOST: usize = 10;

/// Lets so many who follow stop, each in a segment of its own, and says what anonymous memory is taken.
fn stop(count: usize) {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        Settings { segment_bytes_first: 24 << 20, segment_bytes_max: 24 << 20, ..Settings::default() };
    let store = Store::open_with(dir.path(), settings).unwrap();
    let mut held = Vec::new();
    for round in 0..22 * STOPPED_MOST {
        let large = append(&store, event("s").binary(vec![7; 1 << 20]));
        if round % 22 == 0 {
            append(&store, event("s"));
            let mut following = store.follow(&Follow::all().after(Position::new(large))).unwrap();
            assert_eq!(next_event(&mut following).position().get(), large + 1);
            held.extend((held.len() < count).then_some(following));
        }
    }
    wait_until("all but the last to be sealed", || {
        let entries = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|kind| kind == "index")).count() >= 8
    });
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("RssAnon:")).unwrap());
}

/// What a process of its own takes.
fn bytes_with(stopped: usize) -> u64 {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "follow::one_that_stops_reading_holds_less_than_a_mebibyte", "--nocapture"])
        .env(STOPPED, stopped.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_else(|| panic!("{said}"));
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn one_that_stops_reading_holds_less_than_a_mebibyte() {
    if let Ok(count) = std::env::var(STOPPED) {
        return stop(count.parse().unwrap());
    }
    let (without, with) = (bytes_with(0), bytes_with(STOPPED_MOST));
    assert!(
        with < without + ((STOPPED_MOST as u64) << 20),
        "{with} bytes with {STOPPED_MOST} of them, {without} without"
    );
}

#[test]
fn a_stream_is_woken_for_progress_whenever_the_event_comes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let soon = Duration::from_millis(5);
    let mut stream = store.follow(&Follow::stream("never").progress_every(soon)).unwrap().into_stream();
    assert!(matches!(block_on(&mut stream), Some(Ok(Followed::CaughtUp { .. }))));
    for round in 0..300 {
        // At about the moment that it is polled.
        let other = store.clone();
        let writer = std::thread::spawn(move || append(&other, event("s")));
        assert!(matches!(block_on(&mut stream), Some(Ok(Followed::Progress { .. }))), "round {round}");
        writer.join().unwrap();
    }
}
