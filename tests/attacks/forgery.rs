//! Somebody on the path who writes as well: forged Version Negotiation, Retry and Initial packets beside the true ones do not
//! keep a handshake from its end (RFC 9000 §6.2, §17.2.5.2, §21). Row A21.

use std::net::SocketAddr;

use serde_json::json;
use spooky_tests::oracle;
use spooky_tests::scene::{LONG, SOON, Scene, assert_ok};

#[test]
fn a21_forged_packets_beside_the_true_ones_stop_no_handshake() {
    let scene = Scene::new(1);
    let seed = std::process::id();
    println!("seed {seed}");
    let mut path = scene.target.start("forging_path", json!({ "seed": seed }));
    let port = path.event("listening", SOON)["port"].as_u64().and_then(|port| port.try_into().ok());
    let address = SocketAddr::from(([127, 0, 0, 1], port.expect("a port")));
    let target = scene.target.at(address);
    let (done, slowest) = oracle::beside(&scene, "A21", || {
        let (mut done, mut slowest) = (0, 0.0_f64);
        for handshake in 0..20 {
            let result = target.run("connect", json!({ "timeout": 10.0 }), SOON);
            assert_eq!(result["connected"], true, "handshake {handshake}: {result}");
            done += 1;
            slowest = slowest.max(result["seconds"].as_f64().unwrap_or(f64::MAX));
        }
        (done, slowest)
    });
    assert_ok(&target.fetch("/bytes/100000"));
    let curl = target.curl("get", json!({ "paths": ["/"] }), SOON);
    assert_eq!(curl["answers"][0]["status"], 200, "{curl}");
    path.stop();
    let forged = path.result(LONG)["forged"].as_object().cloned().unwrap_or_default();
    println!(
        "A21: {done} of 20 handshakes, the slowest after {:.0} ms; forged: {forged:?}",
        slowest * 1e3
    );
    assert_eq!(forged.len(), 8, "{forged:?}");
    assert!(forged.values().all(|count| count.as_u64() >= Some(20)), "{forged:?}");
    let metrics = scene.spooky.metrics();
    assert_eq!(metrics.sum("spooky_panics_total", &[]), 0.0);
}
