//! Traces: real packets through generic XDP on a loopback of the test's own are captured, written, read and judged again;
//! and the golden traces beside this file are judged as they were when they were recorded.

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use spooky_common::cid::Owner;
use spooky_common::counter::Counter;
use spooky_user::controlplane::kernel::{Attach, Kernel, Mode, Running};
use spooky_user::controlplane::trace::Trace;
use spooky_user::controlplane::trace::replay::replay;
use spooky_user::controlplane::trace::session::{Session, Wanted};

use crate::{
    frames::{long, our_cid, short},
    group::{self, Group, KEY, desired},
    netns,
};

const WANTED: Wanted = Wanted { frames: 1000, seconds: 60, every: 1 };

fn on_loopback(test: &str) -> Option<Kernel> {
    netns::enter(test)?;
    let mut settings = group::settings(Mode::Xdp);
    settings.interface = Some("lo".to_owned());
    settings.attach = Attach::Generic;
    let mut kernel = group::kernel(test, &settings)?;
    assert_eq!(kernel.attach_xdp().expect("attach"), Running::XdpGeneric);
    Some(kernel)
}

/// Takes what the kernel captures until there are `count` frames.
fn captured(kernel: &mut Kernel, mut session: Session, count: usize) -> Trace {
    let deadline = Instant::now() + Duration::from_secs(5);
    while session.len() < count {
        session.beat(kernel, Instant::now()).expect("beat");
        assert!(Instant::now() < deadline, "{} of {count} frames came", session.len());
        std::thread::yield_now();
    }
    session.finish(kernel).expect("a trace")
}

/// How many frames are judged otherwise than was recorded, by the host and by the kernel.
fn apart(trace: &Trace) -> usize {
    replay(trace, true, |frame| println!("{frame}")).expect("the kernel runs it")
}

#[test]
fn what_was_captured_is_judged_alike_again() {
    let Some(mut kernel) = on_loopback("capture") else { return };
    let group = Group::loopback(2);
    let to = group.address;
    kernel.join_group(0, &group.owners(3)).expect("join");
    let mut desired = desired(3, &[1, 1], &[to]);
    desired.access.deny = vec!["127.0.0.64/26".parse().expect("a prefix")];
    desired.access.allow = vec!["127.0.0.66/32".parse().expect("a prefix")];
    kernel.apply(&desired).expect("apply");

    let session = Session::begin(&mut kernel, WANTED, Instant::now()).expect("begin");
    let live = our_cid(&KEY, 0, Owner { worker: 1, generation: 3 }, 7);
    let gone = our_cid(&KEY, 0, Owner { worker: 9, generation: 3 }, 8);
    let packets = [
        short(&live),
        short(&gone),
        short(&[0xb3; 20]),
        long(0xc0, 1, &[5; 8]),
        long(0xe0, 1, &live),
        long(0xc0, 0x1a2a_3a4a, &[6; 18]),
        vec![0x41, 2, 3],
    ];
    for source in ["127.0.0.1:0", "127.0.0.65:0", "127.0.0.66:0"] {
        let client = UdpSocket::bind(source).expect("bind");
        for packet in &packets {
            client.send_to(packet, to).expect("send");
        }
    }
    // To nobody's port: not in the trace.
    UdpSocket::bind("127.0.0.1:0")
        .expect("bind")
        .send_to(&packets[0], "127.0.0.1:9")
        .expect("send");
    let trace = captured(&mut kernel, session, 21);

    assert_eq!((trace.frames.len(), trace.lost), (21, 0));
    let seen = |reason: &str| trace.frames.iter().filter(|it| it.reason == reason).count();
    let seen = ["owner", "owner_gone", "unknown_short", "new_flow", "not_quic", "denied"].map(seen);
    assert_eq!(seen, [4, 2, 2, 4, 2, 7]);
    let mut file = Vec::new();
    trace.write(&mut file).expect("memory takes it");
    assert_eq!(Trace::read(&file[..]).expect("what was written is read"), trace);
    assert_eq!(apart(&trace), 0);

    // The host's key is not in it, and no ID that the host has sealed.
    let host =
        trace.frames.iter().any(|it| it.octets.windows(20).any(|id| id == live || id == gone));
    assert!(!host, "an ID of the host's is in the trace");
    let keys: Vec<_> =
        trace.state.keys.iter().map(|it| (it.config_id, it.key.key() == KEY)).collect();
    assert_eq!(keys, [(0, false)]);

    // Afterwards nothing is captured any more.
    UdpSocket::bind("127.0.0.1:0").expect("bind").send_to(&packets[0], to).expect("send");
    kernel.drain_captures(|capture| panic!("captured after the end: {capture:?}"));
}

#[test]
fn another_state_is_noticed() {
    let Some(mut kernel) = on_loopback("capture, another state") else { return };
    let group = Group::loopback(1);
    let to = group.address;
    kernel.join_group(0, &group.owners(0)).expect("join");
    kernel.apply(&desired(0, &[1], &[to])).expect("apply");
    let session = Session::begin(&mut kernel, WANTED, Instant::now()).expect("begin");
    let client = UdpSocket::bind("127.0.0.2:0").expect("bind");
    client
        .send_to(&short(&our_cid(&KEY, 0, Owner { worker: 0, generation: 0 }, 1)), to)
        .expect("send");
    client.send_to(&long(0xc0, 1, &[1; 8]), to).expect("send");
    let mut trace = captured(&mut kernel, session, 2);
    assert_eq!(apart(&trace), 0);
    let whole = trace.clone();
    trace.state.denied = vec!["127.0.0.2".parse().expect("an address")];
    assert_eq!(apart(&trace), 2);
    trace = whole.clone();
    trace.state.owners.clear();
    assert_eq!(apart(&trace), 1);
    trace = whole;
    trace.state.ports.clear();
    assert_eq!(apart(&trace), 2);
}

#[test]
fn a_full_ring_is_told_and_changes_no_verdict() {
    let Some(mut kernel) = on_loopback("capture, full ring") else { return };
    let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let to = server.local_addr().expect("an address");
    kernel.apply(&desired(0, &[1], &[to])).expect("apply");
    let before = kernel.counters().expect("counters");
    let session = Session::begin(&mut kernel, WANTED, Instant::now()).expect("begin");
    let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
    for _ in 0..3000 {
        client.send_to(&short(&[0xb3; 20]), to).expect("send");
    }
    let trace = captured(&mut kernel, session, 1000);
    assert_eq!(trace.frames.len(), 1000);
    assert!(trace.lost > 0, "{}", trace.lost);
    let gained = group::gained(&kernel, &before);
    assert!(gained.contains(&(Counter::XdpUnknownShort, 3000)), "{gained:?}");
    assert!(gained.contains(&(Counter::CapturesLost, trace.lost)), "{gained:?}");
}

/// Row H01: what was recorded once is judged so for ever, or somebody has changed his mind and says so.
#[test]
fn h01_golden_traces_are_judged_as_they_were_recorded() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel/golden");
    let files = std::fs::read_dir(&golden).expect("the folder is there");
    let mut files: Vec<_> = files.map(|it| it.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", golden.display());
    let kernel = crate::rig::load("golden traces").is_some();
    for file in files {
        let text = std::fs::read(&file).expect("the trace can be read");
        let trace =
            Trace::read(&text[..]).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut said = String::new();
        let apart = replay(&trace, kernel, |frame| {
            if !frame.agrees() {
                said.push_str(&format!("{frame}\n"));
            }
        });
        assert_eq!(apart.expect("the kernel runs it"), 0, "{}:\n{said}", file.display());
        println!("H01: {}: {} frames", file.display(), trace.frames.len());
    }
}
