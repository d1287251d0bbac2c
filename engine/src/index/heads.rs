//! Heads of streams that are not in an unsealed segment, remembered: bounded, and never wrong.
//!
//! An entry says how many sealed segments it takes into account. It holds as long as none was sealed since;
//! later ones are looked up and the entry is renewed.

use annals_types::Head;
use hashbrown::HashMap;

/// Fewest entries, whatever the setting: as many as one batch can need, twice.
const ENTRIES_MIN: usize = 2 * (annals_types::limits::BATCH_EVENTS_MAX + annals_types::limits::CONDITIONS_MAX);

/// A remembered head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Remembered {
    /// `None`: the stream has no event in those segments.
    pub(crate) head: Option<Head>,
    /// How many sealed segments, from the first, were looked at.
    pub(crate) segments: usize,
}

/// Two halves: the younger takes new entries and those that are used; when it is full it becomes the older,
/// and the older is forgotten.
#[derive(Debug)]
pub(crate) struct HeadCache {
    young: HashMap<Box<str>, Remembered>,
    old: HashMap<Box<str>, Remembered>,
    half: usize,
}

impl HeadCache {
    pub(crate) fn new(entries_max: usize) -> Self {
        let half = entries_max.max(ENTRIES_MIN) / 2;
        Self { young: HashMap::new(), old: HashMap::new(), half }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Remembered> {
        self.young.get(name).or_else(|| self.old.get(name)).copied()
    }

    pub(crate) fn insert(&mut self, name: &str, remembered: Remembered) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(name);
        self.young.insert(name.into(), remembered);
    }
}
