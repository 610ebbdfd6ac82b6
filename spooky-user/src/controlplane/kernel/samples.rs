//! Sampled drops out of the ring buffer.

use spooky_common::sample::Sample;

use super::object::Loaded;

/// Most samples handed out at once. The ring holds fewer than 4800 (256 KiB at 56 octets a record), so this bounds
/// the work while a flood refills it.
const DRAIN_MAX: usize = 4096;

pub(super) fn drain(loaded: &mut Loaded, mut f: impl FnMut(&Sample)) {
    for _ in 0..DRAIN_MAX {
        let Some(record) = loaded.samples.next() else { break };
        if let Some(sample) = Sample::read(&record) {
            f(&sample);
        }
    }
}
