//! Reading by queries: what is looked at, and indexes that are lost.

use crate::support::{small, spans_in, tiny, wait_until};
use annals::{
    Append, AppendError, DiskChoice, NewEvent, Position, Query, QueryItem, Read, Store, Ticket, Touched,
};
use std::fs;
use std::path::{Path, PathBuf};

const EVENTS: u64 = 300;

fn event(n: u64) -> NewEvent<'static> {
    NewEvent::new(format!("c{}-{}", n % 4, n % 30), format!("Type{}", n % 5))
        .tag(format!("hot:{}", n % 2))
        .tag(format!("rare:{}", n % 50))
        .binary(vec![b'x'; 400])
}

/// Whether the event of this number is selected.
type Selects = fn(u64) -> bool;

/// Queries, and which of the events they select.
fn queries() -> Vec<(Query<'static>, Selects)> {
    vec![
        (QueryItem::new().tag("rare:7").into(), |n| n % 50 == 7),
        (QueryItem::new().tag("hot:1").tag("rare:7").into(), |n| n % 50 == 7),
        (QueryItem::new().tag("hot:0").tag("rare:7").into(), |_| false),
        (QueryItem::new().of_type("Type1").of_type("Type4").into(), |n| n % 5 == 1 || n % 5 == 4),
        (QueryItem::new().category("c3").tag("hot:1").into(), |n| n % 4 == 3),
        (QueryItem::new().stream("c1-5").into(), |n| n % 4 == 1 && n % 30 == 5),
        (
            Query::from(QueryItem::new().tag("rare:8")).or(QueryItem::new().of_type("Type0").tag("hot:1")),
            |n| n % 50 == 8 || (n % 5 == 0 && n % 2 == 1),
        ),
        (QueryItem::new().tag("never").into(), |_| false),
    ]
}

fn filled(dir: &Path) -> Store {
    let store = Store::open_with(dir, small(DiskChoice::Auto)).unwrap();
    let tickets: Vec<Ticket> = (0..EVENTS).map(|n| store.append(event(n)).unwrap()).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    store
}

fn check(store: &Store, what: &str) {
    for (query, selects) in queries() {
        for backwards in [false, true] {
            let read = Read { backwards, ..Read::query(query.clone()) };
            let found: Vec<u64> =
                store.read(read).unwrap().map(|record| record.unwrap().position().get()).collect();
            let mut expected: Vec<u64> = (0..EVENTS).filter(|&n| selects(n)).collect();
            if backwards {
                expected.reverse();
            }
            assert_eq!(found, expected, "{query:?} with {what}");
        }
    }
}

#[test]
fn only_what_matches_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    for (query, selects) in queries() {
        let mut reader = store.read(Read::query(query.clone())).unwrap();
        let found = (&mut reader).map(Result::unwrap).count() as u64;
        assert_eq!(found, (0..EVENTS).filter(|&n| selects(n)).count() as u64);
        let Touched { events, bytes, .. } = reader.touched();
        assert_eq!(events, found, "{query:?}");
        assert!(bytes <= found * 700, "{bytes} bytes for {found} events of {query:?}");
    }
    let mut all = store.read(Read::all().limit(10)).unwrap();
    assert_eq!((&mut all).count(), 10);
    assert_eq!(all.touched().events, 10);
}

#[test]
fn an_index_that_is_lost_or_damaged_is_made_anew_and_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).close().unwrap();
    let is_index = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "index");
    let mut indexes: Vec<PathBuf> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).filter(is_index).collect();
    indexes.sort();
    assert!(indexes.len() > 3, "{indexes:?}");
    let look = |what: &str| {
        let store = Store::open_with(dir.path(), small(DiskChoice::Auto)).unwrap();
        check(&store, what);
        for (query, selects) in queries() {
            let first = (0..EVENTS).find(|&n| selects(n));
            let conditional = Append::from(NewEvent::new("x", "X")).fail_if_matches(query, None);
            // Not written: it could not hold twice.
            let conditional = conditional.fail_if_matches(QueryItem::new().of_type("Type0"), None);
            match store.append(conditional).unwrap().wait() {
                Err(AppendError::QueryMatched { position, .. }) => {
                    assert_eq!(position, Position::new(first.unwrap_or(0)), "{what}");
                }
                outcome => panic!("{outcome:?} with {what}"),
            }
        }
        store.close().unwrap();
    };
    for path in &indexes {
        let sound = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        look(&format!("{} deleted", path.display()));
        assert_eq!(fs::read(path).unwrap(), sound, "it was made anew");
        for length in [0, 100, sound.len() / 2, sound.len() - 1] {
            fs::write(path, &sound[..length]).unwrap();
            look(&format!("{} cut to {length}", path.display()));
        }
        for block in 0..sound.len() / 4096 {
            for at in [block * 4096 + 9, block * 4096 + 1001] {
                let mut damaged = sound.clone();
                damaged[at] ^= 1 << (block % 8);
                fs::write(path, &damaged).unwrap();
                look(&format!("{} with byte {at} changed", path.display()));
            }
        }
        fs::write(path, &sound).unwrap();
    }
}

#[test]
fn a_span_that_is_lost_or_damaged_is_made_anew_and_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open_with(dir.path(), tiny(DiskChoice::Auto)).unwrap();
    let store = open();
    // A segment for every ten of them, about: two levels of spans.
    let large = |n: u64| NewEvent { data: vec![b'x'; 2_500].into(), ..event(n) };
    let tickets: Vec<Ticket> = (0..EVENTS).map(|n| store.append(large(n)).unwrap()).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    let expected = usize::try_from(store.stat().unwrap().segments - 1).unwrap();
    assert!(expected > 64, "{expected} sealed segments");
    let expected = expected / 8 + expected / 64;
    wait_until("all spans", || spans_in(dir.path()).len() >= expected);
    let spans = spans_in(dir.path());
    // An absent tag is looked for in few places, then.
    wait_until("spans are used", || {
        let mut reader = store.read(Read::query(Query::from(QueryItem::new().tag("never")))).unwrap();
        assert!(reader.next().is_none());
        reader.touched().leaps < 25
    });
    let look = |store: &Store, what: &str| {
        check(store, what);
        for n in 0..60 {
            let name = format!("c{}-{}", n % 4, n % 30);
            let last = (0..EVENTS).rfind(|m| m % 60 == n).map(Position::new);
            assert_eq!(store.head(&name).unwrap().map(|head| head.position), last, "{what}");
            let of_stream = store.read(Read::stream(name)).unwrap();
            assert_eq!(of_stream.map(Result::unwrap).count(), 5, "{what}");
        }
        assert_eq!(store.head("c0-1").unwrap(), None, "{what}");
        assert!(store.verify(&mut |_, _| {}).is_ok());
    };
    look(&store, "all spans");
    store.close().unwrap();
    for (number, path) in spans.iter().enumerate() {
        let sound = fs::read(path).unwrap();
        let name = path.display();
        let read_alone = |what: &str| look(&Store::open_read_only(dir.path()).unwrap(), what);
        fs::remove_file(path).unwrap();
        read_alone(&format!("{name} deleted"));
        let store = open();
        wait_until("it is made anew", || fs::read(path).is_ok_and(|made| made == sound));
        store.close().unwrap();
        for length in [0, 100, 4096, sound.len() - 1] {
            fs::write(path, &sound[..length]).unwrap();
            read_alone(&format!("{name} cut to {length}"));
        }
        for block in (64..sound.len() / 64).step_by(1 + number % 3) {
            let mut damaged = sound.clone();
            damaged[block * 64..block * 64 + 60].fill(0);
            fs::write(path, &damaged).unwrap();
            read_alone(&format!("{name} with block {block} cleared"));
        }
        // One that is there and damaged is noticed on its use, and made anew by then.
        let mut damaged = sound.clone();
        damaged[4096..].fill(0);
        fs::write(path, &damaged).unwrap();
        let store = open();
        wait_until("it is made anew", || {
            look(&store, &format!("{name} damaged"));
            fs::read(path).is_ok_and(|made| made == sound)
        });
        assert!(store.verify(&mut |_, _| {}).unwrap().is_ok());
        store.close().unwrap();
    }
}
