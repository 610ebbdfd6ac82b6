//! What a request cost when the baseline was written, and on what. Imports `command` only.

use super::compiler;
use crate::command::{Failure, output};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Processor features that valgrind hands on and libraries choose their code by.
const FEATURES: [&str; 11] =
    ["aes", "pclmulqdq", "ssse3", "sse4_2", "avx", "avx2", "bmi1", "bmi2", "fma", "f16c", "rdrand"];

/// What one request costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    pub(super) instructions: f64,
    pub(super) allocations: f64,
}

/// What the number of instructions depends on besides the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    compiler: String,
    valgrind: String,
    processor: String,
}

#[derive(Debug)]
pub(super) struct Baseline {
    pub(super) machine: Machine,
    pub(super) costs: BTreeMap<String, Cost>,
}

impl Machine {
    /// # Errors
    /// Compiler or valgrind do not say what they are.
    pub(super) fn here() -> Result<Self, Failure> {
        let unknown = |what: &str| Failure::new(format!("{what} does not say its version"));
        let valgrind = output(Command::new("valgrind").arg("--version"));
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Ok(Self {
            compiler: compiler().ok_or_else(|| unknown("rustc"))?,
            valgrind: valgrind.ok_or_else(|| unknown("valgrind"))?.trim().to_owned(),
            processor: features(&processor),
        })
    }

    /// Why figures of the two are no comparison.
    pub(super) fn difference(&self, here: &Self) -> Option<String> {
        let pairs = [
            (&self.compiler, &here.compiler),
            (&self.valgrind, &here.valgrind),
            (&self.processor, &here.processor),
        ];
        let (then, now) = pairs.into_iter().find(|(then, now)| then != now)?;
        Some(format!("the baseline is of `{then}`, this is `{now}`"))
    }
}

fn features(cpuinfo: &str) -> String {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |feature: &&&str| flags.split_whitespace().any(|flag| flag == **feature);
    let features: Vec<&str> = FEATURES.iter().filter(has).copied().collect();
    features.join(" ")
}

impl Baseline {
    /// `None` when there is none.
    ///
    /// # Errors
    /// The file is there and not a baseline.
    pub(super) fn read(file: &Path) -> Result<Option<Self>, Failure> {
        let Ok(text) = fs::read_to_string(file) else { return Ok(None) };
        let parsed = serde_json::from_str(&text).ok().and_then(|value| Self::parse(&value));
        let wrong = || Failure::new(format!("{} is no baseline", file.display()));
        parsed.ok_or_else(wrong).map(Some)
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |name: &str| Some(value[name].as_str()?.to_owned());
        let machine = Machine {
            compiler: text("compiler")?,
            valgrind: text("valgrind")?,
            processor: text("processor")?,
        };
        let cost = |(id, cost): (&String, &Value)| {
            let instructions = cost["instructions"].as_f64()?;
            let allocations = cost["allocations"].as_f64()?;
            Some((id.clone(), Cost { instructions, allocations }))
        };
        let costs = value["scenarios"].as_object()?.iter().map(cost).collect::<Option<_>>()?;
        Some(Self { machine, costs })
    }

    /// Writes it; scenarios that were not measured keep what `earlier` has of the same machine.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(mut self, file: &Path, earlier: Option<Self>) -> Result<(), Failure> {
        if let Some(earlier) = earlier.filter(|earlier| earlier.machine == self.machine) {
            for (id, cost) in earlier.costs {
                self.costs.entry(id).or_insert(cost);
            }
        }
        let text = format!("{:#}\n", self.json());
        fs::write(file, text)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))
    }

    fn json(&self) -> Value {
        let cost = |cost: &Cost| {
            json!({
                "instructions": cost.instructions.round(),
                "allocations": (cost.allocations * 10.0).round() / 10.0,
            })
        };
        let costs: serde_json::Map<String, Value> =
            self.costs.iter().map(|(id, of)| (id.clone(), cost(of))).collect();
        json!({
            "about": "instructions and allocations a request in user space; written by `cargo xtask bench --gate --bless`",
            "compiler": self.machine.compiler,
            "valgrind": self.machine.valgrind,
            "processor": self.machine.processor,
            "scenarios": costs,
        })
    }

    /// By how much `cost` is above the baseline, in percent.
    pub(super) fn change(&self, id: &str, cost: Cost) -> Option<f64> {
        let then = self.costs.get(id)?.instructions;
        Some((cost.instructions / then.max(1.0) - 1.0) * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let machine =
            Machine { compiler: "r".into(), valgrind: "v".into(), processor: "aes".into() };
        let cost = Cost { instructions: 1000.0, allocations: 12.5 };
        let baseline =
            Baseline { machine: machine.clone(), costs: BTreeMap::from([("get".into(), cost)]) };
        let read = Baseline::parse(&baseline.json()).expect("a baseline");
        assert_eq!((&read.machine, read.costs.get("get")), (&machine, Some(&cost)));
        let dearer = Cost { instructions: 1031.0, ..cost };
        assert!((read.change("get", dearer).expect("known") - 3.1).abs() < 1e-9);
        assert_eq!(read.change("up", dearer), None);
        assert_eq!(machine.difference(&read.machine), None);
        let other = Machine { compiler: "s".into(), ..machine };
        assert!(other.difference(&read.machine).is_some_and(|text| text.contains("`s`")));
        assert!(Baseline::parse(&json!({ "scenarios": {} })).is_none());
    }

    #[test]
    fn features_are_those_that_matter() {
        assert_eq!(features("model: x\nflags\t\t: fpu avx2 aes sha_ni\n"), "aes avx2");
        assert_eq!(features(""), "");
    }
}
