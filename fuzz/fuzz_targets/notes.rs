//! Notes of snapshots and durable subscriptions are refused or understood, and a subscription goes on from them.
//!
//! `cargo +nightly fuzz run notes`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = annals::testing::bodies::notes(bytes);
});
