//! Members of durable subscriptions in a process that is killed again and again.

use crate::support::{open, wait};
use annals::{Nack, NewEvent, NewSubscription, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Environment variable: where the process that is killed has its store. It makes the test below that process.
const DIR: &str = "ANNALS_MEMBERS_DIR";
/// Environment variable: it appends nothing, and ends when all has been handled.
const DRAIN: &str = "ANNALS_MEMBERS_DRAIN";
const ROUNDS: u64 = 12;
const NAMES: [&str; 2] = ["exclusive", "shared"];
/// What was acknowledged longer than this before a kill does not come again: 100 ms, and what a busy machine adds.
const COALESCED: u64 = 600;

/// What a handler notes: position, milliseconds, and what it is about to do, or has done.
type Handled = (u64, u64, u8);
const BEGUN: u8 = 0;
const DONE: u8 = 1;
const PARKED: u8 = 2;
const HANDLED_BYTES: usize = 17;

#[expect(clippy::disallowed_methods, reason = "two processes compare what time it is")]
fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn notes_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("handled-{name}"))
}

fn read_notes(dir: &Path, name: &str) -> Vec<Handled> {
    let bytes = std::fs::read(notes_of(dir, name)).unwrap_or_default();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let notes = bytes.chunks_exact(HANDLED_BYTES);
    notes.map(|note| (number(&note[..8]), number(&note[8..16]), note[16])).collect()
}

/// When the process was killed, each time.
fn kills(dir: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(dir.join("kills")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// What must not come again: acknowledged, or parked, so long before the kill that came next that it was noted.
fn settled(dir: &Path, name: &str) -> BTreeSet<u64> {
    let kills = kills(dir);
    let is_settled = |&(_, at, what): &Handled| {
        let next_kill = kills.iter().copied().find(|&kill| kill >= at);
        what == PARKED || what == DONE && next_kill.is_none_or(|kill| at + COALESCED < kill)
    };
    read_notes(dir, name).into_iter().filter(is_settled).map(|(position, ..)| position).collect()
}

/// Handles what one member is handed, until nothing more comes or it is killed.
fn handle(store: &Store, name: &str, settled: &BTreeSet<u64>, notes: &Mutex<File>, drain: bool) {
    let mut handled = 0;
    loop {
        let mut member = store.join(name).unwrap();
        loop {
            let patience = if drain { Duration::from_millis(300) } else { Duration::from_secs(60) };
            let delivery = match member.next_within(patience) {
                Ok(Some(delivery)) => delivery,
                Ok(None) => return,
                Err(error) => panic!("{name}: {error}"),
            };
            let position = delivery.position().get();
            assert!(!settled.contains(&position), "{name}: {position} comes again");
            let is_wrong = position % 50 == 7;
            let note = |kind: u8| {
                let note = [&position.to_le_bytes()[..], &milliseconds().to_le_bytes(), &[kind]].concat();
                notes.lock().unwrap().write_all(&note).unwrap();
            };
            note(BEGUN);
            if is_wrong {
                member.nack(delivery.id, &Nack::park("it is wrong")).unwrap();
            } else {
                member.ack(delivery.id).unwrap();
            }
            note(if is_wrong { PARKED } else { DONE });
            handled += 1;
            // Sometimes it goes, holding what it was just handed: another one takes over.
            if handled % 40 == 0 {
                let _held = member.next_within(Duration::ZERO);
                break;
            }
        }
    }
}

/// The process that is killed.
fn live(dir: &Path, drain: bool) {
    let store = open(&dir.join("store"));
    let shared = NewSubscription::new(NAMES[1]).shared().in_flight_max(4);
    for new in [NewSubscription::new(NAMES[0]), shared] {
        store.create_subscription(&new).unwrap();
    }
    std::thread::scope(|scope| {
        for writer in (0..2).filter(|_| !drain) {
            let store = &store;
            scope.spawn(move || {
                for number in 0.. {
                    let event = NewEvent::new(format!("s-{writer}-{}", number % 9), "Happened");
                    wait(store.append(event)).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        for name in NAMES {
            let settled = settled(dir, name);
            let file = OpenOptions::new().create(true).append(true).open(notes_of(dir, name)).unwrap();
            let notes = Mutex::new(file);
            let store = &store;
            scope.spawn(move || {
                std::thread::scope(|scope| {
                    for _ in 0..3 {
                        scope.spawn(|| handle(store, name, &settled, &notes, drain));
                    }
                });
            });
        }
    });
    store.close().unwrap();
}

fn process(dir: &Path, drain: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "members::what_is_acknowledged_stays_so_and_the_rest_comes_again_through_kills"]);
    command.arg("--nocapture").env(DIR, dir).stdout(Stdio::null());
    if drain {
        command.env(DRAIN, "1");
    }
    command
}

#[test]
fn what_is_acknowledged_stays_so_and_the_rest_comes_again_through_kills() {
    if let Some(dir) = std::env::var_os(DIR) {
        return live(Path::new(&dir), std::env::var_os(DRAIN).is_some());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut kills = File::create(dir.path().join("kills")).unwrap();
    for round in 0..ROUNDS {
        let mut killed = process(dir.path(), false).spawn().unwrap();
        // Sometimes while it opens, mostly while it runs.
        std::thread::sleep(Duration::from_millis(20 + (round * 733) % 1_500));
        let ended = killed.try_wait().unwrap();
        killed.kill().unwrap();
        killed.wait().unwrap();
        writeln!(kills, "{}", milliseconds()).unwrap();
        assert!(ended.is_none(), "round {round}: it failed by itself: {ended:?}");
    }
    assert!(process(dir.path(), true).status().unwrap().success());
    let store = Store::open_read_only(dir.path().join("store")).unwrap();
    let events = store.next_position().get();
    for name in NAMES {
        let notes = read_notes(dir.path(), name);
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        let begun = notes.iter().filter(|&&(.., what)| what == BEGUN);
        begun.for_each(|&(position, ..)| *times.entry(position).or_default() += 1);
        let parked: BTreeSet<u64> =
            store.parked(name).unwrap().iter().map(|parked| parked.position.get()).collect();
        let lost: Vec<u64> = (0..events).filter(|position| !times.contains_key(position)).collect();
        assert!(lost.is_empty(), "{name}: {lost:?} were never handled, of {events}");
        let of_parking = notes.iter().filter(|&&(.., what)| what == PARKED).map(|&(position, ..)| position);
        assert!(of_parking.clone().all(|position| parked.contains(&position)), "{name}: {parked:?}");
        let again = times.values().filter(|&&times| times > 1).count();
        println!("{name}: {events} events, {again} handed out again after a kill, {} parked", parked.len());
        assert!(parked.len() > 5 && events > 500, "{parked:?} of {events}");
        let status = store.subscription(name).unwrap();
        assert_eq!((status.open, status.lag), (0, 0), "{name}");
    }
}
