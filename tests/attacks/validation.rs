//! Who has not shown that it can receive: bytes out before that, Retry and its tokens, floods of Initials, limits of a source.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::{Value, json};
use spooky_tests::certs::{Authority, KeyType};
use spooky_tests::clients::Client;
use spooky_tests::spooky::Spooky;
use spooky_tests::wait;

use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok, loopback};

/// One worker, so that its share of a limit is the limit.
fn scene(quic: Value) -> Scene {
    Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(1)).set("/listeners/0/quic", quic)
    })
}

fn count(spooky: &Spooky, name: &str, labels: &[(&str, &str)]) -> f64 {
    spooky.metrics().sum(name, labels)
}

#[test]
fn an_unvalidated_address_gets_three_times_what_it_sent() {
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
            let args = json!({ "initials": initials, "seconds": 8.0 });
            let client = scene.target.at(address).start("amplify", args);
            cells.push((format!("{chain}, {initials} Initials"), client));
        }
    }
    for (cell, client) in cells {
        let result = client.result(SOON);
        let [sent, received] = ["sent", "received"].map(|key| result[key].as_f64().unwrap_or(0.0));
        println!("{cell}: {received} octets back for {sent}: {:.2} times", received / sent);
        assert!(received > 0.0 && received <= 3.0 * sent, "{cell}: {result}");
    }
    let gone = || count(&scene.spooky, "spooky_connections_active", &[]) == 0.0;
    wait::until_true("none of them is kept", SOON, gone);
    assert_eq!(count(&scene.spooky, "spooky_connections_half_open", &[]), 0.0);
}

#[test]
fn a_small_initial_gets_nothing() {
    let scene = scene(json!({}));
    for cut in [1199, 600, 30] {
        let args = json!({ "cut": cut, "seconds": 0.5 });
        let result = scene.target.run("amplify", args, SOON);
        assert_eq!(result["received"], 0, "{cut}: {result}");
    }
}

#[test]
fn clients_prove_their_address_when_asked() {
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

#[test]
fn a_token_is_good_once_from_one_place_for_a_while() {
    let validation = json!({ "mode": "always", "token_ttl": "2s" });
    let scene = scene(json!({ "address_validation": validation }));
    let result = scene.target.run("retry_tokens", json!({ "ttl": 2.0 }), LONG);
    println!("{result}");
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
fn under_a_flood_of_initials_everybody_is_asked_and_the_honest_get_in() {
    let mut scene = Scene::with(Turn::alone(), 1, |config, backends| {
        config.forward(backends).set("/workers/count", json!(1))
    });
    assert_ok(&scene.target.fetch("/"));
    let before = scene.spooky.resident_bytes();
    let args = json!({ "count": 2000, "sources": 200, "seconds": 5.0 });
    let mut flood = scene.target.start("initial_flood", args);
    flood.event("flooding", LONG);
    let mut most: f64 = 0.0;
    for _client in 0..8 {
        assert_ok(&scene.target.fetch("/"));
        most = most.max(count(&scene.spooky, "spooky_connections_half_open", &[]));
    }
    let result = flood.result(LONG);
    let grown = scene.spooky.resident_bytes().saturating_sub(before);
    println!("{result}, at most {most} half open, memory grew by {} KiB", grown >> 10);
    assert!(most > 50.0 && most <= 110.0, "Retry from 100 half-open handshakes on: {most}");
    assert!(result["retries"].as_u64() > Some(1000), "{result}");
    let [sent, received] = ["sent", "received"].map(|key| result[key].as_f64().unwrap_or(0.0));
    assert!(received <= 3.0 * sent, "{result}");
    assert!(grown < 100 << 20, "{grown}");
    let gone = || count(&scene.spooky, "spooky_connections_half_open", &[]) == 0.0;
    wait::until_true("those that began are gone", SOON, gone);
    let retries = || count(&scene.spooky, "spooky_retries_sent_total", &[]);
    let before = retries();
    assert_ok(&scene.target.fetch("/"));
    assert_eq!(retries(), before, "nobody is asked any more");
    assert!(scene.spooky.process().status().is_none());
}

#[test]
fn what_is_behind_an_initial_under_another_id_is_not_read() {
    let scene = scene(json!({}));
    let answer = scene.target.run("coalesced", json!({ "count": 500 }), SOON);
    assert_ok(&answer);
    let dropped = [("reason", "foreign_coalesced")];
    assert_eq!(count(&scene.spooky, "spooky_datagrams_dropped_total", &dropped), 500.0);
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
