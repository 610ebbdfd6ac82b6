//! SIGHUP: the file is taken whole or not at all, and nobody's connection notices.

use serde_json::{Value, json};
use spooky_tests::certs::{Authority, KeyType};
use spooky_tests::clients::Target;
use spooky_tests::spooky::Spooky;

use spooky_tests::scene::{SOON, Scene, Turn, assert_ok, field};

/// Two upstreams, of which the first gets everything.
fn scene() -> Scene {
    Scene::with(Turn::shared(), 2, |config, backends| {
        config.upstream("first", &backends[..1]).upstream("second", &backends[1..]).route(
            "all",
            json!({ "path_prefix": "/" }),
            "first",
        )
    })
}

/// See [`Spooky::reload`].
pub(crate) fn reload(spooky: &mut Spooky, result: &str, change: impl FnOnce(&mut Value)) {
    spooky.reload(result, change);
}

fn origin(scene: &Scene) -> Option<String> {
    let answer = scene.target.fetch("/");
    assert_ok(&answer);
    field(&answer, "x-origin").map(str::to_owned)
}

#[test]
fn routes_and_lists_change_while_it_serves() {
    let mut scene = scene();
    assert_eq!(origin(&scene).as_deref(), Some("b1"));
    reload(&mut scene.spooky, "taken", |config| config["routes"][0]["upstream"] = json!("second"));
    assert_eq!(origin(&scene).as_deref(), Some("b2"));
    assert_eq!(scene.spooky.metrics().sum("spooky_config_version", &[]), 2.0);
    reload(&mut scene.spooky, "taken", |config| {
        config["access"] = json!({ "deny": ["127.0.0.0/8"] })
    });
    let refused = scene.target.run("connect", json!({ "timeout": 1.0 }), SOON);
    assert_eq!(refused["connected"], false, "{refused:#}");
    let denied = [("reason", "denied")];
    assert!(scene.spooky.metrics().sum("spooky_connections_refused_total", &denied) > 0.0);
    reload(&mut scene.spooky, "taken", |config| config["access"] = json!({}));
    assert_eq!(origin(&scene).as_deref(), Some("b2"));
}

#[test]
fn a_wrong_file_changes_nothing_and_is_told_whole() {
    let mut scene = scene();
    reload(&mut scene.spooky, "refused", |config| {
        config["routes"][0]["upstream"] = json!("second");
        config["routes"][0]["upstrem"] = json!("x");
        config["workers"] = json!({ "pin": "perhaps" });
    });
    assert_eq!(origin(&scene).as_deref(), Some("b1"));
    let log = scene.spooky.log();
    for told in ["upstrem", "workers.pin"] {
        assert!(log.contains(told), "{told} is not in {log}");
    }
}

#[test]
fn a_certificate_is_exchanged_for_new_connections() {
    let mut scene = scene();
    let mut held = scene.target.start("hold", json!({ "connections": 2 }));
    held.event("open", SOON);
    // Another authority's certificate in the same files: clients that trust the old one alone refuse it.
    let other = Authority::new();
    let leaf = other.leaf("edge", &["localhost"], KeyType::Ecdsa);
    reload(&mut scene.spooky, "taken", |config| {
        let files = &config["listeners"][0]["tls"]["certificates"][0];
        for (key, new) in [("cert", &leaf.cert), ("key", &leaf.key)] {
            std::fs::copy(new, files[key].as_str().expect("a path"))
                .expect("files of the test's own");
        }
    });
    let refused = scene.target.run("connect", json!({ "timeout": 5.0 }), SOON);
    assert_eq!(refused["connected"], false, "{refused:#}");
    let trusting = Target::new(scene.target.address, other.file());
    assert_ok(&trusting.fetch("/"));
    held.stop();
    assert_eq!(held.result(SOON)["answered"], 2, "old connections keep theirs");
}

#[test]
fn what_needs_a_restart_is_named_and_refused() {
    let mut scene = scene();
    reload(&mut scene.spooky, "refused", |config| {
        config["routes"][0]["upstream"] = json!("second");
        config["workers"]["count"] = json!(3);
    });
    assert_eq!(origin(&scene).as_deref(), Some("b1"), "not half of it either");
    let log = scene.spooky.log();
    assert!(log.contains("workers.count"), "{log}");
}
