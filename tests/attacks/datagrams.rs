//! Datagrams of no connection: what is no packet, versions nobody speaks, and packets of connections that are gone, which a
//! stateless reset answers (RFC 9000 §6, §10.3). Rows A04 and A15.

use serde_json::{Value, json};
use spooky_tests::oracle;
use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok};
use spooky_tests::soak;

/// CPU seconds for one odd datagram, kernel included, in a build with optimisations.
const CPU_EACH: f64 = 3e-6;

#[test]
fn a04_other_versions_are_negotiated_with_no_more_than_they_sent() {
    let scene = Scene::new(1);
    let cases = scene.target.run("version_negotiation", json!({ "seed": 4 }), SOON);
    let cases = cases.as_object().cloned().unwrap_or_default();
    let mut largest: f64 = 0.0;
    for (name, case) in &cases {
        let trigger = case["trigger"].as_f64().unwrap_or(0.0);
        // Those that are Version Negotiation or of version 1 themselves have no versions.
        let may = trigger >= 1200.0 && case["versions"] != json!([]);
        match case["answer"].as_f64() {
            None => assert!(!may, "{name} is answered: {case}"),
            Some(size) => {
                assert!(may, "{name} is not answered: {case}");
                assert_eq!(case["whole"], true, "{name}: {case}");
                let versions = case["versions"].as_array().cloned().unwrap_or_default();
                assert!(versions.contains(&json!("00000001")), "{name}: {case}");
                assert!(size <= trigger, "{name}: {case}");
                largest = largest.max(size / trigger);
            }
        }
    }
    assert!(cases.len() > 10 && largest > 0.0, "{cases:#?}");
    println!("A04: an answer is at most {largest:.2} of its trigger; none below 1,200 octets");
}

#[test]
fn a04_odd_datagrams_are_dropped_and_cost_little() {
    let scene = Scene::new(1);
    let seed = std::process::id();
    println!("seed {seed}");
    let count = if soak() { 1_000_000 } else { 100_000 };
    let before = scene.spooky.metrics();
    let (result, cpu) = oracle::beside(&scene, "A04", || {
        let cpu = scene.spooky.cpu_seconds();
        let args = json!({ "count": count, "seed": seed });
        let result = scene.target.run("odd_datagrams", args, LONG);
        (result, scene.spooky.cpu_seconds() - cpu)
    });
    let number = |name: &str| result[name].as_f64().unwrap_or(f64::MAX);
    let after = scene.spooky.metrics();
    let grew = |name: &str| after.growth(&before, name, &[]);
    let each = cpu / number("sent");
    println!(
        "A04: {} odd datagrams ({} MB), {} answered with {} KB, {} dropped and counted, {:.1} µs CPU each{}",
        result["sent"],
        number("octets") / 1e6,
        result["answers"],
        number("answered_octets") / 1e3,
        grew("spooky_datagrams_dropped_total"),
        each * 1e6,
        if cfg!(debug_assertions) { " without optimisations" } else { "" }
    );
    assert!(cfg!(debug_assertions) || each <= CPU_EACH, "{:.1} µs CPU each", each * 1e6);
    assert!(number("sent") > f64::from(count) / 2.0, "{result}");
    assert!(number("answered_octets") <= 3.0 * number("octets"), "{result}");
    assert!(grew("spooky_datagrams_dropped_total") > number("sent") / 4.0, "{result}");
    assert_eq!(grew("spooky_panics_total"), 0.0);
}

#[test]
fn a15_stateless_resets_are_small_few_and_the_end_of_it() {
    let keys = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(keys.path(), "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210")
        .expect("a file of the test's own");
    let mut scene = Scene::with(Turn::alone(), 1, |config, backends| {
        let cid = json!({ "key_file": keys.path() });
        config.forward(backends).set("/listeners/0/quic", json!({ "cid": cid }))
    });
    let packets = if soak() { 10_000 } else { 3000 };
    let args = json!({ "connections": 10, "packets": packets, "seed": std::process::id() });
    let mut client = scene.target.start("resets", args);
    let collected = client.event("collected", LONG);
    scene.restart();
    let before = scene.spooky.metrics();
    client.stop();
    let result = client.result(LONG);
    check_resets(&result);
    let number = |part: &str, name: &str| result[part][name].as_f64().unwrap_or(f64::MAX);
    println!(
        "A15: {} IDs with a token each; {} of {packets} answered to one source in {:.1} s, {} to 200 in {:.1} s, {} for random IDs, \
         {} for living ones, {} of resets sent back",
        collected["ids"],
        result["one_source"]["answered"],
        number("one_source", "seconds"),
        result["many_sources"]["answered"],
        number("many_sources", "seconds"),
        result["random"]["answered"],
        result["living"]["answered"],
        result["echoes"],
    );
    for (part, rate) in [("one_source", 100.0), ("many_sources", 1000.0)] {
        let answered = number(part, "answered");
        // What may be had at once, and what comes while it lasts.
        let most = rate * (1.0 + number(part, "seconds"));
        assert!(answered > 0.0 && answered <= most, "{part}: {answered} of at most {most}");
    }
    assert!(number("many_sources", "answered") > 2.0 * number("one_source", "answered"));
    for part in ["random", "living"] {
        assert_eq!(result[part]["answered"], 0, "{part}: {result}");
    }
    assert_ok(&result["living"]["after"]);
    let after = scene.spooky.metrics();
    assert!(after.growth(&before, "spooky_stateless_resets_limited_total", &[]) > 0.0);
}

/// Sizes, tokens and loops.
fn check_resets(result: &Value) {
    let sizes = result["sizes"].as_object().cloned().unwrap_or_default();
    let mut answered = 0;
    for (trigger, size) in &sizes {
        let trigger: u64 = trigger.parse().expect("a size is a number");
        match size.as_u64() {
            // A packet with our ID and a token does not fit in less (RFC 9000 §10.3).
            None => assert!(trigger <= 21, "{trigger} octets are answered: {sizes:?}"),
            Some(size) => {
                assert!((21..trigger).contains(&size), "{size} octets for {trigger}");
                answered += 1;
            }
        }
    }
    assert!(answered > 30, "{sizes:?}");
    assert_eq!(
        result["believed"], answered,
        "each ends in the token of its ID, from before the restart"
    );
    assert_eq!(result["ids"], result["tokens"], "each ID has a token of its own");
    assert!(result["ids"].as_u64() >= Some(60), "{result}");
    assert_eq!(result["echoes"], 0, "a reset sent back is the end of it");
}
