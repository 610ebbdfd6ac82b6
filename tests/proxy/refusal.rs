//! What a bad configuration gets: every problem at once, exit 2, nothing bound; a bad environment: one clear line.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use serde_json::json;
use spooky_tests::certs::{Authority, KeyType};
use spooky_tests::config::{Config, certificate};
use spooky_tests::spooky::{Refusal, Spooky};
use spooky_tests::{privilege, programs};

use spooky_tests::scene::loopback;

struct Draft {
    authority: Authority,
    edge: SocketAddr,
    config: Config,
}

fn draft() -> Draft {
    let authority = Authority::new();
    let leaf = authority.leaf("edge", &["localhost"], KeyType::Ecdsa);
    let (edge, admin) = (loopback(), loopback());
    let config = Config::new(edge, admin, &leaf).forward(&[loopback()]);
    Draft { authority, edge, config }
}

#[track_caller]
fn assert_refused(refusal: &Refusal, mentions: &[&str]) {
    assert_eq!(refusal.code, Some(2), "{}", refusal.text);
    assert!(!refusal.text.contains("listening udp"), "nothing is bound:\n{}", refusal.text);
    assert!(!refusal.text.contains("panicked"), "{}", refusal.text);
    for mention in mentions {
        assert!(refusal.text.contains(mention), "no {mention:?} in:\n{}", refusal.text);
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let draft = draft();
    let text = draft
        .config
        .set("/workerz", json!(4))
        .set("/listeners/0/quic/idle_timeout", json!("30"))
        .set("/routes/0/upstream", json!("nowhere"))
        .set("/upstreams/app/endpoints/0/address", json!("not an address"))
        .text();
    let refusal = Spooky::refused(&text);
    assert_refused(&refusal, &["workerz", "idle_timeout", "nowhere", "not an address"]);
    // File and line, so that an editor can jump there.
    assert!(refusal.text.contains("spooky.yaml:"), "{}", refusal.text);
}

#[test]
fn broken_yaml_is_refused_with_its_line() {
    let refusal = Spooky::refused("version: 1\nlisteners: [\n  {name: edge\n");
    assert_refused(&refusal, &["spooky.yaml"]);
}

#[test]
fn a_missing_certificate_is_one_clear_line() {
    let draft = draft();
    let missing = draft.authority.directory().join("missing.pem");
    let config = draft.config.set("/listeners/0/tls/certificates/0/cert", json!(missing));
    assert_refused(&Spooky::refused(&config.text()), &["missing.pem"]);
}

#[test]
fn a_key_of_another_certificate_is_one_clear_line() {
    let draft = draft();
    let other = draft.authority.leaf("other", &["localhost"], KeyType::Ecdsa);
    let config = draft.config.set("/listeners/0/tls/certificates/0/key", json!(other.key));
    assert_refused(&Spooky::refused(&config.text()), &["other.key"]);
}

#[test]
fn a_key_of_another_type_is_one_clear_line() {
    let draft = draft();
    let other = draft.authority.leaf("rsa", &["localhost"], KeyType::Rsa);
    let entry = certificate(
        &["localhost"],
        &spooky_tests::certs::Leaf {
            cert: draft.authority.directory().join("edge.pem"),
            key: other.key,
        },
    );
    let config = draft.config.set("/listeners/0/tls/certificates/0", entry);
    assert_refused(&Spooky::refused(&config.text()), &["rsa.key"]);
}

#[test]
fn protocols_that_are_not_there_are_refused() {
    let draft = draft();
    let config = draft.config.set("/listeners/0/protocols", json!(["h3", "h2"]));
    assert_refused(&Spooky::refused(&config.text()), &["h2"]);
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let draft = draft();
    let holder = UdpSocket::bind(draft.edge).expect("the port is free");
    let refusal = Spooky::refused(&draft.config.text());
    // The configuration is right, the environment is not.
    assert_eq!(refusal.code, Some(1), "{}", refusal.text);
    assert!(refusal.text.contains(&draft.edge.to_string()), "{}", refusal.text);
    assert!(!refusal.text.contains("panicked"), "{}", refusal.text);
    drop(holder);
}

#[test]
fn an_interface_that_is_not_there_is_one_clear_line() {
    if !privilege::kernel("an_interface_that_is_not_there_is_one_clear_line") {
        return;
    }
    let draft = draft();
    let kernel = json!({ "mode": "xdp", "interface": "nosuch0", "on_failure": "abort" });
    let refusal = Spooky::refused(&draft.config.set("/ebpf", kernel).text());
    assert_refused(&refusal, &["nosuch0"]);
}

#[test]
fn check_says_the_same_without_starting() {
    let draft = draft();
    let check = |name: &str, text: String| {
        let file = draft.authority.directory().join(name);
        std::fs::write(&file, text).expect("a temporary file can be written");
        let output = Command::new(programs::spooky()).arg("check").arg(&file).output();
        let output = output.expect("spooky runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, said) = check("good.yaml", draft.config.text());
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check("bad.yaml", draft.config.clone().set("/workerz", json!(1)).text());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("bad.yaml:") && said.contains("workerz"), "{said}");
}
