//! Notes: what the events of the side stores say, of snapshots and of durable subscriptions.

use crate::clock::stopwatch;
use crate::format::len_u16;
use crate::format::snapshot::{SnapshotNote, SnapshotOf, decode_deleted, encode_deleted};
use crate::format::subscription::{
    CREATED_TYPE, DELETED_TYPE, Note, OpenNote, PARKED_TYPE, PROGRESS_TYPE, ParkedNote, Progress,
    UNPARKED_TYPE,
};
use crate::subscription::{Machine, Offer, Standing, Taken};
use crate::{Nack, NewSubscription, Position, QueryItem, Start, Timestamp, Uuid, Version};
use std::time::Duration;

const NAME: &str = "invoicing";
/// What each note may be, by the first of its bytes.
const TYPES: [&str; 5] = [CREATED_TYPE, PROGRESS_TYPE, PARKED_TYPE, UNPARKED_TYPE, DELETED_TYPE];
/// Deliveries that a subscription is taken through.
const DELIVERIES: u32 = 20;

/// Takes bytes for notes, one behind the other: a byte that says what it is, two that say how long, and so many. A
/// subscription stands as they say in turn, and goes on from there. Returns how many were understood.
#[must_use]
pub fn notes(bytes: &[u8]) -> usize {
    let (mut rest, mut understood, mut standing) = (bytes, 0, None);
    while let Some((&[kind, low, high], tail)) = rest.split_first_chunk() {
        let (note, tail) = tail.split_at(usize::from(u16::from_le_bytes([low, high])).min(tail.len()));
        rest = tail;
        understood += usize::from(snapshot(note));
        let event_type = TYPES[usize::from(kind) % TYPES.len()];
        if let Some(note) = Note::decode(NAME, event_type, note) {
            assert_eq!(note.event_type(), event_type);
            understood += 1;
            standing = Standing::fold(standing, note);
        }
    }
    if let Some(standing) = standing {
        check_standing(&standing);
        go_on(standing);
    }
    understood
}

/// Some of each kind. What [`notes`] takes apart.
#[must_use]
pub fn some_notes() -> Vec<u8> {
    let item =
        QueryItem::new().category("order").of_type("Placed").tag("new").correlation(Uuid::from_u128(7));
    let settings =
        NewSubscription::new(NAME).query(item).shared().start(Start::From(Position::new(3).into()));
    let open = |position| OpenNote { position, lane: position % 2, failures: 1 };
    let progress = Progress {
        start: Start::First,
        next: 9,
        open: vec![open(4), open(6), open(7)],
        stopped: Some("a pause".to_owned()),
    };
    let parked = |position| ParkedNote {
        open: open(position),
        time: Timestamp::new(5),
        reason: "it failed".to_owned(),
    };
    let notes = [
        Note::Created(Box::new(settings)),
        Note::Parked(parked(3)),
        Note::Parked(parked(5)),
        Note::Progress(progress),
        Note::Unparked(vec![3]),
    ];
    let of = SnapshotOf {
        version: Version::new(3),
        position: Position::new(4),
        time: Timestamp::new(5),
        epoch: 1,
        batch: 2,
        event: Uuid::from_u128(6),
    };
    let snapshot = SnapshotNote { schema: 1, parts: 2, of, name: "n" }.encode();
    let deleted = encode_deleted("n", Some(Version::new(3)));
    let others = [(3, snapshot), (3, deleted)];
    let notes = notes.iter().map(|note| (kind_of(note), note.encode())).chain(others);
    let framed = notes.map(|(kind, note)| [&[kind][..], &len_u16(note.len()).to_le_bytes(), &note].concat());
    framed.collect::<Vec<_>>().concat()
}

fn kind_of(note: &Note) -> u8 {
    let kind = TYPES.iter().position(|event_type| *event_type == note.event_type());
    kind.and_then(|kind| u8::try_from(kind).ok()).expect("there are five types")
}

/// Whether it is a snapshot's metadata, or a deletion's.
fn snapshot(bytes: &[u8]) -> bool {
    let snapshot = SnapshotNote::decode(bytes);
    assert!(snapshot.is_none_or(|snapshot| snapshot.encode() == bytes), "it is said again alike");
    let deleted = decode_deleted(bytes);
    assert!(deleted.is_none_or(|(name, version)| encode_deleted(name, version) == bytes));
    snapshot.is_some() || deleted.is_some()
}

/// The notes that say how it stands lead there from nothing.
fn check_standing(standing: &Standing) {
    assert_eq!(fold(standing.notes()).as_ref(), Some(standing));
}

/// What notes say, after they were written and read.
fn fold(notes: impl IntoIterator<Item = Note>) -> Option<Standing> {
    notes.into_iter().fold(None, |standing, note| {
        let data = note.encode();
        let read = Note::decode(NAME, note.event_type(), &data);
        assert_eq!(read.as_ref(), Some(&note), "what was encoded is decoded");
        Standing::fold(standing, note)
    })
}

/// The subscription is used, as members would; what it notes then can be read.
fn go_on(standing: Standing) {
    let mut machine = Machine::new(standing.clone(), 0);
    let (mut now, wall) = (stopwatch(), Timestamp::new(1));
    let first = machine.join(now).expect("it is the first");
    let second = machine.join(now).expect("it is the second");
    for number in 0..DELIVERIES {
        let member = if number % 3 == 2 { second } else { first };
        now += Duration::from_secs(1);
        machine.tick(now, wall);
        match machine.take(member, now) {
            Ok(Taken::Delivery { id, .. }) if number % 4 == 0 => drop(machine.ack(member, &[id])),
            Ok(Taken::Delivery { id, .. }) if number % 4 == 1 => {
                let nack = if number % 8 == 1 { Nack::retry("later") } else { Nack::park("never") };
                let _ = machine.nack(member, id, &nack, (now, wall), 0.5);
            }
            Ok(Taken::Delivery { .. } | Taken::Nothing) => {}
            Ok(Taken::More) => offer(&mut machine),
            Err(_) => machine.resume(),
        }
        let _ = (machine.is_dirty(), machine.has_changed(), machine.next_moment(member), machine.may_give());
    }
    let parked: Vec<Position> =
        machine.outline().parked.keys().map(|&position| Position::new(position)).collect();
    let _ = machine.replay(&parked);
    machine.leave(second);
    let noted = standing.notes().chain(machine.notes());
    let outline = fold(noted).expect("it was created").outline;
    assert_eq!(&outline, machine.outline(), "what was noted is how it stands");
    machine.set_noted();
    machine.reset(Start::First, 0);
}

/// The next event matches, where there may be one: positions of events are far from the greatest number.
fn offer(machine: &mut Machine) {
    let position = machine.outline().next;
    if position < u64::MAX / 2 {
        machine.offer(Offer { position, hash: position % 3 });
    }
}
