//! Whatever is done to a store, through kills and power cuts, it does as its model.
//!
//! `cargo +nightly fuzz run operations`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = annals::testing::bodies::operations(bytes);
});
