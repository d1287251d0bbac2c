//! The lines of a chunk, parsed on the thread that reads them: the one that judges and appends is the
//! busier of the two.

use crate::json::{BadEvent, parse_event};
use crate::lines::Chunk;
use annals::{NewEvent, Uuid};
use self_cell::self_cell;
use sha2::{Digest, Sha256};

/// One line that is not blank.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Its number in the file, from 1.
    pub(super) number: u64,
    /// Names of its fields that no event has.
    pub(super) unknown: Vec<String>,
    /// Its event, unless it is bad.
    pub(super) event: Result<Identified<'a>, BadEvent>,
}

/// An event with an id, given by its line or following from it.
#[derive(Debug)]
pub(super) struct Identified<'a> {
    /// The event, its id included.
    pub(super) event: NewEvent<'a>,
    /// Its id.
    pub(super) id: Uuid,
    /// The line gives the id.
    pub(super) is_id_given: bool,
}

type LinesOf<'a> = Vec<Line<'a>>;

self_cell!(
    /// A chunk and its lines, which borrow from it.
    pub(super) struct ParsedChunk {
        owner: Chunk,
        #[covariant]
        dependent: LinesOf,
    }
);

impl ParsedChunk {
    /// Parses every line of a chunk that is not blank.
    pub(super) fn of(chunk: Chunk) -> Self {
        Self::new(chunk, |chunk| {
            let is_blank = |line: &[u8]| line.iter().all(u8::is_ascii_whitespace);
            let lines = chunk.lines().filter(|(_, line)| !is_blank(line));
            lines.map(|(number, line)| Line::parse(number, line)).collect()
        })
    }

    /// Gives the lines to `take`, once: what it makes of them may borrow from the chunk.
    pub(super) fn take_lines<T>(mut self, take: impl for<'a> FnOnce(Vec<Line<'a>>) -> T) -> T {
        self.with_dependent_mut(|_, lines| take(std::mem::take(lines)))
    }
}

impl<'a> Line<'a> {
    fn parse(number: u64, text: &'a [u8]) -> Self {
        let (unknown, event) = match parse_event(text) {
            Ok(mut parsed) => (parsed.take_unknown(), parsed.into_event()),
            Err(error) => (Vec::new(), Err(error)),
        };
        Self { number, unknown, event: event.map(|event| Identified::new(event, number, text)) }
    }
}

impl<'a> Identified<'a> {
    fn new(event: NewEvent<'a>, number: u64, text: &[u8]) -> Self {
        let is_id_given = event.id.is_some();
        let id = event.id.unwrap_or_else(|| line_id(number, text));
        Self { event: NewEvent { id: Some(id), ..event }, id, is_id_given }
    }
}

/// The id of a line without one: a UUIDv8 of its number and its bytes. The same line in the same
/// place is the same event, whenever and in whatever batch it is imported.
fn line_id(number: u64, line: &[u8]) -> Uuid {
    let hash = Sha256::new().chain_update(number.to_le_bytes()).chain_update(line).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Uuid::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_lines_are_uuids_of_number_and_text() {
        let id = line_id(1, b"{}");
        assert_eq!(id.get_version_num(), 8);
        assert_eq!(id.get_variant().to_string(), "RFC4122");
        assert_eq!(id, line_id(1, b"{}"));
        assert_ne!(id, line_id(2, b"{}"));
        assert_ne!(id, line_id(1, b"{} "));
        // Ids of earlier imports must stay what they were, or importing again would add everything twice.
        assert_eq!(id.to_string(), "04cef4ef-7987-8474-99a9-d011f9f3c888");
    }
}
