//! What breaks the rules gets the RFC's code and nothing else happens: no backend sees it, no neighbour feels it.

use serde_json::{Value, json};

use spooky_tests::scene::{LONG, SOON, Scene, assert_ok};

const H3_MESSAGE_ERROR: u64 = 0x10e;

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.2
//= type=test
//# Intermediaries that process HTTP requests or responses (i.e., any
//# intermediary not acting as a tunnel) MUST NOT forward a malformed
//# request or response.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.2
//= type=test
//# Malformed requests or responses that are detected MUST be treated as a
//# stream error of type H3_MESSAGE_ERROR.
/// Rows C01 and C04: the fifteen of the first, the fields of one hop of the second, and more.
#[test]
fn c01_c04_malformed_messages_are_stream_errors_and_reach_no_backend() {
    let scene = Scene::new(1);
    let before = scene.spooky.metrics();
    let result = scene.target.run("malformed", json!({}), LONG);
    let cases = result["cases"].as_object().cloned().unwrap_or_default();
    assert!(cases.len() >= 20, "{result:#}");
    let stats = scene.backends[0].stats();
    let mut wrong = Vec::new();
    for (name, answer) in &cases {
        let refused = answer["status"] == 400 && answer["end"] == "clean";
        let reset = answer["reset_code"] == H3_MESSAGE_ERROR;
        if !(refused || reset) || answer["close_code"] != Value::Null {
            wrong.push(format!("{name}: {answer}"));
        }
        if stats["paths"][format!("/malformed/{name}")] != Value::Null {
            wrong.push(format!("{name}: reached the backend"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Those with a wrong length are only known to be wrong once they are on their way: reset there, never completed.
    assert_eq!(
        stats["paths"]["/hash"].as_u64().unwrap_or(0),
        stats["resets_received"].as_u64().unwrap_or(0)
    );
    assert_ok(&result["after"]);
    let after = scene.spooky.metrics();
    let counted = after.growth(&before, "spooky_requests_malformed_total", &[]);
    assert!(counted >= cases.len() as f64, "{counted} counted of {}", cases.len());
}

#[test]
fn a04_noise_is_dropped_counted_and_hardly_answered() {
    let scene = Scene::new(1);
    let before = scene.spooky.metrics();
    let seed = std::process::id();
    println!("seed {seed}");
    let result = scene.target.run("noise", json!({ "count": 20_000, "seed": seed }), LONG);
    assert_ok(&result["after"]);
    let bytes = |name: &str| result[name].as_u64().unwrap_or(u64::MAX);
    // RFC 9000 §8.1: at most three times what came, even to one who sends nothing but noise.
    assert!(bytes("received_bytes") <= 3 * bytes("sent_bytes"), "{result:#}");
    let after = scene.spooky.metrics();
    let dropped = after.growth(&before, "spooky_datagrams_dropped_total", &[]);
    assert!(dropped > 1000.0, "{dropped} counted\n{}", after.changes(&before));
}

#[test]
fn a12_another_application_protocol_is_refused_in_the_handshake() {
    let scene = Scene::new(1);
    let before = scene.spooky.metrics();
    let result = scene.target.run("connect", json!({ "alpn": "http/0.9" }), SOON);
    assert_eq!(result["connected"], false, "{result:#}");
    // RFC 9001 §8.1: no_application_protocol is alert 120, 0x178 on the wire.
    assert!(result["error"].as_str().is_some_and(|error| error.contains("376")), "{result:#}");
    // Counted when the connection is gone, at the end of its closing period (RFC 9000 §10.2).
    spooky_tests::wait::until_true("the failure is counted", SOON, || {
        let after = scene.spooky.metrics();
        after.growth(&before, "spooky_handshakes_failed_total", &[("reason", "alpn")]) == 1.0
    });
}
