//! Rows and columns of text: on a terminal, in Markdown. Imports `results`, `sample` and `probe` for what the columns are.

use crate::bench::probe::{ALLOCATIONS, INSTRUCTIONS, SYSTEM_CALLS};
use crate::bench::results::{Results, Table};
use crate::bench::sample::Figure;
use crate::bench::scenario::Cast;
use crate::bench::stats::Summary;
use crate::bench::subject::{BACKEND, FLOOR, is_own};
use serde_json::Value;

/// A titled table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) title: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    /// Columns of words, which begin at the left; figures end at the right.
    words: usize,
}

impl Grid {
    pub(super) fn new(title: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(|it| (*it).to_owned()).collect();
        Self { title: title.into(), head, rows: Vec::new(), words: 1 }
    }

    /// No column of figures.
    pub(super) fn of_text(self) -> Self {
        Self { words: self.head.len(), ..self }
    }

    /// Columns under each other.
    pub(super) fn text(&self) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            lines().filter_map(|line| Some(line.get(column)?.chars().count())).max()
        };
        let widths: Vec<usize> =
            (0..self.head.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = format!("{}\n", self.title);
        for line in lines() {
            let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if column < self.words {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            text.push_str(&format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end()));
        }
        text.trim_end().to_owned()
    }

    /// Without the title, which is a heading there.
    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells = cells.iter().map(|cell| cell.replace('|', "\\|"));
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let (left, right) = (self.words, self.head.len().saturating_sub(self.words));
        let rule = format!("{}{}|\n", "|---".repeat(left), "|---:".repeat(right));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}{rule}{rows}", line(&self.head))
    }

    /// Takes out columns that nobody has a figure in.
    fn without_empty_columns(mut self) -> Self {
        for column in (1..self.head.len()).rev() {
            if self.rows.iter().all(|row| row.get(column).is_none_or(|cell| cell == NOTHING)) {
                self.head.remove(column);
                self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
            }
        }
        self
    }
}

pub(super) const NOTHING: &str = "-";

/// All subjects of a scenario with everything that is known of them.
pub(super) fn of_table(table: &Table, results: &Results) -> Grid {
    let drive = table.scenario.drive;
    let large = drive.is_large();
    let unit = if large { "ms" } else { "µs" };
    let each = if drive.is_idle() { "handshake" } else { "request" };
    let others = others(table);
    let mut head = vec![String::new(), format!("CPU {unit}/{each} (min-max)"), "of F".to_owned()];
    head.extend(others.iter().map(|other| format!("of {other}")));
    let rest = if large { "MiB/s" } else { "requests/s" };
    head.extend(
        [rest, "p50 ms", "p99 ms", "p99.9 ms", "client busy", "peak MiB"].map(str::to_owned),
    );
    head.extend(["KiB/connection (min-max)", "system calls", "allocations"].map(str::to_owned));
    head.extend(["instructions", "datagrams in/out", "failed"].map(str::to_owned));
    let title = format!("{} ({})", table.scenario.title, table.place.name());
    let mut grid = Grid { title, head, rows: Vec::new(), words: 1 };
    for name in table.everybody() {
        grid.rows.push(row(table, results, &name, &others));
    }
    grid.without_empty_columns()
}

/// Who the others are compared with: the peers; among shapes of spooky the plainest.
fn others(table: &Table) -> Vec<String> {
    if table.scenario.cast == Cast::Shapes {
        return ["routes-1", "spooky-reuseport"].map(str::to_owned).to_vec();
    }
    table.subjects.iter().filter(|name| !is_own(name)).cloned().collect()
}

fn row(table: &Table, results: &Results, name: &str, others: &[String]) -> Vec<String> {
    let drive = table.scenario.drive;
    let scale = if drive.is_large() { 1000.0 } else { 1.0 };
    let of = |figure| table.summary(name, figure);
    let count = |what| results.count(what, table.scenario.id, name);
    let comparable = name != FLOOR && name != BACKEND && drive.compares_cost();
    let mut row = vec![name.to_owned(), spread(of(Figure::Cost), scale)];
    let of_floor = table.ratio_to_floor(name).filter(|_| comparable);
    row.push(number(of_floor.map(|it| it.median), 2));
    for other in others {
        let ratio = table.ratio(name, other, Figure::Cost).filter(|_| comparable);
        row.push(number(ratio.map(|it| it.median), 2));
    }
    let median = |figure: Figure| of(figure).map(|it| it.median);
    // Connections that do nothing have no latency; how fast they are opened is not asked.
    let timed = |figure| median(figure).filter(|_| !drive.is_idle());
    row.push(number(timed(Figure::Rate), 0));
    for figure in [Figure::P50, Figure::P99, Figure::P999] {
        row.push(number(timed(figure).map(|it| it / 1000.0), 2));
    }
    let busy = timed(Figure::Saturation).map(|it| format!("{:.0} %", it * 100.0));
    row.push(busy.unwrap_or_else(|| NOTHING.to_owned()));
    row.push(number(of(Figure::Peak).map(|it| it.max / 1024.0), 0));
    row.push(spread(of(Figure::Connection), 1.0));
    row.push(number(count(SYSTEM_CALLS), 2));
    row.push(number(count(ALLOCATIONS), 1));
    row.push(number(count(INSTRUCTIONS), 0));
    let datagrams = median(Figure::DatagramsIn).zip(median(Figure::DatagramsOut));
    row.push(datagrams.map_or(NOTHING.to_owned(), |(i, o)| format!("{i:.1} / {o:.1}")));
    row.push(table.failures(name).to_string());
    row
}

/// How many rounds there were, and how noisy their floor.
pub(super) fn about_rounds(table: &Table) -> String {
    let counting = table.rounds.len() - table.thrown_away();
    let mut text = format!("{counting} rounds of {} count", table.rounds.len());
    if let Some(floor) = table.floor() {
        let scale = if table.scenario.drive.is_large() { 1000.0 } else { 1.0 };
        let unit = if scale > 1.0 { "ms" } else { "µs" };
        text.push_str(&format!("; F = {} {unit}", spread(Some(floor), scale)));
    }
    if counting == 0 {
        text.push_str(", so all are shown: the floor was never steady on this machine");
    } else if counting < table.wanted {
        text.push_str(&format!(", fewer than the {} that should: a busy machine", table.wanted));
    }
    if table.scenario.cast == Cast::Fresh {
        text.push_str("; every round is a fresh process");
    }
    text
}

/// XDP costs, micro benches, the gate: whatever lists of named figures the other programs gave.
pub(super) fn of_others(results: &Results) -> Vec<Grid> {
    let titles = [
        ("xdp", "XDP program, ns a packet (test_run)"),
        ("micro", "micro benches"),
        ("gate", "instructions a request (cachegrind)"),
    ];
    let grids =
        titles.into_iter().filter_map(|(key, title)| of_other(results.others.get(key)?, title));
    grids.collect()
}

/// The first list of objects in `value` as a table: its keys are the columns, the name first.
fn of_other(value: &Value, title: &str) -> Option<Grid> {
    let list = value.as_object()?.values().find_map(Value::as_array)?;
    let keys = list.iter().filter_map(Value::as_object).flat_map(|it| it.keys());
    let mut head: Vec<&str> = Vec::new();
    for key in keys {
        if !head.contains(&key.as_str()) {
            head.push(key);
        }
    }
    let order = ["name", "scenario", "entries", "ns", "median", "min", "max"];
    head.sort_by_key(|key| order.iter().position(|it| it == key).unwrap_or(order.len()));
    let title = match value["commit"].as_str() {
        Some(commit) => format!("{title}, commit {commit}"),
        None => title.to_owned(),
    };
    let mut grid = Grid::new(title, &head);
    for entry in list {
        let cell = |key: &&str| match &entry[*key] {
            Value::Null => NOTHING.to_owned(),
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_f64() => {
                format!("{:.2}", number.as_f64().unwrap_or_default())
            }
            other => other.to_string(),
        };
        grid.rows.push(head.iter().map(cell).collect());
    }
    Some(grid)
}

/// `12.1 (11.9-12.4)`.
pub(super) fn spread(summary: Option<Summary>, scale: f64) -> String {
    let Some(Summary { median, min, max }) = summary else { return NOTHING.to_owned() };
    let digits = if scale > 1.0 { 2 } else { 1 };
    let [median, min, max] = [median, min, max].map(|it| format!("{:.digits$}", it / scale));
    format!("{median} ({min}-{max})")
}

pub(super) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or(NOTHING.to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::table_of;
    use serde_json::json;

    #[test]
    fn columns_line_up_and_empty_ones_go() {
        let table = table_of(
            "get",
            &[&[("floor", 10.0), ("spooky-off", 26.0), ("envoy", 104.0), ("backend", 3.0)]],
        );
        let grid = of_table(&table, &Results::default());
        assert!(grid.head.iter().any(|it| it == "of envoy"), "{:?}", grid.head);
        assert!(!grid.head.iter().any(|it| it == "of caddy" || it == "system calls"));
        let text = grid.text();
        assert!(text.contains("GET 1 KiB, 10x10, saturated (loopback)"), "{text}");
        let row = text.lines().find(|line| line.contains("spooky-off")).expect("a row");
        assert!(row.contains("26.0 (26.0-26.0)  2.00      0.25"), "{text}");
        assert_eq!(about_rounds(&table), "1 rounds of 1 count; F = 13.0 (13.0-13.0) µs");
    }

    #[test]
    fn markdown_has_its_rule() {
        let mut grid = Grid::new("t", &["a", "b"]);
        grid.rows.push(vec!["x|y".to_owned(), "1".to_owned()]);
        assert_eq!(grid.markdown(), "| a | b |\n|---|---:|\n| x\\|y | 1 |\n");
    }

    #[test]
    fn lists_of_other_programs_become_tables() {
        let value = json!({"commit": "c", "cases": [{"name": "pass", "entries": 0, "ns": 99.256}, {"name": "deny"}]});
        let grid = of_other(&value, "xdp").expect("a list");
        assert_eq!(grid.head, ["name", "entries", "ns"]);
        assert_eq!(grid.title, "xdp, commit c");
        assert_eq!(grid.rows, [["pass", "0", "99.26"], ["deny", "-", "-"]]);
        assert_eq!(of_other(&json!({"a": 1}), "t"), None);
    }
}
