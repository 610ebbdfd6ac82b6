//! Peers that break QUIC itself: each single frame that RFC 9000 forbids, and floods of frames that it allows. Rows A05 to A20 of
//! the attack table, with packets made by hand.

use serde_json::{Value, json};

use spooky_tests::scene::{LONG, Scene, Turn, assert_ok};

#[test]
fn a_forbidden_frame_ends_its_connection_with_the_code_of_the_rfc() {
    let scene = Scene::new(1);
    let result = scene.target.run("transport_errors", json!({}), LONG);
    let cases = result["cases"].as_object().cloned().unwrap_or_default();
    assert!(cases.len() > 25, "{result:#}");
    let mut wrong = Vec::new();
    for (name, case) in &cases {
        let allowed = case["allowed"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !allowed.contains(&case["closed_with"]) {
            wrong.push(format!("{name}: {case}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_ok(&result["bystander"]);
}

/// Packets of a flood, and the memory in KiB that it may cost while it lasts.
const FLOODS: [(&str, u64, u64); 9] = [
    ("A07_path_challenge", 3000, 4096),
    ("A08_new_connection_id", 5000, 4096),
    ("A09_retire_connection_id", 5000, 4096),
    ("A10_streams_blocked", 5000, 4096),
    ("A18_ping", 10_000, 4096),
    ("A18_padding", 10_000, 4096),
    ("A20_ack_ranges", 5000, 4096),
    ("A20_one_octet_of_a_stream_again_and_again", 5000, 4096),
    ("A19_max_data", 5000, 4096),
];

#[test]
fn a_flood_of_allowed_frames_costs_its_sender_alone() {
    let scene = Scene::with(Turn::alone(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(1))
    });
    // Whatever is allocated once is there before anything is measured.
    assert_ok(&scene.target.fetch("/bytes/1000000"));
    let mut wrong = Vec::new();
    for (name, packets, memory) in FLOODS {
        let before = scene.spooky.resident_bytes();
        let args = json!({ "name": name, "count": packets });
        let result = scene.target.run("transport_flood", args, LONG);
        let grown = scene.spooky.resident_bytes().saturating_sub(before) >> 10;
        let slowest = result["slowest"].as_f64().unwrap_or(0.0);
        println!(
            "{name}: {} packets, closed with {}, {} answers beside it, the slowest after {:.0} ms, {grown} KiB more",
            result["sent"],
            result["closed_with"],
            result["answered"],
            slowest * 1000.0,
        );
        let fine = result["failed"] == Value::Null && result["last"]["status"] == 200;
        if !fine || grown > memory {
            wrong.push(format!("{name}: {grown} KiB: {result}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
