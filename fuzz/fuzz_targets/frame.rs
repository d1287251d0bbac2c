//! A frame, whatever its bytes are, is refused or understood.
//!
//! `cargo +nightly fuzz run frame`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = annals::testing::bodies::frame(bytes);
});
