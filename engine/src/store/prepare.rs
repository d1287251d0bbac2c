//! What of an append can be done before its place in the order is known: checks, ids, encoding, checksums.

use super::boundary::Boundary;
use super::core::Core;
use super::ids::IdsChecked;
use super::lookup::{FoundHead, StreamKey};
use crate::format::batch;
use crate::format::snapshot::SnapshotOf;
use crate::format::{frame, len_u32};
use crate::index::keys;
use annals_types::{Append, AppendError, Condition, ExpectedVersion, InputError, Timestamp, Uuid, limits};
use hashbrown::{HashMap, HashSet};
use rand::Rng as _;
use smallvec::{SmallVec, smallvec};
use std::cell::RefCell;

/// With more conditions than this, their streams are found by a map.
const CONDITIONS_SEARCHED_MAX: usize = 8;

/// A condition on a stream, by its place among the streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamCondition {
    pub(crate) stream: usize,
    pub(crate) expected: ExpectedVersion,
}

/// An append, encoded, with all that judging it needs.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    /// The frame, complete but for what is decided with its place.
    pub(crate) frame: Vec<u8>,
    /// The batch's body, where the frame holds it compressed.
    pub(crate) plain_body: Option<Vec<u8>>,
    /// The streams that are written, then those that only conditions are about.
    pub(crate) streams: SmallVec<[StreamKey<'a>; 1]>,
    /// What a look into sealed segments found of these streams.
    pub(crate) found: SmallVec<[Option<FoundHead>; 1]>,
    /// How many of the streams are written.
    pub(crate) written: usize,
    /// The stream of each event; empty where one stream is written.
    pub(crate) ordinals: Vec<u16>,
    pub(crate) conditions: SmallVec<[StreamCondition; 1]>,
    /// Hashes of the keys of all events, and where those of each end.
    keys: SmallVec<[u64; 2]>,
    keys_ends: SmallVec<[u32; 1]>,
    /// Conditions on queries.
    pub(crate) boundaries: Vec<Boundary<'a>>,
    pub(crate) events: u32,
    pub(crate) ids: SmallVec<[Uuid; 1]>,
    /// Hashes of the ids.
    pub(crate) ids_hashes: SmallVec<[u64; 1]>,
    /// How far the ids are known to be new.
    pub(crate) ids_checked: IdsChecked,
    /// Whether the caller gave the ids: only then can the batch be a repeat.
    pub(crate) ids_given: bool,
    pub(crate) given_times: Option<(u64, u64)>,
    pub(crate) now: Timestamp,
    /// How much of the room that was promised is for this batch.
    pub(crate) promised: u64,
    /// What the append's snapshot is of, once the batch has its place.
    pub(crate) snapshot_of: Option<SnapshotOf>,
}

/// The bytes of frames are copied into the image; their buffers serve the thread's next appends, too: one of any
/// length up to this, or several small ones.
const REUSED_BUFFER_BYTES_MAX: usize = 1 << 20;
const REUSED_BUFFERS_MAX: usize = 32;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.frame);
        // The thread may be ending: then there is nothing to reuse it.
        let _ = BUFFERS.try_with(|buffers| {
            let mut buffers = buffers.borrow_mut();
            let bytes_max = if buffers.is_empty() { 1 } else { REUSED_BUFFERS_MAX };
            if buffers.len() < REUSED_BUFFERS_MAX && buffer.capacity() <= REUSED_BUFFER_BYTES_MAX / bytes_max
            {
                buffers.push(buffer);
            }
        });
    }
}

impl<'a> Prepared<'a> {
    /// Hashes of the keys of an event.
    pub(crate) fn keys_of(&self, event: u32) -> &[u64] {
        let start = event.checked_sub(1).map_or(0, |before| self.keys_ends[before as usize]);
        &self.keys[start as usize..self.keys_ends[event as usize] as usize]
    }

    pub(crate) fn new(core: &Core, append: &'a Append<'_>) -> Result<Self, AppendError> {
        append.validate()?;
        let bytes = batch::encoded_bytes(append);
        if bytes > limits::BATCH_BYTES_MAX {
            let (what, count_max) = ("bytes in the encoded batch", limits::BATCH_BYTES_MAX);
            return Err(InputError::TooMany { what, count: bytes, count_max }.into());
        }
        check_times(append)?;
        let now = core.clock.now();
        let (ids, salt) = draw(append, now)?;
        let room = frame::FRAME_FIXED_BYTES;
        let reused = BUFFERS.try_with(|buffers| buffers.borrow_mut().pop());
        let mut buffer = reused.ok().flatten().unwrap_or_default();
        buffer.reserve(room + bytes);
        let mut encoded = batch::encode(append, core.store, salt, &ids, room, buffer);
        let plain_body = frame::wrap(&mut encoded.bytes, core.settings.compress_above_bytes);
        let key = |name: &'a str| StreamKey { name, hash: core.hash(name) };
        let mut streams: SmallVec<[StreamKey<'a>; 1]> = encoded
            .streams
            .iter()
            .map(|stream| key(&append.events[stream.first_event as usize].stream))
            .collect();
        let written = streams.len();
        let (keys, keys_ends) = keys_of(core, append);
        let conditions = conditions_of(append, &mut streams, key);
        if streams.len() > 1 {
            streams.iter().for_each(|stream| core.fetch_slots(stream.hash));
        }
        Ok(Self {
            frame: encoded.bytes,
            plain_body,
            found: smallvec![None; streams.len()],
            streams,
            written,
            ordinals: encoded.ordinals,
            conditions,
            keys,
            keys_ends,
            boundaries: boundaries_of(core, append),
            ids_hashes: ids.iter().map(|&id| hash_id(core, id)).collect(),
            ids_checked: IdsChecked::default(),
            events: encoded.events,
            ids,
            ids_given: append.events.iter().any(|event| event.id.is_some()),
            given_times: encoded.given_times,
            now,
            promised: 0,
            snapshot_of: None,
        })
    }
}

fn boundaries_of<'a>(core: &Core, append: &'a Append<'_>) -> Vec<Boundary<'a>> {
    let boundary = |condition: &'a Condition<'_>| match condition {
        Condition::NoMatch { query, after } => Some(Boundary::new(core, query, *after)),
        _ => None,
    };
    append.conditions.iter().filter_map(boundary).collect()
}

fn hash_id(core: &Core, id: Uuid) -> u64 {
    let hash = keys::hash_id(core.store, id);
    core.fetch_id(hash);
    hash
}

/// The keys of all events, and where those of each end.
fn keys_of(core: &Core, append: &Append<'_>) -> (SmallVec<[u64; 2]>, SmallVec<[u32; 1]>) {
    let mut hashes = SmallVec::with_capacity(2 * append.events.len());
    let mut ends = SmallVec::with_capacity(append.events.len());
    for event in &append.events {
        keys::of_new(core.store, event, |hash| {
            core.fetch_key(hash);
            hashes.push(hash);
        });
        ends.push(len_u32(hashes.len()));
    }
    (hashes, ends)
}

/// Finds or adds the stream of each condition.
fn conditions_of<'a>(
    append: &'a Append<'_>,
    streams: &mut SmallVec<[StreamKey<'a>; 1]>,
    key: impl Fn(&'a str) -> StreamKey<'a>,
) -> SmallVec<[StreamCondition; 1]> {
    // Few conditions are found by looking at each stream; many need a map.
    let mut places: Option<HashMap<&str, usize>> = (append.conditions.len() > CONDITIONS_SEARCHED_MAX)
        .then(|| streams.iter().enumerate().map(|(index, stream)| (stream.name, index)).collect());
    let mut conditions = SmallVec::with_capacity(append.conditions.len());
    for condition in &append.conditions {
        let Condition::Stream { stream: name, expected } = condition else { continue };
        let known = match &places {
            Some(places) => places.get(name.as_ref()).copied(),
            None => streams.iter().position(|stream| stream.name == name),
        };
        let stream = known.unwrap_or_else(|| {
            streams.push(key(name));
            if let Some(places) = &mut places {
                places.insert(name, streams.len() - 1);
            }
            streams.len() - 1
        });
        conditions.push(StreamCondition { stream, expected: *expected });
    }
    conditions
}

/// An id for each event, and the batch's salt.
fn draw(append: &Append<'_>, now: Timestamp) -> Result<(SmallVec<[Uuid; 1]>, [u8; 16]), AppendError> {
    let mut random = rand::rng();
    let milliseconds = now.get() / 1_000_000;
    let mut draw_id = || {
        let mut bytes = [0; 10];
        random.fill_bytes(&mut bytes);
        uuid::Builder::from_unix_timestamp_millis(milliseconds, &bytes).into_uuid()
    };
    let ids: SmallVec<[Uuid; 1]> =
        append.events.iter().map(|event| event.id.unwrap_or_else(&mut draw_id)).collect();
    if append.events.len() > 1 && append.events.iter().any(|event| event.id.is_some()) {
        let mut seen = HashSet::with_capacity(ids.len());
        if let Some(&id) = ids.iter().find(|id| !seen.insert(**id)) {
            return Err(AppendError::IdConflict { id, position: None });
        }
    }
    let mut salt = [0; 16];
    random.fill_bytes(&mut salt);
    Ok((ids, salt))
}

/// Given times must not run backwards within the batch, unless they may be raised.
fn check_times(append: &Append<'_>) -> Result<(), AppendError> {
    if append.raise_times {
        return Ok(());
    }
    let mut previous = Timestamp::ZERO;
    for given in append.events.iter().filter_map(|event| event.time) {
        if given < previous {
            return Err(AppendError::TimeBackwards { given, previous });
        }
        previous = given;
    }
    Ok(())
}
