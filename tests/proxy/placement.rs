//! Placement by load, whole: four workers steered by sk_reuseport on loopback. What a worker gets is what it says it accepted.

use std::time::Duration;

use serde_json::json;
use spooky_tests::clients::Client;
use spooky_tests::metrics::Metrics;
use spooky_tests::scene::{LONG, SOON, Scene, Turn};
use spooky_tests::{privilege, wait};

const WORKERS: [&str; 4] = ["0", "1", "2", "3"];
/// A worker's part of the new connections when all are equal.
const FAIR: f64 = 1.0 / WORKERS.len() as f64;

/// `None`, aloud, without the privilege for it.
fn scene(test: &str, placement: &str) -> Option<Scene> {
    let steered = json!({ "mode": "reuseport", "on_failure": "abort" });
    privilege::kernel(test).then(|| {
        Scene::with(Turn::alone(), 1, |config, backends| {
            let config = config.forward(backends).set("/ebpf", steered);
            config.set("/workers", json!({ "count": WORKERS.len(), "placement": placement }))
        })
    })
}

fn by_worker(metrics: &Metrics, name: &str) -> [f64; 4] {
    WORKERS.map(|worker| metrics.sum(name, &[("worker", worker)]))
}

fn shares(scene: &Scene) -> [f64; 4] {
    by_worker(&scene.spooky.metrics(), "spooky_worker_share")
}

/// Most connections of a worker over fewest.
fn spread(scene: &Scene) -> f64 {
    let counts = by_worker(&scene.spooky.metrics(), "spooky_worker_connections_active");
    counts.iter().fold(0.0, |a: f64, b| a.max(*b)) / counts.iter().fold(f64::MAX, |a, b| a.min(*b))
}

/// Stands for 200 ms and goes for 50, again and again: never long enough to be taken for stalled.
fn late(scene: &mut Scene, worker: &str) -> Client {
    let id = scene.spooky.process().id();
    let (stop, go) = (Duration::from_millis(200), Duration::from_millis(50));
    let mut stall = Client::stall_by_turns(id, &format!("worker-{worker}"), stop, go);
    stall.event("stalled", SOON);
    stall
}

#[test]
fn a_worker_that_stands_200_ms_gets_under_a_quarter_of_its_share_within_a_second() {
    let test = "a_worker_that_stands_200_ms_gets_under_a_quarter_of_its_share_within_a_second";
    let Some(mut scene) = scene(test, "load") else { return };
    wait::until_true("all are equal at first", SOON, || shares(&scene)[2] > FAIR * 0.9);
    let mut stall = late(&mut scene, "2");
    let mut latest = [0.0; 4];
    wait::until_true("the late worker's share is small", Duration::from_secs(1), || {
        latest = shares(&scene);
        latest[2] < FAIR / 4.0
    });
    println!("shares within a second: {latest:?}");
    let before = scene.spooky.metrics();
    let opened = 80;
    let mut held = scene.target.start("hold", json!({ "connections": opened }));
    held.event("open", LONG);
    let after = scene.spooky.metrics();
    let name = "spooky_worker_connections_accepted_total";
    let accepted = WORKERS.map(|worker| after.growth(&before, name, &[("worker", worker)]));
    println!("of {opened} new connections: {accepted:?}, late: worker 2");
    assert!(accepted[2] < f64::from(opened) * FAIR / 4.0, "{accepted:?}");
    assert_eq!(after.sum("spooky_worker_state", &[("state", "stalled")]), 0.0, "only late");
    stall.stop();
    stall.result(SOON);
    // It has fewer connections than the others now: it gets its share again, and more.
    wait::until_true("punctual again, it catches up", SOON, || shares(&scene)[2] > FAIR);
    held.stop();
    assert_eq!(held.result(SOON)["answered"], opened);
}

#[test]
fn connections_spread_over_the_workers() {
    let test = "connections_spread_over_the_workers";
    let Some(scene) = scene(test, "load") else { return };
    let mut churn =
        scene.target.start("come_and_go", json!({ "connections": 240, "interval": 0.02 }));
    churn.event("open", LONG);
    let mut spreads = Vec::new();
    wait::watch(Duration::from_secs(5), || spread(&scene), |spread| spreads.push(spread));
    let mean = spreads.iter().sum::<f64>() / spreads.len() as f64;
    println!("most over fewest of 240 connections, 5 s: {mean:.3}; {:?}", shares(&scene));
    let moves = scene.spooky.metrics().sum("spooky_placement_moves_total", &[]);
    println!("{moves} slots moved");
    assert!(mean <= 1.2, "{spreads:?}");
    churn.stop();
    churn.result(LONG);
}

#[test]
fn static_placement_follows_the_weights_alone() {
    let Some(mut scene) = scene("static_placement_follows_the_weights_alone", "static") else {
        return;
    };
    let mut stall = late(&mut scene, "1");
    let mut lags = 0;
    wait::watch(
        Duration::from_secs(2),
        || scene.spooky.metrics(),
        |metrics| {
            let lag = metrics.sum("spooky_worker_lag_seconds", &[("worker", "1")]);
            lags += u32::from(lag > 0.08);
            assert_eq!(by_worker(&metrics, "spooky_worker_share"), [FAIR; 4]);
        },
    );
    assert!(lags > 0, "it was late");
    stall.stop();
    stall.result(SOON);
    scene.spooky.reload("taken", |config| config["workers"]["weights"] = json!([0, 1, 1, 2]));
    wait::until_true("weights of a reload", Duration::from_secs(1), || {
        shares(&scene) == [0.0, 0.25, 0.25, 0.5]
    });
}
