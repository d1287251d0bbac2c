//! Indexes and spans, by the document alone.

use super::Reader;
use crate::format_tables::{crc, number};
use std::collections::{BTreeMap, BTreeSet};

impl Reader<'_> {
    /// Checks the index of the segment that was just read, which began with the event at `first`; returns the hashes of
    /// streams and keys.
    pub(super) fn index(&self, bytes: &[u8], salt: &[u8], first: usize) -> Vec<u64> {
        let format = self.format;
        let header = format.header("index", bytes);
        assert_eq!(format.size("index header", "first position", header), first);
        assert_eq!(format.bytes("index header", "salt", header), salt);
        assert_eq!(format.number("index header", "last checksum", header), self.previous);
        let (at, length) = format.place("index header", "first table");
        let tables = &header[at..];
        assert_eq!(tables.len(), length * format.size("index header", "tables", header));
        let table = |kind| {
            let table = tables
                .chunks(length)
                .find(|table| format.number("index table", "kind", table) == kind)
                .unwrap();
            self.records(bytes, table, crc(0, salt))
        };
        let frames: Vec<(u64, usize)> = table(1)
            .iter()
            .map(|record| {
                let position = first as u64 + format.number("index frame", "position", record);
                (position, 8 * format.size("index frame", "offset", record))
            })
            .collect();
        assert_eq!(frames, self.frames);
        let (postings, filter) = (table(3), table(4));
        let mut found = 0;
        let mut hash_before = 0;
        for record in table(2) {
            let of = |field| format.number("index stream", field, record);
            let range = format.size("index stream", "first posting", record)..;
            for (rank, posting) in (0..of("postings")).zip(&postings[range]) {
                let event = &self.events[first + format.size("index posting", "position", posting)];
                let seed = number(&self.store[..8]);
                assert_eq!(
                    twox_hash::XxHash3_64::oneshot_with_seed(seed, event.stream.as_bytes()),
                    of("hash")
                );
                assert_eq!(event.version, of("first version") + rank);
                found += 1;
            }
            assert!(hash_before <= of("hash"));
            hash_before = of("hash");
            assert!(self.is_in_filter(&filter, of("hash"), crc(0, salt)));
        }
        assert_eq!(found, self.events.len() - first);
        self.keys(first, &table(5), &postings, |hash| self.is_in_filter(&filter, hash, crc(0, salt)));
        self.ids(first, &table(6), |hash| self.is_in_filter(&filter, hash, crc(0, salt)));
        let of_streams = table(2).into_iter().map(|record| format.number("index stream", "hash", record));
        let of_keys = table(5).into_iter().map(|record| format.number("index key", "hash", record));
        of_streams.chain(of_keys).collect()
    }

    /// The table of keys, which must be what the events from `first` on have.
    fn keys(&self, first: usize, table: &[&[u8]], postings: &[&[u8]], is_in_filter: impl Fn(u64) -> bool) {
        let format = self.format;
        let mut keys: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
        for (position, event) in self.events.iter().enumerate().skip(first) {
            let category = event.stream.split('-').next().unwrap().as_bytes();
            let mut note = |kind: u64, key: &[u8]| {
                let seed = number(&self.store[..8]).wrapping_add(kind);
                let hash = twox_hash::XxHash3_64::oneshot_with_seed(seed, key);
                keys.entry(hash).or_default().insert(position);
            };
            note(1, category);
            note(2, event.event_type.as_bytes());
            event.tags.iter().for_each(|tag| note(3, tag.as_bytes()));
            event.correlation.iter().for_each(|id| note(4, id.as_bytes()));
            event.causation.iter().for_each(|id| note(5, id.as_bytes()));
        }
        let found = table.iter().map(|record| {
            let of = |field| format.size("index key", field, record);
            let own = &postings[of("first posting")..of("first posting") + of("postings")];
            let position = |posting: &&[u8]| first + format.size("index posting", "position", posting);
            assert!(is_in_filter(format.number("index key", "hash", record)));
            (format.number("index key", "hash", record), own.iter().map(position).collect::<Vec<_>>())
        });
        let keys =
            keys.into_iter().map(|(hash, positions)| (hash, positions.into_iter().collect::<Vec<_>>()));
        assert_eq!(found.collect::<Vec<_>>(), keys.collect::<Vec<_>>());
    }

    /// The table of ids, which must be those of the events from `first` on.
    fn ids(&self, first: usize, table: &[&[u8]], is_in_filter: impl Fn(u64) -> bool) {
        let format = self.format;
        let seed_of = |kind: u64| number(&self.store[..8]).wrapping_add(kind);
        let mut ids: Vec<(u64, usize)> = (first..self.events.len())
            .map(|position| {
                let id = self.events[position].id.as_bytes();
                let hash = twox_hash::XxHash3_64::oneshot_with_seed(seed_of(6), id);
                (hash.wrapping_mul(11_400_714_819_323_198_485) >> 32, position)
            })
            .collect();
        ids.sort_unstable();
        let found_ids = table.iter().map(|record| {
            let half = format.bytes("index id", "half", record);
            let hash = twox_hash::XxHash3_64::oneshot_with_seed(seed_of(7), half);
            assert!(is_in_filter(hash));
            (number(half), first + format.size("index id", "position", record))
        });
        assert_eq!(found_ids.collect::<Vec<_>>(), ids);
    }

    fn records<'a>(&self, bytes: &'a [u8], table: &[u8], seed: u32) -> Vec<&'a [u8]> {
        let format = self.format;
        let of = |field| format.size("index table", field, table);
        let (block, payload) = (format.constant("block"), format.constant("index block payload"));
        if of("kind") == 4 {
            return bytes[of("first block") * block..]
                .chunks(of("record bytes"))
                .take(of("records"))
                .collect();
        }
        let per_block = payload / of("record bytes");
        let blocks = of("first block")..of("first block") + of("records").div_ceil(per_block);
        for number_of_block in blocks.clone() {
            let bytes = &bytes[number_of_block * block..][..block];
            let own = crc(seed.wrapping_add(u32::try_from(number_of_block).unwrap()), &bytes[..payload]);
            assert_eq!(number(&bytes[payload..]), u64::from(own));
        }
        let records = blocks.flat_map(|at| bytes[at * block..][..payload].chunks_exact(of("record bytes")));
        records.take(of("records")).collect()
    }

    fn is_in_filter(&self, filter: &[&[u8]], hash: u64, seed: u32) -> bool {
        let format = self.format;
        let at = usize::try_from(((hash >> 32) * filter.len() as u64) >> 32).unwrap();
        let bits = format.bytes("index filter block", "bits", filter[at]);
        let check = check_of(bits, seed, at);
        assert_eq!(format.number("index filter block", "check", filter[at]), check);
        let mixed = hash.wrapping_mul(format.constants["filter multiplier"]);
        (0..6).all(|probe| {
            let bit = usize::try_from(mixed >> (10 * probe) & 1023).unwrap() * format.constant("filter bits")
                / 1024;
            bits[bit / 8] >> (bit % 8) & 1 == 1
        })
    }
    /// Checks the span over the first segments, whose streams and keys are those by segment.
    pub(super) fn span(&self, bytes: &[u8], chain: &[u8], hashes: &[Vec<u64>]) {
        let format = self.format;
        let header = format.header("span", bytes);
        let of = |field| format.size("span header", field, header);
        assert_eq!((of("first segment"), of("last segment")), (1, hashes.len()));
        assert_eq!(format.bytes("span header", "chain", header), chain);
        let blocks: Vec<&[u8]> = bytes[format.constant("block")..].chunks(64).collect();
        assert_eq!(blocks.len(), of("blocks"));
        let (mut found, mut asked) = (0, 0);
        for hash in hashes.iter().flatten() {
            let at = usize::try_from(((hash >> 32) * blocks.len() as u64) >> 32).unwrap();
            let places = format.bytes("span filter block", "places", blocks[at]);
            let check = check_of(places, crc(0, chain), at);
            assert_eq!(format.number("span filter block", "check", blocks[at]), check);
            let mixed = hash.wrapping_mul(format.constants["filter multiplier"]);
            let parts = (0..6).fold(0xff, |parts, probe| {
                let place = usize::try_from(mixed >> (10 * probe) & 1023).unwrap();
                parts & places[place * format.constant("span places") / 1024]
            });
            for (part, hashes) in hashes.chunks(hashes.len() / 8).enumerate() {
                let is_there = hashes.iter().flatten().any(|other| other == hash);
                assert!(!is_there || parts >> part & 1 == 1);
                (found, asked) = (found + u32::from(parts >> part & 1 == 1 && !is_there), asked + 1);
            }
        }
        assert!(found * 20 < asked, "{found} of {asked} parts seem to have what they have not");
    }
}

/// The check of a filter's block.
fn check_of(bits: &[u8], seed: u32, number: usize) -> u64 {
    let seed = seed.wrapping_add(u32::try_from(number).unwrap());
    twox_hash::XxHash3_64::oneshot_with_seed(seed.into(), bits) & 0xffff_ffff
}
