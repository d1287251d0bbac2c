//! The bodies of the fuzz targets, on a few inputs; `fuzz/` runs them on many.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use crate::support::within;
use annals::testing::scan_bytes;
use annals::{NewEvent, Settings, Store};

const SECONDS_MAX: u64 = 60;

/// A segment with this many batches.
fn segment(batches: u32) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        Settings { segment_bytes_first: 16 << 10, compress_above_bytes: Some(300), ..Settings::default() };
    let store = Store::open_with(dir.path(), settings).unwrap();
    for number in 0..batches {
        let data = format!("\"{}\"", "x".repeat(number as usize * 20));
        store.append(NewEvent::new("order-42", "Noted").json(data).tag("n")).unwrap().wait().unwrap();
    }
    store.close().unwrap();
    std::fs::read(dir.path().join("0000000001.log")).unwrap()
}

#[test]
fn scanning_a_segment_finds_its_frames_and_survives_whatever_becomes_of_it() {
    within(SECONDS_MAX, "scanning", || {
        let good = segment(20);
        assert_eq!(scan_bytes(&good), 20);
        for length in (0..good.len()).step_by(61) {
            assert!(scan_bytes(&good[..length]) <= 20, "cut to {length} bytes");
        }
        // The header, the frames and the first bytes behind them.
        for at in (0..9000).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(scan_bytes(&bad) <= 20, "a bit of byte {at} was flipped");
        }
    });
}

#[test]
fn scanning_what_is_no_segment_finds_nothing() {
    for bytes in
        [Vec::new(), vec![0; 10_000], vec![0xff; 10_000], b"anfr".repeat(3000), b"annalssg".repeat(2000)]
    {
        assert_eq!(scan_bytes(&bytes), 0);
    }
}
