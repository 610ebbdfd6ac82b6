//! `cargo xtask bench` in small, as a person would start it: it ends, no request fails, and it leaves nothing behind,
//! also when it is stopped. No time is asserted.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The programs that the test run has built, or why this test cannot run.
fn programs() -> Result<PathBuf, String> {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let bin = xtask.parent().unwrap_or(Path::new(".")).to_owned();
    for name in ["spooky", "spooky-load", "spooky-floor", "spooky-origin", "spooky-devcert"] {
        if !bin.join(name).exists() {
            return Err(format!("{name} is not built: cargo build --bins"));
        }
    }
    if !rustix::process::geteuid().is_root() {
        return Err("needs root: network namespaces".to_owned());
    }
    Ok(bin)
}

/// `None`, said aloud, where the bench cannot run; a failure where it has to.
fn start(name: &str, arguments: &[&str]) -> Option<Child> {
    let bin = match programs() {
        Ok(bin) => bin,
        Err(why) => {
            let required = std::env::var("SPOOKY_REQUIRE_KERNEL").is_ok_and(|value| value == "1");
            assert!(!required, "{name}: {why}, and SPOOKY_REQUIRE_KERNEL is set");
            println!("SKIPPED {name}: {why}");
            return None;
        }
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["bench", "--shape", "--bin"]).arg(bin).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command.spawn().expect("xtask starts"))
}

/// Namespaces of the bench that is this process.
fn namespaces(bench: u32) -> Vec<String> {
    let names = Path::new("/run/netns").read_dir().into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&format!("spooky-bench-{bench}-"))).collect()
}

#[test]
fn a_small_bench_ends_and_no_request_fails() {
    let Some(child) = start("bench::a_small_bench_ends_and_no_request_fails", &[]) else { return };
    let id = child.id();
    let output = child.wait_with_output().expect("it is a child");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    for part in
        ["loopback", " get ", " rate ", " down ", " up ", " fresh ", " resumed ", " idle-1000 "]
    {
        assert!(said.contains(part), "{part} was not run:\n{said}");
    }
    for subject in ["floor", "spooky-off", "spooky-reuseport", "spooky-xdp"] {
        assert!(said.contains(subject), "{subject} was not run:\n{said}");
    }
    assert_eq!(namespaces(id), [""; 0]);
}

#[test]
fn a_bench_that_is_stopped_leaves_nothing_behind() {
    let name = "bench::a_bench_that_is_stopped_leaves_nothing_behind";
    let Some(mut child) = start(name, &["--only", "get", "--rounds", "100"]) else { return };
    let stdout = child.stdout.take().expect("it is piped");
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("spooky-xdp")));
    if first.is_none() {
        let mut errors = String::new();
        child.stderr.take().expect("it is piped").read_to_string(&mut errors).expect("text");
        panic!("no round was run: {errors}");
    }
    assert_ne!(namespaces(child.id()), [""; 0]);
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.expect("a child's number");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is ours");
    lines.for_each(drop);
    let status = child.wait().expect("it is a child");
    assert_eq!(status.code(), Some(1), "stopped is not done");
    assert_eq!(namespaces(child.id()), [""; 0]);
}
