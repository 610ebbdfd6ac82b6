//! What a defect of spooky's own may cost: one request, one connection, or one worker's connections, and never the rest.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spooky_tests::spooky::Spooky;
use spooky_tests::wait;

use spooky_tests::scene::{SOON, Scene, Turn, assert_ok};

fn panics(spooky: &Spooky, ended: &str) -> f64 {
    spooky.metrics().sum("spooky_panics_total", &[("reason", ended)])
}

#[test]
fn a_panic_while_serving_resets_one_stream() {
    let scene = Scene::new(1);
    let requests = json!([{ "path": "/" }, { "path": "/fault/request" }, { "path": "/" }]);
    let result = scene.target.run("requests", json!({ "requests": requests }), SOON);
    let answers = &result["answers"];
    assert_ok(&answers[0]);
    assert_eq!((&answers[1]["end"], &answers[1]["reset_code"]), (&json!("reset"), &json!(0x102)));
    assert_ok(&answers[2]);
    assert_eq!(panics(&scene.spooky, "request"), 1.0);
    assert_eq!(scene.spooky.metrics().sum("spooky_requests_active", &[]), 0.0);
}

#[test]
fn a_panic_in_a_connection_costs_that_connection() {
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(1))
    });
    let mut neighbours = scene.target.start("hold", json!({ "connections": 5 }));
    neighbours.event("open", SOON);
    let mut struck =
        scene.target.start("hold", json!({ "connections": 1, "path": "/fault/connection" }));
    struck.event("open", SOON);
    struck.stop();
    // Its client is told when it asks again: aioquic sends its request anew.
    let fates = struck.result(SOON);
    assert_eq!(fates["stateless reset"], 1, "{fates}");
    neighbours.stop();
    let fates = neighbours.result(SOON);
    assert_eq!(fates["answered"], 5, "{fates}");
    assert_eq!(panics(&scene.spooky, "connection"), 1.0);
}

/// A client whose request is the end of the worker that has it. The worker has acknowledged it before, so nothing tells the
/// client but its own patience.
fn asking() -> Value {
    json!({ "requests": [{ "path": "/fault/worker" }], "answer_timeout": 2.0 })
}

#[test]
fn a_worker_that_ends_is_there_again_within_a_second() {
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(1))
    });
    let mut struck =
        scene.target.start("hold", json!({ "connections": 6, "answer_timeout": 10.0 }));
    struck.event("open", SOON);
    let restarts = || scene.spooky.metrics().sum("spooky_worker_restarts_total", &[]);
    let asked = Instant::now();
    let last = scene.target.start("requests", asking());
    wait::until_true("it is started again", SOON, || restarts() == 1.0);
    drop(last);
    println!("there again after {:?}, the client's handshake included", asked.elapsed());
    assert_ok(&scene.target.fetch("/"));
    struck.stop();
    let fates = struck.result(SOON);
    assert_eq!(fates["stateless reset"], 6, "its clients are told: {fates}");
    let (status, _) = scene.spooky.get("/health").expect("the admin port answers");
    assert_eq!(status, 200, "nothing is missing any more");
    let active = || scene.spooky.metrics().sum("spooky_connections_active", &[]);
    wait::until_true("nobody is counted who is gone", SOON, || active() == 0.0);
}

#[test]
fn a_worker_that_ends_again_and_again_is_not_started_ever_faster() {
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(2))
    });
    let restarts = || scene.spooky.metrics().sum("spooky_worker_restarts_total", &[]);
    let begun = Instant::now();
    for count in 1..=5 {
        let _fate = scene.target.start("requests", asking());
        wait::until_true("it is started again", SOON, || restarts() >= f64::from(count));
    }
    let log = scene.spooky.log();
    assert_eq!(log.matches("worker started again").count(), 5, "{log}");
    // Whichever of the two was struck: three ends of one of them take 100 + 200 + 400 ms at least.
    assert!(begun.elapsed() > Duration::from_millis(700), "{:?}", begun.elapsed());
    assert_ok(&scene.target.fetch("/"));
}
