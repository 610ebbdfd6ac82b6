//! The bars that spooky has to reach, beside what was measured: met, missed or not measured. Every bar that is about
//! spooky as such is judged in each of its modes. Reads results.

use super::grid::Grid;
use crate::bench::place::Place;
use crate::bench::results::{Results, Table};
use crate::bench::sample::Figure;
use crate::bench::subject::{BACKEND, FLOOR, MODES, is_own};
use serde_json::Value;

/// What a bar says of one thing measured.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    /// "1", as the list of targets counts.
    number: &'static str,
    text: &'static str,
    limit: Limit,
    /// Who, and how much; nothing when it was not measured.
    measured: Vec<(String, f64)>,
    /// Why it cannot be judged here.
    caveat: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {}", short(limit)),
            Self::AtLeast(limit) => format!("≥ {}", short(limit)),
        }
    }
}

/// Two places at most, none that say nothing.
fn short(limit: f64) -> String {
    let text = format!("{limit:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Bar {
    fn verdict(&self) -> String {
        if let Some(caveat) = self.caveat {
            return caveat.to_owned();
        }
        let met = self.measured.iter().filter(|(_, value)| self.limit.is_met(*value)).count();
        match (met, self.measured.len()) {
            (_, 0) => "not measured".to_owned(),
            (met, all) if met == all => "met".to_owned(),
            (0, _) => "MISSED".to_owned(),
            _ => {
                let missed = self.measured.iter().filter(|(_, value)| !self.limit.is_met(*value));
                let names: Vec<&str> = missed.map(|(name, _)| name.as_str()).collect();
                format!("MISSED by {}", names.join(", "))
            }
        }
    }

    fn figures(&self) -> String {
        let figure = |(name, value): &(String, f64)| {
            let digits = if *value >= 10.0 { 1 } else { 2 };
            let value = format!("{value:.digits$}");
            if name.is_empty() { value } else { format!("{name} {value}") }
        };
        self.measured.iter().map(figure).collect::<Vec<_>>().join(", ")
    }
}

/// All bars as a table.
pub(super) fn grid(results: &Results, enough_cores: bool) -> Grid {
    let mut grid = Grid::new("bars", &["", "bar", "limit", "measured", "verdict"]).of_text();
    for bar in all(results, enough_cores) {
        let cells = [bar.number.to_owned(), bar.text.to_owned(), bar.limit.text()];
        let mut row = Vec::from(cells);
        row.extend([bar.figures(), bar.verdict()]);
        grid.rows.push(row);
    }
    grid
}

fn all(results: &Results, enough_cores: bool) -> Vec<Bar> {
    let mut bars = costs(results);
    bars.extend(at_a_rate(results));
    bars.extend(idle(results));
    bars.extend(xdp(results.others.get("xdp")));
    bars.extend(shapes(results, enough_cores));
    bars
}

fn bar(
    number: &'static str,
    text: &'static str,
    limit: Limit,
    measured: Vec<(String, f64)>,
) -> Bar {
    Bar { number, text, limit, measured, caveat: None }
}

/// In each mode of spooky.
fn modes(table: Option<&Table>, of: impl Fn(&Table, &str) -> Option<f64>) -> Vec<(String, f64)> {
    let Some(table) = table else { return Vec::new() };
    let short = |mode: &str| mode.trim_start_matches("spooky-").to_owned();
    MODES.iter().filter_map(|mode| Some((short(mode), of(table, mode)?))).collect()
}

fn of_floor(table: &Table, mode: &str) -> Option<f64> {
    table.ratio_to_floor(mode).map(|ratio| ratio.median)
}

fn of_envoy(table: &Table, mode: &str) -> Option<f64> {
    table.ratio(mode, "envoy", Figure::Cost).map(|ratio| ratio.median)
}

fn costs(results: &Results) -> Vec<Bar> {
    let table = |id| results.table(Place::Loopback, id);
    let floor = |number, id, text, limit| {
        bar(number, text, Limit::AtMost(limit), modes(table(id), of_floor))
    };
    let envoy = |number, id, text, limit| {
        bar(number, text, Limit::AtMost(limit), modes(table(id), of_envoy))
    };
    let resumed_of_full = |resumed: &Table, mode: &str| {
        let full = table("fresh")?.summary(mode, Figure::Cost)?;
        Some(resumed.summary(mode, Figure::Cost)?.median / full.median)
    };
    vec![
        floor("1", "get", "GET 1 KiB saturated, of F", 1.5),
        envoy("1", "get", "GET 1 KiB saturated, of Envoy", 0.25),
        floor("2", "down", "download 1 MiB, of F", 1.25),
        envoy("2", "down", "download 1 MiB, of Envoy", 0.65),
        floor("2", "up", "upload 1 MiB, of F", 1.25),
        envoy("2", "up", "upload 1 MiB, of Envoy", 0.65),
        floor("3", "fresh", "new connection + request, of F", 1.25),
        envoy("3", "fresh", "new connection + request, of Envoy", 0.5),
        bar(
            "3",
            "resumed, of a full handshake",
            Limit::AtMost(0.6),
            modes(table("resumed"), resumed_of_full),
        ),
    ]
}

fn at_a_rate(results: &Results) -> Vec<Bar> {
    let table = results.table(Place::Loopback, "rate");
    let best = |table: &Table, mode: &str| {
        let peers = table.subjects.iter().filter(|name| !is_own(name));
        let peers: Vec<String> = peers.cloned().collect();
        table.ratio_to_best(mode, &peers, Figure::P99).map(|ratio| ratio.median)
    };
    vec![
        bar("4", "2,000 requests/s, of Envoy", Limit::AtMost(0.4), modes(table, of_envoy)),
        bar("4", "2,000 requests/s: p99, of the best peer", Limit::AtMost(1.0), modes(table, best)),
    ]
}

fn idle(results: &Results) -> Vec<Bar> {
    let each = |id| {
        let summary = results.table(Place::Loopback, id)?.summary(MODES[1], Figure::Connection);
        summary.map(|summary| summary.median)
    };
    let named = |value: Option<f64>| value.map(|it| (String::new(), it)).into_iter().collect();
    let (few, many) = (each("idle-1000"), each("idle-10000"));
    let ratio = few.zip(many).map(|(few, many)| many / few);
    vec![
        bar("5", "KiB an idle connection, of 1,000", Limit::AtMost(40.0), named(few)),
        bar("5", "KiB of one of 10,000, of one of 1,000", Limit::AtMost(1.2), named(ratio)),
    ]
}

/// Both families, at the shortest list that there is for the verdict.
fn xdp(value: Option<&Value>) -> Vec<Bar> {
    let cases: Vec<&Value> =
        value.and_then(|value| value["cases"].as_array()).into_iter().flatten().collect();
    let name = |case: &Value| case["name"].as_str().unwrap_or_default().to_owned();
    let shortest = |verdict: &str| -> Vec<(String, f64)> {
        let of_shortest = cases.iter().filter(|it| it["of_shortest_list"].is_null());
        let times = of_shortest.filter_map(|case| {
            let family = name(case).strip_prefix(verdict)?.trim().to_owned();
            Some((family, case["ns"].as_f64()?))
        });
        times.collect()
    };
    let growth = cases.iter().filter_map(|case| {
        let is_long = case["entries"].as_u64()? >= 1000;
        is_long.then_some((name(case), case["of_shortest_list"].as_f64()?))
    });
    vec![
        bar("6", "XDP pass, ns", Limit::AtMost(150.0), shortest("pass ")),
        bar("6", "XDP steer, ns", Limit::AtMost(150.0), shortest("steer ")),
        bar("6", "XDP deny hit, ns", Limit::AtMost(60.0), shortest("deny ")),
        bar("6", "XDP, a long list of the shortest", Limit::AtMost(1.5), growth.collect()),
    ]
}

fn shapes(results: &Results, enough_cores: bool) -> Vec<Bar> {
    let table = results.table(Place::Loopback, "shapes");
    let of = |subject: &str, other: &str, figure| -> Vec<(String, f64)> {
        let ratio = table.and_then(|table| table.ratio(subject, other, figure));
        ratio.map(|it| (String::new(), it.median)).into_iter().collect()
    };
    let (one, two) = ("spooky-reuseport", "spooky-reuseport-2-workers");
    let caveat =
        (!enough_cores).then_some("not judged: the client shares the second worker's core");
    let in_turn = of("endpoints-1000", "routes-1", Figure::Cost);
    let hashed = of("endpoints-1000-hash", "endpoints-1-hash", Figure::Cost);
    vec![
        Bar {
            caveat,
            ..bar(
                "7",
                "two workers: requests/s, of one",
                Limit::AtLeast(1.7),
                of(two, one, Figure::Rate),
            )
        },
        bar(
            "7",
            "two workers: CPU a request, of one",
            Limit::AtMost(2.0 / 1.7),
            of(two, one, Figure::Cost),
        ),
        bar(
            "7",
            "10,000 routes, of 1",
            Limit::AtMost(1.1),
            of("routes-10000", "routes-1", Figure::Cost),
        ),
        bar("7", "1,000 endpoints in turn, of 1", Limit::AtMost(1.1), in_turn),
        bar("7", "1,000 endpoints by hash, of 1", Limit::AtMost(1.1), hashed),
    ]
}

/// Where F itself stands, for the head of the page.
pub(super) fn floors(results: &Results) -> Grid {
    let mut grid = Grid::new("F", &["", "bare quiche", "bare backend", "F"]);
    for table in results.tables.iter().filter(|table| table.place == Place::Loopback) {
        let (Some(floor), Some(f)) = (table.summary(FLOOR, Figure::Cost), table.floor()) else {
            continue;
        };
        let backend = table.summary(BACKEND, Figure::Cost);
        let scale = if table.scenario.drive.is_large() { 1000.0 } else { 1.0 };
        let unit = if scale > 1.0 { "ms" } else { "µs" };
        let cells = [Some(floor), backend, Some(f)].map(|it| super::grid::spread(it, scale));
        let mut row = vec![format!("{}, {unit}", table.scenario.title)];
        row.extend(cells);
        grid.rows.push(row);
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::table_of;
    use serde_json::json;

    fn verdict(grid: &Grid, text: &str) -> (String, String) {
        let row = grid.rows.iter().find(|row| row[1] == text).expect("a bar");
        (row[3].clone(), row[4].clone())
    }

    #[test]
    fn a_bar_is_judged_in_every_mode() {
        let round: &[(&str, f64)] = &[
            ("floor", 9.0),
            ("spooky-off", 12.0),
            ("spooky-xdp", 30.0),
            ("envoy", 100.0),
            ("backend", 3.0),
        ];
        let mut results = Results { tables: vec![table_of("get", &[round])], ..Results::default() };
        let bars = grid(&results, true);
        let expected = ("off 1.00, xdp 2.50".to_owned(), "MISSED by xdp".to_owned());
        assert_eq!(verdict(&bars, "GET 1 KiB saturated, of F"), expected);
        let expected = (String::new(), "not measured".to_owned());
        assert_eq!(verdict(&bars, "upload 1 MiB, of F"), expected);
        let xdp = json!({"cases": [
            {"name": "pass v4", "entries": 0, "ns": 100, "of_shortest_list": null},
            {"name": "pass v4", "entries": 100_000, "ns": 200, "of_shortest_list": 2.0}]});
        results.others.insert("xdp".to_owned(), xdp);
        let bars = grid(&results, true);
        assert_eq!(verdict(&bars, "XDP pass, ns"), ("v4 100.0".to_owned(), "met".to_owned()));
        let growth = verdict(&bars, "XDP, a long list of the shortest");
        assert_eq!(growth, ("pass v4 2.00".to_owned(), "MISSED".to_owned()));
    }

    #[test]
    fn limits_are_short() {
        assert_eq!([short(1.5), short(150.0), short(2.0 / 1.7)], ["1.5", "150", "1.18"]);
    }

    #[test]
    fn two_workers_are_not_judged_on_two_cores() {
        let round: &[(&str, f64)] =
            &[("spooky-reuseport", 20.0), ("spooky-reuseport-2-workers", 10.0)];
        let results = Results { tables: vec![table_of("shapes", &[round])], ..Results::default() };
        let text = "two workers: requests/s, of one";
        assert_eq!(verdict(&grid(&results, true), text).1, "met");
        assert!(verdict(&grid(&results, false), text).1.starts_with("not judged"));
    }
}
