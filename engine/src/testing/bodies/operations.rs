//! Operations on a store and on its model, through kills and power cuts.

use crate::Settings;
use crate::testing::{Driver, Operations, SimulatedDisk, SimulatedPlace};

const CLOCK_START: u64 = 1_700_000_000_000_000_000;
/// Operations on a store: the next would find nothing that is new.
const OPERATIONS_MAX: usize = 100;

/// The first two bytes choose the settings and the disk; the others choose what is done to the store, until there are no more.
/// Returns how many operations there were.
#[must_use]
pub fn operations(bytes: &[u8]) -> usize {
    let Some((&[choice, depth], chosen)) = bytes.split_first_chunk() else { return 0 };
    let disk = SimulatedDisk::new(choice.into());
    if depth % 8 > 0 {
        disk.set_depth((depth % 8).into());
    }
    let place = SimulatedPlace::new(disk);
    let mut driver = Driver::new(place, settings(choice), CLOCK_START).expect("an empty disk takes a store");
    let mut operations = Operations::chosen_by(chosen, CLOCK_START);
    let mut count = 0;
    while !operations.is_used_up() && count < OPERATIONS_MAX {
        let operation = operations.next_for(driver.model());
        driver.apply(&operation);
        count += 1;
    }
    driver.finish();
    count
}

/// Small segments, and little that is kept in memory, or much.
fn settings(choice: u8) -> Settings {
    let is = |bit: u8| choice & (1 << bit) != 0;
    Settings {
        segment_bytes_first: 16 << 10,
        segment_bytes_max: if is(0) { 16 << 10 } else { 64 << 10 },
        recent_bytes: if is(1) { 0 } else { 16 << 20 },
        id_window: if is(2) { 25 } else { 1_000_000 },
        cached_heads: if is(3) { 2 } else { 1_000 },
        compress_above_bytes: is(4).then_some(200),
        ..Settings::default()
    }
}
