//! What was measured: tables of rounds of samples, and the figures that are read out of them. Imports `place`,
//! `sample`, `scenario`, `stats` and the names of `subject`.

use super::place::Place;
use super::sample::{Figure, Sample};
use super::scenario::{self, Scenario};
use super::stats::{Summary, ratios, which_count};
use super::subject::{BACKEND, FLOOR, FLOOR_AGAIN};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One pass over all subjects of a scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) samples: BTreeMap<String, Sample>,
}

/// A scenario in a place.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) place: Place,
    pub(crate) scenario: &'static Scenario,
    /// In the order of the rounds, floors and backend left out.
    pub(crate) subjects: Vec<String>,
    pub(crate) rounds: Vec<Round>,
    /// How many rounds should count.
    pub(crate) wanted: usize,
}

/// Figures that are counted apart, in a run that times nothing: system calls, allocations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Count {
    pub(crate) scenario: String,
    pub(crate) subject: String,
    /// What is counted: "system calls", "allocations".
    pub(crate) what: &'static str,
    pub(crate) per_request: f64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) tables: Vec<Table>,
    pub(crate) counts: Vec<Count>,
    /// What other programs of the project said, by their names.
    pub(crate) others: BTreeMap<String, Value>,
    /// What is missing, and why.
    pub(crate) missing: Vec<String>,
    /// Ended before everything was measured.
    pub(crate) is_partial: bool,
}

impl Table {
    pub(crate) fn new(
        place: Place,
        scenario: &'static Scenario,
        subjects: Vec<String>,
        wanted: usize,
    ) -> Self {
        Self { place, scenario, subjects, rounds: Vec::new(), wanted }
    }

    /// Which rounds count, by the floors in them.
    pub(crate) fn counting(&self) -> Vec<bool> {
        // Idle connections are counted in memory, which no neighbour takes.
        if self.scenario.cast == scenario::Cast::Fresh {
            return vec![true; self.rounds.len()];
        }
        let floors = |round: &Round| {
            let costs = [FLOOR, FLOOR_AGAIN].map(|name| round.figure(name, Figure::Cost));
            costs.into_iter().flatten().collect::<Vec<f64>>()
        };
        which_count(&self.rounds.iter().map(floors).collect::<Vec<_>>())
    }

    pub(crate) fn thrown_away(&self) -> usize {
        self.counting().iter().filter(|counts| !**counts).count()
    }

    /// Every round where none counts: figures with a remark are better than none.
    fn kept(&self) -> Vec<&Round> {
        let counting = self.counting();
        if !counting.contains(&true) {
            return self.rounds.iter().collect();
        }
        self.rounds.iter().zip(counting).filter(|(_, counts)| *counts).map(|(it, _)| it).collect()
    }

    fn values(&self, subject: &str, figure: Figure) -> Vec<Option<f64>> {
        // The floor of a round is what it was at both of its ends.
        let of = |round: &&Round| match (subject, figure) {
            (FLOOR, Figure::Cost) => round.bare_quiche(),
            _ => round.figure(subject, figure),
        };
        self.kept().iter().map(of).collect()
    }

    pub(crate) fn summary(&self, subject: &str, figure: Figure) -> Option<Summary> {
        let values: Vec<f64> = self.values(subject, figure).into_iter().flatten().collect();
        Summary::of(&values)
    }

    /// `subject` in terms of `other`, within each round.
    pub(crate) fn ratio(&self, subject: &str, other: &str, figure: Figure) -> Option<Summary> {
        Summary::of(&ratios(&self.values(subject, figure), &self.values(other, figure)))
    }

    /// The cost of `subject` in terms of F, within each round.
    pub(crate) fn ratio_to_floor(&self, subject: &str) -> Option<Summary> {
        Summary::of(&ratios(&self.values(subject, Figure::Cost), &self.floors()))
    }

    /// F: what bare quiche and the bare backend cost together.
    pub(crate) fn floor(&self) -> Option<Summary> {
        Summary::of(&self.floors().into_iter().flatten().collect::<Vec<_>>())
    }

    fn floors(&self) -> Vec<Option<f64>> {
        if !self.scenario.drive.compares_cost() {
            return Vec::new();
        }
        let idle = self.scenario.drive.is_idle();
        self.kept().iter().map(|round| round.floor(idle)).collect()
    }

    /// `subject` in terms of the best of `others`, within each round.
    pub(crate) fn ratio_to_best(
        &self,
        subject: &str,
        others: &[String],
        figure: Figure,
    ) -> Option<Summary> {
        let best = |round: &&Round| {
            let values = others.iter().filter_map(|other| round.figure(other, figure));
            values.reduce(f64::min)
        };
        let best: Vec<Option<f64>> = self.kept().iter().map(best).collect();
        Summary::of(&ratios(&self.values(subject, figure), &best))
    }

    pub(crate) fn failures(&self, subject: &str) -> u64 {
        let samples = self.rounds.iter().filter_map(|round| round.samples.get(subject));
        samples.map(Sample::failures).sum()
    }

    /// Everybody who has a sample, floors and backend last.
    pub(crate) fn everybody(&self) -> Vec<String> {
        let floors = [FLOOR, BACKEND].map(str::to_owned);
        let all = self.subjects.iter().cloned().chain(floors);
        all.filter(|name| self.rounds.iter().any(|round| round.samples.contains_key(name)))
            .collect()
    }

    fn json(&self) -> Value {
        let subjects: Map<String, Value> =
            self.everybody().into_iter().map(|name| (name.clone(), self.figures(&name))).collect();
        let raw = |round: &Round| -> Value {
            round.samples.iter().map(|(name, sample)| (name.clone(), sample.json())).collect()
        };
        json!({
            "place": self.place.name(),
            "scenario": self.scenario.id,
            "title": self.scenario.title,
            "floor_us": self.floor().map(summary_json),
            "rounds_wanted": self.wanted,
            "round_counts": self.counting(),
            "subjects": subjects,
            "rounds": self.rounds.iter().map(raw).collect::<Vec<Value>>(),
        })
    }

    fn figures(&self, subject: &str) -> Value {
        let figures = Figure::ALL.into_iter().filter_map(|figure| {
            Some((figure.name().to_owned(), summary_json(self.summary(subject, figure)?)))
        });
        let mut figures: Map<String, Value> = figures.collect();
        if let Some(ratio) = self.ratio_to_floor(subject) {
            figures.insert("of_floor".to_owned(), summary_json(ratio));
        }
        Value::Object(figures)
    }
}

impl Round {
    pub(crate) fn figure(&self, subject: &str, figure: Figure) -> Option<f64> {
        self.samples.get(subject)?.figure(figure)
    }

    fn bare_quiche(&self) -> Option<f64> {
        let first = self.figure(FLOOR, Figure::Cost)?;
        let again = self.figure(FLOOR_AGAIN, Figure::Cost).unwrap_or(first);
        Some((first + again) / 2.0)
    }

    /// Idle connections ask nothing of the backend.
    fn floor(&self, idle: bool) -> Option<f64> {
        let backend = if idle { 0.0 } else { self.figure(BACKEND, Figure::Cost)? };
        Some(self.bare_quiche()? + backend)
    }
}

impl Results {
    pub(crate) fn table(&self, place: Place, id: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.place == place && table.scenario.id == id)
    }

    pub(crate) fn count(&self, what: &str, scenario: &str, subject: &str) -> Option<f64> {
        let mut counts = self.counts.iter().filter(|it| it.what == what && it.scenario == scenario);
        counts.find(|count| count.subject == subject).map(|count| count.per_request)
    }

    /// Says it once, however often it is found.
    pub(crate) fn miss(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.missing.contains(&what) {
            crate::command::say(format_args!("MISSING {what}"));
            self.missing.push(what);
        }
    }

    pub(crate) fn json(&self) -> Value {
        let counts = self.counts.iter().map(|count| {
            json!({
                "scenario": count.scenario,
                "subject": count.subject,
                "what": count.what,
                "per_request": count.per_request,
            })
        });
        let machine: Map<String, Value> =
            self.machine.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({
            "version": 1,
            "machine": machine,
            "partial": self.is_partial,
            "missing": self.missing,
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
            "counts": counts.collect::<Vec<_>>(),
            "others": self.others,
        })
    }
}

pub(crate) fn summary_json(summary: Summary) -> Value {
    let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
    json!({
        "median": rounded(summary.median),
        "min": rounded(summary.min),
        "max": rounded(summary.max),
    })
}

/// A table of made-up costs, for the tests here and of the reports.
#[cfg(test)]
pub(crate) fn table_of(id: &str, rounds: &[&[(&str, f64)]]) -> Table {
    let scenario = scenario::by_id(id).expect("a scenario");
    let mut subjects: Vec<String> = Vec::new();
    for (name, _) in rounds.iter().copied().flatten() {
        if ![FLOOR, FLOOR_AGAIN, BACKEND].contains(name) && !subjects.iter().any(|it| it == name) {
            subjects.push((*name).to_owned());
        }
    }
    let mut table = Table::new(Place::Loopback, scenario, subjects, rounds.len());
    for round in rounds {
        let sample = |cost: f64| {
            let line = json!({"requests": 100, "failures": 0, "proxy_cpu_us": cost,
                "requests_per_second": 1e6 / cost, "latency_us": {"p50": cost, "p99": 3.0 * cost},
                "kib_per_connection": cost});
            Sample::of_generator(&line.to_string()).expect("an object")
        };
        let samples = round.iter().map(|(name, cost)| ((*name).to_owned(), sample(*cost)));
        table.rounds.push(Round { samples: samples.collect() });
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        table_of(
            "get",
            &[
                &[
                    ("floor", 9.0),
                    ("spooky-off", 18.0),
                    ("envoy", 90.0),
                    ("floor-again", 9.2),
                    ("backend", 3.0),
                ],
                &[
                    ("floor", 9.1),
                    ("spooky-off", 15.0),
                    ("envoy", 75.0),
                    ("floor-again", 9.0),
                    ("backend", 3.0),
                ],
                &[
                    ("floor", 9.1),
                    ("spooky-off", 40.0),
                    ("envoy", 10.0),
                    ("floor-again", 14.0),
                    ("backend", 3.0),
                ],
            ],
        )
    }

    #[test]
    fn a_round_with_a_far_floor_is_left_out_of_everything() {
        let table = table();
        assert_eq!(table.counting(), [true, true, false]);
        assert_eq!(table.thrown_away(), 1);
        assert_eq!(table.summary("spooky-off", Figure::Cost).map(|it| it.max), Some(18.0));
        assert_eq!(table.ratio("spooky-off", "envoy", Figure::Cost).map(|it| it.median), Some(0.2));
    }

    #[test]
    fn where_no_round_counts_all_are_shown() {
        let round: &[(&str, f64)] = &[("floor", 5.0), ("spooky-off", 18.0), ("floor-again", 9.0)];
        let table = table_of("get", &[round]);
        assert_eq!(table.thrown_away(), 1);
        assert_eq!(table.summary("spooky-off", Figure::Cost).map(|it| it.median), Some(18.0));
    }

    #[test]
    fn the_floor_is_quiche_and_backend() {
        let floor = table().floor().expect("floors");
        assert!((floor.max - 12.1).abs() < 1e-9, "{floor:?}");
        let ratio = table().ratio_to_floor("spooky-off").expect("a ratio");
        assert!((ratio.max - 18.0 / 12.1).abs() < 1e-9, "{ratio:?}");
    }

    #[test]
    fn the_best_is_found_within_a_round() {
        let others = ["spooky-off", "envoy"].map(str::to_owned);
        let ratio = table().ratio_to_best("envoy", &others, Figure::P99).expect("a ratio");
        assert!((ratio.median - 5.0).abs() < 1e-9, "{ratio:?}");
    }

    #[test]
    fn results_are_json() {
        let results = Results { tables: vec![table()], ..Results::default() };
        let json = results.json();
        let off = &json["tables"][0]["subjects"]["spooky-off"];
        assert_eq!(off["cpu_us"]["min"], json!(15.0));
        assert!(off["of_floor"]["median"].is_number());
        assert_eq!(json["tables"][0]["round_counts"], json!([true, true, false]));
    }
}
