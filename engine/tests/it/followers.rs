//! Many who follow while many append, in a process that is killed again and again.

use crate::support::{open, wait};
use annals::{Append, Follow, Followed, NewEvent, Position, Query, QueryItem, Read, Record, Store};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const WRITERS: u64 = 8;
const FOLLOWERS: usize = 32;
/// Environment variable: where the process that is killed has its store. It makes the test below that process.
const DIR: &str = "ANNALS_FOLLOWED_DIR";
/// Environment variable: it appends nothing, and ends when all has been followed.
const DRAIN: &str = "ANNALS_FOLLOWED_DRAIN";

/// What a follower notes of each event: its position and half of its id.
type Seen = (u64, u64);
const SEEN_BYTES: usize = 16;

/// What the follower with this number follows: streams, categories, types, tags, several of them, everything.
fn query(number: usize) -> Query<'static> {
    let tag = |n: usize| format!("tag:{n}");
    match number {
        0 => Query::all(),
        1..8 => QueryItem::new().stream(format!("even-{}", 2 * (number % 4))).into(),
        8..10 => QueryItem::new().category(if number == 8 { "even" } else { "odd" }).into(),
        10..16 => QueryItem::new().of_type(format!("Type{}", number % 5)).into(),
        16..24 => QueryItem::new().tag(tag(number % 10)).tag("every").into(),
        24..28 => Query::from(QueryItem::new().tag(tag(number % 10)))
            .or(QueryItem::new().of_type("Type1").category("odd")),
        _ => QueryItem::new().tag(format!("never:{number}")).into(),
    }
}

fn event(writer: u64, number: u64) -> NewEvent<'static> {
    let parity = if writer.is_multiple_of(2) { "even" } else { "odd" };
    NewEvent::new(format!("{parity}-{writer}"), format!("Type{}", number % 5))
        .tag(format!("tag:{}", (writer + number) % 10))
        .tag("every")
        .binary(vec![7; 20 + usize::try_from(number % 50).unwrap() * 10])
}

fn seen(record: &Record) -> Seen {
    (record.position().get(), record.id().as_u64_pair().1)
}

fn notes_of(dir: &Path, follower: usize) -> PathBuf {
    dir.join(format!("seen-{follower}"))
}

fn read_notes(dir: &Path, follower: usize) -> Vec<Seen> {
    let bytes = std::fs::read(notes_of(dir, follower)).unwrap_or_default();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    bytes.chunks_exact(SEEN_BYTES).map(|seen| (number(&seen[..8]), number(&seen[8..]))).collect()
}

/// Follows from behind what was seen last, noting what comes; until the store is closed or, to `drain` it, caught up.
fn follow(store: &Store, dir: &Path, follower: usize, drain: bool) {
    let last = read_notes(dir, follower).last().map(|&(position, _)| Position::new(position));
    let follow = Follow::query(query(follower));
    let follow = match last {
        Some(last) => follow.after(last),
        None => follow,
    };
    let mut notes: File = OpenOptions::new().create(true).append(true).open(notes_of(dir, follower)).unwrap();
    for followed in store.follow(&follow).unwrap() {
        match followed.unwrap() {
            Followed::Event(record) => {
                let (position, id) = seen(&record);
                notes.write_all(&[position.to_le_bytes(), id.to_le_bytes()].concat()).unwrap();
            }
            Followed::CaughtUp { .. } if drain => return,
            Followed::CaughtUp { .. } | Followed::Progress { .. } => {}
        }
    }
}

/// What was noted is what the store has for this follower, from the first on; how many.
fn check(store: &Store, dir: &Path, follower: usize) -> usize {
    let noted = read_notes(dir, follower);
    let there = store.read(Read::query(query(follower))).unwrap();
    let there: Vec<Seen> = there.map(|record| seen(&record.unwrap())).collect();
    assert!(
        there.starts_with(&noted),
        "follower {follower} saw {:?} at the end, but there are {} events: {:?}",
        noted.last(),
        there.len(),
        there.last()
    );
    noted.len()
}

/// The process that is killed: it checks what was seen before, then appends and follows.
fn live(dir: &Path, drain: bool) {
    let store = open(&dir.join("store"));
    for follower in 0..FOLLOWERS {
        check(&store, dir, follower);
    }
    std::thread::scope(|scope| {
        for follower in 0..FOLLOWERS {
            let store = &store;
            scope.spawn(move || follow(store, dir, follower, drain));
        }
        for writer in (0..WRITERS).filter(|_| !drain) {
            let store = &store;
            scope.spawn(move || {
                for number in 0.. {
                    let batch: Append<'_> =
                        (0..1 + number % 4).map(|place| event(writer, number + place)).collect();
                    wait(store.append(batch)).unwrap();
                }
            });
        }
    });
}

fn process(dir: &Path, drain: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "followers::who_follows_misses_nothing_and_sees_nothing_twice_through_kills"]);
    command.arg("--nocapture").env(DIR, dir).stdout(Stdio::null());
    if drain {
        command.env(DRAIN, "1");
    }
    command
}

#[test]
fn who_follows_misses_nothing_and_sees_nothing_twice_through_kills() {
    if let Some(dir) = std::env::var_os(DIR) {
        return live(Path::new(&dir), std::env::var_os(DRAIN).is_some());
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 0..30_u64 {
        let mut killed = process(dir.path(), false).spawn().unwrap();
        // Sometimes while it opens, mostly while it runs.
        std::thread::sleep(Duration::from_millis(10 + (round * 97) % 390));
        let ended = killed.try_wait().unwrap();
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert!(ended.is_none(), "round {round}: it failed by itself: {ended:?}");
    }
    assert!(process(dir.path(), true).status().unwrap().success());
    let store = Store::open_read_only(dir.path().join("store")).unwrap();
    let counts: Vec<usize> = (0..FOLLOWERS)
        .map(|follower| {
            let noted = check(&store, dir.path(), follower);
            let there = store.read(Read::query(query(follower))).unwrap().count();
            assert_eq!(noted, there, "follower {follower} has not seen all");
            noted
        })
        .collect();
    println!("events followed: {counts:?}");
    assert_eq!(counts[0] as u64, store.next_position().get());
    assert!(counts[0] > 1_000 && counts[..28].iter().all(|&count| count > 0), "{counts:?}");
}
