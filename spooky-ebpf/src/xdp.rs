//! Ingress: the verdict of spooky-common carried out and counted. Must not decide anything itself.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};
use spooky_common::verdict::{self, Tables as _, Verdict};

use crate::{
    count,
    cursor::Frame,
    maps::{Maps, XSKS},
    sample,
};

/// Decides, counts once, and acts.
#[inline(always)]
pub fn ingress(context: &XdpContext) -> u32 {
    let Some(maps) = Maps::open() else { return XDP_PASS };
    let mut frame = Frame::new(context);
    let verdict = verdict::ingress(&mut frame, &maps);
    let nth = count::add(verdict.counter());
    match verdict {
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Drop(reason, tuple) => {
            sample::record(&mut frame, &tuple, reason, nth, maps.settings().sample_every);
            XDP_DROP
        }
        // A queue without an AF_XDP socket still has the stack behind it.
        Verdict::Redirect(queue) => XSKS.redirect(queue, 0).unwrap_or(XDP_PASS),
    }
}
