//! The promises to those who append, one by one.

use crate::support::{NOW, append, event, exactly, on_disk, open, read_all, small, wait, wait_until, within};
use annals::testing::{Clock, SimulatedDisk, open_simulated};
use annals::{
    Append, AppendError, Appended, Bound, DiskChoice, ExpectedVersion, InputError, NewEvent, Position, Query,
    Read, ReadError, Settings, Store, Ticket, Timestamp, TryAppendError, Uuid, Version, limits,
};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A hundred threads append at once with this expectation; their outcomes.
fn race(store: &Store, expected: ExpectedVersion) -> Vec<Result<Appended, AppendError>> {
    const RACERS: usize = 100;
    let start = Barrier::new(RACERS);
    std::thread::scope(|scope| {
        let race = || {
            start.wait();
            append(store, Append::from(event("contested")).expect("contested", expected))
        };
        let racers: Vec<_> = (0..RACERS).map(|_| scope.spawn(race)).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    })
}

#[test]
fn of_a_hundred_racers_one_wins_and_the_others_hear_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for round in 0..20_u64 {
        let expected = round.checked_sub(1).map_or(ExpectedVersion::NoStream, exactly);
        let outcomes = race(&store, expected);
        let winners: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(winners[0].last_version.get(), round);
        for loser in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            let AppendError::WrongVersion { stream, expected: wanted, actual: Some(head) } = loser else {
                panic!("{loser}")
            };
            assert_eq!((stream.as_str(), *wanted, head.version.get()), ("contested", expected, round));
            assert_eq!(head.position, winners[0].first_position());
        }
    }
    assert_eq!(store.next_position().get(), 20);
}

#[test]
fn conditions_on_streams_that_are_not_written_are_kept() {
    let disk = SimulatedDisk::new(1);
    let store = on_disk(&disk);
    let one = || Append::from(event("written"));
    append(&store, one().expect("other", ExpectedVersion::NoStream)).unwrap();
    append(&store, Append::from(event("other"))).unwrap();
    append(&store, one().expect("other", ExpectedVersion::Exists).expect("other", exactly(0))).unwrap();
    for expected in [ExpectedVersion::NoStream, exactly(1)] {
        let refused = append(&store, one().expect("other", expected)).unwrap_err();
        assert!(
            matches!(refused, AppendError::WrongVersion { actual: Some(head), .. } if head.position.get() == 1)
        );
    }
    let refused = append(&store, one().expect("never", ExpectedVersion::Exists)).unwrap_err();
    assert!(matches!(refused, AppendError::WrongVersion { actual: None, .. }), "{refused}");
    let refused = append(&store, one().expect("other", exactly(0)).expect("never", exactly(0))).unwrap_err();
    assert!(matches!(&refused, AppendError::WrongVersion { stream, .. } if stream == "never"), "{refused}");
    assert_eq!(store.next_position().get(), 3, "what was refused left nothing");
}

#[test]
fn a_batch_of_several_streams_is_there_whole_or_not_at_all() {
    let disk = SimulatedDisk::new(1);
    let store = on_disk(&disk);
    append(&store, [event("a"), event("b"), event("a")].into()).unwrap();
    let refused = Append::from([event("a"), event("b"), event("c")]).expect("c", exactly(7));
    append(&store, refused).unwrap_err();
    assert_eq!((store.next_position().get(), store.head("c").unwrap()), (3, None));
    let appended = append(&store, [event("b"), event("c"), event("a")].into()).unwrap();
    assert_eq!((appended.positions, appended.last_version.get()), (3_u64.into()..6_u64.into(), 2));
    let versions: Vec<_> = read_all(&store).unwrap().iter().map(|record| record.version().get()).collect();
    assert_eq!(versions, [0, 0, 1, 1, 0, 2], "a batch's own events count for its later ones");
}

#[test]
fn a_repeat_gets_the_first_result_before_and_after_reopening_and_in_flight() {
    let disk = SimulatedDisk::new(1);
    let mut store = on_disk(&disk);
    append(&store, event("s").into()).unwrap();
    let id = |number| Uuid::from_u128(number);
    let batch = || {
        Append::from([event("s").id(id(1)).json("{}"), event("t").id(id(2)).tag("x")]).expect("s", exactly(0))
    };
    let tickets: Vec<_> = (0..5).map(|_| store.append(batch()).unwrap()).collect();
    let mut outcomes: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait().unwrap()).collect();
    for n in 0..40 {
        append(&store, event("s").binary(vec![n; 1_000]).into()).unwrap();
    }
    outcomes.push(append(&store, batch()).unwrap());
    for _ in 0..2 {
        store.close().unwrap();
        store = on_disk(&disk);
        outcomes.push(append(&store, batch()).unwrap());
    }
    assert!(!outcomes[0].repeated && outcomes[1..].iter().all(|outcome| outcome.repeated), "{outcomes:?}");
    let same =
        |outcome: &Appended| outcome.positions == outcomes[0].positions && outcome.last_version.get() == 0;
    assert!(outcomes.iter().all(same), "{outcomes:?}");
    assert_eq!(store.next_position().get(), 43);

    let altered: [Append<'_>; 5] = [
        Append::from([event("s").id(id(1)).json("[]"), event("t").id(id(2)).tag("x")]),
        Append::from([event("s").id(id(1)).json("{}"), event("t").id(id(3)).tag("x")]),
        Append::from([event("s").id(id(1)).json("{}"), event("t").id(id(2)).tag("y")]),
        Append::from([event("s").id(id(1)).json("{}")]),
        Append::from([event("s").id(id(1)).json("{}"), event("t").id(id(2)).tag("x"), event("t").id(id(4))]),
    ];
    for batch in altered {
        let refused = append(&store, batch.clone().expect("s", exactly(0))).unwrap_err();
        let here = Some(Position::new(1));
        assert!(
            matches!(refused, AppendError::IdConflict { id: conflict, position } if (conflict, position) == (id(1), here)),
            "{refused} for {batch:?}"
        );
    }
    let other = Append::from(event("s").id(id(9))).expect("s", exactly(0));
    assert!(
        matches!(append(&store, other), Err(AppendError::WrongVersion { .. })),
        "another batch is no repeat"
    );
    assert_eq!(store.next_position().get(), 43);
}

#[test]
fn an_id_twice_in_a_batch_is_refused() {
    let store = on_disk(&SimulatedDisk::new(1));
    let id = Uuid::from_u128(5);
    let refused = append(&store, [event("a").id(id), event("b"), event("b").id(id)].into()).unwrap_err();
    assert!(
        matches!(refused, AppendError::IdConflict { id: twice, position: None } if twice == id),
        "{refused}"
    );
    assert_eq!(store.next_position().get(), 0);
}

#[test]
fn input_that_is_over_a_limit_or_malformed_is_refused_by_name() {
    let long = |bytes: usize| "x".repeat(bytes);
    let tags = (0..65).fold(event("s"), |event, tag| event.tag(format!("tag-{tag}")));
    let (time, data) = (Timestamp::new(NOW), vec![0; limits::DATA_BYTES_MAX]);
    let big = || event("s").binary(&data[..]);
    let table: Vec<(&str, Append<'_>)> = vec![
        ("no events", Append::new()),
        ("10001 events in the batch", (0..10_001).map(|_| event("s")).collect()),
        ("stream name is empty", event("").into()),
        ("event type is empty", NewEvent::new("s", "").into()),
        ("tag is empty", event("s").tag("").into()),
        ("stream name is 513 bytes", NewEvent::new(long(513), "T").into()),
        ("event type is 257 bytes", NewEvent::new("s", long(257)).into()),
        ("tag is 257 bytes", event("s").tag(long(257)).into()),
        ("control character", event("a\nb").into()),
        ("control character", event("a\u{85}b").into()),
        ("control character", NewEvent::new("s", "\0").into()),
        ("control character", event("s").tag("\u{7f}").into()),
        ("65 tags of an event", tags.into()),
        ("16777217 bytes of data", event("s").binary(vec![0; limits::DATA_BYTES_MAX + 1]).into()),
        ("65537 bytes of metadata", event("s").metadata(vec![0; limits::METADATA_BYTES_MAX + 1]).into()),
        ("event 1 differs", [event("s").time(time), event("s")].into()),
        ("event 2 differs", [event("s"), event("s"), event("s").time(time)].into()),
        ("bytes in the encoded batch", [big(), big(), big(), big()].into()),
        ("stream name is empty", Append::from(event("s")).expect("", ExpectedVersion::Any)),
        (
            "10001 conditions",
            (0..10_001).fold(event("s").into(), |all: Append<'_>, _| all.expect("s", ExpectedVersion::Any)),
        ),
    ];
    let store = on_disk(&SimulatedDisk::new(1));
    for (text, batch) in table {
        match store.append(batch) {
            Err(AppendError::Input(error)) => {
                assert!(error.to_string().contains(text), "{error}, not {text}")
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(store.next_position().get(), 0);
    let full = (0..64).fold(NewEvent::new(long(512), long(256)), |event, _| event.tag(long(256)));
    append(&store, full.metadata(vec![1; limits::METADATA_BYTES_MAX]).into()).unwrap();
    append(&store, (0..10_000).map(|_| event("s")).collect()).unwrap();
    assert_eq!(store.next_position().get(), 10_001);
    let bound = store.read(Read::all().from(Bound::Version(Version::ZERO))).unwrap_err();
    assert!(matches!(bound, ReadError::Input(InputError::Bound { .. })), "{bound}");
}

#[test]
fn the_largest_event_is_kept_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..limits::DATA_BYTES_MAX).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let store = open(dir.path());
    append(&store, event("small").into()).unwrap();
    append(&store, event("large").binary(&data[..]).into()).unwrap();
    append(&store, event("small").into()).unwrap();
    let check = |store: &Store| {
        let records = read_all(store).unwrap();
        assert_eq!(records.len(), 3);
        assert!(records[1].data() == data, "the large event is as it was given");
    };
    check(&store);
    store.close().unwrap();
    check(&Store::open_read_only(dir.path()).unwrap());
    check(&open(dir.path()));
}

#[test]
fn times_never_run_backwards() {
    let clock = Arc::new(AtomicU64::new(NOW));
    let disk = SimulatedDisk::new(1);
    let open = || {
        let clock = Clock::Manual(Arc::clone(&clock));
        open_simulated(&disk, Path::new("/store"), small(DiskChoice::Auto), clock).unwrap()
    };
    let store = open();
    let times = |store: &Store| -> Vec<u64> {
        read_all(store).unwrap().iter().map(|record| record.time().get() - NOW).collect()
    };
    let at = |time: u64| event("s").time(Timestamp::new(NOW + time));
    append(&store, event("s").into()).unwrap();
    append(&store, at(100).into()).unwrap();
    clock.store(NOW - 1_000_000, Ordering::SeqCst);
    append(&store, event("s").into()).unwrap();
    assert_eq!(times(&store), [0, 100, 100], "a clock that jumps back stands still");

    let refused = append(&store, at(99).into()).unwrap_err();
    assert!(
        matches!(refused, AppendError::TimeBackwards { given, previous } if (given.get(), previous.get()) == (NOW + 99, NOW + 100)),
        "{refused}"
    );
    let refused = append(&store, [at(200), at(150)].into()).unwrap_err();
    assert!(
        matches!(refused, AppendError::TimeBackwards { given, .. } if given.get() == NOW + 150),
        "{refused}"
    );
    append(&store, Append::from([at(99), at(120), at(110)]).raise_times()).unwrap();
    assert_eq!(times(&store)[3..], [100, 120, 120], "raised where that is allowed");

    let ahead = limits::TIME_AHEAD_NS_MAX;
    let refused = append(&store, at(120 + ahead + 1).into()).unwrap_err();
    assert!(
        matches!(refused, AppendError::TimeAhead { given, .. } if given.get() == NOW + 121 + ahead),
        "{refused}"
    );
    append(&store, at(120 + ahead).into()).unwrap();
    clock.store(NOW + 10 * ahead, Ordering::SeqCst);
    append(&store, at(5 * ahead).into()).unwrap();
    store.close().unwrap();
    clock.store(NOW, Ordering::SeqCst);
    let store = open();
    append(&store, event("s").into()).unwrap();
    assert_eq!(times(&store)[6..], [120 + ahead, 5 * ahead, 5 * ahead], "and after reopening, too");
    let since = store.read(Read::all().from(Timestamp::new(NOW + 121))).unwrap().next().unwrap().unwrap();
    assert_eq!(since.position().get(), 6);
}

#[test]
fn an_append_that_may_not_wait_says_why_it_would_have_to() {
    let disk = SimulatedDisk::new(1);
    let store = on_disk(&disk);
    store
        .try_append(&Append::from(event("s")).expect("s", ExpectedVersion::NoStream))
        .unwrap()
        .wait()
        .unwrap();
    let refused = store.try_append(&Append::from(event("s")).expect("s", exactly(8))).unwrap().wait();
    assert!(matches!(refused, Err(AppendError::WrongVersion { .. })), "{refused:?}");
    assert!(matches!(store.try_append(&Append::new()), Err(TryAppendError::Failed(AppendError::Input(_)))));
    // No segment is large enough for this one yet; one is made meanwhile.
    let large = Append::from(event("s").binary(vec![1; 200_000]));
    let mut busy = 0;
    within(20, "an append that is tried again", move || {
        let ticket = loop {
            match store.try_append(&large) {
                Ok(ticket) => break ticket,
                Err(TryAppendError::Busy) => busy += 1,
                Err(error) => panic!("{error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        ticket.wait().unwrap();
        assert!(busy > 0, "there was no room at first");
        for _ in 0..300 {
            append(&store, event("filler").binary(vec![1; 2_000]).into()).unwrap();
        }
        store.close().unwrap();
        let store = on_disk(&disk);
        let batch = Append::from(event("s")).expect("s", exactly(1));
        assert!(
            matches!(store.try_append(&batch), Err(TryAppendError::Cold)),
            "its head is in a sealed segment"
        );
        assert_eq!(store.next_position().get(), 302);
        let appended = append(&store, batch).unwrap();
        assert_eq!(appended.last_version.get(), 2);
        store.try_append(&Append::from(event("s")).expect("s", exactly(2))).unwrap().wait().unwrap();
    });
}

#[test]
fn appends_handed_over_together_are_judged_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { segment_bytes_max: 1 << 20, ..Settings::default() };
    let store = Store::open_with(dir.path(), settings).unwrap();
    assert!(store.append_each(&[]).is_empty());
    // More than go under one lock, of sizes that need new segments, with some that are wrong between.
    let appends: Vec<Append<'_>> = (0..200_u64)
        .map(|n| match n % 10 {
            7 => Append::new(),
            8 => Append::from(event("s")).expect("s", ExpectedVersion::NoStream),
            _ => {
                let next = n - n / 10 * 2 - u64::from(n % 10 == 9) * 2;
                let expected = next.checked_sub(1).map_or(ExpectedVersion::NoStream, exactly);
                let bytes = if n % 20 == 3 { 60_000 } else { 10 };
                Append::from(event("s").binary(vec![b'x'; bytes])).expect("s", expected)
            }
        })
        .collect();
    let answers = store.append_each(&appends);
    assert_eq!(answers.len(), appends.len());
    let mut position = 0;
    for (n, answer) in answers.into_iter().enumerate() {
        match n % 10 {
            7 => assert!(matches!(answer, Err(AppendError::Input(_))), "{n}: {answer:?}"),
            8 => {
                let outcome = answer.unwrap().wait();
                let Err(AppendError::WrongVersion { actual: Some(head), .. }) = outcome else {
                    panic!("{n}: {outcome:?}")
                };
                assert_eq!(head.position.get() + 1, position);
            }
            _ => {
                assert_eq!(answer.unwrap().wait().unwrap().positions.start.get(), position, "{n}");
                position += 1;
            }
        }
    }
    assert_eq!(position, 160);
    assert!(store.verify(&mut |_, _| {}).unwrap().is_ok());
    store.close().unwrap();
    let reader = Store::open_read_only(dir.path()).unwrap();
    assert!(
        reader.append_each(&appends[..3]).iter().all(|answer| matches!(answer, Err(AppendError::ReadOnly)))
    );
}

#[test]
fn ids_are_known_within_the_window_and_beyond_it_where_a_version_says_so() {
    const WINDOW: u64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { id_window: WINDOW, ..small(DiskChoice::Auto) };
    let store = Store::open_with(dir.path(), settings.clone()).unwrap();
    let id = |n: u64| Uuid::from_u128(u128::from(n) + 1);
    let batch =
        |n: u64| Append::from([event("a").id(id(2 * n)), event("b").id(id(2 * n + 1)).binary(vec![1; 200])]);
    let fill = |store: &Store| append(store, (0..1_000).map(|_| event("others")).collect()).unwrap();
    // In flight.
    let first = store.append(batch(0)).unwrap();
    let again = store.append(batch(0)).unwrap();
    let (first, again) = (first.wait().unwrap(), again.wait().unwrap());
    assert_eq!(again, Appended { repeated: true, ..first.clone() });
    // Whatever the conditions are, and not where anything differs.
    let unconditional = batch(0).expect("a", ExpectedVersion::NoStream).fail_if_matches(Query::all(), None);
    assert_eq!(append(&store, unconditional).unwrap(), again);
    let conflict = |appended: Result<Appended, AppendError>, n: u64, position: u64| {
        let Err(AppendError::IdConflict { id: known, position: Some(place) }) = appended else {
            panic!("{appended:?}")
        };
        assert_eq!((known, place.get()), (id(n), position));
    };
    conflict(append(&store, event("a").id(id(0)).into()), 0, 0);
    conflict(append(&store, event("c").id(id(1)).into()), 1, 1);
    conflict(append(&store, batch(0).event(event("a"))), 0, 0);
    conflict(append(&store, Append::from([event("new").id(id(900)), event("a").id(id(1))])), 1, 1);
    // After others, in other segments, and after a restart.
    for n in 1..40 {
        append(&store, batch(n)).unwrap();
        if n % 4 == 0 {
            fill(&store);
        }
    }
    assert_eq!(append(&store, batch(0)).unwrap(), again);
    assert!(append(&store, batch(17)).unwrap().repeated);
    store.close().unwrap();
    let store = Store::open_with(dir.path(), settings).unwrap();
    assert!(store.stat().unwrap().segments > 1);
    assert_eq!(append(&store, batch(0)).unwrap(), again);
    assert!(append(&store, batch(39)).unwrap().repeated);
    let tried = store.try_append(&batch(3));
    assert!(matches!(tried, Err(TryAppendError::Cold)), "{tried:?}");
    assert_eq!(store.next_position().get(), 9_080);
    // Beyond the window, a version has to say so.
    fill(&store);
    let known = batch(0).expect("a", ExpectedVersion::NoStream);
    assert_eq!(append(&store, known).unwrap(), again);
    assert!(!append(&store, batch(0)).unwrap().repeated, "nobody knows it any more");
    assert!(append(&store, batch(0)).unwrap().repeated, "it is new now");
}

#[test]
fn whether_an_id_is_new_is_soon_known_without_a_look_at_any_segment() {
    const WINDOW: u64 = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { id_window: WINDOW, ..small(DiskChoice::Auto) };
    let id = |n: u64| Uuid::from_u128(u128::from(n) + 1);
    let one = |n: u64| Append::from(event("a").id(id(n)).binary(vec![1; 200]));
    let mut next = 0;
    for _ in 0..3 {
        let store = Store::open_with(dir.path(), settings.clone()).unwrap();
        // Opened anew, it knows nothing; once somebody asks, it is to know all in the background.
        let is_known_new = |n: u64| match store.try_append(&one(n)) {
            Ok(ticket) => {
                assert!(!ticket.wait().unwrap().repeated);
                true
            }
            Err(_) => {
                assert!(!append(&store, one(n)).unwrap().repeated);
                false
            }
        };
        // Then it stays so, however many events come and segments end; one in some hundred seems to be known.
        let mut looked_at = 0;
        for n in next..next + 3 * WINDOW {
            if n > next + WINDOW && !is_known_new(n) {
                looked_at += 1;
            } else if n <= next + WINDOW {
                append(&store, one(n)).unwrap();
            }
            if n == next + WINDOW {
                wait_until("the newest ids are known", || {
                    let cold = store.try_append(&one(n));
                    // It is there already, so that it has to be looked at; not so one of an append that is refused.
                    assert!(matches!(cold, Err(TryAppendError::Cold)));
                    let refused =
                        one(u64::MAX - 1).expect("a", ExpectedVersion::Exactly(Version::new(1 << 40)));
                    store.try_append(&refused).is_ok_and(|ticket| ticket.wait().is_err())
                });
            }
            if n % 37 == 0 && n > WINDOW {
                let known = n - (n * 31) % (WINDOW - 1);
                assert!(append(&store, one(known)).unwrap().repeated, "{known} of {n}");
            }
        }
        assert!(looked_at < WINDOW / 10, "{looked_at} were looked for");
        next += 3 * WINDOW;
        assert!(store.stat().unwrap().segments > 5);
        store.close().unwrap();
    }
}

#[test]
fn a_window_of_all_events_is_one_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { id_window: u64::MAX, ..small(DiskChoice::Auto) };
    let store = Store::open_with(dir.path(), settings).unwrap();
    let one = |n: u64| Append::from(event("a").id(Uuid::from_u128(u128::from(n) + 1)).binary(vec![1; 500]));
    for n in 0..2_000 {
        append(&store, one(n)).unwrap();
    }
    assert!(store.stat().unwrap().segments > 2);
    std::thread::sleep(Duration::from_millis(1_200));
    assert!(append(&store, one(0)).unwrap().repeated && !append(&store, one(3_000)).unwrap().repeated);
    store.close().unwrap();
}

/// Appends from where it is woken.
struct Appending(Store, std::sync::mpsc::Sender<Result<Ticket, AppendError>>);

impl Wake for Appending {
    fn wake(self: Arc<Self>) {
        let repeat = Append::from(event("s").id(Uuid::from_u128(1))).expect("s", ExpectedVersion::NoStream);
        // The ticket is waited for elsewhere: it settles with what is in flight, which this very thread writes.
        let _ = self.1.send(self.0.append(repeat));
    }
}

#[test]
fn a_waker_may_repeat_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = Append::from(event("s").id(Uuid::from_u128(1))).expect("s", ExpectedVersion::NoStream);
    append(&store, first).unwrap();
    within(20, "an append in a waker", move || {
        for _ in 0..50 {
            let (sender, receiver) = std::sync::mpsc::channel();
            let waker = Waker::from(Arc::new(Appending(store.clone(), sender)));
            let mut ticket = Box::pin(store.append(event("t")).unwrap());
            if ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                continue;
            }
            let others: Vec<_> = (0..20).map(|_| store.append(event("u")).unwrap()).collect();
            assert!(wait(receiver.recv().unwrap()).unwrap().repeated);
            for other in others {
                other.wait().unwrap();
            }
        }
    });
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn a_ticket_can_be_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    within(20, "awaiting tickets", move || {
        for round in 0..50_u64 {
            let tickets: Vec<_> = (0..20).map(|_| store.append(event("s")).unwrap()).collect();
            for (n, ticket) in tickets.into_iter().enumerate() {
                let appended = block_on(ticket).unwrap();
                assert_eq!(appended.first_position().get(), round * 20 + n as u64);
            }
            let refused = block_on(
                store.append(Append::from(event("s")).expect("s", ExpectedVersion::NoStream)).unwrap(),
            );
            assert!(matches!(refused, Err(AppendError::WrongVersion { .. })), "{refused:?}");
        }
        let dropped: Vec<_> = (0..20).map(|_| store.append(event("s")).unwrap()).collect();
        drop(dropped);
        assert_eq!(block_on(store.append(event("s")).unwrap()).unwrap().first_position().get(), 1_020);
    });
}
