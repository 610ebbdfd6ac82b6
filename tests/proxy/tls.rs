//! Certificates by name and type towards clients; verified certificates of backends.

use std::net::SocketAddr;

use serde_json::{Value, json};
use spooky_tests::backend::LocalBackend;
use spooky_tests::certs::{Authority, KeyType};
use spooky_tests::clients::Target;
use spooky_tests::config::{Config, certificate};
use spooky_tests::origin::{Options, TlsFiles};
use spooky_tests::spooky::Spooky;

use spooky_tests::scene::{SOON, Scene, Turn, assert_ok, field, loopback};

#[test]
fn the_name_chooses_the_certificate() {
    let _turn = Turn::shared();
    let authority = Authority::new();
    let (edge, admin) = (loopback(), loopback());
    let default = authority.leaf("default", &["localhost"], KeyType::Ecdsa);
    let a = authority.leaf("a", &["a.example"], KeyType::Rsa);
    let wild = authority.leaf("wild", &["*.wild.example"], KeyType::Ecdsa);
    let config = Config::new(edge, admin, &default)
        .set(
            "/listeners/0/tls/certificates",
            json!([
                certificate(&["localhost"], &default),
                certificate(&["a.example"], &a),
                certificate(&["*.wild.example"], &wild),
            ]),
        )
        .forward(&[loopback()]);
    let _spooky = Spooky::start(&config, admin);
    let target = Target::new(edge, authority.file());
    let seen = |name: &str, args: Value| {
        let result = target.named(name).run("connect", args, SOON);
        assert_eq!(result["connected"], true, "{name}: {result:#}");
        let subject = result["subject"].as_str().unwrap_or_default().to_owned();
        (subject, result["key"].as_str().unwrap_or_default().to_owned())
    };
    let (rsa, ecdsa) = ("RSAPublicKey", "ECPublicKey");
    let of = |name: &str, key: &str| (format!("CN={name}"), key.to_owned());
    assert_eq!(seen("localhost", json!({})), of("localhost", ecdsa));
    assert_eq!(seen("a.example", json!({})), of("a.example", rsa));
    assert_eq!(seen("A.Example", json!({ "insecure": true })), of("a.example", rsa));
    assert_eq!(seen("b.wild.example", json!({})), of("*.wild.example", ecdsa));
    // A wildcard covers one label (RFC 9525 §6.3); what no certificate is for gets the first.
    let unknown = json!({ "insecure": true });
    assert_eq!(seen("x.b.wild.example", unknown.clone()), of("localhost", ecdsa));
    assert_eq!(seen("unknown.test", unknown), of("localhost", ecdsa));
}

#[test]
fn one_name_can_have_both_key_types() {
    let authority = Authority::new();
    let rsa = authority.leaf("both-rsa", &["localhost"], KeyType::Rsa);
    let ecdsa = authority.leaf("both-ecdsa", &["localhost"], KeyType::Ecdsa);
    let both = json!([certificate(&["localhost"], &rsa), certificate(&["localhost"], &ecdsa)]);
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/listeners/0/tls/certificates", both)
    });
    let key = |algorithms: &str| {
        let args = json!({ "insecure": true, "signature_algorithms": algorithms });
        scene.target.run("connect", args, SOON)["key"].take()
    };
    assert_eq!(key("ecdsa"), "ECPublicKey");
    assert_eq!(key("rsa"), "RSAPublicKey");
}

struct Vault {
    backend: LocalBackend,
    authority: Authority,
}

fn vault(name: &str) -> Vault {
    let authority = Authority::new();
    let leaf = authority.leaf("backend", &[name], KeyType::Ecdsa);
    let backend = LocalBackend::start(Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        name: "tls1".into(),
        tls: Some(TlsFiles { cert: leaf.cert, key: leaf.key }),
        max_streams: None,
        goaway_after: None,
    });
    Vault { backend, authority }
}

/// A scene whose only upstream is this TLS backend, without health checks: the request itself has to fail.
fn before(vault: &Vault, tls: Value) -> Scene {
    let address = vault.backend.address();
    Scene::with(Turn::shared(), 0, |config, _| {
        let upstream = json!({
            "endpoints": [{ "name": "tls1", "address": address.to_string() }],
            "tls": tls,
        });
        config.set("/upstreams/app", upstream).route("all", json!({ "path_prefix": "/" }), "app")
    })
}

#[test]
fn a_backend_with_the_right_certificate_is_used() {
    let vault = vault("backend.test");
    let tls = json!({ "verify": true, "sni": "backend.test", "ca_file": vault.authority.file() });
    let scene = before(&vault, tls);
    let answer = scene.target.fetch("/");
    assert_ok(&answer);
    assert_eq!(field(&answer, "x-origin"), Some("tls1"));
}

#[test]
fn a_backend_with_another_name_gets_no_request() {
    let vault = vault("other.test");
    let tls = json!({ "verify": true, "sni": "backend.test", "ca_file": vault.authority.file() });
    assert_unused(&vault, tls);
}

#[test]
fn a_backend_of_an_unknown_authority_gets_no_request() {
    let vault = vault("backend.test");
    let stranger = Authority::new();
    assert_unused(&vault, json!({ "sni": "backend.test", "ca_file": stranger.file() }));
}

#[track_caller]
fn assert_unused(vault: &Vault, tls: Value) {
    let scene = before(vault, tls);
    let answer = scene.target.fetch("/");
    assert_eq!((&answer["status"], &answer["end"]), (&json!(502), &json!("clean")), "{answer:#}");
    let stats = vault.backend.stats().to_json();
    assert_eq!(stats["streams_total"], 0, "{stats:#}");
    assert!(stats["handshakes_failed"].as_u64() > Some(0), "{stats:#}");
}
