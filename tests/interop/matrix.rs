//! Row E02: every client, byte for byte, over a quiet path, with one handshake a connection.

use spooky_tests::metrics::Metrics;

use crate::cases::{self, Stage};

/// What a connection may have open at once from its start (RFC 9000 §18.2), as the QUIC interop runner wants it.
const INITIAL_STREAMS_MAX: u64 = 1000;

fn every_case(name: &str) {
    let client = cases::client(name);
    if let Some(why) = client.missing() {
        println!("SKIPPED e02_{name}: {why}");
        return;
    }
    let stage = Stage::new();
    for case in cases::of_row("E02") {
        let before = stage.scene.spooky.metrics();
        let outcome = case.run(&stage, client, 1);
        let after = stage.scene.spooky.metrics();
        let grew = |metrics: &Metrics, name| metrics.growth(&before, name, &[]);
        let handshakes = grew(&after, "spooky_handshakes_completed_total");
        let streams = &outcome.connections[0]["facts"]["initial_max_streams_bidi"];
        println!(
            "E02: {name} {}: {} octets in {:.2} s, {handshakes} handshake, {streams} streams offered",
            case.name,
            case.octets(),
            outcome.seconds
        );
        assert_eq!(handshakes, 1.0, "{name}, {}: one connection does it all", case.name);
        assert!(streams.as_u64().is_none_or(|streams| streams <= INITIAL_STREAMS_MAX), "{streams}");
    }
}

#[test]
fn e02_aioquic() {
    every_case("aioquic");
}

#[test]
fn e02_qh3() {
    every_case("qh3");
}

#[test]
fn e02_curl() {
    every_case("curl");
}

#[test]
fn e02_gtlsclient() {
    every_case("gtlsclient");
}
