//! One drop in N to the ring buffer. Must not change a verdict.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use spooky_common::{
    counter::Counter,
    cursor::Cursor,
    frame::Tuple,
    sample::{SAMPLE_OCTETS, Sample},
    verdict::DropReason,
};

use crate::{count, cursor::Frame, maps::SAMPLES};

/// Records the `nth` drop for `reason` if `every` divides it. The cursor stands at the UDP payload.
#[inline(always)]
pub fn record(frame: &mut Frame, tuple: &Tuple, reason: DropReason, nth: u64, every: u32) {
    if (nth as u32).checked_rem(every) != Some(0) {
        return;
    }
    let Some(mut entry) = SAMPLES.reserve::<Sample>(0) else {
        count::add(Counter::SamplesLost);
        return;
    };
    let mut octets = [0; SAMPLE_OCTETS];
    let mut octets_len = 0;
    for octet in &mut octets {
        let Some([taken]) = frame.take() else { break };
        *octet = taken;
        octets_len += 1;
    }
    // SAFETY: the helper takes nothing and returns a number.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    entry.write(Sample::new(tuple, reason, octets, octets_len, at_ns));
    entry.submit(0);
}
