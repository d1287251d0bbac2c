//! Bodies of fuzz targets: each takes bytes for something that anybody may have written, and asserts what must hold of what it
//! understood. Nothing else may make it panic, whatever the bytes are; nor may it hang, or take memory that no limit bounds.
//!
//! Where checksums guard the bytes, a body takes them with right checksums, too: no fuzzer gets past those by itself, and what
//! lies behind them is believed by nobody but a checksum. Each returns how much it understood, so that tests can see that it
//! gets anywhere.

mod batch;
mod decompression;
mod frame;
mod index;
mod manifest;
mod notes;
mod opening;
mod operations;
mod segment;

pub use batch::{batch, batch_of};
pub use decompression::decompression;
pub use frame::{frame, frame_of};
pub use index::{folded, index};
pub use manifest::manifest;
pub use notes::{notes, some_notes};
pub use opening::opening;
pub use operations::operations;
pub use segment::{scan_bytes, segment, segment_of};

pub(in crate::testing) use segment::first_header;

/// These bytes with their checksums made right.
fn resealed(bytes: &[u8], reseal: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    reseal(&mut bytes);
    bytes
}
