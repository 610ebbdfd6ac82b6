//! Steering, whole: four workers behind a veth pair with four queues, XDP and sk_reuseport attached, clients in another
//! namespace. The counters prove that the kernel brought the packets to their owners, and not user space.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spooky_common::cid::Owner;
use spooky_common::map::{KEYS, KEYS_CAPACITY, Key, PORTS, Port, SLOTS, SLOTS_CAPACITY, Slot};
use spooky_tests::backend::Backend;
use spooky_tests::certs::{Authority, KeyType};
use spooky_tests::clients::{Client, Target};
use spooky_tests::config::Config;
use spooky_tests::metrics::Metrics;
use spooky_tests::netns::{self, EDGE, Pair, SERVER_V4, SERVER_V6};
use spooky_tests::origin::body::Content;
use spooky_tests::spooky::Spooky;
use spooky_tests::{bpf, privilege, turn, wait};

use crate::reload::reload;
use spooky_tests::scene::{LONG, SOON, Turn, assert_ok, field};

const EDGE_PORT: u16 = 4433;
pub(crate) const QUEUES: u32 = 4;

/// Dropped from the top: the daemon goes before its namespaces.
pub(crate) struct Stage {
    pub(crate) spooky: Spooky,
    _backends: Vec<Backend>,
    pub(crate) v4: Target,
    pub(crate) v6: Target,
    _authority: Authority,
    pub(crate) pair: Pair,
    _turn: Turn,
}

/// `None`, aloud, without the privilege for it.
pub(crate) fn stage(test: &str, configure: impl FnOnce(Config) -> Config) -> Option<Stage> {
    // The privilege is asked for first: who skips needs no turn.
    privilege::kernel(test).then(|| {
        let turn = Turn::shared();
        stage_on(Pair::new(QUEUES), turn, configure)
    })
}

/// The same with the machine to itself: for what is to happen within a second, and for floods.
pub(crate) fn stage_alone(test: &str, configure: impl FnOnce(Config) -> Config) -> Option<Stage> {
    privilege::kernel(test).then(|| {
        let turn = Turn::alone();
        stage_on(Pair::new(QUEUES), turn, configure)
    })
}

/// The same between namespaces that are there.
pub(crate) fn stage_on(pair: Pair, turn: Turn, configure: impl FnOnce(Config) -> Config) -> Stage {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let backends: Vec<Backend> =
        ["b1", "b2"].map(|name| Backend::start_with(Some(&pair.server), name, any, &[])).into();
    let authority = Authority::new();
    let leaf = authority.leaf("edge", &["localhost"], KeyType::Ecdsa);
    let admin = SocketAddr::from(([127, 0, 0, 1], 9901));
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let (v4, v6) = (SocketAddr::new(SERVER_V4, EDGE_PORT), SocketAddr::new(SERVER_V6, EDGE_PORT));
    let mut listener = Config::new(v6, admin, &leaf).listener();
    listener["name"] = json!("edge6");
    let config = Config::new(v4, admin, &leaf)
        .add_listener(listener)
        .set("/workers/count", json!(QUEUES))
        .set("/ebpf", json!({ "mode": "xdp", "interface": EDGE, "on_failure": "abort" }))
        .forward(&addresses);
    let spooky = Spooky::start_in(Some(&pair.server), &configure(config), admin);
    let at = |address| Target::new(address, authority.file()).within(&pair.clients);
    let (v4, v6) = (at(v4), at(v6));
    Stage { spooky, _backends: backends, v4, v6, _authority: authority, pair, _turn: turn }
}

impl Stage {
    /// The hardware address of the server's interface.
    pub(crate) fn mac_of_edge(&self) -> String {
        let mut cat = self.pair.server.command("cat");
        let output = cat.arg(format!("/sys/class/net/{EDGE}/address")).output().expect("cat runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// What the counters say about steering since `before`.
#[derive(Debug)]
pub(crate) struct Steered {
    pub(crate) xdp_owner: f64,
    pub(crate) reuseport_owner: f64,
    pub(crate) right: f64,
    pub(crate) forwarded: f64,
    pub(crate) lost: f64,
    pub(crate) handshakes: f64,
}

pub(crate) fn steered(stage: &Stage, before: &Metrics) -> Steered {
    let after = stage.spooky.metrics();
    println!("{}", after.changes(before));
    let grew = |name, labels: &[(&str, &str)]| after.growth(before, name, labels);
    Steered {
        xdp_owner: grew("spooky_xdp_frames_total", &[("reason", "owner")]),
        reuseport_owner: grew("spooky_reuseport_packets_total", &[("outcome", "owner")]),
        right: grew("spooky_steer_right_total", &[]),
        forwarded: grew("spooky_steer_forwarded_total", &[]),
        lost: grew("spooky_stray_ring_full_total", &[])
            + grew("spooky_steer_dead_owner_total", &[]),
        handshakes: grew("spooky_handshakes_completed_total", &[]),
    }
}

#[test]
fn requests_come_through_xdp_and_reuseport() {
    let Some(stage) = stage("requests_come_through_xdp_and_reuseport", |config| config) else {
        return;
    };
    assert!(stage.spooky.log().contains("steering:"), "{}", stage.spooky.log());
    let before = stage.spooky.metrics();
    for target in [&stage.v4, &stage.v6] {
        let args =
            json!({ "connections": 24, "parallel": 2, "report_every": 50, "path": "/bytes/20000" });
        let mut load = target.start("load", args);
        load.event_where("progress", LONG, |event| event["done"].as_u64() >= Some(400));
        load.stop();
        let result = load.result(SOON);
        assert_eq!(result["outcome"].as_object().map(serde_json::Map::len), Some(1), "{result:#}");
        let paths = json!({ "paths": ["/", "/trailers", "/bytes/500000?seed=2"] });
        let curl = target.curl("get", paths, SOON);
        for answer in curl["answers"].as_array().into_iter().flatten() {
            assert_eq!((&answer["status"], &answer["error"]), (&json!(200), &Value::Null));
        }
        assert_eq!(curl["answers"][2]["length"], 500_000);
    }
    let seen = steered(&stage, &before);
    assert_eq!(seen.handshakes, 50.0);
    assert!(seen.xdp_owner > 1000.0 && seen.reuseport_owner > 100.0, "{seen:?}");
    assert_eq!((seen.forwarded, seen.lost), (0.0, 0.0), "the kernel was always right: {seen:?}");
    assert!(seen.right > 1000.0, "{seen:?}");
    let metrics = stage.spooky.metrics();
    for worker in ["0", "1", "2", "3"] {
        let accepted =
            metrics.sum("spooky_worker_connections_accepted_total", &[("worker", worker)]);
        assert!(accepted > 0.0, "worker {worker} got none of 50 connections");
    }
}

#[test]
fn e04_two_hundred_rebindings_stay_with_their_owner() {
    let Some(stage) = stage("e04_two_hundred_rebindings_stay_with_their_owner", |config| config)
    else {
        return;
    };
    for target in [&stage.v4, &stage.v6] {
        let before = stage.spooky.metrics();
        let args = json!({
            "path": "/bytes/{length}?seed={seed}", "length": 3_000_000, "connections": 10, "rebinds": 10,
        });
        let result = target.run("rebind", args, LONG);
        let transfers = result["transfers"].as_array().cloned().unwrap_or_default();
        assert_eq!(transfers.len(), 10);
        for transfer in &transfers {
            let seed = transfer["seed"].as_u64().unwrap_or(0);
            assert_eq!(transfer["sha256"], Content::sha256(seed, 3_000_000), "{transfer:#}");
            assert_eq!((&transfer["moved"], &transfer["handshakes"]), (&json!(10), &json!(1)));
            let unbroken = (&transfer["end"], &transfer["reset_code"], &transfer["closed_with"]);
            assert_eq!(unbroken, (&json!("clean"), &Value::Null, &Value::Null), "{transfer:#}");
        }
        let seen = steered(&stage, &before);
        println!("E04: a hundred rebindings through the kernel: {seen:?}");
        assert_eq!(seen.handshakes, 10.0, "no new handshake: {seen:?}");
        assert_eq!(
            (seen.forwarded, seen.lost),
            (0.0, 0.0),
            "the kernel was always right: {seen:?}"
        );
        assert!(seen.reuseport_owner > 100.0 && seen.right > 1000.0, "{seen:?}");
    }
}

/// A client that moves of its own accord writes another of our IDs, from another port: both lead to the same worker.
#[test]
fn e04_a_move_with_another_id_stays_with_its_owner() {
    let test = "e04_a_move_with_another_id_stays_with_its_owner";
    let Some(stage) = stage(test, |config| config) else { return };
    let before = stage.spooky.metrics();
    let args = json!({
        "path": "/bytes/{length}?seed={seed}&rate=2000000", "length": 3_000_000,
        "connections": 8, "rebinds": 4, "change_id": true,
    });
    let result = stage.v4.run("rebind", args, LONG);
    let transfers = result["transfers"].as_array().cloned().unwrap_or_default();
    assert_eq!(transfers.len(), 8);
    for transfer in &transfers {
        let seed = transfer["seed"].as_u64().unwrap_or(0);
        assert_eq!(transfer["sha256"], Content::sha256(seed, 3_000_000), "{transfer:#}");
        let moves = ["moved", "ids_used", "handshakes"].map(|key| transfer[key].as_u64());
        assert_eq!(moves, [Some(4), Some(5), Some(1)], "{transfer:#}");
    }
    let seen = steered(&stage, &before);
    println!("E04: connectionmigration through the kernel: {seen:?}");
    assert_eq!(seen.handshakes, 8.0, "no new handshake: {seen:?}");
    assert_eq!((seen.forwarded, seen.lost), (0.0, 0.0), "the kernel was always right: {seen:?}");
}

#[test]
fn a_blocked_source_gets_nothing_and_its_neighbour_everything() {
    let blocked = [netns::client_v4(0), netns::client_v6(0)];
    let deny: Vec<String> = blocked
        .iter()
        .map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }))
        .collect();
    let test = "a_blocked_source_gets_nothing_and_its_neighbour_everything";
    let Some(stage) =
        stage(test, |config| config.set("/access", json!({ "default": "allow", "deny": deny })))
    else {
        return;
    };
    let pairs: [(&Target, IpAddr, IpAddr); 2] = [
        (&stage.v4, blocked[0], netns::client_v4(1)),
        (&stage.v6, blocked[1], netns::client_v6(1)),
    ];
    for (target, bad, good) in pairs {
        let before = stage.spooky.metrics();
        let refused = target.from(bad).run("connect", json!({ "timeout": 2.0 }), SOON);
        assert_eq!(refused["connected"], false, "{bad}: {refused:#}");
        let after = stage.spooky.metrics();
        let dropped = after.growth(&before, "spooky_xdp_frames_total", &[("reason", "denied")]);
        assert!(dropped >= 2.0, "{bad}: {}", after.changes(&before));
        let received = after.growth(&before, "spooky_datagrams_received_total", &[]);
        assert_eq!(received, 0.0, "nothing of {bad} passed the interface");
        for _request in 0..5 {
            assert_ok(&target.from(good).fetch("/bytes/100000"));
        }
        let denied =
            |metrics: &Metrics| metrics.sum("spooky_xdp_frames_total", &[("reason", "denied")]);
        assert_eq!(denied(&stage.spooky.metrics()), denied(&after), "{good} lost nothing");
    }
}

#[test]
fn lists_of_a_reload_reach_the_kernel_within_a_second() {
    let test = "lists_of_a_reload_reach_the_kernel_within_a_second";
    let Some(mut stage) = stage(test, |config| config) else { return };
    let bad = netns::client_v4(0);
    assert_ok(&stage.v4.from(bad).fetch("/"));
    let written = |stage: &Stage| stage.spooky.metrics().sum("spooky_ebpf_map_writes_total", &[]);
    for (deny, connected) in [(json!([format!("{bad}/32")]), false), (json!([]), true)] {
        let before = written(&stage);
        turn::alone(|| {
            reload(&mut stage.spooky, "taken", |config| {
                config["access"] = json!({ "default": "allow", "deny": deny });
            });
            wait::until_true("the list is in the map", Duration::from_secs(1), || {
                written(&stage) > before
            });
        });
        let before = stage.spooky.metrics();
        let result = stage.v4.from(bad).run("connect", json!({ "timeout": 2.0 }), SOON);
        assert_eq!(result["connected"], connected, "{result:#}");
        let after = stage.spooky.metrics();
        let dropped = after.growth(&before, "spooky_xdp_frames_total", &[("reason", "denied")]);
        assert_eq!(dropped > 0.0, !connected, "{}", after.changes(&before));
    }
}

#[test]
fn ports_of_a_reload_reach_the_kernel_within_a_second() {
    let test = "ports_of_a_reload_reach_the_kernel_within_a_second";
    let Some(mut stage) = stage(test, |config| config) else { return };
    let id = stage.spooky.process().id();
    let known = || bpf::array::<Port>(id, PORTS).get(&u32::from(EDGE_PORT + 1), 0);
    let known = || known().expect("the port table can be read") != Port::default();
    assert!(!known());
    let address = SocketAddr::new(SERVER_V4, EDGE_PORT + 1);
    let newcomer = stage.v4.at(address);
    let took = turn::alone(|| {
        let asked = Instant::now();
        reload(&mut stage.spooky, "taken", |config| {
            let mut listener = config["listeners"][0].clone();
            listener["name"] = json!("newcomer");
            listener["bind"] = json!(address.to_string());
            config["listeners"].as_array_mut().expect("a list").push(listener);
        });
        wait::until_true("the port is in the map", SOON, known);
        asked.elapsed()
    });
    // Reading and checking the file included.
    assert!(took < Duration::from_secs(3), "{took:?}");
    let before = stage.spooky.metrics();
    let args = json!({
        "path": "/bytes/{length}?seed={seed}", "length": 1_000_000, "connections": 4, "rebinds": 4,
    });
    let result = newcomer.run("rebind", args, LONG);
    assert_eq!(result["transfers"].as_array().map(Vec::len), Some(4), "{result:#}");
    let seen = steered(&stage, &before);
    assert!(seen.xdp_owner > 100.0 && seen.reuseport_owner > 50.0, "{seen:?}");
    assert_eq!((seen.handshakes, seen.forwarded, seen.lost), (4.0, 0.0, 0.0), "{seen:?}");

    reload(&mut stage.spooky, "taken", |config| {
        config["listeners"].as_array_mut().expect("a list").pop();
    });
    wait::until_true("the port has left the map", SOON, || !known());
    assert_ok(&stage.v4.fetch("/"));
}

#[test]
fn weights_of_a_reload_reach_the_kernel_within_a_second() {
    let test = "weights_of_a_reload_reach_the_kernel_within_a_second";
    let Some(mut stage) = stage(test, |config| {
        config
            .set("/workers/weights", json!([1, 1, 2, 0]))
            .set("/workers/placement", json!("static"))
    }) else {
        return;
    };
    let id = stage.spooky.process().id();
    let shares = || {
        let slots = bpf_slots(id);
        [0, 1, 2, 3].map(|worker| slots.iter().filter(|slot| **slot == Some(worker)).count())
    };
    assert_eq!(shares(), [64, 64, 128, 0]);
    let mut held = turn::alone(|| {
        let mut held = stage.v4.start("hold", json!({ "connections": 12 }));
        held.event("open", SOON);
        reload(&mut stage.spooky, "taken", |config| {
            config["workers"]["weights"] = json!([0, 0, 0, 7]);
        });
        wait::until_true("the slots are worker 3's", Duration::from_secs(1), || {
            shares() == [0, 0, 0, 256]
        });
        held
    });
    let before = stage.spooky.metrics();
    for _connection in 0..8 {
        assert_ok(&stage.v4.fetch("/"));
    }
    let accepted = |worker| {
        let name = "spooky_worker_connections_accepted_total";
        stage.spooky.metrics().growth(&before, name, &[("worker", worker)])
    };
    assert_eq!(["0", "1", "2", "3"].map(accepted), [0.0, 0.0, 0.0, 8.0]);
    held.stop();
    let fates = held.result(SOON);
    assert_eq!(fates["answered"], 12, "connections stay where they are: {fates}");
}

#[test]
fn h05_spoiled_maps_cost_a_hop_and_no_request() {
    let Some(mut stage) = stage("h05_spoiled_maps_cost_a_hop_and_no_request", |config| config)
    else {
        return;
    };
    let args =
        json!({ "connections": 16, "parallel": 2, "report_every": 50, "path": "/bytes/5000" });
    let mut load = stage.v4.start("load", args);
    load.event_where("progress", LONG, |event| event["done"].as_u64() >= Some(100));
    let before = stage.spooky.metrics();
    let id = stage.spooky.process().id();
    let mut slots = bpf::array::<Slot>(id, SLOTS);
    let mut keys = bpf::array::<Key>(id, KEYS);
    let first = slots.get(&0, 0).expect("the slot table can be read");
    let generation = first.owner().map_or(0, |owner| owner.generation);
    let everyone = Slot::live(Owner { worker: 0, generation });
    // The kernel reads no connection ID any more, and takes every packet for a new flow of worker 0. Again and again:
    // the control plane may put right what it finds wrong.
    let mut spoil = || {
        for index in 0..KEYS_CAPACITY {
            keys.set(index, Key::new(None), 0).expect("the key table can be written");
        }
        for index in 0..SLOTS_CAPACITY {
            slots.set(index, everyone, 0).expect("the slot table can be written");
        }
    };
    wait::until_true("strays handed on", SOON, || {
        spoil();
        let after = stage.spooky.metrics();
        after.growth(&before, "spooky_steer_forwarded_total", &[]) > 500.0
    });
    for _request in 0..5 {
        spoil();
        let answer = stage.v4.fetch("/");
        assert_ok(&answer);
        assert!(field(&answer, "x-origin").is_some());
    }
    load.stop();
    let result = load.result(SOON);
    let outcome = result["outcome"].as_object().cloned().unwrap_or_default();
    assert_eq!(outcome.keys().collect::<Vec<_>>(), ["200 clean"], "{result:#}");
    let seen = steered(&stage, &before);
    assert!(seen.forwarded > 500.0, "{seen:?}");
    assert_eq!(seen.lost, 0.0, "{seen:?}");
    assert!(stage.spooky.stop().success());
}

#[test]
fn a_stalled_worker_gets_nothing_new_and_its_clients_are_told() {
    let name = "a_stalled_worker_gets_nothing_new_and_its_clients_are_told";
    let Some(mut stage) = stage(name, |config| config) else { return };
    let id = stage.spooky.process().id();
    let accepted = |metrics: &Metrics| {
        metrics.sum("spooky_worker_connections_accepted_total", &[("worker", "2")])
    };
    let (mut held, mut stall, its_own) = turn::alone(|| {
        // A worker is given up for dead after five seconds; until then its packets wait for it.
        let args = json!({ "connections": 24, "answer_timeout": 20.0 });
        let mut held = stage.v4.start("hold", args);
        held.event("open", SOON);
        let its_own = accepted(&stage.spooky.metrics());
        assert!(its_own > 0.0, "worker 2 has some of 24 connections");
        let mut stall = Client::stall(id, "worker-2");
        stall.event("stalled", SOON);
        wait::until_true("the control plane sees it", Duration::from_secs(5), || {
            bpf_slots(id).iter().all(|owner| *owner != Some(2))
        });
        (held, stall, its_own)
    });
    for _connection in 0..12 {
        let newcomer = stage.v4.run("connect", json!({ "timeout": 3.0 }), SOON);
        assert_eq!(newcomer["connected"], true, "{newcomer:#}");
    }
    assert_eq!(accepted(&stage.spooky.metrics()), its_own, "nothing new for worker 2");
    held.stop();
    let fates = held.result(SOON);
    println!("{fates}");
    assert_eq!(fates["answered"].as_f64(), Some(24.0 - its_own), "{fates}");
    assert_eq!(fates["stateless reset"].as_f64(), Some(its_own), "{fates}");
    stall.stop();
    stall.result(SOON);
    wait::until_true("it gets new connections again", SOON, || bpf_slots(id).contains(&Some(2)));
    assert_ok(&stage.v4.fetch("/"));
}

/// The worker each slot of the placement table leads to.
fn bpf_slots(id: u32) -> Vec<Option<u8>> {
    let slots = bpf::array::<Slot>(id, SLOTS);
    let worker = |index| slots.get(&index, 0).ok()?.owner().map(|owner| owner.worker);
    (0..SLOTS_CAPACITY).map(worker).collect()
}

#[test]
fn h07_where_xdp_cannot_attach_reuseport_still_steers() {
    let name = "h07_where_xdp_cannot_attach_reuseport_still_steers";
    // The loopback driver takes no program of its own.
    let native =
        json!({ "mode": "xdp", "interface": "lo", "attach": "native", "on_failure": "fallback" });
    let Some(stage) = stage(name, |config| config.set("/ebpf", native)) else { return };
    let log = stage.spooky.log();
    let line = log.lines().find(|line| line.contains("steering:")).unwrap_or_default();
    assert!(line.contains("reuseport"), "which one runs is said: {log}");
    let before = stage.spooky.metrics();
    for target in [&stage.v4, &stage.v6] {
        for _request in 0..5 {
            assert_ok(&target.fetch("/bytes/200000"));
        }
    }
    let seen = steered(&stage, &before);
    assert_eq!((seen.xdp_owner, seen.forwarded), (0.0, 0.0), "{seen:?}");
    assert!(seen.reuseport_owner > 10.0, "{seen:?}");
}
