//! Backends that die, fall ill, come back, are slow or have few streams to give.

use std::time::Duration;

use serde_json::{Value, json};
use spooky_tests::backend::Backend;
use spooky_tests::clients::Client;
use spooky_tests::wait;

use spooky_tests::scene::{SOON, Scene, Turn, assert_ok, field};

fn healthy(scene: &Scene, endpoint: &str) -> f64 {
    scene.spooky.metrics().sum("spooky_endpoint_healthy", &[("endpoint", endpoint)])
}

fn count(event: &Value, key: &str, name: &str) -> u64 {
    event[key][name].as_u64().unwrap_or(0)
}

/// A report that came after this call: the first one may have been written before.
fn progress(load: &mut Client) -> Value {
    let first = load.event("progress", SOON);
    let done = first["done"].as_u64();
    load.event_where("progress", SOON, |event| event["done"].as_u64() > done)
}

fn failures(event: &Value) -> u64 {
    let outcome = event["outcome"].as_object();
    let failed = outcome.into_iter().flatten().filter(|(name, _)| *name != "200 clean");
    failed.filter_map(|(_, count)| count.as_u64()).sum()
}

#[test]
fn a_killed_backend_is_taken_out_and_comes_back() {
    let mut scene = Scene::alone(2);
    let args = json!({ "connections": 4, "parallel": 4, "report_every": 50, "pause": 0.01 });
    let mut load = scene.target.start("load", args);
    let warm = progress(&mut load);
    assert!(count(&warm, "origins", "b1") > 0 && count(&warm, "origins", "b2") > 0, "{warm:#}");

    let address = scene.backends.remove(0).kill();
    wait::until_true("b1 taken out", Duration::from_secs(5), || healthy(&scene, "b1") == 0.0);
    let out = progress(&mut load);
    let mut later = out.clone();
    for _report in 0..5 {
        later = progress(&mut load);
    }
    assert_eq!(failures(&later), failures(&out), "no failure once it is out: {later:#}");
    let (before, after) = (count(&out, "origins", "b2"), count(&later, "origins", "b2"));
    assert!(after > before, "the other one serves: {later:#}");

    scene.backends.insert(0, Backend::start_at("b1", address));
    wait::until_true("b1 back", Duration::from_secs(10), || healthy(&scene, "b1") == 1.0);
    let done = count(&later, "origins", "b1");
    load.event_where("progress", SOON, |event| count(event, "origins", "b1") > done);
    load.stop();
    let result = load.result(SOON);
    println!("{} of them {}", result["done"], result["outcome"]);
    // Declared failures while it was dying, and nothing that looked complete and was not.
    let outcome = result["outcome"].as_object().cloned().unwrap_or_default();
    assert!(outcome.keys().all(|name| !name.ends_with("open")), "nobody hangs: {result:#}");
    assert!(scene.stop().success());
}

#[test]
fn an_ill_backend_is_taken_out_and_comes_back() {
    let scene = Scene::new(2);
    scene.backends[0].control("healthy?value=false");
    wait::until_true("b1 taken out", Duration::from_secs(5), || healthy(&scene, "b1") == 0.0);
    for _request in 0..6 {
        assert_eq!(field(&scene.target.fetch("/"), "x-origin"), Some("b2"));
    }
    let ejections =
        scene.spooky.metrics().sum("spooky_endpoint_ejections_total", &[("endpoint", "b1")]);
    assert_eq!(ejections, 1.0);
    scene.backends[0].control("healthy?value=true");
    wait::until_true("b1 back", Duration::from_secs(10), || healthy(&scene, "b1") == 1.0);
    wait::until_true("b1 serves", SOON, || {
        field(&scene.target.fetch("/"), "x-origin") == Some("b1")
    });
}

#[test]
fn without_any_backend_the_answer_is_quick_and_honest() {
    let mut scene = Scene::new(1);
    assert_ok(&scene.target.fetch("/"));
    scene.backends.clear();
    wait::until_true("b1 taken out", Duration::from_secs(5), || healthy(&scene, "b1") == 0.0);
    let answer = scene.target.fetch("/");
    assert!(matches!(answer["status"].as_u64(), Some(502 | 503)), "{answer:#}");
    assert_eq!(answer["end"], "clean");
    assert!(answer["seconds"].as_f64().is_some_and(|seconds| seconds < 1.0), "{answer:#}");
}

#[test]
fn a_backend_with_few_streams_gets_more_connections_or_a_queue() {
    let backend =
        Backend::start_with(None, "b1", ([127, 0, 0, 1], 0).into(), &["--max-streams", "4"]);
    let forward = |config: spooky_tests::config::Config, b: &[_]| config.forward(b);
    let scene = Scene::before(Turn::shared(), vec![backend], forward);
    let requests = vec![json!({ "path": "/delay/50" }); 60];
    let args = json!({ "requests": requests, "concurrent": true });
    let result = scene.target.run("requests", args, SOON);
    for answer in result["answers"].as_array().into_iter().flatten() {
        assert_ok(answer);
    }
    assert!(scene.backends[0].count("connections_total") >= 1);
}

#[test]
fn a_goaway_of_the_backend_loses_no_request() {
    let scene = Scene::new(1);
    let args = json!({ "connections": 2, "parallel": 8, "path": "/delay/5", "report_every": 50 });
    let mut load = scene.target.start("load", args);
    for _round in 0..5 {
        progress(&mut load);
        scene.backends[0].control("goaway");
    }
    progress(&mut load);
    load.stop();
    let result = load.result(SOON);
    assert_eq!(failures(&result), 0, "{result:#}");
    assert!(scene.backends[0].count("connections_total") > 5, "each GOAWAY costs a connection");
}

#[test]
fn a_backend_that_does_not_answer_in_time_is_504() {
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/upstreams/app/timeouts/response_header", json!("500ms"))
    });
    let answer = scene.target.fetch("/hang");
    assert_eq!((&answer["status"], &answer["end"]), (&json!(504), &json!("clean")), "{answer:#}");
    assert!(answer["seconds"].as_f64().is_some_and(|s| (0.4..3.0).contains(&s)), "{answer:#}");
    let backend = &scene.backends[0];
    wait::until_true("its stream is reset", SOON, || backend.count("resets_received") == 1);
    assert_ok(&scene.target.fetch("/"));
}

#[test]
fn a_response_that_stops_half_way_is_reset() {
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/upstreams/app/timeouts/stream_idle", json!("1s"))
    });
    let answer = scene.target.fetch("/hang-body/100000");
    assert_eq!((&answer["status"], &answer["end"]), (&json!(200), &json!("reset")), "{answer:#}");
    // And not after the 30 s that the head might have taken.
    assert!(answer["seconds"].as_f64().is_some_and(|s| (0.9..15.0).contains(&s)), "{answer:#}");
    assert_ok(&scene.target.fetch("/"));
}
