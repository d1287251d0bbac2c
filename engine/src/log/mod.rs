//! The order of batches: segments, the image of what was written last, the writer, the watermark, and what
//! opening finds out about them.
//!
//! Knows nothing of streams, versions or conditions.

pub(crate) mod crowd;
pub(crate) mod digests;
pub(crate) mod group;
pub(crate) mod image;
pub(crate) mod mark;
pub(crate) mod repair;
pub(crate) mod scan;
pub(crate) mod sealed;
pub(crate) mod tail;
pub(crate) mod tally;
pub(crate) mod unsealed;
pub(crate) mod watcher;
pub(crate) mod watermark;
pub(crate) mod writer;

use annals_types::{Damage, DamageKind, Position};
use std::path::Path;

/// What is wrong at `offset` of the file at `path`, which is named without its directory.
pub(crate) fn damage_at(path: &Path, offset: u64, kind: DamageKind, positions: Option<(u64, u64)>) -> Damage {
    Damage {
        file: path.file_name().map_or_else(|| path.to_owned(), Into::into),
        offset,
        first_position: positions.map(|(first, _)| Position::new(first)),
        last_position: positions.map(|(_, last)| Position::new(last)),
        kind,
    }
}

/// A segment's file name.
pub(crate) fn segment_name(ordinal: u64) -> String {
    format!("{ordinal:010}.log")
}

/// The file name of a sealed segment's index.
pub(crate) fn index_name(ordinal: u64) -> String {
    format!("{ordinal:010}.index")
}

/// What a new span is called until it is complete.
pub(crate) const SPAN_TEMPORARY_NAME: &str = "span.tmp";

/// The file name of the span from one sealed segment to another.
pub(crate) fn span_name(first: u64, last: u64) -> String {
    format!("{first:010}-{last:010}.span")
}

/// Whether a file of this name is made of or for segments.
pub(crate) fn is_of_segments(name: &str) -> bool {
    ordinal_in(name).is_some()
        || name.ends_with(".span")
        || name == SPAN_TEMPORARY_NAME
        || name.starts_with("torn-")
}

/// The ordinal in the name of a segment's or index's file.
pub(crate) fn ordinal_in(name: &str) -> Option<u64> {
    let (digits, kind) = name.split_once('.')?;
    let known = digits.len() == 10 && matches!(kind, "log" | "index");
    if known { digits.parse().ok() } else { None }
}
