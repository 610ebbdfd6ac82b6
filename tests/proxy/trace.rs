//! `spooky trace` and `spooky ctl steering`, as an operator uses them, with real clients over a veth pair. The stage is that
//! of `steering`.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use spooky_tests::control::{Asked, Control};
use spooky_tests::netns::{EDGE, PEER, client_v6};
use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok};
use spooky_tests::{programs, wait};

use crate::steering::{Stage, stage, stage_alone};

/// What a replay says, and its exit code.
fn replay(file: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(programs::spooky());
    let output = command.args(["trace", "replay"]).arg(file).args(arguments).output();
    let output = output.expect("spooky runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

/// `spooky trace capture`, not yet run.
fn capture(control: &Control, file: &Path) -> Command {
    control.command(&["trace", "capture", "--seconds", "120", "--out", &file.display().to_string()])
}

/// Requests over IPv4, clients that move over IPv6, and one from [`client_v6`] 3; whether that was let in.
fn traffic(stage: &Stage) -> bool {
    let stranger = stage.v6.from(client_v6(3)).run("connect", json!({ "timeout": 1.0 }), SOON);
    for number in 1..4 {
        assert_ok(&stage.v4.fetch(&format!("/bytes/{number}000")));
    }
    let args = json!({
        "path": "/bytes/{length}?seed={seed}", "length": 40_000, "connections": 3, "rebinds": 2,
    });
    stage.v6.from(client_v6(1)).run("rebind", args, LONG);
    stranger["connected"] == true
}

/// Begins to capture one frame in `every`, lets `work` happen, ends the capture, and says what it said.
fn captured(control: &Control, file: &Path, every: u32, work: impl FnOnce()) -> Asked {
    let mut command = capture(control, file);
    command.args(["--every", &every.to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let capturing = command.spawn().expect("spooky runs");
    let begun = || control.request("GET", "/trace", b"").0 == 200;
    wait::until_true("the capture has begun", SOON, begun);
    work();
    let pid = Pid::from_raw(capturing.id().cast_signed()).expect("a process");
    kill_process(pid, Signal::INT).expect("it runs");
    let asked = Asked::from(capturing.wait_with_output().expect("it ends"));
    assert_eq!(asked.code, 0, "{asked:?}");
    assert!(asked.stdout.contains(" frames, 0 lost"), "{asked:?}");
    asked
}

/// With `SPOOKY_BLESS` the trace is a golden one from now on.
fn bless(file: &Path, name: &str) {
    if std::env::var_os("SPOOKY_BLESS").is_some() {
        let golden = programs::repository().join("tests/kernel/golden").join(name);
        std::fs::copy(file, golden).expect("the golden trace is written");
    }
}

#[test]
fn a_trace_of_real_clients_is_judged_alike_again() {
    let control = Control::new();
    let test = "a_trace_of_real_clients_is_judged_alike_again";
    let denied = format!("{}/128", client_v6(3));
    let Some(stage) =
        stage(test, |config| control.configure(config.set("/access", json!({ "deny": [denied] }))))
    else {
        return;
    };
    let file = control.file("edge.trace");
    captured(&control, &file, 1, || assert!(!traffic(&stage)));

    let (code, said) = replay(&file, &[]);
    assert_eq!(code, 0, "{said}");
    for needle in ["Initial", "short", "pass owner", "pass new_flow", "drop denied", ": 0 apart"] {
        assert!(said.contains(needle), "{needle}: {said}");
    }
    assert_eq!(replay(&file, &["--host", "--quiet"]).0, 0);
    bless(&file, "clients.trace");

    // One verdict changed: who reads the file is told which frame, and what its judges say.
    let text = std::fs::read_to_string(&file).expect("the trace is text");
    let spoiled = text.replacen("\"reason\":\"owner\"", "\"reason\":\"not_quic\"", 1);
    assert_ne!(spoiled, text);
    std::fs::write(&file, spoiled).expect("a file of the test's own");
    let (code, said) = replay(&file, &["--quiet"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("APART: the host says pass owner, the kernel pass owner"), "{said}");
    assert!(said.contains(": 1 apart"), "{said}");

    // A file that is there is not overwritten; one that is no trace is named with its line.
    let asked = Asked::from(capture(&control, &file).output().expect("spooky runs"));
    assert_eq!(asked.code, 2, "{asked:?}");
    std::fs::write(&file, "{\"spooky_trace\":1}\n").expect("a file of the test's own");
    let (code, said) = replay(&file, &[]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("line 1: missing field"), "{said}");
}

/// A blocked network, junk, more connections than a prefix may open, and versions nobody speaks, of which some are answered:
/// one frame in sixteen of each kind is recorded, and judged as it was, although what the buckets held is not in a trace.
#[test]
fn a_trace_of_a_flood_is_judged_alike_again() {
    // One in so many of each queue, CPU and verdict: of 128 with one verdict, over four queues and two CPUs, one at least.
    const EVERY: u32 = 16;
    let control = Control::new();
    let flood =
        json!({ "version_negotiation": 160, "new_connections": { "rate": 1, "burst": 64 } });
    let ebpf = json!({ "mode": "xdp", "interface": EDGE, "on_failure": "abort", "flood": flood });
    let deny = json!({ "deny": ["198.51.100.0/24", "2001:db8:bad::/48"] });
    let test = "a_trace_of_a_flood_is_judged_alike_again";
    let Some(stage) = stage_alone(test, |config| {
        control.configure(config.set("/access", deny).set("/ebpf", ebpf))
    }) else {
        return;
    };
    let mac = stage.mac_of_edge();
    let floods = [
        ("short", "198.51.100.0/24", &stage.v4, 128),
        ("initial", "2001:db8:bad::/48", &stage.v6, 128),
        ("short", "203.0.113.0/24", &stage.v4, 128),
        ("tiny", "2001:db8:1::/64", &stage.v6, 128),
        ("initial", "203.0.113.0/24", &stage.v4, 192),
        ("initial", "2001:db8:2::/48", &stage.v6, 192),
        // Of a prefix of its own each.
        ("version", "100.64.0.0/10", &stage.v4, 384),
        ("version", "2001:db9::/32", &stage.v6, 384),
    ];
    let file = control.file("flood.trace");
    let before = stage.spooky.metrics();
    captured(&control, &file, EVERY, || {
        for (kind, from, to, frames) in &floods {
            let mut sender = stage.pair.clients.command(programs::flood());
            sender.args(["--interface", PEER, "--mac", &mac, "--kind", kind, "--from", from]);
            sender.args(["--to", &to.address.to_string(), "--packets", &frames.to_string()]);
            let output = sender.output().expect("the sender runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let all = || stage.spooky.metrics().growth(&before, "spooky_xdp_frames_total", &[]);
        let sent = floods.iter().map(|(.., frames)| f64::from(*frames)).sum::<f64>();
        wait::until_true("all are counted", SOON, || all() >= sent);
    });
    let (code, said) = replay(&file, &[]);
    assert_eq!(code, 0, "{said}");
    for needle in [
        "drop denied",
        "drop too_short",
        "drop pace",
        "drop versions",
        "tx version",
        "pass new_flow",
        "pass unknown_short",
        ": 0 apart",
    ] {
        assert!(said.contains(needle), "{needle}: {said}");
    }
    assert_eq!(replay(&file, &["--host", "--quiet"]).0, 0);
    bless(&file, "flood.trace");

    // Without a pace nothing can have been dropped for one, and nothing is answered that is not to be.
    let text = std::fs::read_to_string(&file).expect("the trace is text");
    for (setting, reason) in [("paced", "\"reason\":\"pace\""), ("answers", "\"verdict\":\"tx\"")] {
        let set = format!("\"{setting}\":true");
        let spoiled = text.replacen(&set, &set.replace("true", "false"), 1);
        assert_ne!(spoiled, text, "{setting}");
        std::fs::write(&file, &spoiled).expect("a file of the test's own");
        let (code, said) = replay(&file, &["--quiet"]);
        let apart = said.matches("APART").count();
        let least = text.matches(reason).count();
        assert!(code == 1 && apart >= least && least > 0, "{setting}: {apart}, {least}: {said}");
    }
}

#[test]
fn ctl_steering_shows_where_packets_went() {
    let control = Control::new();
    let test = "ctl_steering_shows_where_packets_went";
    let Some(stage) = stage(test, |config| control.configure(config)) else { return };
    assert!(traffic(&stage));
    let steering = control.json(&["steering"]);
    assert_eq!(steering["running"], "xdp_native", "{steering:#}");
    let sum = |pointer: &str, list: &str| -> f64 {
        let each = |it: &Value| it.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
        steering[list].as_array().into_iter().flatten().map(each).sum()
    };
    assert!(sum("/frames/pass/owner", "queues") > 30.0, "{steering:#}");
    assert_eq!(steering["workers"].as_array().map(Vec::len), Some(4), "{steering:#}");
    assert!(sum("/right", "workers") > 30.0, "{steering:#}");
    assert_eq!(sum("/forwarded", "workers"), 0.0, "{steering:#}");
    assert!(steering["sockets"]["owner"]["owner"].as_f64() > Some(10.0), "{steering:#}");
    let shown = control.ctl(&["steering"]);
    for needle in
        ["kernel programs: xdp_native", "  pass  owner", "sockets  owner", "worker  connections"]
    {
        assert!(shown.stdout.contains(needle), "{needle}: {}", shown.stdout);
    }
}

#[test]
fn a_capture_without_xdp_is_refused_with_the_remedy() {
    let control = Control::new();
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        control.configure(config.forward(backends))
    });
    assert_ok(&scene.target.fetch("/"));
    let file = control.file("none.trace");
    let refused = Asked::from(capture(&control, &file).output().expect("spooky runs"));
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("ebpf.mode"), "{refused:?}");
    assert!(!file.exists(), "an empty trace is left behind");
    let (status, answer) =
        control.request("POST", "/trace/begin", br#"{"frames":0,"seconds":5,"every":1}"#);
    assert_eq!((status, &answer["reason"]), (400, &json!("bounds")), "{answer}");
    assert_eq!(control.request("POST", "/trace/end", b"").0, 404);
}
