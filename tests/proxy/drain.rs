//! SIGTERM: GOAWAY, nothing new, what is in flight ends, exit 0. A second signal or the deadline ends it hard.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use spooky_tests::scene::{SOON, Scene, Turn, assert_ok};

const H3_REQUEST_REJECTED: u64 = 0x10b;

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.1
//= type=test
//# Servers MUST NOT use the H3_REQUEST_REJECTED error code for requests
//# that were partially or fully processed.
//= https://www.rfc-editor.org/rfc/rfc9114#section-5.2
//= type=test
//# An endpoint MAY send multiple GOAWAY frames indicating different
//# identifiers, but the identifier in each frame MUST NOT be greater than
//# the identifier in any previous frame, since clients might already have
//# retried unprocessed requests on another HTTP connection.
/// Row B11.
#[test]
fn b11_what_is_in_flight_ends_and_what_comes_later_is_rejected() {
    let mut scene = Scene::new(1);
    let args = json!({ "path": "/delay/2000", "count": 50 });
    let mut client = scene.target.start("drain", args);
    client.event("started", SOON);
    scene.spooky.terminate();
    let asked = Instant::now();
    client.event("goaway", Duration::from_secs(2));
    assert!(asked.elapsed() < Duration::from_secs(1), "GOAWAY after {:?}", asked.elapsed());
    let newcomer = scene.target.run("connect", json!({ "timeout": 1.0 }), SOON);
    assert_eq!(newcomer["connected"], false, "nothing new is accepted: {newcomer:#}");
    let result = client.result(SOON);
    let answers = result["answers"].as_array().cloned().unwrap_or_default();
    assert_eq!(answers.len(), 50);
    answers.iter().for_each(assert_ok);
    // First any ID, so that nobody begins anew; then the first that was not seen: 50 requests, and one more before them.
    assert_eq!(result["goaways"], json!([(1_u64 << 62) - 4, 4 * 51]));
    let late = &result["late"];
    assert_eq!((&late["end"], &late["reset_code"]), (&json!("reset"), &json!(H3_REQUEST_REJECTED)));
    assert_eq!(result["closed_with"], 0x100, "H3_NO_ERROR: {result:#}");
    let status = scene.spooky.process().wait(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn nothing_is_lost_under_load() {
    let mut scene = Scene::new(2);
    let args = json!({
        "connections": 8, "parallel": 4, "reconnect": false, "path": "/bytes/100000",
        "report_every": 50,
    });
    let mut load = scene.target.start("load", args);
    load.event_where("progress", SOON, |event| event["done"].as_u64() > Some(200));
    scene.spooky.terminate();
    let result = load.result(SOON);
    let outcome = result["outcome"].as_object().cloned().unwrap_or_default();
    println!("{outcome:?}");
    // Requests that crossed the GOAWAY on the wire were rejected unprocessed, and may be sent again elsewhere.
    let lost: Vec<&Value> = result["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|error| error["reset_code"] != H3_REQUEST_REJECTED)
        .collect();
    assert!(lost.is_empty(), "{lost:#?}");
    let status = scene.spooky.process().wait(Duration::from_secs(12));
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn an_idle_daemon_leaves_at_once() {
    let scene = Scene::new(1);
    assert_ok(&scene.target.fetch("/"));
    let asked = Instant::now();
    assert_eq!(scene.stop().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
}

#[test]
fn a_second_signal_ends_it_hard() {
    let mut scene = Scene::new(1);
    let mut client = scene.target.start("drain", json!({ "path": "/hang", "count": 3 }));
    client.event("started", SOON);
    scene.spooky.terminate();
    client.event("goaway", SOON);
    assert_eq!(scene.spooky.process().status(), None, "requests are in flight");
    scene.spooky.terminate();
    let status = scene.spooky.process().wait(Duration::from_secs(3));
    assert_eq!(status.code(), Some(1), "requests were lost, and it says so: {status}");
}

#[test]
fn the_deadline_ends_it_hard() {
    let mut scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/shutdown/drain_timeout", json!("1s"))
    });
    let mut client = scene.target.start("drain", json!({ "path": "/hang", "count": 3 }));
    client.event("started", SOON);
    scene.spooky.terminate();
    let asked = Instant::now();
    let status = scene.spooky.process().wait(Duration::from_secs(5));
    assert!(asked.elapsed() > Duration::from_millis(800), "{:?}", asked.elapsed());
    assert_eq!(status.code(), Some(1), "requests were lost, and it says so: {status}");
}
