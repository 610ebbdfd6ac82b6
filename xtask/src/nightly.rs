//! `nightly`: what takes too long for each landing, in one command that a timer can start. The unit tests, the fuzz corpora
//! and the attacks against a daemon, all with AddressSanitizer; every fuzz target for longer; the table of attacks at its
//! full size. Goes on after a part that failed. Imports `command`, `fuzz`, `sanitized`, `setup` and `test`.

use crate::command::{Failure, say, step};
use crate::sanitized::{self, nightly_cargo};
use crate::setup::{self, Scope};
use crate::{fuzz, test};
use std::time::Duration;

/// For each fuzz target.
const FUZZ_TIME: Duration = Duration::from_secs(30 * 60);

/// Parts, in order.
const PARTS: [&str; 3] = ["asan", "fuzz", "soak"];

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let (mut time, mut only) = (FUZZ_TIME, Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--time" => time = fuzz::duration(arguments.next().map_or("", String::as_str))?,
            "--only" => only.extend(arguments.next().map_or("", String::as_str).split(',')),
            other => return Err(Failure::unknown_argument(other)),
        }
    }
    if let Some(unknown) = only.iter().find(|part| !PARTS.contains(part)) {
        let parts = PARTS.join(", ");
        return Err(Failure::usage(format!("`{unknown}` is no part; there are {parts}")));
    }
    setup::ensure(Scope::Test)?;
    let mut failed = Vec::new();
    for part in PARTS.into_iter().filter(|part| only.is_empty() || only.contains(part)) {
        let outcome = match part {
            "asan" => address(),
            "fuzz" => fuzz::targets().and_then(|targets| fuzz::each(&targets, time)),
            _ => test::all(true, true, &[]),
        };
        if let Err(failure) = outcome {
            if !failure.is_told() {
                say(format_args!("{part}: {failure}"));
            }
            failed.push(part);
        }
    }
    if failed.is_empty() {
        say("nightly: all parts passed");
        return Ok(());
    }
    Err(Failure::new(format!("failed: {}", failed.join(", "))))
}

/// Everything that is ours, built to watch its memory.
fn address() -> Result<(), Failure> {
    sanitized::forget_reports()?;
    let bins = ["--bins", "--package", "spooky-user", "--package", "spooky-tests"];
    step("build with AddressSanitizer", nightly_cargo("build")?.args(bins))?;
    let mut failed = Vec::new();
    for (what, words) in [
        ("units", &["--package", "spooky-common", "--package", "spooky-user"][..]),
        ("fuzz corpora", &["--package", "spooky-tests", "--test", "fuzz"]),
        // In threads alone: loom changes stacks behind the sanitizer's back.
        (
            "the swap of snapshots",
            &["--package", "spooky-tests", "--test", "models", "readers_see_whole"],
        ),
        ("attacks", &["--package", "spooky-tests", "--test", "attacks"]),
    ] {
        let mut command = nightly_cargo("test")?;
        command.args(words).arg("--no-fail-fast");
        if let Err(failure) = step(&format!("{what} with AddressSanitizer"), &mut command) {
            say(failure);
            failed.push(what);
        }
    }
    // A daemon that was ended by the sanitizer is found by its report, whatever its test made of it.
    let reports = sanitized::reports();
    for report in &reports {
        let text = std::fs::read_to_string(report).unwrap_or_default();
        say(format_args!("{}\n{}", report.display(), text.trim_end()));
    }
    if failed.is_empty() && reports.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("{} reports; failed: {}", reports.len(), failed.join(", "))))
}
