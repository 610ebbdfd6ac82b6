//! What is given up when memory is scarce, in order: new connections, new requests, the newest connections.

use serde_json::json;
use spooky_tests::wait;

use crate::reload::reload;
use spooky_tests::scene::{SOON, Scene, Turn, assert_ok};

#[test]
fn the_newest_pay_for_scarce_memory_and_all_is_well_again_afterwards() {
    let mut scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(1))
    });
    let mut held = scene.target.start("hold", json!({ "connections": 40 }));
    held.event("open", SOON);
    // A limit far away, and thresholds far below or above what there is: memory varies while it is used.
    let stops = |requests: &str| json!({ "memory": "400MiB", "stop_connections": "1%", "stop_requests": requests, "shed": "100%" });
    let level = |scene: &Scene| {
        let metrics = scene.spooky.metrics();
        ["none", "connections", "requests", "shedding"]
            .into_iter()
            .find(|level| metrics.sum("spooky_memory_pressure", &[("level", level)]) == 1.0)
    };
    let connects = |scene: &Scene| {
        let result = scene.target.run("connect", json!({ "timeout": 1.5 }), SOON);
        result["connected"] == true
    };
    let count =
        |scene: &Scene, name, labels: &[(&str, &str)]| scene.spooky.metrics().sum(name, labels);
    assert!(connects(&scene));

    reload(&mut scene.spooky, "taken", |config| config["overload"] = stops("100%"));
    wait::until_true("new connections are stopped", SOON, || level(&scene) == Some("connections"));
    assert!(!connects(&scene));
    assert!(count(&scene, "spooky_connections_refused_total", &[("reason", "memory")]) > 0.0);
    held.stop();
    let fates = held.result(SOON);
    assert_eq!(fates["answered"], 40, "those that were there are served: {fates}");

    reload(&mut scene.spooky, "taken", |config| config["overload"] = json!({}));
    wait::until_true("all is well", SOON, || level(&scene) == Some("none"));
    let args = json!({ "connections": 40, "answer_timeout": 3.0 });
    let mut held = scene.target.start("hold", args.clone());
    held.event("open", SOON);
    reload(&mut scene.spooky, "taken", |config| config["overload"] = stops("1%"));
    wait::until_true("new requests are stopped", SOON, || level(&scene) == Some("requests"));
    held.stop();
    // Each is answered, and the answer is 503.
    assert_eq!(held.result(SOON)["answered"], 40);
    let refused = count(&scene, "spooky_proxy_errors_total", &[("kind", "memory_scarce")]);
    assert_eq!(refused, 40.0);

    reload(&mut scene.spooky, "taken", |config| config["overload"] = json!({}));
    wait::until_true("all is well", SOON, || level(&scene) == Some("none"));
    let mut held = scene.target.start("hold", args);
    held.event("open", SOON);
    reload(&mut scene.spooky, "taken", |config| {
        config["overload"] = json!({ "memory": "1MiB" });
    });
    wait::until_true("all are closed in the end", SOON, || {
        count(&scene, "spooky_connections_shed_total", &[]) >= 40.0
    });
    reload(&mut scene.spooky, "taken", |config| config["overload"] = json!({}));
    wait::until_true("all is well", SOON, || level(&scene) == Some("none"));
    assert_ok(&scene.target.fetch("/"));
    drop(held);
}
