//! The kernel part: spooky behind a veth pair that is made like a card, with plain sockets, XDP and AF_XDP beside each
//! other, and each under floods. Imports everything of the bench but the gate.

pub(crate) mod flood;
pub(crate) mod metrics;

use super::lab::Lab;
use super::options::{Extent, Options};
use super::place::{self, Place};
use super::results::Results;
use super::scenario::{self, Scenario};
use super::subject::{Shape, Subject};
use super::{probe, report, session};
use crate::command::{Failure, say, which};
use std::time::{Duration, Instant};

/// What the ratios are to: UDP sockets, the kernel steers by `sk_reuseport`.
pub(crate) const SOCKETS: &str = "sockets";
/// The scenarios of the load part that are run here.
const SCENARIOS: [&str; 4] = [scenario::GET, "rate", "down", "up"];
/// For rounds that do not count.
const REPEATING: Duration = Duration::from_secs(60);
/// `--only flood`.
const FLOOD: &str = "flood";

/// What of spooky is compared, and how it is called.
pub(crate) const SUBJECTS: [(&str, Shape); 5] = [
    (SOCKETS, Shape { mode: "reuseport", ..Shape::PLAIN }),
    ("sockets-single", Shape { mode: "reuseport", single: true, ..Shape::PLAIN }),
    ("xdp", Shape { mode: "xdp", ..Shape::PLAIN }),
    ("af_xdp-copy", Shape { mode: "xdp", ebpf: ", af_xdp: {mode: copy}", ..Shape::PLAIN }),
    (
        "af_xdp-busy",
        Shape { mode: "xdp", ebpf: ", af_xdp: {mode: copy, busy_poll: 50}", ..Shape::PLAIN },
    ),
];

/// Everything that this part has measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) results: Results,
    pub(crate) floods: Vec<flood::Outcome>,
}

/// # Errors
/// Something of the project does not start or does not answer, or the result cannot be written.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let known = |it: &str| it == FLOOD || SCENARIOS.contains(&it);
    if let Some(unknown) = options.only.iter().find(|it| !known(it)) {
        let names = SCENARIOS.join(", ");
        let message = format!("--only: no {unknown:?} in the kernel part: {names}, {FLOOD}");
        return Err(Failure::usage(message));
    }
    for program in ["ethtool", "chrt"] {
        which(program).ok_or_else(|| Failure::new(format!("`{program}` is missing")))?;
    }
    let begun = Instant::now();
    place::sweep();
    let lab = Lab::new(options)?;
    lab.for_repeating.set(lab.for_repeating.get().min(REPEATING));
    let mut measured = Measured::default();
    measured.results.machine = report::machine::describe(&lab, options);
    let outcome = measure(&lab, options, &mut measured);
    measured.results.is_partial = outcome.is_err() || !options.only.is_empty();
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    measured.results.machine.push(("took".to_owned(), format!("{minutes:.1} minutes")));
    report::kernel::everything(&lab, options, &measured)?;
    outcome
}

fn measure(lab: &Lab, options: &Options, measured: &mut Measured) -> Result<(), Failure> {
    let rounds = options.rounds.unwrap_or(match options.extent {
        Extent::Full => 4,
        Extent::Quick => 2,
        Extent::Shape => 1,
    });
    let asked = |it: &str| options.only.is_empty() || options.only.iter().any(|only| only == it);
    let scenarios: Vec<&'static Scenario> =
        SCENARIOS.into_iter().filter(|it| asked(it)).filter_map(scenario::by_id).collect();
    if !scenarios.is_empty() {
        let mut all = vec![Subject::floor()?];
        all.extend(subjects()?);
        session::group(lab, Place::Card, all, &scenarios, rounds, &mut measured.results)?;
        if options.extent != Extent::Shape {
            let results = &mut measured.results;
            probe::system_calls(lab, Place::Card, subjects()?, &scenarios, results)?;
        }
    }
    if asked(FLOOD) {
        say("floods");
        flood::run(lab, rounds.min(3), &mut measured.floods)?;
    }
    Ok(())
}

fn subjects() -> Result<Vec<Subject>, Failure> {
    SUBJECTS.into_iter().map(|(name, shape)| Subject::spooky(name, shape)).collect()
}
