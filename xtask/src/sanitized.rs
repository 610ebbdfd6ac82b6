//! A build with a nightly compiler that watches its own memory: AddressSanitizer, in a target directory of its own below the usual
//! one. Imports `command`.

use crate::command::{Failure, cargo, output, root, target_dir};
use std::path::PathBuf;
use std::process::Command;

/// `cfg(asan)` gives the heap to AddressSanitizer; frame pointers make its stacks readable.
const FLAGS: &str = "-Zsanitizer=address --cfg asan -Cforce-frame-pointers=yes";

/// What lives as long as the process is no leak to us. A small quarantine, so that memory does not seem to grow for ever. Constants
/// of BoringSSL that are local to functions are taken for two of one name.
pub(crate) const OPTIONS: &str = "detect_leaks=0:quarantine_size_mb=16:detect_odr_violation=0";

/// Where it is built.
fn dir() -> PathBuf {
    target_dir().join("asan")
}

/// Where its programs are.
pub(crate) fn programs() -> PathBuf {
    dir().join(triple()).join("debug")
}

/// `cargo VERB` for this build. Programs that AddressSanitizer ends leave a report, see [`reports`].
///
/// # Errors
/// There is no nightly compiler.
pub(crate) fn nightly_cargo(verb: &str) -> Result<Command, Failure> {
    // Through rustup: the `cargo` that started this program is one toolchain's own and takes no `+nightly`.
    if output(Command::new("rustup").args(["run", "nightly", "cargo", "--version"])).is_none() {
        return Err(Failure::new(
            "a nightly compiler is missing: rustup toolchain install nightly --profile minimal",
        ));
    }
    let mut command = Command::new("rustup");
    for (name, _) in cargo().get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(name);
    }
    command
        .current_dir(root())
        .args(["run", "nightly", "cargo", verb, "--target", &triple()])
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .env("CARGO_TARGET_DIR", dir())
        .env("RUSTFLAGS", FLAGS)
        .env("ASAN_OPTIONS", format!("{OPTIONS}:log_path={}", dir().join("report").display()));
    Ok(command)
}

/// Reports that programs have left.
pub(crate) fn reports() -> Vec<PathBuf> {
    let entries = dir().read_dir().into_iter().flatten().flatten();
    let is_report =
        |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == "report") && path.is_file();
    let mut reports: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_report).collect();
    reports.sort();
    reports
}

/// Takes reports of an earlier run away.
///
/// # Errors
/// They cannot be taken away.
pub(crate) fn forget_reports() -> Result<(), Failure> {
    for report in reports() {
        std::fs::remove_file(&report).map_err(|error| {
            Failure::new(format!("cannot remove {}: {error}", report.display()))
        })?;
    }
    Ok(())
}

/// The only kind of machine that is supported has one for each architecture.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}
