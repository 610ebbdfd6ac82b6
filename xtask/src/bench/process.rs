//! Programs that run while something is measured: started with a log of their own, ended at the latest when the value
//! is dropped, read from /proc. Imports `command` only.

use crate::command::{Failure, cannot_start};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// From SIGTERM to SIGKILL. spooky drains; nobody has connections left to it by then.
const END: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// A child with its output in a file.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// # Errors
    /// The log cannot be made, or the program cannot be started.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Result<Self, Failure> {
        let cannot = |error| Failure::new(format!("cannot write {}: {error}", log.display()));
        let file = File::create(log).map_err(cannot)?;
        let same = file.try_clone().map_err(cannot)?;
        command.stdin(Stdio::null()).stdout(file).stderr(same);
        let child = command.spawn().map_err(|error| cannot_start(&command, &error))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// All that it has written, for a search.
    pub(crate) fn output(&self) -> String {
        fs::read(&self.log).map_or_else(
            |_gone| String::new(),
            |octets| String::from_utf8_lossy(&octets).into_owned(),
        )
    }

    /// It and its descendants: some proxies serve in processes of their own.
    pub(crate) fn family(&self) -> Vec<u32> {
        let mut family = vec![self.pid()];
        let parents = parents();
        let mut known = 0;
        while known < family.len() {
            let parent = family[known];
            family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            known += 1;
        }
        family
    }

    /// Why it is of no use, with the end of its log.
    pub(crate) fn blame(&self, what: &str) -> Failure {
        let text = self.output();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n    ");
        Failure::new(format!("{} {what}; the end of its log:\n    {tail}", self.name))
    }

    /// SIGTERM and, when it does not end in time, SIGKILL.
    pub(crate) fn end(&mut self) {
        self.end_within(END);
    }

    /// As [`Self::end`], for a program that has much to write at its end.
    pub(crate) fn end_within(&mut self, time: Duration) {
        if !self.is_alive() {
            return;
        }
        self.signal(Signal::TERM);
        let deadline = Instant::now() + time;
        while self.is_alive() {
            if Instant::now() > deadline {
                self.signal(Signal::KILL);
                let _ = self.child.wait();
                return;
            }
            std::thread::park_timeout(LOOK);
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It has not been waited for, so the number is still its own.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(processes) = Path::new("/proc").read_dir() else { return Vec::new() };
    let numbers =
        processes.flatten().filter_map(|it| it.file_name().to_string_lossy().parse::<u32>().ok());
    numbers.filter_map(|pid| Some((pid, parent(&stat(pid)?)?))).collect()
}

fn stat(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// The fourth field of proc_pid_stat(5), counted from the end of the name, which may contain anything.
fn parent(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// CPU time of all threads of a process, to the nanosecond where the kernel keeps it so.
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    let threads = Path::new("/proc").join(pid.to_string()).join("task").read_dir().ok()?;
    let times = threads.flatten().map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    times.sum::<Option<u64>>().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent("17 (a) b) (c) S 4 17 17 0"), Some(4));
        assert_eq!(parent("17"), None);
    }

    #[test]
    fn a_child_is_started_read_and_ended() {
        let log = std::env::temp_dir().join(format!("spooky-bench-test-{}", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo here; sleep 600 & wait"]);
        let mut running = Running::start("sh", command, &log).expect("sh starts");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !running.output().contains("here") || running.family().len() < 2 {
            assert!(Instant::now() < deadline, "{:?} {:?}", running.output(), running.family());
            std::thread::yield_now();
        }
        assert!(running.is_alive() && cpu(running.pid()).is_some());
        for pid in running.family().into_iter().skip(1) {
            let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not 0");
            let _ = kill_process(pid, Signal::TERM);
        }
        running.end();
        assert!(!running.is_alive());
        assert!(running.blame("is gone").to_string().contains("here"));
        let _ = fs::remove_file(log);
    }
}
