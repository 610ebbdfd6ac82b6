//! The way past the network stack: AF_XDP sockets at the receive queues of a veth pair. The counters prove which way packets
//! took, and that no frame of the shared memory is lost.

use std::net::UdpSocket;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spooky_tests::clients::Target;
use spooky_tests::config::Config;
use spooky_tests::metrics::Metrics;
use spooky_tests::netns::{self, EDGE, Namespace, PEER, Pair};
use spooky_tests::origin::body::Content;
use spooky_tests::scene::{LONG, SOON, Turn};
use spooky_tests::{privilege, programs, soak, wait};

use crate::steering::{QUEUES, Stage, stage, stage_alone, stage_on, steered};

/// A stage whose receive queues have AF_XDP sockets.
pub(crate) fn bypassed(test: &str, af_xdp: Value) -> Option<Stage> {
    let stage = stage(test, |config: Config| config.set("/ebpf/af_xdp", af_xdp))?;
    let queues = stage.spooky.metrics().sum("spooky_af_xdp_queues", &[]);
    println!("{test}: {queues} queues");
    Some(stage)
}

/// Waits until nothing is under way, and asserts that every frame is where it belongs: waiting for a packet, or free.
pub(crate) fn assert_no_frame_is_lost(stage: &Stage) {
    let frames =
        |metrics: &Metrics, place: &str| metrics.sum(&format!("spooky_af_xdp_frames{place}"), &[]);
    wait::until_true("all frames are back", SOON, || {
        let now = stage.spooky.metrics();
        frames(&now, "_fill") + frames(&now, "_free") == frames(&now, "")
            && frames(&now, "_fill") == frames(&now, "_free")
            && frames(&now, "") > 0.0
    });
    let now = stage.spooky.metrics();
    let refused = ["invalid", "rx_full", "dropped"]
        .map(|what| now.sum(&format!("spooky_af_xdp_{what}_total"), &[]));
    assert_eq!(refused, [0.0; 3], "invalid, ring full, dropped");
}

/// What went past the stack since `before`: received, sent, and all datagrams received.
fn passed(stage: &Stage, before: &Metrics) -> (f64, f64, f64) {
    let after = stage.spooky.metrics();
    println!("{}", after.changes(before));
    let grew = |name| after.growth(before, name, &[]);
    (
        grew("spooky_af_xdp_frames_received_total"),
        grew("spooky_af_xdp_frames_sent_total"),
        grew("spooky_datagrams_received_total"),
    )
}

/// How often something that is tried is tried.
fn rounds() -> u32 {
    if soak() { 10 } else { 1 }
}

fn hundred_requests(target: &Target) {
    let paths: Vec<&str> = vec!["/bytes/20000"; 100];
    let curl = target.curl("get", json!({ "paths": paths }), LONG);
    let answers = curl["answers"].as_array().cloned().unwrap_or_default();
    assert_eq!(answers.len(), 100, "{curl:#}");
    for answer in &answers {
        assert_eq!((&answer["status"], &answer["length"]), (&json!(200), &json!(20_000)));
    }
}

#[test]
fn a_hundred_requests_of_either_family_go_past_the_stack() {
    let test = "a_hundred_requests_of_either_family_go_past_the_stack";
    let Some(stage) = bypassed(test, json!({ "mode": "copy", "frames": 1024 })) else { return };
    for target in [&stage.v4, &stage.v6] {
        let before = stage.spooky.metrics();
        hundred_requests(target);
        let (received, sent, datagrams) = passed(&stage, &before);
        assert!(received > 100.0 && sent > 1_500.0, "{received} received, {sent} sent");
        assert_eq!(received, datagrams, "one client keeps to its queue");
    }
    assert_no_frame_is_lost(&stage);
}

/// Each packet comes when the worker has nothing else to do; none may wait for its heartbeat, which comes every 100 ms.
#[test]
fn a_packet_that_comes_alone_wakes_the_worker() {
    let test = "a_packet_that_comes_alone_wakes_the_worker";
    let copy = json!({ "mode": "copy" });
    let Some(stage) = stage_alone(test, |config| config.set("/ebpf/af_xdp", copy)) else { return };
    let before = stage.spooky.metrics();
    // A version nobody speaks (RFC 8999 section 6): answered at once, and nothing else comes of it.
    let mut question = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8];
    question.extend([7; 8]);
    question.push(0);
    question.resize(1200, 0);
    let server = stage.v4.address;
    let mut times = stage.pair.clients.run(|| {
        let socket = UdpSocket::bind((netns::client_v4(0), 0)).expect("the address is set");
        socket.set_read_timeout(Some(SOON)).expect("a timeout can be set");
        let mut ask = |number| {
            question[6] = number;
            let (begun, mut answer) = (Instant::now(), [0; 1500]);
            socket.send_to(&question, server).expect("there is a route");
            socket.recv_from(&mut answer).expect("an answer comes");
            // Our destination ID is the answer's source ID, behind its empty destination ID.
            assert_eq!(answer[7], number, "the answer to another question");
            begun.elapsed()
        };
        (0..31).map(&mut ask).collect::<Vec<Duration>>()
    });
    let (received, sent, _) = passed(&stage, &before);
    assert_eq!((received, sent), (31.0, 31.0));
    times.sort_unstable();
    println!("{test}: {:?} to {:?}, median {:?}", times[0], times[30], times[15]);
    assert!(times[15] < Duration::from_millis(50), "{times:?}");
}

/// Requests, one after the other on new connections, until one is answered that went past the stack, or by the sockets.
pub(crate) fn answered(stage: &Stage, past_the_stack: bool) -> Duration {
    let begun = Instant::now();
    wait::until_true("a request is answered in the way wanted", SOON, || {
        let before = stage.spooky.metrics();
        let answer = stage.v4.run("connect", json!({ "timeout": 1.0 }), SOON);
        let grew = |name| stage.spooky.metrics().growth(&before, name, &[]);
        answer["connected"] == json!(true)
            && (grew("spooky_af_xdp_frames_received_total") > 0.0) == past_the_stack
    });
    begun.elapsed()
}

#[test]
fn h08_the_link_goes_down_and_up() {
    let test = "h08_the_link_goes_down_and_up";
    let Some(stage) = bypassed(test, json!({ "mode": "copy" })) else { return };
    answered(&stage, true);
    stage.pair.server.ip(&["link", "set", EDGE, "down"]);
    stage.pair.server.ip(&["link", "set", EDGE, "up"]);
    // IPv6 addresses do not outlive this; IPv4 ones do.
    let took = answered(&stage, true);
    println!("H08: link down and up: answered past the stack after {took:?}");
    assert_no_frame_is_lost(&stage);
}

/// `ethtool -L` on one end of the pair.
fn channels(namespace: &Namespace, interface: &str, count: &str) -> Output {
    let mut ethtool = namespace.command("ethtool");
    ethtool.args(["-L", interface, "rx", count, "tx", count]).output().expect("ethtool runs")
}

#[test]
fn h08_queues_come_and_stay() {
    let test = "h08_queues_come_and_stay";
    if !privilege::kernel(test) {
        return;
    }
    let (turn, pair) = (Turn::shared(), Pair::new(QUEUES));
    // With XDP an end has as many receive queues as its peer sends on.
    assert!(channels(&pair.clients, PEER, "2").status.success());
    assert!(channels(&pair.server, EDGE, "2").status.success());
    let stage =
        stage_on(pair, turn, |config| config.set("/ebpf/af_xdp", json!({ "mode": "copy" })));
    let queues = || stage.spooky.metrics().sum("spooky_af_xdp_queues", &[]);
    assert_eq!(queues(), 2.0);
    answered(&stage, true);
    assert!(channels(&stage.pair.server, EDGE, "4").status.success());
    assert!(channels(&stage.pair.clients, PEER, "4").status.success());
    let (past, plain) = (answered(&stage, true), answered(&stage, false));
    println!(
        "H08: 2 queues to 4: answered past the stack after {past:?}, by plain sockets after {plain:?}"
    );
    assert!(channels(&stage.pair.clients, PEER, "2").status.success());
    assert!(channels(&stage.pair.server, EDGE, "2").status.success());
    assert!(channels(&stage.pair.clients, PEER, "1").status.success());
    let output = channels(&stage.pair.server, EDGE, "1");
    let said = String::from_utf8_lossy(&output.stderr);
    println!("H08: 2 queues to 1: refused: {}", said.trim());
    assert!(!output.status.success(), "the kernel keeps queues that have sockets");
    answered(&stage, true);
    assert_no_frame_is_lost(&stage);
}

#[test]
fn h10_a_killed_daemon_leaves_no_redirection() {
    let test = "h10_a_killed_daemon_leaves_no_redirection";
    let Some(mut stage) = bypassed(test, json!({ "mode": "copy" })) else { return };
    answered(&stage, true);
    stage.spooky.process().signal(rustix::process::Signal::KILL);
    stage.spooky.process().wait(SOON);
    let begun = Instant::now();
    wait::until_true("XDP is off the interface", SOON, || {
        let mut ip = stage.pair.server.command("ip");
        let output = ip.args(["-d", "link", "show", EDGE]).output().expect("ip runs");
        !String::from_utf8_lossy(&output.stdout).contains("xdp")
    });
    println!("H10: XDP was off the interface {:?} after the end", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// Initials that open nothing, as fast as they can be sent, into the smallest rings there are.
#[test]
fn h09_rings_that_are_too_small_lose_packets_and_no_frames() {
    let test = "h09_rings_that_are_too_small_lose_packets_and_no_frames";
    let small = json!({ "mode": "copy", "frames": 128 });
    let Some(stage) = stage_alone(test, |config| config.set("/ebpf/af_xdp", small)) else { return };
    let packets: u64 = if soak() { 10_000_000 } else { 100_000 };
    let before = stage.spooky.metrics();
    let mut sent = 0;
    while sent < packets {
        let mut sender = stage.pair.clients.command(programs::flood());
        sender.args(["--interface", PEER, "--mac", &stage.mac_of_edge(), "--kind", "initial"]);
        sender.args(["--to", &stage.v4.address.to_string(), "--from", "198.51.100.0/24"]);
        sender.args(["--seconds", "60", "--threads", "2", "--packets"]);
        let output = sender.arg((packets - sent).to_string()).output().expect("the sender runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).expect("one JSON line");
        sent += said["frames"].as_u64().filter(|frames| *frames > 0).expect("it sent some");
    }
    let grew = |name, labels: &[(&str, &str)]| stage.spooky.metrics().growth(&before, name, labels);
    let came = || {
        let redirected = grew("spooky_xdp_frames_total", &[("verdict", "redirect")]);
        let received = grew("spooky_af_xdp_frames_received_total", &[]);
        (redirected, received, grew("spooky_af_xdp_fill_starved_total", &[]))
    };
    wait::until_true("every redirected frame was received or is counted", SOON, || {
        let (redirected, received, starved) = came();
        received > 0.0 && redirected == received + starved
    });
    let (redirected, received, starved) = came();
    println!(
        "H09: {sent} packets sent, {redirected} redirected, {received} received, {starved} found \
         the fill ring empty"
    );
    assert!(starved > 0.0, "the rings were large enough after all");
    assert_no_frame_is_lost(&stage);
    hundred_requests(&stage.v4);
    assert_no_frame_is_lost(&stage);
}

#[test]
fn h09_a_frame_that_is_too_long_reaches_its_socket_through_the_stack() {
    let test = "h09_a_frame_that_is_too_long_reaches_its_socket_through_the_stack";
    let Some(stage) = bypassed(test, json!({ "mode": "copy" })) else { return };
    answered(&stage, true);
    // With XDP at its other end, no end of a pair may send more than fits into a page.
    stage.pair.server.ip(&["link", "set", EDGE, "mtu", "9000"]);
    stage.pair.clients.ip(&["link", "set", PEER, "mtu", "3000"]);
    println!("H09: MTU 9000: answered past the stack after {:?}", answered(&stage, true));
    let before = stage.spooky.metrics();
    let lengths = [1_200, 1_700, 1_800, 2_900];
    stage.pair.clients.run(|| {
        let socket = std::net::UdpSocket::bind((netns::client_v4(1), 0)).expect("bind");
        for length in lengths {
            socket.send_to(&initial(length), stage.v4.address).expect("sent");
        }
    });
    let by_the_stack = |now: &Metrics| {
        now.growth(&before, "spooky_datagrams_received_total", &[])
            - now.growth(&before, "spooky_af_xdp_frames_received_total", &[])
    };
    let redirected = |now: &Metrics| {
        let labels = [("verdict", "redirect"), ("reason", "new_flow")];
        now.growth(&before, "spooky_xdp_frames_total", &labels)
    };
    wait::until_true("two fit, and two have come by the stack", SOON, || {
        let now = stage.spooky.metrics();
        redirected(&now) >= 2.0 && by_the_stack(&now) >= 2.0
    });
    let _passed = passed(&stage, &before);
    assert_eq!(by_the_stack(&stage.spooky.metrics()), 2.0);
    assert_no_frame_is_lost(&stage);
}

/// The header of an Initial with an ID that its client chose, and nothing behind it that can be opened.
fn initial(length: usize) -> Vec<u8> {
    let mut initial = vec![0xc3, 0, 0, 0, 1, 8, 9, 9, 9, 9, 9, 9, 9, 9, 0, 0];
    initial.resize(length, 0);
    initial
}

/// A new port is often another queue, which another worker owns: what comes by that goes through the stack, to the worker
/// that has the connection, and is answered from there.
#[test]
fn e04_rebindings_move_between_the_ways() {
    let test = "e04_rebindings_move_between_the_ways";
    let Some(stage) = bypassed(test, json!({ "mode": "auto" })) else { return };
    let targets = if soak() { vec![&stage.v4, &stage.v6] } else { vec![&stage.v6] };
    for target in targets {
        let before = stage.spooky.metrics();
        let connections = 4 * rounds();
        let args = json!({
            "path": "/bytes/{length}?seed={seed}", "length": 2_000_000, "connections": connections, "rebinds": 10,
        });
        let result = target.run("rebind", args, LONG);
        let transfers = result["transfers"].as_array().cloned().unwrap_or_default();
        assert_eq!(transfers.len(), connections as usize);
        for transfer in &transfers {
            let seed = transfer["seed"].as_u64().unwrap_or(0);
            assert_eq!(transfer["sha256"], Content::sha256(seed, 2_000_000), "{transfer:#}");
            assert_eq!((&transfer["moved"], &transfer["handshakes"]), (&json!(10), &json!(1)));
        }
        let seen = steered(&stage, &before);
        assert_eq!(
            (seen.handshakes, seen.forwarded, seen.lost),
            (f64::from(connections), 0.0, 0.0),
            "{seen:?}"
        );
        let (received, sent, datagrams) = passed(&stage, &before);
        assert!(received > 100.0 && sent > 100.0, "{received} received, {sent} sent");
        assert!(datagrams - received > 100.0, "{} by the sockets", datagrams - received);
    }
    assert_no_frame_is_lost(&stage);
}

#[test]
fn a_listener_for_both_families_answers_ipv4_past_the_stack() {
    let test = "a_listener_for_both_families_answers_ipv4_past_the_stack";
    let Some(stage) = stage(test, |config: Config| {
        config
            .set("/ebpf/af_xdp", json!({ "mode": "copy", "busy_poll": 50 }))
            .set("/listeners/0/bind", json!("[::]:4433"))
            .set("/listeners/1/bind", json!("[fd77::1]:4434"))
    }) else {
        return;
    };
    let before = stage.spooky.metrics();
    hundred_requests(&stage.v4);
    let (received, _, datagrams) = passed(&stage, &before);
    assert!(received > 100.0 && received == datagrams, "{received} of {datagrams}");
    assert_no_frame_is_lost(&stage);
}

#[test]
fn without_zero_copy_there_are_plain_sockets_and_a_reason() {
    let test = "without_zero_copy_there_are_plain_sockets_and_a_reason";
    let Some(stage) = stage(test, |config: Config| {
        config
            .set("/ebpf/af_xdp", json!({ "mode": "zero_copy" }))
            .set("/ebpf/on_failure", json!("fallback"))
    }) else {
        return;
    };
    let log = stage.spooky.log();
    assert!(log.contains("no AF_XDP: receive queue 0"), "{log}");
    assert!(log.contains("write auto or copy for ebpf.af_xdp.mode"), "{log}");
    answered(&stage, false);
    assert_eq!(stage.spooky.metrics().sum("spooky_af_xdp_queues", &[]), 0.0);
}

#[test]
fn a_worker_that_is_started_again_has_its_queue_again() {
    let test = "a_worker_that_is_started_again_has_its_queue_again";
    let Some(stage) = bypassed(test, json!({ "mode": "copy" })) else { return };
    let queues = || stage.spooky.metrics().sum("spooky_af_xdp_queues", &[]);
    for _round in 0..rounds() {
        let restarts = stage.spooky.metrics().sum("spooky_worker_restarts_total", &[]);
        // Nothing tells the client that the worker has gone but its own patience.
        let last = json!({ "requests": [{ "path": "/fault/worker" }], "answer_timeout": 2.0 });
        let _last = stage.v4.start("requests", last);
        wait::until_true("the worker was started again", SOON, || {
            stage.spooky.metrics().sum("spooky_worker_restarts_total", &[]) > restarts
        });
        wait::until_true("every queue has its socket", SOON, || queues() == f64::from(QUEUES));
        answered(&stage, true);
    }
    assert_no_frame_is_lost(&stage);
}

#[test]
fn a_tagged_frame_is_answered_with_its_tag() {
    let test = "a_tagged_frame_is_answered_with_its_tag";
    let Some(stage) = bypassed(test, json!({ "mode": "copy" })) else { return };
    for (interface, namespace) in [(EDGE, &stage.pair.server), (PEER, &stage.pair.clients)] {
        // Tags are in the frame and not beside it, where XDP sees none.
        let mut ethtool = namespace.command("ethtool");
        let output = ethtool.args(["-K", interface, "txvlan", "off", "rxvlan", "off"]).output();
        assert!(output.expect("ethtool runs").status.success());
    }
    let before = stage.spooky.metrics();
    let mut python = stage.pair.clients.command(programs::python());
    python
        .arg("-B")
        .arg(programs::repository().join("tests/clients/tagged.py"))
        .args([PEER, &stage.mac_of_edge()]);
    let source = netns::client_v4(0).to_string();
    let (server, port) = (stage.v4.address.ip().to_string(), stage.v4.address.port().to_string());
    let output = python.args([&source, &server, &port, "5"]).output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON line");
    let (received, sent, _) = passed(&stage, &before);
    assert_eq!((received, sent), (1.0, 1.0), "{answer}");
    let said = ["tag", "version", "to_us", "checksum"].map(|key| answer[key].clone());
    assert_eq!(said, [json!(5), json!(0), json!(true), json!(0)], "{answer}");
}
