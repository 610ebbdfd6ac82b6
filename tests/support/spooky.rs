//! The daemon under test: started from a file, met over its sockets, ended by a signal. Dropping it ends it, and fails
//! the test when its log speaks of a panic.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::netns::Namespace;
use crate::process::{Process, Scheduling};
use crate::{http1, programs, wait};

/// How long a start may take: a debug build on a machine that also compiles.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(20);

/// A running daemon.
#[derive(Debug)]
pub struct Spooky {
    process: Process,
    admin: SocketAddr,
    namespace: Option<Namespace>,
    directory: tempfile::TempDir,
}

/// How a start that was refused ended.
#[derive(Debug)]
pub struct Refusal {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output and standard error.
    pub text: String,
}

impl Spooky {
    /// Starts the daemon and waits until `GET /health` answers 200.
    ///
    /// # Panics
    /// When it ends or does not become healthy; the message has its log.
    pub fn start(config: &Config, admin: SocketAddr) -> Self {
        Self::start_in(None, config, admin)
    }

    /// As [`Spooky::start`], in a network namespace.
    ///
    /// # Panics
    /// As [`Spooky::start`].
    pub fn start_in(namespace: Option<&Namespace>, config: &Config, admin: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = command(namespace, &directory, &config.text());
        let process = Process::start("spooky", &mut command);
        let mut spooky = Self { process, admin, namespace: namespace.cloned(), directory };
        let healthy = wait::poll(START, || {
            (spooky.process.status().is_some()
                || spooky.get("/health").is_ok_and(|(status, _)| status == 200))
            .then_some(())
        });
        let ended = spooky.process.status();
        assert!(
            healthy.is_some() && ended.is_none(),
            "spooky did not start: {}\n{}",
            ended.map_or("not healthy in time".into(), |status| status.to_string()),
            spooky.log()
        );
        spooky
    }

    /// Starts the daemon with a file that it has to refuse, and waits for its end.
    ///
    /// # Panics
    /// When it does not end by itself within 15 s.
    pub fn refused(text: &str) -> Refusal {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut process = Process::start("spooky", &mut command(None, &directory, text));
        let status = process.wait(Duration::from_secs(15));
        Refusal { code: status.code(), text: output(&directory) }
    }

    /// One request to the admin port.
    ///
    /// # Errors
    /// Whatever the socket says.
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        match &self.namespace {
            None => http1::get(self.admin, path),
            Some(namespace) => namespace.run(|| http1::get(self.admin, path)),
        }
    }

    /// A scrape of `/metrics`.
    ///
    /// # Panics
    /// When there is none to be had.
    pub fn metrics(&self) -> Metrics {
        let (status, page) = self.get("/metrics").expect("the admin port answers");
        assert_eq!(status, 200, "GET /metrics: {page}");
        Metrics::parse(&page)
    }

    /// Changes the file, sends SIGHUP, waits until a reload has ended with `result`.
    ///
    /// # Panics
    /// When none has in time.
    pub fn reload(&mut self, result: &str, change: impl FnOnce(&mut Value)) {
        let file = self.config_file();
        let text = fs::read_to_string(&file).expect("the daemon's file");
        let mut config: Value = serde_json::from_str(&text).expect("written as JSON");
        change(&mut config);
        fs::write(&file, format!("{config:#}\n")).expect("a file of the test's own");
        let ended = |spooky: &Self| {
            spooky.metrics().sum("spooky_config_reloads_total", &[("result", result)])
        };
        let before = ended(self);
        self.process().signal(Signal::HUP);
        wait::until_true("the reload has ended", START, || ended(self) == before + 1.0);
    }

    /// Asks for a drain (SIGTERM).
    pub fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// Drains and waits for the end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate();
        self.process.wait(STOP)
    }

    /// The process, for signals, memory and exit code.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Resident memory in bytes; 0 in a build whose memory is no figure ([`crate::SANITIZED`]).
    pub fn resident_bytes(&self) -> u64 {
        if crate::SANITIZED { 0 } else { self.process.resident_bytes() }
    }

    /// The most resident memory in bytes since [`Self::forget_peak`]; 0 as above.
    pub fn peak_bytes(&self) -> u64 {
        if crate::SANITIZED { 0 } else { self.process.peak_bytes() }
    }

    /// Lets [`Self::peak_bytes`] begin anew.
    pub fn forget_peak(&self) {
        self.process.forget_peak();
    }

    /// CPU time that it has taken, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.process.cpu_seconds()
    }

    /// How long it ran and waited to run.
    pub fn scheduling(&self) -> Scheduling {
        self.process.scheduling()
    }

    /// Open file descriptors.
    pub fn open_files(&self) -> usize {
        self.process.open_files()
    }

    /// All it wrote so far.
    pub fn log(&self) -> String {
        output(&self.directory)
    }

    /// The file it was started with.
    pub fn config_file(&self) -> std::path::PathBuf {
        self.directory.path().join("spooky.yaml")
    }
}

impl Drop for Spooky {
    fn drop(&mut self) {
        if self.process.status().is_none() {
            self.terminate();
            // What does not end now is killed by the process guard.
            let _ended = wait::poll(Duration::from_secs(3), || self.process.status());
        }
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(60);
            eprintln!("--- the end of spooky's log:\n{}", lines[tail..].join("\n"));
        } else {
            assert!(!log.contains("panicked at"), "spooky panicked:\n{log}");
        }
    }
}

fn command(namespace: Option<&Namespace>, directory: &tempfile::TempDir, text: &str) -> Command {
    let file = directory.path().join("spooky.yaml");
    fs::write(&file, text).expect("a temporary file can be written");
    let mut command = match namespace {
        None => Command::new(programs::spooky()),
        Some(namespace) => namespace.command(programs::spooky()),
    };
    let log = |name| File::create(directory.path().join(name)).expect("a log file can be made");
    command.args(["run", "--config"]).arg(file);
    command.stdin(Stdio::null()).stdout(log("stdout")).stderr(log("stderr"));
    command.env("RUST_BACKTRACE", "1").env("SPOOKY_FAULTS", "1");
    command
}

fn output(directory: &tempfile::TempDir) -> String {
    let read = |name| fs::read_to_string(directory.path().join(name)).unwrap_or_default();
    read("stdout") + &read("stderr")
}
