//! Tests that need root or the kernel's leave: they say aloud that they were skipped, and fail where they must run.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// True when this process may make network namespaces and load programs. Otherwise prints `SKIPPED <test>: <why>`, and
/// the test returns.
///
/// # Panics
/// When privilege is missing and the environment says `SPOOKY_REQUIRE_KERNEL=1`.
#[track_caller]
pub fn kernel(test: &str) -> bool {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let Some(why) = MISSING.get_or_init(missing) else {
        return true;
    };
    assert!(
        std::env::var_os("SPOOKY_REQUIRE_KERNEL").is_none_or(|value| value != "1"),
        "{test} cannot run, and SPOOKY_REQUIRE_KERNEL=1: {why}"
    );
    println!("SKIPPED {test}: {why}");
    false
}

fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".into());
    }
    let name = format!("sptry-{}", std::process::id());
    let ip = |verb: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", verb, &name]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status()
    };
    match ip("add") {
        Err(error) => Some(format!("ip (package iproute2): {error}")),
        Ok(status) if !status.success() => Some("may not make a network namespace".into()),
        Ok(_) => {
            // Left over at worst as an empty namespace, which the next netns::Pair clears away.
            let _cleared = ip("del");
            None
        }
    }
}
