//! Which events belong to a stream: in the active segment, the closed ones, the sealed ones.

use super::core::{Core, State};
use super::locate::Locator;
use super::rebuild;
use super::sealed::{SealedSegment, SealedSegments};
use crate::format::index::StreamEntry;
use crate::index::heads::{Entry, Heads};
use crate::index::memory::MemoryIndex;
use crate::index::search::Way;
use annals_types::{Damage, Head, Position, ReadError, Version};
use std::collections::VecDeque;
use std::sync::Arc;

/// Postings fetched at a time.
pub(crate) const POSTINGS_MAX: u64 = 128;
/// Parts of a stream in sealed segments that are remembered when they are met on the way back to its beginning.
const MET_MAX: usize = 256;

/// A stream's name with its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamKey<'a> {
    pub(crate) name: &'a str,
    pub(crate) hash: u64,
}

/// A head that a look into sealed segments found, and the position that was the next then. It holds as long as nothing
/// behind that position was forgotten: what was appended since is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FoundHead {
    pub(crate) head: Option<Head>,
    seen: u64,
}

/// What is known of a stream's head without touching a sealed segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Known {
    /// It is remembered.
    Here(Entry),
    /// It is not remembered, and this for sure.
    Elsewhere(Option<Head>),
    /// Sealed segments have to be looked at.
    Cold,
}

/// Looks at the remembered heads of a store that is open for writing. `found`: what a look into sealed segments gave.
pub(crate) fn head_in_memory(heads: &mut Heads, key: StreamKey<'_>, found: Option<FoundHead>) -> Known {
    if let Some(entry) = heads.find(key.hash, key.name) {
        return Known::Here(entry);
    }
    match (heads.floor(), found) {
        (None, _) => Known::Elsewhere(None),
        (Some(floor), Some(found)) if floor < found.seen => Known::Elsewhere(found.head),
        _ => Known::Cold,
    }
}

/// The sealed segments at one moment, for a look outside the lock at a stream that is not remembered.
#[derive(Clone, Debug)]
pub(crate) struct SealedView {
    sealed: Arc<SealedSegments>,
    /// Its last event is not behind this position.
    floor: u64,
    seen: u64,
}

impl SealedView {
    pub(crate) fn new(state: &State) -> Self {
        let sealed = Arc::clone(&state.segments.sealed);
        Self { sealed, floor: state.heads.floor().unwrap_or(u64::MAX), seen: state.next_position }
    }
}

/// The damage, if any, that may hide a later event of a stream whose last known one is `head`.
fn hides(holes: &[Damage], head: Option<Head>) -> Option<&Damage> {
    let is_behind = |hole: &&Damage| match (hole.last_position, head) {
        (Some(last), Some(head)) => last > head.position,
        _ => true,
    };
    holes.iter().find(is_behind)
}

/// Looks for a stream's head in sealed segments; fails where damage may hide it. `earlier`: what a look found that holds
/// no longer; only what was appended since is looked at then, so that looks get shorter and one of them will hold.
pub(crate) fn find_head(
    core: &Core,
    view: &SealedView,
    key: StreamKey<'_>,
    earlier: Option<FoundHead>,
) -> Result<FoundHead, ReadError> {
    let (head, hidden) = known_head_in_sealed(core, view, key, earlier.map_or(0, |earlier| earlier.seen))?;
    match hidden {
        Some(damage) => Err(damage.into()),
        None => {
            let head = head.or(earlier.and_then(|earlier| earlier.head));
            Ok(FoundHead { head, seen: view.seen })
        }
    }
}

/// The last event of a stream that sealed segments show which have events at `from` or behind, and the damage that may
/// hide a later one.
fn known_head_in_sealed(
    core: &Core,
    view: &SealedView,
    key: StreamKey<'_>,
    from: u64,
) -> Result<(Option<Head>, Option<Damage>), ReadError> {
    let mut hidden = None;
    let reached = view.sealed.partition_point(|segment| segment.log.seal.first_position <= view.floor);
    let mut end = reached;
    while let Some(at) = next_part(core, &view.sealed, key.hash, end.checked_sub(1), Way::Downwards) {
        let segment = &view.sealed[at];
        end = at;
        if segment.log.seal.next_position <= from {
            break;
        }
        let found = find_sealed(core, segment, key.name, key.hash)?.map(|(entry, last)| Head {
            version: Version::new(entry.first_version + u64::from(entry.postings.count) - 1),
            position: Position::new(last),
        });
        hidden = hidden.or_else(|| hides(segment.index.holes(), found).cloned());
        if found.is_some() {
            return Ok((found, hidden));
        }
    }
    Ok((None, hidden))
}

/// The next segment, from the one `at` on in this way, that spans do not say to be without the stream.
fn next_part(core: &Core, sealed: &SealedSegments, hash: u64, at: Option<usize>, way: Way) -> Option<usize> {
    sealed.next_that_may_match(core, at?, way, |filter| filter.parts_with(hash))
}

/// Remembers a head that was found, if it still holds: else the caller looks again.
pub(crate) fn remember(core: &Core, key: StreamKey<'_>, found: FoundHead) {
    let mut state = core.state.lock();
    state.make_room_for_heads(1);
    if head_in_memory(&mut state.heads, key, Some(found)) == Known::Elsewhere(found.head) {
        state.heads.insert(key.hash, key.name, found.head, None);
    }
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
            let count = entry.postings.count;
            let last = index.layout.postings(&index.bytes, entry.postings, count.saturating_sub(1)..count)?;
            Ok((entry, first + last.first().copied().map_or(0, u64::from)))
        };
        entries.into_iter().map(with_last).collect::<Result<Vec<_>, _>>()
    })?;
    for (entry, last) in entries {
        // The hash may be another name's: the log has the name.
        if Locator::default().frame(core, last)?.stream(last)? == name {
            return Ok(Some((entry, last)));
        }
    }
    Ok(None)
}

/// The stream's last known event, durable or not, and the damage that may hide a later one.
pub(crate) fn known_head(
    core: &Core,
    key: StreamKey<'_>,
) -> Result<(Option<Head>, Option<Damage>), ReadError> {
    let (view, writing) = {
        let mut state = core.state.lock();
        let writing = state.tail.is_some();
        let known = if writing {
            match head_in_memory(&mut state.heads, key, None) {
                Known::Here(entry) => Some(state.heads.head(entry)),
                Known::Elsewhere(head) => Some(head),
                Known::Cold => None,
            }
        } else {
            let mut unsealed = state.segments.unsealed();
            unsealed.find_map(|index| index.find(key.hash, key.name).map(|number| Some(index.head(number))))
        };
        if let Some(head) = known {
            return Ok((head, hides(&state.segments.holes, head).cloned()));
        }
        (SealedView::new(&state), writing)
    };
    let (head, hidden) = known_head_in_sealed(core, &view, key, 0)?;
    let hidden = hidden.or_else(|| hides(&core.state.lock().segments.holes, head).cloned());
    if hidden.is_none() && writing {
        remember(core, key, FoundHead { head, seen: view.seen });
    }
    Ok((head, hidden))
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
    pub(crate) name: Box<str>,
    hash: u64,
    /// The sealed segment that was found last, with the stream's part of it.
    last: Option<(usize, StreamEntry)>,
    /// Those that were met on the way back to it, the next one last.
    met: VecDeque<(usize, StreamEntry)>,
}

impl StreamLookup {
    pub(crate) fn new(core: &Core, name: &str) -> Self {
        Self { name: name.into(), hash: core.hash(name), last: None, met: VecDeque::new() }
    }

    pub(crate) fn key(&self) -> StreamKey<'_> {
        StreamKey { name: &self.name, hash: self.hash }
    }

    /// A run of at most [`POSTINGS_MAX`] events with `version` at its start, or at its end where `backwards`. Empty:
    /// there is no such version.
    pub(crate) fn run(&mut self, core: &Core, version: u64, backwards: bool) -> Result<Run, ReadError> {
        let state = core.state.lock();
        for index in state.segments.unsealed() {
            if let Some(run) = run_in_memory(index, self.key(), version, backwards) {
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
        let ranks = ranks(entry.first_version, entry.postings.count, version, backwards);
        let positions = rebuild::with_index(core, segment, |index| {
            index.layout.postings(&index.bytes, entry.postings, ranks.clone())
        })?;
        let first = segment.log.seal.first_position;
        Ok(Run {
            first_version: entry.first_version + u64::from(ranks.start),
            positions: positions.into_iter().map(|position| first + u64::from(position)).collect(),
        })
    }

    /// The sealed segment that holds this version, and the stream's part of it.
    fn part(
        &mut self,
        core: &Core,
        sealed: &SealedSegments,
        version: u64,
    ) -> Result<Option<(usize, StreamEntry)>, ReadError> {
        let holds = |entry: &StreamEntry| {
            (entry.first_version..entry.first_version + u64::from(entry.postings.count)).contains(&version)
        };
        let find = |number: usize| {
            let found = find_sealed(core, &sealed[number], &self.name, self.hash)?;
            Ok::<_, ReadError>(found.map(|(entry, _)| entry))
        };
        // Reading on upwards: from the segment of the last part, which was before.
        if let Some((number, entry)) = self.last
            && version >= entry.first_version
        {
            if holds(&entry) {
                return Ok(Some((number, entry)));
            }
            if let Some((number, entry)) = self.met.pop_back().filter(|(_, entry)| holds(entry)) {
                return Ok(Some((number, entry)));
            }
            self.met.clear();
            let mut next = number + 1;
            while let Some(number) = next_part(core, sealed, self.hash, Some(next), Way::Upwards) {
                next = number + 1;
                match find(number)? {
                    Some(entry) if holds(&entry) => return Ok(Some((number, entry))),
                    Some(entry) if version < entry.first_version => return Ok(None),
                    _ => {}
                }
            }
            return Ok(None);
        }
        let mut end = self.last.map_or(sealed.len(), |(number, _)| number);
        while let Some(number) = next_part(core, sealed, self.hash, end.checked_sub(1), Way::Downwards) {
            end = number;
            if let Some(entry) = find(number)? {
                if holds(&entry) {
                    return Ok(Some((number, entry)));
                }
                if version >= entry.first_version {
                    break;
                }
                if self.met.len() == MET_MAX {
                    self.met.pop_front();
                }
                self.met.push_back((number, entry));
            }
        }
        Ok(None)
    }

    /// The segment that was looked at last, by its ordinal: whose index lacks what should be there.
    pub(crate) fn last_ordinal(&self) -> u64 {
        self.last.map_or(0, |(number, _)| number as u64) + 1
    }

    /// Position of one event; `None`: there is no such version.
    pub(crate) fn position(&mut self, core: &Core, version: u64) -> Result<Option<u64>, ReadError> {
        Ok(self.run(core, version, false)?.positions.first().copied())
    }
}

fn run_in_memory(index: &MemoryIndex, key: StreamKey<'_>, version: u64, backwards: bool) -> Option<Run> {
    let number = index.find(key.hash, key.name)?;
    let (first_version, count) = index.versions(number);
    if version < first_version {
        return None;
    }
    if version >= first_version + u64::from(count) {
        return Some(Run { first_version: version, positions: Vec::new() });
    }
    let ranks = ranks(first_version, count, version, backwards);
    Some(Run {
        first_version: first_version + u64::from(ranks.start),
        positions: index.positions(number, ranks),
    })
}

/// The ranks in a part to fetch when `version`, which it holds, is wanted.
fn ranks(first_version: u64, count: u32, version: u64, backwards: bool) -> std::ops::Range<u32> {
    let rank = u32::try_from(version - first_version).expect("a part holds less than 2^32 events");
    let most = u32::try_from(POSTINGS_MAX).expect("a small constant");
    if backwards {
        (rank + 1).saturating_sub(most)..rank + 1
    } else {
        rank..count.min(rank.saturating_add(most))
    }
}
