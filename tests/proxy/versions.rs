//! Version Negotiation sent back by the interface itself (`XDP_TX`), over a veth pair: IPv4, IPv6, a VLAN, the cap, and a
//! client that goes on in version 1. The stage is that of `steering`.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spooky_tests::empty::Empty;
use spooky_tests::metrics::Metrics;
use spooky_tests::netns::{EDGE, PEER, client_v4, client_v6};
use spooky_tests::programs;
use spooky_tests::scene::{LONG, SOON, assert_ok};
use spooky_tests::wait;

use crate::steering::{Stage, stage_alone};

/// Answers a second, and at once.
const CAP: u32 = 40;
/// Octets of a datagram that is answered.
const ASKED: usize = 1200;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The clients' side has a program as well: without one a veth does not take what is sent from XDP.
fn answering(test: &str) -> Option<(Stage, Empty)> {
    let flood = json!({ "version_negotiation": CAP });
    let ebpf = json!({ "mode": "xdp", "interface": EDGE, "on_failure": "abort", "flood": flood });
    let stage = stage_alone(test, |config| config.set("/ebpf", ebpf))?;
    let mut empty = Empty::load();
    stage.pair.clients.run(|| empty.attach(PEER));
    Some((stage, empty))
}

/// What went where since `before`: answered by XDP, dropped by XDP as too many, answered by user space, and what reached it.
fn went(stage: &Stage, before: &Metrics) -> [f64; 4] {
    let after = stage.spooky.metrics();
    let xdp = |verdict, reason| {
        let labels = [("verdict", verdict), ("reason", reason)];
        after.growth(before, "spooky_xdp_frames_total", &labels)
    };
    let user = ["spooky_version_negotiations_total", "spooky_datagrams_received_total"]
        .map(|name| after.growth(before, name, &[]));
    [xdp("tx", "version"), xdp("drop", "versions"), user[0], user[1]]
}

/// The kernel's counts come with the next beat.
fn assert_went(stage: &Stage, before: &Metrics, expected: [f64; 4]) {
    let seen = wait::poll(SOON, || (went(stage, before) == expected).then_some(()));
    assert!(seen.is_some(), "{:?} and not {expected:?}", went(stage, before));
}

fn client(stage: &Stage, address: IpAddr, to: SocketAddr) -> UdpSocket {
    let socket = stage.pair.clients.run(|| UdpSocket::bind((address, 0)));
    let socket = socket.expect("the address is there");
    socket.connect(to).expect("there is a route");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    socket
}

/// A datagram of a version, with these IDs.
fn asking(version: u32, dcid: &[u8], scid: &[u8], length: usize) -> Vec<u8> {
    let mut datagram = vec![0xc3];
    datagram.extend(version.to_be_bytes());
    for id in [dcid, scid] {
        datagram.push(id.len() as u8);
        datagram.extend(id);
    }
    datagram.resize(length, 0x77);
    datagram
}

/// By RFC 8999 section 6: no version, the IDs exchanged, and what is offered, a version that nobody has among it.
fn right_answer(dcid: &[u8], scid: &[u8]) -> Vec<u8> {
    let mut answer = vec![0xc0, 0, 0, 0, 0];
    for id in [scid, dcid] {
        answer.push(id.len() as u8);
        answer.extend(id);
    }
    answer.extend([0x1a, 0x2a, 0x3a, 0x4a, 0, 0, 0, 1]);
    answer
}

#[test]
fn versions_nobody_speaks_are_answered_by_the_interface() {
    let test = "versions_nobody_speaks_are_answered_by_the_interface";
    let Some((stage, _empty)) = answering(test) else { return };
    each_is_answered_rightly(&stage);
    a_client_goes_on_in_version_1(&stage);
    a_tagged_question_has_a_tagged_answer(&stage);
    answers_have_a_cap(&stage);
}

fn each_is_answered_rightly(stage: &Stage) {
    let long = [0xd1; 255];
    let mut largest = 0.0_f64;
    for (target, address) in [(&stage.v4, client_v4(1)), (&stage.v6, client_v6(1))] {
        let socket = client(stage, address, target.address);
        let before = stage.spooky.metrics();
        for (dcid, scid) in [(&long[..8], &long[..5]), (&[], &[]), (&long, &long)] {
            for version in [2, 0x6b33_43cf] {
                socket.send(&asking(version, dcid, scid, ASKED)).expect("sent");
                // The socket takes no datagram whose checksums are wrong, nor one from elsewhere.
                let mut answer = [0; 2048];
                let length = socket.recv(&mut answer).expect("an answer");
                assert_eq!(answer[..length], right_answer(dcid, scid), "to {address}");
                largest = largest.max(length as f64 / ASKED as f64);
            }
        }
        assert_went(stage, &before, [6.0, 0.0, 0.0, 0.0]);
        // An octet less, and nobody answers.
        socket.send(&asking(2, &long[..8], &[], ASKED - 1)).expect("sent");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout can be set");
        let silent = socket.recv(&mut [0; 2048]).expect_err("no answer");
        assert_eq!(silent.kind(), ErrorKind::WouldBlock);
        let early = || {
            let after = stage.spooky.metrics();
            after.growth(&before, "spooky_xdp_frames_total", &[("reason", "too_short")]) == 1.0
        };
        wait::until_true("it is counted", SOON, early);
        assert_went(stage, &before, [6.0, 0.0, 0.0, 0.0]);
    }
    println!("answers of at most {largest:.2} of what asks");
    assert!(largest < 0.5, "{largest}");
}

/// Who would rather speak another version.
fn a_client_goes_on_in_version_1(stage: &Stage) {
    let before = stage.spooky.metrics();
    let result = stage.v4.run("versions", json!({}), LONG);
    assert_ok(&result["preferred"]);
    assert_eq!(result["spoken"], 1, "{result:#}");
    let [answered, _, by_user_space, _] = wait::until("they are counted", SOON, || {
        let went = went(stage, &before);
        (went[0] >= 2.0).then_some(went)
    });
    println!("{answered} answers to a client");
    assert_eq!(by_user_space, 0.0);
}

fn a_tagged_question_has_a_tagged_answer(stage: &Stage) {
    for (interface, namespace) in [(EDGE, &stage.pair.server), (PEER, &stage.pair.clients)] {
        // Tags are in the frame and not beside it, where XDP sees none.
        let mut ethtool = namespace.command("ethtool");
        let output = ethtool.args(["-K", interface, "txvlan", "off", "rxvlan", "off"]).output();
        assert!(output.expect("ethtool runs").status.success());
    }
    let before = stage.spooky.metrics();
    let mut python = stage.pair.clients.command(programs::python());
    let (source, to) = (client_v4(0).to_string(), stage.v4.address);
    python.arg("-B").arg(programs::repository().join("tests/clients/tagged.py"));
    python.args([PEER, &stage.mac_of_edge(), &source]);
    python.args([to.ip().to_string(), to.port().to_string(), "5".to_owned()]);
    let output = python.output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON line");
    let said = ["tag", "version", "to_us", "checksum"].map(|key| answer[key].clone());
    assert_eq!(said, [json!(5), json!(0), json!(true), json!(0)], "{answer}");
    assert_went(stage, &before, [1.0, 0.0, 0.0, 0.0]);
}

fn answers_have_a_cap(stage: &Stage) {
    const QUESTIONS: u32 = 400;
    let sockets = [
        client(stage, client_v4(1), stage.v4.address),
        client(stage, client_v6(1), stage.v6.address),
    ];
    let before = stage.spooky.metrics();
    let begun = Instant::now();
    for nth in 0..QUESTIONS {
        let question = asking(2, &nth.to_be_bytes(), &[7; 8], ASKED);
        sockets[nth as usize % 2].send(&question).expect("sent");
    }
    let due = f64::from(CAP) * (1.0 + begun.elapsed().as_secs_f64()) + 1.0;
    let [answered, dropped, ..] = wait::until("all are counted", SOON, || {
        let went = went(stage, &before);
        (went[0] + went[1] >= f64::from(QUESTIONS)).then_some(went)
    });
    let mut came = 0.0;
    for socket in &sockets {
        socket.set_nonblocking(true).expect("a socket can be so");
        while socket.recv(&mut [0; 2048]).is_ok() {
            came += 1.0;
        }
    }
    println!("{answered} of {QUESTIONS} answered, {due:.0} due at most; {dropped} dropped");
    assert!(answered >= f64::from(CAP / 2) && answered <= due, "{answered}, {due} due");
    assert_eq!((answered, answered + dropped), (came, f64::from(QUESTIONS)));
    assert_eq!(went(stage, &before)[2..], [0.0, 0.0], "none reached user space");
}
