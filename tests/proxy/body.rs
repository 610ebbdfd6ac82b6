//! Bodies: a gigabyte each way arrives as it was, and slow ends hold nobody's memory and nobody else up (row D10).

use std::time::Duration;

use serde_json::{Value, json};
use spooky_tests::origin::body::Content;
use spooky_tests::{soak, wait};

use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok, body_json};

const GIBIBYTE: u64 = 1 << 30;
const MEBIBYTE: u64 = 1 << 20;
/// What memory may grow by while a slow transfer is watched.
const GROWTH_MAX: u64 = 4 * MEBIBYTE;
const WATCHED: Duration = Duration::from_secs(20);

/// A request may be as large as it likes.
fn unlimited(turn: Turn, backends: usize) -> Scene {
    Scene::with(turn, backends, |config, backends| {
        config.forward(backends).set("/routes/0/max_request_body", json!("unlimited"))
    })
}

#[test]
fn a_gibibyte_down_at_full_speed_has_the_right_hash() {
    let scene = Scene::alone(1);
    let args = json!({ "path": format!("/bytes/{GIBIBYTE}?seed=11"), "timeout": 280 });
    let result = scene.target.curl("download", args, LONG);
    assert_eq!((&result["error"], &result["status"]), (&Value::Null, &json!(200)), "{result:#}");
    assert_eq!(result["length"], GIBIBYTE);
    assert_eq!(result["sha256"], Content::sha256(11, GIBIBYTE));
    println!("1 GiB down in {} s", result["seconds"]);
}

#[test]
fn a_gibibyte_up_at_full_speed_has_the_right_hash() {
    let scene = unlimited(Turn::alone(), 1);
    let args = json!({ "path": "/hash", "length": GIBIBYTE, "timeout": 280 });
    let result = scene.target.curl("upload", args, LONG);
    assert_eq!((&result["error"], &result["status"]), (&Value::Null, &json!(200)), "{result:#}");
    let seen = body_json(&result);
    assert_eq!(seen["length"], GIBIBYTE);
    assert_eq!(seen["sha256"], result["sent_sha256"]);
    println!("1 GiB up in {} s", result["seconds"]);
}

#[test]
fn d10_a_slow_reader_holds_no_memory_and_nobody_up() {
    let scene = Scene::new(2);
    warm_up(&scene);
    let path = format!("/bytes/{GIBIBYTE}?seed=12");
    let mut slow = scene.target.start("download", json!({ "path": path, "rate": MEBIBYTE }));
    slow.event("progress", SOON);
    watch(&scene);
    slow.stop();
    let result = slow.result(SOON);
    let rate = result["length"].as_f64().unwrap_or(0.0)
        / result["transfer_seconds"].as_f64().unwrap_or(1.0);
    assert!((0.5..1.6).contains(&(rate / MEBIBYTE as f64)), "read at {rate} B/s: {result:#}");
    // What the backend could send ahead is bounded by the windows on the way, not by the size of the body.
    let sent = scene.backend_count("body_bytes_sent");
    let read = result["length"].as_u64().unwrap_or(0);
    println!("read {read} B; backends sent {sent} B in all");
}

#[test]
fn d10_a_slow_backend_holds_no_memory_and_nobody_up() {
    let scene = unlimited(Turn::shared(), 2);
    warm_up(&scene);
    let args = json!({ "path": format!("/slow-read?rate={MEBIBYTE}"), "length": GIBIBYTE });
    let mut slow = scene.target.start("upload", args);
    slow.event_where("progress", SOON, |event| event["length"].as_u64() > Some(MEBIBYTE));
    watch(&scene);
    slow.stop();
    let result = slow.result(SOON);
    let taken = result["sent"].as_f64().unwrap_or(0.0);
    let seconds = result["transfer_seconds"].as_f64().unwrap_or(1.0);
    // Windows and buffers on the way take some megabytes at once; the backend's pace rules after that.
    let allowed = (seconds * 1.3 + 24.0) * MEBIBYTE as f64;
    assert!(taken < allowed, "{taken} B taken in {seconds} s");
}

/// Row D10: fifty clients that read slowly while they send to backends that do.
#[test]
fn d10_slow_pairs_together_hold_little_and_nobody_up() {
    let (pairs, rate) = if soak() { (50, 100_000) } else { (20, 50_000) };
    let scene = Scene::alone(2);
    warm_up(&scene);
    let mut others = scene.target.start("load", json!({ "connections": 2, "pause": 0.02 }));
    others.event("progress", SOON);
    scene.spooky.forget_peak();
    let start = scene.spooky.resident_bytes();
    let args = json!({
        "count": pairs, "rate": rate, "window": 65_536,
        "down": format!("/bytes/{GIBIBYTE}"), "up": format!("/slow-read?rate={rate}"),
    });
    let mut slow = scene.target.start("slow_pairs", args);
    slow.event("going", LONG);
    wait::watch(Duration::from_secs(8), || (), |()| {});
    let grown = scene.spooky.peak_bytes().saturating_sub(start);
    slow.stop();
    others.stop();
    let (slow, seen) = (slow.result(LONG), others.result(SOON));
    println!(
        "D10: {pairs} pairs: {} KiB more, {slow}; others: {}, slowest {} s",
        grown >> 10,
        seen["outcome"],
        seen["slowest"]
    );
    assert!(grown < 64 * MEBIBYTE * pairs / 50, "{grown} B");
    assert_eq!(slow["closed"], json!([]));
    assert!(slow["down"][0].as_u64() > Some(0) && slow["up"][0].as_u64() > Some(0), "{slow}");
    let outcome = seen["outcome"].as_object().map(serde_json::Map::len);
    assert_eq!((outcome, &seen["errors"]), (Some(1), &json!([])), "{seen:#}");
    assert!(seen["slowest"].as_f64().is_some_and(|slowest| slowest < 1.0), "{seen:#}");
}

/// Fills the buffers that stay: pools, allocator arenas, connection state.
fn warm_up(scene: &Scene) {
    let args = json!({ "path": "/bytes/67108864" });
    let down = scene.target.curl("download", args, LONG);
    assert_eq!(down["status"], 200, "{down:#}");
    let up = scene.target.curl("upload", json!({ "path": "/hash", "length": 64 * MEBIBYTE }), LONG);
    assert_eq!(up["status"], 200, "{up:#}");
    let mut load = scene.target.start("load", json!({ "pause": 0.02 }));
    load.event("progress", SOON);
    load.stop();
    load.result(SOON);
}

/// Watches memory for 20 s while others come and go, and asserts that neither it nor they noticed.
fn watch(scene: &Scene) {
    let mut others = scene.target.start("load", json!({ "connections": 2, "pause": 0.02 }));
    others.event("progress", SOON);
    let before = scene.spooky.metrics();
    let start = scene.spooky.resident_bytes();
    let mut highest = start;
    wait::watch(WATCHED, || scene.spooky.resident_bytes(), |bytes| highest = highest.max(bytes));
    others.stop();
    let seen = others.result(SOON);
    println!(
        "resident {start} B, at most {highest} B; others: {} p99 {}",
        seen["outcome"], seen["p99"]
    );
    assert!(start > 0, "the daemon runs");
    let growth = highest.saturating_sub(start);
    assert!(growth < GROWTH_MAX, "memory grew by {growth} B");
    let outcome =
        seen["outcome"].as_object().map(|outcome| outcome.keys().cloned().collect::<Vec<_>>());
    let changes = scene.spooky.metrics().changes(&before);
    assert_eq!(outcome, Some(vec!["200 clean".to_owned()]), "{seen:#}\n{changes}");
    let p99 = seen["p99"].as_f64().unwrap_or(f64::MAX);
    assert!(p99 < 0.5, "others waited {p99} s");
}

#[test]
fn bodies_of_awkward_sizes_are_echoed_exactly() {
    let scene = Scene::new(1);
    let sizes = [0, 1, 1199, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 1_048_577, 3_000_001];
    let requests: Vec<Value> = sizes
        .iter()
        .map(|size| json!({ "method": "PUT", "path": "/echo-body", "body_length": size, "keep": false }))
        .collect();
    let result = scene.target.run("requests", json!({ "requests": requests }), LONG);
    for (size, answer) in sizes.iter().zip(result["answers"].as_array().into_iter().flatten()) {
        assert_ok(answer);
        assert_eq!(answer["length"], *size);
    }
}
