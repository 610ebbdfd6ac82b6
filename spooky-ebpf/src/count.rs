//! Adding one to a counter of this CPU. Must not know what is counted.

use spooky_common::{
    counter::{Counter, ROW},
    map,
};

use crate::maps::{COUNTERS, STEERING};

/// Adds one to a counter that does not count frames.
#[inline(always)]
pub fn add(counter: Counter) {
    let Some(count) = COUNTERS.get_ptr_mut(counter.index()) else { return };
    // SAFETY: the entry belongs to this CPU, and an XDP or sk_reuseport program is not interrupted by another of its
    // kind on the same CPU; the pointer comes from the map and is aligned to 8.
    unsafe { *count += 1 };
}

/// Adds one to a counter of the frames of `queue` and returns the new count on this CPU.
#[inline(always)]
pub fn frame(queue: u32, counter: Counter) -> u64 {
    let Some(place) = counter.place_in_row() else { return 0 };
    let Some(row) = STEERING.get_ptr_mut(map::steering_row(queue)) else { return 0 };
    // SAFETY: as above; the mask keeps the place within the row.
    unsafe {
        let count = row.cast::<u64>().add(place & (ROW - 1));
        *count += 1;
        *count
    }
}

/// What [`frame`] will return for the next of them.
#[inline(always)]
pub fn next(queue: u32, counter: Counter) -> u64 {
    let Some(place) = counter.place_in_row() else { return 0 };
    let Some(row) = STEERING.get_ptr(map::steering_row(queue)) else { return 0 };
    // SAFETY: as above.
    unsafe { *row.cast::<u64>().add(place & (ROW - 1)) + 1 }
}
