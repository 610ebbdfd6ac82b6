//! How long the suites and the tests took: where a run that has become long has its minutes. Imports nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Tests that are named.
const SLOWEST: usize = 10;

/// What took how long.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Times {
    suites: Vec<(String, f64)>,
    tests: Vec<Took>,
}

#[derive(Debug, Clone, PartialEq)]
struct Took {
    suite: String,
    test: String,
    seconds: f64,
}

/// One suite while it runs.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Clock {
    /// Each test that has ended and when, in the order of their ends.
    ended: Vec<(String, f64)>,
    /// What tests said of themselves: seconds that they did not wait for their turn.
    said: BTreeMap<String, f64>,
}

/// The seconds of `TOOK 3.2 s after 40.1 s`, without those of waiting.
pub(super) fn took(line: &str) -> Option<f64> {
    let (seconds, _) = line.trim_start().strip_prefix("TOOK ")?.split_once(" s after ")?;
    seconds.parse().ok()
}

// === impl Clock ===

impl Clock {
    /// A test of this name has ended, `at` after the suite began.
    pub(super) fn ended(&mut self, test: &str, at: Duration) {
        self.ended.push((test.to_owned(), at.as_secs_f64()));
    }

    /// A test may take several turns, one after the other.
    pub(super) fn said(&mut self, test: &str, seconds: f64) {
        *self.said.entry(test.to_owned()).or_default() += seconds;
    }

    /// What each test took. The harness starts them in the order of their names, so many at once: the others when one before
    /// them ends. A test that waits for its turn knows better.
    fn tests(&self, threads: usize) -> impl Iterator<Item = (String, f64)> {
        let mut names: Vec<&(String, f64)> = self.ended.iter().collect();
        names.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let begun = std::iter::repeat_n(0.0, threads).chain(self.ended.iter().map(|ended| ended.1));
        names.into_iter().zip(begun).map(|((name, ended), begun)| {
            let seconds = self.said.get(name).copied().unwrap_or(ended - begun);
            (name.clone(), seconds.max(0.0))
        })
    }
}

// === impl Times ===

impl Times {
    pub(super) fn add(&mut self, suite: &str, took: Duration, threads: usize, clock: &Clock) {
        self.suites.push((suite.to_owned(), took.as_secs_f64()));
        let tests = clock.tests(threads);
        self.tests.extend(tests.map(|(test, seconds)| Took {
            suite: suite.to_owned(),
            test,
            seconds,
        }));
    }
}

/// The suites that took a second and more, and the slowest tests.
impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suites: Vec<String> = (self.suites.iter().filter(|(_, seconds)| *seconds >= 1.0))
            .map(|(suite, seconds)| format!("{suite} {seconds:.0} s"))
            .collect();
        write!(f, "suites: {}", suites.join(", "))?;
        let mut tests: Vec<&Took> = self.tests.iter().collect();
        tests.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        for (index, Took { suite, test, seconds }) in tests.into_iter().take(SLOWEST).enumerate() {
            if index == 0 {
                f.write_str("\nslowest tests, without what they waited for their turn:")?;
            }
            write!(f, "\n{seconds:8.1} s  {suite} {test}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_for_its_turn_is_not_slow() {
        assert_eq!(took("TOOK 3.2 s after 40.1 s"), Some(3.2));
        assert_eq!(took("TOOKEN 3.2 s after 1 s"), None);
        let mut clock = Clock::default();
        let seconds = Duration::from_secs;
        // Two threads: b and a begin at once, c when b has ended, d when a has.
        clock.ended("b", seconds(2));
        clock.ended("a", seconds(3));
        clock.ended("d", seconds(4));
        clock.ended("c", seconds(9));
        clock.said("c", 0.5);
        clock.said("c", 1.0);
        let tests: Vec<(String, f64)> = clock.tests(2).collect();
        let wanted = [("a", 3.0), ("b", 2.0), ("c", 1.5), ("d", 1.0)];
        assert_eq!(tests, wanted.map(|(name, seconds)| (name.to_owned(), seconds)));
        let mut times = Times::default();
        times.add("proxy", seconds(9), 2, &clock);
        times.add("small", Duration::from_millis(10), 2, &Clock::default());
        let said = times.to_string();
        assert!(said.starts_with("suites: proxy 9 s\nslowest"), "{said}");
        assert!(said.ends_with("     1.0 s  proxy d"), "{said}");
    }
}
