//! A child process as a guard, and what `/proc` says of it.

use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// A child that is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; `name` stands in messages.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {name} ({command:?}): {error}"),
        };
        Self { name: name.into(), child, status: None }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, when it has.
    ///
    /// # Panics
    /// When the kernel cannot say.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }

    /// Sends a signal; nothing happens when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.status().is_none() {
            let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
            // It may have ended since: that is what the signal was for.
            let _sent = kill_process(id.expect("a process id is positive"), signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended by `deadline`.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let name = self.name.clone();
        wait::until(&format!("end of {name}"), deadline, || self.status())
    }

    /// Resident memory in bytes (`VmRSS`, proc_pid_status(5)); 0 when it has ended.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most resident memory in bytes since [`Self::forget_peak`] (`VmHWM`); 0 when it has ended.
    pub fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// Lets [`Self::peak_bytes`] begin anew (proc_pid_clear_refs(5)).
    pub fn forget_peak(&self) {
        // Where that may not be written, the peak since the start is the stricter figure.
        let _forgotten = fs::write(format!("/proc/{}/clear_refs", self.id()), "5");
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    }

    /// CPU time that it has taken, in seconds; 0 when it has ended.
    pub fn cpu_seconds(&self) -> f64 {
        ticks(&format!("/proc/{}/stat", self.id()), UTIME)
    }

    /// How long it ran and waited to run; nothing when it has ended.
    pub fn scheduling(&self) -> Scheduling {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten();
        threads.flatten().fold(Scheduling::default(), |sum, thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let mut seconds = text.split_whitespace().map(|it| it.parse().unwrap_or(0.0) / 1e9);
            let mut next = || seconds.next().unwrap_or(0.0);
            Scheduling { ran: sum.ran + next(), waited: sum.waited + next() }
        })
    }

    /// Open file descriptors; 0 when it has ended.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }
}

/// Time that a process ran and that it was ready and had to wait for a CPU, in seconds, of all its threads that live
/// (proc_pid_schedstat).
#[derive(Debug, Clone, Copy, Default)]
pub struct Scheduling {
    pub ran: f64,
    pub waited: f64,
}

impl Scheduling {
    /// What came since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { ran: self.ran - before.ran, waited: self.waited - before.waited }
    }
}

/// CPU time in seconds of all children of this process that have ended and been waited for.
pub fn cpu_seconds_of_ended_children() -> f64 {
    ticks("/proc/self/stat", CUTIME)
}

/// Places of `utime` and `cutime` in proc_pid_stat(5), counted from the end of the name; `stime` and `cstime` follow.
const UTIME: usize = 11;
const CUTIME: usize = 13;

/// Two neighbouring times of proc_pid_stat(5), together, in seconds.
fn ticks(file: &str, first: usize) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let Some((_, fields)) = text.rsplit_once(')') else { return 0.0 };
    let fields = fields.split_whitespace().skip(first).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on every architecture that Linux runs on today.
    ticks as f64 / 100.0
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status().is_none() {
            // Either can only fail when the child is gone already.
            let _killed = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}
