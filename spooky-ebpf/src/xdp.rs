//! Ingress: the verdict of spooky-common carried out and counted. Must not decide anything itself.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};
use spooky_common::{
    counter::Counter,
    guard,
    map::{self, REDIRECT_OCTETS_MAX},
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
    let Some(maps) = Maps::open(context.rx_queue_index()) else { return XDP_PASS };
    let mut frame = Frame::new(context);
    let verdict = verdict::ingress(&mut frame, &maps);
    act(context, &maps, frame, verdict)
}

/// The same, for what the program above leaves to be looked at closer.
#[inline(always)]
pub fn guard(context: &XdpContext) -> u32 {
    let Some(maps) = Maps::open(context.rx_queue_index()) else { return XDP_PASS };
    let mut frame = Frame::new(context);
    let verdict = guard::ingress(&mut frame, &maps);
    act(context, &maps, frame, verdict)
}

/// Of a frame that is dropped `frame` stands at the UDP payload.
#[inline(always)]
fn act(context: &XdpContext, maps: &Maps, mut frame: Frame, verdict: Verdict) -> u32 {
    let queue = context.rx_queue_index();
    let (action, counter) = match verdict {
        Verdict::Pass(counter) => (XDP_PASS, counter),
        Verdict::Drop(reason, _) => (XDP_DROP, reason.counter()),
        Verdict::Answer => {
            go_on(context, map::ANSWER_PLACE);
            (XDP_PASS, Counter::XdpNewFlow)
        }
        Verdict::Guard => {
            go_on(context, map::GUARD_PLACE);
            (XDP_PASS, verdict.counter())
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

/// Comes back only if there is no program at that place.
#[inline(always)]
fn go_on(context: &XdpContext, place: u32) {
    // SAFETY: the context is the one the kernel called with.
    let _missing = unsafe { PROGRAMS.tail_call(context, place) };
}
