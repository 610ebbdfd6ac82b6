//! Row E06: version negotiation, and what there is not: version 2 of QUIC and ECN (docs/codex/known-limits.md).

use serde_json::{Value, json};

use spooky_tests::scene::{LONG, Scene, assert_ok};

fn octets(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("hexadecimal");
    let pairs = (0..hex.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits")).collect()
}

/// The versions in the Version Negotiation packet that answers a datagram (RFC 8999 §6).
fn versions(answer: &Value) -> Vec<u32> {
    let [dcid, scid, received] = ["dcid", "scid", "received"].map(|name| octets(&answer[name]));
    assert!(received.len() < 1200, "{answer}");
    assert_eq!((received[0] & 0x80, &received[1..5]), (0x80, [0; 4].as_slice()));
    let mut head = Vec::new();
    for id in [scid, dcid] {
        head.push(u8::try_from(id.len()).expect("at most 255"));
        head.extend(id);
    }
    let (ids, versions) = received[5..].split_at(head.len());
    assert_eq!(ids, head, "the IDs are exchanged");
    assert!(versions.len().is_multiple_of(4));
    versions.chunks_exact(4).map(|it| u32::from_be_bytes(it.try_into().expect("four"))).collect()
}

//= https://www.rfc-editor.org/rfc/rfc9000#section-5.2.2
//= type=test
//# Servers MUST drop smaller packets that specify unsupported versions.
#[test]
fn e06_version_1_and_a_right_answer_to_the_others() {
    let scene = Scene::new(1);
    let before = scene.spooky.metrics();
    let result = scene.target.run("versions", json!({}), LONG);
    assert_ok(&result["preferred"]);
    assert_eq!(result["spoken"], 1, "one who would rather speak version 2 goes on in version 1");
    assert!(
        result["alone"].as_str().is_some_and(|failure| failure.starts_with("no handshake")),
        "{result:#}"
    );
    let answers = result["answers"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(answers.len(), 4);
    for answer in answers {
        let offered = versions(answer);
        // RFC 9000 §6.3: one that nobody has, so that clients do not unlearn to pass over it.
        let (reserved, known): (Vec<u32>, Vec<u32>) =
            offered.into_iter().partition(|version| version & 0x0f0f_0f0f == 0x0a0a_0a0a);
        assert_eq!((reserved.len(), known), (1, vec![1]), "{answer}");
    }
    let after = scene.spooky.metrics();
    let counted = after.growth(&before, "spooky_version_negotiations_total", &[]);
    println!("E06: version 1 alone, {counted} negotiations, 2 datagrams not answered");
    // Two of the clients, four of the datagrams; a client may have sent again.
    assert!(counted >= 6.0, "{counted}");
}

#[test]
fn e06_no_ecn() {
    let scene = Scene::new(1);
    let result = scene.target.run("ecn", json!({}), LONG);
    println!("E06: {result}");
    assert_eq!(result["acknowledged"], true, "{result}");
    assert!(result["acks"].as_u64() > Some(0), "{result}");
    // What is so, and stands in docs/codex/known-limits.md. When it is otherwise, that is to be mended too.
    assert_eq!(result["acks_with_ecn"], 0, "{result}");
    let marks = result["marks"].as_object().cloned().unwrap_or_default();
    assert!(marks.len() == 1 && marks.contains_key("0"), "{result}");
}
