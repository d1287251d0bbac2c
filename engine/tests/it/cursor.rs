//! Cursors: set with events and alone, under conditions, by repeats, through closing, kills and sealing.

use crate::support::{tiny, within};
use annals::{
    Append, AppendError, Cursor, DiskChoice, ExpectedVersion, InputError, NewEvent, Position, Read,
    ReadError, Store, Uuid, limits,
};
use std::path::Path;

fn open(dir: &Path) -> Store {
    Store::open_with(dir, tiny(DiskChoice::Auto)).unwrap()
}

fn at(position: u64) -> Option<Position> {
    Some(Position::new(position))
}

fn cursor(position: Option<Position>, revision: u64) -> Option<Cursor> {
    Some(Cursor { position, revision })
}

fn event(n: u128) -> NewEvent<'static> {
    NewEvent::new("s", "T").id(Uuid::from_u128(n)).binary(vec![7; 3_000])
}

/// The outcome of an append.
fn outcome(store: &Store, append: Append<'_>) -> Result<annals::Appended, AppendError> {
    store.append(append)?.wait()
}

#[test]
fn a_cursor_is_set_with_events_or_alone_and_is_there_whatever_became_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(store.cursor("c").unwrap(), None);
    outcome(&store, event(0).into()).unwrap();
    let appended = outcome(&store, Append::from(event(1)).advance("c", at(0))).unwrap();
    assert_eq!(appended.positions, Position::new(1)..Position::new(2));
    assert_eq!(store.cursor("c").unwrap(), cursor(at(0), 1));
    let alone = outcome(&store, Append::new().advance("c", at(1)).advance("ü", None)).unwrap();
    assert_eq!((alone.positions, alone.last_version.get()), (Position::new(2)..Position::new(2), 0));
    let expected = [("c".to_owned(), cursor(at(1), 2).unwrap()), ("ü".to_owned(), cursor(None, 1).unwrap())];
    let check = |store: &Store, events: u64| {
        assert_eq!(store.cursors().unwrap(), expected);
        assert_eq!(store.cursor("c").unwrap(), cursor(at(1), 2));
        let read: Vec<u64> =
            store.read(Read::all()).unwrap().map(|record| record.unwrap().position().get()).collect();
        assert_eq!(read, (0..events).collect::<Vec<_>>());
        let back = store.read(Read::stream("s").backwards()).unwrap();
        assert_eq!(back.map(Result::unwrap).count() as u64, events);
        assert!(store.verify(&mut |_, _| {}).unwrap().is_ok());
    };
    check(&store, 2);
    check(&Store::open_read_only(dir.path()).unwrap(), 2);
    store.close().unwrap();
    check(&Store::open_read_only(dir.path()).unwrap(), 2);
    let store = open(dir.path());
    check(&store, 2);
    // Many segments later, the manifest has them.
    for n in 2..40 {
        outcome(&store, event(n).into()).unwrap();
    }
    check(&store, 40);
    store.close().unwrap();
    let store = open(dir.path());
    check(&store, 40);
    assert_eq!(store.cursor("d").unwrap(), None);
}

#[test]
fn conditions_on_cursors_are_judged_with_all_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let to = |from: Option<u64>, to: u64| {
        let from = from.map(Position::new);
        Append::from(event(to.into())).expect_cursor("c", from).advance("c", at(to))
    };
    assert!(matches!(
        outcome(&store, to(Some(0), 0)),
        Err(AppendError::WrongCursor { cursor, expected, actual: None }) if cursor == "c" && expected == at(0)
    ));
    outcome(&store, event(100).into()).unwrap();
    outcome(&store, to(None, 0)).unwrap();
    match outcome(&store, to(None, 1)) {
        Err(AppendError::WrongCursor { expected: None, actual, .. }) => assert_eq!(actual, cursor(at(0), 1)),
        other => panic!("{other:?}"),
    }
    // All in flight are judged against those before.
    let tickets: Vec<_> = (1..50).map(|n| store.append(to(Some(n - 1), n)).unwrap()).collect();
    let refused = Append::from(event(777)).expect_cursor("c", at(0)).advance("c", at(1));
    let refused = store.append(refused).unwrap();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert!(matches!(refused.wait(), Err(AppendError::WrongCursor { .. })));
    assert_eq!(store.cursor("c").unwrap(), cursor(at(49), 50));
    // What fails for another reason leaves the cursor as it is; what fails for the cursor writes nothing.
    let before = store.next_position();
    let wrong = Append::from(event(900)).expect("s", ExpectedVersion::NoStream).advance("c", at(0));
    assert!(matches!(outcome(&store, wrong), Err(AppendError::WrongVersion { .. })));
    let next = store.next_position();
    let beyond = Append::new().advance("c", Some(next));
    assert!(matches!(
        outcome(&store, beyond),
        Err(AppendError::CursorAfterTheEnd { position, next: end, .. }) if (position, end) == (next, next)
    ));
    // A cursor that a batch does not set may be expected, too.
    outcome(&store, Append::from(event(901)).expect_cursor("c", at(49))).unwrap();
    assert_eq!((store.next_position(), store.cursor("c").unwrap()), (before.plus(1), cursor(at(49), 50)));
}

#[test]
fn a_repeat_sets_the_cursor_that_its_first_time_did_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = outcome(&store, event(1).into()).unwrap();
    let repeat = || Append::from(event(1)).expect_cursor("c", None).advance("c", at(0));
    let again = outcome(&store, repeat()).unwrap();
    assert_eq!((again.positions.clone(), again.repeated), (first.positions, true));
    assert_eq!(store.cursor("c").unwrap(), cursor(at(0), 1));
    // The earlier batch carries no cursor, so its condition counts; and it fails now.
    assert!(matches!(outcome(&store, repeat()), Err(AppendError::WrongCursor { .. })));
    let unconditional = || Append::from(event(1)).advance("c", at(0));
    assert!(outcome(&store, unconditional()).unwrap().repeated);
    assert_eq!(store.cursor("c").unwrap(), cursor(at(0), 2));
    // One that carries it is a repeat, whatever its condition would say now.
    let whole = || Append::from(event(2)).expect_cursor("d", None).advance("d", at(0));
    let first = outcome(&store, whole()).unwrap();
    for _ in 0..2 {
        let again = outcome(&store, whole()).unwrap();
        assert_eq!((again.positions, again.repeated), (first.positions.clone(), true));
        assert_eq!(store.cursor("d").unwrap(), cursor(at(0), 1));
    }
    // Cursors that were set then stay where they have come to since.
    outcome(&store, Append::new().advance("d", at(1))).unwrap();
    assert!(outcome(&store, whole().expect_cursor("g", None).advance("g", at(1))).unwrap().repeated);
    assert_eq!(
        (store.cursor("d").unwrap(), store.cursor("g").unwrap()),
        (cursor(at(1), 2), cursor(at(1), 1))
    );
    // Ids within a stream at a fixed version are looked up for ever, cursors as well.
    let fixed = || Append::from(event(3)).expect("t", ExpectedVersion::NoStream);
    let fixed = |cursor| {
        Append { events: vec![NewEvent { stream: "t".into(), ..event(3) }], ..fixed() }.advance(cursor, at(1))
    };
    assert!(!outcome(&store, fixed("e")).unwrap().repeated);
    assert!(outcome(&store, fixed("f")).unwrap().repeated);
    assert_eq!(
        (store.cursor("e").unwrap(), store.cursor("f").unwrap()),
        (cursor(at(1), 1), cursor(at(1), 1))
    );
    assert_eq!(store.next_position(), Position::new(3));
}

#[test]
fn malformed_cursors_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = |append: Append<'_>| match store.append(append) {
        Err(AppendError::Input(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(Append::new()), InputError::NoEvents);
    assert!(matches!(refused(Append::new().advance("", None)), InputError::Empty { what: "cursor name" }));
    assert!(matches!(
        refused(Append::new().advance("c".repeat(257), None)),
        InputError::TooLong { what: "cursor name", .. }
    ));
    assert!(matches!(
        refused(Append::from(event(1)).expect_cursor("a\nb", None)),
        InputError::ControlCharacter { .. }
    ));
    let twice = Append::new().advance("c", None).advance("d", None).advance("c", None);
    assert_eq!(refused(twice), InputError::CursorTwice { cursor: "c".to_owned() });
    let many = (0..17).fold(Append::new(), |append, n| append.advance(format!("c{n}"), None));
    assert!(matches!(refused(many), InputError::TooMany { count: 17, count_max: 16, .. }));
}

#[test]
fn a_store_has_a_bounded_number_of_cursors() {
    within(120, "ten thousand cursors", || {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let names: Vec<String> = (0..limits::CURSORS_MAX).map(|n| format!("cursor-{n}")).collect();
        let tickets: Vec<_> = names
            .chunks(limits::ADVANCES_MAX)
            .map(|names| names.iter().fold(Append::new(), |append, name| append.advance(name.as_str(), None)))
            .map(|append| store.append(append).unwrap())
            .collect();
        for ticket in tickets {
            ticket.wait().unwrap();
        }
        let beyond = Append::from(event(1)).advance("cursor-0", None).advance("one too many", None);
        match outcome(&store, beyond) {
            Err(AppendError::TooManyCursors { cursor }) => assert_eq!(cursor, "one too many"),
            other => panic!("{other:?}"),
        }
        outcome(&store, Append::new().advance("cursor-7", None)).unwrap();
        assert_eq!(store.cursors().unwrap().len(), limits::CURSORS_MAX);
        store.close().unwrap();
        let store = open(dir.path());
        assert_eq!(store.cursor("cursor-7").unwrap().map(|cursor| cursor.revision), Some(2));
        assert!(store.verify(&mut |_, _| {}).unwrap().is_ok());
    });
}

#[test]
fn a_reader_says_where_damage_hides_a_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // One event fills a segment.
    let large = |n| NewEvent { data: vec![7; 6_000].into(), ..event(n) };
    outcome(&store, Append::from(large(1)).advance("c", None)).unwrap();
    let reader = Store::open_read_only(dir.path()).unwrap();
    assert_eq!(reader.cursor("c").unwrap(), cursor(None, 1));
    outcome(&store, Append::new().advance("c", at(0))).unwrap();
    // Of the segment's two frames, the one that has no event.
    let path = dir.path().join("0000000001.log");
    let mut log = std::fs::read(&path).unwrap();
    let frames: Vec<usize> = (0..log.len()).filter(|&at| log[at..].starts_with(b"anfr")).collect();
    let [.., last] = frames[..] else { panic!("{frames:?}") };
    log[last + 100] ^= 1;
    std::fs::write(&path, &log).unwrap();
    assert!(matches!(reader.cursor("c"), Err(ReadError::Damage(_))));
    assert!(matches!(reader.cursors(), Err(ReadError::Damage(_))));
    // Nor once the writer has gone on to other segments.
    for n in 2..12 {
        outcome(&store, large(n).into()).unwrap();
    }
    let found = reader.cursor("c");
    assert!(matches!(found, Err(ReadError::Damage(_))), "{found:?}");
    assert_eq!(store.cursor("c").unwrap(), cursor(at(0), 2));
}
