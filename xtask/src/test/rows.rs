//! Rows of the table of attacks and edge cases (docs/codex/requirements.md). A test that shows rows
//! begins with their names: `b01_rapid_reset`, `b04_b05_sections`, `d02_to_d05_floods`; one that
//! cannot show a row here prints `SKIP B01 why`. Imports nothing.

use std::collections::BTreeMap;
use std::fmt;

/// The first letters of rows that there are.
const BLOCKS: std::ops::RangeInclusive<u8> = b'a'..=b'j';

/// Each row that a test has shown, or could not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    /// Whether a test of it failed.
    seen: BTreeMap<String, bool>,
    /// `(row, why)`; the row may name a part, as `E02/gtlsclient`.
    skipped: Vec<(String, String)>,
}

/// `SKIP B01 why` as row and reason.
pub(super) fn skipped_row(line: &str) -> Option<(&str, &str)> {
    let (row, why) = line.trim_start().strip_prefix("SKIP ")?.trim().split_once(' ')?;
    let whole = row.split('/').next().unwrap_or(row).to_ascii_lowercase();
    is_row(&whole).then_some((row, why))
}

pub(crate) fn is_row(word: &str) -> bool {
    matches!(word.as_bytes(), [block, tens, ones]
        if BLOCKS.contains(block) && tens.is_ascii_digit() && ones.is_ascii_digit())
}

/// The rows in the name of a test, in lower case.
pub(crate) fn rows_of(test: &str) -> Vec<String> {
    let name = test.rsplit("::").next().unwrap_or(test);
    let mut rows: Vec<String> = Vec::new();
    let mut range = false;
    for word in name.split('_') {
        if word == "to" && !rows.is_empty() {
            range = true;
        } else if is_row(word) {
            if range {
                rows.extend(between(rows.last(), word));
            }
            rows.push(word.to_owned());
            range = false;
        } else {
            break;
        }
    }
    rows
}

/// The rows after the first and before the last of a range.
fn between(first: Option<&String>, last: &str) -> Vec<String> {
    let number = |row: &str| row.get(1..).and_then(|digits| digits.parse::<u8>().ok());
    let block = last.get(..1).unwrap_or_default();
    let (Some(from), Some(to)) = (first.and_then(|row| number(row)), number(last)) else {
        return Vec::new();
    };
    (from + 1..to).map(|row| format!("{block}{row:02}")).collect()
}

impl Rows {
    /// A test of this name has ended.
    pub(super) fn saw(&mut self, test: &str, failed: bool) {
        for row in rows_of(test) {
            *self.seen.entry(row).or_default() |= failed;
        }
    }

    pub(super) fn skip(&mut self, row: &str, why: &str) {
        self.skipped.push((row.to_owned(), why.to_owned()));
    }

    pub(super) fn skipped(&self) -> usize {
        self.skipped.len()
    }
}

/// `rows: A 21, B 12, 33 in all; 1 failed: B03` and one line for each that was skipped.
impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (row, why) in &self.skipped {
            writeln!(f, "SKIP {row} {why}")?;
        }
        f.write_str("rows: ")?;
        for block in BLOCKS {
            let letter = char::from(block);
            let count = self.seen.keys().filter(|row| row.starts_with(letter)).count();
            if count > 0 {
                write!(f, "{} {count}, ", letter.to_ascii_uppercase())?;
            }
        }
        write!(f, "{} in all", self.seen.len())?;
        let failed: Vec<String> =
            self.seen.iter().filter(|(_, failed)| **failed).map(|it| it.0.to_uppercase()).collect();
        if !failed.is_empty() {
            write!(f, "; {} failed: {}", failed.len(), failed.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tests_name_rows() {
        assert_eq!(rows_of("limits::b01_rapid_reset"), ["b01"]);
        assert_eq!(rows_of("limits::b04_b05_b12_sections"), ["b04", "b05", "b12"]);
        assert_eq!(rows_of("hostile::d02_to_d05_a_flood"), ["d02", "d03", "d04", "d05"]);
        assert!(rows_of("request::a_get_to_b1").is_empty());
        assert!(rows_of("a_c01").is_empty());
    }

    #[test]
    fn rows_are_counted_once_and_fail_with_any_of_their_tests() {
        let mut rows = Rows::default();
        rows.saw("x::a01_one", false);
        rows.saw("x::a01_two", true);
        rows.saw("x::b10_other", false);
        rows.skip("E02/gtlsclient", "not installed");
        assert_eq!(
            rows.to_string(),
            "SKIP E02/gtlsclient not installed\nrows: A 1, B 1, 2 in all; 1 failed: A01"
        );
    }

    #[test]
    fn only_rows_are_skipped_by_name() {
        assert_eq!(skipped_row("  SKIP A16 no capture here"), Some(("A16", "no capture here")));
        assert_eq!(skipped_row("SKIP E02/qh3 absent"), Some(("E02/qh3", "absent")));
        assert_eq!(skipped_row("SKIP this one"), None);
        assert_eq!(skipped_row("SKIPPED a: b"), None);
    }
}
