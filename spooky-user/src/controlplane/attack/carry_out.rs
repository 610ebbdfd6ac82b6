//! Measures what attack mode goes by, and tells the kernel and the workers whether it is on. May import: boot's state, the
//! kernel's counters, the workers' metrics.

use std::time::{Instant, SystemTime};

use spooky_common::counter::Counter;

use super::Load;
use crate::controlplane::boot::Running;
use crate::controlplane::kernel::UnderAttack;
use crate::id::WorkerId;
use crate::telemetry::reason::{DropReason, Reason as _};

/// Looks. What is new is logged, and in force when this returns.
pub fn beat(running: &mut Running, now: Instant) {
    let change = running.attack.look(load(running), now);
    match &change {
        Some(change) if running.attack.is_on() => tracing::warn!("{change}"),
        Some(change) => tracing::info!("{change}"),
        None => {}
    }
    // Also without a change: the age of tokens goes on, and what was not written last time is now.
    tell(running, running.attack.is_on());
}

fn tell(running: &mut Running, on: bool) {
    running.makings.pressure.set_attacked(on);
    let settings = running.attack.settings();
    let lives = running.config.listeners.iter().map(|it| it.quic.address_validation.token_ttl);
    let longest = lives.max().unwrap_or_default();
    let since = || running.attack.tokens_since_ms(longest, Instant::now(), SystemTime::now());
    running.supervisor.set_attack(&UnderAttack {
        on,
        strangers: settings.strangers,
        strangers_all: settings.strangers_all,
        tokens_since_ms: if on { since() } else { 0 },
    });
}

/// Of packets that were dropped in XDP none has reached a worker. Of those that it let pass although they are nobody's, workers
/// see what their sockets have room for: the larger number counts.
fn load(running: &Running) -> Load {
    let kernel = |counter| running.figures.kernel(counter);
    let mut load = Load::default();
    for counter in Counter::ALL {
        let of_nobodys = !matches!(counter, Counter::XdpDenied | Counter::XdpNotAllowed);
        if of_nobodys && counter.describe().labels.contains(&("verdict", "drop")) {
            load.drops += kernel(*counter);
        }
    }
    let mut refused = 0;
    for number in (0..).take(running.workers.len()) {
        let metrics = running.makings.registry.worker(WorkerId(number));
        load.half_open += u64::try_from(metrics.connections_half_open.value()).unwrap_or(0);
        let dropped = &metrics.datagrams_dropped;
        let reasons = DropReason::ALL.iter().filter(|it| **it != DropReason::Denied);
        refused += reasons.map(|reason| dropped[*reason].value()).sum::<u64>();
    }
    let passed = kernel(Counter::XdpUnknownShort) + kernel(Counter::XdpUnknownLong);
    load.drops += refused.max(passed);
    load
}
