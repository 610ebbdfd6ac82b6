//! What the test binaries said, line by line. Imports `rows` and `times`.

use super::rows::{Rows, skipped_row};
use super::times::{Clock, Times, took};
use std::time::Duration;

/// What the test binaries said.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) passed: usize,
    pub(super) failed: usize,
    ignored: usize,
    /// `name: why` of each test that could not run here and said so.
    pub(super) skipped: Vec<String>,
    /// Rows of the table of attacks.
    pub(super) rows: Rows,
    /// Names of the tests that failed.
    pub(super) failures: Vec<String>,
    /// A test binary ended with an error: with `failed == 0`, it died.
    pub(super) binary_failed: bool,
    pub(super) times: Times,
    /// The suite that runs.
    clock: Clock,
    /// The test whose captured output is read.
    speaker: String,
    /// Within the captured output of passed tests, which is read but not shown.
    in_successes: bool,
}

impl Tally {
    /// Reads one line of a test binary with `--show-output`, said `at` after it began. `true`: a person wants to see it.
    pub(super) fn take(&mut self, line: &str, at: Duration) -> bool {
        let speaker = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(test) = speaker {
            test.clone_into(&mut self.speaker);
        } else if let Some(seconds) = took(line) {
            self.clock.said(&self.speaker, seconds);
        }
        if let Some(why) = line.trim_start().strip_prefix("SKIPPED ") {
            self.skipped.push(why.trim().to_owned());
            return false;
        }
        if let Some((row, why)) = skipped_row(line) {
            self.rows.skip(row, why);
            return false;
        }
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.passed += count(rest, "passed");
            self.failed += count(rest, "failed");
            self.ignored += count(rest, "ignored");
        } else if line == "successes:" {
            self.in_successes = true;
        } else if line == "failures:" {
            self.in_successes = false;
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... "))
        {
            let failed = outcome == "FAILED";
            self.rows.saw(name, failed);
            self.clock.ended(name, at);
            if failed {
                self.failures.push(name.to_owned());
            }
        }
        !self.in_successes
    }

    /// A suite has ended, `after` it began.
    pub(super) fn end(&mut self, suite: &str, after: Duration, threads: usize) {
        self.in_successes = false;
        self.times.add(suite, after, threads, &std::mem::take(&mut self.clock));
    }

    pub(super) fn closing_line(&self) -> String {
        // A skipped test says so and returns, which the test harness counts as passed. A skipped
        // row is one of several things that a test shows.
        let skipped = self.skipped.len() + self.rows.skipped() + self.ignored;
        let passed = self.passed.saturating_sub(self.skipped.len());
        format!("{passed} passed, {} failed, {skipped} skipped", self.failed)
    }
}

/// The number before `word` in `ok. 3 passed; 0 failed; 0 ignored; …`.
fn count(result: &str, word: &str) -> usize {
    let mut words = result.split([' ', ';']).filter(|word| !word.is_empty());
    let mut before = None;
    words
        .find_map(|this| {
            let number = (this == word).then_some(before).flatten();
            before = this.parse().ok();
            number
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test loads ... ok
test steers ... ok
test refuses ... FAILED

successes:

---- loads stdout ----
SKIPPED kernel::loads: needs root
debug output that nobody reads

successes:
    loads
    steers

failures:

---- refuses stdout ----
assertion failed

failures:
    refuses

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s
";

    #[test]
    fn a_run_is_counted() {
        let mut tally = Tally::default();
        let shown: Vec<&str> =
            OUTPUT.lines().filter(|line| tally.take(line, Duration::ZERO)).collect();
        assert_eq!(tally.closing_line(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(tally.skipped, ["kernel::loads: needs root"]);
        assert_eq!(tally.failures, ["refuses"]);
        assert!(shown.contains(&"assertion failed"));
        assert!(!shown.iter().any(|line| line.contains("nobody reads")));
    }

    #[test]
    fn several_binaries_add_up() {
        let mut tally = Tally::default();
        for _ in 0..2 {
            let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured";
            tally.take(line, Duration::ZERO);
        }
        assert_eq!(tally.closing_line(), "24 passed, 0 failed, 2 skipped");
    }
}
