//! Version Negotiation sent back by the interface that the packet came in by: a program of its own, which the other one goes
//! on to. Must not decide whether to answer.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use spooky_common::{
    answer::{self, SHIFT},
    counter::Counter,
    frame::{self, Tuple},
    verdict::Tables as _,
};

use crate::{
    capture, count,
    cursor::{Frame, Whole},
    maps::Maps,
};

/// Answers, or passes what cannot be answered here; counts once.
#[inline(always)]
pub fn version_negotiation(context: &XdpContext) -> u32 {
    let queue = context.rx_queue_index();
    let question = question(context);
    let planned = if question.is_some() { Counter::XdpAnswered } else { Counter::XdpNewFlow };
    // As it came: what goes back is written over it.
    if let Some(maps) = Maps::open(queue) {
        let nth = count::next(queue, planned);
        capture::record(context, queue, planned, nth, maps.settings().capture_every);
    }
    let (action, counter) = match question {
        Some(tuple) => make(context, &tuple),
        None => (XDP_PASS, planned),
    };
    count::frame(queue, counter);
    action
}

/// `None`: cannot be answered here.
#[inline(always)]
fn question(context: &XdpContext) -> Option<Tuple> {
    let tuple = frame::udp(&mut Frame::new(context)).ok()?;
    answer::can_answer(&Whole::new(context), &tuple).then_some(tuple)
}

#[inline(always)]
fn make(context: &XdpContext, tuple: &Tuple) -> (u32, Counter) {
    // Half an answer must go nowhere. Never comes to that: the datagram has room enough.
    const SPOILED: (u32, Counter) = (XDP_DROP, Counter::XdpVersions);
    let mut whole = Whole::new(context);
    let Some(len) = answer::version_negotiation(&mut whole, tuple) else { return SPOILED };
    let behind = whole.len() as i32 - SHIFT as i32 - len as i32;
    // SAFETY: the context is the one the kernel called with; no pointer into the packet is used behind this.
    let failed = unsafe {
        bpf_xdp_adjust_head(context.as_ptr().cast(), SHIFT as i32) != 0
            || bpf_xdp_adjust_tail(context.as_ptr().cast(), -behind) != 0
    };
    if failed { SPOILED } else { (XDP_TX, Counter::XdpAnswered) }
}
