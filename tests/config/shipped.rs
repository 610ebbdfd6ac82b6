//! What is shipped: `config/*.yaml` loads, `config/spooky.yaml` shows every key at its default, the reference is current.

use std::fs;
use std::path::PathBuf;

use spooky_user::controlplane::config::schema;
use spooky_user::controlplane::config::{Config, manual};

use crate::{Folder, compare, repository};

/// The file with the certificates and keys it names replaced by ones that are there.
fn with_our_files(text: &str) -> String {
    let mut text = text.to_owned();
    for (named, ours) in [
        ("/etc/spooky/cert.pem", "\"@/cert.pem\""),
        ("/etc/spooky/key.pem", "\"@/key.pem\""),
        ("/etc/spooky/ca.pem", "\"@/ca.pem\""),
        ("/etc/spooky/cid.key", "\"@/cid.key\""),
        ("/etc/spooky/deny.txt", "\"@/deny.txt\""),
        ("target/dev/cert.pem", "\"@/cert.pem\""),
        ("target/dev/key.pem", "\"@/key.pem\""),
        ("interface: eth0", "interface: lo"),
    ] {
        text = text.replace(named, ours);
    }
    text
}

fn loaded(folder: &Folder, text: &str) -> Config {
    folder.load(&with_our_files(text)).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Takes the `#` from each `#key`, and from nothing else.
fn uncommented(text: &str) -> String {
    let line = |line: &str| {
        let key = line.trim_start();
        match key.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => {
                format!("{}{rest}\n", &line[..line.len() - key.len()])
            }
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

#[test]
fn every_file_in_config_loads() {
    let folder = Folder::new();
    let mut files: Vec<PathBuf> = ["config", "config/examples"]
        .iter()
        .flat_map(|name| fs::read_dir(repository().join(name)).expect("a folder"))
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    for path in files {
        let text = fs::read_to_string(&path).expect("a readable file");
        if let Err(errors) = folder.load(&with_our_files(&text)) {
            panic!("{}:\n{errors}", path.display());
        }
    }
}

#[test]
fn the_reference_and_the_full_file_are_current() {
    let top = repository();
    let results = [
        compare(&top.join("docs/configuration/reference.md"), &manual::reference()),
        compare(&top.join("config/spooky.yaml"), &manual::sample()),
    ];
    let stale: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

/// Not by comparing with the printer, but by reading what was printed.
#[test]
fn the_full_file_means_what_the_least_file_means() {
    let folder = Folder::new();
    let least = "listeners: [{name: edge, bind: \"0.0.0.0:443\", tls: {certificates: [{cert: \
                 \"@/cert.pem\", key: \"@/key.pem\"}]}}]\nupstreams: {app: {endpoints: [{address: \
                 \"127.0.0.1:8080\"}]}}\nroutes: [{name: all, upstream: app}]\n";
    let full = fs::read_to_string(repository().join("config/spooky.yaml")).expect("it is there");
    assert_eq!(loaded(&folder, &full), loaded(&folder, least));

    // With the sections that are left out by default: their keys hold their own defaults.
    let config = loaded(&folder, &uncommented(&full));
    let upstream = &config.upstreams[0];
    let tls = upstream.settings.tls.as_ref().expect("tls is there now");
    assert!(tls.settings().verify);
    let keepalive = upstream.settings.keepalive.expect("keepalive is there now");
    let keepalive_default = schema::Keepalive::default();
    assert_eq!(keepalive.interval, keepalive_default.interval);
    assert_eq!(keepalive.timeout, keepalive_default.timeout);
    let probe = upstream.health_check.as_ref().expect("health_check is there now");
    let probe_default = schema::HealthCheck::default();
    assert_eq!(probe.path, probe_default.path);
    assert_eq!(probe.interval, probe_default.interval);
    assert_eq!(probe.jitter_percent, probe_default.jitter.0);
    let rate = config.routes[0].rate_limit.expect("rate_limit is there now");
    assert_eq!((rate.requests, rate.burst, rate.per.as_secs()), (100, 100, 1));
}

#[test]
fn every_key_appears_and_every_value_has_a_reload_class_and_a_manual() {
    let full = fs::read_to_string(repository().join("config/spooky.yaml")).expect("it is there");
    let reference = manual::reference();
    let leaves = manual::leaves();
    assert!(leaves.len() > 70, "{}", leaves.len());
    for (path, field) in leaves {
        let key = format!("{}: ", field.name);
        let shown = uncommented(&full)
            .lines()
            .any(|line| line.trim_start().trim_start_matches("- ").starts_with(&key));
        assert!(shown, "{path} is not in config/spooky.yaml");
        assert!(reference.contains(&format!("`{path}`")), "{path} is not in the reference");
        assert!(field.reload.is_some(), "{path} has no reload class");
        assert!(!field.docs.concat().trim().is_empty(), "{path} has no manual");
    }
}
