//! Clients that keep to the letter of HTTP/3 and ask too much: each limit bites, is counted, and nobody else feels it. The
//! rows are those of the list of attacks in docs/codex/requirements.md.

use serde_json::{Value, json};
use spooky_tests::metrics::Metrics;

use crate::scene::{LONG, SOON, Scene, Turn, assert_ok};

const H3_EXCESSIVE_LOAD: u64 = 0x107;

/// One worker and one backend, and what differs of `http3`.
fn scene(http3: Value) -> Scene {
    Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(1)).set("/listeners/0/http3", http3)
    })
}

fn reached(metrics: &Metrics, reason: &str) -> f64 {
    metrics.sum("spooky_limits_reached_total", &[("reason", reason)])
}

fn at_backend(scene: &Scene, path: &str) -> u64 {
    scene.backends[0].stats()["paths"][path].as_u64().unwrap_or(0)
}

/// Row B01: one who opens and resets at full speed is cut off, and its backends hardly notice.
#[test]
fn b01_rapid_reset_is_cut_off() {
    let scene = scene(json!({}));
    let mut figures = Vec::new();
    for (name, how) in [
        ("one datagram", json!({ "path": "/hang?a", "count": 5000 })),
        ("batches", json!({ "path": "/hang?b", "count": 5000, "batch": 100, "apart": 0.2 })),
    ] {
        let before = at_backend(&scene, "/hang");
        let result = scene.target.run("rapid_reset", how, LONG);
        assert_ok(&result["before"]);
        assert_eq!(result["closed_with"], H3_EXCESSIVE_LOAD, "{name}: {result}");
        let opened = result["opened"].as_u64().unwrap_or(u64::MAX);
        let seen = at_backend(&scene, "/hang") - before;
        figures.push(format!("{name}: {opened} opened, {seen} at the backend"));
        assert!(opened <= 1000 && seen <= 250, "{figures:?}");
    }
    println!("B01: {}", figures.join("; "));
    let metrics = scene.spooky.metrics();
    assert_eq!(reached(&metrics, "early_resets"), 2.0);
    assert_eq!(metrics.sum("spooky_requests_active", &[]), 0.0);
    assert_ok(&scene.target.fetch("/"));
}

/// Row B01: who has been good for long may not reset as fast as it likes either.
#[test]
fn b01_a_rate_of_resets_is_bounded() {
    let scene =
        scene(json!({ "resets": { "percent": 100, "requests": 1_000_000, "per_second": 20 } }));
    let result = scene.target.run("rapid_reset", json!({ "path": "/hang", "count": 1000 }), LONG);
    assert_eq!(result["closed_with"], H3_EXCESSIVE_LOAD, "{result}");
    assert_eq!(reached(&scene.spooky.metrics(), "reset_rate"), 1.0);
}

/// Row B01: a client that gives up now and then is served on.
#[test]
fn b01_an_honest_client_may_give_up() {
    let scene = scene(json!({}));
    let args = json!({ "path": "/hang", "count": 60, "batch": 20, "apart": 0.1, "patience": 0.1 });
    let result = scene.target.run("rapid_reset", args, SOON);
    assert_eq!(result["closed_with"], Value::Null, "{result}");
    assert_ok(&result["after"]);
}

/// Row B02: resets that a client provokes count as its own.
#[test]
fn b02_provoked_resets_count() {
    let scene = scene(json!({}));
    let args = json!({ "path": "/hang", "count": 1000 });
    let result = scene.target.run("induced_resets", args, LONG);
    println!("B02: {result}, {} at the backend", at_backend(&scene, "/hang"));
    assert_eq!(result["closed_with"], H3_EXCESSIVE_LOAD, "{result}");
    assert!(result["sent"].as_u64() <= Some(1000) && at_backend(&scene, "/hang") <= 250);
    let backend = &scene.backends[0];
    spooky_tests::wait::until_true("each is reset at the backend", SOON, || {
        backend.count("resets_received") == at_backend(&scene, "/hang")
    });
    assert_ok(&scene.target.fetch("/"));
}

/// Row B03: requests that stand still end by themselves, whatever else the client keeps up.
#[test]
fn b03_what_stands_still_is_ended() {
    // Below the usual 10 s and 30 s, so that the test is not slow; one runs with the usual ones.
    let short = scene(json!({
        "request_header_timeout": "2s", "request_body_timeout": "2s", "response_drain_timeout": "3s",
    }));
    let usual = Scene::with(Turn::shared(), 1, |config, backends| config.forward(backends));
    let cases = [
        ("half a head", &usual, "head", "/", 20, 10.0..=11.5, "408 clean"),
        ("half a head, 2 s", &short, "head", "/", 20, 2.0..=3.5, "408 clean"),
        ("a body", &short, "body", "/hash", 20, 2.0..=3.5, "408 clean"),
        ("a body after a head", &short, "body", "/echo-body", 20, 2.0..=3.5, "200 reset 268"),
        ("a response", &short, "read", "/bytes/10000000", 1, 3.0..=4.6, "200 reset 268"),
    ];
    let clients: Vec<_> = cases
        .into_iter()
        .map(|(name, scene, how, path, streams, time, end)| {
            let args = json!({
                "how": how, "path": path, "streams": streams, "connections": 3, "seconds": 15.0,
            });
            (name, scene.target.start("slow", args), time, end, streams * 3)
        })
        .collect();
    for (name, client, time, end, count) in clients {
        let result = client.result(LONG);
        println!("B03 {name}: {result}");
        let kinds = result["kinds"].as_object().cloned().unwrap_or_default();
        assert!(
            kinds.len() == 1 && kinds.keys().all(|kind| kind.starts_with(end)),
            "{name}: {result}"
        );
        assert_eq!(kinds.values().next(), Some(&json!(count)), "{name}");
        for moment in ["first", "last"] {
            let took = result[moment].as_f64().unwrap_or(0.0);
            assert!(time.contains(&took), "{name}: {moment} after {took} s");
        }
        assert!(
            result["after"]
                .as_array()
                .is_some_and(|all| all.iter().all(|it| *it == 200 || it.is_null()))
        );
    }
    let metrics = short.spooky.metrics();
    for (reason, least) in [
        ("request_header_timeout", 60.0),
        ("request_body_timeout", 120.0),
        ("response_drain_timeout", 3.0),
    ] {
        assert!(reached(&metrics, reason) >= least, "{reason}: {}", reached(&metrics, reason));
    }
    // Not the backend's failure.
    assert_eq!(metrics.sum("spooky_endpoint_failures_total", &[]), 0.0);
    assert_eq!(metrics.sum("spooky_requests_active", &[]), 0.0);
}

/// Row B03: a body that comes slowly is none that stands still.
#[test]
fn b03_a_slow_body_goes_on() {
    let scene = scene(json!({ "request_body_timeout": "2s" }));
    let args = json!({ "how": "trickle", "path": "/hash", "streams": 2, "seconds": 6.0 });
    let result = scene.target.run("slow", args, SOON);
    assert_eq!(result["kinds"], json!({ "0 open None": 2 }), "{result}");
    assert_eq!(reached(&scene.spooky.metrics(), "request_body_timeout"), 0.0);
}

/// Row A11: who leaves gaps in its streams may pin little memory, or is closed within 5 s of having pinned more.
#[test]
fn a11_gaps_close_the_connection() {
    for streams in [1, 15] {
        let scene = Scene::with(Turn::alone(), 1, |config, backends| config.forward(backends));
        assert_ok(&scene.target.fetch("/"));
        let before = scene.spooky.resident_bytes();
        let mut client = scene.target.start("gaps", json!({ "path": "/hash", "streams": streams }));
        let sent = client.event("sent", LONG);
        let grown = scene.spooky.resident_bytes().saturating_sub(before) >> 10;
        let result = client.result(LONG);
        println!("A11, {streams} streams: {sent} {result}, memory grew by {grown} KiB");
        assert_ok(&scene.target.fetch("/"));
        if result["closed_with"] == H3_EXCESSIVE_LOAD {
            let seconds = |value: &Value| value["seconds"].as_f64().unwrap_or(f64::INFINITY);
            assert!(seconds(&result) - seconds(&sent) <= 5.5, "{result}");
            assert_eq!(reached(&scene.spooky.metrics(), "unreadable"), 1.0);
        } else {
            // A stream's first window holds no more.
            assert!(streams == 1 && grown <= 8 << 10, "{result}, {grown} KiB");
        }
    }
}

/// Row A11: holes that the network makes are none of the client's.
#[test]
fn a11_an_upload_over_a_bad_path_is_no_attack() {
    let scene = scene(json!({}));
    let relay = spooky_tests::relay::Relay::start(
        scene.target.address,
        spooky_tests::relay::Impairment {
            seed: 11,
            loss: 0.05,
            duplication: 0.08,
            reordering: 0.1,
        },
    );
    let target = scene.target.at(relay.address());
    let up = target.run("upload", json!({ "path": "/hash", "length": 2_000_000 }), LONG);
    assert_ok(&up["answer"]);
    assert_eq!(reached(&scene.spooky.metrics(), "unreadable"), 0.0);
}
