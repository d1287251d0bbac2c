//! Facts about a store.

use super::core::{Core, LOCK_NAME, MANIFEST_NAME, MARK_NAME};
use super::streams::Streams;
use crate::format::{BLOCK_BYTES, FORMAT_VERSION, align_up};
use crate::log::index_name;
use annals_types::{Position, ReadError, Stat};
use std::path::Path;
use std::sync::Arc;

/// How the present or last writer writes the log: it says so in its lock file.
fn writers_disk(core: &Core) -> String {
    let own = || core.disk.name().to_owned();
    if core.follower.get().is_none() {
        return own();
    }
    let said = core.disk.read(&core.dir.join(LOCK_NAME)).ok();
    let said = said.and_then(|said| String::from_utf8(said).ok());
    said.and_then(|said| said.split_whitespace().nth(1).map(str::to_owned)).unwrap_or_else(own)
}

pub(crate) fn stat(core: &Arc<Core>) -> Result<Stat, ReadError> {
    let mut streams = 0;
    for stream in Streams::new(core)? {
        stream?;
        streams += 1;
    }
    let next_position = Position::new(core.watermark.position());
    let writer = core.disk.lock_holder(&core.dir.join(LOCK_NAME)).unwrap_or(None);
    let file_bytes = |path: &Path| {
        core.disk.open(path, crate::disk::Access::Read).and_then(|file| file.len()).unwrap_or(0)
    };
    let state = core.state.lock();
    let sealed = Arc::clone(&state.segments.sealed);
    let mut disk_bytes = 0;
    let mut index_bytes = 0;
    let mut segments = sealed.len() as u64;
    let closed = state.segments.closed.iter().map(|closed| (&closed.log, &closed.index));
    for (log, index) in closed.chain(state.segments.active.iter().map(|active| (&active.log, &active.index)))
    {
        segments += 1;
        disk_bytes += log.header.capacity;
        index_bytes += index.bytes() as u64;
    }
    drop(state);
    for segment in sealed.iter() {
        let seal = &segment.log.seal;
        let index = file_bytes(&core.dir.join(index_name(seal.ordinal)));
        disk_bytes += align_up(seal.end, BLOCK_BYTES) + BLOCK_BYTES as u64 + index;
        index_bytes += index;
    }
    for (span, _) in sealed.spans() {
        let bytes = file_bytes(&span.path);
        disk_bytes += bytes;
        index_bytes += bytes;
    }
    for name in [MANIFEST_NAME, MARK_NAME] {
        disk_bytes += file_bytes(&core.dir.join(name));
    }
    disk_bytes += core.snapshots.bytes(core) + core.subscriptions.side.bytes(core);
    Ok(Stat {
        events: next_position.get(),
        streams,
        next_position,
        segments,
        disk_bytes,
        index_bytes,
        epoch: core.epoch,
        disk: writers_disk(core),
        format: FORMAT_VERSION,
        writer,
    })
}
