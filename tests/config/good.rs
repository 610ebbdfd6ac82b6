//! What good files come to: defaults, spellings, names looked up, lists, and what a reload keeps.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use spooky_user::controlplane::config::schema::{EbpfMode, OnFailure};
use spooky_user::controlplane::config::{Config, LogDestination, compile, restart_only_changes};
use spooky_user::dataplane::balance::{HashOn, Policy};
use spooky_user::dataplane::quic::settings::{Congestion, Http3Settings, QuicSettings};
use spooky_user::telemetry::metrics::Registry;

use crate::Folder;

const LISTENERS: &str = "listeners: [{name: edge, bind: \"127.0.0.1:0\", tls: {certificates: \
                         [{cert: \"@/cert.pem\", key: \"@/key.pem\"}]}}]\n";

fn config(folder: &Folder, rest: &str) -> Config {
    folder.load(&format!("{LISTENERS}{rest}")).unwrap_or_else(|errors| panic!("{errors}"))
}

fn app(endpoints: &str) -> String {
    format!(
        "upstreams: {{app: {{endpoints: [{endpoints}]}}}}\nroutes: [{{name: all, upstream: app}}]\n"
    )
}

#[test]
fn defaults_are_those_of_the_data_plane() {
    let folder = Folder::new();
    let config = config(&folder, &app("{address: \"127.0.0.1:80\"}"));
    let listener = &config.listeners[0];
    assert_eq!(listener.quic, QuicSettings::default());
    assert_eq!(listener.http3, Http3Settings::default());
    assert_eq!(listener.quic.congestion, Congestion::Cubic);
    assert_eq!((listener.cid.config_id, listener.cid.server_id), (0, [0; 3]));
    assert!(listener.cid.key.is_none());
    assert_eq!(config.ebpf.mode, EbpfMode::Reuseport);
    assert_eq!(config.ebpf.on_failure, OnFailure::Fallback);
    assert_eq!(config.ebpf.af_xdp, None);
    assert_eq!(config.access_log.destination, LogDestination::Stdout);
    assert_eq!(config.admin.bind, "127.0.0.1:9901".parse().expect("an address"));
    assert_eq!(config.shutdown.drain_timeout, Duration::from_secs(30));
    assert!(config.workers.count >= 1);
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.policy, upstream.attempts), (Policy::RoundRobin, 2));
    assert_eq!(&*upstream.endpoints[0].name, "127.0.0.1:80");
}

#[test]
fn other_spellings_lists_and_names() {
    let folder = Folder::new();
    let rest = "access: {default: deny, allow: [\"192.0.2.7\", \"::1\"], deny: [\"10.0.0.0/8\"], \
                deny_files: [\"@/deny.txt\", \"@/deny.txt\"]}\nupstreams:\n  app:\n    \
                load_balancing: {policy: consistent_hash, hash_on: {cookie: Session}}\n    \
                tls: {ca_file: \"@/ca.pem\"}\n    backends: [{name: b1, address: \
                \"localhost:8443\", weight: 7}]\nroutes: [{name: all, upstream: app, match: {hosts: \
                [EXAMPLE.com, \"*.Example.com\", \"[2001:DB8::1]\"]}}]\n";
    let config = config(&folder, rest);
    assert!(config.access.default_deny);
    assert_eq!((config.access.allow.len(), config.access.deny.len()), (2, 3));
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.policy, Policy::RingHash);
    assert_eq!(upstream.hash_on, HashOn::Cookie("Session".to_owned()));
    assert!(upstream.endpoints[0].address.ip().is_loopback());
    assert_eq!(upstream.endpoints[0].weight, 7);
    let tls = upstream.settings.tls.as_ref().expect("tls is given");
    assert_eq!(tls.settings().sni.as_deref(), Some("localhost"));
    let snapshot = compile(&config, Vec::new(), None, &Registry::new(1));
    for host in ["example.com", "a.b.example.com", "[2001:db8::1]"] {
        assert!(snapshot.routes.find(host, "/").is_some(), "{host}");
    }
    assert!(snapshot.routes.find("example.org", "/").is_none());
    for (address, permitted) in
        [("192.0.2.7", true), ("::1", true), ("192.0.2.8", false), ("203.0.113.1", false)]
    {
        let address = address.parse().expect("an address");
        assert_eq!(snapshot.access.permits(address), permitted, "{address}");
    }
}

#[test]
fn keys_of_connection_ids_are_read_and_never_printed() {
    let folder = Folder::new();
    let text = LISTENERS.replace(
        "name: edge,",
        "name: edge, quic: {cid: {config_id: 3, server_id: \
                                                 \"0x00002a\", key_file: \"@/cid.key\"}},",
    );
    let config = folder
        .load(&(text + &app("{address: \"127.0.0.1:80\"}")))
        .unwrap_or_else(|errors| panic!("{errors}"));
    let cid = &config.listeners[0].cid;
    assert_eq!((cid.config_id, cid.server_id), (3, [0, 0, 0x2a]));
    let key = cid.key.as_ref().expect("a key");
    assert_eq!(key.0[..8], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    assert!(!format!("{config:?}").contains("103, 137"), "the key was printed");
}

#[test]
fn a_reload_keeps_the_health_of_endpoints_that_stay() {
    let folder = Folder::new();
    let registry = Registry::new(1);
    let three = "{name: a, address: \"127.0.0.1:1\"}, {name: b, address: \"127.0.0.1:2\"}, {name: \
                 c, address: \"127.0.0.1:3\"}";
    let first = compile(&config(&folder, &app(three)), Vec::new(), None, &registry);
    for endpoint in &first.clusters[0].endpoints {
        endpoint.health.set(false);
    }
    // b has moved, a is new in another place, d is new.
    let next = "{name: d, address: \"127.0.0.1:4\"}, {name: b, address: \"127.0.0.1:9\"}, {name: \
                a, address: \"127.0.0.1:1\"}";
    let second = compile(&config(&folder, &app(next)), Vec::new(), Some(&first), &registry);
    assert_eq!((first.version, second.version), (1, 2));
    let health: Vec<(&str, bool)> = second.clusters[0]
        .endpoints
        .iter()
        .map(|endpoint| (&*endpoint.name, endpoint.health.is_healthy()))
        .collect();
    assert_eq!(health, [("d", true), ("b", true), ("a", false)]);
    let (old, new) = (&first.clusters[0].endpoints[0], &second.clusters[0].endpoints[2]);
    assert!(Arc::ptr_eq(&old.health, &new.health));
}

#[test]
fn what_a_reload_may_change() {
    let folder = Folder::new();
    let old = config(&folder, &app("{address: \"127.0.0.1:1\"}"));
    let mut new = config(&folder, &app("{address: \"127.0.0.1:2\"}"));
    new.access.default_deny = true;
    new.listeners[0].certificates.clear();
    new.listeners[0].bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 4433));
    new.listeners[0].quic.max_streams += 1;
    new.shutdown.drain_timeout *= 2;
    assert_eq!(restart_only_changes(&old, &new), [""; 0]);

    new.workers.count += 1;
    new.ebpf.mode = EbpfMode::Off;
    new.admin.bind.set_port(1);
    assert_eq!(restart_only_changes(&old, &new), ["workers.count", "ebpf.mode", "admin.bind"]);
}
