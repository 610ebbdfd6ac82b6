//! The load generator in each of its modes, against the floor server and once against the proxy: what it counts is right
//! and what is wrong is seen. How fast anything is, is the bench's business and not looked at here.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use spooky_tests::certs::{Authority, KeyType};
use spooky_tests::clients::Target;
use spooky_tests::origin::body::Content;
use spooky_tests::process::Process;
use spooky_tests::programs;

use spooky_tests::scene::{SOON, Scene, Turn, assert_ok, loopback};

/// A floor server.
struct Floor {
    process: Process,
    address: SocketAddr,
    authority: Authority,
    _turn: Turn,
}

impl Floor {
    fn start() -> Self {
        Self::start_at(loopback(), &[])
    }

    fn start_at(listen: SocketAddr, arguments: &[&str]) -> Self {
        let authority = Authority::new();
        let leaf = authority.leaf("floor", &["localhost"], KeyType::Ecdsa);
        let mut command = Command::new(programs::floor());
        command.args(["--listen", &listen.to_string()]).args(arguments);
        command.arg("--cert").arg(&leaf.cert).arg("--key").arg(&leaf.key);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start("spooky-floor", &mut command);
        let stdout = process.child().stdout.take().expect("standard output is a pipe");
        let mut line = String::new();
        // Ends at the latest when the server does.
        BufReader::new(stdout).read_line(&mut line).expect("a pipe can be read");
        assert_eq!(line, format!("listening {listen}\n"));
        Self { process, address: listen, authority, _turn: Turn::shared() }
    }

    /// A run that reads this server's memory and CPU time.
    fn load(&self, arguments: &str) -> Run {
        Run::of(self.address, &format!("--pid {} {arguments}", self.process.id()))
    }
}

/// A run of the generator that has ended.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    line: Value,
    complaints: String,
}

impl Run {
    fn of(address: SocketAddr, arguments: &str) -> Self {
        let mut command = Command::new(programs::load());
        command.args(arguments.split_whitespace()).arg(address.to_string());
        let output = command.stdin(Stdio::null()).output().expect("the generator can be started");
        let line = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), line, complaints }
    }

    fn count(&self, name: &str) -> u64 {
        self.line[name].as_u64().unwrap_or_else(|| panic!("no count {name}: {self:#?}"))
    }

    fn number(&self, pointer: &str) -> f64 {
        let number = self.line.pointer(pointer).and_then(Value::as_f64);
        number.unwrap_or_else(|| panic!("no number at {pointer}: {self:#?}"))
    }

    /// All of so many requests were as they should be.
    #[track_caller]
    fn assert_all(&self, requests: u64) {
        assert_eq!(self.code, Some(0), "{self:#?}");
        assert_eq!((self.count("requests"), self.count("failures")), (requests, 0), "{self:#?}");
        assert!(self.number("/latency_us/max") >= self.number("/latency_us/p50"), "{self:#?}");
    }

    /// Only the generator saw that something was wrong, and it says what.
    #[track_caller]
    fn assert_failures(&self, kinds: &Value) {
        assert_eq!((self.code, &self.line["failure_kinds"]), (Some(1), kinds), "{self:#?}");
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A body as the floor sends it.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

#[test]
fn a_closed_loop_gets_puts_and_counts_octets() {
    let floor = Floor::start();
    let get = floor.load("-c 4 -m 5 -n 400 --warm 20 --path /1k --expect 1024");
    get.assert_all(400);
    assert!(get.count("bytes_in") > 400 * 1024 && get.count("bytes_out") > 0, "{get:#?}");
    assert!(get.number("/proxy_cpu_us") > 0.0 && get.number("/own_cpu_us") > 0.0, "{get:#?}");
    assert!((0.0..=1.01).contains(&get.number("/own_utilisation")), "{get:#?}");
    assert_eq!((&get.line["achieved_rate"], get.count("resumed")), (&Value::Null, 0));
    let down = floor.load("-c 2 -m 2 -n 8 --path /1m --expect 1048576");
    down.assert_all(8);
    let up = floor.load("-c 2 -m 2 -n 8 --path /any --body 1048576 --expect 1024");
    up.assert_all(8);
    assert!(up.count("bytes_out") > 8 << 20, "{up:#?}");
}

#[test]
fn an_answer_that_is_not_as_it_should_be_is_a_failure() {
    let floor = Floor::start();
    let right = hexadecimal(&Sha256::digest(body(3_000_000)));
    floor.load(&format!("-c 1 -n 2 --path /bytes/3000000 --sha256 {right}")).assert_all(2);
    let wrong = hexadecimal(&Sha256::digest(body(2_999_999)));
    let run = floor.load(&format!("-n 3 --warm 0 --path /bytes/3000000 --sha256 {wrong}"));
    run.assert_failures(&json!({ "hash": 3 }));
    floor.load("-n 4 --warm 0 --path /1k --expect 1023").assert_failures(&json!({ "length": 4 }));
    floor.load("-n 5 --warm 0 --path /none").assert_failures(&json!({ "status": 5 }));
    floor.load("-n 5 --warm 0 --path /none --status 404").assert_all(5);
}

#[test]
fn a_rate_is_kept_by_the_schedule_and_not_by_the_server() {
    let floor = Floor::start();
    let run = floor.load("-c 3 -m 50 -n 300 --warm 0 --rate 400 --path /1k --expect 1024");
    run.assert_all(300);
    // The last request is due 299 intervals after the first and cannot end before.
    assert!(run.number("/seconds") >= 299.0 / 400.0, "{run:#?}");
    assert!(run.number("/achieved_rate") <= 400.1, "{run:#?}");
    // One request at a time cannot be so fast: the others wait, and their waiting counts.
    let late = floor.load("-c 1 -m 1 -n 300 --warm 0 --rate 10000000 --path /1k");
    late.assert_all(300);
    let longest = late.number("/latency_us/max") / 1e6;
    assert!(longest >= late.number("/seconds") * 0.8, "{late:#?}");
    assert!(late.number("/achieved_rate") < 5_000_000.0, "{late:#?}");
    assert!(late.number("/lag_us/max") > late.number("/lag_us/p50"), "{late:#?}");
}

#[test]
fn connections_are_new_or_resumed_for_each_request() {
    let floor = Floor::start_at(loopback(), &["--early-data"]);
    let full = floor.load("-c 4 --fresh -n 40 --path /1k --expect 1024");
    full.assert_all(40);
    assert_eq!(full.count("resumed"), 0);
    // The first one of all gets the ticket: measured, or while warming up.
    let resumed = floor.load("-c 4 --fresh --resume -n 40 --warm 0 --path /1k");
    resumed.assert_all(40);
    assert_eq!((resumed.count("resumed"), resumed.count("early_accepted")), (39, 0));
    let warm = floor.load("-c 4 --fresh --resume -n 40 --warm 1 --path /1k");
    warm.assert_all(40);
    assert_eq!(warm.count("resumed"), 40);
    let early = floor.load("-c 4 --fresh --resume --early -n 40 --warm 0 --path /1k");
    early.assert_all(40);
    assert_eq!((early.count("resumed"), early.count("early_accepted")), (39, 39));
    let rate = floor.load("-c 40 --fresh -n 40 --warm 0 --rate 200 --path /1k");
    rate.assert_all(40);
    assert!(rate.number("/seconds") >= 39.0 / 200.0, "{rate:#?}");
}

#[test]
fn a_connection_that_does_not_resume_is_a_failure() {
    // Two servers share a port, and neither can read the other's tickets. That all connections come to one of them has a
    // probability of 2^-59.
    let one = Floor::start();
    let _other = Floor::start_at(one.address, &[]);
    let run = one.load("-c 4 --fresh --resume -n 60 --warm 0 --path /1k");
    let refused = run.count("failures");
    run.assert_failures(&json!({ "not_resumed": refused }));
    assert!(refused > 0 && run.count("resumed") == 59 - refused, "{run:#?}");
}

#[test]
fn idle_connections_are_held_and_some_are_active() {
    let floor = Floor::start();
    let idle = floor.load("--idle 100 -c 20 --hold 0.2 --path /1k");
    idle.assert_all(100);
    assert_eq!(idle.count("connections"), 100);
    assert!(idle.count("resident_after_kib") > idle.count("resident_before_kib"), "{idle:#?}");
    assert!(idle.number("/kib_per_connection") > 0.0, "{idle:#?}");
    assert!(idle.number("/handshake_cpu_us") > 0.0, "{idle:#?}");
    let touched = floor.load("--idle 100 --touch --hold 0.1 --path /1k --expect 1024");
    touched.assert_all(100);
    assert!(touched.count("bytes_in") > 100 * 1024, "{touched:#?}");
    let missed = floor.load("--idle 10 --touch --hold 0.1 --path /none");
    missed.assert_failures(&json!({ "status": 10 }));
    let active = floor.load("--idle 100 --active 5 -m 2 -n 200 --hold 0.1 --path /1k");
    active.assert_all(200);
    assert_eq!(active.count("connections"), 100);
    assert!(active.number("/kib_per_connection") > 0.0, "{active:#?}");
}

#[test]
fn held_connections_are_kept_alive_and_missed_when_they_end() {
    let quick = json!("1s");
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/listeners/0/quic/idle_timeout", quick)
    });
    let address = scene.target.address;
    Run::of(address, "--idle 20 --hold 2.5 --path /").assert_all(20);
    let before = scene.spooky.metrics();
    let run = std::thread::spawn(move || Run::of(address, "--idle 20 --hold 3 --path /"));
    spooky_tests::wait::until_true("20 connections are held", SOON, || {
        let now = scene.spooky.metrics();
        now.growth(&before, "spooky_handshakes_completed_total", &[]) >= 20.0
    });
    assert!(scene.stop().success());
    let run = run.join().expect("the run has not panicked");
    run.assert_failures(&json!({ "held": 20 }));
}

#[test]
fn nobody_there_is_no_result() {
    let _turn = Turn::shared();
    let run = Run::of(loopback(), "-n 10 --path /1k");
    assert_eq!((run.code, &run.line), (Some(2), &Value::Null), "{run:#?}");
    assert!(run.complaints.contains("refused"), "{run:#?}");
    let run = Run::of(loopback(), "--early");
    assert_eq!(run.code, Some(2), "{run:#?}");
}

#[test]
fn an_independent_client_agrees_with_the_floor() {
    let floor = Floor::start_at(loopback(), &["--workers", "2"]);
    let target = Target::new(floor.address, floor.authority.file());
    let down = target.run("download", json!({ "path": "/bytes/3000000" }), SOON);
    assert_ok(&down);
    assert_eq!(down["sha256"], hexadecimal(&Sha256::digest(body(3_000_000))));
    let up = target.run("upload", json!({ "path": "/any", "length": 2_000_000 }), SOON);
    assert_ok(&up["answer"]);
    assert_eq!(up["answer"]["length"], 1024);
    assert_eq!(target.fetch("/none")["status"], 404);
}

#[test]
fn the_proxy_under_the_generator() {
    let scene = Scene::new(1);
    let before = scene.spooky.metrics();
    let hash = Content::sha256(5, 20_000);
    let address = scene.target.address;
    let kept = "-c 4 -m 5 -n 300 --warm 10 --path /bytes/20000?seed=5 --expect 20000";
    Run::of(address, &format!("{kept} --sha256 {hash}")).assert_all(300);
    let resumed = Run::of(address, "-c 4 --fresh --resume -n 30 --warm 0 --path /bytes/1024");
    resumed.assert_all(30);
    assert_eq!(resumed.count("resumed"), 29);
    Run::of(address, "-c 4 -n 100 --warm 0 --rate 500 --path /bytes/1024").assert_all(100);
    Run::of(address, "--idle 50 --touch --hold 0.1 --path /bytes/1024").assert_all(50);
    // Both sides count the same.
    let after = scene.spooky.metrics();
    let grew = |name, labels: &[(&str, &str)]| after.growth(&before, name, labels);
    assert_eq!(grew("spooky_requests_total", &[("status", "2xx")]), 490.0);
    assert_eq!(grew("spooky_handshakes_completed_total", &[]), 88.0);
}
