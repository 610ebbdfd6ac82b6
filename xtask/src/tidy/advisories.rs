//! The rows of docs/codex/advisories.md against the names of tests: a row there has a test, or says that it has none yet.
//! Imports `tidy` and the names of rows.

use super::Finding;
use super::source::Source;
use crate::test::rows;
use std::collections::BTreeSet;

/// The page.
pub(super) const PAGE: &str = "docs/codex/advisories.md";
/// Behind a row that has no test.
const NOT_YET: &str = "(not yet)";
/// The column of rows, counted from the first `|`.
const COLUMN: usize = 3;

/// Rows that tests show, and what the page says.
#[derive(Debug, Default)]
pub(super) struct Advisories {
    shown: BTreeSet<String>,
    /// Line, row, and whether it is said to have a test.
    said: Vec<(usize, String, bool)>,
}

impl Advisories {
    /// Takes in the names of the tests in a file.
    pub(super) fn source(&mut self, source: &Source) {
        if !source.path.starts_with("tests/") {
            return;
        }
        for line in &source.code {
            let Some((name, _)) =
                line.trim_start().strip_prefix("fn ").and_then(|rest| rest.split_once('('))
            else {
                continue;
            };
            self.shown.extend(rows::rows_of(name));
        }
    }

    /// Takes in the page.
    pub(super) fn page(&mut self, text: &str) {
        for (line, number) in text.lines().zip(1..) {
            let Some(cell) = line.starts_with('|').then(|| line.split('|').nth(COLUMN)).flatten()
            else {
                continue;
            };
            for row in cell.split(',') {
                let row = row.trim().to_ascii_lowercase();
                let (name, shown) = match row.strip_suffix(NOT_YET) {
                    Some(name) => (name.trim(), false),
                    None => (row.as_str(), true),
                };
                if rows::is_row(name) {
                    self.said.push((number, name.to_owned(), shown));
                }
            }
        }
    }

    /// Where the page and the tests differ.
    pub(super) fn finish(self) -> Vec<Finding> {
        let finding = |(line, row, said): &(usize, String, bool)| {
            let at = format!("{PAGE}:{line}");
            let name = row.to_uppercase();
            match (said, self.shown.contains(row)) {
                (true, false) => Some(Finding::error(at, format!("no test begins with {row}_"))),
                (false, true) => {
                    Some(Finding::warning(at, format!("{name} has a test now: it is there")))
                }
                _ => None,
            }
        };
        self.said.iter().filter_map(finding).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_test_or_says_that_it_has_none() {
        let page = "| advisory | what | rows | here |\n|---|---|---|---|\n\
                    | CVE-1 | a | B01, D12 | x |\n| CVE-2 | b | A05 (not yet), C07 (not yet) | y |\n";
        let mut advisories = Advisories::default();
        let tests = "#[test]\nfn b01_fast() {}\n#[test]\nfn a05_c05_slow() {}\n";
        advisories.source(&Source::new("tests/attacks/limits.rs", tests));
        advisories.source(&Source::new("spooky-user/src/lib.rs", "fn d12_else() {}"));
        advisories.page(page);
        let findings: Vec<String> = advisories.finish().iter().map(ToString::to_string).collect();
        assert_eq!(
            findings,
            [
                "error: docs/codex/advisories.md:3: no test begins with d12_",
                "warning: docs/codex/advisories.md:4: A05 has a test now: it is there",
            ]
        );
    }
}
