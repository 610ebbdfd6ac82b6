//! Rows E03, E09 and a part of F02: paths that lose and spoil in bursts, as slow as a bad line, and how much of that line is used.

use serde_json::json;
use spooky_tests::origin::body::Content;
use spooky_tests::relay::{Impairment, Relay};
use spooky_tests::scene::{LONG, SOON, Scene, assert_ok, body_json};
use spooky_tests::soak;

use crate::cases::{self, Case, Stage};

/// Seeds of a run: always the same, so that a failure is met again.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let chosen = std::env::var("SPOOKY_SEED").ok().and_then(|seed| seed.parse().ok());
    chosen.map_or(1..=if soak() { 20 } else { 1 }, |seed| seed..=seed)
}

fn all_seeds(name: &str) {
    let case: &Case = cases::named(name);
    let stage = Stage::new();
    for seed in seeds() {
        let mut times = Vec::new();
        for outcome in case.run_all(&stage, seed) {
            times.push(format!("{} {:.1} s", outcome.client, outcome.seconds));
        }
        println!("{}: {name}, seed {seed}: {}", case.row, times.join(", "));
    }
}

#[test]
fn e03_handshakes_survive_loss() {
    all_seeds("handshakeloss");
}

/// What a client may do when it repeats what may be lost, and quiche takes for an error (docs/codex/known-limits.md): a
/// mended quiche is noticed here.
#[test]
fn e03_a_finished_said_twice_ends_the_connection() {
    let scene = Scene::new(1);
    let result = scene.target.run("finished_twice", json!({}), SOON);
    println!("E03: Finished twice: closed with {}", result["closed_with"]);
    assert_eq!(result["closed_with"], 0xa, "{result:#}");
    assert_ok(&scene.target.fetch("/"));
}

#[test]
fn e03_handshakes_survive_corruption() {
    all_seeds("handshakecorruption");
}

#[test]
fn e03_transfers_survive_loss() {
    all_seeds("transferloss");
}

#[test]
fn e03_transfers_survive_corruption() {
    all_seeds("transfercorruption");
}

/// Both ways, with what makes holes and what overtakes.
#[test]
fn f02_transfers_survive_loss_duplication_and_reordering() {
    let scene = Scene::new(1);
    let seed = *seeds().start();
    println!("seed {seed} (SPOOKY_SEED sets it)");
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

/// Of 10 Mbit/s, IP and UDP headers included; the datagrams leave room for 9.6.
const GOODPUT_MIN: f64 = 9.0;

/// A figure of time: only where the machine is asked for it.
#[test]
fn e09_goodput() {
    if !soak() {
        println!("SKIPPED e09_goodput: measures time; SPOOKY_SOAK=1 runs it");
        return;
    }
    let case = cases::named("goodput");
    let stage = Stage::new();
    let mut slow = Vec::new();
    for outcome in case.run_all(&stage, 1) {
        let seconds = outcome.connections[0]["facts"]["seconds"].as_f64().unwrap_or(f64::INFINITY);
        let megabits = case.octets() as f64 * 8.0 / seconds / 1e6;
        println!("E09: {}: {megabits:.2} Mbit/s of 10", outcome.client);
        if megabits < GOODPUT_MIN {
            slow.push(outcome.client);
        }
    }
    assert!(slow.is_empty(), "less than {GOODPUT_MIN} Mbit/s: {slow:?}");
}
