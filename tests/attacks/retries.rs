//! What is sent to a backend a second time, and what never: row C11.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};
use spooky_tests::hostile::{self, Conduct, END_STREAM, Hostile, Peer, STATUS_200, field, frame};
use spooky_tests::scene::{LONG, SOON, Scene, Turn};

/// Error codes (RFC 9113 §7).
const NO_ERROR: u32 = 0x0;
const INTERNAL_ERROR: u32 = 0x2;
const REFUSED_STREAM: u32 = 0x7;

/// Ends of a request that a backend may have acted on. Each backend does it to every request.
const PROCESSED: [(&str, Conduct); 6] = [
    ("closed-at-once", |peer, _| peer.close()),
    ("closed-after-the-body", |peer, _| {
        body(peer)?;
        peer.close()
    }),
    ("goaway-with-it-below", |peer, id| {
        peer.go_away(id, NO_ERROR)?;
        peer.close()
    }),
    ("reset", |peer, id| peer.reset(id, INTERNAL_ERROR)),
    ("reset-without-error", |peer, id| peer.reset(id, NO_ERROR)),
    ("malformed", |peer, id| peer.head(id, &field(b":status", b"wrong"), true)),
];

/// Reads the body of the request at hand.
fn body(peer: &mut Peer) -> io::Result<()> {
    while !peer.ended {
        let next = peer.receive()?;
        peer.ended = next.kind == frame::DATA && next.flags & END_STREAM != 0;
    }
    Ok(())
}

/// One worker, and two backends of each conduct in turn.
fn scene(cases: &[(&str, Conduct)], keys: &Value) -> (Scene, Vec<[Hostile; 2]>) {
    let backends: Vec<[Hostile; 2]> = cases
        .iter()
        .map(|(_, conduct)| [Hostile::start(*conduct), Hostile::start(*conduct)])
        .collect();
    let scene = Scene::with(Turn::shared(), 0, |config, _| {
        let config = config.set("/workers/count", json!(1));
        // Its own client is to blame for every connection here.
        let config = config.set("/listeners/0/http3/max_backend_connections_lost", json!(0));
        cases.iter().zip(&backends).fold(config, |config, ((name, _), [one, other])| {
            hostile::behind(&[one, other], config, name, keys)
        })
    });
    (scene, backends)
}

/// The answer to one request, whose body is a field of a form.
fn ask(scene: &Scene, method: &str, path: &str, body: usize) -> Value {
    let request = json!({ "method": method, "path": path, "body_length": body });
    let args = json!({ "requests": [request], "answer_timeout": 10.0 });
    scene.target.run("requests", args, SOON)["answers"][0].take()
}

#[test]
fn c11_what_may_have_been_done_is_done_once() {
    let (scene, backends) = scene(&PROCESSED, &json!({ "retry": { "attempts": 5 } }));
    for ((name, _), pair) in PROCESSED.iter().zip(&backends) {
        let seen = || pair[0].requests() + pair[1].requests();
        for (method, length, most) in
            [("POST", 0, 1), ("POST", 100, 1), ("PATCH", 9, 1), ("GET", 0, 5)]
        {
            let before = seen();
            let answer = ask(&scene, method, &format!("/{name}"), length);
            let times = seen() - before;
            println!(
                "C11 {name}: {method} with {length} octets sent {times} times: {}",
                answer["status"]
            );
            // NO_ERROR without an answer, and any other end, is an error that the client sees.
            assert_eq!(
                (&answer["status"], &answer["end"]),
                (&json!(502), &json!("clean")),
                "{name}"
            );
            assert!((1..=most).contains(&times), "{name}: {method} sent {times} times");
        }
    }
}

#[test]
fn c11_a_get_is_sent_a_second_time_and_no_more() {
    let (scene, backends) = scene(&PROCESSED[..4], &json!({}));
    for ((name, _), pair) in PROCESSED.iter().zip(&backends) {
        let answer = ask(&scene, "GET", &format!("/{name}"), 0);
        let times = pair[0].requests() + pair[1].requests();
        println!("C11 {name}: GET sent {times} times");
        assert_eq!((times, &answer["status"]), (2, &json!(502)), "{name}");
    }
}

#[test]
fn c11_a_get_whose_answer_has_begun_is_sent_once() {
    const BEGUN: [(&str, Conduct); 2] = [
        ("after-a-head", |peer, id| {
            peer.head(id, STATUS_200, false)?;
            peer.close()
        }),
        ("after-an-interim-head", |peer, id| {
            peer.head(id, &field(b":status", b"103"), false)?;
            peer.close()
        }),
    ];
    let (scene, backends) = scene(&BEGUN, &json!({}));
    for ((name, _), pair) in BEGUN.iter().zip(&backends) {
        let answer = ask(&scene, "GET", &format!("/{name}"), 0);
        assert_eq!(pair[0].requests() + pair[1].requests(), 1, "{name}: {answer:#}");
        assert!(answer["end"] == "reset" || answer["status"] == 502, "{name}: {answer:#}");
    }
}

/// Requests that the backends of the next test have taken, of all connections.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// What was not processed, and says so.
const UNPROCESSED: [(&str, Conduct); 3] = [
    ("refused", |peer, id| match TAKEN.fetch_add(1, Relaxed) % 2 {
        0 => peer.reset(id, REFUSED_STREAM),
        _ => answer(peer, id),
    }),
    ("goaway-below-it", |peer, id| match TAKEN.fetch_add(1, Relaxed) % 2 {
        0 => peer.go_away(id.saturating_sub(2), NO_ERROR),
        _ => answer(peer, id),
    }),
    // Three times in a row, as in a rolling restart.
    ("goaway-again-and-again", |peer, id| match TAKEN.fetch_add(1, Relaxed) % 4 {
        0..3 => {
            peer.go_away(id.saturating_sub(2), NO_ERROR)?;
            peer.close()
        }
        _ => answer(peer, id),
    }),
];

fn answer(peer: &mut Peer, id: u32) -> io::Result<()> {
    body(peer)?;
    peer.head(id, STATUS_200, true)
}

#[test]
fn c11_what_was_not_processed_is_sent_again_whatever_it_is() {
    let (scene, backends) = scene(&UNPROCESSED, &json!({}));
    for ((name, _), pair) in UNPROCESSED.iter().zip(&backends) {
        for (method, length) in [("POST", 0), ("POST", 20_000), ("DELETE", 0), ("GET", 0)] {
            let before = pair[0].requests() + pair[1].requests();
            let answer = ask(&scene, method, &format!("/{name}"), length);
            let times = pair[0].requests() + pair[1].requests() - before;
            println!("C11 {name}: {method} with {length} octets sent {times} times");
            assert_eq!(
                (&answer["status"], &answer["end"]),
                (&json!(200), &json!("clean")),
                "{name}"
            );
            assert_eq!(times, if name.ends_with("again") { 4 } else { 2 }, "{name}");
        }
    }
}

/// Half of a hundred requests fail at their first backend; the other one takes its time. Of all that live a fifth may be
/// tried again at once.
#[test]
fn c11_a_fifth_of_the_live_requests_is_tried_again_at_once() {
    for (patience, answered) in [("1ms", 50..=75), ("5s", 100..=100)] {
        let broken = Hostile::start(|peer, id| peer.reset(id, INTERNAL_ERROR));
        let scene = Scene::with(Turn::shared(), 1, |config, backends| {
            let endpoints = [("slow", backends[0]), ("broken", broken.address())];
            let endpoints: Vec<Value> = endpoints
                .iter()
                .map(|(name, address)| json!({ "name": name, "address": address.to_string() }))
                .collect();
            let pool = json!({ "pending_timeout": patience });
            config
                .forward(backends)
                .set("/workers/count", json!(1))
                .set("/upstreams/app/endpoints", json!(endpoints))
                .set("/upstreams/app/pool", pool)
                // The broken one has no probes to answer.
                .set("/upstreams/app/health_check", Value::Null)
        });
        // Connections are there before they are counted on.
        scene.target.fetch("/");
        scene.target.fetch("/");
        let before = scene.spooky.metrics();
        let requests = vec![json!({ "path": "/delay/200" }); 100];
        let args = json!({ "requests": requests, "concurrent": true });
        let result = scene.target.run("requests", args, LONG);
        let after = scene.spooky.metrics();
        let grew = |name: &str| after.growth(&before, name, &[]);
        let (again, refused) = (grew("spooky_retries_total"), grew("spooky_retries_refused_total"));
        let answers = result["answers"].as_array().cloned().unwrap_or_default();
        let good = answers.iter().filter(|answer| answer["status"] == 200).count();
        println!(
            "C11: patience {patience}: {good} of 100 answered, {again} sent again, {refused} not"
        );
        assert!(answered.contains(&good), "{good}");
        if patience == "1ms" {
            assert!((1.0..=21.0).contains(&again), "{again} of 100 sent again at once");
            assert!(refused >= 25.0, "{refused}");
        } else {
            assert_eq!(refused, 0.0);
        }
    }
}
