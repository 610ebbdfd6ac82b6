//! Attack mode: `GET /attack` shows it, `POST /attack` turns it on, off, or leaves it to the load. Imports its parent, boot's
//! state, attack.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Ask, Reply};
use crate::controlplane::attack::{self, Mode};
use crate::controlplane::boot::Running;
use crate::controlplane::kernel::Running as Steering;

/// What `POST /attack` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    mode: Mode,
}

pub(super) fn show(running: &mut Running, _ask: Ask, reply: Reply) {
    reply.send(Answer::done(shown(running, Instant::now())));
}

/// In force when it is answered.
pub(super) fn order(running: &mut Running, ask: Ask, reply: Reply) {
    let wish: Wish = match ask.read() {
        Ok(wish) => wish,
        Err(answer) => return reply.send(answer),
    };
    let now = Instant::now();
    tracing::info!(mode = wish.mode.label(), uid = ask.asker.uid, pid = ?ask.asker.pid, "attack mode: by hand");
    running.attack.order(wish.mode);
    attack::beat(running, now);
    reply.send(Answer::done(shown(running, now)));
}

/// As the last look found it.
pub(super) fn shown(running: &Running, now: Instant) -> Value {
    let report = running.attack.report(now);
    let settings = running.attack.settings();
    let seconds = |time: std::time::Duration| time.as_secs();
    let steering = running.supervisor.kernel().running();
    json!({
        "on": report.on.is_some(),
        "cause": report.on.map(|(cause, _)| cause.label()),
        "for_seconds": report.on.map(|(_, time)| seconds(time)),
        "ends_in_seconds": report.ends_in.map(seconds),
        "mode": report.mode.label(),
        "by_hand": report.by_hand,
        "half_open": {"now": report.half_open, "threshold": settings.half_open},
        "drops_per_second": {
            "now": report.drops_per_second,
            "threshold": settings.drops_per_second,
        },
        "in_kernel": matches!(steering, Steering::XdpNative | Steering::XdpGeneric),
    })
}
