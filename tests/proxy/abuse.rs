//! Clients that do harm: what they do is reported, scored by prefix, and in a dry run said aloud.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use spooky_tests::metrics::Metrics;
use spooky_tests::scene::{SOON, Scene, Turn, assert_ok};
use spooky_tests::wait;

/// Two addresses on loopback, next to each other.
const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 7, 2));
const NEIGHBOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 7, 3));

/// Loopback is not trusted here; 50 points are too many.
fn rules(mode: &str) -> Value {
    json!({ "mode": mode, "trusted": [], "threshold": 50, "block_for": "3s", "half_life": "10s" })
}

fn scene(rules: Value) -> Scene {
    Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(2)).set("/abuse", rules)
    })
}

fn sentences(metrics: &Metrics, result: &str) -> f64 {
    metrics.sum("spooky_abuse_sentences_total", &[("result", result)])
}

fn events(metrics: &Metrics, event: &str) -> f64 {
    metrics.sum("spooky_abuse_events_total", &[("event", event)])
}

/// So many requests over one connection.
fn requests(scene: &Scene, from: IpAddr, path: &str, count: usize) -> Value {
    let requests = vec![json!({ "path": path }); count];
    scene.target.from(from).run("requests", json!({ "requests": requests }), SOON)
}

#[test]
fn a_dry_run_says_who_would_be_blocked_and_blocks_nobody() {
    let scene = scene(rules("dry_run"));
    for answer in requests(&scene, NEIGHBOUR, "/status/404", 30)["answers"].as_array().unwrap() {
        assert_eq!(answer["status"], 404);
    }
    wait::until_true("events of the neighbour", SOON, || {
        events(&scene.spooky.metrics(), "client_error") == 30.0
    });
    assert_eq!(sentences(&scene.spooky.metrics(), "dry_run"), 0.0);
    requests(&scene, ATTACKER, "/status/404", 60);
    wait::until_true("a sentence", Duration::from_secs(1), || {
        sentences(&scene.spooky.metrics(), "dry_run") == 1.0
    });
    let log = scene.spooky.log();
    let line = log.lines().find(|line| line.contains("would be blocked for abuse"));
    let line = line.unwrap_or_else(|| panic!("no word of it: {log}"));
    for part in ["127.0.7.2/32", "client_error 5", "3s"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    for from in [ATTACKER, NEIGHBOUR] {
        assert_ok(&scene.target.from(from).fetch("/"));
    }
    requests(&scene, ATTACKER, "/status/404", 60);
    assert_eq!(log.matches("would be blocked").count(), 1, "once");
    assert_eq!(sentences(&scene.spooky.metrics(), "blocked"), 0.0);
}

#[test]
fn each_kind_of_harm_is_reported() {
    let scene = scene(json!({ "trusted": [], "threshold": 1_000_000 }));
    let all = scene.spooky.metrics();
    assert_eq!(all.sum("spooky_abuse_events_total", &[]), 0.0);
    let target = scene.target.from(ATTACKER);
    // It does not trust the certificate: its handshake fails after it has shown that it can receive.
    let stranger = spooky_tests::certs::Authority::new();
    let mut distrustful = target.clone();
    distrustful.ca = stranger.file();
    let refused = distrustful.run("connect", json!({ "timeout": 5.0 }), SOON);
    assert_eq!(refused["connected"], false, "{refused:#}");
    requests(&scene, ATTACKER, "/status/429", 3);
    let resets = json!({ "count": 400, "path": "/delay/5000" });
    target.run("rapid_reset", resets, SOON);
    let malformed = json!({ "requests": [
        { "path": "/", "headers": [["connection", "close"]] },
        { "path": "/", "headers": [["transfer-encoding", "chunked"]] },
    ] });
    target.run("requests", malformed, SOON);
    let reported = || {
        let metrics = scene.spooky.metrics();
        ["handshake", "rate_limit", "reset", "glitch", "violation"]
            .map(|event| events(&metrics, event))
    };
    wait::until_true("every kind", SOON, || {
        let [handshake, rate_limit, reset, glitch, violation] = reported();
        handshake >= 1.0 && rate_limit == 3.0 && reset >= 200.0 && glitch == 2.0 && violation == 1.0
    });
    println!("handshake, rate_limit, reset, glitch, violation: {:?}", reported());
}

#[test]
fn trusted_networks_have_no_score_and_a_reload_changes_who_is_trusted() {
    let mut scene = scene(json!({ "threshold": 50 }));
    requests(&scene, ATTACKER, "/status/404", 60);
    wait::until_true("loopback is trusted", SOON, || {
        scene.spooky.metrics().sum("spooky_abuse_trusted_total", &[]) == 60.0
    });
    assert_eq!(scene.spooky.metrics().sum("spooky_abuse_tracked", &[]), 0.0);
    scene.spooky.reload("taken", |config| config["abuse"] = rules("dry_run"));
    requests(&scene, ATTACKER, "/status/404", 60);
    wait::until_true("a sentence", SOON, || sentences(&scene.spooky.metrics(), "dry_run") == 1.0);
    scene.spooky.reload("taken", |config| {
        config["access"] = json!({ "allow": ["127.0.7.0/24"] });
        config["abuse"]["mode"] = json!("off");
    });
    let before = scene.spooky.metrics();
    requests(&scene, ATTACKER, "/status/404", 60);
    scene.spooky.reload("taken", |config| config["abuse"]["mode"] = json!("dry_run"));
    assert_eq!(
        scene.spooky.metrics().growth(&before, "spooky_abuse_events_total", &[]),
        0.0,
        "off"
    );
    requests(&scene, ATTACKER, "/status/404", 60);
    wait::until_true("allowed, so trusted", SOON, || {
        scene.spooky.metrics().growth(&before, "spooky_abuse_trusted_total", &[]) == 60.0
    });
    assert_eq!(scene.spooky.metrics().growth(&before, "spooky_abuse_sentences_total", &[]), 0.0);
}
