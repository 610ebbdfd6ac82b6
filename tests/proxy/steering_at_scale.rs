//! Steering with many connections, some of which move while the placement changes, and what a killed daemon leaves in the
//! kernel. The stage is that of `steering`.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use spooky_tests::config::Config;
use spooky_tests::netns::{EDGE, PEER};
use spooky_tests::origin::body::Content;
use spooky_tests::scene::{LONG, SOON};
use spooky_tests::{soak, wait};

use crate::steering::{Stage, stage, stage_alone, steered};

/// Octets of a download during which its client moves.
const LENGTH: u64 = 200_000;

/// Row H04: with receive offload and without, connections that stand and connections that move keep their worker while
/// new weights come, and nothing is lost on the way.
#[test]
fn h04_thousands_of_connections_keep_their_workers() {
    let test = "h04_thousands_of_connections_keep_their_workers";
    // All come from two addresses, and stand longer than a client otherwise would.
    let quic = json!({ "max_connections_per_source": 10_000, "idle_timeout": "120s" });
    let many = |config: Config| {
        config.set("/listeners/0/quic", quic.clone()).set("/listeners/1/quic", quic)
    };
    let Some(mut stage) = stage(test, many) else { return };
    let (standing, moving) = if soak() { (1_500, 500) } else { (120, 30) };
    for offload in ["on", "off"] {
        receive_offload(&stage, offload);
        let before = stage.spooky.metrics();
        let mut held = stage.v4.start("hold", json!({ "connections": standing }));
        held.event("open", LONG);
        let args = json!({
            "path": "/bytes/{length}?seed={seed}", "length": LENGTH, "connections": moving, "rebinds": 1,
        });
        let movers = stage.v6.start("rebind", args);
        for weights in [[0, 1, 0, 1], [1, 0, 1, 0], [1, 1, 1, 1]] {
            stage.spooky.reload("taken", |config| config["workers"]["weights"] = json!(weights));
        }
        let result = movers.result(LONG);
        let transfers = result["transfers"].as_array().cloned().unwrap_or_default();
        assert_eq!(transfers.len(), moving);
        for transfer in &transfers {
            let seed = transfer["seed"].as_u64().unwrap_or(0);
            assert_eq!(transfer["sha256"], Content::sha256(seed, LENGTH), "{transfer:#}");
            assert_eq!((&transfer["moved"], &transfer["handshakes"]), (&json!(1), &json!(1)));
        }
        held.stop();
        assert_eq!(held.result(LONG)["answered"], standing, "offload {offload}");
        let seen = steered(&stage, &before);
        println!("H04: receive offload {offload}, {standing} stand, {moving} move: {seen:?}");
        assert_eq!(seen.lost, 0.0, "{seen:?}");
        let all = seen.right + seen.forwarded;
        assert!(all > 1000.0 && seen.right >= 0.9999 * all, "{seen:?}");
    }
}

fn receive_offload(stage: &Stage, state: &str) {
    for (namespace, interface) in [(&stage.pair.server, EDGE), (&stage.pair.clients, PEER)] {
        let mut ethtool = namespace.command("ethtool");
        let status = ethtool.args(["-K", interface, "gro", state]).status().expect("ethtool runs");
        assert!(status.success(), "gro {state} on {interface}");
    }
}

/// Row H10: the programs go with the process, however it ends.
#[test]
fn h10_a_killed_daemon_leaves_no_program_behind() {
    let Some(mut stage) =
        stage_alone("h10_a_killed_daemon_leaves_no_program_behind", |config| config)
    else {
        return;
    };
    let link = |stage: &Stage| {
        let mut ip: Command = stage.pair.server.command("ip");
        let output = ip.args(["-details", "link", "show", EDGE]).output().expect("ip runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(link(&stage).contains("prog/xdp"), "{}", link(&stage));
    stage.spooky.process().signal(Signal::KILL);
    stage.spooky.process().wait(SOON);
    wait::until_true("the program is gone", Duration::from_secs(1), || {
        !link(&stage).contains("prog/xdp")
    });
}
