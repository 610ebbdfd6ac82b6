//! What one connection may have, honest or not: requests at once, requests in all. Nobody is harmed at the limit; it is counted.

use serde_json::{Value, json};

use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok};

fn scene(path: &str, limit: Value) -> Scene {
    Scene::with(Turn::shared(), 1, |config, backends| config.forward(backends).set(path, limit))
}

/// Who wants more at once than it may has to wait, and asks for more (STREAMS_BLOCKED).
#[test]
fn requests_above_max_streams_wait_for_their_turn() {
    let scene = scene("/listeners/0/quic/max_streams", json!(2));
    let calls = vec![json!({ "path": "/delay/100" }); 8];
    let args = json!({ "requests": calls, "concurrent": true });
    let result = scene.target.run("requests", args, SOON);
    let answers = result["answers"].as_array().cloned().unwrap_or_default();
    assert_eq!(answers.len(), 8, "{result:#}");
    answers.iter().for_each(assert_ok);
    // Counted once a second, and at the end of the connection.
    spooky_tests::wait::until_true("it is counted", SOON, || {
        scene.spooky.metrics().sum("spooky_streams_blocked_total", &[]) > 0.0
    });
}

#[test]
fn after_so_many_requests_a_connection_is_told_to_go() {
    let scene = scene("/listeners/0/http3/max_requests_per_connection", json!(3));
    // Two, and one that shows that they have been read: the third.
    let args = json!({ "path": "/delay/300", "count": 2 });
    let result = scene.target.run("drain", args, LONG);
    for answer in result["answers"].as_array().into_iter().flatten() {
        assert_ok(answer);
    }
    // First any ID, then the fourth request's.
    assert_eq!(result["goaways"], json!([(1_u64 << 62) - 4, 4 * 3]), "{result:#}");
    assert_eq!(result["late"]["reset_code"], 0x10b, "H3_REQUEST_REJECTED: {result:#}");
    assert_eq!(result["closed_with"], 0x100, "H3_NO_ERROR: {result:#}");
    let limit = [("reason", "max_requests_per_connection")];
    assert_eq!(scene.spooky.metrics().sum("spooky_limits_reached_total", &limit), 1.0);
    assert_ok(&scene.target.fetch("/"));
}
