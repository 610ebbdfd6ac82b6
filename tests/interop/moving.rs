//! Row E04: clients behind a NAT that forgets, clients that come from another address, clients that move of their own accord and
//! use another connection ID there. Four workers and no kernel program: a new port may mean another worker's socket, and the
//! owner still gets each datagram. With kernel programs: `tests/proxy/steering.rs`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};
use spooky_tests::metrics::Metrics;
use spooky_tests::origin::body::Content;
use spooky_tests::relay::{Impairment, Relay};
use spooky_tests::wait;

use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok, body_json};

use crate::cases;

const LENGTH: u64 = 10_000_000;
/// Octets a second: a client may try four paths a second.
const RATE: u64 = 4_000_000;
const MOVES: u64 = 4;

fn scene() -> Scene {
    Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(4))
    })
}

/// Nothing but datagrams that took another way: no handshake but the first, none lost between workers.
#[track_caller]
fn assert_unbroken(what: &str, scene: &Scene, before: &Metrics, connections: u64) {
    let after = scene.spooky.metrics();
    let grew = |name| after.growth(before, name, &[]);
    let right = grew("spooky_steer_right_total");
    let forwarded = grew("spooky_steer_forwarded_total");
    let validated = grew("spooky_migrations_validated_total");
    println!(
        "E04: {what}: {validated} paths validated, {right} datagrams at their owner, {forwarded} handed on"
    );
    assert_eq!(grew("spooky_handshakes_completed_total"), connections as f64, "{what}");
    assert_eq!(grew("spooky_stray_ring_full_total"), 0.0, "{what}");
    assert!(validated >= 1.0, "{what}: PATH_CHALLENGE was sent and answered");
}

/// One download of each client over a relay that moves it `MOVES` times.
fn moved(what: &str, move_on: impl Fn(&Relay, u64)) {
    let scene = scene();
    for name in ["aioquic", "qh3", "curl", "gtlsclient"] {
        if let Some(why) = cases::client(name).missing() {
            println!("SKIP E04/{what}/{name}: {why}");
            continue;
        }
        let before = scene.spooky.metrics();
        let relay = Relay::start(scene.target.address, Impairment::default());
        let path = format!("/bytes/{LENGTH}?seed=4&rate={RATE}");
        let args = json!({ "paths": [path], "timeout": 60 });
        let client = scene.target.at(relay.address()).start_interop(name, args);
        let delivered = || relay.tally().to_client.load(Relaxed);
        for turn in 1..=MOVES {
            let so_far = delivered();
            wait::until_true("the transfer goes on", SOON, || delivered() > so_far + 1200);
            move_on(&relay, turn);
        }
        let result = client.result(LONG);
        let answer = &result[0]["answers"][0];
        assert_eq!(answer["sha256"], Content::sha256(4, LENGTH), "{what}/{name}: {result:#}");
        assert_eq!(relay.tally().ports.load(Relaxed), MOVES + 1);
        assert_unbroken(&format!("{what}, {name}"), &scene, &before, 1);
        let resets = "spooky_stateless_resets_sent_total";
        assert_eq!(scene.spooky.metrics().growth(&before, resets, &[]), 0.0, "{what}/{name}");
    }
}

#[test]
fn e04_rebind_port() {
    moved("rebind-port", |relay, _| relay.rebind());
}

#[test]
fn e04_rebind_addr() {
    moved("rebind-addr", |relay, turn| {
        relay.rebind_to(IpAddr::V4(Ipv4Addr::new(127, 0, 4, turn as u8)));
    });
}

/// The client changes its socket and the connection ID that it writes.
#[test]
fn e04_connectionmigration() {
    let scene = scene();
    let before = scene.spooky.metrics();
    let args = json!({
        "path": format!("/bytes/{{length}}?seed={{seed}}&rate={RATE}"), "length": 6_000_000,
        "connections": 4, "rebinds": 4, "change_id": true,
    });
    let result = scene.target.run("rebind", args, LONG);
    let transfers = result["transfers"].as_array().cloned().unwrap_or_default();
    assert_eq!(transfers.len(), 4);
    for transfer in &transfers {
        let seed = transfer["seed"].as_u64().unwrap_or(0);
        assert_eq!(transfer["sha256"], Content::sha256(seed, 6_000_000), "{transfer:#}");
        let moves = ["moved", "ids_used", "handshakes"].map(|key| transfer[key].as_u64());
        assert_eq!(moves, [Some(4), Some(5), Some(1)], "{transfer:#}");
        // What still comes under an ID that the client has retired gets a stateless reset, which it has to ignore (RFC
        // 9000 §10.3.1): it is the transfer that shows whether it was one.
        let unbroken = (&transfer["end"], &transfer["closed_with"]);
        assert_eq!(unbroken, (&json!("clean"), &Value::Null), "{transfer:#}");
        assert!(transfer["path_challenges"].as_u64() >= Some(4), "{transfer:#}");
    }
    assert_unbroken("connectionmigration, aioquic", &scene, &before, 4);
}

#[test]
fn e04_a_client_that_changes_ports_keeps_its_connection() {
    let scene = scene();
    let before = scene.spooky.metrics();
    let args = json!({
        "path": "/bytes/{length}?seed={seed}", "length": 2_000_000, "connections": 4, "rebinds": 10,
    });
    let result = scene.target.run("rebind", args, LONG);
    for transfer in result["transfers"].as_array().into_iter().flatten() {
        let seed = transfer["seed"].as_u64().unwrap_or(0);
        assert_eq!(transfer["sha256"], Content::sha256(seed, 2_000_000), "{transfer:#}");
        assert_eq!((&transfer["moved"], &transfer["handshakes"]), (&json!(10), &json!(1)));
        assert!(
            transfer["path_challenges"].as_u64() > Some(0),
            "paths are validated: {transfer:#}"
        );
    }
    let up = json!({ "path": "/hash", "length": 4_000_000, "rebinds": 10 });
    let up = scene.target.run("upload_rebind", up, LONG);
    assert_ok(&up["answer"]);
    assert_eq!(body_json(&up["answer"])["sha256"], up["sent_sha256"]);
    let after = scene.spooky.metrics();
    let grew = |name| after.growth(&before, name, &[]);
    assert_eq!(grew("spooky_handshakes_completed_total"), 5.0);
    // Without kernel programs a new port may mean another worker's socket: the owner still gets each datagram.
    println!("{}", after.changes(&before));
    assert_eq!(grew("spooky_stray_ring_full_total"), 0.0);
    assert!(grew("spooky_migrations_validated_total") > 0.0);
}
