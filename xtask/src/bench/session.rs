//! The load part from start to end: who is started where, in which order they are asked, which rounds are repeated.
//! What there is at a signal is kept. Imports everything of the bench but the gate.

use super::instance::{Instance, Load};
use super::lab::Lab;
use super::options::{Extent, Options};
use super::place::{self, Place};
use super::results::{Results, Round, Table};
use super::sample::{Figure, Sample};
use super::scenario::{self, Cast, Drive, SCENARIOS, Scenario, Size};
use super::subject::{BACKEND, FLOOR, FLOOR_AGAIN, Kind, Shape, Subject};
use super::{probe, report};
use crate::command::{Failure, say};
use std::collections::BTreeMap;
use std::time::Instant;

/// How fast each subject is in each scenario.
type Rates = BTreeMap<(String, &'static str), f64>;

/// One group of subjects in one place, running.
struct Group<'a> {
    lab: &'a Lab,
    place: Place,
    instances: Vec<Instance>,
    rates: Rates,
}

/// # Errors
/// Something of the project does not start or does not answer, or the result cannot be written.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if options.only.iter().any(|it| it == "list") {
        SCENARIOS.iter().for_each(|it| say(format_args!("{:<12} {}", it.id, it.title)));
        return Ok(());
    }
    let unknown = options.only.iter().find(|it| scenario::by_id(it).is_none());
    if let Some(unknown) = unknown {
        return Err(Failure::usage(format!("--only: no scenario {unknown:?}; `--only list`")));
    }
    let begun = Instant::now();
    place::sweep();
    let lab = Lab::new(options)?;
    let mut results =
        Results { machine: report::machine::describe(&lab, options), ..Results::default() };
    let outcome = measure(&lab, options, &mut results);
    results.is_partial = outcome.is_err();
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    results.machine.push(("took".to_owned(), format!("{minutes:.1} minutes")));
    report::everything(&lab, options, &results)?;
    outcome
}

fn measure(lab: &Lab, options: &Options, results: &mut Results) -> Result<(), Failure> {
    let chosen = |scenario: &&Scenario| {
        if options.only.is_empty() {
            scenario.is_in(options.extent)
        } else {
            options.only.iter().any(|it| it == scenario.id)
        }
    };
    let scenarios: Vec<&'static Scenario> = SCENARIOS.iter().filter(chosen).collect();
    let of = |cast| scenarios.iter().copied().filter(|it| it.cast == cast).collect::<Vec<_>>();
    let rounds = options.rounds.unwrap_or(match options.extent {
        Extent::Full => 5,
        Extent::Quick => 2,
        Extent::Shape => 1,
    });
    for place in Place::ALL {
        let mut here = of(Cast::Everybody);
        if place == Place::Veth {
            here.retain(|scenario| scenario.on_veth && options.extent == Extent::Full);
        }
        if !here.is_empty() {
            let mut subjects = vec![Subject::floor()?];
            subjects.extend(Subject::modes()?);
            subjects.extend(Subject::peers(lab, options)?);
            subjects.push(Subject::backend()?);
            group(lab, place, subjects, &here, rounds, results)?;
        }
    }
    let shapes = of(Cast::Shapes);
    if !shapes.is_empty() {
        group(lab, Place::Loopback, all_shapes(lab, options)?, &shapes, rounds, results)?;
    }
    let alone = of(Cast::Fresh);
    for scenario in &alone {
        let beginning = |it: &&&'static Scenario| scenario.drive.begins_as(it.drive);
        let also = alone.iter().find(beginning).copied();
        if !alone.iter().any(|it| it.drive.begins_as(scenario.drive)) {
            fresh(lab, options, scenario, also, rounds, results)?;
        }
    }
    probe::all(lab, options, &of(Cast::Everybody), results)
}

/// spooky with more of everything, and everybody with two workers.
fn all_shapes(lab: &Lab, options: &Options) -> Result<Vec<Subject>, Failure> {
    let plain = Shape::PLAIN;
    let reuseport = Shape { mode: "reuseport", ..plain };
    let mut subjects = vec![
        Subject::floor()?,
        Subject::spooky("routes-1", plain)?,
        Subject::spooky("routes-100", Shape { routes: 100, ..plain })?,
        Subject::spooky("routes-10000", Shape { routes: 10_000, ..plain })?,
        Subject::spooky("endpoints-1000", Shape { endpoints: 1000, ..plain })?,
        Subject::spooky("endpoints-1-hash", Shape { hash: true, ..plain })?,
        Subject::spooky("endpoints-1000-hash", Shape { endpoints: 1000, hash: true, ..plain })?,
        Subject { tls_backend: true, ..Subject::spooky("tls-backend", plain)? },
        Subject::spooky("spooky-reuseport", reuseport)?,
        Subject::spooky("spooky-reuseport", reuseport)?.with_workers(2),
    ];
    let peers = Subject::peers(lab, options)?;
    subjects.extend(peers.into_iter().map(|peer| peer.with_workers(2)));
    subjects.push(Subject::backend()?);
    Ok(subjects)
}

/// Starts everybody, asks them in turn, and repeats the rounds that do not count.
pub(super) fn group(
    lab: &Lab,
    place: Place,
    subjects: Vec<Subject>,
    scenarios: &[&'static Scenario],
    rounds: usize,
    results: &mut Results,
) -> Result<(), Failure> {
    let mut group = Group { lab, place, instances: Vec::new(), rates: Rates::new() };
    for subject in subjects {
        group.add(subject, results)?;
    }
    let names: Vec<String> = group
        .instances
        .iter()
        .filter(|it| matches!(it.subject.kind, Kind::Spooky | Kind::Peer))
        .map(|it| it.subject.name.clone())
        .collect();
    let first = results.tables.len();
    for scenario in scenarios {
        results.tables.push(Table::new(place, scenario, names.clone(), rounds));
    }
    for number in 0..rounds {
        for offset in 0..scenarios.len() {
            group.round(number, &mut results.tables[first + offset])?;
        }
        report::keep(results)?;
    }
    // As many again at most: on a machine that is never quiet a bench has to end all the same.
    for repeat in 0..rounds {
        for table in &mut results.tables[first..] {
            let counting = table.rounds.len() - table.thrown_away();
            if counting < rounds && !lab.for_repeating.get().is_zero() {
                let begun = Instant::now();
                group.round(rounds + repeat, table)?;
                lab.for_repeating.set(lab.for_repeating.get().saturating_sub(begun.elapsed()));
            }
        }
        report::keep(results)?;
    }
    Ok(())
}

impl Group<'_> {
    /// A peer that does not start is missing; a program of the project that does not is an error.
    fn add(&mut self, subject: Subject, results: &mut Results) -> Result<(), Failure> {
        if subject.kind == Kind::Backend && self.lab.extent == Extent::Shape {
            return Ok(());
        }
        // The backend by itself is reached as the proxies reach theirs: on the loopback beside them.
        let place = if subject.kind == Kind::Backend { Place::Loopback } else { self.place };
        let (name, kind) = (subject.name.clone(), subject.kind);
        match Instance::start(subject, place, self.lab) {
            Ok(instance) => self.instances.push(instance),
            Err(failure) if kind == Kind::Peer && !self.lab.stop.asked() => {
                results.miss(format!("{name} on {}: {failure}", self.place.name()));
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Floor, everybody, floor.
    fn round(&mut self, number: usize, table: &mut Table) -> Result<(), Failure> {
        let mut round = Round::default();
        let order: Vec<(usize, String)> = self
            .instances
            .iter()
            .enumerate()
            .map(|(index, it)| (index, it.subject.name.clone()))
            .collect();
        let floor = order.iter().find(|(_, name)| name == FLOOR);
        let again = floor.map(|(index, _)| (*index, FLOOR_AGAIN.to_owned()));
        let shape = self.lab.extent == Extent::Shape;
        for (index, name) in order.iter().cloned().chain(again.filter(|_| !shape)) {
            self.lab.go_on()?;
            if let Some(sample) = self.ask(index, table.scenario)? {
                tell(number, self.place, table.scenario, &name, &sample);
                all_good(self.lab, &name, &sample)?;
                round.samples.insert(name, sample);
            }
        }
        table.rounds.push(round);
        Ok(())
    }

    /// `None`: this subject has nothing to do here, or gave no result, which has been said.
    fn ask(&mut self, index: usize, scenario: &Scenario) -> Result<Option<Sample>, Failure> {
        self.instances[index].check()?;
        let result = self.rate(index, scenario).and_then(|rate| {
            let requests = scenario.drive.requests(rate, Size::of(self.lab.extent));
            send(self.lab, &self.instances[index], scenario.drive, rate, requests)
        });
        match result {
            Err(failure) if self.is_optional(index) => {
                say(format_args!("no result: {failure}"));
                Ok(None)
            }
            other => other,
        }
    }

    /// Whether the bench goes on without a result of this subject.
    fn is_optional(&self, index: usize) -> bool {
        self.instances[index].subject.kind == Kind::Peer && !self.lab.stop.asked()
    }

    /// What the subject can do, found once: later runs then have the same number of requests.
    fn rate(&mut self, index: usize, scenario: &Scenario) -> Result<f64, Failure> {
        let instance = &self.instances[index];
        let saturated = match scenario.drive {
            Drive::Half => Drive::Get,
            Drive::Rate(rate) => return Ok(rate as f64),
            other => other,
        };
        if self.lab.extent == Extent::Shape {
            return Ok(100.0);
        }
        let key = (instance.subject.name.clone(), scenario.id);
        if let Some(rate) = self.rates.get(&key) {
            return Ok(*rate);
        }
        let once = |requests| {
            let sample = send(self.lab, instance, saturated, 0.0, requests)?;
            let rate = sample.and_then(|sample| sample.figure(Figure::Rate));
            Ok::<f64, Failure>(rate.unwrap_or_default())
        };
        // Twice: the first is cold and short.
        let cold = once(saturated.pilot())?;
        let rate = once(saturated.requests(cold, Size::of(Extent::Quick)))?;
        self.rates.insert(key, rate);
        Ok(rate)
    }
}

/// One run at one subject; `None` where the scenario asks nothing of it.
fn send(
    lab: &Lab,
    instance: &Instance,
    drive: Drive,
    rate: f64,
    requests: u64,
) -> Result<Option<Sample>, Failure> {
    if instance.subject.kind == Kind::Backend {
        let post = lab.www().join("bytes").join(super::lab::LARGE.to_string());
        let Some(load) = drive.backend(requests, &post) else { return Ok(None) };
        return instance.run_backend(lab, &load).map(Some);
    }
    let words = drive.words(rate, lab.backend);
    instance.run(lab, &Load::new(requests, &words)).map(Some)
}

/// Everybody on a process of its own that has served nothing yet. A run that begins as another scenario counts for both.
fn fresh(
    lab: &Lab,
    options: &Options,
    scenario: &'static Scenario,
    also: Option<&'static Scenario>,
    rounds: usize,
    results: &mut Results,
) -> Result<(), Failure> {
    let reuseport = Shape { mode: "reuseport", ..Shape::PLAIN };
    let mut subjects = vec![Subject::floor()?, Subject::spooky("spooky-reuseport", reuseport)?];
    subjects.extend(Subject::peers(lab, options)?);
    let names = subjects.iter().filter(|it| it.name != FLOOR).map(|it| it.name.clone());
    let names: Vec<String> = names.collect();
    let first = results.tables.len();
    for scenario in also.into_iter().chain([scenario]) {
        results.tables.push(Table::new(Place::Loopback, scenario, names.clone(), rounds));
    }
    let drive = scenario.drive.sized(lab.extent);
    let requests = drive.requests(0.0, Size::of(lab.extent));
    for number in 0..rounds {
        let mut round = Round::default();
        for subject in &subjects {
            lab.go_on()?;
            let run = Instance::start(subject.clone(), Place::Loopback, lab)
                .and_then(|instance| send(lab, &instance, drive, 0.0, requests));
            match run {
                Ok(Some(sample)) => {
                    all_good(lab, &subject.name, &sample)?;
                    tell(number, Place::Loopback, scenario, &subject.name, &sample);
                    round.samples.insert(subject.name.clone(), sample);
                }
                Ok(None) => {}
                Err(failure) if subject.kind == Kind::Peer && !lab.stop.asked() => {
                    results.miss(format!("{} in {}: {failure}", subject.name, scenario.id));
                }
                Err(failure) => return Err(failure),
            }
        }
        for table in &mut results.tables[first..] {
            let of_the_idle = |(name, it): (&String, &Sample)| (name.clone(), it.of_the_idle());
            table.rounds.push(if table.scenario.id == scenario.id {
                round.clone()
            } else {
                Round { samples: round.samples.iter().map(of_the_idle).collect() }
            });
        }
        report::keep(results)?;
    }
    Ok(())
}

/// Where only the shape is looked at, no request may fail.
fn all_good(lab: &Lab, name: &str, sample: &Sample) -> Result<(), Failure> {
    if lab.extent != Extent::Shape || sample.failures() == 0 {
        return Ok(());
    }
    let kinds = sample.kinds();
    Err(Failure::new(format!("{name}: {} requests failed: {kinds}", sample.failures())))
}

/// One line while it goes on.
fn tell(number: usize, place: Place, scenario: &Scenario, name: &str, sample: &Sample) {
    let cost = sample.figure(Figure::Cost).unwrap_or_default();
    let rate = sample.figure(Figure::Rate).unwrap_or_default();
    let mut line = format!(
        "{:<2} {:<8} {:<10} {name:<22} {cost:>9.1} µs {rate:>8.0}/s",
        number + 1,
        place.name(),
        scenario.id,
    );
    if let Some(p99) = sample.figure(Figure::P99) {
        line.push_str(&format!("  p99 {:.2} ms", p99 / 1000.0));
    }
    if let Some(kib) = sample.figure(Figure::Connection) {
        line.push_str(&format!("  {kib:.1} KiB a connection"));
    }
    if let Some((rate, wanted)) = sample.number("achieved_rate").zip(scenario.drive.fixed_rate())
        && rate < 0.95 * wanted
    {
        line.push_str(&format!("  (kept {rate:.0}/s only)"));
    }
    if sample.figure(Figure::Saturation).is_some_and(|it| it > 0.95) && name != BACKEND {
        line.push_str("  (generator saturated)");
    }
    if sample.failures() > 0 {
        line.push_str(&format!("  {} FAILED {}", sample.failures(), sample.kinds()));
    }
    say(line);
}
