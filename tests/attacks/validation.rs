//! Who has not shown that it can receive: bytes out before that, Retry and its tokens, floods of Initials, limits of a source.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::{Value, json};
use spooky_tests::certs::{Authority, KeyType};
use spooky_tests::clients::Client;
use spooky_tests::oracle::{self, Bounds};
use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok, loopback};
use spooky_tests::spooky::Spooky;
use spooky_tests::{soak, wait};

/// One worker, so that its share of a limit is the limit.
fn scene(quic: Value) -> Scene {
    Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(1)).set("/listeners/0/quic", quic)
    })
}

/// As [`scene`]; connections of clients that are killed are soon forgotten.
fn forgetful() -> Scene {
    scene(json!({ "idle_timeout": "6s" }))
}

fn count(spooky: &Spooky, name: &str, labels: &[(&str, &str)]) -> f64 {
    spooky.metrics().sum(name, labels)
}

//= https://www.rfc-editor.org/rfc/rfc9000#section-8.1
//= type=test
//# Prior to validating the client address, servers MUST NOT send more than
//# three times as many bytes as the number of bytes they have received.
#[test]
fn a01_an_unvalidated_address_gets_three_times_what_it_sent() {
    let authority = Authority::new();
    let rsa = authority.leaf("rsa", &["localhost"], KeyType::Rsa);
    let long = authority.leaf("long", &["localhost"], KeyType::Rsa);
    // What counts is the size: leaf and issuers make 12 KB and more.
    let issuer = std::fs::read_to_string(authority.file()).expect("the authority's certificate");
    let mut chain = std::fs::read_to_string(&long.cert).expect("the leaf");
    while chain.len() < 18_000 {
        chain.push_str(&issuer);
    }
    std::fs::write(&long.cert, chain).expect("a file of the test's own");
    let (with_rsa, with_long) = (loopback(), loopback());
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        let mut config = config.forward(backends).set("/workers/count", json!(1));
        for (name, address, leaf) in [("rsa", with_rsa, &rsa), ("long", with_long, &long)] {
            let mut listener = config.listener();
            listener["name"] = json!(name);
            listener["bind"] = json!(address.to_string());
            listener["tls"] = json!({ "certificates": [{ "cert": leaf.cert, "key": leaf.key }] });
            config = config.add_listener(listener);
        }
        config
    });
    let mut cells: Vec<(String, Client)> = Vec::new();
    for (chain, address) in
        [("P-256", scene.target.address), ("RSA-2048", with_rsa), ("12 KB", with_long)]
    {
        for initials in [1, 3] {
            // Longer than the handshake may take, with every probe and the close.
            let seconds = if soak() { 40.0 } else { 8.0 };
            let args = json!({ "initials": initials, "seconds": seconds });
            let client = scene.target.at(address).start("amplify", args);
            cells.push((format!("{chain}, {initials} Initials"), client));
        }
    }
    for (cell, client) in cells {
        let result = client.result(LONG);
        let [sent, received] = ["sent", "received"].map(|key| result[key].as_f64().unwrap_or(0.0));
        println!("A01 {cell}: {received} octets back for {sent}: {:.2} times", received / sent);
        assert!(received > 0.0 && received <= 3.0 * sent, "{cell}: {result}");
    }
    let gone = || count(&scene.spooky, "spooky_connections_active", &[]) == 0.0;
    wait::until_true("none of them is kept", SOON, gone);
    assert_eq!(count(&scene.spooky, "spooky_connections_half_open", &[]), 0.0);
    let late = count(&scene.spooky, "spooky_handshakes_failed_total", &[("reason", "timeout")]);
    assert_eq!(late, 6.0, "handshake_timeout ended them");
    // Probes use up what one Initial draws, whatever the chain; what three draw need not be.
    assert!(count(&scene.spooky, "spooky_amplification_limited_total", &[]) >= 3.0);
}

#[test]
fn a01_a_small_initial_gets_nothing() {
    let scene = scene(json!({}));
    for cut in [1199, 600, 30] {
        let args = json!({ "cut": cut, "seconds": 0.5 });
        let result = scene.target.run("amplify", args, SOON);
        assert_eq!(result["received"], 0, "{cut}: {result}");
    }
}

#[test]
fn a02_clients_prove_their_address_when_asked() {
    let scene = scene(json!({ "address_validation": { "mode": "always" } }));
    assert_ok(&scene.target.fetch("/bytes/100000"));
    let curl = scene.target.curl("get", json!({ "paths": ["/", "/bytes/50000"] }), SOON);
    assert_eq!(
        (&curl["answers"][1]["status"], &curl["answers"][1]["length"]),
        (&json!(200), &json!(50_000))
    );
    assert_eq!(count(&scene.spooky, "spooky_retries_sent_total", &[]), 2.0);
    assert_eq!(count(&scene.spooky, "spooky_addresses_validated_total", &[]), 2.0);
}

//= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.3
//= type=test
//# When a server receives an Initial packet with an address validation
//# token, it MUST attempt to validate the token, unless it has already
//# completed address validation.
//= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.4
//= type=test
//# To protect against such attacks, servers MUST ensure that replay of
//# tokens is prevented or limited.
#[test]
fn a03_a_token_is_good_once_from_one_place_for_a_while() {
    let validation = json!({ "mode": "always", "token_ttl": "2s" });
    let scene = scene(json!({ "address_validation": validation }));
    let result = scene.target.run("retry_tokens", json!({ "ttl": 2.0 }), LONG);
    println!("A03: {result}");
    assert_eq!(result["first"], "Retry");
    assert_eq!(result["changed"], json!(["silence"]), "no changed octet passes");
    assert_eq!(
        (&result["other_address"], &result["other_port"]),
        (&json!("silence"), &json!("silence"))
    );
    assert_eq!(result["as_it_is"], "handshake");
    assert_eq!(result["late"], "silence");
    let refused = count(&scene.spooky, "spooky_datagrams_dropped_total", &[("reason", "token")]);
    let length = result["token_length"].as_f64().unwrap_or(0.0);
    assert!(refused >= length, "{refused} of {length} and three more");
    assert_ok(&scene.target.fetch("/"));
}

#[test]
fn a02_under_a_flood_of_initials_everybody_is_asked_and_the_honest_get_in() {
    let scene = forgetful();
    assert_ok(&scene.target.fetch("/"));
    let (initials, seconds) = if soak() { (20_000, 10.0) } else { (2000, 5.0) };
    // 10 KiB for each of a hundred that are half open, and what the honest clients beside it take.
    let bounds = Bounds { memory: 8 << 20, ..Bounds::default() };
    let (result, most) = oracle::within(&scene, "A02", bounds, || {
        let args = json!({ "count": initials, "sources": 200, "seconds": seconds });
        let mut flood = scene.target.start("initial_flood", args);
        flood.event("flooding", LONG);
        let mut most: f64 = 0.0;
        for _client in 0..8 {
            assert_ok(&scene.target.fetch("/"));
            most = most.max(count(&scene.spooky, "spooky_connections_half_open", &[]));
        }
        (flood.result(LONG), most)
    });
    println!("A02: {result}, at most {most} half open");
    assert!(most > 50.0 && most <= 110.0, "Retry from 100 half-open handshakes on: {most}");
    assert!(result["retries"].as_u64() > Some(1000), "{result}");
    let [sent, received] = ["sent", "received"].map(|key| result[key].as_f64().unwrap_or(0.0));
    assert!(received <= 3.0 * sent, "{result}");
    let gone = || count(&scene.spooky, "spooky_connections_half_open", &[]) == 0.0;
    wait::until_true("those that began are gone", SOON, gone);
    let retries = || count(&scene.spooky, "spooky_retries_sent_total", &[]);
    let before = retries();
    assert_ok(&scene.target.fetch("/"));
    assert_eq!(retries(), before, "nobody is asked any more");
}

#[test]
fn a13_what_is_behind_an_initial_under_another_id_is_not_read() {
    let scene = forgetful();
    let datagrams = if soak() { 100_000 } else { 2000 };
    let bounds = Bounds { memory: 4 << 20, ..Bounds::default() };
    let answer = oracle::within(&scene, "A13", bounds, || {
        scene.target.run("coalesced", json!({ "count": datagrams }), LONG)
    });
    assert_ok(&answer);
    let dropped = [("reason", "foreign_coalesced")];
    let dropped = count(&scene.spooky, "spooky_datagrams_dropped_total", &dropped);
    assert_eq!(dropped, f64::from(datagrams));
}

#[test]
fn a_source_has_its_share_of_connections() {
    let scene = scene(json!({ "max_connections_per_source": 4 }));
    let mut held = scene.target.start("hold", json!({ "connections": 4 }));
    held.event("open", SOON);
    let connect = |address: [u8; 4]| {
        let source = IpAddr::from(Ipv4Addr::from(address));
        let result = scene.target.from(source).run("connect", json!({ "timeout": 1.5 }), SOON);
        result["connected"] == true
    };
    assert!(!connect([127, 0, 0, 1]), "a fifth from the same address");
    assert!(connect([127, 0, 0, 2]), "another address");
    assert!(
        count(&scene.spooky, "spooky_connections_refused_total", &[("reason", "source")]) > 0.0
    );
    held.stop();
    assert_eq!(held.result(SOON)["answered"], 4);
    wait::until_true("there is room again", Duration::from_secs(10), || connect([127, 0, 0, 1]));
}
