//! Which events of an import are in the store already.
//!
//! Ids of events are given by their lines, or follow from line number and text. So the events of an
//! earlier run of the same file are there with the same ids, in the same order, in each stream:
//! a walk over the stored ids of each stream finds nearly all of them without remembering anything.
//! Only where a line and the walk disagree are all ids of that stream taken into memory.
//!
//! The store's id window would not do: an import of more events than it holds, begun again, would add the first ones twice.
//! Nor would a cursor of the store: it says how many lines were taken, and not that the file is still the same before them.

use crate::failure::Failure;
use crate::source::Source;
use annals::{NewEvent, Read, Uuid, Version};
use hashbrown::hash_map::EntryRef;
use hashbrown::{HashMap, HashSet};
use std::ops::Range;

/// Ids that a walk loads at once.
const IDS_AT_ONCE: u64 = 64;

/// What the store holds, as far as this module asks.
pub(super) trait Stored {
    /// How many events a stream has.
    fn count(&self, stream: &str) -> Result<u64, Failure>;
    /// Calls `take` with the id of each event of these versions, in order.
    fn ids(&self, stream: &str, versions: Range<u64>, take: &mut dyn FnMut(Uuid)) -> Result<(), Failure>;
    /// Whether the stored event has all that this one has, but for its time.
    fn is_same(&self, stream: &str, version: u64, event: &NewEvent<'_>) -> Result<bool, Failure>;
}

/// What is known about an event before it is appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is not in the store.
    New,
    /// It is in the store.
    Repeated,
    /// Another event with its id is in the store: the version of that.
    Conflict(u64),
    /// Its id was given before in this very run. Once what was sent is settled, ask again.
    Unsettled,
}

/// Every stream met in a run, with what it held before, and every id that was given.
#[derive(Debug)]
pub(super) struct Known {
    /// A store without events cannot hold any of these, so nothing needs to be looked up.
    store_was_empty: bool,
    streams: HashMap<String, Option<Box<StoredIds>>>,
    /// Fingerprints of the ids that lines gave. Ids that follow from line numbers cannot come twice.
    given: HashSet<u64>,
}

impl Known {
    /// Begins with what is in the store.
    pub(super) fn new(store_was_empty: bool) -> Self {
        Self { store_was_empty, streams: HashMap::new(), given: HashSet::new() }
    }

    /// Streams met in this run.
    pub(super) fn streams(&self) -> u64 {
        self.streams.len() as u64
    }

    /// Judges an event by its id, which its line gave (`is_given`) or which follows from the line.
    pub(super) fn judge(
        &mut self,
        stored: &impl Stored,
        event: &NewEvent<'_>,
        id: Uuid,
        is_given: bool,
    ) -> Result<Verdict, Failure> {
        let stream = &*event.stream;
        let ids = match self.streams.entry_ref(stream) {
            EntryRef::Occupied(entry) => entry.into_mut(),
            EntryRef::Vacant(entry) => {
                let count = if self.store_was_empty { 0 } else { stored.count(stream)? };
                entry.insert((count > 0).then(|| Box::new(StoredIds::new(count))))
            }
        };
        if is_given && !self.given.insert(fingerprint(id)) {
            return Ok(Verdict::Unsettled);
        }
        let Some(ids) = ids else { return Ok(Verdict::New) };
        match ids.find_next(stored, stream, id)? {
            Some(version) if is_given => verdict(stored, version, event),
            Some(_) => Ok(Verdict::Repeated),
            None => Ok(Verdict::New),
        }
    }

    /// Judges an event whose id was given before in this run, once everything sent is in the store.
    pub(super) fn judge_settled(
        &mut self,
        stored: &impl Stored,
        event: &NewEvent<'_>,
        id: Uuid,
    ) -> Result<Verdict, Failure> {
        let stream = &*event.stream;
        let ids = self.streams.entry_ref(stream).or_insert(None);
        let ids = ids.get_or_insert_with(|| Box::new(StoredIds::new(0)));
        match ids.find_anywhere(stored, stream, id)? {
            Some(version) => verdict(stored, version, event),
            None => Ok(Verdict::New),
        }
    }
}

fn verdict(stored: &impl Stored, version: u64, event: &NewEvent<'_>) -> Result<Verdict, Failure> {
    let is_same = stored.is_same(&event.stream, version, event)?;
    Ok(if is_same { Verdict::Repeated } else { Verdict::Conflict(version) })
}

/// A short stand-in for an id. Two ids may share one: whoever finds it looks closer.
fn fingerprint(id: Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    high.rotate_left(32) ^ low
}

/// The ids of one stream: those stored before the run, followed by a walk; or all of them.
#[derive(Debug)]
struct StoredIds {
    /// Version where the walk is.
    next: u64,
    /// The first version that was not there before the run.
    end: u64,
    /// The last ids loaded, the one where the walk is last.
    ahead: Vec<Uuid>,
    /// Every id up to `all_end`, once a line and the walk disagreed.
    all: Option<HashMap<Uuid, u64>>,
    all_end: u64,
}

impl StoredIds {
    fn new(end: u64) -> Self {
        Self { next: 0, end, ahead: Vec::new(), all: None, all_end: 0 }
    }

    /// The version with this id, most likely that where the walk is.
    fn find_next(&mut self, stored: &impl Stored, stream: &str, id: Uuid) -> Result<Option<u64>, Failure> {
        if let Some(all) = &self.all {
            return Ok(all.get(&id).copied());
        }
        if self.next == self.end {
            // Everything stored was met already, and no line comes twice.
            return Ok(None);
        }
        if self.ahead.is_empty() {
            let until = self.end.min(self.next + IDS_AT_ONCE);
            stored.ids(stream, self.next..until, &mut |id| self.ahead.push(id))?;
            self.ahead.reverse();
        }
        if self.ahead.last() != Some(&id) {
            self.ahead = Vec::new();
            return Ok(self.load_until(stored, stream, self.end)?.get(&id).copied());
        }
        self.ahead.pop();
        if self.ahead.is_empty() {
            // Streams that are finished for long should hold no memory.
            self.ahead = Vec::new();
        }
        self.next += 1;
        Ok(Some(self.next - 1))
    }

    /// The version with this id among all that the stream has by now.
    fn find_anywhere(
        &mut self,
        stored: &impl Stored,
        stream: &str,
        id: Uuid,
    ) -> Result<Option<u64>, Failure> {
        if let Some(version) = self.all.as_ref().and_then(|all| all.get(&id)) {
            return Ok(Some(*version));
        }
        let count = stored.count(stream)?;
        Ok(self.load_until(stored, stream, count)?.get(&id).copied())
    }

    /// Every id before version `end`.
    fn load_until(
        &mut self,
        stored: &impl Stored,
        stream: &str,
        end: u64,
    ) -> Result<&HashMap<Uuid, u64>, Failure> {
        let all = self.all.get_or_insert_default();
        if self.all_end < end {
            let mut version = self.all_end;
            stored.ids(stream, self.all_end..end, &mut |id| {
                all.insert(id, version);
                version += 1;
            })?;
            self.all_end = end;
        }
        Ok(all)
    }
}

impl Stored for Source {
    fn count(&self, stream: &str) -> Result<u64, Failure> {
        Ok(self.head(stream)?.map_or(0, |head| head.version.plus(1).get()))
    }

    fn ids(&self, stream: &str, versions: Range<u64>, take: &mut dyn FnMut(Uuid)) -> Result<(), Failure> {
        let count = versions.end - versions.start;
        for record in self.read(Read::stream(stream).from(Version::new(versions.start)).limit(count))? {
            take(record?.id());
        }
        Ok(())
    }

    fn is_same(&self, stream: &str, version: u64, event: &NewEvent<'_>) -> Result<bool, Failure> {
        let mut records = self.read(Read::stream(stream).from(Version::new(version)).limit(1))?;
        let Some(record) = records.next().transpose()? else { return Ok(false) };
        // Not the time: it is raised where it would run backwards.
        let stored = NewEvent { time: event.time, ..record.to_new_event() };
        Ok(stored == NewEvent { id: stored.id, ..event.clone() })
    }
}

#[cfg(test)]
mod tests;
