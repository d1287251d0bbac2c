//! Looking up: which events belong to a stream, and where events are. The memory form is for segments that
//! are written or wait to be sealed, the sealed form for the rest.
//!
//! Knows nothing of the log's files: it is told what to index and gives positions and offsets back.

pub(crate) mod heads;
pub(crate) mod keys;
pub(crate) mod lists;
pub(crate) mod memory;
pub(crate) mod recent;
pub(crate) mod sealed;
pub(crate) mod search;
pub(crate) mod slots;
pub(crate) mod span;
pub(crate) mod whereabouts;
