//! An index of a sealed segment with its filter, and a span with its.

use super::resealed;
use crate::format::filter;
use crate::format::index::{self, BadBlock, IdKey, IndexOf, Layout, PostingRange, Tables};
use crate::format::span::{self, PARTS, Parts, SpanLayout};
use crate::format::{BLOCK_BYTES, le, len_u16, prelude};
use crate::index::sealed::Loaded;
use crate::index::search::{Found, Index, Plan, Way, search};
use crate::{Query, QueryItem, Uuid};
use bytes::Bytes;
use std::ops::Range;

/// Of what there may be many, so many are looked at.
const LOOKED_AT: usize = 64;
/// How much a search is to find and to leap at a time: little, so that it goes on often.
const SEARCH_LIMITS: (usize, u32) = (5, 20);

/// Positions that are searched.
const SEARCHED: u32 = 200;

/// Takes bytes, [unfolded](folded), for an index, for a span, and for hashes that a filter is made of. Returns how many records
/// and blocks of a filter were understood.
#[must_use]
pub fn index(bytes: &[u8]) -> usize {
    filter_of(bytes);
    let file = unfolded(bytes);
    let bytes = &file[..];
    let of_index = resealed(bytes, index::reseal);
    // A span ends where its filter does.
    let span = &bytes[..span::stated_bytes(bytes).unwrap_or(usize::MAX).min(bytes.len())];
    let of_span = resealed(span, span::reseal);
    let indexed = |bytes: &[u8]| take_index(bytes).ok().flatten().unwrap_or(0);
    let indexed = indexed(bytes).max(indexed(&of_index));
    indexed.max(take_span(span)).max(take_span(&of_span))
}

/// A file in few bytes, so that fuzzing is not mostly about zeros: of each block, two bytes that say how many of it there are
/// before zeros, and these.
#[must_use]
pub fn folded(file: &[u8]) -> Vec<u8> {
    let blocks = file.chunks(BLOCK_BYTES).map(|block| {
        let length = block.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        [&len_u16(length).to_le_bytes()[..], &block[..length]].concat()
    });
    blocks.collect::<Vec<_>>().concat()
}

/// The file that was folded.
fn unfolded(bytes: &[u8]) -> Vec<u8> {
    let (mut rest, mut file) = (bytes, Vec::new());
    while let Some((length, tail)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)) % (BLOCK_BYTES + 1);
        let (block, tail) = tail.split_at(length.min(tail.len()));
        rest = tail;
        file.extend_from_slice(block);
        file.resize(file.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    file
}

/// What is put into filters is there.
fn filter_of(bytes: &[u8]) {
    let hashes: Vec<u64> = bytes.chunks_exact(8).take(LOOKED_AT).map(|bytes| le::u64_at(bytes, 0)).collect();
    let made = filter::encode(hashes.len(), hashes.iter().copied(), 7);
    for &hash in &hashes {
        assert_eq!(filter::may_hold(&made, 7, hash), Ok(true));
        // The bytes themselves are no filter, or one that answers.
        let _ = filter::may_hold(bytes, 7, hash);
    }
}

/// The number of its records; `None`: its header is not sound.
fn take_index(bytes: &[u8]) -> Result<Option<usize>, BadBlock> {
    let Some(of) = index::stated_of(bytes) else { return Ok(None) };
    let store = prelude::stated_store(bytes);
    let Ok(layout) = Layout::decode(bytes, store, of) else { return Ok(None) };
    let loaded = Loaded { bytes: Bytes::copy_from_slice(bytes), layout };
    // Whatever else is wrong with it, what is asked for is found or refused.
    search_in(&loaded, store);
    let tables = layout.tables(bytes)?;
    check_records(&loaded, &tables, store)?;
    check_again(&tables, store, of);
    let Tables { frames, streams, keys, ids, postings } = tables;
    Ok(Some(frames.len() + streams.len() + keys.len() + ids.len() + postings.len()))
}

/// An index of the same records is one.
fn check_again(tables: &Tables, store: Uuid, of: IndexOf) {
    let again = tables.encode(store, of);
    let layout = Layout::decode(&again, store, of).expect("what was encoded is decoded");
    assert_eq!(layout.tables(&again).as_ref(), Ok(tables), "what was understood is said again alike");
}

/// All ways to ask for records, by what the records themselves say.
fn check_records(loaded: &Loaded, tables: &Tables, store: Uuid) -> Result<(), BadBlock> {
    let Loaded { bytes, layout } = loaded;
    assert_eq!((layout.frames(), layout.streams()), (tables.frames.len(), tables.streams.len()));
    assert_eq!(layout.hash_count(), tables.streams.len() + tables.keys.len());
    let (mut hashes, mut halves) = (0, 0);
    layout.each_hash(bytes, |_| hashes += 1)?;
    layout.each_id(bytes, |_| halves += 1)?;
    assert_eq!((hashes, halves), (layout.hash_count(), tables.ids.len()));
    for frame in tables.frames.iter().take(LOOKED_AT) {
        let at = layout.frame_of(bytes, frame.position)?;
        let _ = layout.frames_in(bytes, at..at + 1);
    }
    for stream in tables.streams.iter().take(LOOKED_AT) {
        let found = layout.streams_of(bytes, stream.hash)?;
        assert!(found.iter().all(|found| found.hash == stream.hash));
        check_postings(loaded, stream.postings, tables.postings.len());
        let _ = layout.may_hold(bytes, stream.hash);
    }
    for key in tables.keys.iter().take(LOOKED_AT) {
        let found = layout.key_of(bytes, key.hash)?;
        assert!(found.is_none_or(|found| found.hash == key.hash));
        check_postings(loaded, key.postings, tables.postings.len());
    }
    let ids: Vec<IdKey> =
        tables.ids.iter().take(LOOKED_AT).map(|id| IdKey::new(store, id.half.into())).collect();
    let found = layout.ids_of(bytes, &ids)?;
    assert!(found.len() <= LOOKED_AT * tables.ids.len());
    Ok(())
}

/// Postings are as many as were asked for, and enclose what they are asked for.
fn check_postings(loaded: &Loaded, range: PostingRange, count: usize) {
    let Loaded { bytes, layout } = loaded;
    let ranks = |ranks: Range<u32>| layout.postings(bytes, range, ranks);
    let is_there = range.first as usize + range.count as usize <= count;
    assert_eq!(ranks(0..range.count).is_ok(), is_there);
    assert!(range.count == u32::MAX || ranks(0..range.count + 1).is_err());
    let last = range.count.saturating_sub(1);
    for position in [0, 1, last, range.first, u32::MAX] {
        if let Ok((below, at)) = layout.postings_around(bytes, range, position) {
            assert!(
                is_there && below.is_none_or(|below| below < position) && at.is_none_or(|at| at >= position)
            );
        }
    }
}

/// Searches for what events of small stores have, in both directions, to the end.
fn search_in(loaded: &Loaded, store: Uuid) {
    let item = QueryItem::new;
    let queries = [
        Query::all(),
        Query::from(item().tag("tag:0")).or(item().stream("b-1").tag("tag:1")),
        Query::from(item().category("b").of_type("Placed").of_type("Paid").tag("tag:0").tag("tag:1")),
    ];
    for query in queries {
        let plan = Plan::new(store, &query);
        for way in [Way::Upwards, Way::Downwards] {
            search_through(loaded, &plan, way);
        }
    }
}

fn search_through(loaded: &Loaded, plan: &Plan, way: Way) {
    let mut range = 0..SEARCHED;
    // Each step gets on, so that there are not more than there are positions.
    loop {
        let Ok(Found { positions, next, .. }) =
            search(Index::Sealed(loaded), plan, range.clone(), way, SEARCH_LIMITS)
        else {
            return;
        };
        assert!(positions.len() <= SEARCH_LIMITS.0 && positions.iter().all(|at| range.contains(at)));
        assert!(positions.windows(2).all(|pair| (pair[0] < pair[1]) == (way == Way::Upwards)));
        let Some(next) = next else { return };
        let before = range.clone();
        match way {
            Way::Upwards => range.start = next,
            Way::Downwards => range.end = next + 1,
        }
        assert!(range != before && range.start >= before.start && range.end <= before.end, "it gets on");
    }
}

/// The number of blocks of a span's filter; 0: its header is not sound.
fn take_span(bytes: &[u8]) -> usize {
    let Some(of) = span::stated_of(bytes) else { return 0 };
    let store = prelude::stated_store(bytes);
    let Ok(layout) = SpanLayout::decode(bytes, store, &of) else { return 0 };
    let hashes: Vec<u64> =
        bytes[BLOCK_BYTES..].chunks_exact(8).take(LOOKED_AT).map(|bytes| le::u64_at(bytes, 0)).collect();
    let mut parts = Parts::with_room_for(hashes.len());
    for (number, &hash) in hashes.iter().enumerate() {
        let _ = layout.parts_with(bytes, hash);
        parts.insert(number % PARTS, hash);
    }
    let made = parts.encode(store, &of);
    let layout = SpanLayout::decode(&made, store, &of).expect("what was encoded is decoded");
    for (number, &hash) in hashes.iter().enumerate() {
        let found = layout.parts_with(&made, hash);
        assert!(found.is_ok_and(|parts| parts & 1 << (number % PARTS) != 0), "what was put in is there");
    }
    (bytes.len() - BLOCK_BYTES) / filter::FILTER_BLOCK_BYTES
}
