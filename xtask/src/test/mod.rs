//! `test`: everything is built, every test binary runs, the last line counts. As root, or through
//! sudo, so that the kernel tests run too. `suites` knows the test binaries, `tally` reads what they
//! say, `rows` which rows of the table of attacks they showed, `times` what took long. Imports
//! `command` and `setup`.

pub(crate) mod rows;
mod suites;
mod tally;
mod times;

use crate::command::{Failure, Privilege, cannot_start, cargo, say, step};
use crate::setup::{self, Scope};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use tally::Tally;

/// A test binary that says nothing for this long hangs. The longest single test moves 1 GiB and
/// watches memory for 20 s; many times that on a slow machine.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let mut sudo = true;
    let mut soak = false;
    let mut arguments = arguments.iter();
    let mut filter = Vec::new();
    for argument in arguments.by_ref() {
        match argument.as_str() {
            "--no-sudo" => sudo = false,
            "--soak" => soak = true,
            "--" => break,
            other => return Err(Failure::unknown_argument(other)),
        }
    }
    filter.extend(arguments.cloned());
    setup::ensure(Scope::Test)?;
    all(sudo, soak, &filter)
}

/// Builds and runs every test of the workspace; with `soak`, at the sizes and with the seeds of the
/// table of attacks, which takes hours.
///
/// # Errors
/// A build failed, a test failed, or a test binary died or hung.
pub(crate) fn all(sudo: bool, soak: bool, filter: &[String]) -> Result<(), Failure> {
    // The whole-program tests start these programs; `cargo test` alone would not build them.
    let bins = ["build", "--bins", "--package", "spooky-user", "--package", "spooky-tests"];
    step("build", cargo().args(bins))?;
    let suites = suites::build()?;
    let privilege = match Privilege::find() {
        Privilege::Sudo if sudo => {
            say("sudo: the kernel tests load programs and make network namespaces as root");
            step("sudo", Command::new("sudo").arg("-v"))?;
            Privilege::Sudo
        }
        Privilege::Root => Privilege::Root,
        _ => {
            say("no root: the kernel tests will be skipped, and counted as such");
            Privilege::None
        }
    };
    let start = Instant::now();
    say("==> tests");
    let mut tally = Tally::default();
    for suite in &suites {
        say(format_args!("\n==> {}", suite.name));
        let mut tests = suite.command(privilege, filter);
        watch(surroundings(&mut tests, soak), &suite.name, suite.threads(), &mut tally)?;
    }
    let mut docs = cargo();
    docs.args(["test", "--workspace", "--doc", "--no-fail-fast", "--", "--show-output"]);
    watch(surroundings(&mut docs, soak).args(filter), "examples in docs", None, &mut tally)?;
    close(&tally, start.elapsed())
}

/// What the tests learn from their environment.
fn surroundings(tests: &mut Command, soak: bool) -> &mut Command {
    if std::env::var("CI").is_ok_and(|value| value == "true") {
        // In automation a kernel test that cannot run is a failure, not a skip.
        tests.env("SPOOKY_REQUIRE_KERNEL", "1");
    }
    if soak {
        // Read by spooky_tests::soak().
        tests.env("SPOOKY_SOAK", "1");
    }
    tests
}

/// Runs `tests` to their end and reads what they say.
fn watch(
    tests: &mut Command,
    suite: &str,
    threads: Option<usize>,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut child =
        tests.stdout(Stdio::piped()).spawn().map_err(|error| cannot_start(tests, &error))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(Failure::new("the tests have no standard output"));
    };
    let (sender, lines) = mpsc::sync_channel::<Vec<u8>>(64);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    loop {
        match lines.recv_timeout(SILENCE_MAX) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line);
                if tally.take(&line, begun.elapsed()) {
                    // The reader of our output may be gone; the tests go on for the exit code.
                    let _ = writeln!(std::io::stdout(), "{line}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                // What a test binary holds ends with its standard output.
                let _ = child.kill();
                let minutes = SILENCE_MAX.as_secs() / 60;
                return Err(Failure::new(format!("no output for {minutes} minutes: a test hangs")));
            }
        }
    }
    let _ = reader.join();
    let status = child.wait().map_err(|error| cannot_start(tests, &error))?;
    tally.binary_failed |= !status.success();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tally.end(suite, begun.elapsed(), threads.unwrap_or(cores));
    Ok(())
}

fn close(tally: &Tally, took: Duration) -> Result<(), Failure> {
    say(format_args!("\ntests took {:.0} s", took.as_secs_f32()));
    for skipped in &tally.skipped {
        say(format_args!("SKIPPED {skipped}"));
    }
    for failure in &tally.failures {
        say(format_args!("FAILED {failure}"));
    }
    say(&tally.times);
    say(&tally.rows);
    if tally.binary_failed && tally.failed == 0 {
        say("a test binary died before it could report: see above");
    }
    if tally.passed + tally.failed == 0 {
        say("no test ran");
    }
    // The last line, whatever happened, on either stream.
    say(tally.closing_line());
    if tally.failed > 0 || tally.binary_failed || tally.passed == 0 {
        return Err(Failure::told());
    }
    Ok(())
}
