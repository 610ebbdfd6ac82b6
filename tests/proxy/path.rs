//! Paths that lose, double and swap datagrams, and clients that come back from another port, over plain sockets.

use serde_json::{Value, json};
use spooky_tests::origin::body::Content;
use spooky_tests::relay::{Impairment, Relay};

use spooky_tests::scene::{LONG, SOON, Scene, assert_ok, body_json};

fn seed() -> u64 {
    let seed = std::env::var("SPOOKY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed} (SPOOKY_SEED repeats it)");
    seed
}

#[test]
fn transfers_survive_loss_duplication_and_reordering() {
    let scene = Scene::new(1);
    let seed = seed();
    let bad = Impairment {
        seed,
        loss: 0.03,
        duplication: 0.03,
        reordering: 0.05,
        ..Impairment::default()
    };
    let relay = Relay::start(scene.target.address, bad);
    let target = scene.target.at(relay.address());
    let down = target.run("download", json!({ "path": "/bytes/3000000?seed=5" }), LONG);
    assert_ok(&down);
    assert_eq!(down["sha256"], Content::sha256(5, 3_000_000), "seed {seed}");
    let up = target.run("upload", json!({ "path": "/hash", "length": 3_000_000 }), LONG);
    assert_ok(&up["answer"]);
    assert_eq!(body_json(&up["answer"])["sha256"], up["sent_sha256"], "seed {seed}");
    let curl = target.curl("download", json!({ "path": "/bytes/3000000?seed=6" }), LONG);
    assert_eq!(curl["sha256"], Content::sha256(6, 3_000_000), "seed {seed}: {curl:#}");
    println!("{:?}", relay.tally());
    let lost = relay.tally().lost.load(std::sync::atomic::Ordering::Relaxed);
    assert!(lost > 20, "the path was bad: {:?}", relay.tally());
}

#[test]
fn a_nat_that_forgets_changes_nothing_for_curl() {
    let scene = Scene::new(1);
    let relay = Relay::start(scene.target.address, Impairment::default());
    let target = scene.target.at(relay.address());
    let before = scene.spooky.metrics();
    let args = json!({ "path": "/bytes/20000000?seed=7&rate=8000000" });
    let client = target.start_curl("download", args);
    let delivered = || relay.tally().to_client.load(std::sync::atomic::Ordering::Relaxed);
    for _rebinding in 0..10 {
        let so_far = delivered();
        spooky_tests::wait::until_true("the transfer goes on", SOON, || delivered() > so_far + 300);
        relay.rebind();
    }
    let result = client.result(LONG);
    assert_eq!((&result["error"], &result["status"]), (&Value::Null, &json!(200)), "{result:#}");
    assert_eq!(result["sha256"], Content::sha256(7, 20_000_000));
    let after = scene.spooky.metrics();
    assert_eq!(after.growth(&before, "spooky_handshakes_completed_total", &[]), 1.0);
    assert!(relay.tally().ports.load(std::sync::atomic::Ordering::Relaxed) >= 10);
}

#[test]
fn a_client_that_changes_ports_keeps_its_connection() {
    let scene = Scene::new(1);
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
