//! Backends that keep to the letter of HTTP/2 and give little, lie about a body, or answer early: rows D06, D07 and D09.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};
use spooky_tests::hostile::{
    Conduct, END_STREAM, Hostile, Peer, STATUS_200, field, frame, setting, uses_dynamic_table,
};
use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok, field as first};
use spooky_tests::soak;

/// NO_ERROR, INTERNAL_ERROR, CANCEL, ENHANCE_YOUR_CALM (RFC 9113 §7).
const NO_ERROR: u32 = 0x0;
const INTERNAL_ERROR: u32 = 0x2;
const CANCEL: u32 = 0x8;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Requests of the rows about limits.
fn many() -> u64 {
    if soak() { 5000 } else { 1000 }
}

/// One worker, one connection to each backend, a wait of a second at most.
fn scene(backends: &[(&str, &Hostile)]) -> Scene {
    let keys = json!({
        "pool": { "max_connections": 1, "pending_timeout": "1s" },
        "timeouts": { "response_header": "10s" },
    });
    Scene::with(Turn::shared(), 0, |config, _| {
        let config = config.set("/workers/count", json!(1));
        backends.iter().fold(config, |config, (name, backend)| backend.behind(config, name, &keys))
    })
}

/// How `count` requests fare, sixteen at once.
#[track_caller]
fn all_answered(scene: &Scene, path: &str, count: u64) {
    let args = json!({ "connections": 2, "parallel": 8, "report_every": 50, "path": path });
    let mut load = scene.target.start("load", args);
    load.event_where("progress", LONG, |event| event["done"].as_u64() >= Some(count));
    load.stop();
    let result = load.result(SOON);
    println!("D06 {path}: {} in {}, p99 {} s", result["done"], result["outcome"], result["p99"]);
    let outcome = result["outcome"].as_object().map(|all| all.keys().cloned().collect());
    assert_eq!(outcome, Some(vec!["200 clean".to_owned()]), "{path}: {result:#}");
}

#[test]
fn d06_one_stream_is_enough_and_none_is_503() {
    let one = Hostile::with(&[(setting::MAX_CONCURRENT_STREAMS, 1)], |peer, id| {
        peer.head(id, STATUS_200, true)
    });
    let none = Hostile::with(&[(setting::MAX_CONCURRENT_STREAMS, 0)], |peer, id| {
        peer.head(id, STATUS_200, true)
    });
    let silent = Hostile::with(&[(setting::MAX_CONCURRENT_STREAMS, 1)], |_, _| Ok(()));
    let scene = scene(&[("one", &one), ("none", &none), ("silent", &silent)]);
    all_answered(&scene, "/one", many());
    // One connection; another one when a client had gone away in mid-request.
    assert!(one.connections() <= 2, "{}", one.connections());
    // Who finds no place waits for a second and learns of it; the one that has it is not disturbed.
    for (path, refused) in [("/none", 6), ("/silent", 5)] {
        let requests = vec![json!({ "path": path }); 6];
        let args = json!({ "requests": requests, "concurrent": true, "answer_timeout": 5.0 });
        let result = scene.target.run("requests", args, SOON);
        let answers = result["answers"].as_array().cloned().unwrap_or_default();
        let full: Vec<&Value> = answers.iter().filter(|answer| answer["status"] == 503).collect();
        assert_eq!(full.len(), refused, "{path}: {result:#}");
        for answer in full {
            assert_eq!(
                (&answer["end"], first(answer, "retry-after")),
                (&json!("clean"), Some("1"))
            );
            let seconds = answer["seconds"].as_f64().unwrap_or(f64::MAX);
            assert!((0.9..3.0).contains(&seconds), "{path}: after {seconds} s");
        }
    }
    assert_eq!(none.requests(), 0);
}

/// Octets of bodies that came, and the largest frame of them.
static UPLOADED: AtomicU64 = AtomicU64::new(0);
static LARGEST: AtomicU64 = AtomicU64::new(0);

/// Gives a window of 1,000 octets a frame, and answers at the end.
fn dribble(peer: &mut Peer, id: u32) -> io::Result<()> {
    loop {
        peer.send(frame::WINDOW_UPDATE, 0, id, &1000_u32.to_be_bytes())?;
        let next = peer.receive()?;
        if next.kind != frame::DATA {
            continue;
        }
        UPLOADED.fetch_add(next.payload.len() as u64, Relaxed);
        LARGEST.fetch_max(next.payload.len() as u64, Relaxed);
        if next.flags & END_STREAM != 0 {
            return peer.head(id, STATUS_200, true);
        }
    }
}

#[test]
fn d06_no_window_at_first_and_a_little_later() {
    let backend = Hostile::with(&[(setting::INITIAL_WINDOW_SIZE, 0)], dribble);
    let wide = Hostile::with(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)], |peer, id| {
        while peer.receive()?.flags & END_STREAM == 0 {}
        peer.head(id, STATUS_200, true)
    });
    let scene = scene(&[("dribble", &backend), ("wide", &wide)]);
    let upload =
        |path: &str, length: u64| json!({ "method": "PUT", "path": path, "body_length": length });
    let args = json!({ "requests": [upload("/dribble", 60_000), upload("/dribble", 1)] });
    let result = scene.target.run("requests", args, SOON);
    for answer in result["answers"].as_array().into_iter().flatten() {
        assert_ok(answer);
    }
    println!(
        "D06: {} octets, {} in a frame at most",
        UPLOADED.load(Relaxed),
        LARGEST.load(Relaxed)
    );
    assert_eq!(UPLOADED.load(Relaxed), 60_001);
    // What it gave for frames without content adds up; RFC 9113 §4.2 bounds the rest.
    assert!(LARGEST.load(Relaxed) <= 16_384);
}

#[test]
fn d06_a_goaway_every_fifty_requests_loses_none() {
    let backend = Hostile::start(|peer, id| match peer.requests {
        ..50 => peer.head(id, STATUS_200, true),
        50 => {
            peer.head(id, STATUS_200, true)?;
            peer.go_away(id, NO_ERROR)
        }
        // Above the last stream: not processed.
        _ => Ok(()),
    });
    let scene = scene(&[("goaway", &backend)]);
    all_answered(&scene, "/goaway", many());
    println!("D06: {} connections, {} requests seen", backend.connections(), backend.requests());
    assert!(backend.connections() >= many() / 50);
}

/// Field sections that refer to a table that is not there.
static REFERENCES: AtomicU64 = AtomicU64::new(0);

#[test]
fn d06_no_header_table_is_referred_to() {
    let backend = Hostile::with(&[(setting::HEADER_TABLE_SIZE, 0)], |peer, id| {
        REFERENCES.fetch_add(u64::from(uses_dynamic_table(&peer.block)), Relaxed);
        peer.head(id, STATUS_200, true)
    });
    let scene = scene(&[("plain", &backend)]);
    all_answered(&scene, "/plain", 200);
    assert_eq!(REFERENCES.load(Relaxed), 0);
}

/// A body of five octets said to be ten; the other lies in the same way.
const LIES: [(&str, Conduct); 11] = [
    ("short-of-length", |peer, id| {
        declared(peer, id, b"10")?;
        peer.send(frame::DATA, END_STREAM, id, b"12345")
    }),
    ("over-length", |peer, id| {
        declared(peer, id, b"3")?;
        peer.send(frame::DATA, END_STREAM, id, b"12345")
    }),
    ("length-and-no-body", |peer, id| {
        peer.head(id, &[STATUS_200, &field(b"content-length", b"10")].concat(), true)
    }),
    ("two-lengths", |peer, id| {
        let lengths = [field(b"content-length", b"10"), field(b"content-length", b"5")].concat();
        peer.head(id, &[STATUS_200, &lengths].concat(), false)?;
        peer.send(frame::DATA, END_STREAM, id, b"12345")
    }),
    ("reset-after-half", |peer, id| {
        declared(peer, id, b"10")?;
        peer.send(frame::DATA, 0, id, b"12345")?;
        peer.reset(id, INTERNAL_ERROR)
    }),
    ("no-length-reset-after-half", |peer, id| {
        half(peer, id)?;
        peer.reset(id, CANCEL)
    }),
    // NO_ERROR asks for no more of a request; it does not end a response (RFC 9113 §8.1).
    ("no-length-reset-without-error", |peer, id| {
        half(peer, id)?;
        peer.reset(id, NO_ERROR)
    }),
    ("no-length-refused-after-half", |peer, id| {
        half(peer, id)?;
        peer.reset(id, 0x7)
    }),
    ("no-length-closed-after-half", |peer, id| {
        half(peer, id)?;
        peer.close()
    }),
    ("no-length-goaway-then-closed", |peer, id| {
        half(peer, id)?;
        peer.go_away(id, NO_ERROR)?;
        peer.close()
    }),
    ("no-length-goaway-with-error", |peer, id| {
        half(peer, id)?;
        peer.go_away(0, INTERNAL_ERROR)?;
        peer.close()
    }),
];

fn declared(peer: &mut Peer, id: u32, length: &[u8]) -> io::Result<()> {
    peer.head(id, &[STATUS_200, &field(b"content-length", length)].concat(), false)
}

fn half(peer: &mut Peer, id: u32) -> io::Result<()> {
    peer.head(id, STATUS_200, false)?;
    peer.send(frame::DATA, 0, id, b"12345")
}

#[test]
fn d07_a_short_body_never_ends_cleanly() {
    let backends: Vec<Hostile> = LIES.iter().map(|(_, lie)| Hostile::start(*lie)).collect();
    let named: Vec<(&str, &Hostile)> = LIES.iter().map(|(name, _)| *name).zip(&backends).collect();
    let scene = scene(&named);
    let requests: Vec<Value> =
        LIES.iter().map(|(name, _)| json!({ "path": format!("/{name}") })).collect();
    let result = scene.target.run("requests", json!({ "requests": requests }), SOON);
    let mut wrong = Vec::new();
    for ((name, _), answer) in LIES.iter().zip(result["answers"].as_array().into_iter().flatten()) {
        println!("D07 {name}: {} {} {}", answer["status"], answer["end"], answer["reset_code"]);
        let reset = answer["end"] == "reset"
            && [json!(0x102), json!(0x10e)].contains(&answer["reset_code"]);
        // Found out before the head was sent on.
        let refused = answer["status"] == 502 && answer["end"] == "clean";
        if !reset && !refused {
            wrong.push(format!("{name}: {answer:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(result["closed_with"], Value::Null);
}

/// Codes of the resets that ended an upload.
static ENDED_WITH: AtomicU64 = AtomicU64::new(u64::MAX);

#[test]
fn d09_an_early_answer_ends_the_upload_alone() {
    let early = Hostile::start(|peer, id| {
        peer.head(id, &field(b":status", b"401"), true)?;
        if peer.ended {
            return Ok(());
        }
        loop {
            let next = peer.receive()?;
            if next.kind == frame::RST_STREAM && next.stream_id == id {
                let code = next.payload.iter().fold(0, |code, octet| code << 8 | u64::from(*octet));
                ENDED_WITH.store(code, Relaxed);
                return Ok(());
            }
        }
    });
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        let config = config.forward(backends).set("/workers/count", json!(1));
        early.behind(config, "early", &json!({}))
    });
    let args = json!({ "requests": [{ "path": "/" }, { "path": "/early", "method": "HEAD" }] });
    assert_ok(&scene.target.run("requests", args, SOON)["answers"][0]);
    let upload = |path: &str| json!({ "method": "POST", "path": path, "body_length": 8 << 20 });
    let requests: Vec<Value> =
        (0..10).flat_map(|_| [upload("/early-response"), upload("/early")]).collect();
    let args = json!({ "requests": requests, "answer_timeout": 5.0 });
    let result = scene.target.run("requests", args, SOON * 2);
    let answers = result["answers"].as_array().cloned().unwrap_or_default();
    for (number, answer) in answers.iter().enumerate() {
        let status = if number % 2 == 0 { 413 } else { 401 };
        assert_eq!((&answer["status"], &answer["end"]), (&json!(status), &json!("clean")));
        // RFC 9114 §4.1: the rest of the request is not needed, and that is no error.
        assert_eq!(answer["stop_sending_code"], 0x100, "{answer:#}");
    }
    let seconds = answers.iter().filter_map(|answer| answer["seconds"].as_f64());
    let soonest = seconds.fold(f64::MAX, f64::min);
    println!("D09: {} answers, soonest after {:.1} ms", answers.len(), soonest * 1000.0);
    assert!(soonest < 0.1, "{soonest} s");
    // Towards the backend it is none either (RFC 9113 §8.1), and both connections are used on.
    assert_eq!(ENDED_WITH.load(Relaxed), u64::from(NO_ERROR));
    assert_eq!(scene.spooky.metrics().sum("spooky_pool_connections_opened_total", &[]), 2.0);
    assert_eq!((early.connections(), early.requests()), (1, 11));
    assert_eq!(scene.spooky.metrics().sum("spooky_endpoint_failures_total", &[]), 0.0);
}

/// Who asks for less gets less; see `d06` for who has no room at all.
#[test]
fn d06_a_backend_that_asks_for_calm_gets_it() {
    let backend = Hostile::start(|peer, id| peer.reset(id, ENHANCE_YOUR_CALM));
    let scene = scene(&[("busy", &backend)]);
    let answer = scene.target.fetch("/busy");
    assert_eq!((&answer["status"], &answer["end"]), (&json!(503), &json!("clean")), "{answer:#}");
    assert_eq!(first(&answer, "retry-after"), Some("1"));
    assert_eq!(backend.requests(), 1, "it is not asked again");
}
