//! A store of which some bytes are other than they were, with right checksums, is refused or can be used.
//!
//! `cargo +nightly fuzz run opening`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = annals::testing::bodies::opening(bytes);
});
