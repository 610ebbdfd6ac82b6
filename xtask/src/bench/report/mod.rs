//! What the bench says: a table on the terminal, JSON, docs/performance.md with its charts, what moved since another
//! result, which bars are met. Reads results; measures nothing.

mod against;
mod bars;
mod chart;
mod grid;
pub(crate) mod kernel;
pub(crate) mod machine;
mod page;

use super::lab::{self, Lab};
use super::options::{Extent, Options};
use super::results::Results;
use crate::command::{Failure, root, say};
use std::fs;
use std::path::Path;

/// # Errors
/// A result cannot be written, or the one to compare with cannot be read.
pub(crate) fn everything(lab: &Lab, options: &Options, results: &Results) -> Result<(), Failure> {
    if lab.extent == Extent::Shape {
        return Ok(());
    }
    for table in &results.tables {
        say(format_args!("\n{}", grid::of_table(table, results).text()));
        say(grid::about_rounds(table));
    }
    if !results.others.is_empty() {
        for grid in grid::of_others(results) {
            say(format_args!("\n{}", grid.text()));
        }
    }
    say(format_args!("\n{}", bars::grid(results, lab.cores.are_enough_for_two()).text()));
    for missing in &results.missing {
        say(format_args!("MISSING {missing}"));
    }
    let name = format!("bench-{}.json", machine::stamp());
    let file = lab::results_dir().join(name);
    write_json(&file, results)?;
    say(format_args!("\nresult: {}", file.display()));
    if let Some(file) = &options.json {
        write_json(file, results)?;
        say(format_args!("result: {}", file.display()));
    }
    let _ = fs::remove_file(lab::results_dir().join(PARTIAL));
    if let Some(file) = &options.against {
        say(format_args!("\n{}", against::compare(file, results)?));
    }
    if options.write_docs && results.is_partial {
        say("docs/performance.md is left as it was: this result is a part");
    } else if options.write_docs {
        page::write_all(root(), results, lab.cores.are_enough_for_two())?;
        say("written: docs/performance.md and docs/performance/*.svg");
    }
    Ok(())
}

/// What there is until the end: a bench that is killed leaves it.
const PARTIAL: &str = "partial.json";

/// # Errors
/// It cannot be written.
pub(crate) fn keep(results: &Results) -> Result<(), Failure> {
    write_json(&lab::results_dir().join(PARTIAL), results)
}

fn write_json(file: &Path, results: &Results) -> Result<(), Failure> {
    let text = format!("{:#}\n", results.json());
    write(file, &text)
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let made = file.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(file, text))
        .and_then(|()| give_back(file))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))
}

/// What root wrote under sudo belongs to who called it.
fn give_back(file: &Path) -> std::io::Result<()> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let (Some(uid), Some(gid)) = (number("SUDO_UID"), number("SUDO_GID")) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    std::os::unix::fs::chown(file, Some(uid), Some(gid))
}
