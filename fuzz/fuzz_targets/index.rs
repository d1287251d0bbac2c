//! An index, a filter or a span, whatever its bytes are, answers or is refused.
//!
//! `cargo +nightly fuzz run index`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = annals::testing::bodies::index(bytes);
});
