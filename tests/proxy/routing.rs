//! Which upstream, which endpoint: host and path rules, and the balancing policies over a real pool.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};
use spooky_tests::config::Config;

use spooky_tests::scene::{LONG, SOON, Scene, Turn, field};

fn origin_of(scene: &Scene, host: &str, path: &str) -> (u64, Option<String>) {
    let args = json!({ "requests": [{ "path": path }], "authority": host });
    let result = scene.target.run("requests", args, SOON);
    let answer = &result["answers"][0];
    (answer["status"].as_u64().unwrap_or(0), field(answer, "x-origin").map(str::to_owned))
}

#[test]
fn host_and_path_choose_the_upstream() {
    let scene = Scene::with(Turn::shared(), 4, |config, b| {
        config
            .upstream("exact", &b[..1])
            .upstream("wild", &b[1..2])
            .upstream("api", &b[2..3])
            .upstream("rest", &b[3..])
            .route("exact", json!({ "hosts": ["a.example"], "path_prefix": "/" }), "exact")
            .route("wild", json!({ "hosts": ["*.example"], "path_prefix": "/" }), "wild")
            .route("status", json!({ "hosts": ["localhost"], "path": "/status/204" }), "api")
            .route("api", json!({ "hosts": ["localhost"], "path_prefix": "/bytes" }), "api")
            .route("rest", json!({ "hosts": ["localhost"], "path_prefix": "/" }), "rest")
            .set(
                "/listeners/0/tls/certificates/0/sni",
                json!(["localhost", "a.example", "*.example"]),
            )
    });
    let to = |host, path| origin_of(&scene, host, path);
    let from = |name: &str| Some(name.to_owned());
    assert_eq!(to("localhost", "/bytes/5"), (200, from("b3")));
    assert_eq!(to("localhost", "/status/204"), (204, from("b3")));
    assert_eq!(to("localhost", "/status/205"), (205, from("b4")));
    assert_eq!(to("localhost", "/"), (200, from("b4")));
    // The authority of another name: served, or refused as misdirected, but never by another host's upstream.
    for (host, origin) in [("a.example", "b1"), ("A.EXAMPLE", "b1"), ("x.example", "b2")] {
        let target = scene.target.named("localhost");
        let args = json!({ "requests": [{ "path": "/" }], "authority": host });
        let answer = target.run("requests", args, SOON)["answers"][0].take();
        match answer["status"].as_u64() {
            Some(200) => assert_eq!(field(&answer, "x-origin"), Some(origin), "{host}"),
            other => assert_eq!(other, Some(421), "{host}: {answer:#}"),
        }
    }
    assert_eq!(to("nowhere.test", "/").1, None, "no route, no backend");
}

fn spread(scene: &Scene, requests: usize, headers: &Value) -> BTreeMap<String, usize> {
    let request = json!({ "path": "/status/204", "headers": headers });
    let args = json!({ "requests": vec![request; requests] });
    let result = scene.target.run("requests", args, LONG);
    let mut spread = BTreeMap::new();
    for answer in result["answers"].as_array().into_iter().flatten() {
        assert_eq!(answer["status"], 204, "{answer:#}");
        *spread.entry(field(answer, "x-origin").unwrap_or("").to_owned()).or_default() += 1;
    }
    spread
}

fn balanced(policy: Value) -> Scene {
    Scene::with(Turn::shared(), 3, |config: Config, backends: &[SocketAddr]| {
        config.forward(backends).set("/upstreams/app/load_balancing", policy)
    })
}

#[test]
fn round_robin_is_even() {
    // One connection, so one worker, so one turn.
    let spread = spread(&balanced(json!({ "policy": "round_robin" })), 90, &json!([]));
    assert_eq!(spread.values().copied().collect::<Vec<_>>(), [30, 30, 30], "{spread:?}");
}

#[test]
fn random_reaches_every_endpoint() {
    let spread = spread(&balanced(json!({ "policy": "random" })), 300, &json!([]));
    assert_eq!(spread.len(), 3);
    assert!(spread.values().all(|&count| (60..=140).contains(&count)), "{spread:?}");
}

#[test]
fn weights_are_kept() {
    let scene = Scene::with(Turn::shared(), 3, |config, backends| {
        config
            .forward(backends)
            .set("/upstreams/app/load_balancing", json!({ "policy": "weighted_round_robin" }))
            .set("/upstreams/app/endpoints/0/weight", json!(6))
            .set("/upstreams/app/endpoints/1/weight", json!(3))
            .set("/upstreams/app/endpoints/2/weight", json!(1))
    });
    let spread = spread(&scene, 100, &json!([]));
    assert_eq!(spread.values().copied().collect::<Vec<_>>(), [60, 30, 10], "{spread:?}");
}

#[test]
fn consistent_hash_keeps_a_key_at_its_endpoint() {
    let policy = json!({ "policy": "consistent_hash", "hash_on": { "header": "x-session" } });
    let scene = balanced(policy);
    let mut used = BTreeMap::<String, usize>::new();
    for key in 0..12 {
        let headers = json!([["x-session", format!("session-{key}")]]);
        let first = spread(&scene, 5, &headers);
        assert_eq!(first.len(), 1, "one key, one endpoint: {first:?}");
        // Another connection may be another worker: the ring is the same.
        assert_eq!(first, spread(&scene, 5, &headers));
        *used.entry(first.into_keys().next().unwrap_or_default()).or_default() += 1;
    }
    assert!(used.len() >= 2, "keys are spread: {used:?}");
}

#[test]
fn consistent_hash_keeps_a_source_and_a_path_at_its_endpoint() {
    let scene = balanced(json!({ "policy": "consistent_hash", "hash_on": "source_ip" }));
    let mut used = BTreeMap::<String, usize>::new();
    for last in 1..=12 {
        let target = scene.target.from(IpAddr::from([127, 0, 0, last]));
        let origin = || field(&target.fetch("/"), "x-origin").unwrap_or_default().to_owned();
        let first = origin();
        assert_eq!(first, origin(), "127.0.0.{last} from another port");
        *used.entry(first).or_default() += 1;
    }
    assert!(used.len() >= 2, "sources are spread: {used:?}");
    let scene = balanced(json!({ "policy": "consistent_hash", "hash_on": "path" }));
    let mut used = BTreeMap::<String, usize>::new();
    for length in 1..=12 {
        let fetch = |query| {
            let answer = scene.target.fetch(&format!("/bytes/{length}?{query}"));
            field(&answer, "x-origin").unwrap_or_default().to_owned()
        };
        let first = fetch("seed=1");
        assert_eq!(first, fetch("seed=2"), "the query is no part of the key");
        *used.entry(first).or_default() += 1;
    }
    assert!(used.len() >= 2, "paths are spread: {used:?}");
}

#[test]
fn nothing_configured_for_a_path_is_404() {
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.upstream("app", backends).route("only", json!({ "path_prefix": "/only" }), "app")
    });
    let answer = scene.target.fetch("/other");
    assert_eq!((&answer["status"], &answer["end"]), (&json!(404), &json!("clean")));
    let stats = scene.backends[0].stats();
    assert_eq!(stats["paths"]["/other"], Value::Null, "{stats:#}");
    // The origin knows no such path either, but its own 404 carries its name: the route matched.
    for path in ["/only", "/only/this"] {
        assert_eq!(field(&scene.target.fetch(path), "x-origin"), Some("b1"), "{path}");
    }
}
