//! What flow control windows are worth and what they cost: upload rate over a path of 50 ms, and memory that gaps take. Figures for
//! docs/codex/decisions/0046-windows-that-grow.md; what is asserted is their ratio.

use std::time::Duration;

use serde_json::{Value, json};
use spooky_tests::relay::{Impairment, Relay};
use spooky_tests::scene::{LONG, Scene, Turn, assert_ok};
use spooky_tests::soak;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// One way.
const DELAY: Duration = Duration::from_millis(25);

/// Windows of a stream and of a connection, at first and at most.
struct Windows {
    stream: (u64, u64),
    connection: (u64, u64),
}

/// Small and safe, without growth; what spooky had; large and fast; the usual ones.
const CHOICES: [(&str, Option<Windows>); 4] = [
    ("fixed", Some(Windows { stream: (64 * KIB, 64 * KIB), connection: (MIB, MIB) })),
    ("small", Some(Windows { stream: (64 * KIB, MIB), connection: (MIB, 4 * MIB) })),
    ("large", Some(Windows { stream: (256 * KIB, 6 * MIB), connection: (MIB, 15 * MIB) })),
    ("usual", None),
];

fn scene(windows: &Option<Windows>, http3: Value) -> Scene {
    Scene::with(Turn::alone(), 1, |config, backends| {
        let config = config.forward(backends).set("/workers/count", json!(1));
        let config = config.set("/listeners/0/http3", http3);
        let Some(Windows { stream, connection }) = windows else { return config };
        let window = |(initial, max): &(u64, u64)| json!({ "initial": format!("{initial}B"), "max": format!("{max}B") });
        config
            .set("/listeners/0/quic/stream_window", window(stream))
            .set("/listeners/0/quic/connection_window", window(connection))
    })
}

/// Octets a second of one upload.
fn upload(scene: &Scene, length: u64) -> f64 {
    let path = Impairment { delay: DELAY, ..Impairment::default() };
    let relay = Relay::start(scene.target.address, path);
    let args = json!({ "path": "/hash", "length": length, "timeout": 120 });
    let result = scene.target.at(relay.address()).curl("upload", args, LONG);
    assert_eq!((&result["error"], &result["status"]), (&Value::Null, &json!(200)), "{result:#}");
    length as f64 / result["seconds"].as_f64().unwrap_or(f64::MAX)
}

#[test]
fn a11_uploads_over_a_long_path_are_as_fast_as_their_windows() {
    let lengths = if soak() { vec![MIB, 16 * MIB, 64 * MIB] } else { vec![4 * MIB] };
    let mut longest = Vec::new();
    for (name, windows) in &CHOICES {
        // The least and the usual are what is compared; the others are figures.
        if !soak() && ["small", "large"].contains(name) {
            continue;
        }
        let scene = scene(windows, json!({}));
        for length in &lengths {
            let rate = upload(&scene, *length);
            println!("windows {name}: {} MiB at 50 ms: {:.2} MB/s", length / MIB, rate / 1e6);
            if Some(length) == lengths.last() {
                longest.push(rate);
            }
        }
    }
    let (fixed, usual) = (longest[0], longest[longest.len() - 1]);
    // 64 KiB for each 50 ms, and no more; the usual ones are no such bound.
    assert!(fixed < 64.0 * 1024.0 / 0.05 * 1.3, "{fixed}");
    assert!(usual > 2.0 * fixed, "{usual} beside {fixed}");
}

/// What gaps take on `connections` connections with this connection window, from the start: MiB at most, and how many were closed
/// for it.
fn gaps(window: u64, connections: usize, http3: Value) -> (u64, usize) {
    let windows = Windows { stream: (64 * KIB, 64 * KIB), connection: (window, window) };
    let scene = scene(&Some(windows), http3);
    assert_ok(&scene.target.fetch("/"));
    scene.spooky.forget_peak();
    let before = scene.spooky.resident_bytes();
    let streams = (window / (64 * KIB)).min(99);
    let args = json!({ "path": "/hash", "streams": streams, "patience": 8.0 });
    let clients: Vec<_> =
        (0..connections).map(|_| scene.target.start("gaps", args.clone())).collect();
    let results: Vec<Value> = clients.into_iter().map(|client| client.result(LONG)).collect();
    let grown = scene.spooky.peak_bytes().saturating_sub(before) / MIB;
    let closed = results.iter().filter(|result| result["closed_with"] == 0x107).count();
    let pieces: Vec<&Value> = results.iter().map(|result| &result["pieces"]).collect();
    let metrics = scene.spooky.metrics();
    let total = metrics.sum("spooky_limits_reached_total", &[("reason", "unreadable_total")]);
    println!(
        "gaps: window {} MiB, {connections} connections: {grown} MiB, {closed} closed, {total} at once; {pieces:?}",
        window / MIB
    );
    assert_ok(&scene.target.fetch("/"));
    (grown, closed)
}

#[test]
fn a11_gaps_of_all_connections_are_bounded_together() {
    // As it was: each connection may have what its window is worth for 5 s.
    let off = || json!({ "max_unreadable_total": "1GiB", "max_unreadable": "64MiB" });
    if soak() {
        for window in [MIB, 4 * MIB, 8 * MIB] {
            gaps(window, 1, off());
        }
        gaps(MIB, 4, off());
    }
    // Several windows that clients have from the start, and one that had grown.
    let cases = [(MIB, 4), (8 * MIB, 1)];
    for (window, connections) in cases.into_iter().take(if soak() { 2 } else { 1 }) {
        let (grown, closed) = gaps(window, connections, json!({}));
        assert_eq!(closed, connections);
        assert!(grown <= 160, "{grown} MiB");
    }
}
