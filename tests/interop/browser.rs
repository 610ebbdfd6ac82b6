//! Row E07: Chromium over forced QUIC: it takes HTTP/3 from the proxy's origin or fails. Skipped aloud where it is not
//! installed: a browser is no privilege, and not every release has one.

use serde_json::{Value, json};
use spooky_tests::clients::Client;
use spooky_tests::origin::body::Content;
use spooky_tests::scene::{LONG, Scene};

const PICTURES: u64 = 200;
const DOWN: u64 = 10_000_000;
const UP: u64 = 20_000_000;
/// Pages that are opened while the configuration is read anew each time.
const PAGES: u64 = 12;
const PICTURES_A_PAGE: u64 = 20;

/// Whether there is a browser; says aloud when not.
fn has_chromium(test: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|directory| directory.join("chromium").exists());
    if !found {
        println!("SKIPPED {test}: chromium (package chromium) is not installed");
    }
    found
}

fn chromium(scene: &Scene, verb: &str, mut args: Value) -> Client {
    args["certificate"] = json!(scene.authority.directory().join("edge.pem"));
    scene.target.start_chromium(verb, args)
}

/// Every picture is whole, and the page and each of them came over HTTP/3.
#[track_caller]
fn assert_whole(seen: &Value, pictures: u64) {
    assert_eq!((&seen["pictures"], &seen["whole"]), (&json!(pictures), &json!(pictures)), "{seen}");
    assert_eq!(seen["protocols"], json!({ "h3": pictures + 1 }), "{seen}");
}

#[test]
fn e07_a_page_of_two_hundred_objects() {
    if !has_chromium("e07_a_page_of_two_hundred_objects") {
        return;
    }
    let scene = Scene::new(2);
    let before = scene.spooky.metrics();
    let args = json!({ "path": format!("/pictures/{PICTURES}") });
    let seen = chromium(&scene, "page", args).result(LONG);
    let after = scene.spooky.metrics();
    let handshakes = after.growth(&before, "spooky_handshakes_completed_total", &[]);
    println!("E07: page: {seen}, {handshakes} handshakes");
    assert_whole(&seen, PICTURES);
    let answered = [("status", "2xx")];
    assert!(after.growth(&before, "spooky_requests_total", &answered) > PICTURES as f64);
}

#[test]
fn e07_a_download_and_an_upload() {
    if !has_chromium("e07_a_download_and_an_upload") {
        return;
    }
    let scene = Scene::new(1);
    let args = json!({ "down": format!("/bytes/{DOWN}?seed=7"), "up": "/hash", "up_length": UP });
    let result = chromium(&scene, "transfer", args).result(LONG);
    println!("E07: transfer: {result}");
    assert_eq!((&result["status"], &result["up_status"]), (&json!(200), &json!(200)), "{result}");
    assert_eq!(result["sha256"], Content::sha256(7, DOWN), "{result}");
    let taken = (&result["taken"]["length"], &result["taken"]["sha256"]);
    assert_eq!(taken, (&json!(UP), &result["up_sha256"]), "{result}");
    let protocols = result["seen"]["protocols"].as_object().cloned().unwrap_or_default();
    assert_eq!(protocols.keys().collect::<Vec<_>>(), ["h3"], "{result}");
}

#[test]
fn e07_navigation_while_the_configuration_changes() {
    if !has_chromium("e07_navigation_while_the_configuration_changes") {
        return;
    }
    let mut scene = Scene::new(2);
    let args = json!({ "path": format!("/pictures/{PICTURES_A_PAGE}") });
    let mut client = chromium(&scene, "navigate", args);
    let mut reloads: u64 = 0;
    while client.event("page", LONG)["number"].as_u64() < Some(PAGES) {
        reloads += 1;
        let patience = json!(format!("{}s", 30 + reloads));
        scene.spooky.reload("taken", |config| {
            config["upstreams"]["app"]["timeouts"] = json!({ "response_header": patience });
        });
    }
    client.stop();
    let pages = client.result(LONG)["pages"].as_array().cloned().unwrap_or_default();
    println!("E07: navigation: {} pages, {reloads} reloads", pages.len());
    assert!(pages.len() as u64 >= PAGES && reloads >= 3, "{reloads} reloads");
    for seen in &pages {
        assert_whole(seen, PICTURES_A_PAGE);
    }
}
