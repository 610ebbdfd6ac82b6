//! Every order of events at the places where threads meet: the rings of strays, the orders to a worker and the snapshot that
//! both planes hold. The sources are the worker's own, compiled here a second time with loom's atomics (`sync`); `swap` stands for
//! arc-swap, which has loom models of no kind and is tried with threads instead.
//!
//! A lost wake-up is a deadlock to loom, and so a failure.

#[expect(unreachable_pub, dead_code, reason = "a file of the worker's")]
#[path = "../../spooky-user/src/dataplane/worker/inbox.rs"]
mod inbox;
mod orders;
mod snapshot;
#[expect(unreachable_pub, dead_code, reason = "a file of the worker's")]
#[path = "../../spooky-user/src/dataplane/worker/stray.rs"]
mod stray;
mod strays;
mod sync;

// What the two files name besides `sync`.
use spooky_user::dataplane::worker::{ListenerSetup, Terms};
use spooky_user::{dataplane, id};

/// Runs `model` in every order of events in which threads are interrupted at most three times: enough for every defect of this
/// kind that is known, in seconds instead of hours.
fn in_every_order(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}
