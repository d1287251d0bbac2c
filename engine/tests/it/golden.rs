//! Golden files: a store of each format that was ever written is read for ever, as it is and written on.

use crate::support::{spans_in, wait_until};
use annals::testing::{Clock, open_with_clock};
use annals::{
    Append, Cursor, DeliveryOrder, DiskChoice, Nack, NewEvent, NewSnapshot, NewSubscription, Position,
    QueryItem, Read, Record, Settings, Start, Store, Timestamp, Uuid, Version,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

const NOW: u64 = 1_767_225_600_000_000_000;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// What the golden stores hold: batches of one and of several streams, with and without tags, ids, metadata and
/// given times, small and compressed, JSON and binary.
fn batches() -> Vec<Append<'static>> {
    let id = |n: u128| Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n);
    let event =
        |n: u128, stream: String| NewEvent::new(stream, "Counted").id(id(n)).json(format!("{{\"n\":{n}}}"));
    let mut batches = Vec::new();
    for n in 0..80 {
        let one = event(10 * n, format!("order-{}", n % 3)).tag("round:first").tag(format!("n:{n}"));
        batches.push(Append::from(one));
        let several = (1..5).map(|k| {
            let event =
                event(10 * n + k, format!("line-{}", k % 2)).correlation(id(10 * n)).causation(id(10 * n));
            event.metadata(&b"{\"by\":\"golden\"}"[..])
        });
        batches.push(several.collect());
        let given = NOW + 1_000 * u64::try_from(n).unwrap();
        let bytes = vec![u8::try_from(n).unwrap(); 600];
        let timed = NewEvent::new("timed", "Measured").id(id(10 * n + 9)).binary(bytes);
        let mut timed = Append::from(timed.time(Timestamp::new(given)));
        if n % 8 == 3 {
            timed = timed.advance("handler", Some(handled(n)));
            batches.push(Append::new().advance("reader", None).advance("handler", None));
        }
        batches.push(timed);
    }
    batches
}

/// Of each round, six events, the first is handled.
fn handled(round: u128) -> Position {
    Position::new(6 * u64::try_from(round).unwrap())
}

fn assert_has_the_cursors(store: &Store) {
    let handler = Cursor { position: Some(handled(75)), revision: 20 };
    let reader = Cursor { position: None, revision: 10 };
    assert_eq!(store.cursors().unwrap(), [("handler".to_owned(), handler), ("reader".to_owned(), reader)]);
}

fn write(dir: &Path) {
    let settings = Settings {
        disk: DiskChoice::Buffered,
        segment_bytes_first: 16 << 10,
        segment_bytes_max: 16 << 10,
        compress_above_bytes: Some(500),
        ..Settings::default()
    };
    let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW)));
    let store = open_with_clock(dir, settings, clock).unwrap();
    for batch in batches() {
        store.append(batch).unwrap().wait().unwrap();
    }
    write_beside(&store);
    wait_until("a span", || !spans_in(dir).is_empty());
    store.close().unwrap();
}

/// Snapshots and durable subscriptions, with what they can have.
fn write_beside(store: &Store) {
    for (version, state) in [(3, "three"), (7, "seven"), (9, "nine")] {
        let snapshot = NewSnapshot::new("order-0", 2, state);
        store.write_snapshot(&snapshot, Version::new(version)).unwrap();
    }
    store.delete_snapshots("order-0", "", Some(Version::new(9))).unwrap();
    store.create_subscription(&subscription()).unwrap();
    let mut member = store.join("golden").unwrap();
    let ids: Vec<_> =
        (0..4).map(|_| member.next_within(Duration::ZERO).unwrap().expect("there are enough").id).collect();
    member.ack_each(&ids[2..3]).unwrap();
    member.nack(ids[0], &Nack::park("the first")).unwrap();
    member.nack(ids[1], &Nack::retry("the second")).unwrap();
    store.stop_subscription("golden", "the end").unwrap();
}

fn subscription() -> NewSubscription<'static> {
    NewSubscription::new("golden")
        .query(QueryItem::new().category("order").of_type("Counted").tag("round:first"))
        .start(Start::From(Position::new(6).into()))
        .shared()
        .order(DeliveryOrder::Unordered)
        .retries(5, Duration::from_millis(20), Duration::from_secs(40))
}

fn assert_has_what_is_beside(store: &Store) {
    let (snapshots, passed_over) = store.snapshots("order-0").unwrap();
    let found: Vec<_> =
        snapshots.iter().map(|found| (found.version.get(), found.schema, &found.data[..])).collect();
    assert_eq!((found, passed_over.len()), (vec![(7, 2, &b"seven"[..]), (3, 2, b"three")], 0));
    let status = store.subscription("golden").unwrap();
    assert_eq!(status.settings.difference(&subscription()), None);
    assert_eq!((status.next.get(), status.open, status.parked), (25, 2, 1));
    assert_eq!((status.oldest.unwrap().0.get(), status.stopped.as_deref()), (12, Some("the end")));
    assert_eq!(store.parked("golden").unwrap()[0].reason, "the first");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

fn assert_holds_the_batches(records: &[Record]) {
    let events: Vec<NewEvent<'_>> = batches().into_iter().flat_map(|batch| batch.events).collect();
    assert!(records.len() >= events.len());
    for (position, (record, event)) in records.iter().zip(&events).enumerate() {
        assert_eq!(record.position().get(), position as u64);
        let time = event.time.unwrap_or(record.time());
        assert_eq!(record.to_new_event(), NewEvent { time: Some(time), ..event.clone() });
        let before = events[..position].iter().filter(|other| other.stream == event.stream).count();
        assert_eq!(record.version().get(), before as u64);
    }
}

/// Makes the golden store of the present format: `ANNALS_MAKE_GOLDEN=v1 cargo test -p annals --test it golden`.
#[test]
fn the_golden_store_of_this_format_can_be_made() {
    let made = tempfile::tempdir().unwrap();
    write(made.path());
    let store = Store::open_read_only(made.path()).unwrap();
    let records: Vec<_> = store.read(Read::all()).unwrap().map(Result::unwrap).collect();
    assert_holds_the_batches(&records);
    assert_has_the_cursors(&store);
    assert_has_what_is_beside(&store);
    if let Ok(name) = std::env::var("ANNALS_MAKE_GOLDEN") {
        copy(made.path(), &golden(&name));
    }
}

#[test]
fn golden_stores_are_read_verified_and_written_on() {
    let versions: Vec<_> = fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!versions.is_empty());
    for version in versions {
        let dir = tempfile::tempdir().unwrap();
        copy(&version, dir.path());
        let store = Store::open_read_only(dir.path()).unwrap();
        let verified = store.verify(&mut |_, _| {}).unwrap();
        assert!(verified.is_ok(), "{version:?}: {verified:?}");
        let records: Vec<_> = store.read(Read::all()).unwrap().map(Result::unwrap).collect();
        assert_holds_the_batches(&records);
        assert_has_the_cursors(&store);
        assert_has_what_is_beside(&store);
        let before = records.len();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        store.append(NewEvent::new("order-0", "Added")).unwrap().wait().unwrap();
        store.close().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let records: Vec<_> = store.read(Read::all()).unwrap().map(Result::unwrap).collect();
        assert_eq!(records.len(), before + 1);
        assert_holds_the_batches(&records);
        assert_has_the_cursors(&store);
        assert_has_what_is_beside(&store);
        assert!(store.verify(&mut |_, _| {}).unwrap().is_ok());
    }
}
