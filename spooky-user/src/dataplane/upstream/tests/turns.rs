//! Balancers go on across snapshots.

use std::collections::BTreeMap;

use super::*;

fn of(names: &[&str], policy: Policy) -> Arc<Cluster> {
    let settings = Arc::new(settings());
    let endpoints = names.iter().map(|name| {
        Arc::new(Endpoint {
            name: (*name).into(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            weight: 1,
            health: Arc::new(Health::new()),
            settings: Arc::clone(&settings),
            metrics: Registry::new(1).endpoint("api", name),
        })
    });
    Arc::new(Cluster {
        id: ClusterId(0),
        name: "api".into(),
        endpoints: endpoints.collect(),
        balancer: Balancer::build(policy, names.iter().map(|name| (*name, 1))),
        hash_on: HashOn::Path,
        attempts: 1,
        retry_budget: RetryBudget { percent: 20, min_concurrency: 3 },
        settings: Arc::clone(&settings),
        health_check: None,
    })
}

#[test]
fn a_reload_that_changes_nothing_does_not_break_the_turn() {
    let names = ["a", "b", "c", "d", "e"];
    let pools = Pools::new(WorkerId(0), Arc::new(WorkerMetrics::new()));
    let mut counts = BTreeMap::new();
    for _ in 0..100 {
        let cluster = of(&names, Policy::RoundRobin);
        pools.retain(&[Arc::clone(&cluster)]);
        let index = pools.pick(&cluster, 0, |_| true).unwrap();
        *counts.entry(index).or_insert(0) += 1;
    }
    assert_eq!(counts, (0..5).map(|index| (index, 20)).collect());
}

#[test]
fn an_exchange_of_an_older_snapshot_still_finds_an_endpoint() {
    let pools = Pools::new(WorkerId(0), Arc::new(WorkerMetrics::new()));
    let (old, new) = (of(&["a", "b", "c"], Policy::RoundRobin), of(&["d"], Policy::Random));
    pools.retain(&[Arc::clone(&old)]);
    pools.retain(&[Arc::clone(&new)]);
    assert_eq!(pools.pick(&old, 0, |index| index == 2), Some(2));
    assert_eq!(pools.pick(&new, 0, |_| true), Some(0));
    assert_eq!(pools.pick(&new, 0, |_| false), None);
}
