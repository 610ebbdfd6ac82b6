//! The test binaries: which there are, in how many threads each runs, and what cargo would give them. Imports `command`.
//!
//! They are started here and not by `cargo test`, because tests that wait for each other's turn on the machine need more
//! threads than there are cores, and the others do not; and so that it can be said how long each took.

use crate::command::{Failure, Privilege, cannot_start, cargo, forget_cargo, say};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Whole-program tests that keep to turns (tests/support/turn.rs): those that wait for theirs hold a thread.
const BY_TURNS: [&str; 4] = ["attacks", "conformance", "interop", "proxy"];
const THREADS_BY_TURNS: usize = 16;

/// One test binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) name: String,
    binary: PathBuf,
    /// Where its package is: tests run there.
    directory: PathBuf,
}

/// Builds every test binary of the workspace.
///
/// # Errors
/// One does not build.
pub(super) fn build() -> Result<Vec<Suite>, Failure> {
    say("==> build the tests");
    let start = Instant::now();
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| cannot_start(&command, &error))?;
    if !output.status.success() {
        return Err(Failure::new("the tests do not build: see above"));
    }
    say(format_args!("    build the tests: done in {:.1} s", start.elapsed().as_secs_f32()));
    let mut suites: Vec<Suite> =
        String::from_utf8_lossy(&output.stdout).lines().filter_map(suite).collect();
    // Cargo tells of them as they become ready.
    suites.sort_by(|one, other| (&one.directory, &one.name).cmp(&(&other.directory, &other.name)));
    Ok(suites)
}

/// A message of cargo about a test binary.
fn suite(message: &str) -> Option<Suite> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_test = message["profile"]["test"] == true && message["reason"] == "compiler-artifact";
    let binary = message["executable"].as_str().filter(|_| is_test)?;
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?;
    let name = message["target"]["name"].as_str()?.to_owned();
    Some(Suite { name, binary: binary.into(), directory: directory.into() })
}

// === impl Suite ===

impl Suite {
    /// Tests at the same time; `None` leaves it to the machine.
    pub(super) fn threads(&self) -> Option<usize> {
        BY_TURNS.contains(&self.name.as_str()).then_some(THREADS_BY_TURNS)
    }

    /// The binary as a command, with the rights of `privilege`; `arguments` are the caller's.
    pub(super) fn command(&self, privilege: Privilege, arguments: &[String]) -> Command {
        let mut command =
            privilege.command(&self.binary).unwrap_or_else(|| Command::new(&self.binary));
        forget_cargo(&mut command);
        command.current_dir(&self.directory).arg("--show-output");
        let own = arguments.iter().any(|argument| argument.starts_with("--test-threads"));
        if let Some(threads) = self.threads().filter(|_| !own) {
            command.arg(format!("--test-threads={threads}"));
        }
        command.args(arguments);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_binaries_are_suites() {
        let message = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/r/tests/Cargo.toml","target":
                {{"name":"attacks"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let found = suite(&message(true, r#""/t/attacks-1""#)).expect("a suite");
        assert_eq!(
            (found.name.as_str(), found.directory.as_path()),
            ("attacks", Path::new("/r/tests"))
        );
        assert_eq!(found.threads(), Some(THREADS_BY_TURNS));
        assert_eq!(suite(&message(false, r#""/t/spooky""#)), None);
        assert_eq!(suite(&message(true, "null")), None);
        assert_eq!(suite("   Compiling spooky"), None);
    }
}
