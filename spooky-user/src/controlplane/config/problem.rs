//! What is wrong with a configuration: every problem with its place, in plain language. Imports nothing of the crate.

use std::fmt;
use std::path::{Path, PathBuf};

/// A line and a column, both from 1; 0 where there is none, as for a file that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// One problem. The message says what stands there and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The configuration, or a list file it names.
    pub file: PathBuf,
    /// Where in it.
    pub place: Place,
    /// The YAML path, such as `listeners[0].quic.idle_timeout`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, and the remedy.
    pub message: String,
}

/// Everything that is wrong with a configuration; never empty. Displayed one line each, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

/// Collects problems while a file is read; reading goes on after each.
#[derive(Debug)]
pub(super) struct Problems {
    file: PathBuf,
    list: Vec<Problem>,
}

/// More than this many and the file is not a configuration; the rest is only counted.
const PRINTED_MAX: usize = 200;

// === impl Problems ===

impl Problems {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), list: Vec::new() }
    }

    pub(super) fn add(&mut self, place: Place, path: &str, message: impl Into<String>) {
        self.add_in(self.file.clone(), place, path, message);
    }

    /// A problem in a file that the configuration names.
    pub(super) fn add_in(
        &mut self,
        file: PathBuf,
        place: Place,
        path: &str,
        message: impl Into<String>,
    ) {
        let problem = Problem { file, place, path: path.to_owned(), message: message.into() };
        if !self.list.contains(&problem) {
            self.list.push(problem);
        }
    }

    /// Is something wrong at this path, below it, or with what it stands in? Then what was read there is a stand-in, and saying
    /// more of it would mislead.
    pub(super) fn any_at(&self, path: &str) -> bool {
        let is_within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('.') || rest.starts_with('[')
            })
        };
        let mut paths = self.list.iter().map(|problem| problem.path.as_str());
        paths.any(|at| is_within(at, path) || (!at.is_empty() && is_within(path, at)))
    }

    pub(super) fn into_result<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.list.is_empty() { Ok(value) } else { Err(self.into()) }
    }
}

impl From<Problems> for ConfigErrors {
    fn from(problems: Problems) -> Self {
        let mut list = problems.list;
        // The configuration first, then the files it names; each from top to bottom.
        list.sort_by_cached_key(|problem| {
            (problem.file != problems.file, problem.file.clone(), problem.place)
        });
        Self(list)
    }
}

// === impl ConfigErrors ===

impl ConfigErrors {
    /// In file order.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", OneLine(&self.file.to_string_lossy()))?;
        if self.place.line > 0 {
            write!(f, ":{}:{}", self.place.line, self.place.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", OneLine(&self.path))?;
        }
        write!(f, ": {}", OneLine(&self.message))
    }
}

/// Text of which a part comes from the file: a key may hold a line feed, or what a terminal takes for a command.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character.is_control() {
            true => write!(f, "{}", character.escape_default()),
            false => write!(f, "{character}"),
        })
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(PRINTED_MAX).enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        match self.0.len().saturating_sub(PRINTED_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more problems"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_holds_stays_on_one_line() {
        let problem = Problem {
            file: PathBuf::from("a\nb.yaml"),
            place: Place { line: 3, column: 4 },
            path: "routes[0].a\nb\u{1b}[2J".to_owned(),
            message: "é is fine,\r is not".to_owned(),
        };
        assert_eq!(
            problem.to_string(),
            "a\\nb.yaml:3:4: routes[0].a\\nb\\u{1b}[2J: é is fine,\\r is not"
        );
    }
}
