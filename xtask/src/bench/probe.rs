//! What is counted apart from what is timed, in short runs of their own: system calls by `perf`, allocations and
//! instructions of spooky by callgrind; and what other programs of the project measure. A tool that is not there is
//! named as missing. Imports `instance`, `lab`, `place`, `results`, `scenario` and `subject`.

use super::gate::profile::Profile;
use super::instance::{Instance, Load};
use super::lab::{self, Lab};
use super::options::{Extent, Options};
use super::place::Place;
use super::results::{Count, Results};
use super::scenario::{Drive, Scenario};
use super::subject::{Kind, Shape, Subject};
use crate::command::{Failure, output, say, which};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

pub(crate) const SYSTEM_CALLS: &str = "system calls";
pub(crate) const ALLOCATIONS: &str = "allocations";
pub(crate) const INSTRUCTIONS: &str = "instructions";

/// The program that times the XDP program, and the key of its result.
const XDP_COST: &str = "spooky-xdp-cost";
/// Results that other parts of the bench leave beside ours, and what makes them.
const BESIDE: [(&str, &str); 2] =
    [("micro", "cargo bench -p spooky-tests --bench micro"), ("gate", "cargo xtask bench --gate")];

/// # Errors
/// A signal came, or a program of the project does not answer.
pub(crate) fn all(
    lab: &Lab,
    options: &Options,
    scenarios: &[&'static Scenario],
    results: &mut Results,
) -> Result<(), Failure> {
    if lab.extent == Extent::Shape {
        return Ok(());
    }
    if !scenarios.is_empty() {
        let mut subjects = vec![Subject::floor()?];
        subjects.extend(Subject::modes()?);
        subjects.extend(Subject::peers(lab, options)?);
        system_calls(lab, Place::Loopback, subjects, scenarios, results)?;
        if lab.extent == Extent::Full {
            under_callgrind(lab, scenarios, results)?;
        }
    }
    if options.only.is_empty() {
        xdp(lab, results);
        for (name, remedy) in BESIDE {
            let file = lab::results_dir().join(format!("{name}.json"));
            let text = fs::read_to_string(&file).unwrap_or_default();
            match serde_json::from_str(&text).ok().map(as_list) {
                Some(value) => drop(results.others.insert(name.to_owned(), value)),
                None => results.miss(format!("{name}: no {}; `{remedy}` makes it", file.display())),
            }
        }
    }
    Ok(())
}

/// Those of each subject in each scenario.
///
/// # Errors
/// A program of the project does not start, or a signal came.
pub(super) fn system_calls(
    lab: &Lab,
    place: Place,
    subjects: Vec<Subject>,
    scenarios: &[&'static Scenario],
    results: &mut Results,
) -> Result<(), Failure> {
    let Some(perf) = which("perf") else {
        results.miss("system calls: perf is not installed (package linux-perf)");
        return Ok(());
    };
    let try_out = ["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "true"];
    if output(Command::new(&perf).args(try_out)).is_none() {
        results
            .miss("system calls: perf cannot count raw_syscalls:sys_enter here (tracefs, rights)");
        return Ok(());
    }
    for subject in subjects {
        let (name, kind) = (subject.name.clone(), subject.kind);
        let instance = match Instance::start(subject, place, lab) {
            // It has been named when the scenarios were run.
            Err(_) if kind == Kind::Peer && !lab.stop.asked() => continue,
            other => other?,
        };
        for scenario in scenarios.iter().filter(|scenario| scenario.drive != Drive::Half) {
            let requests = scenario.drive.pilot();
            let load = Load::new(requests, &scenario.drive.words(0.0, lab.backend));
            let Some(calls) = calls_of(lab, &instance, &load)? else { continue };
            let per_request = calls / requests as f64;
            say(format_args!("   {:<8} {name:<22} {per_request:>9.2} system calls", scenario.id));
            let (scenario, subject) = (scenario.id.to_owned(), name.clone());
            results.counts.push(Count { scenario, subject, what: SYSTEM_CALLS, per_request });
        }
    }
    Ok(())
}

/// `perf` outside of the namespace, the generator inside. Handshakes are counted too; there are few of them.
fn calls_of(lab: &Lab, instance: &Instance, load: &Load) -> Result<Option<f64>, Failure> {
    let pids: Vec<String> = instance.pids().iter().map(u32::to_string).collect();
    let file = instance.dir().join("perf.csv");
    let mut load = load.clone();
    load.words.extend(["--warm".to_owned(), "0".to_owned()]);
    let generator = instance.generator(lab, &load);
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pids.join(","), "-o"]);
    perf.arg(&file).arg("--").arg(generator.get_program()).args(generator.get_args());
    instance.generate(lab, perf)?;
    Ok(counted(&fs::read_to_string(file).unwrap_or_default()))
}

/// The count of `perf stat -x ,`.
fn counted(csv: &str) -> Option<f64> {
    let line = csv.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

/// Differences of two numbers of requests, so that starting and ending are in neither.
fn under_callgrind(
    lab: &Lab,
    scenarios: &[&'static Scenario],
    results: &mut Results,
) -> Result<(), Failure> {
    if which("valgrind").is_none() {
        results.miss("allocations: valgrind is not installed");
        return Ok(());
    }
    for scenario in scenarios {
        let (few, many) = match scenario.drive {
            Drive::Get => (200, 1200),
            Drive::Download | Drive::Upload => (5, 15),
            Drive::Fresh { .. } => (16, 96),
            Drive::Rate(_) | Drive::Half | Drive::Idle { .. } => continue,
        };
        let (before, after) = (counts(lab, scenario, few)?, counts(lab, scenario, many)?);
        let requests = (many - few) as f64;
        for (what, before, after) in [
            (ALLOCATIONS, before.allocations, after.allocations),
            (INSTRUCTIONS, before.instructions, after.instructions),
        ] {
            let per_request = after.saturating_sub(before) as f64 / requests;
            say(format_args!(
                "   {:<8} {:<22} {per_request:>9.0} {what}",
                scenario.id, "spooky-off"
            ));
            let (scenario, subject) = (scenario.id.to_owned(), "spooky-off".to_owned());
            results.counts.push(Count { scenario, subject, what, per_request });
        }
    }
    Ok(())
}

fn counts(lab: &Lab, scenario: &Scenario, requests: u64) -> Result<Profile, Failure> {
    let file = lab.dir.join("callgrind.out");
    let through = [
        "valgrind".to_owned(),
        "--quiet".to_owned(),
        "--tool=callgrind".to_owned(),
        "--compress-strings=no".to_owned(),
        format!("--callgrind-out-file={}", file.display()),
    ];
    let subject = Subject::spooky("spooky-off", Shape::PLAIN)?;
    let mut instance = Instance::start_through(subject, Place::Loopback, lab, &through)?;
    let words = format!("{} --warm 0", scenario.drive.words(0.0, lab.backend));
    let sample = instance.run(lab, &Load::new(requests, &words))?;
    if sample.failures() > 0 {
        let kinds = sample.kinds();
        return Err(Failure::new(format!("under callgrind requests failed: {kinds}")));
    }
    instance.end_proxy();
    let text = fs::read(&file).unwrap_or_default();
    Profile::parse(&String::from_utf8_lossy(&text))
        .ok_or_else(|| Failure::new(format!("callgrind wrote nothing to {}", file.display())))
}

/// Figures by their names, as a list of times with names; other results as they are.
fn as_list(value: Value) -> Value {
    let Some(figures) = value["figures"].as_object() else { return value };
    let benches = figures.iter().map(|(name, of)| {
        json!({ "name": name, "ns": of["median"], "min": of["min"], "max": of["max"] })
    });
    json!({ "benches": benches.collect::<Vec<Value>>() })
}

fn xdp(lab: &Lab, results: &mut Results) {
    let program = lab.program(XDP_COST);
    let repetitions = if lab.extent == Extent::Full { "9" } else { "3" };
    let mut command = Command::new("taskset");
    command.args(["-c", &lab.cores.client]).arg(&program).args(["--repetitions", repetitions]);
    let said = output(&mut command).unwrap_or_default();
    let line = said.lines().rev().find(|line| line.starts_with('{')).unwrap_or_default();
    match serde_json::from_str(line).ok().and_then(|value| cases(&value)) {
        Some(value) => drop(results.others.insert("xdp".to_owned(), value)),
        None => results.miss(format!("XDP ns a packet: {} has no result", program.display())),
    }
}

/// The rows of the program, flat: one name, one time, and how it compares with the shortest list.
fn cases(value: &Value) -> Option<Value> {
    let time = |name: String, entries: &Value, ns: &Value, of_shortest: &Value| {
        json!({
            "name": name,
            "entries": entries,
            "ns": ns["median"],
            "min": ns["min"],
            "max": ns["max"],
            "of_shortest_list": of_shortest,
        })
    };
    let rows = value["rows"].as_array()?.iter().map(|row| {
        let word = |key: &str| row[key].as_str().unwrap_or("unknown");
        let name = format!("{} {}", word("kind"), word("family"));
        time(name, &row["entries"], &row["ns"], &row["of_shortest_list"])
    });
    let empty = &value["empty_program_ns"];
    let empty = time("an empty program".to_owned(), &Value::Null, empty, &Value::Null);
    Some(json!({ "cases": std::iter::once(empty).chain(rows).collect::<Vec<Value>>() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_is_read() {
        let csv = "# started on\n\n1234,,raw_syscalls:sys_enter,5,100.00,,\n";
        assert_eq!(counted(csv), Some(1234.0));
        assert_eq!(counted("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
        assert_eq!(counted(""), None);
    }

    #[test]
    fn figures_by_name_become_a_list() {
        let figures = json!({"figures": {"a route": {"median": 2.5, "min": 2, "max": 3}}});
        let benches = json!({"benches": [{"name": "a route", "ns": 2.5, "min": 2, "max": 3}]});
        assert_eq!(as_list(figures), benches);
        assert_eq!(as_list(json!({"scenarios": []})), json!({"scenarios": []}));
    }

    #[test]
    fn the_rows_of_the_xdp_program_are_read() {
        let said = json!({"empty_program_ns": {"median": 20, "min": 19, "max": 25}, "rows": [
            {"kind": "pass", "family": "v4", "entries": 100_000, "of_shortest_list": 1.25,
             "ns": {"median": 90, "min": 89, "max": 99}}]});
        let cases = cases(&said).expect("rows");
        assert_eq!(cases["cases"][0]["ns"], json!(20));
        let expected = json!({"name": "pass v4", "entries": 100_000, "ns": 90, "min": 89, "max": 99,
                              "of_shortest_list": 1.25});
        assert_eq!(cases["cases"][1], expected);
        assert_eq!(super::cases(&json!({})), None);
    }
}
