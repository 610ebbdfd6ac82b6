//! Clients share connections to backends, and must not feel each other there: rows D11 to D13.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};
use spooky_tests::hostile::{Hostile, STATUS_200};
use spooky_tests::oracle;
use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok};
use spooky_tests::soak;

/// One worker and one connection to the backend: everything is shared that can be.
fn scene() -> Scene {
    Scene::with(Turn::shared(), 1, |config, backends| {
        config
            .forward(backends)
            .set("/workers/count", json!(1))
            .set("/upstreams/app/pool", json!({ "max_connections": 1 }))
    })
}

/// How 200 requests of 20 KB fare: outcome by name, and p99 in milliseconds.
fn honest(scene: &Scene) -> (Value, f64) {
    let args =
        json!({ "connections": 4, "parallel": 2, "report_every": 50, "path": "/bytes/20000" });
    let mut load = scene.target.start("load", args);
    load.event_where("progress", LONG, |event| event["done"].as_u64() >= Some(200));
    load.stop();
    let mut result = load.result(SOON);
    (result["outcome"].take(), result["p99"].as_f64().unwrap_or(f64::MAX) * 1000.0)
}

#[test]
fn d11_streams_that_nobody_reads_leave_room_for_the_others() {
    let scene = scene();
    assert_ok(&scene.target.fetch("/"));
    let (outcome, quiet) = honest(&scene);
    assert_eq!(outcome.as_object().map(serde_json::Map::len), Some(1), "{outcome}");
    let args = json!({ "path": "/bytes/20000000", "count": 20 });
    let mut stalled = scene.target.start("stop_reading", args);
    let event = stalled.event("stalled", SOON);
    let (outcome, beside) = honest(&scene);
    println!("p99 {quiet:.0} ms alone, {beside:.0} ms beside 20 stalled downloads ({event})");
    assert_eq!(outcome.as_object().map(serde_json::Map::len), Some(1), "{outcome}");
    stalled.stop();
    stalled.result(SOON);
    assert_eq!(opened(&scene), 1.0, "they did share a connection");
}

/// Connections to the backend that requests were sent on; probes have their own.
fn opened(scene: &Scene) -> f64 {
    scene.spooky.metrics().sum("spooky_pool_connections_opened_total", &[])
}

#[test]
fn d12_requests_given_up_do_not_turn_the_backend_against_the_others() {
    let scene = scene();
    assert_ok(&scene.target.fetch("/"));
    let (count, enough) = if soak() { (50_000, 10_000) } else { (1500, 300) };
    let (result, honest) = oracle::beside(&scene, "D12", || {
        let args = json!({ "path": "/bytes/100000", "connections": 3, "count": count });
        let mut attack = scene.target.start("give_up", args);
        attack.event("begun", SOON);
        let args =
            json!({ "connections": 2, "parallel": 2, "report_every": 50, "path": "/bytes/5000" });
        let mut load = scene.target.start("load", args);
        load.event_where("progress", LONG, |event| event["done"].as_u64() >= Some(enough));
        let result = attack.result(LONG);
        load.stop();
        (result, load.result(SOON))
    });
    println!(
        "D12: attack: {result}, honest: {}, {} connections to the backend",
        honest["outcome"],
        opened(&scene)
    );
    // The backend (the h2 package with its own guards) closes a connection at 20 streams that were reset before it took them.
    assert_eq!(honest["outcome"].as_object().map(serde_json::Map::len), Some(1), "{honest:#}");
    assert_eq!(honest["errors"].as_array().map(Vec::len), Some(0), "{honest:#}");
}

/// Requests that the backend of D13 cannot bear and that came to it.
static UNBEARABLE: AtomicU64 = AtomicU64::new(0);

#[test]
fn d13_who_ends_connections_for_others_is_found_and_cut_off() {
    let backend = Hostile::start(|peer, id| {
        if peer.block.len() < 2000 {
            return peer.head(id, STATUS_200, true);
        }
        // A limit that spooky does not know of, and that this backend takes the connection for.
        UNBEARABLE.fetch_add(1, Relaxed);
        peer.go_away(id, 0x1)?;
        peer.close()
    });
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        let config = config.forward(backends).set("/workers/count", json!(1));
        backend.behind(config, "shared", &json!({ "pool": { "max_connections": 1 } }))
    });
    let args = json!({ "connections": 3, "parallel": 4, "report_every": 20, "path": "/shared" });
    let mut honest = scene.target.start("load", args);
    honest.event("progress", SOON);
    let value: String = (0..4000).map(|n| char::from(b'a' + (n % 7) as u8)).collect();
    let before = scene.spooky.metrics();
    for method in ["GET", "POST"] {
        let unbearable =
            json!({ "method": method, "path": "/shared", "headers": [["x-large", value]] });
        let args = json!({ "requests": vec![unbearable; 40], "answer_timeout": 5.0 });
        let result = scene.target.run("requests", args, LONG);
        let answers = result["answers"].as_array().cloned().unwrap_or_default();
        let answered = answers.iter().filter(|answer| answer["end"] == "clean").count();
        let came = UNBEARABLE.swap(0, Relaxed);
        println!(
            "D13: {method}: {answered} answered, {came} at the backend: {}",
            result["closed_with"]
        );
        if method == "GET" {
            assert_eq!(result["closed_with"], 0x107, "{result:#}");
            // Each is sent twice: beside others, and alone.
            assert!((3..=8).contains(&came), "{came}");
        }
    }
    honest.stop();
    let result = honest.result(LONG);
    let after = scene.spooky.metrics();
    let grew = |name: &str, labels: &[(&str, &str)]| after.growth(&before, name, labels);
    println!(
        "D13: honest: {} in {}, p99 {} s; {} connections, {} requests sent again",
        result["done"],
        result["outcome"],
        result["p99"],
        backend.connections(),
        grew("spooky_retries_total", &[])
    );
    assert_eq!(result["outcome"].as_object().map(serde_json::Map::len), Some(1), "{result:#}");
    assert_eq!(result["errors"], json!([]), "{result:#}");
    let cut = [("reason", "backend_connections_lost")];
    assert!(grew("spooky_limits_reached_total", &cut) >= 1.0);
}
