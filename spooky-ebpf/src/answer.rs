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
    frame,
};

use crate::{
    count,
    cursor::{Frame, Whole},
};

/// Answers, or passes what cannot be answered here; counts once.
#[inline(always)]
pub fn version_negotiation(context: &XdpContext) -> u32 {
    let (action, counter) = make(context).unwrap_or((XDP_PASS, Counter::XdpNewFlow));
    count::frame(context.rx_queue_index(), counter);
    action
}

/// `None`: untouched.
#[inline(always)]
fn make(context: &XdpContext) -> Option<(u32, Counter)> {
    // Half an answer must go nowhere. Never comes to that: the datagram has room enough.
    const SPOILED: (u32, Counter) = (XDP_DROP, Counter::XdpVersions);
    let tuple = frame::udp(&mut Frame::new(context)).ok()?;
    let mut whole = Whole::new(context);
    if !answer::can_answer(&whole, &tuple) {
        return None;
    }
    let Some(len) = answer::version_negotiation(&mut whole, &tuple) else { return Some(SPOILED) };
    let behind = whole.len() as i32 - SHIFT as i32 - len as i32;
    // SAFETY: the context is the one the kernel called with; no pointer into the packet is used behind this.
    let failed = unsafe {
        bpf_xdp_adjust_head(context.as_ptr().cast(), SHIFT as i32) != 0
            || bpf_xdp_adjust_tail(context.as_ptr().cast(), -behind) != 0
    };
    Some(if failed { SPOILED } else { (XDP_TX, Counter::XdpAnswered) })
}
