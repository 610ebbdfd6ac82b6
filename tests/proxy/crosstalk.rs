//! No answer belongs to another request: unique IDs in path, field and body, a fifth given up at random, a twentieth reset by
//! the backend.

use serde_json::json;

use spooky_tests::scene::{LONG, Scene};

/// Row C10.
#[test]
fn c10_twenty_thousand_requests_and_no_answer_of_another() {
    let scene = Scene::new(2);
    let seed = std::env::var("SPOOKY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed} (SPOOKY_SEED repeats it)");
    let args = json!({
        "requests": 20_000, "connections": 200, "parallel": 3, "cancel": 0.2, "faults": 0.05, "seed": seed,
        "idle_timeout": 120,
    });
    let result = scene.target.run("crosstalk", args, LONG);
    println!("C10: {}", result["outcome"]);
    assert_eq!(result["wrong"], json!([]), "answers of other requests");
    assert_eq!(result["errors"], json!([]), "{:#}", result["outcome"]);
    let count = |name: &str| result["outcome"][name].as_u64().unwrap_or(0);
    let cancelled = count("cancelled") + count("cancelled, answered");
    let reset = count("reset by the backend");
    assert_eq!(count("answered") + cancelled + reset, 20_000);
    assert!((800..=1_200).contains(&reset), "{reset} reset");
    assert!((3_400..=4_600).contains(&cancelled), "{cancelled} given up");
    // Everything that was begun has ended: no stream and no wait is left over.
    spooky_tests::wait::until_true("nothing in flight", spooky_tests::scene::SOON, || {
        let metrics = scene.spooky.metrics();
        metrics.sum("spooky_requests_active", &[]) == 0.0
            && metrics.sum("spooky_pool_pending", &[]) == 0.0
            && metrics.sum("spooky_buffered_bytes", &[]) == 0.0
    });
}
