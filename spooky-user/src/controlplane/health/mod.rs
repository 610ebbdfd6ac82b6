//! Active health checks: probes each endpoint over connections of its own and tells the workers which may get requests.
//!
//! May import: dataplane::upstream (clusters, how to connect), telemetry. Runs on the control plane's runtime; the only writer
//! of [`crate::dataplane::upstream::cluster::Health`]. One task an endpoint, one probe at a time in it: a slow backend delays
//! its own next probe and nothing else.

mod probe;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use self::probe::{ProbeError, probe};
use self::verdict::{Transition, Verdict};
use crate::dataplane::upstream::cluster::{Cluster, Endpoint, HealthCheck};

/// First probes are spread over this, or over the interval if it is shorter.
const SPREAD_MAX: Duration = Duration::from_secs(1);

/// The names of an upstream and of one of its endpoints.
type Names = (Arc<str>, Arc<str>);

/// Runs the probes of every endpoint whose upstream has a health check.
#[derive(Default)]
pub struct Scheduler {
    probes: HashMap<Names, Running>,
}

/// The probes of one endpoint; dropping it ends them.
struct Running {
    endpoint: Arc<Endpoint>,
    check: HealthCheck,
    task: AbortHandle,
}

/// What a task needs.
struct Watch {
    upstream: Arc<str>,
    endpoint: Arc<Endpoint>,
    check: HealthCheck,
    verdict: Verdict,
}

// === impl Scheduler ===

impl Scheduler {
    /// Probes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes these upstreams the ones that are probed: at start and after each reload. To be called in a tokio runtime, whose
    /// tasks the probes become.
    ///
    /// An endpoint that did not change goes on undisturbed, its counts of results in a row included. One that changed
    /// address begins anew as healthy; one whose check or settings changed keeps its health. One that vanished is probed no
    /// more, and one whose check was removed is healthy.
    pub fn reconcile(&mut self, clusters: &[Arc<Cluster>]) {
        let mut before = std::mem::take(&mut self.probes);
        for cluster in clusters {
            for endpoint in &cluster.endpoints {
                let names = (Arc::clone(&cluster.name), Arc::clone(&endpoint.name));
                let running = before.remove(&names);
                match &cluster.health_check {
                    Some(check) => {
                        let running = watch(&names.0, endpoint, check, running);
                        self.probes.insert(names, running);
                    }
                    None => {
                        endpoint.health.set(true);
                        endpoint.metrics.healthy.set(1);
                    }
                }
            }
        }
    }

    /// How many endpoints are probed.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.probes.len()
    }
}

/// Probes that go on as they were, or begin.
fn watch(
    upstream: &Arc<str>,
    endpoint: &Arc<Endpoint>,
    check: &HealthCheck,
    before: Option<Running>,
) -> Running {
    if let Some(mut before) = before {
        if before.is_of(endpoint, check) {
            before.endpoint = Arc::clone(endpoint);
            return before;
        }
        if before.endpoint.address == endpoint.address {
            endpoint.health.set(before.endpoint.health.is_healthy());
        }
    }
    let healthy = endpoint.health.is_healthy();
    endpoint.metrics.healthy.set(i64::from(healthy));
    let watch = Watch {
        upstream: Arc::clone(upstream),
        endpoint: Arc::clone(endpoint),
        check: check.clone(),
        verdict: Verdict::new(healthy, check.unhealthy_after, check.healthy_after),
    };
    let task = tokio::spawn(watch.run()).abort_handle();
    Running { endpoint: Arc::clone(endpoint), check: check.clone(), task }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("watched", &self.watched()).finish_non_exhaustive()
    }
}

// === impl Running ===

impl Running {
    /// Does it probe just this, and tell just its workers?
    fn is_of(&self, endpoint: &Endpoint, check: &HealthCheck) -> bool {
        self.endpoint.address == endpoint.address
            && self.endpoint.settings == endpoint.settings
            && Arc::ptr_eq(&self.endpoint.health, &endpoint.health)
            && self.check == *check
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Watch ===

impl Watch {
    async fn run(mut self) {
        sleep(SPREAD_MAX.min(self.check.interval).mul_f64(fastrand::f64())).await;
        loop {
            let next = Instant::now() + jittered(&self.check, fastrand::f64());
            let result = probe(&self.endpoint, &self.check).await;
            self.on_result(&result);
            // A probe that took longer than the interval delays the next one; it is never joined by it.
            sleep_until(next).await;
        }
    }

    fn on_result(&mut self, result: &Result<(), ProbeError>) {
        let Self { upstream, endpoint, .. } = self;
        let metrics = &endpoint.metrics;
        let (endpoint_name, address) = (&endpoint.name, endpoint.address);
        if result.is_ok() {
            metrics.probes_succeeded.inc()
        } else {
            metrics.probes_failed.inc()
        }
        match (self.verdict.record(result.is_ok()), result) {
            (Some(Transition::Out), Err(error)) => {
                endpoint.health.set(false);
                metrics.healthy.set(0);
                metrics.ejections.inc();
                let failures = self.check.unhealthy_after;
                tracing::warn!(%upstream, endpoint = %endpoint_name, %address, failures, reason = %error, "endpoint taken out");
            }
            (Some(_), _) => {
                endpoint.health.set(true);
                metrics.healthy.set(1);
                let successes = self.check.healthy_after;
                tracing::info!(%upstream, endpoint = %endpoint_name, %address, successes, "endpoint back");
            }
            (None, Err(error)) => {
                tracing::debug!(%upstream, endpoint = %endpoint_name, %address, reason = %error, "probe failed");
            }
            (None, Ok(())) => {}
        }
    }
}

/// The interval, moved by the share that `random` (0..1) chooses, so that probes of many proxies do not come together.
fn jittered(check: &HealthCheck, random: f64) -> Duration {
    let share = f64::from(check.jitter_percent.min(100)) / 100.0;
    check.interval.mul_f64(1.0 + share * (2.0 * random - 1.0))
}
