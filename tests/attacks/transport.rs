//! Peers that break QUIC itself: each single frame that RFC 9000 forbids, and floods of frames that it allows. Rows A05 to A09,
//! A14 and A18 to A20, with packets made by hand.

use serde_json::{Value, json};
use spooky_tests::oracle::{self, Bounds};
use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok};
use spooky_tests::soak;

const MIB: u64 = 1 << 20;
const PROTOCOL_VIOLATION: u64 = 0xa;
const CRYPTO_BUFFER_EXCEEDED: u64 = 0xd;

/// One worker, with connections that are soon forgotten.
fn scene() -> Scene {
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config
            .forward(backends)
            .set("/workers/count", json!(1))
            .set("/listeners/0/quic", json!({ "idle_timeout": "6s" }))
    });
    // Whatever is allocated once is there before anything is measured.
    assert_ok(&scene.target.fetch("/bytes/1000000"));
    scene
}

/// Each case of a row is one packet that its connection does not survive, with a code of the RFC.
fn errors(row: &str, least: usize) {
    let scene = Scene::new(1);
    let result = scene.target.run("transport_errors", json!({ "row": row }), LONG);
    let cases = result["cases"].as_object().cloned().unwrap_or_default();
    let slowest = cases.values().filter_map(|case| case["seconds"].as_f64()).fold(0.0, f64::max);
    println!("{row}: {} cases closed, the slowest after {:.0} ms", cases.len(), slowest * 1e3);
    assert!(cases.len() >= least, "{result:#}");
    let right = |case: &Value| {
        let allowed = case["allowed"].as_array().map(Vec::as_slice).unwrap_or_default();
        allowed.contains(&case["closed_with"])
    };
    let wrong: Vec<_> = cases.iter().filter(|(_, case)| !right(case)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_ok(&result["bystander"]);
}

/// Floods of a row, each with its packets, beside the oracle and a client of its own that asks all the time.
fn floods(row: &str, floods: &[(&str, u64)]) {
    let scene = scene();
    for (name, packets) in floods {
        let packets = if soak() { 10 * packets } else { *packets };
        let bounds = Bounds { memory: 4 * MIB, ..Bounds::default() };
        let result = oracle::within(&scene, name, bounds, || {
            let args = json!({ "name": name, "count": packets });
            scene.target.run("transport_flood", args, LONG)
        });
        println!(
            "{row}: {name}: {} packets, closed with {}, {} answers beside it, the slowest after {:.0} ms",
            result["sent"],
            result["closed_with"],
            result["answered"],
            result["slowest"].as_f64().unwrap_or(f64::MAX) * 1e3,
        );
        assert_eq!(result["failed"], Value::Null, "{name}: {result}");
        assert_ok(&result["last"]);
    }
}

#[test]
fn a05_an_acknowledgement_of_what_was_never_sent_closes() {
    errors("A05", 1);
}

#[test]
fn a05_who_acknowledges_what_it_has_not_received_is_found_out() {
    let scene = scene();
    // All that was sent, as if nothing had been left out; and a little more than was sent.
    for (name, ahead, step) in [("without gaps", 0, 20), ("in advance", 1000, 20)] {
        let args =
            json!({ "path": "/bytes/50000000", "ahead": ahead, "step": step, "patience": 60.0 });
        let result = oracle::beside(&scene, &format!("A05 {name}"), || {
            scene.target.run("optimistic_acks", args, LONG)
        });
        println!(
            "A05: {name}: closed with {} after {} packets, {} octets",
            result["closed_with"], result["packets"], result["octets"]
        );
        assert_eq!(result["closed_with"], PROTOCOL_VIOLATION, "{name}: {result}");
        assert!(result["packets"].as_u64() <= Some(2000), "{name}: {result}");
    }
    assert_ok(&scene.target.fetch("/"));
}

#[test]
fn a06_crypto_frames_are_bounded_and_may_come_in_any_order() {
    errors("A06", 1);
    let scene = scene();
    let chaos = scene.target.run("chaos", json!({}), SOON);
    println!(
        "A06: a ClientHello of {} octets from its end in single octets: {chaos}",
        chaos["octets"]
    );
    assert_eq!((&chaos["connected"], &chaos["answered"]), (&json!(true), &json!(true)));
    for (early, most) in [(true, 4 * MIB), (false, 6 * MIB)] {
        // Once the handshake is over each gap takes quiche 160 octets, up to its limit of 64 KiB.
        let bounds = Bounds { memory: most, ..Bounds::default() };
        let result = oracle::within(&scene, &format!("A06, early {early}"), bounds, || {
            let args = json!({ "count": 30_000, "early": early });
            let mut client = scene.target.start("crypto_gaps", args);
            client.event("sent", LONG);
            client.stop();
            client.result(SOON)
        });
        println!("A06: 30,000 gaps, early {early}: {result}");
    }
    let mut client = scene.target.start("crypto_gaps", json!({ "far": 1 << 20, "early": true }));
    client.event("sent", SOON);
    client.stop();
    assert_eq!(client.result(SOON)["closed_with"], CRYPTO_BUFFER_EXCEEDED);
    assert_ok(&scene.target.fetch("/"));
}

#[test]
fn a07_a_flood_of_challenges_costs_its_sender_alone() {
    floods("A07", &[("A07_path_challenge", 3000)]);
}

#[test]
fn a08_connection_ids_are_bounded() {
    errors("A08", 4);
    floods("A08", &[("A08_new_connection_id", 5000)]);
}

#[test]
fn a09_connection_ids_are_retired_once() {
    errors("A09", 1);
    floods("A09", &[("A09_retire_connection_id", 5000)]);
}

#[test]
fn a14_malformed_frames_close_at_once() {
    errors("A14", 6);
}

#[test]
fn a18_floods_of_nothing_cost_their_sender_alone() {
    errors("A18", 1);
    floods("A18", &[("A18_ping", 10_000), ("A18_padding", 10_000)]);
}

#[test]
fn a19_streams_and_windows_have_limits() {
    errors("A19", 12);
    floods("A19", &[("A19_max_data", 5000), ("A19_streams_blocked", 5000)]);
}

#[test]
fn a20_ranges_and_repetitions_cost_their_sender_alone() {
    errors("A20", 1);
    let again = "A20_one_octet_of_a_stream_again_and_again";
    floods("A20", &[("A20_ack_ranges", 5000), (again, 5000)]);
}

#[test]
fn a20_keys_are_updated_once_a_round_trip() {
    let scene = scene();
    let run = |patient: bool| {
        oracle::beside(&scene, &format!("A20 keys, patient {patient}"), || {
            let args = json!({ "count": 100, "patient": patient });
            scene.target.run("key_updates", args, LONG)
        })
    };
    let patient = run(true);
    println!(
        "A20: {} key updates, each answered, closed with {}",
        patient["done"], patient["closed_with"]
    );
    assert_eq!((&patient["done"], &patient["closed_with"]), (&json!(100), &Value::Null));
    assert_ok(&patient["last"]);
    let hasty = run(false);
    println!("A20: {} key updates at once, closed with {}", hasty["done"], hasty["closed_with"]);
    assert_ok(&scene.target.fetch("/"));
}
