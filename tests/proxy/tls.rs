//! Certificates by name and type towards clients.

use serde_json::{Value, json};
use spooky_tests::certs::{Authority, KeyType};
use spooky_tests::clients::Target;
use spooky_tests::config::{Config, certificate};
use spooky_tests::spooky::Spooky;

use spooky_tests::scene::{SOON, Scene, Turn, loopback};

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
