//! Heads of streams that are not in an unsealed segment, remembered: bounded in number and in bytes.
//!
//! An entry that is here is right: before a segment leaves memory, the heads of all its streams are put here, and
//! what a look into sealed segments found is only put here if no segment was closed meanwhile.

use annals_types::{Head, Position, Version};
use hashbrown::HashTable;

/// Fewest entries, whatever the setting: as many as one batch can need, twice.
const ENTRIES_MIN: usize =
    2 * (annals_types::limits::BATCH_EVENTS_MAX + annals_types::limits::CONDITIONS_MAX);
/// Bytes of names that an entry may take on average.
const NAME_BYTES_MEAN_MAX: usize = 64;
/// The version of a stream without events.
const NO_VERSION: u64 = u64::MAX;

/// Two halves: the younger takes new entries; when it is full it becomes the older, and the older is forgotten.
#[derive(Debug)]
pub(crate) struct HeadCache {
    young: Half,
    old: Half,
    half: usize,
}

/// Entries and names in a few large allocations: forgetting all of them takes no time.
#[derive(Debug, Default)]
pub(crate) struct Half {
    table: HashTable<u32>,
    entries: Vec<Entry>,
    names: String,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    version: u64,
    position: u64,
    name_start: u32,
    name_len: u32,
}

impl Half {
    fn with_capacity(entries: usize) -> Self {
        Self {
            table: HashTable::with_capacity(entries),
            entries: Vec::with_capacity(entries),
            names: String::new(),
        }
    }

    fn find(&self, hash: u64, name: &str) -> Option<usize> {
        let same = |&number: &u32| {
            let entry = &self.entries[number as usize];
            let start = entry.name_start as usize;
            entry.hash == hash && &self.names[start..start + entry.name_len as usize] == name
        };
        self.table.find(hash, same).map(|&number| number as usize)
    }

    fn insert(&mut self, hash: u64, name: &str, head: Option<Head>) {
        let (version, position) =
            head.map_or((NO_VERSION, 0), |head| (head.version.get(), head.position.get()));
        if let Some(number) = self.find(hash, name) {
            let entry = &mut self.entries[number];
            (entry.version, entry.position) = (version, position);
            return;
        }
        let number = crate::format::len_u32(self.entries.len());
        let name_start = crate::format::len_u32(self.names.len());
        let name_len = crate::format::len_u32(name.len());
        self.names.push_str(name);
        self.entries.push(Entry { hash, version, position, name_start, name_len });
        let entries = &self.entries;
        self.table.insert_unique(hash, number, |&number| entries[number as usize].hash);
    }

    fn head(&self, number: usize) -> Option<Head> {
        let entry = &self.entries[number];
        let head = Head { version: Version::new(entry.version), position: Position::new(entry.position) };
        (entry.version != NO_VERSION).then_some(head)
    }
}

impl HeadCache {
    pub(crate) fn new(entries_max: usize) -> Self {
        let half = entries_max.max(ENTRIES_MIN) / 2;
        Self { young: Half::default(), old: Half::default(), half }
    }

    /// The remembered head; `None`: nothing is remembered; `Some(None)`: the stream has no events.
    pub(crate) fn get(&self, hash: u64, name: &str) -> Option<Option<Head>> {
        let of = |half: &Half| half.find(hash, name).map(|number| half.head(number));
        of(&self.young).or_else(|| of(&self.old))
    }

    /// Remembers a head, in place of what was remembered. Returns what is forgotten for it: to be dropped where
    /// nobody waits.
    pub(crate) fn insert(&mut self, hash: u64, name: &str, head: Option<Head>) -> Option<Half> {
        let full = self.young.entries.len() >= self.half
            || self.young.names.len() >= self.half * NAME_BYTES_MEAN_MAX;
        let mut forgotten = None;
        if full || self.young.entries.capacity() == 0 {
            let young = std::mem::replace(&mut self.young, Half::with_capacity(self.half));
            forgotten = Some(std::mem::replace(&mut self.old, young));
        }
        self.young.insert(hash, name, head);
        forgotten
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        (self.young, self.old) = (Half::default(), Half::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: u64) -> Option<Head> {
        Some(Head { version: Version::new(version), position: Position::new(version) })
    }

    #[test]
    fn the_newest_entries_are_remembered_and_their_number_is_bounded() {
        let mut cache = HeadCache::new(0);
        let name = |number: u64| format!("stream-{number}");
        for number in 0..100_000 {
            // All hashes alike in their low bits, some in all: names tell the streams apart.
            cache.insert(number / 2, &name(number), head(number));
        }
        assert!(cache.young.entries.len() + cache.old.entries.len() <= ENTRIES_MIN);
        assert_eq!(cache.get(99_999 / 2, &name(99_999)), Some(head(99_999)));
        assert_eq!(cache.get(99_998 / 2, &name(99_998)), Some(head(99_998)));
        assert_eq!(cache.get(0, &name(0)), None);
        cache.insert(99_999 / 2, &name(99_999), None);
        assert_eq!(cache.get(99_999 / 2, &name(99_999)), Some(None));
    }
}
