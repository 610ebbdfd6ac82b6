//! The control socket: who may connect, what `spooky ctl` says when something is wrong, and what hostile requests get.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use rustix::process::Signal;
use serde_json::json;
use spooky_tests::control::Control;
use spooky_tests::scene::{SOON, Scene, Turn};
use spooky_tests::spooky::Spooky;

pub(crate) fn scene(control: &Control) -> Scene {
    Scene::with(Turn::shared(), 1, |config, backends| control.configure(config.forward(backends)))
}

#[test]
fn ctl_status_shows_the_daemon_to_people_and_programs() {
    let control = Control::new();
    let mut scene = scene(&control);
    let status = control.json(&["status"]);
    assert_eq!(status["state"], "ready", "{status:#}");
    assert_eq!(status["workers"], json!({"configured": 2, "alive": 2}));
    assert_eq!(status["kernel"]["running"], "off");
    assert_eq!(status["pid"], scene.spooky.process().id());
    let shown = control.ctl(&["status"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    assert!(shown.stdout.contains("workers        2 of 2 run\n"), "{}", shown.stdout);
    // What the admin port shows is here as well; the port itself changes nothing.
    let (code, _) = control.request("GET", "/metrics", b"");
    assert_eq!(code, 200);
    assert_eq!(scene.spooky.get("/status").expect("the admin port answers").0, 404);
    let mode = std::fs::metadata(control.socket()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Gone with the daemon.
    scene.spooky.terminate();
    scene.spooky.process().wait(SOON);
    assert!(!control.socket().exists());
}

#[test]
fn ctl_says_why_it_could_not_ask() {
    let control = Control::new();
    let none = control.ctl(&["status"]);
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("admin.socket"), "{}", none.stderr);
    // A daemon that was killed leaves its socket's file; nobody serves it.
    drop(UnixListener::bind(control.socket()).expect("bind"));
    let dead = control.ctl(&["status"]);
    assert_eq!(dead.code, 2);
    assert!(dead.stderr.contains("start it again"), "{}", dead.stderr);
    assert_eq!(control.ctl(&["no-such-verb"]).code, 2);
}

#[test]
fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
    let control = Control::new();
    let mut scene = scene(&control);
    let inode = |control: &Control| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(control.socket()).expect("the socket").ino()
    };
    let first = inode(&control);
    // Another daemon with the same socket, and nothing else in common.
    let mut config: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(scene.spooky.config_file()).expect("its file"),
    )
    .expect("written as JSON");
    config["listeners"][0]["bind"] = json!("127.0.0.1:0");
    config["admin"]["bind"] = json!("127.0.0.1:0");
    let refused = Spooky::refused(&config.to_string());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.text.contains("admin.socket") && refused.text.contains("another process"),
        "{refused:?}"
    );
    assert_eq!(inode(&control), first);
    assert_eq!(control.json(&["status"])["state"], "ready");

    scene.spooky.process().signal(Signal::KILL);
    scene.spooky.process().wait(SOON);
    assert!(std::fs::metadata(control.socket()).expect("it stays").file_type().is_socket());
    scene.restart();
    assert_eq!(control.json(&["status"])["state"], "ready");

    // What is no socket is not touched.
    let other = Control::new();
    std::fs::write(other.socket(), "precious").expect("a file");
    config["admin"]["socket"] = json!(other.socket());
    let refused = Spooky::refused(&config.to_string());
    assert!(refused.text.contains("no socket"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(other.socket()).expect("still there"), "precious");
}

/// Whatever comes over the socket, the daemon answers or closes, and serves on.
#[test]
fn hostile_requests_are_answered_or_cut_off() {
    let control = Control::new();
    let scene = scene(&control);
    for (method, target, content, status) in [
        ("GET", "/nothing", &b""[..], 404),
        ("POST", "/status", b"{}", 405),
        ("DELETE", "/health", b"", 405),
        ("GET", "/status", &[b'x'; 65 << 10], 413),
        ("GET", "/status?x=%00&&==&x", b"\0\xff", 200),
    ] {
        let (code, answer) = control.request(method, target, content);
        assert_eq!(code, status, "{method} {target}: {answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    for octets in [
        &b"\0\0\0\0"[..],
        b"GET",
        b"GET /status HTTP/1.1\r\ncontent-length: 18446744073709551616\r\n\r\n",
        b"POST /status HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        long.as_bytes(),
    ] {
        let answer = control.raw(octets);
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    // Connections that say nothing do not shut others out for ever: they are put out in time.
    let idle: Vec<_> = (0..64)
        .map(|_| std::os::unix::net::UnixStream::connect(control.socket()).expect("connect"))
        .collect();
    assert_eq!(control.json(&["status"])["state"], "ready");
    drop(idle);
    assert_eq!(scene.stop().code(), Some(0));
}
