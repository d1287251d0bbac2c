//! Lists of positions by the hash of a key, in memory, as events get their places.
//!
//! An event is a node that leads to the event before in the same list: noting one touches the list and the end of an
//! array. Positions are relative to the segment's first.

use super::slots::Slots;
use super::whereabouts::Whereabouts;
use crate::format::len_u32;
use crate::prefetch::fetch_item;
use std::ops::Range;

/// Of a list longer than this, every so many are found without walking over those behind.
const STRIDE: u32 = 64;
/// There is no such node, or stride.
const NONE: u32 = u32::MAX;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    by_hash: Slots,
    lists: Vec<List>,
    nodes: Vec<Node>,
    /// For lists longer than [`STRIDE`]: the nodes of every so many.
    strides: Vec<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
struct List {
    hash: u64,
    len: u32,
    last_node: u32,
    strides: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    position: u32,
    /// The node before in its list.
    before: u32,
}

/// The number of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ListNumber(pub(super) u32);

impl Lists {
    /// Forgets everything and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.by_hash.clear();
        self.lists.clear();
        self.nodes.clear();
        self.strides.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// How many lists there are.
    pub(crate) fn count(&self) -> usize {
        self.lists.len()
    }

    /// How many positions there are, over all lists.
    pub(crate) fn positions_count(&self) -> usize {
        self.nodes.len()
    }

    /// Whether so many more positions can be counted in 32 bits.
    pub(crate) fn has_room(&self, positions: usize) -> bool {
        self.nodes.len() + positions < NONE as usize
    }

    /// Tells where a search begins.
    pub(crate) fn tell(&self, whereabouts: &Whereabouts) {
        self.by_hash.tell(whereabouts);
    }

    /// Asks for the memory of a list.
    pub(crate) fn fetch(&self, number: ListNumber) {
        fetch_item(&self.lists, number.0 as usize);
    }

    fn list(&self, number: ListNumber) -> &List {
        &self.lists[number.0 as usize]
    }

    /// The list with this hash that is the `wanted` one.
    pub(crate) fn find_where(&self, hash: u64, wanted: impl Fn(ListNumber) -> bool) -> Option<ListNumber> {
        let same = |number: u32| self.lists[number as usize].hash == hash && wanted(ListNumber(number));
        self.by_hash.find(hash, same).map(ListNumber)
    }

    /// The list with this hash, where each hash has one.
    pub(crate) fn find(&self, hash: u64) -> Option<ListNumber> {
        self.find_where(hash, |_| true)
    }

    /// Adds an empty list.
    pub(crate) fn add(&mut self, hash: u64) -> ListNumber {
        let number = len_u32(self.lists.len());
        self.lists.push(List { hash, len: 0, last_node: NONE, strides: NONE });
        self.by_hash.insert(hash, number);
        ListNumber(number)
    }

    /// Adds a position, which is behind all of the list's.
    pub(crate) fn push(&mut self, number: ListNumber, position: u32) {
        let node = len_u32(self.nodes.len());
        let list = &mut self.lists[number.0 as usize];
        self.nodes.push(Node { position, before: list.last_node });
        list.last_node = node;
        list.len += 1;
        if list.len.is_multiple_of(STRIDE) {
            if list.strides == NONE {
                list.strides = len_u32(self.strides.len());
                self.strides.push(Vec::new());
            }
            self.strides[list.strides as usize].push(node);
        }
    }

    /// Adds a position to the list with this hash, once.
    pub(crate) fn note(&mut self, hash: u64, position: u32) {
        let number = self.find(hash).unwrap_or_else(|| self.add(hash));
        if self.last(number) != Some(position) {
            self.push(number, position);
        }
    }

    /// Each list with its hash.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, ListNumber)> {
        self.lists.iter().enumerate().map(|(number, list)| (list.hash, ListNumber(len_u32(number))))
    }

    /// How many positions the list has.
    pub(crate) fn len(&self, number: ListNumber) -> u32 {
        self.list(number).len
    }

    /// The list's last position.
    pub(crate) fn last(&self, number: ListNumber) -> Option<u32> {
        self.nodes.get(self.list(number).last_node as usize).map(|node| node.position)
    }

    /// Positions by their ranks, the last one first, each with its place in the range.
    pub(crate) fn visit_back(
        &self,
        number: ListNumber,
        ranks: Range<u32>,
        mut visit: impl FnMut(usize, u32),
    ) {
        let list = self.list(number);
        assert!(ranks.end <= list.len, "ranks of positions that are here");
        if ranks.is_empty() {
            return;
        }
        // From the nearest node at or behind the last rank that is known without walking.
        let (mut node, mut rank) = self.walk_from(list, (ranks.end - 1) / STRIDE);
        loop {
            let Node { position, before } = self.nodes[node as usize];
            if rank < ranks.end {
                visit((rank - ranks.start) as usize, position);
            }
            if rank == ranks.start {
                return;
            }
            (node, rank) = (before, rank - 1);
        }
    }

    /// The last node of a stride, and its rank; that of the list where the stride is not full.
    fn walk_from(&self, list: &List, stride: u32) -> (u32, u32) {
        let strides = self.strides.get(list.strides as usize);
        match strides.and_then(|strides| strides.get(stride as usize)) {
            Some(&node) => (node, (stride + 1) * STRIDE - 1),
            None => (list.last_node, list.len - 1),
        }
    }

    /// The nodes around a position: the last below it, and the first that is not.
    fn around(&self, number: ListNumber, position: u32) -> (Option<u32>, Option<u32>) {
        let list = self.list(number);
        if list.len == 0 {
            return (None, None);
        }
        let below = |node: u32| self.nodes[node as usize].position < position;
        if below(list.last_node) {
            return (Some(list.last_node), None);
        }
        let strides = self.strides.get(list.strides as usize).map_or(&[][..], Vec::as_slice);
        let stride = strides.partition_point(|&node| below(node));
        let (mut node, _) = self.walk_from(list, len_u32(stride));
        loop {
            let before = self.nodes[node as usize].before;
            if before == NONE {
                return (None, Some(node));
            }
            if below(before) {
                return (Some(before), Some(node));
            }
            node = before;
        }
    }

    /// The least position at or above this one.
    pub(crate) fn at_or_above(&self, number: ListNumber, position: u32) -> Option<u32> {
        self.around(number, position).1.map(|node| self.nodes[node as usize].position)
    }

    /// The greatest position at or below this one.
    pub(crate) fn at_or_below(&self, number: ListNumber, position: u32) -> Option<u32> {
        let (below, at) = self.around(number, position);
        let at = at.map(|node| self.nodes[node as usize].position).filter(|&found| found == position);
        at.or(below.map(|node| self.nodes[node as usize].position))
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        let strides: usize =
            self.strides.iter().map(|strides| strides.capacity() * 4 + size_of::<Vec<u32>>()).sum();
        self.by_hash.bytes()
            + self.lists.capacity() * size_of::<List>()
            + self.nodes.capacity() * size_of::<Node>()
            + strides
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn lists_hold_what_sorted_arrays_hold(
            steps in prop::collection::vec((0_u64..5, 1_u32..4), 0..600),
            probes in prop::collection::vec(0_u32..1500, 20),
        ) {
            let mut lists = Lists::default();
            let mut model: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
            let mut position = 0;
            for (hash, step) in steps {
                position += step - 1;
                lists.note(hash, position);
                let list = model.entry(hash).or_default();
                if list.last() != Some(&position) {
                    list.push(position);
                }
            }
            prop_assert_eq!(lists.count(), model.len());
            for (hash, expected) in &model {
                let number = lists.find(*hash).expect("it was noted");
                prop_assert_eq!(lists.len(number) as usize, expected.len());
                let all = 0..lists.len(number);
                for ranks in [all.clone(), all.end / 3..all.end / 2, all.end..all.end] {
                    let mut found = vec![0; ranks.len()];
                    lists.visit_back(number, ranks.clone(), |at, position| found[at] = position);
                    prop_assert_eq!(&found, &expected[ranks.start as usize..ranks.end as usize]);
                }
                for &probe in probes.iter().chain(expected) {
                    let above = expected.iter().copied().find(|&position| position >= probe);
                    let below = expected.iter().copied().rfind(|&position| position <= probe);
                    prop_assert_eq!(lists.at_or_above(number, probe), above);
                    prop_assert_eq!(lists.at_or_below(number, probe), below);
                }
            }
        }
    }
}
