//! Starting other programs: what is announced, how failure reads, and with which rights. Every other
//! module of xtask may import this one; it imports none of them.

use std::ffi::OsStr;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Why a command ended. The message is the remedy, or names what to look at.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    exit_code: u8,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 1 }
    }

    /// Everything has been said; the command ends with code 1 and no further line.
    pub(crate) fn told() -> Self {
        Self::new("")
    }

    pub(crate) fn is_told(&self) -> bool {
        self.message.is_empty()
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { message: format!("{message}; see `cargo xtask --help`"), exit_code: 2 }
    }

    pub(crate) fn unknown_argument(argument: &str) -> Self {
        Self::usage(format!("unknown argument `{argument}`"))
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What this process may do to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    Root,
    /// Not root, but `sudo` is installed; it may ask for a password.
    Sudo,
    None,
}

impl Privilege {
    pub(crate) fn find() -> Self {
        if rustix::process::geteuid().is_root() {
            Self::Root
        } else if which("sudo").is_some() {
            Self::Sudo
        } else {
            Self::None
        }
    }

    /// `program` started as root, or `None` without the right to.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Option<Command> {
        match self {
            Self::Root => Some(Command::new(program)),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg("-E").arg(program);
                Some(command)
            }
            Self::None => None,
        }
    }
}

/// The repository this xtask was compiled from.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The cargo that started this xtask, so that `cargo +toolchain xtask` keeps its toolchain.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    forget_cargo(&mut command);
    command
}

/// Keeps from `command` what cargo told this xtask about itself: build scripts (ring's) watch these
/// variables and would run anew each time a build from here follows one from a shell.
pub(crate) fn forget_cargo(command: &mut Command) {
    let about_us = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    for (name, _) in std::env::vars_os() {
        if about_us.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
}

/// The full path of `program`, looked up on PATH and in the sbin directories that a user's PATH lacks.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrative = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(administrative)
        .map(|dir| dir.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// One line that says what happens next, on stdout and at once.
pub(crate) fn say(line: impl fmt::Display) {
    let mut stdout = std::io::stdout().lock();
    // A closed pipe at the reader's end is no reason to stop: `cargo xtask test | head`.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Runs `command` with its output shown, and says how long it took.
///
/// # Errors
/// The program cannot be started, or ends with another code than 0.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<(), Failure> {
    say(format_args!("==> {what}"));
    let start = Instant::now();
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    if !status.success() {
        return Err(Failure::new(format!("{what}: failed ({status}): {}", line(command))));
    }
    say(format_args!("    {what}: done in {:.1} s", start.elapsed().as_secs_f32()));
    Ok(())
}

/// Runs `command` silently and gives its standard output, or `None` if it failed.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn cannot_start(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot start {}: {error}", command.get_program().display()))
}

/// `command` as it would be typed.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
