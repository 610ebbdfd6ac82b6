//! Row H08 for an interface that is removed and made again: XDP and its sockets come back to a daemon that has given up every
//! right, and until they do plain sockets serve.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spooky_tests::config::Config;
use spooky_tests::control::Control;
use spooky_tests::netns::{self, EDGE};
use spooky_tests::scene::{LONG, SOON};
use spooky_tests::{soak, wait};

use crate::af_xdp::{answered, assert_no_frame_is_lost};
use crate::confinement::NOBODY;
use crate::steering::{QUEUES, Stage, stage};

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
    let stage = stage(test, |config: Config| {
        control
            .configure(config)
            .set("/ebpf/af_xdp", af_xdp)
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

/// Makes it again; how long it took from its first packet to XDP and all sockets.
fn make_again(stage: &Stage, queues: u32) -> Duration {
    stage.pair.link(queues);
    let begun = Instant::now();
    wait::until_true("XDP and its sockets are back", BACK, || {
        runs(stage, "xdp_native") && sockets(stage) == f64::from(queues)
    });
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

/// Nothing is left that could be opened, and fewer queues than before: XDP comes back all the same.
#[test]
fn h08_without_spare_sockets_plain_ones_serve() {
    let test = "h08_without_spare_sockets_plain_ones_serve";
    let control = Control::new();
    let af_xdp = json!({ "mode": "copy", "spare_sockets": 1, "frames": 256 });
    let Some(stage) = confined(test, &control, af_xdp) else { return };
    remove(&stage);
    make_again(&stage, QUEUES / 2);
    assert_eq!(spare(&stage), f64::from(QUEUES / 2), "those of queues that are not there");
    answered(&stage, true);
    remove(&stage);
    stage.pair.link(QUEUES);
    wait::until_true("XDP is back, and what sockets there are", BACK, || {
        runs(&stage, "xdp_native") && sockets(&stage) == f64::from(QUEUES / 2)
    });
    let log = stage.spooky.log();
    assert_eq!(log.matches("no sockets are left for 2 receive queues").count(), 1, "{log}");
    assert_eq!(spare(&stage), 0.0);
    // By one half of the queues and by the other.
    let (past, plain) = (answered(&stage, true), answered(&stage, false));
    println!("H08: no sockets left: past the stack after {past:?}, by plain ones after {plain:?}");
}
