//! `tidy`: what the compiler does not check. Layers against the table in
//! docs/codex/architecture.md, file and function size, module docs, marks left behind, panics on
//! bytes from the network, `unsafe` and its reasons, RFC annotations, rows of advisories, links, the
//! top level. Reads the tree only; takes well under a second.

mod advisories;
mod annotations;
mod layers;
mod links;
mod shape;
mod source;
mod tree;
mod words;

use crate::command::{Failure, root, say};
use source::Source;
use std::fmt;
use std::path::Path;

/// One thing that is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    level: Level,
    /// `path:line`, or the path alone.
    at: String,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Shown.
    Warning,
    /// Shown, and tidy fails.
    Error,
}

impl Finding {
    fn error(at: impl fmt::Display, message: impl Into<String>) -> Self {
        Self { level: Level::Error, at: at.to_string(), message: message.into() }
    }

    fn warning(at: impl fmt::Display, message: impl Into<String>) -> Self {
        Self { level: Level::Warning, at: at.to_string(), message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Warning => "warning",
            Level::Error => "error",
        };
        write!(f, "{level}: {}: {}", self.at, self.message)
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    if let Some(argument) = arguments.first() {
        return Err(Failure::unknown_argument(argument));
    }
    let (findings, counts) = check(root())?;
    for finding in &findings {
        say(finding);
    }
    counts.iter().for_each(say);
    let errors = findings.iter().filter(|finding| finding.level == Level::Error).count();
    if errors > 0 {
        return Err(Failure::new(format!("{errors} errors; docs/development/style.md says why")));
    }
    say(format_args!("tidy: no errors, {} warnings", findings.len()));
    Ok(())
}

/// Everything that is wrong in the tree at `root`, and what was counted.
fn check(root: &Path) -> Result<(Vec<Finding>, Vec<String>), Failure> {
    let files = tree::files(root)?;
    let mut findings = tree::top_level(&files);
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path))
            .map_err(|error| Failure::new(format!("cannot read {path}: {error}")))
    };
    let table = match read(layers::TABLE) {
        Ok(text) => layers::Table::parse(&text),
        Err(failure) => Err(failure.to_string()),
    };
    let table = table.map_err(Failure::new)?;
    let mut annotations = annotations::Annotations::default();
    let mut advisories = advisories::Advisories::default();
    for path in &files {
        if path.ends_with(".rs") {
            let source = Source::new(path, &read(path)?);
            findings.extend(shape::check(&source));
            findings.extend(words::check(&source));
            findings.extend(layers::check(&table, &source));
            annotations.source(&source);
            advisories.source(&source);
        } else if path.ends_with(".md") {
            findings.extend(links::check(root, path, &read(path)?));
        } else if path.starts_with(annotations::LISTS) {
            annotations.list(path, &read(path)?);
        }
    }
    findings.extend(table.unused(&files));
    advisories.page(&read(advisories::PAGE)?);
    findings.extend(advisories.finish());
    let (quotes, counts) = annotations.finish();
    findings.extend(quotes);
    Ok((findings, counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tree_is_tidy() {
        let (findings, _) = check(root()).expect("the tree can be read");
        let errors: Vec<String> = findings
            .iter()
            .filter(|finding| finding.level == Level::Error)
            .map(ToString::to_string)
            .collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
    }
}
