//! A batch: by itself, and what must hold of any that was understood.

use super::resealed;
use crate::format::batch::{self, BATCH_FIXED_BYTES, Decided, Header, View};
use crate::format::digest::BatchDigests;
use crate::format::le;
use crate::format::section::SectionKind;
use crate::{Append, DamageKind, NewEvent, Timestamp, Uuid, limits};
use std::borrow::Cow;

/// What says the same in other bytes is compared up to this length.
const SAID_AGAIN_BYTES_MAX: usize = 1 << 20;

/// Takes bytes for a batch, with the right checksums and length, too. Returns how many events were understood.
#[must_use]
pub fn batch(bytes: &[u8]) -> usize {
    let sealed = resealed(bytes, reseal);
    take_apart(bytes).unwrap_or(0).max(take_apart(&sealed).unwrap_or(0))
}

/// A batch that holds this, as the first of a store with the nil id. What [`batch`] takes apart.
#[must_use]
pub fn batch_of(append: &Append<'_>) -> Vec<u8> {
    let mut bytes = encode(append, 0);
    let _ = decide_first(&mut bytes);
    bytes
}

/// The batch behind so much room, but for what is decided.
pub(super) fn encode(append: &Append<'_>, room: usize) -> Vec<u8> {
    let ids: Vec<Uuid> = append.events.iter().map(|event| event.id.unwrap_or_default()).collect();
    let mut bytes = batch::encode(append, Uuid::nil(), [7; 16], &ids, room, Vec::new()).bytes;
    (0..append.advances.len()).for_each(|cursor| batch::put_revision(&mut bytes[room..], cursor, 1));
    bytes
}

pub(super) fn decide_first(batch: &mut [u8]) -> u32 {
    batch::decide(batch, Decided { epoch: 1, number: 0, first_position: 0, time: 1 })
}

fn reseal(bytes: &mut [u8]) {
    if bytes.len() < BATCH_FIXED_BYTES {
        return;
    }
    if let Some((header, body)) = bytes.split_at_mut_checked(batch::header_bytes(bytes)) {
        batch::state_body_bytes(header, u32::try_from(body.len()).unwrap_or(u32::MAX));
        batch::reseal_events(header, body);
        let _ = batch::reseal_header(header, body);
    }
}

fn take_apart(bytes: &[u8]) -> Result<usize, DamageKind> {
    Ok(check(&view_of(bytes)?))
}

fn view_of(bytes: &[u8]) -> Result<View<'_>, DamageKind> {
    let header = Header::decode(bytes)?;
    let (start, body) = bytes.split_at(header.header_bytes());
    View::new(header, &start[BATCH_FIXED_BYTES..], body)
}

/// Asserts what must hold of a batch whose header and directory are sound; returns how many of its events are.
pub(super) fn check(view: &View<'_>) -> usize {
    let header = &view.header;
    assert!(header.next_position() >= header.first_position);
    assert!(view.last_time() >= header.time);
    assert!(view.versions().len() <= header.events as usize);
    for stream in 0..header.streams {
        if let Ok(range) = view.name_range(stream) {
            assert!(range.end <= view.body().len());
        }
        let _ = (view.name(stream), view.first_version(stream));
    }
    for (_, cursor) in view.cursors().flatten() {
        assert!((1..u64::MAX).contains(&cursor.revision), "there is always a next revision");
    }
    let _ = BatchDigests::default().one(view);
    if let Some(again) = said_again(view) {
        let view = view_of(&again).expect("what was encoded is decoded");
        assert_eq!(view.verify_body(), Ok(()));
        assert_eq!(said_again(&view).as_ref(), Some(&again), "what was understood is said again alike");
    }
    (0..header.events).filter(|&ordinal| check_event(view, ordinal)).count()
}

/// Whether an event is sound; asserts what must hold then.
fn check_event(view: &View<'_>, ordinal: u32) -> bool {
    let Ok((event, at)) = view.event(ordinal) else { return false };
    assert!(at.end <= view.body().len() && event.stream < view.header.streams);
    let parts = [&event.event_type, &event.tags, &event.data, &event.metadata];
    assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start), "parts follow one another");
    assert_eq!(event.metadata.end, at.len());
    assert!(view.time(ordinal) >= view.header.time);
    true
}

/// The batch, encoded anew from what it says. `None`: something of it is not sound, or is not what an append can say.
fn said_again(view: &View<'_>) -> Option<Vec<u8>> {
    let (append, ids) = append_of(view)?;
    if batch::encoded_bytes(&append) > SAID_AGAIN_BYTES_MAX {
        return None;
    }
    let header = &view.header;
    let encoded = batch::encode(&append, header.store, header.salt, &ids, 0, Vec::new());
    let mut bytes = encoded.bytes;
    for (ordinal, stream) in encoded.streams.iter().enumerate() {
        let name = &*append.events[stream.first_event as usize].stream;
        let before =
            (0..header.streams).find(|&before| view.name(before).is_ok_and(|other| other == name))?;
        batch::put_first_version(&mut bytes, ordinal, view.first_version(before));
    }
    for (ordinal, cursor) in view.cursors().enumerate() {
        batch::put_revision(&mut bytes, ordinal, cursor.ok()?.1.revision);
    }
    let Header { epoch, number, first_position, time, .. } = *header;
    batch::decide(&mut bytes, Decided { epoch, number, first_position, time });
    Some(bytes)
}

/// What was appended, and the ids of its events.
fn append_of<'a>(view: &View<'a>) -> Option<(Append<'a>, Vec<Uuid>)> {
    let (mut append, mut ids) = (Append::new(), Vec::new());
    let is_timed =
        view.sections().any(|section| section.is_ok_and(|(kind, ..)| kind == SectionKind::Times as u16));
    for ordinal in 0..view.header.events {
        let (event, id) = event_of(view, ordinal)?;
        append.events.push(NewEvent { time: event.time.filter(|_| is_timed), ..event });
        ids.push(id);
    }
    if is_timed && !append.events.is_sorted_by_key(|event| event.time) {
        return None;
    }
    for cursor in view.cursors() {
        let (name, cursor) = cursor.ok()?;
        append = append.advance(name, cursor.position);
    }
    Some((append, ids))
}

fn event_of<'a>(view: &View<'a>, ordinal: u32) -> Option<(NewEvent<'a>, Uuid)> {
    let (event, at) = view.event(ordinal).ok()?;
    let bytes = &view.body()[at];
    let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).ok();
    let (mut tags, mut rest) = (Vec::new(), &bytes[event.tags]);
    while !rest.is_empty() {
        let (length, tail) = rest.split_at_checked(2)?;
        let (tag, tail) = tail.split_at_checked(usize::from(le::u16_at(length, 0)))?;
        tags.push(text(tag)?.into());
        rest = tail;
    }
    let said = NewEvent {
        stream: view.name(event.stream).ok()?.into(),
        event_type: text(&bytes[event.event_type])?.into(),
        id: None,
        data: Cow::Borrowed(&bytes[event.data]),
        metadata: Cow::Borrowed(&bytes[event.metadata]),
        content: event.content,
        tags,
        correlation: event.correlation,
        causation: event.causation,
        time: Some(Timestamp::new(view.time(ordinal))),
    };
    (said.tags.len() <= limits::TAGS_MAX).then_some((said, event.id))
}
