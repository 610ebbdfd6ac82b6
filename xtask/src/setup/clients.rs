//! The HTTP/3 clients of the tests: Python packages of pinned versions in target/venv, outside of
//! the system's Python. A stamp with the list they were made from says whether they are current.

use super::tools::python_with_venv;
use crate::command::{Failure, root, say, step};
use std::path::PathBuf;
use std::process::Command;

pub(crate) const NAME: &str = "target/venv";
pub(crate) const WHY: &str = "aioquic, qh3 and curl_cffi, HTTP/3 clients that are not quiche";

/// The Python that has the clients, whether or not it is there yet.
pub(crate) fn python() -> PathBuf {
    venv().join("bin/python")
}

pub(crate) fn are_there() -> bool {
    let wanted = std::fs::read(requirements());
    let stamped = std::fs::read(stamp());
    python().exists() && matches!((wanted, stamped), (Ok(wanted), Ok(stamped)) if wanted == stamped)
}

/// Makes target/venv anew from tests/clients/requirements.txt.
///
/// # Errors
/// No Python with venv, or a package cannot be had: the message says which command failed.
pub(crate) fn ensure() -> Result<(), Failure> {
    let wanted = std::fs::read(requirements()).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", requirements().display()))
    })?;
    let python3 = python_with_venv().ok_or_else(|| {
        Failure::new("no python3 with venv; as root run: apt-get install -y python3-venv")
    })?;
    say(format_args!("setup: making {NAME}: {WHY}"));
    let mut make = Command::new(python3);
    make.args(["-m", "venv", "--clear"]).arg(venv());
    step("python environment", &mut make)?;
    let mut install = Command::new(python());
    install
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(requirements());
    step("python packages", &mut install)?;
    std::fs::write(stamp(), wanted)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", stamp().display())))
}

fn venv() -> PathBuf {
    root().join(NAME)
}

fn stamp() -> PathBuf {
    venv().join("made-from-requirements.txt")
}

fn requirements() -> PathBuf {
    root().join("tests/clients/requirements.txt")
}
