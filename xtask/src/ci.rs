//! `ci`: every gate in order, cheapest first, the same on a desk and in automation. Ends at the
//! first gate that fails. Imports `bench`, `command`, `ebpf`, `setup`, `test` and `tidy`.

use crate::command::{Failure, cargo, output, say, step};
use crate::setup::{self, Scope};
use crate::{bench, ebpf, test, tidy};

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let mut gate = false;
    for argument in arguments {
        match argument.as_str() {
            // Builds everything once more, with full optimisation: minutes that not every run has.
            "--gate" => gate = true,
            other => return Err(Failure::unknown_argument(other)),
        }
    }
    setup::ensure(Scope::Test)?;
    need_component("fmt", "rustfmt")?;
    need_component("clippy", "clippy")?;
    step("format", cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run(&[])?;
    say("==> eBPF object and source");
    ebpf::run(true).map_err(Failure::new)?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step("lints", cargo().args(clippy))?;
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    step("docs", cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    licences()?;
    test::all(true, false, &[])?;
    if gate {
        say("==> instructions a request");
        bench::run(&["--gate".to_owned()])?;
    }
    Ok(())
}

fn need_component(subcommand: &str, component: &str) -> Result<(), Failure> {
    if output(cargo().args([subcommand, "--version"])).is_some() {
        return Ok(());
    }
    Err(Failure::new(format!("{component} is missing: rustup component add {component}")))
}

/// Advisories need a database from the network and change from day to day; they are no gate.
fn licences() -> Result<(), Failure> {
    if output(cargo().args(["deny", "--version"])).is_none() {
        say("SKIPPED licences: cargo-deny is not installed (cargo install --locked cargo-deny)");
        return Ok(());
    }
    step("licences", cargo().args(["deny", "check", "licenses", "bans", "sources"]))
}
