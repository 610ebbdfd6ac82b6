//! Backends that break HTTP/2: rows D01 to D05. What they do costs a 502 or a reset for the request that asked them, bounded
//! memory, and nothing to the requests of other upstreams.

use std::io;

use serde_json::json;
use spooky_tests::hostile::{
    Conduct, END_HEADERS, END_STREAM, Hostile, Peer, STATUS_200, field, frame, indexed_field,
};
use spooky_tests::oracle::{self, Bounds};
use spooky_tests::scene::{Scene, Turn, assert_ok};
use spooky_tests::soak;

/// A response head that no client may see (RFC 9113 §8.1.1).
const HEADS: [(&str, Conduct); 11] = [
    ("d01-cr-lf", |peer, id| head(peer, id, &[field(b"x-split", b"a\r\nx-injected: 1")])),
    ("d01-nul", |peer, id| head(peer, id, &[field(b"x-nul", b"a\0b")])),
    ("d01-upper-case", |peer, id| head(peer, id, &[field(b"X-Upper", b"1")])),
    ("d01-empty-name", |peer, id| head(peer, id, &[field(b"", b"1")])),
    ("d01-connection", |peer, id| head(peer, id, &[field(b"connection", b"close")])),
    ("d01-transfer-encoding", |peer, id| {
        head(peer, id, &[field(b"transfer-encoding", b"chunked")])
    }),
    ("d01-two-statuses", |peer, id| head(peer, id, &[STATUS_200.to_vec()])),
    ("d01-no-status", |peer, id| peer.head(id, &field(b"x-only", b"1"), true)),
    ("d01-status-99", |peer, id| peer.head(id, &field(b":status", b"99"), true)),
    ("d01-status-1000", |peer, id| peer.head(id, &field(b":status", b"1000"), true)),
    ("d01-status-word", |peer, id| peer.head(id, &field(b":status", b"ok"), true)),
];

fn head(peer: &mut Peer, stream_id: u32, fields: &[Vec<u8>]) -> io::Result<()> {
    peer.head(stream_id, &[STATUS_200, &fields.concat()].concat(), true)
}

/// Floods and frames that end the connection to the backend, or at least its stream.
const CONDUCT: [(&str, Conduct); 10] = [
    ("d02-window-update-0", |peer, id| {
        peer.head(id, STATUS_200, false)?;
        peer.send(frame::WINDOW_UPDATE, 0, id, &[0; 4])
    }),
    ("d02-window-overflow", |peer, id| {
        peer.head(id, STATUS_200, false)?;
        peer.send(frame::WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())
    }),
    ("d02-data-on-idle-stream", |peer, _| peer.send(frame::DATA, END_STREAM, 9999, b"x")),
    ("d02-push", |peer, id| {
        let promised = [&2_u32.to_be_bytes()[..], STATUS_200].concat();
        peer.send(frame::PUSH_PROMISE, END_HEADERS, id, &promised)
    }),
    ("d02-resets-of-idle-streams", |peer, _| {
        (0..5000).try_for_each(|n| peer.send(frame::RST_STREAM, 0, 10_001 + 2 * n, &[0; 4]))
    }),
    ("d03-continuations", |peer, id| {
        peer.send(frame::HEADERS, 0, id, STATUS_200)?;
        (0..20_000).try_for_each(|_| {
            peer.send(frame::CONTINUATION, 0, id, &field(b"x-more", &[b'a'; 900]))
        })
    }),
    ("d04-hpack-bomb", |peer, id| {
        // One entry of 4,000 octets, and 16,000 references of one octet: 64 MB of fields.
        let mut block = STATUS_200.to_vec();
        block.extend(indexed_field(b"x-large", &[b'a'; 3900]));
        block.resize(block.len() + 12_000, 0x80 | 62);
        peer.head(id, &block, true)
    }),
    ("d05-pings", |peer, id| {
        peer.head(id, STATUS_200, false)?;
        (0..flood()).try_for_each(|_| peer.send(frame::PING, 0, 0, &[7; 8]))?;
        peer.close()
    }),
    ("d05-settings", |peer, id| {
        peer.head(id, STATUS_200, false)?;
        (0..flood()).try_for_each(|_| peer.send(frame::SETTINGS, 0, 0, &[]))?;
        peer.close()
    }),
    ("d05-empty-data", |peer, id| {
        peer.head(id, STATUS_200, false)?;
        (0..flood()).try_for_each(|_| peer.send(frame::DATA, 0, id, &[]))?;
        peer.close()
    }),
];

/// Frames of a flood.
fn flood() -> u32 {
    if soak() { 1_000_000 } else { 100_000 }
}

/// A route `/NAME` to each hostile backend, everything else to an honest one.
fn scene(cases: &[(&str, Conduct)]) -> (Scene, Vec<Hostile>) {
    let hostile: Vec<Hostile> =
        cases.iter().map(|(_, misbehave)| Hostile::start(*misbehave)).collect();
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        let mut config = config.forward(backends).set("/workers/count", json!(1));
        for ((name, _), backend) in cases.iter().zip(&hostile) {
            let keys = json!({ "timeouts": { "response_header": "5s" } });
            config = backend.behind(config, name, &keys);
        }
        config
    });
    (scene, hostile)
}

#[test]
fn d01_a_response_head_that_breaks_the_rules_is_502() {
    let (scene, hostile) = scene(&HEADS);
    for ((name, _), backend) in HEADS.iter().zip(&hostile) {
        let answer = scene.target.fetch(&format!("/{name}"));
        assert_eq!(
            (&answer["status"], &answer["end"]),
            (&json!(502), &json!("clean")),
            "{name}: {answer:#}"
        );
        assert_eq!(answer["headers"].to_string().matches("injected").count(), 0, "{name}");
        assert!(backend.requests() >= 1, "{name}");
    }
    assert_ok(&scene.target.fetch("/"));
}

/// The `h2` package reads request pseudo-header fields of a response and forgets them (docs/codex/known-limits.md): they must at
/// least go no further.
#[test]
fn d01_a_request_field_in_a_response_goes_no_further() {
    let (scene, _hostile) =
        scene(&[("d01-request-field", |peer, id| head(peer, id, &[field(b":path", b"/other")]))]);
    let answer = scene.target.fetch("/d01-request-field");
    assert_eq!((&answer["status"], &answer["headers"]), (&json!(200), &json!([])), "{answer:#}");
}

#[test]
fn d02_to_d05_a_backend_that_floods_costs_its_own_requests_alone() {
    let (scene, hostile) = scene(&CONDUCT);
    assert_ok(&scene.target.fetch("/bytes/1000000"));
    // The attackers are threads of this process, whose CPU is not the test's alone.
    let bounds = Bounds { memory: 8 << 20, cpu: false };
    let wrong = oracle::within(&scene, "D02 to D05", bounds, || conduct(&scene, &hostile));
    assert!(wrong.is_empty(), "{wrong:#?}");
    let metrics = scene.spooky.metrics();
    for upstream in ["d02-resets-of-idle-streams", "d04-hpack-bomb"] {
        let labels = [("upstream", upstream), ("kind", "connection_lost")];
        // Tried twice, because nothing was answered.
        assert_eq!(metrics.sum("spooky_endpoint_failures_total", &labels), 2.0, "{upstream}");
    }
}

/// Meets each of [`CONDUCT`]; what was not as it should be.
fn conduct(scene: &Scene, hostile: &[Hostile]) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((name, _), backend) in CONDUCT.iter().zip(hostile) {
        let before = scene.spooky.resident_bytes();
        let answer = scene.target.fetch(&format!("/{name}"));
        let grown = scene.spooky.resident_bytes().saturating_sub(before) >> 10;
        println!(
            "{name}: {} {}, {grown} KiB more, {} connections",
            answer["status"],
            answer["end"],
            backend.connections()
        );
        let failed = answer["status"].as_u64().is_some_and(|status| status >= 500)
            || answer["end"] == "reset";
        if !failed {
            wrong.push(format!("{name}: {answer}"));
        }
        assert!(backend.connections() <= 3, "{name}: {}", backend.connections());
    }
    wrong
}
