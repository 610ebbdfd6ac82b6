//! The rendered text is read back by a parser written for this test alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::*;

#[derive(Debug, Default)]
struct Page {
    help: BTreeMap<String, String>,
    kind: BTreeMap<String, String>,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Page {
    /// Parses the text format 0.0.4 and refuses what its grammar does not allow.
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'));
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("help has a text");
                assert!(page.help.insert(name.into(), help.into()).is_none(), "{name} twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("type has a value");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(page.kind.insert(name.into(), kind.into()).is_none(), "{name} twice");
            } else {
                page.samples.push(parse_sample(line));
            }
        }
        page
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found: Vec<f64> = self
            .samples
            .iter()
            .filter(|(sample, have, _)| {
                sample == name
                    && labels.iter().all(|(key, value)| have.get(*key).is_some_and(|v| v == value))
            })
            .map(|(.., value)| *value)
            .collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0]
    }
}

fn parse_sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let name_end = line.find(['{', ' ']).expect("a sample has a value");
    let (name, mut rest) = line.split_at(name_end);
    assert!(
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
        "{line}"
    );
    let mut labels = BTreeMap::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            if let Some(after) = inside.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = inside.split_once("=\"").expect("a label has a quoted value");
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().expect("a label value ends") {
                    (at, '"') => break at,
                    (_, '\\') => match chars.next().expect("an escape has two characters").1 {
                        'n' => value.push('\n'),
                        c @ ('\\' | '"') => value.push(c),
                        other => panic!("unknown escape {other:?} in {line}"),
                    },
                    (_, c) => value.push(c),
                }
            };
            assert!(labels.insert(key.to_owned(), value).is_none(), "{line}");
            inside = &after[end + 1..];
            inside = inside.strip_prefix(',').unwrap_or(inside);
        }
    }
    (name.into(), labels, rest.trim_start().parse().expect("a sample is a number"))
}

fn busy_registry() -> Registry {
    let registry = Registry::new(2);
    for number in 0..2 {
        let worker = registry.worker(WorkerId(number));
        worker.datagrams_received.add(10);
        worker.connections_active.inc();
        worker.connections_refused[RefusedReason::Denied].inc();
        worker.handshake_seconds.observe(Duration::from_millis(7));
        worker.proxy_errors.inc(3, "pool_full");
        registry.route("api").shard(WorkerId(number)).finished(
            200,
            Duration::from_millis(20),
            5,
            1000,
        );
    }
    registry.route("api").shard(WorkerId(0)).finished(503, Duration::from_secs(1), 0, 0);
    registry.unrouted().shard(WorkerId(1)).finished(404, Duration::ZERO, 0, 0);
    let endpoint = registry.endpoint("api", "b1");
    endpoint.shard(WorkerId(0)).attempt(Attempt::Answered(204));
    endpoint.shard(WorkerId(1)).attempt(Attempt::Failed);
    endpoint.shard(WorkerId(1)).failures.inc(2, "connect_failed");
    endpoint.healthy.set(0);
    endpoint.ejections.inc();
    registry.add_source(Arc::new(|samples: &mut Samples| {
        samples.gauge("spooky_build_info", "Always 1.", &[("version", "1.2.3")], 1.0);
    }));
    registry
}

#[test]
fn every_metric_has_help_and_type_and_parses() {
    let page = Page::parse(&busy_registry().render());
    for (name, labels, value) in &page.samples {
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| page.kind.get(*family).is_some_and(|kind| kind == "histogram"))
            .unwrap_or(name);
        let help = page.help.get(family).unwrap_or_else(|| panic!("{family} has no help"));
        assert!(help.ends_with('.') && help.len() > 8, "{family}: {help}");
        let kind = page.kind.get(family).unwrap_or_else(|| panic!("{family} has no type"));
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
        assert!(family.starts_with("spooky_"), "{family}");
        assert!(value.is_finite(), "{name} {labels:?}");
    }
    let unique: BTreeSet<_> = page.samples.iter().map(|(n, l, _)| (n, l)).collect();
    assert_eq!(unique.len(), page.samples.len(), "a time series appears twice");
}

#[test]
fn shards_are_summed() {
    let page = Page::parse(&busy_registry().render());
    assert_eq!(page.value("spooky_datagrams_received_total", &[]), 20.0);
    assert_eq!(page.value("spooky_worker_datagrams_received_total", &[("worker", "1")]), 10.0);
    assert_eq!(page.value("spooky_connections_active", &[]), 2.0);
    assert_eq!(page.value("spooky_connections_refused_total", &[("reason", "denied")]), 2.0);
    assert_eq!(page.value("spooky_connections_refused_total", &[("reason", "limit")]), 0.0);
    assert_eq!(page.value("spooky_proxy_errors_total", &[("kind", "pool_full")]), 2.0);
    assert_eq!(page.value("spooky_handshake_seconds_bucket", &[("le", "0.005")]), 0.0);
    assert_eq!(page.value("spooky_handshake_seconds_bucket", &[("le", "0.01")]), 2.0);
    assert_eq!(page.value("spooky_handshake_seconds_bucket", &[("le", "+Inf")]), 2.0);
    assert!((page.value("spooky_handshake_seconds_sum", &[]) - 0.014).abs() < 1e-9);
    let api = ("route", "api");
    assert_eq!(page.value("spooky_requests_total", &[api, ("status", "2xx")]), 2.0);
    assert_eq!(page.value("spooky_requests_total", &[api, ("status", "5xx")]), 1.0);
    assert_eq!(page.value("spooky_response_bytes_total", &[api]), 2000.0);
    assert_eq!(page.value("spooky_requests_total", &[("route", UNROUTED), ("status", "4xx")]), 1.0);
    let b1 = [("upstream", "api"), ("endpoint", "b1")];
    let outcome = |outcome| [b1[0], b1[1], ("outcome", outcome)];
    assert_eq!(page.value("spooky_endpoint_attempts_total", &outcome("2xx")), 1.0);
    assert_eq!(page.value("spooky_endpoint_attempts_total", &outcome("failed")), 1.0);
    assert_eq!(page.value("spooky_endpoint_healthy", &b1), 0.0);
    assert_eq!(page.value("spooky_build_info", &[("version", "1.2.3")]), 1.0);
}

/// A status is a number the backend chooses; the series must not grow with it.
#[test]
fn cardinality_is_bounded_by_the_configuration() {
    let registry = Registry::new(4);
    let _ = registry.route("a");
    let _ = registry.endpoint("u", "e");
    registry.route("a").shard(WorkerId(3)).finished(200, Duration::ZERO, 0, 0);
    registry.endpoint("u", "e").shard(WorkerId(3)).failures.inc(0, "x");
    registry.worker(WorkerId(0)).proxy_errors.inc(0, "x");
    let before = Page::parse(&registry.render()).samples.len();
    for status in 0..=u16::MAX {
        registry.route("a").shard(WorkerId(3)).finished(status, Duration::ZERO, 0, 0);
        registry.endpoint("u", "e").shard(WorkerId(3)).attempt(Attempt::Answered(status));
        registry.endpoint("u", "e").shard(WorkerId(3)).failures.inc(0, "x");
        registry.worker(WorkerId(0)).proxy_errors.inc(0, "x");
    }
    assert_eq!(Page::parse(&registry.render()).samples.len(), before);
    assert!(before < 300, "{before} series for one route, one endpoint and four workers");
}

#[test]
fn names_survive_reloads_and_go_when_retired() {
    let registry = Registry::new(1);
    let first = registry.route("keep");
    assert!(Arc::ptr_eq(&first, &registry.route("keep")));
    let _ = (registry.route("go"), registry.unrouted(), registry.endpoint("u", "old"));
    let kept = registry.endpoint("u", "new");
    registry.retain(["keep"], [("u", "new")]);
    assert!(Arc::ptr_eq(&first, &registry.route("keep")));
    assert!(Arc::ptr_eq(&kept, &registry.endpoint("u", "new")));
    let text = registry.render();
    assert!(text.contains(r#"route="keep""#) && text.contains(UNROUTED));
    assert!(!text.contains(r#"route="go""#) && !text.contains(r#"endpoint="old""#));
}

/// Names come from the configuration, which may hold quotes and line ends.
#[test]
fn label_values_are_escaped() {
    let registry = Registry::new(1);
    let odd = "a\"b\\c\nd";
    let _ = registry.route(odd);
    let page = Page::parse(&registry.render());
    assert!(
        page.samples.iter().any(|(_, labels, _)| labels.get("route").is_some_and(|r| r == odd))
    );
}

#[test]
fn a_shard_has_its_own_cache_lines() {
    assert_eq!(align_of::<WorkerMetrics>() % 128, 0);
    assert_eq!(size_of::<RouteShard>() % 128, 0);
    assert_eq!(size_of::<EndpointShard>() % 128, 0);
}
