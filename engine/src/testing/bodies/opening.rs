//! Opening a store of which some bytes are other than they were, with right checksums.

use super::{resealed, segment};
use crate::format::prelude::{self, Kind};
use crate::format::{index, mark, span};
use crate::testing::{
    Clock, SimulatedDisk, open_simulated, open_simulated_read_only, visible_files, visible_paths,
};
use crate::{
    Append, AppendError, Appended, Load, NewEvent, NewSnapshot, NewSubscription, QueryItem, Read, Settings,
    Store, Ticket, Timestamp, Uuid, Version,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const DIR: &str = "/store";
const NOW: u64 = 1_700_000_000_000_000_000;
/// Rounds of appends that fill several segments.
const ROUNDS: u64 = 150;
/// What is behind so many errors is not read: each may be of one position of many.
const ERRORS_MAX: usize = 100;

/// Bytes of an edit before what is written: which file, where (3 bytes), and how many bytes.
const EDIT_FIXED_BYTES: usize = 5;
/// Most bytes of one edit.
const EDIT_BYTES_MAX: u8 = 32;

/// Takes bytes for edits of the files of a small store: which file, where, how many bytes, and these. The store is opened, for
/// reading alone and for writing, and used. Returns how many events could be read.
#[must_use]
pub fn opening(bytes: &[u8]) -> usize {
    let files = edited(bytes);
    let beside = disk_of(&files);
    let read = open_simulated_read_only(&beside, Path::new(DIR)).map_or(0, |store| {
        let _ = store.verify(&mut |_, _| {});
        use_of(&store)
    });
    let disk = disk_of(&files);
    if let Ok(store) = open(&disk) {
        let _ = use_of(&store);
        let event = NewEvent::new("order-1", "Placed").json("{\"n\":\"appended\"}");
        let appended = store.append(event).and_then(Ticket::wait);
        check_appended(&store, &appended);
        if store.close().is_ok()
            && let Ok(store) = open(&disk)
        {
            check_appended(&store, &appended);
        }
    }
    read
}

/// What was acknowledged can be read, whatever was wrong with the store before.
fn check_appended(store: &Store, appended: &Result<Appended, AppendError>) {
    if let Ok(appended) = appended {
        let read = store.read(Read::all().from(appended.positions.start).limit(1));
        let first =
            read.expect("the read is a sound one").next().expect("there it is").expect("it is intact");
        assert_eq!(first.data(), b"{\"n\":\"appended\"}");
    }
}

fn open(disk: &SimulatedDisk) -> Result<Store, crate::OpenError> {
    let settings = Settings {
        segment_bytes_first: 16 << 10,
        segment_bytes_max: 16 << 10,
        compress_above_bytes: Some(1_000),
        ..Settings::default()
    };
    open_simulated(disk, Path::new(DIR), settings, Clock::Manual(Arc::new(AtomicU64::new(NOW))))
}

fn disk_of(files: &BTreeMap<PathBuf, Vec<u8>>) -> SimulatedDisk {
    let disk = SimulatedDisk::new(0);
    files.iter().for_each(|(path, bytes)| disk.put_raw(path, bytes));
    disk
}

/// The files of the store, as the edits leave them.
fn edited(edits: &[u8]) -> BTreeMap<PathBuf, Vec<u8>> {
    static FILES: OnceLock<BTreeMap<PathBuf, Vec<u8>>> = OnceLock::new();
    let mut files = FILES.get_or_init(make).clone();
    let mut rest = edits;
    while let Some((&[file, low, middle, high, length], tail)) = rest.split_first_chunk::<EDIT_FIXED_BYTES>()
    {
        let length = usize::from(length % EDIT_BYTES_MAX + 1).min(tail.len());
        let (written, tail) = tail.split_at(length);
        rest = tail;
        let count = files.len();
        let Some((path, bytes)) = files.iter_mut().nth(usize::from(file) % count) else { break };
        let at = u32::from_le_bytes([low, middle, high, 0]) as usize % bytes.len().max(1);
        let end = (at + length).min(bytes.len());
        bytes[at..end].copy_from_slice(&written[..end - at]);
        *bytes = reseal(path, bytes);
    }
    files
}

fn reseal(path: &Path, bytes: &[u8]) -> Vec<u8> {
    match (path.file_name().and_then(|name| name.to_str()), path.extension().and_then(|name| name.to_str())) {
        (_, Some("log")) => resealed(bytes, segment::reseal),
        (_, Some("index")) => resealed(bytes, index::reseal),
        (_, Some("span")) => resealed(bytes, span::reseal),
        (Some("mark"), _) => resealed(bytes, mark::reseal),
        (Some("manifest"), _) => resealed(bytes, |bytes| {
            let store = prelude::stated_store(bytes);
            prelude::seal_header(bytes, Kind::Manifest, store);
        }),
        _ => bytes.to_vec(),
    }
}

/// Everything that can be asked of a store; the number of events that could be read.
fn use_of(store: &Store) -> usize {
    let read = count(store, Read::all());
    let _ = count(store, Read::all().backwards());
    for stream in ["order-1", "line", "none"] {
        let _ = (store.head(stream), count(store, Read::stream(stream)));
        let _ = count(store, Read::stream(stream).from(Version::new(3)).backwards().limit(5));
        let _ = store.load(&Load::stream(stream)).map(|loaded| loaded.events.take(ERRORS_MAX).count());
        let _ = store.snapshots(stream);
    }
    let item = QueryItem::new().category("order").of_type("Placed").tag("n:1");
    let _ = (count(store, Read::query(item.clone())), count(store, Read::query(item).backwards()));
    let _ = count(store, Read::all().from(Timestamp::new(NOW + 30)));
    let _ = store.streams().map(|streams| streams.take(ERRORS_MAX).count());
    let _ = (store.cursor("handler"), store.cursors(), store.stat());
    let _ = (store.subscription("billing"), store.parked("billing"));
    if let Ok(mut member) = store.join("billing") {
        let _ = member
            .next_within(Duration::ZERO)
            .map(|delivery| delivery.map(|delivery| member.ack(delivery.id)));
    }
    read
}

fn count(store: &Store, read: Read<'_>) -> usize {
    let Ok(reader) = store.read(read) else { return 0 };
    let (mut read, mut errors) = (0, 0);
    for record in reader {
        match record {
            Ok(record) => {
                read += 1;
                let _ = (record.stream(), record.event_type(), record.tags().count(), record.data());
            }
            Err(_) => errors += 1,
        }
        if errors > ERRORS_MAX {
            break;
        }
    }
    read
}

/// A store with all kinds of files.
fn make() -> BTreeMap<PathBuf, Vec<u8>> {
    let disk = SimulatedDisk::new(0);
    let store = open(&disk).expect("an empty disk takes a store");
    for number in 0..ROUNDS {
        store.append(round(number)).and_then(|ticket| ticket.wait()).expect("nothing fails");
    }
    let snapshot = NewSnapshot::new("order-1", 1, b"state");
    store.write_snapshot(&snapshot, Version::new(3)).expect("nothing fails");
    let subscription = NewSubscription::new("billing").query(QueryItem::new().category("order")).shared();
    store.create_subscription(&subscription).expect("nothing fails");
    {
        let mut member = store.join("billing").expect("there it is");
        let delivery = member.next_within(Duration::ZERO).expect("nothing fails").expect("there are events");
        member.ack(delivery.id).expect("it holds it");
    }
    // Segments are sealed in the background, and then a span over eight of them is made.
    while !visible_paths(&disk).iter().any(|path| path.extension().is_some_and(|name| name == "span")) {
        std::thread::sleep(Duration::from_millis(1));
    }
    store.close().expect("nothing fails");
    let mut files = visible_files(&disk);
    files.retain(|path, bytes| !bytes.is_empty() && !path.ends_with("lock"));
    files
}

fn round(number: u64) -> Append<'static> {
    let id = |n: u64| Uuid::from_u128(u128::from(10 * number + n));
    let order = NewEvent::new(format!("order-{}", number % 3), "Placed").json(format!("{{\"n\":{number}}}"));
    let order = order.id(id(0)).tag(format!("n:{}", number % 4)).correlation(id(1));
    let line = NewEvent::new("line", "Added").id(id(1)).causation(id(0));
    let line = line.binary(vec![7; if number.is_multiple_of(20) { 3_000 } else { 500 }]);
    let time = Timestamp::new(NOW + number);
    let append = Append::new().event(order.time(time)).event(line.time(time));
    if number % 10 == 9 { append.advance("handler", Some(crate::Position::new(number))) } else { append }
}
