//! The scan of a segment's bytes, whatever they are, never panics and always ends.
//!
//! `cargo +nightly fuzz run segment_scan`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = annals::testing::scan_bytes(bytes);
});
