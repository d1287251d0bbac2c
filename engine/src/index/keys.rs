//! The keys that an event is found by, besides its stream.

use crate::format::batch::View;
use crate::format::key::{KeyKind, hash_key};
use crate::format::le;
use annals_types::{DamageKind, NewEvent, Uuid, category};

/// Calls `note` with the hash of each key of an event that is appended.
pub(crate) fn of_new(store: Uuid, event: &NewEvent<'_>, mut note: impl FnMut(u64)) {
    note(hash_key(store, KeyKind::Category, category(&event.stream).as_bytes()));
    note(hash_key(store, KeyKind::Type, event.event_type.as_bytes()));
    event.tags.iter().for_each(|tag| note(hash_key(store, KeyKind::Tag, tag.as_bytes())));
    of_ids(store, event.correlation, event.causation, note);
}

/// The hash of an event's own id.
pub(crate) fn hash_id(store: Uuid, id: Uuid) -> u64 {
    hash_key(store, KeyKind::Id, id.as_bytes())
}

/// Calls `note` with the hash of each key of a stored event; returns the ordinal of its stream and the hash of its id.
pub(crate) fn of_stored(
    store: Uuid,
    view: &View<'_>,
    ordinal: u32,
    mut note: impl FnMut(u64),
) -> Result<(u16, u64), DamageKind> {
    let (event, range) = view.event(ordinal)?;
    let bytes = &view.body()[range];
    note(hash_key(store, KeyKind::Category, category(view.name(event.stream)?).as_bytes()));
    note(hash_key(store, KeyKind::Type, &bytes[event.event_type.clone()]));
    let mut tags = &bytes[event.tags.clone()];
    while !tags.is_empty() {
        let end = 2 + tags.get(..2).map_or(0, |length| usize::from(le::u16_at(length, 0)));
        note(hash_key(store, KeyKind::Tag, tags.get(2..end).ok_or(DamageKind::Malformed)?));
        tags = &tags[end..];
    }
    of_ids(store, event.correlation, event.causation, note);
    Ok((event.stream, hash_id(store, event.id)))
}

fn of_ids(store: Uuid, correlation: Option<Uuid>, causation: Option<Uuid>, mut note: impl FnMut(u64)) {
    if let Some(id) = correlation {
        note(hash_key(store, KeyKind::Correlation, id.as_bytes()));
    }
    if let Some(id) = causation {
        note(hash_key(store, KeyKind::Causation, id.as_bytes()));
    }
}
