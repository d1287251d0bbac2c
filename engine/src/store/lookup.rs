//! Which events belong to a stream: in the active segment, the closed ones, the sealed ones.

use super::core::{Core, SealedSegment, State};
use super::locate::Locator;
use super::rebuild;
use crate::format::index::StreamEntry;
use crate::index::memory::MemoryIndex;
use annals_types::{Head, Position, ReadError, Version};
use std::sync::Arc;

/// Postings fetched at a time.
pub(crate) const POSTINGS_MAX: u64 = 128;

/// A stream's name with its hash.
#[derive(Clone, Debug)]
pub(crate) struct StreamKey {
    pub(crate) name: Box<str>,
    pub(crate) hash: u64,
}

/// What is known of a head without touching a sealed segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Known {
    Head(Option<Head>),
    /// Sealed segments have to be looked at.
    Cold,
}

/// Looks at the unsealed segments and the remembered heads.
pub(crate) fn head_in_memory(state: &State, name: &str, hash: u64) -> Known {
    let find = |index: &MemoryIndex| index.find(hash, name).map(|number| index.head(number));
    if let Some(head) = state.segments.active.as_ref().and_then(|active| find(&active.index)) {
        return Known::Head(Some(head));
    }
    if let Some(head) = state.segments.closed.iter().rev().find_map(|closed| find(&closed.index)) {
        return Known::Head(Some(head));
    }
    if state.segments.sealed.is_empty() {
        return Known::Head(None);
    }
    state.heads.get(hash, name).map_or(Known::Cold, Known::Head)
}

/// Looks at the sealed segments, and remembers the result, unless a segment was closed meanwhile: then what was
/// found may be old, and the caller looks again.
pub(crate) fn warm(core: &Core, name: &str, hash: u64) -> Result<(), ReadError> {
    let (sealed, begun) = {
        let state = core.state.lock();
        if head_in_memory(&state, name, hash) != Known::Cold {
            return Ok(());
        }
        (Arc::clone(&state.segments.sealed), last_begun(&state))
    };
    let mut head = None;
    for segment in sealed.iter().rev() {
        if let Some((entry, last)) = find_sealed(core, segment, name, hash)? {
            let version = entry.first_version + u64::from(entry.postings) - 1;
            head = Some(Head { version: Version::new(version), position: Position::new(last) });
            break;
        }
    }
    let mut state = core.state.lock();
    if last_begun(&state) == begun && state.heads.get(hash, name).is_none() {
        let forgotten = state.heads.insert(hash, name, head);
        drop(state);
        drop(forgotten);
    }
    Ok(())
}

fn last_begun(state: &State) -> Option<u64> {
    state.segments.active.as_ref().map(|active| active.log.header.ordinal)
}

/// The stream's entry in a sealed segment's index, and the position of its last event there.
fn find_sealed(
    core: &Core,
    segment: &Arc<SealedSegment>,
    name: &str,
    hash: u64,
) -> Result<Option<(StreamEntry, u64)>, ReadError> {
    let first = segment.log.seal.first_position;
    let entries = rebuild::with_index(core, segment, |index| {
        if !index.layout.may_hold(&index.bytes, hash)? {
            return Ok(Vec::new());
        }
        let entries = index.layout.streams_of(&index.bytes, hash)?;
        let with_last = |entry: StreamEntry| {
            let last = entry.postings.saturating_sub(1)..entry.postings;
            let last = index.layout.postings(&index.bytes, &entry, last)?;
            Ok((entry, first + last.first().copied().map_or(0, u64::from)))
        };
        entries.into_iter().map(with_last).collect::<Result<Vec<_>, _>>()
    })?;
    for (entry, last) in entries {
        // The hash may be another name's: the log has the name.
        if Locator::default().frame(core, last)?.record(last)?.stream() == name {
            return Ok(Some((entry, last)));
        }
    }
    Ok(None)
}

/// The stream's last event, durable or not.
pub(crate) fn head(core: &Core, name: &str, hash: u64) -> Result<Option<Head>, ReadError> {
    loop {
        let known = head_in_memory(&core.state.lock(), name, hash);
        match known {
            Known::Head(head) => return Ok(head),
            Known::Cold => warm(core, name, hash)?,
        }
    }
}

/// Versions and positions of a stream's events that follow one another in one segment, ascending.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) first_version: u64,
    pub(crate) positions: Vec<u64>,
}

/// Finds a stream's events by version; remembers where the last ones were.
#[derive(Debug)]
pub(crate) struct StreamLookup {
    pub(crate) key: StreamKey,
    /// The sealed segment that was found last, with the stream's part of it.
    last: Option<(usize, StreamEntry)>,
}

impl StreamLookup {
    pub(crate) fn new(core: &Core, name: &str) -> Self {
        Self { key: StreamKey { name: name.into(), hash: core.hash(name) }, last: None }
    }

    /// A run of at most [`POSTINGS_MAX`] events with `version` at its start, or at its end where `backwards`. Empty:
    /// there is no such version.
    pub(crate) fn run(&mut self, core: &Core, version: u64, backwards: bool) -> Result<Run, ReadError> {
        let state = core.state.lock();
        let indexes = state.segments.active.iter().map(|active| &active.index);
        for index in indexes.chain(state.segments.closed.iter().rev().map(|closed| &closed.index)) {
            if let Some(run) = run_in_memory(index, &self.key, version, backwards) {
                return Ok(run);
            }
        }
        let sealed = Arc::clone(&state.segments.sealed);
        drop(state);
        let Some((number, entry)) = self.part(core, &sealed, version)? else {
            return Ok(Run { first_version: version, positions: Vec::new() });
        };
        self.last = Some((number, entry));
        let segment = &sealed[number];
        let ranks = ranks(entry.first_version, entry.postings, version, backwards);
        let positions = rebuild::with_index(core, segment, |index| {
            index.layout.postings(&index.bytes, &entry, ranks.clone())
        })?;
        let first = segment.log.seal.first_position;
        Ok(Run {
            first_version: entry.first_version + u64::from(ranks.start),
            positions: positions.into_iter().map(|position| first + u64::from(position)).collect(),
        })
    }

    /// The sealed segment that holds this version, and the stream's part of it.
    fn part(
        &self,
        core: &Core,
        sealed: &[Arc<SealedSegment>],
        version: u64,
    ) -> Result<Option<(usize, StreamEntry)>, ReadError> {
        let holds = |entry: &StreamEntry| {
            (entry.first_version..entry.first_version + u64::from(entry.postings)).contains(&version)
        };
        let find = |number: usize| {
            let found = find_sealed(core, &sealed[number], &self.key.name, self.key.hash)?;
            Ok::<_, ReadError>(found.map(|(entry, _)| entry))
        };
        // Reading on upwards: from the segment of the last part, which was before.
        if let Some((number, entry)) = self.last
            && version >= entry.first_version
        {
            if holds(&entry) {
                return Ok(Some((number, entry)));
            }
            for number in number + 1..sealed.len() {
                if let Some(entry) = find(number)? {
                    return Ok(holds(&entry).then_some((number, entry)));
                }
            }
            return Ok(None);
        }
        let end = self.last.map_or(sealed.len(), |(number, _)| number);
        for number in (0..end).rev() {
            if let Some(entry) = find(number)? {
                if holds(&entry) {
                    return Ok(Some((number, entry)));
                }
                if version >= entry.first_version {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// Position of one event; `None`: there is no such version.
    pub(crate) fn position(&mut self, core: &Core, version: u64) -> Result<Option<u64>, ReadError> {
        Ok(self.run(core, version, false)?.positions.first().copied())
    }
}

fn run_in_memory(index: &MemoryIndex, key: &StreamKey, version: u64, backwards: bool) -> Option<Run> {
    let number = index.find(key.hash, &key.name)?;
    let (first_version, count) = index.versions(number);
    if version < first_version {
        return None;
    }
    if version >= first_version + u64::from(count) {
        return Some(Run { first_version: version, positions: Vec::new() });
    }
    let ranks = ranks(first_version, count, version, backwards);
    let count = ranks.len();
    Some(Run {
        first_version: first_version + u64::from(ranks.start),
        positions: index.postings(number, ranks.start).take(count).collect(),
    })
}

/// The ranks in a part to fetch when `version`, which it holds, is wanted.
fn ranks(first_version: u64, count: u32, version: u64, backwards: bool) -> std::ops::Range<u32> {
    let rank = u32::try_from(version - first_version).expect("a part holds less than 2^32 events");
    let most = u32::try_from(POSTINGS_MAX).expect("a small constant");
    if backwards { (rank + 1).saturating_sub(most)..rank + 1 } else { rank..count.min(rank.saturating_add(most)) }
}
