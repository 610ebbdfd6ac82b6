//! The table against a naive oracle that looks at every rule, and the cases a reader would ask about.

use proptest::prelude::*;

use super::{Duplicate, HostPattern, PathPattern, Route, Rule, Table};
use crate::id::{ClusterId, RouteId};
use crate::telemetry::metrics::Registry;

thread_local! {
    static METRICS: Registry = Registry::new(1);
}

fn rule(index: usize, hosts: &[&str], path: PathPattern) -> Rule {
    let id = u16::try_from(index).expect("few rules");
    let name = format!("r{index}");
    let metrics = METRICS.with(|registry| registry.route(&name));
    let route = Route { id: RouteId(id), name: name.into(), cluster: ClusterId(id), metrics };
    let hosts = hosts.iter().map(|host| pattern(host)).collect();
    Rule { route, hosts, path }
}

fn pattern(host: &str) -> HostPattern {
    match host.strip_prefix("*.") {
        _ if host == "*" => HostPattern::Any,
        Some(suffix) => HostPattern::Suffix(suffix.into()),
        None => HostPattern::Exact(host.into()),
    }
}

fn prefix(path: &str) -> PathPattern {
    PathPattern::Prefix(path.into())
}

fn exact(path: &str) -> PathPattern {
    PathPattern::Exact(path.into())
}

fn found(table: &Table, host: &str, path: &str) -> Option<usize> {
    table.find(host, path).map(|route| route.id.index())
}

#[test]
fn the_most_specific_host_then_the_most_specific_path() {
    let table = Table::build(vec![
        rule(0, &[], prefix("/")),
        rule(1, &["example.com"], prefix("/api")),
        rule(2, &["example.com"], exact("/api/v1")),
        rule(3, &["example.com"], prefix("/api/v1/")),
        rule(4, &["*.example.com"], prefix("/")),
        rule(5, &["*.eu.example.com", "www.example.org"], prefix("/static")),
        rule(6, &["[::1]"], exact("/")),
    ])
    .expect("no two alike");
    for (host, path, wanted) in [
        ("example.com", "/api/v1", Some(2)),
        ("example.com", "/api/v1/", Some(3)),
        ("example.com", "/api/v1/x", Some(3)),
        ("example.com", "/api/v10", Some(1)),
        ("example.com", "/api", Some(1)),
        ("example.com", "/apix", Some(0)),
        ("a.example.com", "/api", Some(4)),
        ("a.b.c.example.com", "/", Some(4)),
        ("a.eu.example.com", "/static/x", Some(5)),
        ("a.eu.example.com", "/other", Some(4)),
        ("eu.example.com", "/static", Some(4)),
        ("www.example.org", "/static", Some(5)),
        ("www.example.org", "/", Some(0)),
        (".example.com", "/", Some(0)),
        ("notexample.com", "/", Some(0)),
        ("[::1]", "/", Some(6)),
        ("", "*", Some(0)),
        ("", "", Some(0)),
    ] {
        assert_eq!(found(&table, host, path), wanted, "{host} {path}");
    }
}

#[test]
fn nothing_matches_without_a_rule_for_it() {
    assert_eq!(found(&Table::default(), "example.com", "/"), None);
    let table = Table::build(vec![rule(0, &["example.com"], exact("/x"))]).expect("one rule");
    assert_eq!(found(&table, "example.com", "/"), None);
    assert_eq!(found(&table, "example.org", "/x"), None);
    assert_eq!(found(&table, "example.com", "/x/"), None);
}

#[test]
fn rules_that_match_the_same_are_all_named() {
    let rules = vec![
        rule(0, &["a.example", "b.example"], prefix("/api")),
        rule(1, &["c.example", "b.example"], prefix("/api/")),
        rule(2, &[], exact("/api")),
        rule(3, &["*", "a.example", "a.example"], exact("/api")),
    ];
    let duplicates = Table::build(rules).expect_err("three pairs");
    assert_eq!(
        duplicates,
        [
            Duplicate { rule: 1, host: 1, earlier: 0 },
            Duplicate { rule: 3, host: 0, earlier: 2 },
            Duplicate { rule: 3, host: 2, earlier: 3 },
        ]
    );
}

#[test]
fn hostile_hosts_and_paths_cost_no_more_than_the_table_is_deep() {
    let table =
        Table::build(vec![rule(0, &["*.example.com"], prefix("/a/b")), rule(1, &[], prefix("/"))])
            .expect("no two alike");
    let host = format!("{}.example.com", ".".repeat(100_000));
    let path = format!("/a/b{}", "/".repeat(100_000));
    assert_eq!(found(&table, &host, &path), Some(0));
    assert_eq!(found(&table, &".".repeat(100_000), &"/".repeat(100_000)), Some(1));
    assert_eq!(found(&table, "x", "/é/ü"), Some(1));
    // A boundary inside a character must not be cut.
    assert_eq!(found(&table, "ü.é.example.com", "/a/bé"), Some(1));
}

/// Every rule, compared by definition.
fn oracle(rules: &[Rule], host: &str, path: &str) -> Option<usize> {
    let mut best: Option<((usize, usize, usize, usize), usize)> = None;
    for (index, rule) in rules.iter().enumerate() {
        let path_rank = match &rule.path {
            PathPattern::Exact(exact) if exact == path => (1, 0),
            PathPattern::Prefix(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                match path.strip_prefix(prefix) {
                    Some(rest) if rest.is_empty() || rest.starts_with('/') || prefix.is_empty() => {
                        (0, prefix.len())
                    }
                    _ => continue,
                }
            }
            PathPattern::Exact(_) => continue,
        };
        let any = [HostPattern::Any];
        let hosts = if rule.hosts.is_empty() { &any[..] } else { &rule.hosts };
        for pattern in hosts {
            let host_rank = match pattern {
                HostPattern::Any => (0, 0),
                HostPattern::Exact(exact) if exact == host => (2, 0),
                HostPattern::Suffix(suffix)
                    if host
                        .strip_suffix(suffix.as_str())
                        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')) =>
                {
                    (1, suffix.len())
                }
                _ => continue,
            };
            let rank = (host_rank.0, host_rank.1, path_rank.0, path_rank.1);
            if best.is_none_or(|(most, _)| rank > most) {
                best = Some((rank, index));
            }
        }
    }
    best.map(|(_, index)| index)
}

fn host() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]", 1..5).prop_map(|labels| labels.join("."))
}

fn path() -> impl Strategy<Value = String> {
    "(/[ab]{0,2}){0,5}/?"
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let hosts = prop::collection::vec(
        prop_oneof![host(), host().prop_map(|host| format!("*.{host}")), Just("*".to_owned())],
        0..3,
    );
    let path = prop_oneof![
        "(/[ab]{1,2}){0,4}/?".prop_map(PathPattern::Prefix),
        path().prop_map(PathPattern::Exact)
    ];
    prop::collection::vec((hosts, path), 0..20).prop_map(|list| {
        let mut kept: Vec<Rule> = Vec::new();
        for (hosts, path) in list {
            let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
            let mut next = kept.clone();
            next.push(rule(kept.len(), &hosts, path));
            if Table::build(next.clone()).is_ok() {
                kept = next;
            }
        }
        kept
    })
}

proptest! {
    #[test]
    fn agrees_with_the_oracle(
        rules in rules(),
        requests in prop::collection::vec((host(), path()), 1..30),
    ) {
        let table = Table::build(rules.clone()).expect("duplicates were left out");
        for (host, path) in requests {
            prop_assert_eq!(
                found(&table, &host, &path),
                oracle(&rules, &host, &path),
                "{} {}", host, path
            );
        }
    }

    #[test]
    fn any_input_is_answered(rules in rules(), host in ".*", path in ".*") {
        let table = Table::build(rules.clone()).expect("duplicates were left out");
        prop_assert_eq!(found(&table, &host, &path), oracle(&rules, &host, &path));
    }
}
