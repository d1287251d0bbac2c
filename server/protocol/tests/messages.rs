//! Every message, there and back.

use annals_protocol::frame::{self, BODY_BYTES_MAX, Header};
use annals_protocol::testing::decode_bytes;
use annals_protocol::{Answer, Consistency, Events, Failure, Hello, Request, Welcome};
use annals_types::{
    Append, AppendError, Appended, Bound, ContentKind, Cursor, CursorAt, Damage, DamageKind, Delivery,
    DeliveryId, ExpectedVersion, Follow, Head, Load, Nack, NewEvent, NewSnapshot, NewSubscription, Parked,
    ParkedChoice, PassedOver, Position, Query, QueryItem, Read, ReadError, Record, RecordParts, Snapshot,
    Start, Stat, SubscriptionError, SubscriptionStatus, Timestamp, Uuid, Verified, Version,
};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::time::Duration;

/// Every how manieth place is tried, of messages that are cut and changed: Miri takes minutes for all.
const STEP: usize = if cfg!(miri) { 61 } else { 1 };

fn position(number: u64) -> Position {
    Position::new(number)
}

fn query() -> Query<'static> {
    let item = QueryItem::new().of_type("A").of_type("B").tag("t:1").stream("s-1").category("s");
    Query::from(item.correlation(Uuid::from_u128(7)).causation(Uuid::from_u128(8)))
        .or(QueryItem::new().tag("ü"))
}

fn append() -> Append<'static> {
    let full = NewEvent::new("order-42", "OrderPlaced").json(r#"{"total":12}"#).metadata(&b"{}"[..]);
    let full = full.tag("customer:7").tag("vip").id(Uuid::from_u128(1)).correlation(Uuid::from_u128(2));
    Append::new()
        .event(full.causation(Uuid::from_u128(3)).time(Timestamp::new(77)))
        .event(NewEvent::new("b", "Raw").binary(vec![0, 255]).time(Timestamp::new(78)))
        .expect("order-42", ExpectedVersion::NoStream)
        .expect("b", ExpectedVersion::Exactly(Version::new(3)))
        .expect("c", ExpectedVersion::Any)
        .expect("d", ExpectedVersion::Exists)
        .fail_if_matches(query(), Some(position(9)))
        .expect_cursor("handler", None)
        .advance("handler", Some(position(4)))
        .snapshot(NewSnapshot::new("b", 5, b"state"))
        .raise_times()
}

fn requests() -> Vec<Request<'static>> {
    let hello = Hello {
        version_min: 1,
        version_max: 2,
        features: 5,
        client: "test".into(),
        store: "default".into(),
        token: Some("secret".into()),
    };
    let read = Read::query(query()).from(position(3)).until(Timestamp::new(9)).backwards().limit(7);
    let id = DeliveryId { position: position(5), number: 6 };
    let name = || "invoicing".into();
    vec![
        Request::Hello(hello),
        Request::Ping,
        Request::OpenStore("other".into()),
        Request::Cancel(9),
        Request::Credit(9, 1 << 20),
        Request::Append(append()),
        Request::Append(Append::new()),
        Request::AppendAgain(append(), position(5)),
        Request::Read(read, Consistency { level: 1, at_least: Some(position(8)) }, 1 << 20),
        Request::Read(Read::stream("s").from(Version::new(2)), Consistency::default(), 0),
        Request::Follow(
            Follow::stream("s").after(Version::new(3)).progress_every(Duration::from_millis(5)),
            1,
        ),
        Request::Follow(Follow::all().from_end(), 1),
        Request::Head("s".into()),
        Request::Streams(5),
        Request::Cursor("c".into()),
        Request::Cursors,
        Request::Stat,
        Request::Verify,
        Request::Load(Load::stream("s").name("n").schemas(2..=4).until(Timestamp::new(4)), 5),
        Request::WriteSnapshot(NewSnapshot::new("s", 1, b"x").name("n"), Version::new(4)),
        Request::Snapshots("s".into()),
        Request::SnapshotStreams,
        Request::DeleteSnapshots("s".into(), "n".into(), Some(Version::new(3))),
        Request::CreateSubscription(NewSubscription::new("a").query(query()).shared().start(Start::End)),
        Request::CreateSubscription(NewSubscription::new("a").stream("s").by_cursor()),
        Request::DeleteSubscription(name()),
        Request::ResetSubscription(name(), Start::From(Bound::Time(Timestamp::new(4)))),
        Request::StopSubscription(name(), "a pause".into()),
        Request::ResumeSubscription(name()),
        Request::Subscription(name()),
        Request::Subscriptions,
        Request::Parked(name()),
        Request::ReplayParked(name(), ParkedChoice::All),
        Request::DiscardParked(name(), ParkedChoice::At(vec![position(1), position(2)])),
        Request::Join(name(), 1 << 16),
        Request::Ack(9, vec![id, id]),
        Request::Nack(9, id, Nack::retry("later")),
        Request::Nack(9, id, Nack::park("wrong")),
        Request::Nack(9, id, Nack::skip("old")),
        Request::Nack(9, id, Nack::stop("enough")),
        Request::Renew(9),
        Request::CreateStore("x".into()),
        Request::Stores,
        Request::DropStore("x".into()),
    ]
}

fn record(number: u64) -> Record {
    let texts = b"order-42OrderPlaced\x04\0ta:1\x03\0t:2{\"n\":1}meta";
    let parts = RecordParts {
        position: position(number),
        version: Version::new(2),
        time: Timestamp::new(77),
        id: Uuid::from_u128(4),
        correlation: Some(Uuid::from_u128(5)),
        causation: None,
        content: ContentKind::Json,
        stream: 0..8,
        event_type: 8..19,
        tags: 19..30,
        data: 30..37,
        metadata: 37..41,
    };
    Record::new(Bytes::from_static(texts), parts)
}

fn damage() -> Damage {
    Damage {
        file: "0000000001.log".into(),
        offset: 4096,
        first_position: Some(position(3)),
        last_position: None,
        kind: DamageKind::Checksum,
    }
}

fn head() -> Head {
    Head { version: Version::new(3), position: position(17) }
}

fn status() -> SubscriptionStatus {
    SubscriptionStatus {
        settings: NewSubscription::new("a").query(query()),
        start: Start::After(position(3).into()),
        next: position(9),
        lag: 4,
        in_flight: Some(2),
        open: 3,
        parked: 1,
        oldest: Some((position(4), Timestamp::new(9))),
        members: None,
        stopped: Some("a pause".to_owned()),
    }
}

fn answers() -> Vec<Answer> {
    let welcome = Welcome {
        version: 1,
        features: 0,
        server: "annals".to_owned(),
        body_bytes_max: 1 << 20,
        requests_max: 64,
        bytes_max: 1 << 26,
        next_position: position(7),
    };
    let appended =
        Appended { positions: position(3)..position(5), last_version: Version::new(9), repeated: true };
    let stat = Stat {
        events: 1,
        streams: 2,
        next_position: position(3),
        segments: 4,
        disk_bytes: 5,
        index_bytes: 6,
        epoch: 7,
        disk: "ring".to_owned(),
        format: 1,
        writer: Some(8),
    };
    let verified = Verified {
        events: 1,
        segments: 2,
        torn_tail_bytes: 3,
        chain: "ab".to_owned(),
        damage: vec![damage()],
    };
    let snapshot = Snapshot {
        stream: "s".to_owned(),
        name: String::new(),
        version: Version::new(1),
        position: position(2),
        time: Timestamp::new(3),
        schema: 4,
        data: Bytes::from_static(b"state"),
    };
    let passed_over = PassedOver { version: Some(Version::new(2)), reason: "damaged".to_owned() };
    let parked =
        Parked { position: position(1), failures: 2, time: Timestamp::new(3), reason: "wrong".to_owned() };
    let id = DeliveryId { position: position(3), number: 4 };
    let cursor = CursorAt { name: "a".into(), position: Some(position(2)) };
    let delivery = Delivery { id, attempt: 2, event: record(3), cursor: Some(cursor) };
    let cursor = Cursor { position: Some(position(4)), revision: 2 };
    vec![
        Answer::Welcome(welcome),
        Answer::Done,
        Answer::Store(3),
        Answer::Flag(true),
        Answer::Count(7),
        Answer::Names(vec!["a".to_owned(), "ü".to_owned()]),
        Answer::Appended(appended),
        Answer::Events(vec![record(1), record(2)]),
        Answer::CaughtUp(position(4)),
        Answer::Progress(position(5)),
        Answer::Head(Some(head())),
        Answer::Head(None),
        Answer::Heads(vec![("s".to_owned(), head())]),
        Answer::Cursor(Some(cursor)),
        Answer::Cursors(vec![("c".to_owned(), cursor)]),
        Answer::Stat(stat),
        Answer::Checked(3, 9),
        Answer::Verified(verified),
        Answer::Snapshots(vec![snapshot], vec![passed_over]),
        Answer::Subscriptions(vec![status()]),
        Answer::Parked(vec![parked]),
        Answer::Deliveries(vec![delivery]),
    ]
}

fn failures() -> Vec<Failure> {
    let text = || "x".to_owned();
    let io = || annals_types::IoFailure::new("read", "file", std::io::Error::other("it broke"));
    let append = [
        AppendError::Input(annals_types::InputError::NoEvents),
        AppendError::WrongVersion {
            stream: text(),
            expected: ExpectedVersion::NoStream,
            actual: Some(head()),
        },
        AppendError::QueryMatched { after: Some(position(1)), position: position(2) },
        AppendError::AfterTheEnd { after: position(1), next: position(2) },
        AppendError::QueryTooBroad { leaps: 1, reached: position(2) },
        AppendError::WrongCursor { cursor: text(), expected: None, actual: Some(Cursor::default()) },
        AppendError::CursorAfterTheEnd { cursor: text(), position: position(1), next: position(0) },
        AppendError::TooManyCursors { cursor: text() },
        AppendError::NoSuchVersion { stream: text(), version: Version::new(3), head: None },
        AppendError::IdConflict { id: Uuid::from_u128(1), position: Some(position(2)) },
        AppendError::TimeBackwards { given: Timestamp::new(1), previous: Timestamp::new(2) },
        AppendError::TimeAhead { given: Timestamp::new(2), now: Timestamp::new(1) },
        AppendError::DiskFull(io()),
        AppendError::Poisoned { reason: "x".into() },
        AppendError::UnknownOutcome { reason: "x".into() },
        AppendError::TooLateToRepeat { since: position(1), next: position(2) },
        AppendError::ReadOnly,
        AppendError::Damage(damage()),
        AppendError::Io(io()),
    ];
    let read = [ReadError::Damage(damage()), ReadError::Stopped { reason: "x".into() }, ReadError::Io(io())];
    let name = text;
    let subscription = [
        SubscriptionError::Unknown { name: name() },
        SubscriptionError::Exists { name: name(), difference: "query".into() },
        SubscriptionError::TooMany { name: name() },
        SubscriptionError::TooManyMembers { name: name() },
        SubscriptionError::NotInFlight { position: position(1) },
        SubscriptionError::AfterTheEnd { position: position(1), next: position(0) },
        SubscriptionError::NotParked { position: position(1) },
        SubscriptionError::Lost { name: name() },
        SubscriptionError::Stopped { name: name(), reason: text() },
        SubscriptionError::Deleted { name: name() },
        SubscriptionError::Interrupted { name: name(), reason: text() },
        SubscriptionError::Closed,
    ];
    let own = [
        Failure::Malformed(text()),
        Failure::UnknownRequest { kind: 99 },
        Failure::UnsupportedVersion { min: 1, max: 2 },
        Failure::Unauthenticated,
        Failure::Forbidden { what: text() },
        Failure::NoStore { name: text() },
        Failure::StoreExists { name: text() },
        Failure::Overloaded { what: text() },
        Failure::ShuttingDown,
        Failure::NotLeader { leader: Some(text()) },
        Failure::Fenced,
        Failure::Cancelled,
        Failure::Unsupported { reason: "it is one store".to_owned() },
        Failure::StoreInUse { name: text() },
        Failure::Late { what: text() },
        Failure::Internal(text()),
        Failure::Other { code: 999, message: text() },
    ];
    let append = append.into_iter().map(Failure::Append);
    let read = read.into_iter().map(Failure::Read);
    own.into_iter()
        .chain(append)
        .chain(read)
        .chain(subscription.into_iter().map(Failure::Subscription))
        .collect()
}

fn encoded(encode: impl Fn(&mut BytesMut)) -> Bytes {
    let mut body = BytesMut::new();
    encode(&mut body);
    body.freeze()
}

#[test]
fn requests_are_decoded_as_they_were_and_not_a_byte_may_be_missing() {
    let mut kinds = std::collections::BTreeSet::new();
    for request in requests() {
        kinds.insert(request.kind());
        let body = encoded(|to| request.encode(to));
        assert_eq!(Request::decode(request.kind(), &body).unwrap(), request);
        for cut in (0..body.len()).step_by(STEP) {
            assert!(Request::decode(request.kind(), &body[..cut]).is_err(), "{request:?} cut at {cut}");
        }
        let longer = [&body[..], &[0]].concat();
        let is_hello = matches!(request, Request::Hello(_));
        assert_eq!(Request::decode(request.kind(), &longer).is_ok(), is_hello, "{request:?}");
    }
    assert_eq!(kinds.len(), 37, "every kind of request is tried");
    for kind in (0..0x200).filter(|kind| !kinds.contains(kind)) {
        assert!(Request::decode(kind, &[]).is_err(), "{kind}");
    }
}

#[test]
fn answers_are_decoded_as_they_were_and_not_a_byte_may_be_missing() {
    let mut kinds = std::collections::BTreeSet::new();
    for answer in answers().into_iter().chain(failures().into_iter().map(Answer::Failed)) {
        kinds.insert(answer.kind());
        let body = encoded(|to| answer.encode(to));
        let decoded = Answer::decode(answer.kind(), &body).unwrap();
        assert_eq!(encoded(|to| decoded.encode(to)), body, "{answer:?}");
        for cut in (0..body.len()).step_by(STEP) {
            assert!(Answer::decode(answer.kind(), &body.slice(..cut)).is_err(), "{answer:?} cut at {cut}");
        }
    }
    assert_eq!(kinds.len(), 22, "every kind of answer is tried");
}

#[test]
fn failures_keep_their_codes_their_data_and_what_they_say() {
    let mut codes = std::collections::BTreeSet::new();
    for failure in failures() {
        assert!(codes.insert(failure.code()), "{failure:?}");
        let body = encoded(|to| Answer::Failed(failure.clone()).encode(to));
        let Answer::Failed(told) = Answer::decode(0x8003, &body).unwrap() else { panic!("it is a failure") };
        assert_eq!(told.code(), failure.code());
        // Of a failure of the server's system, what it says arrives within what the client says.
        let (told, said) = (told.to_string(), failure.to_string());
        let of_system = "could not read file: it broke";
        assert!(told == said || said.contains(of_system) && told.contains(of_system), "{told}, but {said}");
    }
    // Data behind what this release knows is ignored.
    let mut body = BytesMut::from(&encoded(|to| Answer::Failed(Failure::Fenced).encode(to))[..]);
    let at = body.len() - 4;
    body[at..].copy_from_slice(&3_u32.to_le_bytes());
    body.extend_from_slice(&[1, 2, 3]);
    assert!(matches!(Answer::decode(0x8003, &body.freeze()), Ok(Answer::Failed(Failure::Fenced))));
}

#[test]
fn events_that_are_written_as_they_are_found_are_an_answer_of_events() {
    let mut buffer = BytesMut::from(&b"before"[..]);
    let mut events = Events::begin(&mut buffer, 7);
    for number in 0..3 {
        events.add(&record(number), &mut buffer);
    }
    events.finish(&mut buffer).unwrap();
    let _ = buffer.split_to(6);
    let (header, body) = frame::take(&mut buffer, BODY_BYTES_MAX).unwrap().unwrap();
    assert_eq!(header, Header { request: 7, kind: 0x800b, has_more: true, store: 0 });
    let Ok(Answer::Events(found)) = Answer::decode(header.kind, &body) else { panic!("they are events") };
    let expected = record(2);
    assert_eq!(found.len(), 3);
    assert_eq!(found[2].to_new_event(), expected.to_new_event());
    assert_eq!(found[2].position(), expected.position());
    let none = Events::begin(&mut buffer, 8);
    assert!(none.is_empty() && none.finish(&mut buffer) == Ok(0) && buffer.is_empty());
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_fail_in_another_way(kind in 0..60_u16, body in prop::collection::vec(any::<u8>(), 0..200), from in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let _ = Request::decode(kind, &body);
        let _ = Answer::decode(0x8000 | kind, &Bytes::from(body));
        // What is nearly right.
        let all = requests();
        let request = &all[from.index(all.len())];
        let mut body = encoded(|to| request.encode(to)).to_vec();
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
            let _ = Request::decode(request.kind(), &body);
        }
    }
}

#[test]
fn a_list_that_claims_more_than_there_is_takes_no_memory() {
    let mut body = BytesMut::new();
    body.extend_from_slice(&u32::MAX.to_le_bytes());
    for kind in [0x8007, 0x800b, 0x8011, 0x8016, 0x8018] {
        assert!(Answer::decode(kind, &body.clone().freeze()).is_err());
    }
    for kind in [10, 41] {
        assert!(Request::decode(kind, &[&[0; 8][..], &body].concat()).is_err());
    }
    // Conditions on queries take many times the room that they travel in.
    let item = || QueryItem::new();
    let conditions = (0..200).fold(Append::new(), |append, _| append.fail_if_matches(item(), None));
    let body = encoded(|to| Request::Append(conditions.clone()).encode(to));
    assert!(Request::decode(10, &body).is_err());
}

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// The rows of the document's tables that begin with a number: that, and the cell behind it.
fn rows(heading: &str) -> Vec<(u16, &'static str)> {
    let section =
        DOCUMENT.split("\n## ").find(|section| section.starts_with(heading)).expect("it has a section");
    let cells = section
        .lines()
        .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>());
    cells.filter_map(|cells| Some((cells.get(1)?.parse().ok()?, *cells.get(2)?))).collect()
}

/// The name of a message, as the code has it.
fn name(message: &impl std::fmt::Debug) -> String {
    let text = format!("{message:?}");
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

#[test]
fn the_document_has_every_message_and_failure_and_no_other() {
    let sorted = |mut rows: Vec<(u16, String)>| {
        rows.sort();
        rows.dedup();
        rows
    };
    let of_document =
        |heading| sorted(rows(heading).into_iter().map(|(kind, name)| (kind, name.to_owned())).collect());
    let requests = requests().iter().map(|request| (request.kind(), name(request))).collect();
    assert_eq!(of_document("Requests"), sorted(requests));
    let failed = Answer::Failed(Failure::Fenced);
    let answers = answers().iter().chain([&failed]).map(|answer| (answer.kind(), name(answer))).collect();
    assert_eq!(of_document("Answers"), sorted(answers));
    let codes = |codes: Vec<u16>| codes.into_iter().collect::<std::collections::BTreeSet<u16>>();
    let in_code =
        failures().iter().map(Failure::code).chain([301, 400]).filter(|&code| code != 999).collect();
    assert_eq!(codes(rows("Failures").into_iter().map(|(code, _)| code).collect()), codes(in_code));
    assert!(DOCUMENT.contains("at most 75,497,472 bytes") && BODY_BYTES_MAX == 75_497_472);
}

fn golden_frames() -> Vec<Vec<u8>> {
    let frames = include_str!("golden/v1").lines().map(|line| {
        let (_, hex) = line.split_once(' ').expect("a name and a frame");
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
        (0..hex.len()).step_by(2).map(byte).collect()
    });
    frames.collect()
}

/// `ANNALS_MAKE_CORPUS=DIR cargo test -p annals-protocol` writes golden frames to `DIR/wire`, for fuzzing to begin with.
#[test]
fn what_fuzzing_has_found_is_taken_apart_without_a_panic() {
    if let Ok(dir) = std::env::var("ANNALS_MAKE_CORPUS") {
        let dir = std::path::Path::new(&dir).join("wire");
        std::fs::create_dir_all(&dir).unwrap();
        for (number, frame) in golden_frames().iter().enumerate() {
            std::fs::write(dir.join(format!("good-{number}")), frame).unwrap();
        }
    }
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/wire");
    let inputs: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!inputs.is_empty());
    let understood = inputs.iter().map(|path| decode_bytes(&std::fs::read(path).unwrap()));
    assert!(understood.sum::<usize>() > 0);
}

/// Frames of every message, as they were first written: what was understood once is understood for ever.
/// `ANNALS_MAKE_GOLDEN=v1 cargo test -p annals-protocol` makes them.
#[test]
fn whatever_is_sent_is_taken_apart_without_a_panic() {
    for frame in golden_frames() {
        assert_eq!(decode_bytes(&frame), 1);
        // The message alone, behind its kind: whole, cut anywhere, and with any byte another.
        let message = [&frame[16..18], &frame[24..]].concat();
        assert_eq!(decode_bytes(&message), 1);
        for at in (0..message.len()).step_by(STEP) {
            let _ = decode_bytes(&message[..at]);
            let mut other = message.clone();
            for change in [1, 0x80, 0xff] {
                other[at] = message[at] ^ change;
                let _ = decode_bytes(&other);
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it prints every byte, which takes minutes")]
fn golden_frames_are_written_and_read_as_ever() {
    let framed = |kind, body: Bytes| {
        let mut frame = BytesMut::new();
        let start = frame::begin(&mut frame, Header { request: 7, kind, has_more: false, store: 1 });
        frame.extend_from_slice(&body);
        frame::finish(&mut frame, start).unwrap();
        frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let requests = requests();
    let requests = requests
        .iter()
        .map(|request| (name(request), framed(request.kind(), encoded(|to| request.encode(to)))));
    let answers: Vec<_> = answers().into_iter().chain(failures().into_iter().map(Answer::Failed)).collect();
    let answers =
        answers.iter().map(|answer| (name(answer), framed(answer.kind(), encoded(|to| answer.encode(to)))));
    let now: String = requests.chain(answers).map(|(name, frame)| format!("{name} {frame}\n")).collect();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    if let Ok(version) = std::env::var("ANNALS_MAKE_GOLDEN") {
        std::fs::create_dir_all(&golden).unwrap();
        std::fs::write(golden.join(version), &now).unwrap();
    }
    let first = std::fs::read_to_string(golden.join("v1")).unwrap();
    for (golden, now) in first.lines().zip(now.lines()) {
        assert_eq!(golden, now);
    }
    assert_eq!(first.lines().count(), now.lines().count());
}
