//! `GET /steering`: where packets go, by queue in XDP, at the socket groups, and in each worker. Imports its parent, boot's
//! state, the kernel's counters.

use http::StatusCode;
use serde_json::{Map, Value, json};
use spooky_common::counter::Counter;

use super::{Answer, Ask, Reply};
use crate::controlplane::boot::Running;
use crate::controlplane::kernel::{KernelError, QueueCounts};
use crate::id::WorkerId;

pub(super) fn steering(running: &mut Running, _ask: Ask, reply: Reply) {
    let kernel = running.supervisor.kernel();
    let counted = kernel.steering().and_then(|queues| Ok((queues, kernel.counters()?)));
    reply.send(match counted {
        Ok((queues, counters)) => Answer::done(json!({
            "running": kernel.running().label(),
            "queues": queues.iter().map(queue).collect::<Vec<_>>(),
            "sockets": at_sockets(&counters),
            "workers": workers(running),
        })),
        Err(error) => unreadable(&error),
    });
}

/// A map that should be there cannot be read.
pub(super) fn unreadable(error: &KernelError) -> Answer {
    Answer::refused(StatusCode::INTERNAL_SERVER_ERROR, "kernel", &error.to_string())
}

fn queue(counts: &QueueCounts) -> Value {
    let shown = Counter::ALL.iter().map(|counter| (*counter, counts.count(*counter)));
    json!({"queue": counts.queue, "frames": by_labels(shown)})
}

/// What the reuseport program did. A train that was joined on receipt (GRO) counts once.
fn at_sockets(counters: &[(Counter, u64)]) -> Value {
    let of_groups =
        |it: &&(Counter, u64)| it.0.describe().labels.first().is_some_and(|it| it.0 == "outcome");
    by_labels(counters.iter().filter(of_groups).copied())
}

/// `{"pass": {"owner": 12, ..}, ..}`, without what is 0.
fn by_labels(counters: impl Iterator<Item = (Counter, u64)>) -> Value {
    let mut all = Map::new();
    for (counter, count) in counters.filter(|(_, count)| *count > 0) {
        if let [(_, verdict), (_, reason)] = counter.describe().labels {
            let inside = all.entry(*verdict).or_insert_with(|| json!({}));
            if let Some(inside) = inside.as_object_mut() {
                inside.insert((*reason).to_owned(), json!(count));
            }
        }
    }
    Value::Object(all)
}

/// What each worker found: user space looks at every datagram's ID again.
fn workers(running: &Running) -> Vec<Value> {
    let registry = &running.makings.registry;
    (0..)
        .take(running.workers.len())
        .map(|number| {
            let metrics = registry.worker(WorkerId(number));
            json!({
                "worker": number,
                "connections": metrics.connections_active.value(),
                "right": metrics.steer_right.value(),
                "forwarded": metrics.steer_forwarded.value(),
                "received": metrics.stray_received.value(),
                "unknown": metrics.steer_unknown.value(),
                "old_generation": metrics.steer_old_generation.value(),
                "owner_gone": metrics.steer_dead_owner.value(),
                "ring_full": metrics.stray_ring_full.value(),
            })
        })
        .collect()
}
