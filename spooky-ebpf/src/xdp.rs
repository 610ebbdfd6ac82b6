//! Ingress: the verdict of spooky-common carried out and counted. Must not decide anything itself.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};
use spooky_common::{
    counter::Counter,
    map::REDIRECT_OCTETS_MAX,
    verdict::{self, Tables as _, Verdict},
};

use crate::{
    capture, count,
    cursor::Frame,
    maps::{Maps, PROGRAMS, XSKS},
    sample,
};

/// Decides, counts once, and acts.
#[inline(always)]
pub fn ingress(context: &XdpContext) -> u32 {
    let queue = context.rx_queue_index();
    let Some(maps) = Maps::open(queue) else { return XDP_PASS };
    let mut frame = Frame::new(context);
    let verdict = verdict::ingress(&mut frame, &maps);
    let (action, counter) = match verdict {
        Verdict::Pass(counter) => (XDP_PASS, counter),
        Verdict::Drop(reason, _) => (XDP_DROP, reason.counter()),
        Verdict::Answer => {
            // SAFETY: the context is the one the kernel called with. Comes back only if the program is not there.
            let _missing = unsafe { PROGRAMS.tail_call(context, 0) };
            (XDP_PASS, Counter::XdpNewFlow)
        }
        // It would be lost there: the stack has room for it.
        Verdict::Redirect(_, why) if context.data() + REDIRECT_OCTETS_MAX < context.data_end() => {
            (XDP_PASS, why.passed())
        }
        Verdict::Redirect(queue, why) => match XSKS.redirect(queue, 0) {
            Ok(action) => (action, verdict.counter()),
            // A queue without an AF_XDP socket still has the stack behind it.
            Err(_) => (XDP_PASS, why.passed()),
        },
    };
    let nth = count::frame(queue, counter);
    capture::record(context, queue, counter, nth, maps.settings().capture_every);
    if let Verdict::Drop(reason, tuple) = verdict {
        sample::record(&mut frame, &tuple, reason, nth, maps.settings().sample_every);
    }
    action
}
