//! What each configured route counts, one padded shard a worker. Imports only its siblings and `id`.

use std::sync::Arc;
use std::time::Duration;

use super::counter::Counter;
use super::histogram::{EXCHANGE_BOUNDS, Histogram};
use super::render::Samples;
use super::shards::Shards;
use crate::id::WorkerId;

/// Labels of [`RouteShard`]'s statuses: the class of the status sent, or `none` when no response head was sent.
pub(super) const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// One route's counts. Survives reloads while the name stays.
#[derive(Debug)]
pub struct RouteMetrics {
    name: Arc<str>,
    shards: Shards<RouteShard>,
}

/// One worker's part of a route. Written by that worker alone; its own cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct RouteShard {
    statuses: Statuses,
    seconds: Histogram,
    request_bytes: Counter,
    response_bytes: Counter,
}

/// One counter for each of [`STATUS_CLASSES`]. Single writer.
#[derive(Debug, Default)]
pub(super) struct Statuses([Counter; STATUS_CLASSES.len()]);

// === impl RouteMetrics ===

impl RouteMetrics {
    pub(super) fn new(name: Arc<str>, workers: usize) -> Self {
        Self { name, shards: Shards::new(workers, RouteShard::new) }
    }

    /// The route's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shard of this worker.
    #[must_use]
    pub fn shard(&self, worker: WorkerId) -> &RouteShard {
        self.shards.of(worker)
    }
}

// === impl RouteShard ===

impl RouteShard {
    fn new() -> Self {
        Self {
            statuses: Statuses::default(),
            seconds: Histogram::new(EXCHANGE_BOUNDS),
            request_bytes: Counter::new(),
            response_bytes: Counter::new(),
        }
    }

    /// Counts one finished request: the final status sent (0 when none was), the time from its head received to its end,
    /// and the content bytes received and sent.
    pub fn finished(
        &self,
        status: u16,
        duration: Duration,
        request_bytes: u64,
        response_bytes: u64,
    ) {
        self.statuses.of(status).inc();
        self.seconds.observe(duration);
        self.request_bytes.add(request_bytes);
        self.response_bytes.add(response_bytes);
    }
}

// === impl Statuses ===

impl Statuses {
    /// The counter of this status's class; that of `none` for what is no HTTP status.
    pub(super) fn of(&self, status: u16) -> &Counter {
        let [none, classes @ ..] = &self.0;
        let place = (status / 100).checked_sub(1).and_then(|class| classes.get(usize::from(class)));
        place.unwrap_or(none)
    }
}

/// Renders every route, summed over workers.
pub(super) fn render(routes: &[Arc<RouteMetrics>], samples: &mut Samples) {
    for route in routes {
        let name = ("route", route.name());
        for (class, status) in (0..).zip(STATUS_CLASSES) {
            samples.counter(
                "spooky_requests_total",
                "Requests finished, by route and class of the status sent (none: no response head was sent).",
                &[name, ("status", status)],
                route.shards.iter().map(|shard| shard.statuses.of(class * 100).value()).sum(),
            );
        }
        let seconds: Vec<&Histogram> = route.shards.iter().map(|shard| &shard.seconds).collect();
        samples.histogram(
            "spooky_request_seconds",
            "Time from a request's head to the end of its response, by route.",
            &[name],
            &seconds,
        );
        samples.counter(
            "spooky_request_bytes_total",
            "Request content bytes received, by route.",
            &[name],
            route.shards.iter().map(|shard| shard.request_bytes.value()).sum(),
        );
        samples.counter(
            "spooky_response_bytes_total",
            "Response content bytes sent, by route.",
            &[name],
            route.shards.iter().map(|shard| shard.response_bytes.value()).sum(),
        );
    }
}
