//! Giving up, in both directions: a client's reset frees the backend at once, a backend's reset reaches the client as
//! one, and nobody else on either connection notices.

use std::time::Duration;

use serde_json::json;
use spooky_tests::wait;

use spooky_tests::scene::{SOON, Scene, assert_ok};

/// How soon a cancelled request has to be gone at the backend.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn a_request_cancelled_before_its_answer_is_reset_at_the_backend() {
    let scene = Scene::new(1);
    let before = scene.spooky.metrics();
    let mut client = scene.target.start("cancel", json!({ "path": "/hang", "count": 5 }));
    client.event("started", SOON);
    let backend = &scene.backends[0];
    wait::until_true("five requests at the backend", SOON, || {
        backend.stats()["paths"]["/hang"] == 5
    });
    client.stop();
    wait::until_true("five resets at the backend", AT_ONCE, || {
        backend.count("resets_received") == 5
    });
    let result = client.result(SOON);
    assert_ok(&result["after"]);
    let after = scene.spooky.metrics();
    assert_eq!(after.growth(&before, "spooky_requests_cancelled_total", &[]), 5.0);
    // Not the backend's failure: nothing counts against it.
    assert_eq!(after.growth(&before, "spooky_endpoint_failures_total", &[]), 0.0);
}

#[test]
fn a_download_cancelled_half_way_frees_the_backend() {
    let scene = Scene::new(1);
    let args = json!({ "path": "/bytes/1073741824", "count": 3, "after_bytes": 200_000 });
    let mut client = scene.target.start("cancel", args);
    client.event("started", SOON);
    client.stop();
    let backend = &scene.backends[0];
    wait::until_true("three resets at the backend", AT_ONCE, || {
        backend.count("resets_received") == 3
    });
    let result = client.result(SOON);
    assert_ok(&result["after"]);
    // The pooled connection is kept: its window came back with the reset.
    assert_eq!(scene.spooky.metrics().sum("spooky_pool_connections_closed_total", &[]), 0.0);
}

#[test]
fn a_client_that_vanishes_frees_the_backend() {
    let idle = json!("2s");
    let scene = Scene::with(spooky_tests::scene::Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/listeners/0/quic/idle_timeout", idle)
    });
    let mut client = scene.target.start("cancel", json!({ "path": "/hang", "count": 2 }));
    client.event("started", SOON);
    let backend = &scene.backends[0];
    wait::until_true("two requests at the backend", SOON, || {
        backend.stats()["paths"]["/hang"] == 2
    });
    drop(client);
    wait::until_true("two resets at the backend", Duration::from_secs(10), || {
        backend.count("resets_received") == 2
    });
    let idle = scene.spooky.metrics().sum("spooky_connections_closed_total", &[("reason", "idle")]);
    assert_eq!(idle, 1.0, "idle_timeout ended it");
}

#[test]
fn a_response_reset_by_the_backend_is_reset_at_the_client() {
    let scene = Scene::new(1);
    let paths = ["/reset-after/100000", "/die-after/100000", "/lie-length/100000"];
    for path in paths {
        let args = json!({ "requests": [{ "path": path, "keep": false }, { "path": "/" }] });
        let result = scene.target.run("requests", args, SOON);
        let (cut, next) = (&result["answers"][0], &result["answers"][1]);
        // RFC 9114 §4.1: a truncated response must be visible as one. Never a clean end.
        assert_eq!(cut["end"], "reset", "{path}: {cut:#}");
        let code = cut["reset_code"].as_u64();
        assert!([Some(0x102), Some(0x10e)].contains(&code), "{path}: {cut:#}");
        assert_ok(next);
    }
}

#[test]
fn a_request_refused_by_the_backend_is_no_clean_answer_of_it() {
    let scene = Scene::new(1);
    let answer = scene.target.fetch("/refuse");
    let (status, code) = (answer["status"].as_u64(), answer["reset_code"].as_u64());
    let declared = matches!(status, Some(502 | 503)) || code == Some(0x10b);
    assert!(declared, "{answer:#}");
}
