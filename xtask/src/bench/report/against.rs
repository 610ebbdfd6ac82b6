//! What moved since another result by more than the noise of both. Where a subject has a ratio to the floor, that is
//! compared and not its time: another day, another machine. Reads two results.

use crate::bench::probe::{ALLOCATIONS, INSTRUCTIONS, SYSTEM_CALLS};
use crate::bench::results::Results;
use crate::bench::scenario::by_id;
use crate::bench::stats::{Summary, moved};
use crate::bench::subject::{BACKEND, FLOOR};
use crate::command::Failure;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Figures worth a line; less of each is better. Requests a second are left to the tables: they say more of the machine.
const FIGURES: [(&str, &str); 8] = [
    ("of_floor", "CPU of F"),
    ("cpu_us", "CPU µs/request"),
    ("p99_us", "p99 µs"),
    ("kib_per_connection", "KiB a connection"),
    (SYSTEM_CALLS, "system calls"),
    (ALLOCATIONS, "allocations"),
    (INSTRUCTIONS, "instructions"),
    ("ns", "ns"),
];

/// Place, scenario, subject, figure.
type Key = [String; 4];

/// # Errors
/// `file` is no result of the bench.
pub(super) fn compare(file: &Path, results: &Results) -> Result<String, Failure> {
    let cannot = |why: String| Failure::new(format!("--against {}: {why}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| cannot(error.to_string()))?;
    let old: Value = serde_json::from_str(&text).map_err(|error| cannot(error.to_string()))?;
    let before = figures(&old);
    if before.is_empty() {
        return Err(cannot("no figures in it".to_owned()));
    }
    let about = old["machine"]["commit"].as_str().unwrap_or("an unknown commit");
    Ok(told(about, &before, &figures(&results.json())))
}

fn told(about: &str, before: &BTreeMap<Key, Summary>, after: &BTreeMap<Key, Summary>) -> String {
    let mut lines = Vec::new();
    let mut same = 0;
    for (key, new) in after {
        let Some(old) = before.get(key) else { continue };
        let Some(change) = moved(*old, *new) else {
            same += 1;
            continue;
        };
        let figure = FIGURES.iter().find(|(name, _)| *name == key[3]);
        let Some((_, title)) = figure else { continue };
        let verdict = if change < 0.0 { "better" } else { "WORSE" };
        lines.push(format!(
            "  {:<9} {:<12} {:<24} {title:<18} {:>10.2} -> {:>10.2}  {:>+6.1} %  {verdict}",
            key[0],
            key[1],
            key[2],
            old.median,
            new.median,
            change * 100.0
        ));
    }
    let head =
        format!("against {about}: {} moved by more than the noise, {same} did not", lines.len());
    std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
}

/// Every summary in a result that is worth a line.
fn figures(result: &Value) -> BTreeMap<Key, Summary> {
    let mut figures = BTreeMap::new();
    for table in result["tables"].as_array().into_iter().flatten() {
        let name = |key: &str| table[key].as_str().unwrap_or_default().to_owned();
        for (subject, of) in table["subjects"].as_object().into_iter().flatten() {
            for (figure, _) in FIGURES {
                if !is_told(&name("scenario"), subject, figure, of) {
                    continue;
                }
                if let Some(summary) = summary(&of[figure]) {
                    let key = [name("place"), name("scenario"), subject.clone(), figure.to_owned()];
                    figures.insert(key, summary);
                }
            }
        }
    }
    figures.extend(counts(result));
    figures.extend(times(result));
    figures
}

/// A latency under a fixed load only; a time where there is no ratio to the floor; the floor's own not in terms of itself.
fn is_told(scenario: &str, subject: &str, figure: &str, of: &Value) -> bool {
    let is_floor = subject == FLOOR || subject == BACKEND;
    match figure {
        "p99_us" => by_id(scenario).is_some_and(|it| it.drive.is_paced()),
        "of_floor" => !is_floor,
        "cpu_us" => is_floor || !of["of_floor"].is_object(),
        _ => true,
    }
}

/// What was counted once: only the least noise is granted.
fn counts(result: &Value) -> impl Iterator<Item = (Key, Summary)> {
    let counts = result["counts"].as_array().into_iter().flatten();
    counts.filter_map(|count| {
        let name = |key: &str| count[key].as_str().map(str::to_owned);
        let value = count["per_request"].as_f64()?;
        let key = ["counted".to_owned(), name("scenario")?, name("subject")?, name("what")?];
        Some((key, Summary { median: value, min: value, max: value }))
    })
}

/// Nanoseconds that other programs measured.
fn times(result: &Value) -> impl Iterator<Item = (Key, Summary)> {
    let lists = [("xdp", "cases"), ("micro", "benches")].into_iter();
    lists.flat_map(|(program, list)| {
        let entries = result["others"][program][list].as_array().into_iter().flatten();
        entries.filter_map(move |entry| {
            let mut name = entry["name"].as_str()?.to_owned();
            if let Some(entries) = entry["entries"].as_u64() {
                name = format!("{name}, {entries} entries");
            }
            let median = entry["ns"].as_f64()?;
            let end = |key: &str| entry[key].as_f64().unwrap_or(median);
            let summary = Summary { median, min: end("min"), max: end("max") };
            Some(([program.to_owned(), String::new(), name, "ns".to_owned()], summary))
        })
    })
}

fn summary(value: &Value) -> Option<Summary> {
    let number = |name: &str| value[name].as_f64();
    Some(Summary { median: number("median")?, min: number("min")?, max: number("max")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{Count, table_of};
    use serde_json::json;

    fn result(floor: f64, off: f64) -> Results {
        let round: &[(&str, f64)] = &[("floor", floor), ("spooky-off", off), ("backend", 1.0)];
        Results { tables: vec![table_of("get", &[round])], ..Results::default() }
    }

    fn compared(old: &Results, new: &Results) -> String {
        told("x", &figures(&old.json()), &figures(&new.json()))
    }

    #[test]
    fn what_moved_is_told_and_noise_is_not() {
        let text = compared(&result(9.0, 20.0), &result(9.0, 20.5));
        assert!(text.starts_with("against x: 0 moved"), "{text}");
        let text = compared(&result(9.0, 20.0), &result(9.0, 30.0));
        let line = text.lines().find(|line| line.contains("CPU of F")).expect("a line");
        assert!(line.contains("+50.0 %  WORSE"), "{text}");
        let text = compared(&result(9.0, 20.0), &result(9.0, 10.0));
        assert!(text.contains("better") && !text.contains("WORSE"), "{text}");
    }

    #[test]
    fn a_slower_machine_is_no_slower_spooky() {
        let text = compared(&result(9.0, 20.0), &result(19.0, 40.0));
        assert!(
            !text.lines().any(|line| line.contains("spooky-off") && line.contains("CPU")),
            "{text}"
        );
    }

    #[test]
    fn counts_and_nanoseconds_are_compared_too() {
        let of = |calls: f64, ns: f64| {
            let mut results = result(9.0, 20.0);
            results.counts.push(Count {
                scenario: "get".to_owned(),
                subject: "spooky-off".to_owned(),
                what: SYSTEM_CALLS,
                per_request: calls,
            });
            let xdp = json!({"cases": [{"name": "pass v4", "entries": 0, "ns": ns}]});
            results.others.insert("xdp".to_owned(), xdp);
            results
        };
        let text = compared(&of(1.0, 50.0), &of(2.0, 40.0));
        let line = |part: &str| text.lines().find(|line| line.contains(part)).unwrap_or_default();
        assert!(line("system calls").contains("WORSE"), "{text}");
        assert!(line("pass v4, 0 entries").contains("better"), "{text}");
    }

    #[test]
    fn what_is_no_result_is_refused() {
        let file = std::env::temp_dir().join(format!("spooky-against-{}.json", std::process::id()));
        fs::write(&file, "{}").expect("a file");
        assert!(compare(&file, &result(1.0, 1.0)).is_err());
        fs::write(&file, result(9.0, 20.0).json().to_string()).expect("a file");
        assert!(compare(&file, &result(9.0, 30.0)).is_ok_and(|text| text.contains("WORSE")));
        let _ = fs::remove_file(file);
    }
}
