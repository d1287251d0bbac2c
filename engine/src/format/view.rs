//! Reading a batch: where its parts are, and its events one by one.

use super::batch::{BATCH_FIXED_BYTES, Header};
use super::event::{self, Event, SaltSeed};
use super::section::{self, SECTION_FIXED_BYTES, SECTION_MUST_UNDERSTAND, SectionKind};
use super::{crc, le};
use annals_types::{Cursor, DamageKind};

/// Where the parts of a verified directory are in the body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    names_start: usize,
    sections_start: usize,
    events_start: usize,
    times_start: Option<usize>,
    seed: SaltSeed,
}

/// A batch with a verified header and directory. Events are verified one by one, or the whole body
/// at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) header: Header,
    pub(crate) shape: Shape,
    versions: &'a [u8],
    body: &'a [u8],
}

impl<'a> View<'a> {
    /// Takes apart `body`, which belongs to `header`; `versions` are what follows the fixed header.
    pub(crate) fn new(header: Header, versions: &'a [u8], body: &'a [u8]) -> Result<Self, DamageKind> {
        let (events, streams) = (header.events as usize, usize::from(header.streams));
        let names_start = 4 * (events + streams);
        let events_start = header.directory_length as usize;
        if body.len() != header.body_length as usize
            || body.len() < events_start
            || events_start < names_start
        {
            return Err(DamageKind::Malformed);
        }
        if crc(0, &body[..events_start]) != header.directory_crc {
            return Err(DamageKind::Checksum);
        }
        Self::take_apart(header, versions, body)
    }

    /// The batch that this process encoded and decided itself: `header_bytes` are its header with all that follows it.
    pub(crate) fn unverified(header_bytes: &'a [u8], body: &'a [u8]) -> Result<Self, DamageKind> {
        Self::take_apart(Header::read(header_bytes), &header_bytes[BATCH_FIXED_BYTES..], body)
    }

    fn take_apart(header: Header, versions: &'a [u8], body: &'a [u8]) -> Result<Self, DamageKind> {
        let (events, streams) = (header.events as usize, usize::from(header.streams));
        let (names_start, events_start) = (4 * (events + streams), header.directory_length as usize);
        let last_of = |at: usize, count: usize| {
            if count == 0 { 0 } else { le::u32_at(body, at + 4 * (count - 1)) as usize }
        };
        let sections_start = names_start + last_of(4 * events, streams);
        if sections_start > events_start || events_start + last_of(0, events) != body.len() {
            return Err(DamageKind::Malformed);
        }
        let seed = SaltSeed::new(&header.salt);
        let shape = Shape { names_start, sections_start, events_start, times_start: None, seed };
        let mut view = Self { header, shape, versions, body };
        view.shape.times_start = view.find_times()?;
        Ok(view)
    }

    /// The view that had this shape, without verifying the directory once more.
    pub(crate) fn resume(header: Header, shape: Shape, versions: &'a [u8], body: &'a [u8]) -> Self {
        Self { header, shape, versions, body }
    }

    fn find_times(&self) -> Result<Option<usize>, DamageKind> {
        let (mut times, mut cursors) = (None, 0);
        for section in self.sections() {
            let (kind, flags, bytes) = section?;
            if kind == SectionKind::Times as u16 && bytes.len() == 8 * self.header.events as usize {
                times = Some(bytes.as_ptr() as usize - self.body.as_ptr() as usize);
            } else if kind == SectionKind::Cursor as u16 {
                if !section::is_cursor_length(bytes.len()) {
                    return Err(DamageKind::Malformed);
                }
                cursors += 1;
            } else if flags & SECTION_MUST_UNDERSTAND != 0 {
                return Err(DamageKind::Malformed);
            }
        }
        // Each has its revision.
        if cursors == self.header.cursors { Ok(times) } else { Err(DamageKind::Malformed) }
    }

    /// The cursors that the batch sets, by name.
    pub(crate) fn cursors(&self) -> impl Iterator<Item = Result<(&'a str, Cursor), DamageKind>> + use<'a> {
        let is_cursor = |section: &Result<(u16, u16, &'a [u8]), DamageKind>| {
            section.as_ref().is_ok_and(|(kind, ..)| *kind == SectionKind::Cursor as u16)
        };
        let revisions = &self.versions[8 * usize::from(self.header.streams)..];
        self.sections().filter(is_cursor).zip(revisions.chunks_exact(8)).map(|(section, revision)| {
            let (_, _, bytes) = section?;
            section::decode_cursor(bytes, le::u64_at(revision, 0))
        })
    }

    /// Kind, flags and bytes of each section.
    pub(crate) fn sections(
        &self,
    ) -> impl Iterator<Item = Result<(u16, u16, &'a [u8]), DamageKind>> + use<'a> {
        let body = &self.body[..self.shape.events_start];
        let mut at = self.shape.sections_start;
        (0..self.header.sections).map(move |_| {
            let fixed = body.get(at..at + SECTION_FIXED_BYTES).ok_or(DamageKind::Malformed)?;
            let start = at + SECTION_FIXED_BYTES;
            let end = start + le::u32_at(fixed, 4) as usize;
            at = end;
            let bytes = body.get(start..end).ok_or(DamageKind::Malformed)?;
            Ok((le::u16_at(fixed, 0), le::u16_at(fixed, 2), bytes))
        })
    }

    /// Verifies the checksum over the whole body.
    pub(crate) fn verify_body(&self) -> Result<(), DamageKind> {
        if crc(0, self.body) == self.header.body_crc { Ok(()) } else { Err(DamageKind::Checksum) }
    }

    /// Where the event with this ordinal is in the body, not verified.
    pub(crate) fn event_range(&self, ordinal: u32) -> Result<std::ops::Range<usize>, DamageKind> {
        if ordinal >= self.header.events {
            return Err(DamageKind::Malformed);
        }
        let at = 4 * ordinal as usize;
        let start = if ordinal == 0 { 0 } else { le::u32_at(self.body, at - 4) as usize };
        let end = le::u32_at(self.body, at) as usize;
        if start > end || self.shape.events_start + end > self.body.len() {
            return Err(DamageKind::Malformed);
        }
        Ok(self.shape.events_start + start..self.shape.events_start + end)
    }

    /// Verifies and decodes an event; also says where its bytes are in the body.
    pub(crate) fn event(&self, ordinal: u32) -> Result<(Event, std::ops::Range<usize>), DamageKind> {
        let range = self.event_range(ordinal)?;
        let event = event::decode(&self.body[range.clone()], self.shape.seed, ordinal)?;
        if event.stream >= self.header.streams {
            return Err(DamageKind::Malformed);
        }
        Ok((event, range))
    }

    /// Where the name of a stream is in the body.
    pub(crate) fn name_range(&self, stream: u16) -> Result<std::ops::Range<usize>, DamageKind> {
        if stream >= self.header.streams {
            return Err(DamageKind::Malformed);
        }
        let table = 4 * self.header.events as usize;
        let end_of = |stream: usize| le::u32_at(self.body, table + 4 * stream) as usize;
        let start = if stream == 0 { 0 } else { end_of(usize::from(stream) - 1) };
        let end = end_of(usize::from(stream));
        if start > end || self.shape.names_start + end > self.shape.sections_start {
            return Err(DamageKind::Malformed);
        }
        Ok(self.shape.names_start + start..self.shape.names_start + end)
    }

    /// The name of a stream.
    pub(crate) fn name(&self, stream: u16) -> Result<&'a str, DamageKind> {
        let name = &self.body[self.name_range(stream)?];
        std::str::from_utf8(name).map_err(|_| DamageKind::Malformed)
    }

    /// First version of a stream in this batch.
    pub(crate) fn first_version(&self, stream: u16) -> u64 {
        le::u64_at(self.versions, 8 * usize::from(stream))
    }

    /// Time of an event.
    pub(crate) fn time(&self, ordinal: u32) -> u64 {
        let given =
            self.shape.times_start.map_or(0, |start| le::u64_at(self.body, start + 8 * ordinal as usize));
        given.max(self.header.time)
    }

    /// Time of its last event; its own time where it has none.
    pub(crate) fn last_time(&self) -> u64 {
        if self.header.events == 0 { self.header.time } else { self.time(self.header.events - 1) }
    }

    /// The body.
    pub(crate) fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The version of each event, up to the first that is not intact: what lies before it in the batch counts.
    pub(crate) fn versions(&self) -> Vec<u64> {
        let whole = self.verify_body().is_ok();
        let mut next: Vec<u64> = (0..self.header.streams).map(|stream| self.first_version(stream)).collect();
        (0..self.header.events)
            .map_while(|ordinal| {
                let stream = if whole {
                    self.stream_of(ordinal)
                } else {
                    self.event(ordinal).map(|(event, _)| event.stream)
                };
                let version = next.get_mut(usize::from(stream.ok()?))?;
                *version += 1;
                Some(*version - 1)
            })
            .collect()
    }

    /// The stream's ordinal of an event, not verified.
    pub(crate) fn stream_of(&self, ordinal: u32) -> Result<u16, DamageKind> {
        let bytes = &self.body[self.event_range(ordinal)?];
        if bytes.len() < event::EVENT_FIXED_BYTES {
            Err(DamageKind::Malformed)
        } else {
            Ok(event::stream_of(bytes))
        }
    }
}
