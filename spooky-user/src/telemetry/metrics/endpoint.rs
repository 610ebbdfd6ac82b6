//! What each configured backend address counts, one padded shard a worker, and what the control plane knows of its health.
//! Imports only its siblings and `id`.

use std::sync::Arc;

use super::counter::{Counter, Gauge, Labelled};
use super::histogram::{EXCHANGE_BOUNDS, Histogram};
use super::render::Samples;
use super::route::{STATUS_CLASSES, Statuses};
use super::shards::Shards;
use crate::id::WorkerId;

/// How one attempt at an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// A response head with this status came.
    Answered(u16),
    /// It failed before a response head; say why with [`EndpointShard::failures`].
    Failed,
    /// The client went away first: not the endpoint's fault.
    Cancelled,
}

/// One endpoint's counts. Survives reloads while upstream and endpoint keep their names.
#[derive(Debug)]
pub struct EndpointMetrics {
    cluster: Arc<str>,
    endpoint: Arc<str>,
    shards: Shards<EndpointShard>,
    /// 1 while the endpoint may get requests. Written by the control plane alone; 1 until it says otherwise.
    pub healthy: Gauge,
    /// How often probes took it out. Written by the control plane alone.
    pub ejections: Counter,
    /// Probes that succeeded. Written by the control plane alone.
    pub probes_succeeded: Counter,
    /// Probes that failed. Written by the control plane alone.
    pub probes_failed: Counter,
}

/// One worker's part of an endpoint. Written by that worker alone; its own cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct EndpointShard {
    answered: Statuses,
    failed: Counter,
    cancelled: Counter,
    /// Streams open at this endpoint now.
    pub active: Gauge,
    /// From the end of the request head sent to the response head.
    pub time_to_first_byte: Histogram,
    /// Failures that count against the endpoint, by error kind: `failures.inc(kind as usize, kind.label())`.
    pub failures: Labelled,
}

// === impl EndpointMetrics ===

impl EndpointMetrics {
    pub(super) fn new(cluster: Arc<str>, endpoint: Arc<str>, workers: usize) -> Self {
        let healthy = Gauge::new();
        healthy.set(1);
        Self {
            cluster,
            endpoint,
            shards: Shards::new(workers, EndpointShard::new),
            healthy,
            ejections: Counter::new(),
            probes_succeeded: Counter::new(),
            probes_failed: Counter::new(),
        }
    }

    /// The names of its upstream and of itself.
    #[must_use]
    pub fn names(&self) -> (&str, &str) {
        (&self.cluster, &self.endpoint)
    }

    /// The shard of this worker.
    #[must_use]
    pub fn shard(&self, worker: WorkerId) -> &EndpointShard {
        self.shards.of(worker)
    }

    fn sum(&self, read: impl Fn(&EndpointShard) -> u64) -> u64 {
        self.shards.iter().map(read).sum()
    }
}

// === impl EndpointShard ===

impl EndpointShard {
    fn new() -> Self {
        Self {
            answered: Statuses::default(),
            failed: Counter::new(),
            cancelled: Counter::new(),
            active: Gauge::new(),
            time_to_first_byte: Histogram::new(EXCHANGE_BOUNDS),
            failures: Labelled::new(),
        }
    }

    /// Counts one attempt that ended.
    pub fn attempt(&self, outcome: Attempt) {
        match outcome {
            Attempt::Answered(status) => self.answered.of(status).inc(),
            Attempt::Failed => self.failed.inc(),
            Attempt::Cancelled => self.cancelled.inc(),
        }
    }
}

/// Renders every endpoint, summed over workers.
pub(super) fn render(endpoints: &[Arc<EndpointMetrics>], samples: &mut Samples) {
    for endpoint in endpoints {
        let names = [("upstream", &*endpoint.cluster), ("endpoint", &*endpoint.endpoint)];
        render_attempts(endpoint, names, samples);
        render_health(endpoint, names, samples);
        samples.gauge(
            "spooky_endpoint_streams_active",
            "Streams open at the endpoint now.",
            &names,
            endpoint.shards.iter().map(|shard| shard.active.value()).sum::<i64>() as f64,
        );
        let seconds: Vec<&Histogram> =
            endpoint.shards.iter().map(|shard| &shard.time_to_first_byte).collect();
        samples.histogram(
            "spooky_endpoint_first_byte_seconds",
            "Time from a request sent to the endpoint to its response head.",
            &names,
            &seconds,
        );
    }
}

fn render_attempts(endpoint: &EndpointMetrics, names: [(&str, &str); 2], samples: &mut Samples) {
    const NAME: &str = "spooky_endpoint_attempts_total";
    const HELP: &str =
        "Attempts at the endpoint that ended, by class of its status, failed or cancelled.";
    let [cluster, name] = names;
    for (class, status) in (0..).zip(STATUS_CLASSES).skip(1) {
        let count = endpoint.sum(|shard| shard.answered.of(class * 100).value());
        samples.counter(NAME, HELP, &[cluster, name, ("outcome", status)], count);
    }
    // A status outside 100..=599 is counted as failed: no HTTP response has one (RFC 9110 §15).
    let failed = endpoint.sum(|shard| shard.failed.value() + shard.answered.of(0).value());
    samples.counter(NAME, HELP, &[cluster, name, ("outcome", "failed")], failed);
    let cancelled = endpoint.sum(|shard| shard.cancelled.value());
    samples.counter(NAME, HELP, &[cluster, name, ("outcome", "cancelled")], cancelled);
    let failures: Vec<&Labelled> = endpoint.shards.iter().map(|shard| &shard.failures).collect();
    samples.labelled(
        "spooky_endpoint_failures_total",
        "Failures that count against the endpoint, by kind.",
        "kind",
        &names,
        &failures,
    );
}

fn render_health(endpoint: &EndpointMetrics, names: [(&str, &str); 2], samples: &mut Samples) {
    samples.gauge(
        "spooky_endpoint_healthy",
        "1 while the endpoint may get requests, 0 while it is taken out.",
        &names,
        endpoint.healthy.value() as f64,
    );
    samples.counter(
        "spooky_endpoint_ejections_total",
        "How often health checks took the endpoint out.",
        &names,
        endpoint.ejections.value(),
    );
    let [cluster, name] = names;
    for (result, count) in [
        ("succeeded", endpoint.probes_succeeded.value()),
        ("failed", endpoint.probes_failed.value()),
    ] {
        samples.counter(
            "spooky_endpoint_probes_total",
            "Health check probes, by result.",
            &[cluster, name, ("result", result)],
            count,
        );
    }
}
