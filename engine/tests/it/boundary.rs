//! Conditions on queries: the table of docs/dcb.md line by line, races, and keys whose hashes are alike.

use crate::support::{append, open};
use annals::testing::{limit_leaps, shrink_hashes};
use annals::{
    Append, AppendError, Appended, ExpectedVersion, NewEvent, Position, Query, QueryItem, Read, Record,
    Settings, Store, Uuid,
};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DOCUMENT: &str = include_str!("../../../docs/dcb.md");

/// `A{x y} B{}`
fn events(text: &str) -> Vec<NewEvent<'static>> {
    let event = |part: &str| {
        let (event_type, tags) = part.trim().split_once('{').unwrap();
        tags.split_whitespace()
            .fold(NewEvent::new("s", event_type.to_owned()), |event, tag| event.tag(tag.to_owned()))
    };
    text.split_terminator('}').map(event).collect()
}

fn append_all(store: &Store, text: &str) {
    for event in events(text) {
        append(store, event.into()).unwrap();
    }
}

/// `A B + x y or + z`
fn query(text: &str) -> Query<'static> {
    if text == "no items" {
        return Query::all();
    }
    let item = |part: &str| {
        let (types, tags) = part.split_once('+').unwrap();
        let item =
            types.split_whitespace().fold(QueryItem::new(), |item, name| item.of_type(name.to_owned()));
        tags.split_whitespace().fold(item, |item, tag| item.tag(tag.to_owned()))
    };
    text.split(" or ").fold(Query::all(), |query, part| query.or(item(part)))
}

#[test]
fn every_line_of_the_document_is_so() {
    let table = DOCUMENT.split("| stored | appended |").nth(1).unwrap();
    let mut lines = 0;
    for line in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, stored, appended, excluded, after, outcome, _, _] = cells[..] else { panic!("{line}") };
        let after = (!after.is_empty()).then(|| Position::new(after.parse().unwrap()));
        let conditional = |skipped: u64| {
            let append: Append<'_> = events(appended).into_iter().collect();
            append.fail_if_matches(query(excluded), after.map(|after| after.plus(skipped)))
        };
        let check = |answer: Result<Appended, AppendError>, what: &str| {
            let found = match answer {
                Ok(_) => "appended".to_owned(),
                Err(AppendError::QueryMatched { position, .. }) => format!("refused at {position}"),
                Err(AppendError::AfterTheEnd { .. }) => "error".to_owned(),
                Err(error) => panic!("{error}"),
            };
            assert_eq!(found, outcome, "{what}: {line}");
        };
        // On their way still.
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let tickets: Vec<_> = events(stored).into_iter().map(|event| store.append(event).unwrap()).collect();
        check(append(&store, conditional(0)), "in flight");
        for ticket in tickets {
            ticket.wait().unwrap();
        }
        // Opened again, and judged first by what the disk has.
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        append_all(&store, stored);
        store.close().unwrap();
        check(append(&open(dir.path()), conditional(0)), "opened again");
        // In sealed segments, with others behind that match nothing but what matches everything.
        if !excluded.contains("no items") && !query(excluded).is_all() && outcome != "error" {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path());
            append_all(&store, stored);
            while store.stat().unwrap().segments < 5 {
                append(&store, NewEvent::new("filler", "Filler").binary(vec![0; 5000]).into()).unwrap();
            }
            store.close().unwrap();
            check(append(&open(dir.path()), conditional(0)), "sealed");
        }
        lines += 1;
    }
    assert!(lines > 25, "the document has {lines} lines");
}

#[test]
fn streams_categories_and_ids_make_boundaries_too_and_all_conditions_count() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = Uuid::from_u128(5);
    append(&store, NewEvent::new("order-1", "Placed").correlation(id).causation(Uuid::from_u128(6)).into())
        .unwrap();
    append(&store, NewEvent::new("orders", "Counted").into()).unwrap();
    let refused = |item: QueryItem<'static>, after: Option<u64>| {
        let conditional =
            Append::from(NewEvent::new("x", "X")).fail_if_matches(item, after.map(Position::new));
        match append(&store, conditional) {
            Err(AppendError::QueryMatched { position, .. }) => Some(position.get()),
            outcome => {
                outcome.unwrap();
                None
            }
        }
    };
    assert_eq!(refused(QueryItem::new().stream("order-1"), None), Some(0));
    assert_eq!(refused(QueryItem::new().stream("order"), None), None);
    assert_eq!(refused(QueryItem::new().category("order"), None), Some(0));
    assert_eq!(refused(QueryItem::new().category("orders"), None), Some(1));
    assert_eq!(refused(QueryItem::new().category("order"), Some(0)), None);
    assert_eq!(refused(QueryItem::new().correlation(id), None), Some(0));
    assert_eq!(refused(QueryItem::new().causation(id), None), None);
    assert_eq!(refused(QueryItem::new().causation(Uuid::from_u128(6)).of_type("Placed"), None), Some(0));
    let both = |expected, after: u64| {
        Append::from(NewEvent::new("order-1", "Paid"))
            .expect("order-1", expected)
            .fail_if_matches(QueryItem::new().category("order"), Some(Position::new(after)))
            .fail_if_matches(QueryItem::new().of_type("Refunded"), None)
    };
    let wrong = append(&store, both(ExpectedVersion::NoStream, 0));
    assert!(matches!(wrong, Err(AppendError::WrongVersion { .. })), "{wrong:?}");
    append(&store, both(ExpectedVersion::Exists, 0)).unwrap();
    let wrong = append(&store, both(ExpectedVersion::Exists, 0));
    assert!(matches!(wrong, Err(AppendError::QueryMatched { .. })), "{wrong:?}");
}

#[test]
fn queries_over_their_limits_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let items =
        |count: usize| (0..count).fold(Query::all(), |query, _| query.or(QueryItem::new().of_type("A")));
    let types = |count: usize| (0..count).fold(QueryItem::new(), |item, n| item.of_type(format!("t{n}")));
    let tags = |count: usize| (0..count).fold(QueryItem::new(), |item, n| item.tag(format!("t{n}")));
    let try_both = |query: Query<'static>| {
        let conditional = Append::from(NewEvent::new("x", "X")).fail_if_matches(query.clone(), None);
        let appended = append(&store, conditional);
        let read = store.read(Read::query(query));
        assert_eq!(appended.is_ok(), read.is_ok());
        appended.map(drop).map_err(|error| error.to_string())
    };
    for fits in [items(128), types(64).into(), tags(64).into()] {
        assert_eq!(try_both(fits), Ok(()));
    }
    for (over, what) in [
        (items(129), "129 items of a query; at most 128 are allowed"),
        (types(65).into(), "65 types of a query's item; at most 64 are allowed"),
        (tags(65).into(), "65 tags of a query's item; at most 64 are allowed"),
        (QueryItem::new().tag("").into(), "the tag is empty; it needs at least one character"),
        (QueryItem::new().of_type("").into(), "the event type is empty; it needs at least one character"),
        (QueryItem::new().stream("").into(), "the stream name is empty; it needs at least one character"),
        (QueryItem::new().category("").into(), "the category is empty; it needs at least one character"),
    ] {
        assert_eq!(try_both(over).unwrap_err(), what);
    }
    let many = (0..129).fold(Append::from(NewEvent::new("x", "X")), |append, _| {
        append.fail_if_matches(QueryItem::new().of_type("A"), None)
    });
    let refused = append(&store, many).unwrap_err().to_string();
    assert_eq!(refused, "129 conditions on queries; at most 128 are allowed");
}

#[test]
fn keys_whose_hashes_are_alike_are_told_apart() {
    // Of all keys and names, only some sixteen hashes.
    shrink_hashes(4);
    let dir = tempfile::tempdir().unwrap();
    let settings =
        Settings { segment_bytes_first: 16 << 10, segment_bytes_max: 32 << 10, ..Settings::default() };
    let store = Store::open_with(dir.path(), settings.clone()).unwrap();
    let event = |n: u64| {
        NewEvent::new(format!("c{}-{}", n % 7, n % 90), format!("type{}", n % 11))
            .tag(format!("tag:{}", n % 60))
            .tag(format!("other:{}", n % 13))
            .binary(vec![0; 300])
    };
    for n in 0..400 {
        append(&store, event(n).into()).unwrap();
    }
    let check = |store: &Store| {
        for n in [0, 3, 59, 60, 77] {
            let item = QueryItem::new().tag(format!("tag:{n}"));
            let found: Vec<u64> = store
                .read(Read::query(item))
                .unwrap()
                .map(|record| record.unwrap().position().get())
                .collect();
            assert_eq!(found, (0..400).filter(|position| position % 60 == n).collect::<Vec<_>>());
        }
        let item = QueryItem::new().stream("c3-3").of_type("type3").tag("other:3");
        let found: Vec<u64> =
            store.read(Read::query(item)).unwrap().map(|record| record.unwrap().position().get()).collect();
        let expected = (0..400).filter(|n| n % 7 == 3 && n % 90 == 3 && n % 11 == 3 && n % 13 == 3);
        assert_eq!(found, expected.collect::<Vec<_>>());
    };
    check(&store);
    let conditional = |tag: &str, after| {
        Append::from(NewEvent::new("new", "New")).fail_if_matches(QueryItem::new().tag(tag.to_owned()), after)
    };
    append(&store, conditional("tag:60", None)).unwrap();
    append(&store, conditional("tag:5", Some(Position::new(365)))).unwrap();
    let refused = append(&store, conditional("tag:5", Some(Position::new(364))));
    assert!(
        matches!(refused, Err(AppendError::QueryMatched { position, .. }) if position.get() == 365),
        "{refused:?}"
    );
    store.close().unwrap();
    let store = Store::open_with(dir.path(), settings).unwrap();
    assert!(store.verify(&mut |_, _| {}).unwrap().is_ok());
    check(&store);
    let found = append(&store, Append::from(event(3)).expect("c3-3", ExpectedVersion::NoStream));
    assert!(matches!(found, Err(AppendError::WrongVersion { .. })), "{found:?}");
}

/// What a racer did: its condition, and what came of it.
struct Attempt {
    query: Query<'static>,
    after: Option<Position>,
    outcome: Result<u64, u64>,
}

const RACERS: u64 = 64;

/// How long they race; `ANNALS_RACE_SECONDS` makes it longer.
fn race_time() -> Duration {
    let seconds = std::env::var("ANNALS_RACE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(Duration::from_millis(500), Duration::from_secs)
}

fn race(store: &Store, racer: u64, over: &AtomicBool) -> Vec<Attempt> {
    let mut random = SmallRng::seed_from_u64(racer);
    let attempt = |random: &mut SmallRng| {
        let item = |random: &mut SmallRng| {
            let mut item = QueryItem::new().tag(format!("tag:{}", random.random_range(0..6)));
            if random.random_bool(0.3) {
                item = item.of_type(format!("type{}", random.random_range(0..3)));
            }
            if random.random_bool(0.3) {
                item = item.tag(format!("tag:{}", random.random_range(0..6)));
            }
            item
        };
        let query = (0..random.random_range(1..4)).fold(Query::all(), |query, _| query.or(item(random)));
        let after = store.last_position();
        if random.random_bool(0.5) {
            std::thread::yield_now();
        }
        let mut event = NewEvent::new(format!("s-{racer}"), format!("type{}", random.random_range(0..3)));
        for _ in 0..random.random_range(0..3) {
            event = event.tag(format!("tag:{}", random.random_range(0..6)));
        }
        let outcome = match append(store, Append::from(event).fail_if_matches(query.clone(), after)) {
            Ok(appended) => Ok(appended.first_position().get()),
            Err(AppendError::QueryMatched { position, .. }) => Err(position.get()),
            Err(error) => panic!("{error}"),
        };
        Attempt { query, after, outcome }
    };
    std::iter::from_fn(|| (!over.load(Ordering::Relaxed)).then(|| attempt(&mut random))).collect()
}

#[test]
fn racers_are_accepted_where_nothing_matches_and_refused_where_something_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let over = AtomicBool::new(false);
    let (attempts, unrelated) = std::thread::scope(|scope| {
        let (store, over) = (&store, &over);
        let racers: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || race(store, racer, over))).collect();
        let unrelated = scope.spawn(|| {
            let conditional = |n: u64| {
                let item = QueryItem::new().tag(format!("unrelated:{n}"));
                let event = NewEvent::new("unrelated", "Unrelated").tag(format!("unrelated:{n}"));
                append(store, Append::from(event).fail_if_matches(item, None))
            };
            let numbers = (0..).take_while(|_| !over.load(Ordering::Relaxed));
            numbers.fold((0, 0), |(held, refused), n| match conditional(n) {
                Ok(_) => (held + 1, refused),
                Err(_) => (held, refused + 1),
            })
        });
        std::thread::sleep(race_time());
        over.store(true, Ordering::Relaxed);
        let attempts: Vec<_> = racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect();
        (attempts, unrelated.join().unwrap())
    });
    let (held, refused) = unrelated;
    assert!(
        held > 20 && refused == 0,
        "what nobody else is about is never refused: {held} held, {refused} not"
    );
    let records: Vec<Record> = store.read(Read::all()).unwrap().collect::<Result<_, _>>().unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for Attempt { query, after, outcome } in &attempts {
        let behind = after.map_or(0, |after| after.get() + 1);
        let matching = |until: u64| {
            let between = &records[usize::try_from(behind).unwrap()..usize::try_from(until).unwrap()];
            between.iter().find(|record| query.matches(record)).map(|record| record.position().get())
        };
        match outcome {
            Ok(position) => {
                assert_eq!(matching(*position), None, "{query:?} after {after:?} was accepted at {position}");
                accepted += 1;
            }
            Err(position) => {
                assert_eq!(matching(position + 1), Some(*position), "{query:?} after {after:?} was refused");
                refused += 1;
            }
        }
    }
    println!("{accepted} accepted, {refused} refused; {held} unrelated ones");
    assert!(accepted > 50 && refused > 50, "{accepted} accepted, {refused} refused");
}

#[test]
fn a_condition_that_takes_too_long_to_judge_is_refused_and_says_how_far_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // What is asked for is never together, and everywhere.
    let events: Vec<_> = (0..20_000).map(|n| NewEvent::new("s", "T").tag(format!("tag:{}", n % 2))).collect();
    for events in events.chunks(1_000) {
        append(&store, events.iter().cloned().collect()).unwrap();
    }
    let both = || QueryItem::new().tag("tag:0").tag("tag:1");
    let conditional = |after| Append::from(NewEvent::new("t", "T")).fail_if_matches(both(), after);
    append(&store, conditional(None)).unwrap();
    limit_leaps(1_000);
    match append(&store, conditional(None)) {
        Err(AppendError::QueryTooBroad { leaps, reached }) => {
            // It is looked at every few thousand leaps.
            assert!((1_000..10_000).contains(&leaps) && reached.get() < 19_000, "{leaps} leaps to {reached}");
        }
        other => panic!("{other:?}"),
    }
    append(&store, conditional(Some(Position::new(19_500)))).unwrap();
    assert_eq!(store.next_position().get(), 20_002);
}
