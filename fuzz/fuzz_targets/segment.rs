//! The scan of a segment, whatever its bytes are, ends, and an index can be made of what is good.
//!
//! `cargo +nightly fuzz run segment`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = annals::testing::bodies::segment(bytes);
});
