//! Floods of packets that nobody wants, over a veth pair, beside an honest client: what the kernel ends costs it nothing,
//! what reaches the sockets does. The stage is that of `steering`.

use std::time::Duration;

use serde_json::{Value, json};
use spooky_tests::config::Config;
use spooky_tests::netns::{PEER, client_v4};
use spooky_tests::oracle;
use spooky_tests::scene::SOON;
use spooky_tests::{programs, soak};

use crate::steering::{Stage, stage_alone};

/// Where the flood says it comes from.
pub(crate) const FLOOD: &str = "198.51.100.0/24";
/// The honest client's address.
const HONEST: u8 = 1;

/// What one flood came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Frames sent, and how many a second.
    pub(crate) frames: f64,
    pub(crate) rate: f64,
    /// What XDP dropped, by its own count.
    pub(crate) dropped: f64,
    /// Datagrams that reached the workers.
    pub(crate) received: f64,
    /// The honest client's, in seconds.
    pub(crate) quiet: f64,
    pub(crate) during: f64,
    pub(crate) failures: u64,
}

impl Outcome {
    pub(crate) fn said(&self) -> String {
        format!(
            "{:.0} frames at {:.0}/s, {:.0} dropped by XDP, {:.0} datagrams reached the workers; honest p99 {:.1} ms \
             (quiet {:.1}), {} failures",
            self.frames,
            self.rate,
            self.dropped,
            self.received,
            self.during * 1e3,
            self.quiet * 1e3,
            self.failures
        )
    }
}

/// Floods while the witness asks. `rate` is frames a second, 0 for as many as can be.
pub(crate) fn flood(stage: &Stage, kind: &str, rate: u64, seconds: u64) -> Outcome {
    let mut witness = oracle::witness(&stage.v4.from(client_v4(HONEST)));
    witness.tell("begin");
    witness.event("quiet", Duration::from_secs(60));
    let before = stage.spooky.metrics();
    witness.tell("attack");
    let mut sender = stage.pair.clients.command(programs::flood());
    sender.args(["--interface", PEER, "--mac", &stage.mac_of_edge(), "--kind", kind]);
    sender.args(["--to", &stage.v4.address.to_string(), "--from", FLOOD]);
    sender.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
    sender.args(["--packets", "20000000", "--threads", "2"]);
    let output = sender.output().expect("the sender runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sent: Value = serde_json::from_slice(&output.stdout).expect("one JSON line");
    witness.stop();
    let verdict = witness.result(SOON);
    let after = stage.spooky.metrics();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    Outcome {
        frames: number(&sent["frames"]),
        rate: number(&sent["frames_per_second"]),
        dropped: after.growth(&before, "spooky_xdp_frames_total", &[("verdict", "drop")]),
        received: after.growth(&before, "spooky_datagrams_received_total", &[]),
        quiet: number(&verdict["quiet"]["p99"]),
        during: number(&verdict["attack"]["p99"]),
        failures: ["quiet", "attack"]
            .map(|it| verdict[it]["failures"].as_u64().unwrap_or(1))
            .iter()
            .sum(),
    }
}

/// The flood's addresses are on the deny list, and answers to them would find their way.
fn flooded(test: &str, ebpf: Option<Value>) -> Option<Stage> {
    let stage = stage_alone(test, |config: Config| {
        let config = config.set("/access", json!({ "deny": [FLOOD] }));
        match ebpf {
            Some(ebpf) => config.set("/ebpf", ebpf),
            None => config,
        }
    })?;
    stage.pair.server.ip(&["route", "add", FLOOD, "via", &client_v4(0).to_string()]);
    Some(stage)
}

#[test]
fn a_flood_of_denied_packets_ends_in_the_kernel() {
    let test = "a_flood_of_denied_packets_ends_in_the_kernel";
    let Some(stage) = flooded(test, None) else { return };
    let outcome = flood(&stage, "short", 20_000, 3);
    println!("{}", outcome.said());
    assert_eq!(outcome.failures, 0, "{outcome:?}");
    // What the interface's ring could not hold was dropped before XDP, and counted nowhere here.
    assert!(outcome.dropped >= outcome.frames * 0.5, "{outcome:?}");
    assert!(outcome.received <= outcome.frames * 0.05, "{outcome:?}");
}

/// The most that this machine can send, against the kernel's programs and against plain sockets beside it.
#[test]
fn the_largest_flood_of_denied_packets_hurts_plain_sockets_alone() {
    if !soak() {
        return;
    }
    let test = "the_largest_flood_of_denied_packets_hurts_plain_sockets_alone";
    for (name, ebpf) in [("xdp", None), ("plain sockets", Some(json!({ "mode": "off" })))] {
        let Some(stage) = flooded(test, ebpf) else { return };
        for kind in ["short", "initial"] {
            let outcome = flood(&stage, kind, 0, 10);
            println!("{name}, {kind}: {}", outcome.said());
            if name == "xdp" {
                assert_eq!(outcome.failures, 0, "{outcome:?}");
            }
        }
    }
}
