//! `docs/codex/limits.md` tells the truth: its keys and defaults are the schema's, its metrics are rendered, its tests exist.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use spooky_user::controlplane::abuse::Shown;
use spooky_user::controlplane::config::manual;
use spooky_user::controlplane::figures::Figures;
use spooky_user::controlplane::lists::figures::ListFigures;
use spooky_user::dataplane::exchange::error::{Kind, ProxyError};
use spooky_user::id::WorkerId;
use spooky_user::telemetry::metrics::Registry;

use crate::repository;

/// Cells of a row: what, key, default, metrics, tests.
type Row = [String; 5];

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(repository().join("docs/codex/limits.md")).expect("the table");
    let cells = |line: &str| -> Option<Row> {
        let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let cells: Vec<String> = inner.split(" | ").map(str::to_owned).collect();
        Some(cells.try_into().unwrap_or_else(|cells| panic!("no row of five cells: {cells:?}")))
    };
    text.lines().filter_map(cells).filter(|row| row[0] != "limit").collect()
}

/// What stands in backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Everything that a worker and the control plane count, with the kinds of errors that limits cause.
fn rendered() -> String {
    let registry = Registry::new(1);
    registry.add_source(Arc::new(Figures::new(1)));
    registry.add_source(Arc::new(Shown::default()));
    registry.add_source(Arc::new(ListFigures::default()));
    let worker = registry.worker(WorkerId(0));
    let endpoint = registry.endpoint("app", "b1");
    for kind in [Kind::MemoryScarce, Kind::ConnectionLost] {
        let label = ProxyError::new(kind).label();
        worker.proxy_errors.inc(kind as usize, label);
        endpoint.shard(WorkerId(0)).failures.inc(kind as usize, label);
    }
    registry.render()
}

#[test]
fn every_limit_has_its_key_and_default() {
    let leaves: HashMap<String, _> = manual::leaves().into_iter().collect();
    let rows = rows();
    assert!(rows.len() > 40, "{} rows", rows.len());
    for [what, key, default, _, _] in &rows {
        let [key] = quoted(key)[..] else {
            assert_eq!(key, "fixed", "{what}");
            continue;
        };
        let field = leaves.get(key).unwrap_or_else(|| panic!("{what}: there is no key {key}"));
        match (field.default, &quoted(default)[..]) {
            (Some(set), [said]) => assert_eq!(set.trim_matches('"'), *said, "{key}"),
            (None, []) => assert_eq!(default, "must be given", "{key}"),
            (set, _) => panic!("{key}: the default is {set:?}, not {default}"),
        }
    }
}

/// What says by its name that it bounds something.
#[test]
fn every_key_that_is_a_limit_is_in_the_table() {
    let rows = rows();
    let listed: Vec<&str> = rows.iter().flat_map(|row| quoted(&row[1])).collect();
    // A datagram's size bounds nobody.
    let is_limit = |name: &str| {
        (name.starts_with("max_") || name.ends_with("_timeout")) && name != "max_udp_payload"
    };
    let missing: Vec<String> = manual::leaves()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.rsplit('.').next().is_some_and(is_limit))
        .filter(|path| !listed.contains(&path.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_limit_has_a_metric_that_is_there() {
    let rendered = rendered();
    for [what, key, _, metrics, _] in rows() {
        let metrics = quoted(&metrics);
        assert!(!metrics.is_empty() || key == "fixed" || key == "`admin.bind`", "{what}");
        for metric in metrics {
            let (name, label) = metric.split_once('{').unwrap_or((metric, "}"));
            let label = label.trim_end_matches('}');
            let is_it = |line: &str| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
            };
            assert!(rendered.lines().any(is_it), "{what}: nothing renders {metric}");
        }
    }
}

#[test]
fn every_limit_has_a_test_that_is_there() {
    for [what, _, _, _, tests] in rows() {
        let tests = quoted(&tests);
        assert!(!tests.is_empty(), "{what}");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{what}: {test}"));
            let text = fs::read_to_string(repository().join(file))
                .unwrap_or_else(|error| panic!("{what}: {file}: {error}"));
            let heading = format!("fn {name}()");
            let at = text.find(&heading).unwrap_or_else(|| panic!("{what}: no {test}"));
            let above = text[..at].trim_end();
            assert!(above.ends_with(']') && above.contains("#[test]"), "{what}: {test} is no test");
        }
    }
}
