//! Every stream of a store, in the order of their names' hashes, with bounded memory.

use super::core::Core;
use super::locate::Locator;
use super::lookup::{self, StreamKey};
use super::rebuild;
use super::sealed::SealedSegment;
use crate::format::index::StreamEntry;
use annals_types::{Damage, Head, ReadError};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// Entries fetched from a segment's index at a time.
const ENTRIES: usize = 256;

/// All streams with their heads, in no particular order. Memory does not grow with their number, but for the
/// streams of segments that are not sealed.
pub struct Streams {
    core: Arc<Core>,
    /// Streams of the unsealed segments, by hash.
    recent: BTreeMap<u64, Vec<Box<str>>>,
    sealed: Vec<SealedStreams>,
    /// Names that share the hash that is reached, and were not given yet.
    ready: Vec<Box<str>>,
    /// What may hide streams; told at the end.
    holes: Vec<Damage>,
}

/// Walks a sealed segment's streams by hash.
struct SealedStreams {
    segment: Arc<SealedSegment>,
    entries: Vec<StreamEntry>,
    /// Number of the first of `entries`, and of the one that is next.
    first: usize,
    next: usize,
}

impl Streams {
    pub(crate) fn new(core: &Arc<Core>) -> Result<Self, ReadError> {
        super::read_only::refresh(core)?;
        let mut recent: BTreeMap<u64, Vec<Box<str>>> = BTreeMap::new();
        let state = core.state.lock();
        for index in state.segments.unsealed() {
            for (hash, _, name) in index.streams() {
                recent.entry(hash).or_default().push(name.into());
            }
        }
        let sealed = state.segments.sealed.iter().map(|segment| SealedStreams {
            segment: Arc::clone(segment),
            entries: Vec::new(),
            first: 0,
            next: 0,
        });
        Ok(Self {
            core: Arc::clone(core),
            recent,
            sealed: sealed.collect(),
            ready: Vec::new(),
            holes: state.segments.holes.clone(),
        })
    }

    /// The names of the next greater hash; empty: no more.
    fn next_names(&mut self) -> Result<Vec<Box<str>>, ReadError> {
        let mut least = self.recent.keys().next().copied();
        for sealed in &mut self.sealed {
            let hash = sealed.peek(&self.core)?.map(|entry| entry.hash);
            least = match (least, hash) {
                (Some(least), Some(hash)) => Some(least.min(hash)),
                (least, hash) => least.or(hash),
            };
        }
        let Some(hash) = least else { return Ok(Vec::new()) };
        let mut names: HashSet<Box<str>> =
            self.recent.remove(&hash).unwrap_or_default().into_iter().collect();
        for sealed in &mut self.sealed {
            while let Some(entry) = sealed.peek(&self.core)?.filter(|entry| entry.hash == hash) {
                sealed.next += 1;
                names.insert(sealed.name(&self.core, &entry)?);
            }
        }
        Ok(names.into_iter().collect())
    }

    fn next_stream(&mut self) -> Result<Option<(String, Head)>, ReadError> {
        let durable = self.core.watermark.position();
        loop {
            let Some(name) = self.ready.pop() else {
                self.ready = self.next_names()?;
                if self.ready.is_empty() {
                    for sealed in std::mem::take(&mut self.sealed) {
                        self.holes.extend_from_slice(sealed.segment.index.holes());
                    }
                    return self.holes.pop().map_or(Ok(None), |damage| Err(damage.into()));
                }
                continue;
            };
            let key = StreamKey { name: &name, hash: self.core.hash(&name) };
            let (head, _) = lookup::known_head(&self.core, key)?;
            // What is on its way to the device is not there yet: the head that is, is the last event before.
            let head = match head {
                Some(head) if head.position.get() >= durable => durable_head(&self.core, &name)?,
                other => other,
            };
            if let Some(head) = head {
                return Ok(Some((name.into(), head)));
            }
        }
    }
}

/// The stream's last durable event.
pub(crate) fn durable_head(core: &Arc<Core>, name: &str) -> Result<Option<Head>, ReadError> {
    let read = annals_types::Read::stream(name).backwards().limit(1);
    let last = super::read::Reader::new(core, &read)?.next().transpose()?;
    Ok(last.map(|record| Head { version: record.version(), position: record.position() }))
}

impl SealedStreams {
    /// The entry that is next.
    fn peek(&mut self, core: &Core) -> Result<Option<StreamEntry>, ReadError> {
        if self.next >= self.first + self.entries.len() {
            let next = self.next;
            self.entries = rebuild::with_index(core, &self.segment, |index| {
                let end = (next + ENTRIES).min(index.layout.streams());
                index.layout.streams_in(&index.bytes, next.min(end)..end)
            })?;
            self.first = next;
        }
        Ok(self.entries.get(self.next - self.first).copied())
    }

    /// The name of an entry's stream, which the log has.
    fn name(&self, core: &Core, entry: &StreamEntry) -> Result<Box<str>, ReadError> {
        let first = rebuild::with_index(core, &self.segment, |index| {
            index.layout.postings(&index.bytes, entry.postings, 0..1)
        })?;
        let position = self.segment.log.seal.first_position + first.first().copied().map_or(0, u64::from);
        Ok(Locator::default().frame(core, position)?.stream(position)?.into())
    }
}

impl Iterator for Streams {
    type Item = Result<(String, Head), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_stream().transpose()
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}
