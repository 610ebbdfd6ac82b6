//! Starts the two backends and spooky, says how to try them, and ends them in order: spooky first,
//! so that it can drain into living backends. Builds nothing and installs nothing.

use super::{ADMIN, BACKENDS, LOOK, Stop, child_command, config, ended, hints, http, signal};
use crate::command::{Failure, cannot_start, line, output, say};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What is lost without root, and what is not.
pub(super) const WITHOUT_PRIVILEGE: &str = "\
without root spooky serves all the same, on plain sockets. Lost: the XDP program (access
    lists before the network stack, kernel counters) and steering by connection ID in the kernel, so
    that packets of a client whose address changed take one hop more, from worker to worker.";

/// From start until every worker listens.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// config/dev.yaml drains for 10 s at most.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);
/// A sample backend has nothing to finish.
const BACKEND_DEADLINE: Duration = Duration::from_secs(3);

/// A child that is ended, at the latest, when this value is dropped.
struct Running {
    name: &'static str,
    /// As a person would start it.
    again: String,
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            signal(&self.child, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

pub(super) fn supervise(bin: &Path, stop: &Stop) -> Result<(), Failure> {
    // Dropped in reverse order on every way out: spooky before its backends.
    let mut backends = Vec::new();
    for (name, address) in BACKENDS {
        backends.push(start_backend(bin, name, address)?);
    }
    let mut spooky = start_spooky(bin)?;
    if !wait_until_healthy(&mut spooky, stop)? {
        return end(spooky, backends, stop);
    }
    say(hints::how_to_try(bin));
    loop {
        if stop.take() {
            return end(spooky, backends, stop);
        }
        if let Some(status) = ended(&mut spooky.child)? {
            return Err(Failure::new(format!("spooky ended by itself ({status}), see above")));
        }
        for gone in take_ended(&mut backends)? {
            say(format_args!("backend {gone}\nspooky goes on with the others"));
        }
        std::thread::park_timeout(LOOK);
    }
}

/// Removes the backends that have ended, which may be the person's own experiment, and gives for each
/// how it ended and how it is started again.
fn take_ended(backends: &mut Vec<Running>) -> Result<Vec<String>, Failure> {
    let mut gone = Vec::new();
    for index in (0..backends.len()).rev() {
        if let Some(status) = ended(&mut backends[index].child)? {
            let Running { name, again, .. } = &backends[index];
            gone.push(format!("{name} ended ({status}); to start it again: {again}"));
            backends.remove(index);
        }
    }
    Ok(gone)
}

fn start_backend(bin: &Path, name: &'static str, address: &str) -> Result<Running, Failure> {
    let mut command = child_command(&bin.join("spooky-origin"));
    command.args(["--listen", address, "--name", name]).stdout(Stdio::piped());
    as_invoking_user(&mut command);
    let mut child = command.spawn().map_err(|error| cannot_start(&command, &error))?;
    let stdout = child.stdout.take();
    let program = bin.join("spooky-origin");
    let again = format!("{} --listen {address} --name {name}", program.display());
    let running = Running { name, again, child };
    let started = stdout.map(|stdout| first_line(name, stdout));
    match started.map(|line| line.recv_timeout(START_DEADLINE)) {
        Some(Ok(line)) if line.starts_with("listening") => {
            say(format_args!("backend {name}: {line}"));
            Ok(running)
        }
        _ => Err(Failure::new(format!(
            "backend {name} did not begin to listen on {address}, see above; `ss -ltnp` shows \
             whether another program has the port"
        ))),
    }
}

/// Gives the first line of `stdout`; a thread shows the later ones, so that the pipe never fills.
fn first_line(name: &'static str, stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut sender = Some(sender);
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            match sender.take() {
                Some(first) => drop(first.send(line)),
                None => say(format_args!("backend {name}: {line}")),
            }
        }
    });
    receiver
}

/// Backends need no root, even when `run` has it through sudo.
fn as_invoking_user(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if rustix::process::geteuid().is_root()
        && let (Some(uid), Some(gid)) = (number("SUDO_UID"), number("SUDO_GID"))
    {
        command.uid(uid).gid(gid);
    }
}

fn start_spooky(bin: &Path) -> Result<Running, Failure> {
    let mut command = child_command(&bin.join("spooky"));
    command.args(["run", "--config", config::WRITTEN]);
    let child = command.spawn().map_err(|error| cannot_start(&command, &error))?;
    Ok(Running { name: "spooky", again: line(&command), child })
}

/// `false`: a signal came first.
fn wait_until_healthy(spooky: &mut Running, stop: &Stop) -> Result<bool, Failure> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        if stop.take() {
            return Ok(false);
        }
        if let Some(status) = ended(&mut spooky.child)? {
            return Err(Failure::new(format!("spooky did not start ({status}), see above")));
        }
        if http::get(ADMIN, "/health").is_some_and(|(status, _)| status == 200) {
            return Ok(true);
        }
        if Instant::now() > deadline {
            let seconds = START_DEADLINE.as_secs();
            return Err(Failure::new(format!(
                "spooky is not healthy after {seconds} s: `curl {ADMIN}/health` says why"
            )));
        }
        std::thread::park_timeout(LOOK);
    }
}

fn end(mut spooky: Running, backends: Vec<Running>, stop: &Stop) -> Result<(), Failure> {
    say("\nending: spooky drains (Ctrl-C again: at once)");
    let clean = terminate(&mut spooky, DRAIN_DEADLINE, Some(stop))?;
    drop(spooky);
    for mut backend in backends {
        terminate(&mut backend, BACKEND_DEADLINE, None)?;
    }
    let left = left_attached();
    if let Some(link) = left {
        return Err(Failure::new(format!("an XDP program is still attached: {link}")));
    }
    if !clean {
        return Err(Failure::new("spooky did not end cleanly, see above"));
    }
    say("ended; nothing is left running");
    Ok(())
}

/// SIGTERM, then a wait; a second signal from the person is passed on; SIGKILL at the deadline.
/// `true`: the child ended with code 0.
fn terminate(
    running: &mut Running,
    deadline: Duration,
    stop: Option<&Stop>,
) -> Result<bool, Failure> {
    signal(&running.child, Signal::TERM);
    let deadline = Instant::now() + deadline;
    loop {
        if let Some(status) = ended(&mut running.child)? {
            return Ok(status.success());
        }
        if stop.is_some_and(Stop::take) {
            signal(&running.child, Signal::TERM);
        }
        if Instant::now() > deadline {
            say(format_args!("{} does not end: killed", running.name));
            return Ok(false);
        }
        std::thread::park_timeout(LOOK);
    }
}

/// The line of `ip link` that shows an XDP program on the development interface.
fn left_attached() -> Option<String> {
    let links = output(Command::new("ip").args(["-o", "link", "show", "dev", hints::INTERFACE]))?;
    links.lines().find(|line| line.contains("xdp")).map(str::to_owned)
}
