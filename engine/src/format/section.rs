//! Sections: the parts of a batch that not every batch has. A kind (2), flags (2), a length (4), and so many bytes.

use super::{le, len_u32};
use annals_types::{Cursor, DamageKind, Position, limits};
use std::ops::Range;

/// Length of a section's header.
pub(crate) const SECTION_FIXED_BYTES: usize = 8;
/// Flag of a section that a reader must understand.
pub(crate) const SECTION_MUST_UNDERSTAND: u16 = 1;

/// Kinds of sections. Reserved for what later releases write, so that nobody gives the numbers another meaning:
/// 4 control, 5 encryption key id, 6 event salts (of a batch from which
/// an event was erased), 7 digests of erased events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(crate) enum SectionKind {
    /// A time for each event (8 bytes each), ascending.
    Times = 1,
    /// A cursor that is set: how many events are handled (8), its name.
    Cursor = 3,
}

/// Begins a section, which goes on with so many bytes.
pub(super) fn begin(buffer: &mut Vec<u8>, kind: SectionKind, length: usize) {
    buffer.extend_from_slice(&(kind as u16).to_le_bytes());
    buffer.extend_from_slice(&SECTION_MUST_UNDERSTAND.to_le_bytes());
    buffer.extend_from_slice(&len_u32(length).to_le_bytes());
}

/// Length of a cursor's section before its name.
pub(super) const CURSOR_FIXED_BYTES: usize = 8;
/// Revisions that a cursor can have: there is always a next one.
const REVISIONS: Range<u64> = 1..u64::MAX;

/// A cursor's position, as the number of events that are handled; 0: none.
pub(super) fn handled(position: Option<Position>) -> u64 {
    position.map_or(0, |position| position.get().saturating_add(1))
}

/// The cursor that has handled so many events. `None`: it cannot have this revision.
pub(super) fn cursor(handled: u64, revision: u64) -> Option<Cursor> {
    let position = handled.checked_sub(1).map(Position::new);
    REVISIONS.contains(&revision).then_some(Cursor { position, revision })
}

/// Adds the section of a cursor that is set.
pub(super) fn put_cursor(buffer: &mut Vec<u8>, name: &str, position: Option<Position>) {
    begin(buffer, SectionKind::Cursor, CURSOR_FIXED_BYTES + name.len());
    buffer.extend_from_slice(&handled(position).to_le_bytes());
    buffer.extend_from_slice(name.as_bytes());
}

/// Whether a cursor's section may be this long.
pub(super) fn is_cursor_length(length: usize) -> bool {
    let name_bytes = length.checked_sub(CURSOR_FIXED_BYTES);
    name_bytes.is_some_and(|count| (1..=limits::CURSOR_NAME_BYTES_MAX).contains(&count))
}

/// The name and place of a cursor, from its section and its revision in the batch's header.
pub(super) fn decode_cursor(section: &[u8], revision: u64) -> Result<(&str, Cursor), DamageKind> {
    let (fixed, name) = section.split_at_checked(CURSOR_FIXED_BYTES).ok_or(DamageKind::Malformed)?;
    let name = std::str::from_utf8(name).map_err(|_| DamageKind::Malformed)?;
    Ok((name, cursor(le::u64_at(fixed, 0), revision).ok_or(DamageKind::Malformed)?))
}
