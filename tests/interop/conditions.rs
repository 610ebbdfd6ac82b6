//! Row E05: long ways, darkness, IPv6, other ciphers, other keys, Retry, resumption. Early data is off: that it is not taken
//! is row A16.

use crate::cases::{self, Stage};

fn case(name: &str) {
    let case = cases::named(name);
    let stage = Stage::new();
    let before = stage.scene.spooky.metrics();
    let outcomes = case.run_all(&stage, 1);
    let after = stage.scene.spooky.metrics();
    let grew = |name| after.growth(&before, name, &[]);
    let expected = (outcomes.len() as u64 * case.connections()) as f64;
    let handshakes = grew("spooky_handshakes_completed_total");
    let (retries, resumed) =
        (grew("spooky_addresses_validated_total"), grew("spooky_handshakes_resumed_total"));
    for outcome in &outcomes {
        let facts: Vec<String> =
            outcome.connections.iter().map(|c| c["facts"].to_string()).collect();
        println!("E05: {name} {}: {:.2} s {}", outcome.client, outcome.seconds, facts.join(" "));
    }
    println!("E05: {name}: {handshakes} handshakes, {retries} by Retry, {resumed} resumed");
    assert_eq!(handshakes, expected, "{name}: one handshake a connection");
    assert_eq!(retries, if name == "retry" { expected } else { 0.0 }, "{name}");
    // The second connection of each client goes on with the session of the first.
    assert_eq!(resumed, if case.resume { expected / 2.0 } else { 0.0 }, "{name}");
}

#[test]
fn e05_longrtt() {
    case("longrtt");
}

#[test]
fn e05_blackhole() {
    case("blackhole");
}

#[test]
fn e05_ipv6() {
    case("ipv6");
}

#[test]
fn e05_chacha20() {
    case("chacha20");
}

#[test]
fn e05_keyupdate() {
    case("keyupdate");
}

#[test]
fn e05_retry() {
    case("retry");
}

#[test]
fn e05_resumption() {
    case("resumption");
}
