//! Clients that do harm: what they do is reported, scored by prefix, and said aloud; who is blocked for it gets nothing, until its
//! time is over, and nobody else feels anything.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spooky_tests::clients::Target;
use spooky_tests::metrics::Metrics;
use spooky_tests::netns;
use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok};
use spooky_tests::{turn, wait};

use crate::steering::{Stage, stage};

/// Two addresses on loopback, next to each other.
const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 7, 2));
const NEIGHBOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 7, 3));

/// Loopback is not trusted here; 50 points are too many.
fn rules(mode: &str) -> Value {
    json!({ "mode": mode, "trusted": [], "threshold": 50, "block_for": "3s", "half_life": "10s", "ipv6_prefix": 128 })
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
    let line = log.lines().find(|line| line.contains("would be blocked"));
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

/// Whether a connection comes about.
fn connects(target: &Target) -> bool {
    target.run("connect", json!({ "timeout": 1.0 }), SOON)["connected"] == true
}

/// An attacker gets 4xx until it is blocked, a neighbour all it wants. `dropped` counts what is dropped of the attacker.
fn blocked_and_freed(stage: &Stage, six: bool, dropped: impl Fn(&Metrics) -> f64) {
    let (target, attacker, neighbour) = match six {
        false => (&stage.v4, netns::client_v4(0), netns::client_v4(1)),
        true => (&stage.v6, netns::client_v6(0), netns::client_v6(1)),
    };
    let (attacker, neighbour) = (target.from(attacker), target.from(neighbour));
    let before = stage.spooky.metrics();
    let grew = |name, labels| stage.spooky.metrics().growth(&before, name, labels);
    let (mut held, taken, blocked) = turn::alone(|| {
        let mut held = neighbour.start("hold", json!({ "connections": 3 }));
        held.event("open", SOON);
        // One open connection, and as many 404 as it can get.
        let args =
            json!({ "path": "/status/404", "connections": 1, "parallel": 2, "reconnect": false });
        let _flood = attacker.start("load", args);
        wait::until_true("the threshold", SOON, || {
            grew("spooky_abuse_events_total", &[("event", "client_error")]) >= 50.0
        });
        let reached = Instant::now();
        wait::until_true("the attacker is dropped", SOON, || {
            let now = stage.spooky.metrics();
            dropped(&now) > dropped(&before)
        });
        (held, reached.elapsed(), Instant::now())
    });
    println!("dropped {taken:?} after the threshold was seen");
    assert!(taken < Duration::from_secs(1), "{taken:?}");
    assert_eq!(grew("spooky_abuse_sentences_total", &[("result", "blocked")]), 1.0);
    assert_eq!(stage.spooky.metrics().sum("spooky_abuse_sentenced", &[]), 1.0);
    assert!(!connects(&attacker), "no new connection");
    assert_ok(&neighbour.fetch("/bytes/100000"));
    wait::until_true("the attacker is let in again", SOON, || connects(&attacker));
    let freed = blocked.elapsed();
    println!("free again after {freed:?} of 6 s");
    assert!(freed > Duration::from_secs(4), "{freed:?}");
    held.stop();
    assert_eq!(held.result(LONG)["answered"], 3, "its neighbour has lost nothing");
    assert_eq!(stage.spooky.metrics().sum("spooky_abuse_sentenced", &[]), 0.0);
}

fn blocking() -> Value {
    let mut rules = rules("block");
    rules["block_for"] = json!("6s");
    rules
}

#[test]
fn an_attacker_is_dropped_in_the_kernel_within_a_second_and_freed_in_time() {
    let test = "an_attacker_is_dropped_in_the_kernel_within_a_second_and_freed_in_time";
    let Some(stage) = stage(test, |config| config.set("/abuse", blocking())) else { return };
    for six in [false, true] {
        blocked_and_freed(&stage, six, |metrics| {
            metrics.sum("spooky_xdp_frames_total", &[("reason", "denied")])
        });
    }
    let log = stage.spooky.log();
    let lines = log.lines().filter(|line| line.contains("abuse: prefix blocked"));
    let prefixes = [netns::client_v4(0).to_string(), netns::client_v6(0).to_string()];
    for (line, prefix) in lines.zip(prefixes) {
        assert!(line.contains(&prefix) && line.contains("client_error"), "{line}");
    }
}

#[test]
fn without_xdp_spooky_itself_drops_the_attacker() {
    let test = "without_xdp_spooky_itself_drops_the_attacker";
    let steered = json!({ "mode": "reuseport", "on_failure": "abort" });
    let configure = |config: spooky_tests::config::Config| {
        config.set("/abuse", blocking()).set("/ebpf", steered)
    };
    let Some(stage) = stage(test, configure) else { return };
    blocked_and_freed(&stage, false, |metrics| {
        metrics.sum("spooky_datagrams_dropped_total", &[("reason", "denied")])
    });
}
