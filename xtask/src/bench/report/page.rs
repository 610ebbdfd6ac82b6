//! docs/performance.md and its charts: written whole, never by hand. What a person has to say about the figures is in
//! docs/codex/performance.md. Reads results, writes files.

use super::chart::{Panel, draw};
use super::{bars, grid, write};
use crate::bench::place::Place;
use crate::bench::results::{Results, Table};
use crate::bench::sample::Figure;
use crate::bench::scenario::{Cast, Drive};
use crate::command::Failure;
use std::path::Path;

/// A chart, the heading of its section, and the scenarios in it.
const SECTIONS: [(&str, &str, &[&str]); 6] = [
    ("requests", "Small requests", &["get", "rate"]),
    ("bodies", "Bodies", &["down", "up"]),
    ("connections", "New connections", &["fresh", "resumed"]),
    ("latency", "Latency at half of the capacity", &["half"]),
    ("memory", "Many connections", &["idle-1000", "idle-10000", "active"]),
    ("shapes", "Routes, endpoints, workers, TLS to the backend", &["shapes"]),
];

/// # Errors
/// A file cannot be written.
pub(super) fn write_all(root: &Path, results: &Results, enough_cores: bool) -> Result<(), Failure> {
    let docs = root.join("docs");
    for place in Place::ALL {
        for (name, _, ids) in SECTIONS {
            let panels = panels(results, place, ids);
            if !panels.is_empty() {
                write(&docs.join(chart_file(place, name)), &draw(&panels))?;
            }
        }
    }
    write(&docs.join("performance.md"), &page(results, enough_cores))
}

fn chart_file(place: Place, name: &str) -> String {
    match place {
        Place::Loopback => format!("performance/{name}.svg"),
        Place::Veth => format!("performance/{name}-veth.svg"),
        Place::Card => format!("performance/{name}-kernel.svg"),
    }
}

fn page(results: &Results, enough_cores: bool) -> String {
    let mut page = String::from(include_str!("page-head.txt"));
    page.push_str("\n| | |\n|---|---|\n");
    for (name, value) in &results.machine {
        page.push_str(&format!("| {name} | {} |\n", value.replace('|', "\\|")));
    }
    page.push_str("\n## Bars\n\nWhat spooky has to reach, measured on loopback; a bar is met when every mode meets it.\n\n");
    page.push_str(&bars::grid(results, enough_cores).markdown());
    page.push_str("\n## The floor\n\n");
    page.push_str(&bars::floors(results).markdown());
    for place in Place::ALL {
        for section in SECTIONS {
            page.push_str(&section_of(results, place, section));
        }
    }
    for grid in grid::of_others(results) {
        page.push_str(&format!("\n## {}\n\n{}", capital(&grid.title), grid.markdown()));
    }
    if !results.missing.is_empty() {
        page.push_str("\n## Not measured\n\n");
        for missing in &results.missing {
            page.push_str(&format!("- {}\n", missing.lines().next().unwrap_or_default()));
        }
    }
    page.push_str(include_str!("page-tail.txt"));
    page
}

fn section_of(results: &Results, place: Place, section: (&str, &str, &[&str])) -> String {
    let (name, heading, ids) = section;
    let tables: Vec<&Table> = ids.iter().filter_map(|id| results.table(place, id)).collect();
    if tables.is_empty() {
        return String::new();
    }
    let on = if place == Place::Veth { " (veth pair, MTU 1500)" } else { "" };
    let chart = chart_file(place, name);
    let mut text = format!("\n## {heading}{on}\n\n![{heading}{on}]({chart})\n");
    for table in tables {
        let grid = grid::of_table(table, results);
        let rounds = grid::about_rounds(table);
        text.push_str(&format!("\n### {}\n\n{}\n{rounds}.\n", grid.title, grid.markdown()));
    }
    text
}

fn panels(results: &Results, place: Place, ids: &[&str]) -> Vec<Panel> {
    let tables = ids.iter().filter_map(|id| results.table(place, id));
    tables.map(panel).filter(|panel| !panel.bars.is_empty()).collect()
}

fn panel(table: &Table) -> Panel {
    let (figure, scale, what) = match (table.scenario.cast, table.scenario.drive) {
        (_, Drive::Idle { active: 0, .. }) => (Figure::Connection, 1.0, "KiB a connection"),
        (Cast::Fresh, _) => (Figure::Cost, 1.0, "CPU µs a request"),
        (_, Drive::Half) => (Figure::P99, 1000.0, "p99, ms"),
        (_, drive) if drive.is_large() => (Figure::Cost, 1000.0, "CPU ms a request"),
        _ => (Figure::Cost, 1.0, "CPU µs a request"),
    };
    let bars = table.everybody().into_iter().filter_map(|name| {
        let mut summary = table.summary(&name, figure)?;
        for value in [&mut summary.median, &mut summary.min, &mut summary.max] {
            *value /= scale;
        }
        Some((name, summary))
    });
    let floor = table.floor().filter(|_| figure == Figure::Cost);
    Panel {
        title: format!("{}: {what}", table.scenario.title),
        bars: bars.collect(),
        mark: floor.map(|floor| ("F".to_owned(), floor.median / scale)),
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::table_of;

    fn results() -> Results {
        let round: &[(&str, f64)] =
            &[("floor", 9.0), ("spooky-off", 18.0), ("envoy", 90.0), ("backend", 3.0)];
        Results {
            machine: vec![("date".to_owned(), "today".to_owned())],
            tables: vec![table_of("get", &[round]), table_of("down", &[round])],
            missing: vec!["perf: not here".to_owned()],
            ..Results::default()
        }
    }

    #[test]
    fn the_page_has_what_was_measured_and_says_what_was_not() {
        let page = page(&results(), false);
        for part in [
            "| date | today |",
            "### GET 1 KiB, 10x10, saturated (loopback)",
            "![Bodies](performance/bodies.svg)",
            "- perf: not here",
            "F = 12.0",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("memory.svg") && !page.contains("veth.svg"));
    }

    #[test]
    fn a_panel_is_in_the_unit_of_its_scenario() {
        let results = results();
        let panels = panels(&results, Place::Loopback, &["get", "down"]);
        assert_eq!(panels.len(), 2);
        assert_eq!(panels[0].mark.as_ref().map(|(_, value)| *value), Some(12.0));
        assert!(panels[1].title.ends_with("CPU ms a request"));
    }
}
