//! Row H08 for an interface that is removed and made again: XDP and its sockets come back to a daemon that has given up every
//! right, and until they do plain sockets serve.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spooky_tests::config::Config;
use spooky_tests::control::Control;
use spooky_tests::netns::{self, EDGE, PEER};
use spooky_tests::scene::{LONG, SOON};
use spooky_tests::{soak, wait};

use crate::af_xdp::{answered, assert_no_frame_is_lost};
use crate::confinement::NOBODY;
use crate::steering::{QUEUES, Stage, stage_alone};

/// How long traffic may be without XDP once the interface is there again.
const BACK: Duration = Duration::from_secs(2);

fn runs(stage: &Stage, mode: &str) -> bool {
    stage.spooky.metrics().sum("spooky_ebpf_mode", &[("mode", mode)]) == 1.0
}

fn sockets(stage: &Stage) -> f64 {
    stage.spooky.metrics().sum("spooky_af_xdp_queues", &[])
}

fn spare(stage: &Stage) -> f64 {
    stage.spooky.metrics().sum("spooky_af_xdp_spare_sockets", &[])
}

/// A stage in the whole sandbox and another user's, with AF_XDP as it is by default but for this.
fn confined(test: &str, control: &Control, af_xdp: Value) -> Option<Stage> {
    let stage = stage_alone(test, |config: Config| {
        control
            .configure(config)
            .set("/ebpf/af_xdp", af_xdp)
            .set("/ebpf/attach", json!("native"))
            .set("/privileges", json!({ "user": NOBODY, "sandbox": "required" }))
    })?;
    let log = stage.spooky.log();
    assert!(log.contains("no capabilities"), "{log}");
    Some(stage)
}

fn remove(stage: &Stage) {
    stage.pair.server.ip(&["link", "delete", EDGE]);
    wait::until_true("XDP and its sockets are gone", SOON, || {
        runs(stage, "reuseport") && sockets(stage) == 0.0
    });
}

/// Waits until it is there again, with so many sockets.
fn back(stage: &Stage, count: u32) {
    wait::until_true("XDP and its sockets are back", BACK, || {
        runs(stage, "xdp_native") && sockets(stage) == f64::from(count)
    });
}

/// Makes it again; how long it took from its first packet to XDP and its sockets.
fn make_again(stage: &Stage, count: u32) -> Duration {
    stage.pair.link(QUEUES);
    let begun = Instant::now();
    back(stage, count);
    begun.elapsed()
}

#[test]
fn h08_the_interface_is_removed_and_made_again() {
    let test = "h08_the_interface_is_removed_and_made_again";
    let control = Control::new();
    let Some(stage) = confined(test, &control, json!({ "mode": "copy" })) else { return };
    answered(&stage, true);
    assert_eq!(spare(&stage), 8.0 * f64::from(QUEUES));
    // These connections live through all of it.
    let args = json!({ "connections": 4, "report_every": 20, "path": "/bytes/5000" });
    let mut load = stage.v4.start("load", args);
    load.event_where("progress", LONG, |event| event["done"].as_u64() >= Some(40));
    let rounds = if soak() { 8 } else { 1 };
    for round in 1..=rounds {
        remove(&stage);
        let before = stage.spooky.metrics();
        let took = make_again(&stage, QUEUES);
        println!("H08: interface made again: XDP and {QUEUES} sockets after {took:?}");
        let took = answered(&stage, true);
        println!("H08: answered past the stack after {took:?} more");
        let after = stage.spooky.metrics();
        assert!(after.growth(&before, "spooky_xdp_frames_total", &[]) > 0.0, "XDP counts");
        assert_eq!(spare(&stage), f64::from((8 - round) * QUEUES));
    }
    let before = stage.spooky.metrics();
    wait::until_true("the connections of the beginning go past the stack", SOON, || {
        let after = stage.spooky.metrics();
        after.growth(&before, "spooky_af_xdp_frames_received_total", &[]) > 40.0
    });
    load.stop();
    let result = load.result(SOON);
    let outcome = result["outcome"].as_object().cloned().unwrap_or_default();
    assert_eq!(outcome.keys().collect::<Vec<_>>(), ["200 clean"], "{result:#}");
    assert_no_frame_is_lost(&stage);
    a_blocked_client_is_dropped_by_xdp(&stage, &control);
    let log = stage.spooky.log();
    for line in ["the interface of XDP is gone", "steering: reuseport only: there is no interface"]
    {
        assert_eq!(log.matches(line).count(), rounds as usize, "{line}: {log}");
    }
    assert_eq!(log.matches("steering: xdp_native").count(), rounds as usize + 1, "{log}");
    assert_eq!(control.json(&["steering"])["running"], "xdp_native");
}

fn a_blocked_client_is_dropped_by_xdp(stage: &Stage, control: &Control) {
    let denied = || {
        let labels = [("verdict", "drop"), ("reason", "denied")];
        stage.spooky.metrics().sum("spooky_xdp_frames_total", &labels)
    };
    assert_eq!(denied(), 0.0);
    let client = netns::client_v4(0).to_string();
    assert_eq!(control.json(&["block", &client, "--ttl", "1h"])["kernel"], "listed");
    let answer = stage.v4.run("connect", json!({ "timeout": 1.0 }), SOON);
    assert_eq!(answer["connected"], json!(false), "{answer:#}");
    assert!(denied() > 0.0, "by XDP");
}

/// The interface that comes takes no XDP at first, and the one after that finds no socket left.
#[test]
fn h08_plain_sockets_serve_until_xdp_is_back_and_where_no_socket_is_left() {
    let test = "h08_plain_sockets_serve_until_xdp_is_back_and_where_no_socket_is_left";
    let control = Control::new();
    let af_xdp = json!({ "mode": "copy", "spare_sockets": 1, "frames": 256 });
    let Some(stage) = confined(test, &control, af_xdp) else { return };
    remove(&stage);
    stage.pair.link_as("other0", QUEUES);
    // The driver refuses a program to whom its peer may send what is longer than a page.
    stage.pair.clients.ip(&["link", "set", PEER, "mtu", "9000"]);
    stage.pair.server.ip(&["link", "set", "other0", "down"]);
    stage.pair.server.ip(&["link", "set", "other0", "name", EDGE]);
    stage.pair.server.ip(&["link", "set", EDGE, "up"]);
    println!("H08: without XDP: answered by plain sockets after {:?}", answered(&stage, false));
    let log = stage.spooky.log();
    assert_eq!(log.matches("no XDP: edge0 takes no XDP program: native: ").count(), 1, "{log}");
    stage.pair.clients.ip(&["link", "set", PEER, "mtu", "1500"]);
    let begun = Instant::now();
    back(&stage, QUEUES);
    println!("H08: XDP and {QUEUES} sockets {:?} after it could be", begun.elapsed());
    answered(&stage, true);
    assert_eq!(spare(&stage), 0.0);
    remove(&stage);
    make_again(&stage, 0);
    wait::until_true("it is said why", SOON, || {
        stage.spooky.log().contains("no sockets are left for 4 receive queues")
    });
    println!("H08: without sockets: answered by plain ones after {:?}", answered(&stage, false));
}
