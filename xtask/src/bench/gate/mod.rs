//! `bench --gate`: instructions a request, in user space, by the difference of two request counts under callgrind, and
//! allocations a request from the same runs. They repeat to a fraction of a percent whatever the machine does besides, so
//! they can stop a change where a time cannot. Imports `command`, `process` and, of `lab`, where results go.
//!
//! The kernel's share is not seen: system calls have to be counted beside it (docs/codex/decisions/0061).

mod baseline;
pub(crate) mod profile;
mod run;

use super::lab::{commit, results_dir};
use super::options::Options;
use crate::command::{Failure, cargo, output, root, say, step, target_dir, which};
use baseline::{Baseline, Cost, Machine};
use run::Bench;
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Above its baseline by more than this, in percent, a scenario fails.
const ALLOWED: f64 = 3.0;
/// Two runs that differ by more than this, in percent, are followed by a third; the median counts.
const REPEATS: f64 = 0.7;

/// What is asked, and how often: the cost of the smaller count is all that is not a request.
#[derive(Debug)]
struct Scenario {
    id: &'static str,
    arguments: &'static str,
    few: u64,
    many: u64,
}

const SCENARIOS: [Scenario; 5] = [
    Scenario {
        id: "get",
        arguments: "-c 10 -m 10 --path /bytes/1024 --expect 1024",
        few: 300,
        many: 2300,
    },
    Scenario {
        id: "down",
        arguments: "-c 1 -m 1 --path /bytes/1048576 --expect 1048576",
        few: 4,
        many: 24,
    },
    Scenario { id: "up", arguments: "-c 1 -m 1 --path /hash --body 1048576", few: 4, many: 24 },
    Scenario {
        id: "fresh",
        arguments: "-c 4 --fresh --path /bytes/1024 --expect 1024",
        few: 20,
        many: 120,
    },
    Scenario {
        id: "resumed",
        arguments: "-c 4 --fresh --resume --path /bytes/1024 --expect 1024",
        few: 20,
        many: 120,
    },
];

/// One row of the answer.
#[derive(Debug)]
struct Row {
    id: &'static str,
    cost: Cost,
    /// Greatest minus least of the runs, in percent of the cost.
    spread: f64,
    /// In percent of the baseline's instructions, where it has the scenario.
    change: Option<f64>,
}

/// # Errors
/// A program cannot be built or started, a request failed, or a scenario costs too much. A tool that is missing, or a
/// baseline of another compiler or processor, is said aloud and is no error.
pub(crate) fn run(options: &Options, bless: bool) -> Result<(), Failure> {
    if which("valgrind").is_none() {
        say("SKIPPED gate: valgrind is not installed (cargo xtask setup --bench)");
        return Ok(());
    }
    let file = root().join("tests/load/baseline.json");
    let here = Machine::here()?;
    let baseline = Baseline::read(&file)?;
    if !bless {
        let Some(baseline) = &baseline else {
            return Err(Failure::new(format!(
                "{} is missing: bench --gate --bless",
                file.display()
            )));
        };
        if let Some(difference) = baseline.machine.difference(&here) {
            say(format_args!(
                "SKIPPED gate: {difference}; instructions of the two cannot be compared"
            ));
            return Ok(());
        }
    }
    let bin = match &options.bin {
        Some(bin) => bin.clone(),
        None => build()?,
    };
    let rows = measure(options, bin, baseline.as_ref())?;
    show(&rows);
    keep(&rows)?;
    if bless {
        let costs = rows.iter().map(|row| (row.id.to_owned(), row.cost)).collect();
        Baseline { machine: here, costs }.write(&file, baseline)?;
        say(format_args!(
            "wrote {}: the commit that changes it says why the cost moved",
            file.display()
        ));
        return Ok(());
    }
    judge(&rows)
}

fn build() -> Result<PathBuf, Failure> {
    let mut build = cargo();
    let programs = ["spooky", "spooky-load", "spooky-origin", "spooky-devcert"];
    build.args(["build", "--release", "-p", "spooky-user", "-p", "spooky-tests"]);
    for program in programs {
        build.args(["--bin", program]);
    }
    step("build with full optimisation", &mut build)?;
    Ok(target_dir().join("release"))
}

fn measure(
    options: &Options,
    bin: PathBuf,
    baseline: Option<&Baseline>,
) -> Result<Vec<Row>, Failure> {
    let bench = Bench::new(bin)?;
    let mut rows = Vec::new();
    for scenario in &SCENARIOS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == scenario.id) {
            continue;
        }
        let mut costs = vec![cost(&bench, scenario)?, cost(&bench, scenario)?];
        if spread(&costs) > REPEATS {
            costs.push(cost(&bench, scenario)?);
        }
        let spread = spread(&costs);
        let cost = median(&mut costs);
        let change = baseline.and_then(|baseline| baseline.change(scenario.id, cost));
        rows.push(Row { id: scenario.id, cost, spread, change });
    }
    if rows.is_empty() {
        let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.id).collect();
        return Err(Failure::usage(format!("--only: the gate knows {}", known.join(", "))));
    }
    Ok(rows)
}

/// What one more request costs.
fn cost(bench: &Bench, scenario: &Scenario) -> Result<Cost, Failure> {
    let few = bench.run(scenario.arguments, scenario.few)?;
    let many = bench.run(scenario.arguments, scenario.many)?;
    let each = |few: u64, many: u64| {
        (many as f64 - few as f64) / (scenario.many - scenario.few).max(1) as f64
    };
    Ok(Cost {
        instructions: each(few.instructions, many.instructions),
        allocations: each(few.allocations, many.allocations),
    })
}

fn spread(costs: &[Cost]) -> f64 {
    let all = || costs.iter().map(|cost| cost.instructions);
    let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    (most - least) / least.max(1.0) * 100.0
}

/// Of two, their mean.
fn median(costs: &mut [Cost]) -> Cost {
    costs.sort_by(|a, b| a.instructions.total_cmp(&b.instructions));
    let middle = &costs[(costs.len() - 1) / 2..=costs.len() / 2];
    let mean = |of: fn(&Cost) -> f64| middle.iter().map(of).sum::<f64>() / middle.len() as f64;
    Cost {
        instructions: mean(|cost| cost.instructions),
        allocations: mean(|cost| cost.allocations),
    }
}

fn show(rows: &[Row]) {
    say(format_args!(
        "{:<8} {:>16} {:>9} {:>12} {:>9}",
        "", "instructions", "spread", "allocations", "change"
    ));
    for row in rows {
        let change = row.change.map_or_else(|| "new".to_owned(), |it| format!("{it:+.2} %"));
        say(format_args!(
            "{:<8} {:>16.0} {:>7.2} % {:>12.1} {change:>9}",
            row.id, row.cost.instructions, row.spread, row.cost.allocations
        ));
    }
}

/// For the tables of the bench.
fn keep(rows: &[Row]) -> Result<(), Failure> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "scenario": row.id,
                "instructions": row.cost.instructions.round(),
                "spread_percent": (row.spread * 100.0).round() / 100.0,
                "allocations": (row.cost.allocations * 10.0).round() / 10.0,
                "change_percent": row.change.map(|change| (change * 100.0).round() / 100.0),
            })
        })
        .collect();
    let file = results_dir().join("gate.json");
    let text = format!("{:#}\n", json!({ "commit": commit(), "scenarios": rows }));
    fs::create_dir_all(results_dir())
        .and_then(|()| fs::write(&file, text))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))
}

fn judge(rows: &[Row]) -> Result<(), Failure> {
    let dearer: Vec<String> = rows
        .iter()
        .filter_map(|row| Some((row.id, row.change.filter(|change| *change > ALLOWED)?)))
        .map(|(id, change)| format!("{id} {change:+.2} %"))
        .collect();
    if !dearer.is_empty() {
        return Err(Failure::new(format!(
            "a request costs more instructions than {ALLOWED} % above the baseline: {}. If that is the price of \
             something, `bench --gate --bless` and say what in the commit",
            dearer.join(", ")
        )));
    }
    for row in rows.iter().filter(|row| row.change.is_none_or(|change| change < -ALLOWED)) {
        say(format_args!("{}: `bench --gate --bless` keeps this cost", row.id));
    }
    Ok(())
}

/// The compiler that builds, and what of the processor BoringSSL and memcpy choose their code by.
fn compiler() -> Option<String> {
    let mut rustc = Command::new("rustc");
    let text = output(rustc.current_dir(root()).arg("-vV"))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    Some(format!("rustc {} {}", field("release: ")?, field("host: ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(instructions: f64) -> Cost {
        Cost { instructions, allocations: 1.0 }
    }

    #[test]
    fn the_middle_counts() {
        assert_eq!(median(&mut [of(110.0), of(100.0)]).instructions, 105.0);
        assert_eq!(median(&mut [of(110.0), of(100.0), of(101.0)]).instructions, 101.0);
        assert!((spread(&[of(100.0), of(103.0)]) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn only_what_is_dearer_fails() {
        let row = |change| Row { id: "get", cost: of(1.0), spread: 0.0, change };
        assert!(judge(&[row(Some(2.9)), row(Some(-50.0)), row(None)]).is_ok());
        let failure = judge(&[row(Some(1.0)), row(Some(3.1))]).expect_err("too dear");
        assert!(failure.to_string().contains("get +3.10 %"), "{failure}");
    }
}
