//! `run`: from a fresh clone to a proxy that serves, in one command. Builds, makes the development
//! certificate, and hands over to `supervise`, as root where that can be had.

mod config;
mod hints;
mod http;
mod supervise;

use crate::command::{Failure, Privilege, cannot_start, cargo, line, root, say, step, target_dir};
use crate::setup::{self, Scope};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The command `run` starts itself again with under sudo.
pub(crate) const SERVE: &str = "serve-as-root";

/// The configuration of `run`; its addresses are the constants below.
const CONFIG: &str = "config/dev.yaml";
/// Where config/dev.yaml has the listener, the admin port and the two backends.
const EDGE_PORT: u16 = 4433;
const ADMIN: &str = "127.0.0.1:9901";
const BACKENDS: [(&str, &str); 2] = [("blue", "127.0.0.1:8081"), ("green", "127.0.0.1:8082")];

/// How long between two looks at signals and children: short for a person, nothing for a core.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let mut sudo = true;
    let mut release = false;
    for argument in arguments {
        match argument.as_str() {
            "--no-sudo" => sudo = false,
            "--release" => release = true,
            other => return Err(Failure::unknown_argument(other)),
        }
    }
    setup::ensure(Scope::Build)?;
    let bin = build(release)?;
    let mut devcert = Command::new(bin.join("spooky-devcert"));
    step("development certificate", devcert.current_dir(root()).arg("target/dev"))?;
    config::write()?;
    hints::offer_client();

    let privilege = Privilege::find();
    if privilege == Privilege::Sudo && sudo {
        return serve_under_sudo(&bin);
    }
    if privilege != Privilege::Root {
        say(supervise::WITHOUT_PRIVILEGE);
    }
    serve(&[bin.display().to_string()])
}

/// Starts backends and spooky from the directory in `arguments`, and ends them on a signal.
pub(crate) fn serve(arguments: &[String]) -> Result<(), Failure> {
    let [bin] = arguments else {
        return Err(Failure::usage(format!("`{SERVE}` is started by `run`")));
    };
    supervise::supervise(&PathBuf::from(bin), &Stop::install()?)
}

/// The development profile: spooky's own code is compiled quickly, all packages below it (quiche,
/// BoringSSL, h2, tokio) with optimisation, and the tests use the very same build.
fn build(release: bool) -> Result<PathBuf, Failure> {
    let mut build = cargo();
    build.args(["build", "--bins", "--package", "spooky-user", "--package", "spooky-tests"]);
    if release {
        build.arg("--release");
    }
    let profile = if release { "release" } else { "debug" };
    let bin = target_dir().join(profile);
    if !bin.join("spooky").exists() {
        say("the first build compiles BoringSSL and quiche: about five minutes of one core");
    }
    step("build", &mut build)?;
    Ok(bin)
}

fn serve_under_sudo(bin: &std::path::Path) -> Result<(), Failure> {
    say("sudo: root is needed to load the kernel programs (`--no-sudo` goes without them)");
    let xtask = std::env::current_exe()
        .map_err(|error| Failure::new(format!("cannot find this program: {error}")))?;
    let stop = Stop::install()?;
    let mut command = Command::new("sudo");
    command.arg("-E").arg(xtask).arg(SERVE).arg(bin).current_dir(root());
    let mut child = command.spawn().map_err(|error| cannot_start(&command, &error))?;
    let mut told = false;
    loop {
        if let Some(status) = ended(&mut child)? {
            return finish(status, &line(&command));
        }
        if stop.terminated() && !told {
            // Ctrl-C reaches everything on the terminal; SIGTERM came to this process alone, and a
            // user may not signal root's process but through sudo.
            told = true;
            let pid = child.id().to_string();
            let _ = Command::new("sudo").args(["-n", "kill", "-TERM", &pid]).status();
        }
        std::thread::park_timeout(LOOK);
    }
}

fn finish(status: ExitStatus, what: &str) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("{what}: {status}")))
}

fn ended(child: &mut Child) -> Result<Option<ExitStatus>, Failure> {
    child.try_wait().map_err(|error| Failure::new(format!("cannot wait for a child: {error}")))
}

/// What the person at the keyboard, or the service manager, asked for.
#[derive(Debug)]
pub(crate) struct Stop {
    interrupts: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Stop {
    /// # Errors
    /// The signals cannot be caught.
    pub(crate) fn install() -> Result<Self, Failure> {
        let stop = Self { interrupts: Arc::default(), terminated: Arc::default() };
        let register = |signal, flag: &Arc<AtomicBool>| {
            signal_hook::flag::register(signal, Arc::clone(flag))
                .map_err(|error| Failure::new(format!("cannot catch signal {signal}: {error}")))
        };
        register(signal_hook::consts::SIGINT, &stop.interrupts)?;
        register(signal_hook::consts::SIGTERM, &stop.terminated)?;
        register(signal_hook::consts::SIGHUP, &stop.terminated)?;
        Ok(stop)
    }

    fn terminated(&self) -> bool {
        self.terminated.load(Ordering::Relaxed)
    }

    /// Whether a signal came, without forgetting it.
    pub(crate) fn asked(&self) -> bool {
        self.terminated() || self.interrupts.load(Ordering::Relaxed)
    }

    /// Whether a signal came since the last call; the next one counts anew.
    fn take(&self) -> bool {
        let interrupted = self.interrupts.swap(false, Ordering::Relaxed);
        let terminated = self.terminated.swap(false, Ordering::Relaxed);
        interrupted || terminated
    }
}

/// Sends `signal` to a child that has not been waited for, so its number is still its own.
fn signal(child: &Child, signal: Signal) {
    if let Ok(raw) = i32::try_from(child.id())
        && let Some(pid) = Pid::from_raw(raw)
    {
        // ESRCH: it has just ended, which is what was wanted.
        let _ = kill_process(pid, signal);
    }
}

/// A child outside of the terminal's process group, so that Ctrl-C reaches `run` alone and the
/// children end in order; ended by the kernel if `run` is killed.
fn child_command(program: &std::path::Path) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = match crate::command::which("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.current_dir(root()).stdin(Stdio::null()).process_group(0);
    command
}
