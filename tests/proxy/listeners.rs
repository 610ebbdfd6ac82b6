//! Listeners come, move, change and go on a reload, and nobody's request notices.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spooky_tests::clients::Target;
use spooky_tests::spooky::Spooky;
use spooky_tests::wait;

use crate::reload::reload;
use spooky_tests::scene::{SOON, Scene, Turn, assert_ok, loopback};

/// A scene whose clients need not end for a listener to close.
fn scene() -> Scene {
    Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/shutdown/drain_timeout", json!("120s"))
    })
}

fn at(scene: &Scene, address: SocketAddr) -> Target {
    scene.target.at(address)
}

/// The first listener under another name at another address.
fn another(config: &Value, name: &str, address: SocketAddr) -> Value {
    let mut listener = config["listeners"][0].clone();
    listener["name"] = json!(name);
    listener["bind"] = json!(address.to_string());
    listener
}

fn listeners(spooky: &Spooky, state: &str) -> f64 {
    spooky.metrics().sum("spooky_listeners", &[("state", state)])
}

/// Ten requests are in flight on the first listener while `change` takes it away; `then` looks at what is there meanwhile.
fn leaves_in_order(scene: &mut Scene, change: impl FnOnce(&mut Value), then: impl FnOnce(&Scene)) {
    let mut client = scene.target.start("drain", json!({ "path": "/delay/2000", "count": 10 }));
    client.event("started", SOON);
    reload(&mut scene.spooky, "taken", change);
    client.event("goaway", Duration::from_secs(2));
    then(scene);
    let result = client.result(SOON);
    let answers = result["answers"].as_array().cloned().unwrap_or_default();
    assert_eq!(answers.len(), 10);
    answers.iter().for_each(assert_ok);
    assert_eq!(result["closed_with"], 0x100, "H3_NO_ERROR: {result:#}");
}

#[test]
fn one_comes_and_one_goes() {
    let mut scene = scene();
    let (first, second) = (scene.target.address, loopback());
    let newcomer = at(&scene, second);
    reload(&mut scene.spooky, "taken", |config| {
        let listener = another(config, "second", second);
        config["listeners"].as_array_mut().expect("a list").push(listener);
    });
    assert_ok(&newcomer.fetch("/"));
    assert_ok(&scene.target.fetch("/"));
    assert_eq!(listeners(&scene.spooky, "open"), 2.0);

    let without_first = |config: &mut Value| {
        config["listeners"].as_array_mut().expect("a list").remove(0);
    };
    leaves_in_order(&mut scene, without_first, |scene| {
        assert_eq!(listeners(&scene.spooky, "closing"), 1.0);
        let refused = scene.target.run("connect", json!({ "timeout": 1.0 }), SOON);
        assert_eq!(refused["connected"], false, "{refused:#}");
        assert_ok(&newcomer.fetch("/"));
    });
    wait::until_true("the first is closed", SOON, || listeners(&scene.spooky, "closing") == 0.0);
    UdpSocket::bind(first).expect("its address is free again");
    assert_ok(&newcomer.fetch("/"));
    assert_eq!(listeners(&scene.spooky, "open"), 1.0);
}

#[test]
fn one_moves() {
    let mut scene = scene();
    let next = loopback();
    let newcomer = at(&scene, next);
    let moved = |config: &mut Value| config["listeners"][0]["bind"] = json!(next.to_string());
    leaves_in_order(&mut scene, moved, |_| assert_ok(&newcomer.fetch("/")));
    let log = scene.spooky.log();
    assert!(log.contains(&format!("listening udp {next}")), "{log}");
}

#[test]
fn one_that_went_comes_back_and_changes_its_name() {
    let mut scene = scene();
    let second = loopback();
    let mut kept = Value::Null;
    let swap = |config: &mut Value| {
        kept = config["listeners"][0].clone();
        config["listeners"][0] = another(config, "second", second);
    };
    leaves_in_order(&mut scene, swap, |_| {});
    let refused = scene.target.run("connect", json!({ "timeout": 1.0 }), SOON);
    assert_eq!(refused["connected"], false, "the first is gone: {refused:#}");
    reload(&mut scene.spooky, "taken", |config| config["listeners"][0] = kept.clone());
    let returned = |config: &mut Value| config["listeners"][0]["name"] = json!("renamed");
    assert_ok(&scene.target.fetch("/"));
    reload(&mut scene.spooky, "taken", returned);
    assert_ok(&scene.target.fetch("/"));
    assert_eq!(listeners(&scene.spooky, "open"), 1.0);
}

#[test]
fn an_address_is_never_without_an_open_door() {
    let mut scene = scene();
    let mut old = scene.target.start("drain", json!({ "path": "/hang", "count": 2 }));
    old.event("started", SOON);
    // It goes elsewhere and comes back while the one that was there keeps its connections until they end.
    let (here, elsewhere) = (scene.target.address, loopback());
    for address in [elsewhere, here] {
        reload(&mut scene.spooky, "taken", |config| {
            config["listeners"][0]["bind"] = json!(address.to_string());
        });
        if address == elsewhere {
            old.event("goaway", Duration::from_secs(2));
        }
    }
    let only_the_first = || listeners(&scene.spooky, "closing") == 1.0;
    wait::until_true("nobody was elsewhere", SOON, only_the_first);
    assert_eq!(listeners(&scene.spooky, "closing"), 1.0, "it has requests in flight");
    // Without kernel programs, the kernel's hash brings some of them to sockets of the old one.
    for _connection in 0..16 {
        assert_ok(&scene.target.fetch("/"));
    }
    assert_eq!(listeners(&scene.spooky, "closing"), 1.0, "it was open all the while");
    drop(old);
}

#[test]
fn new_limits_are_for_new_connections() {
    let mut scene = scene();
    let fields: Vec<[String; 2]> = (0..30).map(|n| [format!("x-{n}"), n.to_string()]).collect();
    let many = json!({ "path": "/", "headers": fields });
    let request = |scene: &Scene| {
        let mut result = scene.target.run("requests", json!({ "requests": [many.clone()] }), SOON);
        result["answers"][0].take()
    };
    assert_ok(&request(&scene));
    let mut held = scene.target.start("hold", json!({ "connections": 3 }));
    held.event("open", SOON);
    reload(&mut scene.spooky, "taken", |config| {
        config["listeners"][0]["http3"] = json!({ "max_fields": 20 });
        config["listeners"][0]["quic"] = json!({ "max_streams": 7 });
    });
    let refused = request(&scene);
    assert_eq!(refused["status"], 431, "{refused:#}");
    assert_ok(&scene.target.fetch("/"));
    held.stop();
    let fates = held.result(SOON);
    assert_eq!(fates["answered"], 3, "those that were there stay: {fates}");
}

#[test]
fn what_the_system_refuses_changes_nothing() {
    let mut scene = scene();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port of the test's own");
    let address = taken.local_addr().expect("bound");
    reload(&mut scene.spooky, "refused", |config| {
        config["access"] = json!({ "deny": ["127.0.0.0/8"] });
        config["listeners"][0]["bind"] = json!(address.to_string());
    });
    assert_ok(&scene.target.fetch("/"));
    let log = scene.spooky.log();
    let told = [&address.to_string() as &str, "another process", "ss -ulpn"];
    assert!(told.iter().all(|text| log.contains(text)), "{log}");
    assert_eq!((listeners(&scene.spooky, "open"), listeners(&scene.spooky, "closing")), (1.0, 0.0));
}

#[test]
fn a_key_in_use_is_not_exchanged() {
    let mut scene = scene();
    reload(&mut scene.spooky, "refused", |config| {
        config["listeners"][0]["quic"] = json!({ "cid": { "server_id": "0x00002a" } });
    });
    assert!(scene.spooky.log().contains("another config_id"), "{}", scene.spooky.log());
    assert_ok(&scene.target.fetch("/"));
}

/// Connections that are there get connection IDs of the new configuration, give back the others, and go on.
#[test]
fn another_configuration_of_ids_reaches_the_connections_there_are() {
    let mut scene = scene();
    let args = json!({
        "connections": 4, "parallel": 2, "reconnect": false, "path": "/bytes/10000", "report_every": 50,
    });
    let mut load = scene.target.start("load", args);
    load.event_where("progress", SOON, |event| event["done"].as_u64() > Some(100));
    reload(&mut scene.spooky, "taken", |config| {
        config["listeners"][0]["quic"] = json!({ "cid": { "config_id": 5 } });
    });
    let from = load.event("progress", SOON)["done"].as_u64().unwrap_or(0);
    load.event_where("progress", SOON, |event| event["done"].as_u64() > Some(from + 400));
    load.stop();
    let result = load.result(SOON);
    assert_eq!((&result["errors"], &result["configurations"]), (&json!([]), &json!([5])));
    let opened = scene.spooky.metrics().sum("spooky_connections_accepted_total", &[]);
    assert_eq!(opened, 4.0, "{result:#}");
}

#[test]
fn what_does_not_end_is_cut_off_in_time() {
    let mut scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/shutdown/drain_timeout", json!("1s"))
    });
    let next = loopback();
    let mut client = scene.target.start("drain", json!({ "path": "/hang", "count": 2 }));
    client.event("started", SOON);
    let asked = Instant::now();
    reload(&mut scene.spooky, "taken", |config| {
        config["listeners"][0]["bind"] = json!(next.to_string());
    });
    let result = client.result(SOON);
    assert!(asked.elapsed() > Duration::from_millis(800), "{:?}", asked.elapsed());
    assert_eq!(result["closed_with"], 0x102, "H3_INTERNAL_ERROR: {result:#}");
    wait::until_true("it is closed", SOON, || listeners(&scene.spooky, "closing") == 0.0);
    assert_ok(&at(&scene, next).fetch("/"));
}
