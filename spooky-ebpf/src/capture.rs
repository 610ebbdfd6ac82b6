//! One frame in N to the ring buffer of captures, with what was decided. Must not change a verdict.

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use spooky_common::{
    capture::{CAPTURE_OCTETS, Capture},
    counter::Counter,
};

use crate::{count, maps::CAPTURES};

/// Records the `nth` frame of its counter on this CPU if `every` divides it; 0 for none.
#[inline(always)]
pub fn record(context: &XdpContext, queue: u32, counter: Counter, nth: u64, every: u32) {
    if (nth as u32).checked_rem(every) != Some(0) {
        return;
    }
    let length = context.data_end() - context.data();
    // Kernel 6.18, `R4 invalid zero-sized read`: a comparison that LLVM can make on a copy of the register says nothing
    // about the one that the helper gets. Read anew, the value has no known bound, and the next comparisons give it one.
    // SAFETY: reads a local that is initialised and aligned.
    let kept = unsafe { core::ptr::read_volatile(&raw const length) };
    let kept = if kept > CAPTURE_OCTETS { CAPTURE_OCTETS } else { kept };
    if kept == 0 {
        return;
    }
    let Some(mut entry) = CAPTURES.reserve::<Capture>(0) else {
        count::add(Counter::CapturesLost);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is this program's until it is submitted; every field is written but the octets behind `kept`,
    // which nobody reads. The helper writes `kept` octets, at most as many as there are, which the verifier checks.
    unsafe {
        (*record).at_ns = bpf_ktime_get_ns();
        (*record).queue = queue;
        (*record).length = length as u32;
        (*record).counter = counter.index();
        let to = (&raw mut (*record).octets).cast();
        let failed = bpf_xdp_load_bytes(context.ctx.cast(), 0, to, kept as u32);
        (*record).kept = if failed == 0 { kept as u32 } else { 0 };
    }
    entry.submit(0);
}
