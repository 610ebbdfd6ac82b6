//! Where the programs under test are, built when they are not there or older than their source. Imports nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The daemon. `cargo build` runs once a test process: it does nothing when the binary is up to date.
pub fn spooky() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("spooky"))
}

/// The sample backend.
pub fn origin() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("spooky-origin"))
}

/// The load generator.
pub fn load() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("spooky-load"))
}

/// The sender of frames.
pub fn flood() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("spooky-flood"))
}

/// The HTTP/3 server that answers from memory.
pub fn floor() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("spooky-floor"))
}

/// The Python that has the clients' packages.
///
/// # Panics
/// When it is not there; the message says how it is made.
pub fn python() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = repository().join("target/venv/bin/python");
        assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
        path
    })
}

/// The top of the source tree.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is inside the repository")
}

/// All programs in one build, with the same selection as `cargo xtask`: features are united over the packages of a build,
/// so another selection would compile the packages below them anew.
fn built(name: &str) -> PathBuf {
    let (target, profile) = target_and_profile();
    if crate::SANITIZED {
        // Another cargo would not know the flags of this build: `cargo xtask nightly` has built them.
        return target.join(&profile).join(name);
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).args(["build", "--quiet", "--bins"]);
    cargo.args(["--package", "spooky-user", "--package", "spooky-tests"]);
    cargo.arg("--target-dir").arg(&target);
    // What cargo told this test about itself: ring's build script watches these variables and would run anew.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name.as_ref());
        }
    }
    if profile != "debug" {
        cargo.args(["--profile", &profile]);
    }
    let path = target.join(&profile).join(name);
    match cargo.status() {
        Ok(status) if status.success() => path,
        Ok(status) => panic!("{cargo:?}: {status}"),
        // Tests may be carried to a machine without cargo, with the binaries beside them.
        Err(_) if path.exists() => path,
        Err(error) => panic!("cannot run cargo to build {name}: {error}"),
    }
}

/// Test binaries are `TARGET/PROFILE/deps/NAME-HASH`.
fn target_and_profile() -> (PathBuf, String) {
    let binary = std::env::current_exe().expect("a process knows its binary");
    let profile = binary.ancestors().find(|path| path.join("deps").is_dir());
    let profile = profile.expect("a test binary is run from cargo's target directory");
    let target = profile.parent().expect("a profile directory is inside the target directory");
    let name = profile.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    (target.to_owned(), name.to_owned())
}
