//! What a route admits: so many requests of a client (429), so much content (413).

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use spooky_tests::clients::Target;

use crate::reload::reload;
use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok, field};

/// Two workers, `/` limited, `/free` not.
fn limited(limits: &[(&str, Value)]) -> Scene {
    Scene::with(Turn::shared(), 1, |config, backends| {
        let mut config = config.forward(backends).set("/workers/count", json!(2)).route(
            "free",
            json!({ "path": "/free" }),
            "app",
        );
        for (key, value) in limits {
            config = config.set(&format!("/routes/0/{key}"), value.clone());
        }
        config
    })
}

fn reached(scene: &Scene, reason: &str) -> f64 {
    scene.spooky.metrics().sum("spooky_limits_reached_total", &[("reason", reason)])
}

/// Row B13: at twice the limit the half gets 429; whether the client changes its port or its worker makes no difference.
#[test]
fn b13_twice_the_limit_is_half_refused() {
    let limit = json!({ "requests": 40, "burst": 4, "clients": 1024 });
    let scene = limited(&[("rate_limit", limit)]);
    let args = json!({
        "path": "/bytes/10", "rate": 80, "seconds": 5.0, "connections": 4, "rebind_every": 1.0,
    });
    let result = scene.target.run("paced", args, LONG);
    println!("B13: {result}");
    let count = |status: &str| result["statuses"][status].as_u64().unwrap_or(0) as f64;
    let (served, refused) = (count("200"), count("429"));
    let share = refused / (served + refused);
    assert_eq!(served + refused, result["sent"].as_f64().unwrap_or(0.0), "{result}");
    assert!((0.45..=0.55).contains(&share), "{share} refused: {result}");
    assert!(result["rebound"].as_u64() >= Some(3), "{result}");
    assert_eq!(reached(&scene, "rate_limit"), refused);
    assert_eq!(scene.backends[0].stats()["paths"]["/bytes/10"].as_f64(), Some(served));
    assert_eq!(scene.spooky.metrics().sum("spooky_endpoint_failures_total", &[]), 0.0);
}

/// Row B13: another address has its own allowance, another route no limit, and who is refused is told when to come back.
#[test]
fn b13_a_limit_is_of_one_client_and_one_route() {
    let scene = limited(&[("rate_limit", json!({ "requests": 1, "per": "1m", "burst": 2 }))]);
    let twice = |target: &Target, path: &str| {
        let request = json!({ "path": path });
        let args = json!({ "requests": [request, request, request] });
        target.run("requests", args, SOON)["answers"].take()
    };
    let statuses = |answers: &Value| -> Vec<u64> {
        answers.as_array().into_iter().flatten().filter_map(|it| it["status"].as_u64()).collect()
    };
    let answers = twice(&scene.target, "/bytes/1");
    assert_eq!(statuses(&answers), [200, 200, 429]);
    let wait: u64 = field(&answers[2], "retry-after").and_then(|it| it.parse().ok()).unwrap_or(0);
    assert!((55..=60).contains(&wait), "{wait} s");
    let other = scene.target.from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)));
    assert_eq!(statuses(&twice(&other, "/bytes/1")), [200, 200, 429]);
    assert_eq!(statuses(&twice(&scene.target, "/free")), [404, 404, 404]);
}

/// Row B13: the keys of two hosts in one IPv6 network of 64 bits are one; `counted: route` is one for all.
#[test]
fn b13_a_route_counts_everybody() {
    let limit = json!({ "requests": 1, "per": "1m", "burst": 2, "counted": "route" });
    let scene = limited(&[("rate_limit", limit)]);
    let status = |host: u8| {
        let target = scene.target.from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)));
        target.fetch("/bytes/1")["status"].clone()
    };
    assert_eq!([status(2), status(3), status(4)], [json!(200), json!(200), json!(429)]);
}

#[test]
fn a_reload_forgives_nobody() {
    let mut scene = limited(&[("rate_limit", json!({ "requests": 1, "per": "1h", "burst": 1 }))]);
    assert_ok(&scene.target.fetch("/bytes/1"));
    assert_eq!(scene.target.fetch("/bytes/1")["status"], 429);
    reload(&mut scene.spooky, "taken", |config| {
        config["access"] = json!({ "deny": ["192.0.2.0/24"] })
    });
    assert_eq!(scene.target.fetch("/bytes/1")["status"], 429);
    reload(&mut scene.spooky, "taken", |config| {
        config["routes"][0]["rate_limit"]["burst"] = json!(5);
    });
    assert_ok(&scene.target.fetch("/bytes/1"));
}

#[test]
fn content_above_the_limit_is_413_and_never_complete_at_a_backend() {
    let scene = limited(&[("max_request_body", json!("100KiB"))]);
    let post = |length: u64, declare: bool, path: &str| {
        let args = json!({ "path": path, "length": length, "declare": declare });
        scene.target.run("upload", args, SOON)["answer"].take()
    };
    let fits = post(102_400, true, "/hash");
    assert_ok(&fits);
    assert_ok(&post(102_400, false, "/hash"));
    let declared = post(102_401, true, "/hash");
    assert_eq!((&declared["status"], &declared["end"]), (&json!(413), &json!("clean")));
    assert_eq!(scene.backends[0].stats()["paths"]["/hash"], 2, "not even begun");
    let streamed = post(500_000, false, "/hash");
    assert_eq!((&streamed["status"], &streamed["end"]), (&json!(413), &json!("clean")));
    // The response has begun when the limit is passed: neither half may look complete.
    let answered = post(500_000, false, "/echo-body");
    assert_eq!((&answered["status"], &answered["end"]), (&json!(200), &json!("reset")));
    assert_eq!(reached(&scene, "request_body_size"), 3.0);
    let stats = scene.backends[0].stats();
    assert_eq!(stats["resets_received"], 2, "{stats}");
    assert_eq!(scene.spooky.metrics().sum("spooky_endpoint_failures_total", &[]), 0.0);
    let unlimited = limited(&[("max_request_body", json!("unlimited"))]);
    let args = json!({ "path": "/hash", "length": 500_000 });
    assert_ok(&unlimited.target.run("upload", args, SOON)["answer"]);
}
