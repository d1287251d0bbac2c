//! A batch, whatever its bytes are, is refused or understood, and said again alike.
//!
//! `cargo +nightly fuzz run batch`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = annals::testing::bodies::batch(bytes);
});
