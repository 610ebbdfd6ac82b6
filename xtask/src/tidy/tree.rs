//! Which files belong to the project, and what may stand at its top level.

use super::Finding;
use crate::command::{Failure, output};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Besides dot files: nothing else may stand at the top.
const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "config",
    "docs",
    "spooky-common",
    "spooky-ebpf",
    "spooky-user",
    "tests",
    "xtask",
];

/// Directories of a checkout without git that hold nothing of the project.
const NOT_OURS: &[&str] = &[".git", "target", "__pycache__"];

/// Paths relative to `root`, sorted: what git knows or would add; every file where there is no git.
///
/// # Errors
/// A directory cannot be read.
pub(super) fn files(root: &Path) -> Result<Vec<String>, Failure> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = output(&mut git).map(|names| {
        let names = names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned);
        // Deleted, but not yet in the index as such.
        names.filter(|name| root.join(name).exists()).collect::<BTreeSet<_>>()
    });
    match listed {
        Some(files) if !files.is_empty() => Ok(files.into_iter().collect()),
        _ => {
            let mut files = Vec::new();
            walk(root, root, &mut files).map_err(|error| {
                Failure::new(format!("cannot read {}: {error}", root.display()))
            })?;
            files.sort();
            Ok(files)
        }
    }
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<String>) -> std::io::Result<()> {
    for entry in dir.read_dir()? {
        let entry = entry?;
        if NOT_OURS.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(root, &path, files)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            files.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

pub(super) fn top_level(files: &[String]) -> Vec<Finding> {
    let present: BTreeSet<&str> = files.iter().filter_map(|path| path.split('/').next()).collect();
    let stray = present
        .iter()
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(name))
        .map(|name| Finding::error(name, "may not stand at the top level"));
    let absent = TOP_LEVEL
        .iter()
        .filter(|name| !present.contains(*name))
        .map(|name| Finding::error(name, "is missing from the top level"));
    stray.chain(absent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_level_is_closed() {
        let mut files: Vec<String> = TOP_LEVEL.iter().map(|name| format!("{name}/x")).collect();
        files.push(".gitignore".to_owned());
        assert_eq!(top_level(&files), []);
        files.push("scripts/x.sh".to_owned());
        assert_eq!(
            top_level(&files),
            [Finding::error("scripts", "may not stand at the top level")]
        );
        files.retain(|path| !path.starts_with("docs"));
        assert_eq!(top_level(&files).len(), 2);
    }
}
