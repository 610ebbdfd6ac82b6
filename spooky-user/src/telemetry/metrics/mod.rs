//! Numbers for Prometheus. Each worker owns its shards and writes them without a lock; a scrape sums them.
//!
//! May import: id, telemetry::reason. The label values are names from the configuration, closed lists of reasons and worker
//! numbers, never anything a client sends, so the number of time series is bounded by the configuration.

mod counter;
mod endpoint;
mod histogram;
mod render;
mod route;
mod shards;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::{TextEncoder, proto};

pub use self::counter::{Counter, Counters, Gauge, Labelled, REASONS_MAX};
pub use self::endpoint::{Attempt, EndpointMetrics, EndpointShard};
pub use self::histogram::{EXCHANGE_BOUNDS, Histogram, RTT_BOUNDS, TURN_BOUNDS};
pub use self::render::{Samples, Source};
pub use self::route::{RouteMetrics, RouteShard};
pub use self::worker::WorkerMetrics;
pub use super::reason::{
    CloseReason, DropReason, HandshakeFailure, MalformedReason, Reason, RefusedReason,
};
use crate::id::WorkerId;

/// The `route` label of requests that match no configured route.
pub const UNROUTED: &str = "(none)";

/// The `Content-Type` of [`Registry::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything there is to count. Made once at start; shared by the control plane and, as shards, by the workers.
pub struct Registry {
    shards: Arc<Shards>,
    prometheus: prometheus::Registry,
}

/// The shards of every worker, and who else has numbers.
struct Shards {
    workers: Vec<Arc<WorkerMetrics>>,
    /// Taken only by the control plane, when a snapshot is compiled and at a scrape; never on the request path.
    named: Mutex<Named>,
}

#[derive(Default)]
struct Named {
    routes: BTreeMap<Arc<str>, Arc<RouteMetrics>>,
    endpoints: BTreeMap<(Arc<str>, Arc<str>), Arc<EndpointMetrics>>,
    sources: Vec<Arc<dyn Source>>,
}

/// The one collector that `prometheus` knows. It describes nothing beforehand, because routes come and go with reloads.
struct Export(Arc<Shards>);

// === impl Registry ===

impl Registry {
    /// A registry for workers `0..workers`.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let shards = Arc::new(Shards {
            workers: (0..workers).map(|_| Arc::new(WorkerMetrics::new())).collect(),
            named: Mutex::default(),
        });
        let prometheus = prometheus::Registry::new();
        #[expect(clippy::expect_used, reason = "once, at start, before anything is bound")]
        prometheus
            .register(Box::new(Export(Arc::clone(&shards))))
            .expect("an empty registry takes a first collector");
        Self { shards, prometheus }
    }

    /// The shard of this worker.
    ///
    /// # Panics
    /// When the worker is not one of those the registry was made for.
    #[must_use]
    #[expect(clippy::expect_used, reason = "asked by the control plane, which numbers the workers")]
    pub fn worker(&self, worker: WorkerId) -> Arc<WorkerMetrics> {
        Arc::clone(
            self.shards
                .workers
                .get(worker.index())
                .expect("the registry was made for every worker"),
        )
    }

    /// How many workers the registry was made for.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shards.workers.len()
    }

    /// The counts of this route, new if the name is.
    #[must_use]
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let mut named = self.shards.named();
        if let Some(route) = named.routes.get(name) {
            return Arc::clone(route);
        }
        let name: Arc<str> = Arc::from(name);
        let route = Arc::new(RouteMetrics::new(Arc::clone(&name), self.workers()));
        named.routes.insert(name, Arc::clone(&route));
        route
    }

    /// The counts of requests that match no route.
    #[must_use]
    pub fn unrouted(&self) -> Arc<RouteMetrics> {
        self.route(UNROUTED)
    }

    /// The counts of this endpoint of this upstream, new if the names are.
    #[must_use]
    pub fn endpoint(&self, cluster: &str, endpoint: &str) -> Arc<EndpointMetrics> {
        let key: (Arc<str>, Arc<str>) = (Arc::from(cluster), Arc::from(endpoint));
        let mut named = self.shards.named();
        let workers = self.workers();
        let metrics = named.endpoints.entry(key).or_insert_with_key(|(cluster, endpoint)| {
            Arc::new(EndpointMetrics::new(Arc::clone(cluster), Arc::clone(endpoint), workers))
        });
        Arc::clone(metrics)
    }

    /// Forgets routes and (upstream, endpoint) pairs that are not named here: called after a reload was published.
    /// Exchanges still open keep their shards and count into the void.
    pub fn retain<'a>(
        &self,
        routes: impl IntoIterator<Item = &'a str>,
        endpoints: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let routes: BTreeSet<&str> = routes.into_iter().chain([UNROUTED]).collect();
        let endpoints: BTreeSet<(&str, &str)> = endpoints.into_iter().collect();
        let mut named = self.shards.named();
        named.routes.retain(|name, _| routes.contains(&**name));
        named.endpoints.retain(|(cluster, name), _| endpoints.contains(&(&**cluster, &**name)));
    }

    /// Asks `source` too at each scrape, from now on.
    pub fn add_source(&self, source: Arc<dyn Source>) {
        self.shards.named().sources.push(source);
    }

    /// Every metric in the Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // The encoder fails only on a family without name or samples; `Samples` makes neither.
        if let Err(error) = TextEncoder::new().encode_utf8(&self.prometheus.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        text
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.shards.named();
        f.debug_struct("Registry")
            .field("workers", &self.workers())
            .field("routes", &named.routes.len())
            .field("endpoints", &named.endpoints.len())
            .field("sources", &named.sources.len())
            .finish()
    }
}

// === impl Shards ===

impl Shards {
    fn named(&self) -> MutexGuard<'_, Named> {
        // A panic while the lock was held cannot leave the maps half changed: each change is one insert or retain.
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Export ===

impl Collector for Export {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut samples = Samples::default();
        worker::render(&self.0.workers, &mut samples);
        worker::render_each(&self.0.workers, &mut samples);
        let (routes, endpoints, sources) = {
            let named = self.0.named();
            let routes: Vec<_> = named.routes.values().cloned().collect();
            let endpoints: Vec<_> = named.endpoints.values().cloned().collect();
            (routes, endpoints, named.sources.clone())
        };
        route::render(&routes, &mut samples);
        endpoint::render(&endpoints, &mut samples);
        for source in sources {
            source.collect(&mut samples);
        }
        samples.into_families()
    }
}
