//! Source addresses that are not the client's, or not for long: a path is challenged, gets three times what came from it, and is
//! the client's address only when it has answered (RFC 9000 §8.2, §9). Rows A10 and A17.

use std::net::IpAddr;

use serde_json::{Value, json};
use spooky_tests::oracle;
use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok, body_json, fields};
use spooky_tests::soak;

/// Octets that a churn of paths may leave behind.
const MEMORY: u64 = 1 << 20;
/// Three probe time-outs of a path whose round-trip time is not known (RFC 9002 §6.2.2: 3 times 333 ms each).
const BACK: f64 = 3.0 * 3.0 * 0.333;

#[test]
fn a10_churn_of_paths_is_bounded_and_the_own_path_works() {
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(1))
    });
    let churn = |ports: u32, addresses: u32, seconds: f64| {
        let args = json!({ "ports": ports, "addresses": addresses, "seconds": seconds });
        let result = scene.target.run("churn", args, LONG);
        assert_eq!((&result["failed"], &result["closed_with"]), (&json!([]), &Value::Null));
        for answer in ["before", "after"] {
            assert_ok(&result[answer]);
        }
        result
    };
    let (ports, addresses, seconds) = if soak() { (5000, 2000, 5.0) } else { (2000, 800, 2.0) };
    let before = scene.spooky.metrics();
    let result = oracle::beside(&scene, "A10", || churn(ports, addresses, seconds));
    let after = scene.spooky.metrics();
    // Whatever is allocated once is there now; nor is the oracle's memory measured with it.
    let resident = scene.spooky.resident_bytes();
    churn(ports, addresses, seconds);
    let grown = scene.spooky.resident_bytes().saturating_sub(resident);
    let dropped = [("reason", "paths")];
    let dropped = after.growth(&before, "spooky_datagrams_dropped_total", &dropped);
    println!(
        "A10: {} paths claimed, {dropped} datagrams dropped for it, {} KiB more, {} answers on the own path, the slowest after {:.0} ms",
        result["sent"],
        grown >> 10,
        result["answered"],
        result["slowest"].as_f64().unwrap_or(f64::MAX) * 1e3,
    );
    assert!(grown < MEMORY, "{} KiB", grown >> 10);
    // Connection IDs are read, not remembered, by the kernel: there is no map that could grow. Eight paths are let through.
    assert!(dropped >= f64::from(ports + addresses) - 20.0, "{dropped}");
    assert_eq!(after.growth(&before, "spooky_migrations_validated_total", &[]), 0.0);
}

#[test]
fn a17_a_victims_address_gets_three_times_what_came_from_it() {
    let scene = Scene::new(1);
    let mut figures = Vec::new();
    for (victim, more) in [("127.0.0.9", 0), ("127.0.0.10", 2), ("127.0.0.11", 20)] {
        let args = json!({ "victim": victim, "more": more, "patience": 20.0 });
        let result = oracle::beside(&scene, &format!("A17 {more} packets more"), || {
            scene.target.run("spoof", args, LONG)
        });
        let number = |name: &str| result[name].as_f64().unwrap_or(f64::MAX);
        let (from, to) = (number("from_victim"), number("to_victim"));
        figures.push(format!(
            "{} packets, {:.2} times back, then at its own address after {:.1} s",
            result["packets"],
            to / from,
            number("back")
        ));
        println!("A17: {figures:?}");
        assert!(to <= 3.0 * from, "{victim}: {to} octets for {from}");
        assert!(number("back") <= BACK + 1.0, "{victim}: {} s", number("back"));
        assert_eq!(result["closed_with"], Value::Null, "{result}");
        assert_ok(&result["long"]);
        assert_ok(&result["echo"]);
        let seen = body_json(&result["echo"]);
        assert_eq!(fields(&seen, "x-forwarded-for"), ["127.0.0.1"], "{seen}");
    }
    println!("A17: {}", figures.join("; "));
    assert_eq!(scene.spooky.metrics().sum("spooky_migrations_validated_total", &[]), 0.0);
}

/// Logs, forwarded fields and limits: what has been validated is the client's address for all of them.
#[test]
fn a17_a_client_is_where_it_has_been_validated_last() {
    let log = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        let quic = json!({ "max_connections_per_source": 1 });
        config
            .forward(backends)
            .set("/workers/count", json!(1))
            .set("/access_log", json!({ "path": log.path(), "format": "json" }))
            .set("/listeners/0/quic", quic)
    });
    let connects = |address: [u8; 4]| {
        let client = scene.target.from(IpAddr::from(address));
        client.run("connect", json!({ "timeout": 1.5 }), SOON)["connected"] == true
    };
    let mut moved =
        scene.target.from(IpAddr::from([127, 0, 0, 1])).start("move", json!({ "to": "127.0.0.2" }));
    let echoes = moved.event("moved", SOON);
    for (echo, address) in [("before", "127.0.0.1"), ("after", "127.0.0.2")] {
        assert_ok(&echoes[echo]);
        assert_eq!(fields(&body_json(&echoes[echo]), "x-forwarded-for"), [address]);
    }
    assert!(connects([127, 0, 0, 1]), "there is room where it was");
    assert!(!connects([127, 0, 0, 2]), "there is none where it is");
    moved.stop();
    assert!(moved.result(SOON)["challenges"].as_u64() > Some(0));
    let written = || std::fs::read_to_string(log.path()).unwrap_or_default();
    let of = |address: &str| written().matches(&format!("\"{address}:")).count();
    spooky_tests::wait::until_true("both addresses are logged", SOON, || {
        of("127.0.0.1") > 0 && of("127.0.0.2") > 0
    });
}
