//! Whatever a peer sends is taken apart without a panic, and what was understood is said again alike.
//!
//! `cargo +nightly fuzz run wire`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = annals_protocol::testing::decode_bytes(bytes);
});
