//! A checked configuration to the snapshot that workers hold: its only maker. May import: checked, snapshot, the compiled types
//! of route, filter, balance and upstream, telemetry.

use std::sync::Arc;

use super::checked::{Config, RouteConfig, UpstreamConfig};
use crate::dataplane::balance::Balancer;
use crate::dataplane::filter::admission::Admission;
use crate::dataplane::filter::ip_access::AccessList;
use crate::dataplane::filter::rate_limit::RateLimit;
use crate::dataplane::route::{Route, Rule, Table};
use crate::dataplane::upstream::cluster::{Cluster, Endpoint, Health};
use crate::id::{ClusterId, RouteId};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Registry;

/// Makes the snapshot that follows `previous`; the first has version 1. `listeners` are names by [`crate::id::ListenerId`].
///
/// An endpoint whose upstream name, own name and address are as before keeps its [`Health`]: a reload does not send requests to
/// a backend that probes have taken out.
#[must_use]
pub fn compile(
    config: &Config,
    listeners: Vec<Option<Arc<str>>>,
    previous: Option<&Snapshot>,
    registry: &Registry,
) -> Snapshot {
    let clusters: Vec<Arc<Cluster>> = (0..)
        .map(ClusterId)
        .zip(&config.upstreams)
        .map(|(id, upstream)| Arc::new(cluster(id, upstream, previous, registry)))
        .collect();
    let Config { access, .. } = config;
    Snapshot {
        version: previous.map_or(1, |snapshot| snapshot.version + 1),
        routes: Arc::new(routes(config, registry)),
        admissions: admissions(config, previous),
        clusters,
        listeners,
        access: AccessList::new(access.default_deny, &access.allow, &access.deny),
    }
}

fn cluster(
    id: ClusterId,
    upstream: &UpstreamConfig,
    previous: Option<&Snapshot>,
    registry: &Registry,
) -> Cluster {
    let before = previous
        .and_then(|snapshot| snapshot.clusters.iter().find(|old| old.name == upstream.name));
    let endpoints = upstream.endpoints.iter().map(|endpoint| {
        let old = before.and_then(|cluster| {
            let mut endpoints = cluster.endpoints.iter();
            endpoints.find(|old| old.name == endpoint.name && old.address == endpoint.address)
        });
        Arc::new(Endpoint {
            name: Arc::clone(&endpoint.name),
            address: endpoint.address,
            weight: endpoint.weight,
            health: old.map_or_else(|| Arc::new(Health::new()), |old| Arc::clone(&old.health)),
            settings: Arc::clone(&upstream.settings),
            metrics: registry.endpoint(&upstream.name, &endpoint.name),
        })
    });
    let weights = upstream.endpoints.iter().map(|endpoint| (&*endpoint.name, endpoint.weight));
    Cluster {
        id,
        name: Arc::clone(&upstream.name),
        endpoints: endpoints.collect(),
        balancer: Balancer::build(upstream.policy, weights),
        hash_on: upstream.hash_on.clone(),
        attempts: upstream.attempts,
        retry_budget: upstream.retry_budget,
        settings: Arc::clone(&upstream.settings),
        health_check: upstream.health_check.clone(),
    }
}

/// A rate limit that is as before keeps its state: a reload forgives nobody.
fn admissions(config: &Config, previous: Option<&Snapshot>) -> Vec<Admission> {
    let before = |name: &str| {
        let previous = previous?;
        let route = previous.routes.routes().iter().find(|route| &*route.name == name)?;
        previous.admission(route.id)?.rate.as_ref()
    };
    let admission = |route: &RouteConfig| {
        let rate = route.rate_limit.map(|settings| {
            let old = before(&route.name).filter(|old| *old.settings() == settings);
            old.map_or_else(|| Arc::new(RateLimit::new(settings)), Arc::clone)
        });
        Admission { request_body_max: route.request_body_max, rate }
    };
    config.routes.iter().map(admission).collect()
}

#[expect(clippy::expect_used, reason = "`check` builds the same table from the same routes")]
fn routes(config: &Config, registry: &Registry) -> Table {
    let rules = (0..).map(RouteId).zip(&config.routes).map(|(id, route)| Rule {
        route: Route {
            id,
            name: Arc::clone(&route.name),
            cluster: route.upstream,
            metrics: registry.route(&route.name),
        },
        hosts: route.hosts.clone(),
        path: route.path.clone(),
    });
    Table::build(rules.collect()).expect("checked: no two routes match the same")
}
