//! What each configured route counts, one padded shard a worker. Imports only its siblings and `id`.

use std::sync::Arc;
use std::time::Duration;

use super::counter::Counter;
use super::histogram::{EXCHANGE_BOUNDS, Histogram};
use super::render::Samples;
use crate::id::WorkerId;

/// Labels of [`RouteShard`]'s statuses: the class of the status sent, or `none` when no response head was sent.
pub(super) const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// One route's counts. Survives reloads while the name stays.
#[derive(Debug)]
pub struct RouteMetrics {
    name: Arc<str>,
    shards: Box<[RouteShard]>,
}

/// One worker's part of a route. Written by that worker alone; its own cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct RouteShard {
    statuses: [Counter; STATUS_CLASSES.len()],
    seconds: Histogram,
    request_bytes: Counter,
    response_bytes: Counter,
}

// === impl RouteMetrics ===

impl RouteMetrics {
    pub(super) fn new(name: Arc<str>, workers: usize) -> Self {
        Self { name, shards: (0..workers.max(1)).map(|_| RouteShard::new()).collect() }
    }

    /// The route's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shard of this worker.
    ///
    /// # Panics
    /// When the worker is not one of those the registry was made for.
    #[must_use]
    pub fn shard(&self, worker: WorkerId) -> &RouteShard {
        self.shards.get(worker.index()).expect("the registry was made for every worker")
    }
}

// === impl RouteShard ===

impl RouteShard {
    fn new() -> Self {
        Self {
            statuses: [const { Counter::new() }; STATUS_CLASSES.len()],
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
        self.statuses[status_class(status)].inc();
        self.seconds.observe(duration);
        self.request_bytes.add(request_bytes);
        self.response_bytes.add(response_bytes);
    }
}

/// The place in [`STATUS_CLASSES`] of a status.
pub(super) fn status_class(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => usize::from(class),
        _ => 0,
    }
}

/// Renders every route, summed over workers.
pub(super) fn render(routes: &[Arc<RouteMetrics>], samples: &mut Samples) {
    for route in routes {
        let name = ("route", route.name());
        for (class, status) in STATUS_CLASSES.iter().enumerate() {
            samples.counter(
                "spooky_requests_total",
                "Requests finished, by route and class of the status sent (none: no response head was sent).",
                &[name, ("status", status)],
                route.shards.iter().map(|shard| shard.statuses[class].value()).sum(),
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
