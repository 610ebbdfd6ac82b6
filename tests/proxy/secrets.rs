//! What nobody learns from spooky: row I05. That keys are refused which others can read is in `tests/config/files.rs`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use spooky_tests::process::Process;
use spooky_tests::scene::{SOON, Scene, Turn, assert_ok};

use crate::confinement::{self, NOBODY};
use crate::reload::reload;

/// What must not be read anywhere, each with its name.
fn secrets(key_file: &Path, config: &Value) -> Vec<(&'static str, String)> {
    let pem = config["listeners"][0]["tls"]["certificates"][0]["key"].as_str().expect("a path");
    let pem = fs::read_to_string(pem).expect("the test's own key");
    let body: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    assert!(body.len() >= 2, "{pem}");
    let mut secrets: Vec<_> = body.iter().map(|line| ("private key", (*line).to_owned())).collect();
    let key = fs::read_to_string(key_file).expect("the test's own key");
    let key = key.trim();
    secrets.push(("connection-ID key", key[..32].to_owned()));
    secrets.push(("reset key", key[32..].to_owned()));
    // As a list of octets, which is how Debug would print it.
    let octet = |at: usize| u8::from_str_radix(&key[at * 2..at * 2 + 2], 16).expect("hexadecimal");
    let octets: Vec<String> = (0..4).map(|at| octet(at).to_string()).collect();
    secrets.push(("connection-ID key", octets.join(", ")));
    for name in ["authorization", "cookie", "set-cookie", "proxy-authorization"] {
        secrets.push((name, format!("kept-to-itself-{name}")));
    }
    secrets
}

#[test]
fn i05_secrets_are_in_no_log_and_no_metric() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let key_file = folder.path().join("cid.key");
    fs::write(&key_file, "9c4f1be20d7a3358e6a1c07b42d9f58e5b1c9d3e7f20486ab4d2c6e8f0a19375\n")
        .expect("a file of the test's own");
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).expect("the test's own");
    let mut scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config
            .forward(backends)
            .set("/log", json!({ "level": "debug", "format": "text" }))
            .set("/access_log", json!({ "path": "stdout", "format": "json" }))
            .set("/listeners/0/quic/cid/key_file", json!(key_file))
    });
    let config = fs::read_to_string(scene.spooky.config_file()).expect("the daemon's file");
    let config: Value = serde_json::from_str(&config).expect("written as JSON");
    let secrets = secrets(&key_file, &config);
    let field = |name: &str| json!([name, format!("kept-to-itself-{name}")]);
    let fields = json!([
        field("authorization"),
        field("cookie"),
        field("proxy-authorization"),
        field("set-cookie")
    ]);
    // Served, not routed, malformed, struck by a panic, and sent back by the backend.
    let request = |path: &str| json!({ "path": path, "headers": fields });
    let mut requests = vec![request("/"), request("/nowhere"), request("/fault/request")];
    let mut twice = request("/");
    twice["headers"].as_array_mut().expect("a list").push(json!(["content-length", "x"]));
    requests.push(twice);
    requests.push(json!({ "method": "POST", "path": "/echo", "headers": fields, "body": "hello" }));
    let result = scene.target.run("requests", json!({ "requests": requests }), SOON);
    assert_ok(&result["answers"][0]);
    // A connection that a fault ends, and reloads that are taken and refused.
    let lost = scene.target.start("hold", json!({ "connections": 1, "path": "/fault/connection" }));
    reload(&mut scene.spooky, "taken", |config| config["access"] = json!({}));
    reload(&mut scene.spooky, "refused", |config| {
        config["listeners"][0]["quic"]["cid"]["server_id"] = json!("0x00002a");
    });
    drop(lost);
    let (_, health) = scene.spooky.get("/health").expect("the admin port answers");
    let (_, metrics) = scene.spooky.get("/metrics").expect("the admin port answers");
    let log = scene.spooky.log();
    assert!(log.contains("\"path\":\"/nowhere\""), "the access log is part of it: {log}");
    for (name, secret) in &secrets {
        for (place, text) in [("the log", &log), ("metrics", &metrics), ("health", &health)] {
            assert!(
                !text.contains(secret.as_str()),
                "the {name} ({secret}) is in {place}:\n{text}"
            );
        }
    }
    println!("I05: {} secrets, 0 found in {} octets", secrets.len(), log.len() + metrics.len());
}

/// Without privilege of its own a process of the same user could otherwise read all of it, and so would a core dump.
#[test]
fn i05_memory_is_closed_to_the_same_user_and_to_core_dumps() {
    if !confinement::possible("i05_memory_is_closed_to_the_same_user_and_to_core_dumps") {
        return;
    }
    let mut scene = confinement::scene(json!({ "user": NOBODY }));
    let process = scene.spooky.process().id();
    assert_ok(&scene.target.fetch("/"));
    let readable = |id: u32| {
        let mut command = Command::new("cat");
        command.arg(format!("/proc/{id}/maps")).uid(NOBODY).gid(NOBODY);
        let output = command.stdin(Stdio::null()).output().expect("cat runs");
        output.status.success() && !output.stdout.is_empty()
    };
    let mut other = Command::new("sleep");
    other.arg("60").uid(NOBODY).gid(NOBODY);
    let other = Process::start("sleep", &mut other);
    assert!(readable(other.id()), "a process that has not said otherwise is open to its user");
    assert!(!readable(process), "spooky is not");
    // proc(5): what cannot be dumped is root's in /proc.
    let owner = fs::metadata(format!("/proc/{process}/mem")).expect("it runs").uid();
    assert_eq!(owner, 0);
    println!("I05: memory and core dump closed (dumpable 0)");
}
