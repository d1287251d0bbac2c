//! A compressed body, whatever it claims to be, is refused or takes as much memory as a batch may.
//!
//! `cargo +nightly fuzz run decompression`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = annals::testing::bodies::decompression(bytes);
});
