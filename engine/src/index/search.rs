//! Searching one segment's lists for the events that a query selects: OR over items, AND within one, by leaping.
//!
//! An item asks for several things at once, each of which an event may have in one of several ways: one of these types,
//! and this tag, and that. The rarest is looked at first; where it has nothing, all the others leap to where it goes
//! on. What is found has keys with the right hashes: whether they are the keys themselves, the events say.

use super::lists::{ListNumber, Lists};
use super::memory::MemoryIndex;
use super::sealed::Loaded;
use crate::format::index::{BadBlock, PostingRange};
use crate::format::key::{KeyKind, hash_key, hash_name};
use crate::format::len_u32;
use annals_types::{Query, QueryItem, Uuid};
use smallvec::SmallVec;
use std::cmp::{max, min};
use std::ops::Range;

/// Something that an event may have.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Wanted {
    Stream { hash: u64, name: Box<str> },
    Key(u64),
}

/// What an item asks for: one of each.
type WantedItem = Vec<Vec<Wanted>>;

/// A query as a search needs it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    items: Vec<WantedItem>,
}

impl Plan {
    /// The search for what `query` selects.
    pub(crate) fn new(store: Uuid, query: &Query<'_>) -> Self {
        let everything = [QueryItem::new()];
        let items = if query.items.is_empty() { &everything[..] } else { &query.items };
        let wanted = |item: &QueryItem<'_>| {
            let key = |kind, key: &[u8]| vec![Wanted::Key(hash_key(store, kind, key))];
            let mut wanted: WantedItem = Vec::new();
            if let Some(name) = &item.stream {
                wanted
                    .push(vec![Wanted::Stream { hash: hash_name(store, name), name: name.as_ref().into() }]);
            }
            wanted.extend(item.tags.iter().map(|tag| key(KeyKind::Tag, tag.as_bytes())));
            wanted.extend(item.correlation.iter().map(|id| key(KeyKind::Correlation, id.as_bytes())));
            wanted.extend(item.causation.iter().map(|id| key(KeyKind::Causation, id.as_bytes())));
            wanted.extend(item.category.iter().map(|category| key(KeyKind::Category, category.as_bytes())));
            if !item.types.is_empty() {
                let types = item.types.iter().flat_map(|name| key(KeyKind::Type, name.as_bytes()));
                wanted.push(types.collect());
            }
            wanted
        };
        Self { items: items.iter().map(wanted).collect() }
    }
}

impl Plan {
    /// Hashes of all keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = u64> {
        self.items.iter().flatten().flatten().filter_map(|wanted| match wanted {
            Wanted::Key(hash) => Some(*hash),
            Wanted::Stream { .. } => None,
        })
    }
}

impl Plan {
    /// The parts of something where anything may match, as bits: `parts_with` says which may have a key or stream.
    pub(crate) fn parts_that_may_match<E>(&self, parts_with: impl Fn(u64) -> Result<u8, E>) -> Result<u8, E> {
        let mut parts = 0;
        for item in &self.items {
            let mut of_item = u8::MAX;
            for ways in item {
                let mut of_ways = 0;
                for way in ways {
                    of_ways |= parts_with(way.hash())?;
                }
                of_item &= of_ways;
                if of_item == 0 {
                    break;
                }
            }
            parts |= of_item;
        }
        Ok(parts)
    }
}

impl Wanted {
    fn hash(&self) -> u64 {
        let (Self::Stream { hash, .. } | Self::Key(hash)) = self;
        *hash
    }
}

/// A segment's lists.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Index<'a> {
    Memory(&'a MemoryIndex),
    Sealed(&'a Loaded),
}

impl<'a> Index<'a> {
    /// Whether anything that is wanted may be here; `false` is certain, and soon said.
    fn may_have(self, wanted: &Wanted) -> Result<bool, BadBlock> {
        match self {
            Self::Memory(_) => Ok(true),
            Self::Sealed(index) => index.layout.may_hold(&index.bytes, wanted.hash()),
        }
    }

    /// Adds the lists of what is wanted, if any are here.
    fn find(self, wanted: &Wanted, lists: &mut SmallVec<[List<'a>; 1]>) -> Result<(), BadBlock> {
        match (self, wanted) {
            (Self::Memory(index), Wanted::Stream { hash, name }) => {
                let number = index.find(*hash, name);
                lists.extend(number.map(|number| List::Memory(index.streams_by_hash(), number)));
            }
            (Self::Memory(index), Wanted::Key(hash)) => {
                lists.extend(index.keys().find(*hash).map(|number| List::Memory(index.keys(), number)));
            }
            (Self::Sealed(index), Wanted::Stream { hash, .. }) => {
                let entries = index.layout.streams_of(&index.bytes, *hash)?;
                lists.extend(entries.into_iter().map(|entry| List::Sealed(index, entry.postings)));
            }
            (Self::Sealed(index), Wanted::Key(hash)) => {
                let entry = index.layout.key_of(&index.bytes, *hash)?;
                lists.extend(entry.map(|entry| List::Sealed(index, entry.postings)));
            }
        }
        Ok(())
    }
}

/// The events of a segment that have one thing.
#[derive(Clone, Copy, Debug)]
enum List<'a> {
    Memory(&'a Lists, ListNumber),
    Sealed(&'a Loaded, PostingRange),
}

impl List<'_> {
    fn len(&self) -> u32 {
        match self {
            Self::Memory(lists, number) => lists.len(*number),
            Self::Sealed(_, postings) => postings.count,
        }
    }
}

/// Which way a search goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Upwards,
    Downwards,
}

impl Way {
    /// The list's first position from `position` on, that included.
    fn seek(self, list: &List<'_>, position: u32) -> Result<Option<u32>, BadBlock> {
        Ok(match (list, self) {
            (List::Memory(lists, number), Self::Upwards) => lists.at_or_above(*number, position),
            (List::Memory(lists, number), Self::Downwards) => lists.at_or_below(*number, position),
            (List::Sealed(index, postings), Self::Upwards) => {
                index.layout.postings_around(&index.bytes, *postings, position)?.1
            }
            (List::Sealed(index, postings), Self::Downwards) => {
                let (below, at) = index.layout.postings_around(&index.bytes, *postings, position)?;
                at.filter(|&at| at == position).or(below)
            }
        })
    }

    /// Of two positions, the one that the search comes to first.
    fn first(self, one: u32, other: u32) -> u32 {
        match self {
            Self::Upwards => min(one, other),
            Self::Downwards => max(one, other),
        }
    }

    /// The end of a range, which is not empty, that the search begins at.
    pub(crate) fn edge(self, range: &Range<u64>) -> u64 {
        match self {
            Self::Upwards => range.start,
            Self::Downwards => range.end - 1,
        }
    }

    fn start(self, range: &Range<u32>) -> Option<u32> {
        match self {
            _ if range.is_empty() => None,
            Self::Upwards => Some(range.start),
            Self::Downwards => Some(range.end - 1),
        }
    }

    fn behind(self, position: u32) -> Option<u32> {
        match self {
            Self::Upwards => position.checked_add(1),
            Self::Downwards => position.checked_sub(1),
        }
    }
}

/// What a search found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    /// Positions relative to the segment's first, in the order of the search.
    pub(crate) positions: Vec<u32>,
    /// Where it goes on; `None`: the range was searched to its end.
    pub(crate) next: Option<u32>,
    /// How often it leapt.
    pub(crate) leaps: u32,
}

/// Searches `range` for up to `count_max` events, and gives up for now after about `leaps_max` leaps, but never before it
/// has got on.
pub(crate) fn search(
    index: Index<'_>,
    plan: &Plan,
    range: Range<u32>,
    way: Way,
    (count_max, leaps_max): (usize, u32),
) -> Result<Found, BadBlock> {
    let mut found = Found::default();
    let Some(start) = way.start(&range) else { return Ok(found) };
    let mut items = Vec::with_capacity(plan.items.len());
    for wanted in &plan.items {
        items.extend(Item::find(index, wanted, start)?);
    }
    let leaps_each = leaps_max / len_u32(items.len().max(1));
    loop {
        for item in &mut items {
            found.leaps += item.leap(&range, way, leaps_each)?;
        }
        items.retain(|item| !item.ended);
        let Some(at) = items.iter().map(|item| item.at).reduce(|one, other| way.first(one, other)) else {
            found.next = None;
            return Ok(found);
        };
        found.next = Some(at);
        // An item that gave up may have something before the others'.
        let is_enough =
            found.positions.len() == count_max || (found.leaps >= leaps_max && !found.positions.is_empty());
        if is_enough || items.iter().any(|item| item.at == at && !item.matches) {
            return Ok(found);
        }
        found.positions.push(at);
        for item in items.iter_mut().filter(|item| item.at == at) {
            item.matches = false;
            match way.behind(at) {
                Some(behind) => item.at = behind,
                None => item.ended = true,
            }
        }
        items.retain(|item| !item.ended);
    }
}

/// An item's lists in one segment, and how far the search has come.
struct Item<'a> {
    /// Of each thing that is asked for, the ways to have it; the rarest first. Empty: nothing is asked for.
    groups: Vec<SmallVec<[List<'a>; 1]>>,
    /// Nothing before this matches; it itself does where `matches` says so.
    at: u32,
    matches: bool,
    ended: bool,
}

impl<'a> Item<'a> {
    /// `None`: nothing here can match.
    fn find(index: Index<'a>, wanted: &WantedItem, start: u32) -> Result<Option<Self>, BadBlock> {
        // What is rare is absent from most segments, and tells so before anything else is looked up.
        let mut here: SmallVec<[SmallVec<[&Wanted; 1]>; 4]> = SmallVec::new();
        for ways in wanted {
            let mut some = SmallVec::new();
            for way in ways {
                if index.may_have(way)? {
                    some.push(way);
                }
            }
            if some.is_empty() {
                return Ok(None);
            }
            here.push(some);
        }
        let mut groups = Vec::with_capacity(wanted.len());
        for ways in here {
            let mut group = SmallVec::new();
            for way in ways {
                index.find(way, &mut group)?;
            }
            if group.is_empty() {
                return Ok(None);
            }
            groups.push(group);
        }
        groups.sort_by_key(|group| group.iter().map(|list| u64::from(list.len())).sum::<u64>());
        Ok(Some(Self { groups, at: start, matches: false, ended: false }))
    }

    /// Goes on to the next match, or as far as it gets; returns how often it leapt.
    fn leap(&mut self, range: &Range<u32>, way: Way, leaps_max: u32) -> Result<u32, BadBlock> {
        if self.matches {
            return Ok(0);
        }
        // So often that it leaps to another place, or all agree to this one.
        let leaps_max = leaps_max.max(len_u32(self.groups.len()) + 1);
        let (mut agreed, mut leaps) = (0, 0);
        while agreed < self.groups.len() && range.contains(&self.at) {
            if leaps >= leaps_max {
                return Ok(leaps);
            }
            leaps += 1;
            let mut nearest = None;
            for list in &self.groups[agreed] {
                let next = way.seek(list, self.at)?;
                nearest = match (nearest, next) {
                    (Some(one), Some(other)) => Some(way.first(one, other)),
                    (one, other) => one.or(other),
                };
            }
            match nearest {
                None => {
                    self.ended = true;
                    return Ok(leaps);
                }
                Some(next) if next == self.at => agreed += 1,
                Some(next) => {
                    self.at = next;
                    // The others have to agree to the new place, the rarest first; this one does already.
                    agreed = usize::from(agreed == 0);
                }
            }
        }
        self.matches = range.contains(&self.at);
        self.ended = !self.matches;
        Ok(leaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::index::{IndexOf, Layout};
    use bytes::Bytes;
    use proptest::prelude::*;

    const STORE: Uuid = Uuid::from_u128(7);

    #[derive(Clone, Debug)]
    struct Event {
        stream: u8,
        event_type: u8,
        tags: Vec<u8>,
    }

    fn event() -> impl Strategy<Value = Event> {
        (0..4_u8, 0..3_u8, prop::collection::vec(0..5_u8, 0..4))
            .prop_map(|(stream, event_type, tags)| Event { stream, event_type, tags })
    }

    fn item() -> impl Strategy<Value = Event> {
        // A stream or type of 9 asks for none.
        let any_of = |count: u8| prop_oneof![2 => Just(9), 1 => 0..count];
        (any_of(5), any_of(4), prop::collection::vec(0..6_u8, 0..3))
            .prop_map(|(stream, event_type, tags)| Event { stream, event_type, tags })
    }

    fn matches(item: &Event, event: &Event) -> bool {
        (item.stream == 9 || item.stream == event.stream)
            && (item.event_type == 9 || item.event_type == event.event_type)
            && item.tags.iter().all(|tag| event.tags.contains(tag))
    }

    fn query(items: &[Event]) -> Query<'static> {
        let items = items.iter().map(|item| QueryItem {
            types: (item.event_type != 9)
                .then(|| format!("t{}", item.event_type).into())
                .into_iter()
                .collect(),
            tags: item.tags.iter().map(|tag| format!("tag{tag}").into()).collect(),
            stream: (item.stream != 9).then(|| format!("s{}", item.stream).into()),
            ..QueryItem::new()
        });
        Query { items: items.collect() }
    }

    fn index_of(events: &[Event]) -> MemoryIndex {
        let mut index = MemoryIndex::new(STORE, 1000);
        for (position, event) in (1000..).zip(events) {
            let name = format!("s{}", event.stream);
            let number = index.stream_for(index.hash(&name), &name, 0);
            index.push_event(number, position);
            let event_type = format!("t{}", event.event_type);
            index.push_key(hash_key(STORE, KeyKind::Type, event_type.as_bytes()), position);
            for tag in &event.tags {
                index.push_key(hash_key(STORE, KeyKind::Tag, format!("tag{tag}").as_bytes()), position);
            }
        }
        index
    }

    proptest! {
        #[test]
        fn a_search_finds_what_a_filter_finds_however_it_is_cut(
            events in prop::collection::vec(event(), 0..300),
            items in prop::collection::vec(item(), 0..4),
            (start, end) in (0_u32..320, 0_u32..320),
            count_max in 1_usize..50,
            leaps_max in 1_u32..200,
        ) {
            let memory = index_of(&events);
            let of = IndexOf { ordinal: 1, salt: 2, first_position: 1000, last_crc: 3 };
            let bytes = Bytes::from(memory.encode(of));
            let layout = Layout::decode(&bytes, STORE, of).expect("it was just made");
            let sealed = Loaded { bytes, layout };
            let plan = Plan::new(STORE, &query(&items));
            let end = end.min(len_u32(events.len()));
            let selected = |position: &u32| {
                let event = &events[*position as usize];
                items.is_empty() || items.iter().any(|item| matches(item, event))
            };
            let mut expected: Vec<u32> = (start..end).filter(selected).collect();
            for way in [Way::Upwards, Way::Downwards] {
                for index in [Index::Memory(&memory), Index::Sealed(&sealed)] {
                    let (mut found, mut range) = (Vec::new(), start..end.max(start));
                    loop {
                        let limits = (count_max, leaps_max);
                        let part = search(index, &plan, range.clone(), way, limits).expect("nothing is damaged");
                        found.extend_from_slice(&part.positions);
                        let Some(next) = part.next else { break };
                        let before = range.clone();
                        match way {
                            Way::Upwards => range.start = next,
                            Way::Downwards => range.end = next + 1,
                        }
                        prop_assert!(range != before, "it gets on");
                    }
                    prop_assert_eq!(&found, &expected);
                }
                expected.reverse();
            }
        }
    }
}
