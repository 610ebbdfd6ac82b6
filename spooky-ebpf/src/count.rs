//! Adding one to a counter of this CPU. Must not know what is counted.

use spooky_common::counter::Counter;

use crate::maps::COUNTERS;

/// Adds one and returns the new count on this CPU.
#[inline(always)]
pub fn add(counter: Counter) -> u64 {
    let Some(count) = COUNTERS.get_ptr_mut(counter.index()) else { return 0 };
    // SAFETY: the entry belongs to this CPU, and an XDP or sk_reuseport program is not interrupted by another of its
    // kind on the same CPU; the pointer comes from the map and is aligned to 8.
    unsafe {
        *count += 1;
        *count
    }
}
