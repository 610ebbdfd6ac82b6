//! `GET /status`: the daemon at a glance. Imports its parent, attack and boot's state.

use std::time::Instant;

use serde_json::json;

use super::{Answer, Ask, Reply, attack};
use crate::controlplane::admin::Readiness;
use crate::controlplane::boot::Running;

pub(super) fn status(running: &mut Running, _ask: Ask, reply: Reply) {
    let (state, why) = match running.state.readiness() {
        Readiness::Starting => ("starting", None),
        Readiness::Ready => ("ready", None),
        Readiness::Degraded(why) => ("degraded", Some(why)),
        Readiness::Draining => ("draining", None),
    };
    let kernel = running.supervisor.kernel();
    let listeners: Vec<_> = running
        .listeners
        .open()
        .map(|(name, address)| json!({"name": name, "address": address.to_string()}))
        .collect();
    reply.send(Answer::done(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": running.state.pid(),
        "state": state,
        "why": why,
        "configuration": running.config.path.display().to_string(),
        "configuration_version": running.makings.snapshot.load().version,
        "workers": {"configured": running.workers.len(), "alive": running.supervisor.alive()},
        "kernel": {
            "running": kernel.running().label(),
            "lost": kernel.lost().map(ToString::to_string),
        },
        "attack": attack::shown(running, Instant::now()),
        "listeners": listeners,
    })));
}
