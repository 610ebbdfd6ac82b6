//! A subject that runs: its namespaces, its backend, its proxy, and the generators that are sent at it. Everything ends
//! when the value is dropped. Imports `command`, `lab`, `place`, `process`, `sample` and `subject`.

use super::lab::{Backend, Lab, stopped};
use super::place::{Net, Place};
use super::process::{Running, cpu};
use super::sample::Sample;
use super::subject::{BACKEND_PORT, Kind, PORT, Subject};
use crate::command::{Failure, which};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// From start to the first answer. 10,000 routes are read by then.
const START: Duration = Duration::from_secs(30);
/// The longest run is 10,000 handshakes; beyond this a run hangs.
const RUN_MAX: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(5);

/// Dropped from the top: the proxy before its backend, both before their network.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) subject: Subject,
    proxy: Option<Running>,
    backend: Option<Running>,
    net: Net,
    dir: PathBuf,
}

/// What a generator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Requests that are measured.
    pub(crate) requests: u64,
    /// Everything else.
    pub(crate) words: Vec<String>,
}

impl Load {
    pub(crate) fn new(requests: u64, words: &str) -> Self {
        Self { requests, words: words.split_whitespace().map(str::to_owned).collect() }
    }
}

impl Instance {
    /// Starts everything and waits for the first good answer.
    ///
    /// # Errors
    /// Something cannot be started or does not answer; the end of its log is in the message.
    pub(crate) fn start(subject: Subject, place: Place, lab: &Lab) -> Result<Self, Failure> {
        Self::start_through(subject, place, lab, &[])
    }

    /// As [`Self::start`], with the proxy started by another program: valgrind.
    pub(crate) fn start_through(
        subject: Subject,
        place: Place,
        lab: &Lab,
        through: &[String],
    ) -> Result<Self, Failure> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = lab.dir.join(format!("{number}-{}", subject.name));
        fs::create_dir_all(&dir)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", dir.display())))?;
        let net = Net::new(place)?;
        if subject.shape.single {
            net.without_segmentation()?;
        }
        let mut instance = Self { subject, proxy: None, backend: None, net, dir };
        if instance.subject.kind != Kind::Floor {
            instance.backend = Some(instance.start_backend(lab)?);
        }
        instance.proxy = instance.start_proxy(lab, through)?;
        instance.wait(lab)?;
        instance.net.settle(&lab.cores.proxy, &lab.cores.client)?;
        Ok(instance)
    }

    fn start_backend(&self, lab: &Lab) -> Result<Running, Failure> {
        let port = BACKEND_PORT.to_string();
        let certs = lab.certs();
        let (key, cert) = (certs.join("key.pem"), certs.join("cert.pem"));
        let program = match lab.backend {
            Backend::Nghttpd => which("nghttpd").unwrap_or_else(|| "nghttpd".into()),
            Backend::Origin => lab.program("spooky-origin"),
        };
        let mut command = self.net.beside_the_proxy(&lab.cores.proxy, program);
        match lab.backend {
            Backend::Nghttpd => {
                // Windows of 1 MiB and 16 MiB: the proxy under test is to decide, not these.
                command.args(["-a", "0.0.0.0", "-m", "1024", "-w", "20", "-W", "24", "-d"]);
                command.arg(lab.www());
                if self.subject.tls_backend {
                    command.arg(port).arg(key).arg(cert);
                } else {
                    command.arg("--no-tls").arg(port);
                }
            }
            Backend::Origin => {
                command.args(["--name", "origin", "--listen", &format!("0.0.0.0:{port}")]);
                if self.subject.tls_backend {
                    command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
                }
            }
        }
        Running::start("backend", command, &self.dir.join("backend.log"))
    }

    fn start_proxy(&self, lab: &Lab, through: &[String]) -> Result<Option<Running>, Failure> {
        let Some(recipe) = &self.subject.recipe else { return Ok(None) };
        let place = self.net.place();
        let start = recipe.fill(&self.subject.values(place, lab), &self.dir)?;
        let mut words = through.iter().chain(&start.command);
        let Some(program) = words.next() else { return Ok(None) };
        let cores =
            if self.subject.workers > 1 { &lab.cores.proxy_of_two } else { &lab.cores.proxy };
        let mut command = self.net.beside_the_proxy(cores, program);
        command.args(words).envs(start.environment).current_dir(&self.dir);
        Running::start(&self.subject.name, command, &self.dir.join("proxy.log")).map(Some)
    }

    /// Until a request succeeds.
    fn wait(&mut self, lab: &Lab) -> Result<(), Failure> {
        let deadline = Instant::now() + START;
        loop {
            lab.go_on()?;
            if let Some(backend) = self.backend.as_mut()
                && !backend.is_alive()
            {
                return Err(backend.blame("ended by itself"));
            }
            if self.answers(lab) {
                return Ok(());
            }
            let Some(proxy) = self.proxy.as_mut() else { continue };
            if !proxy.is_alive() {
                return Err(proxy.blame("ended by itself"));
            }
            if Instant::now() > deadline {
                return Err(proxy.blame("does not answer"));
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn answers(&self, lab: &Lab) -> bool {
        if self.subject.kind == Kind::Backend {
            let run = self.run_backend(lab, &Load::new(1, "-c 1 -m 1 /bytes/1024"));
            return run.is_ok_and(|sample| sample.failures() == 0);
        }
        let words = "-c 1 -m 1 --warm 0 --path /bytes/1024 --expect 1024";
        let run = self.run(lab, &Load::new(1, words));
        run.is_ok_and(|sample| sample.failures() == 0)
    }

    /// The processes that serve, the proxy's own first.
    pub(crate) fn pids(&self) -> Vec<u32> {
        match (&self.proxy, &self.backend) {
            (Some(proxy), _) => proxy.family(),
            (None, Some(backend)) => vec![backend.pid()],
            (None, None) => Vec::new(),
        }
    }

    /// One run of the HTTP/3 generator.
    ///
    /// # Errors
    /// It gave no result, or a signal came. Failed requests are in the sample, not an error.
    pub(crate) fn run(&self, lab: &Lab, load: &Load) -> Result<Sample, Failure> {
        let output = self.generate(lab, self.generator(lab, load))?;
        let line = output.lines().rev().find(|line| line.starts_with('{'));
        let line = line.ok_or_else(|| {
            let said = output.trim();
            Failure::new(format!("{}: the generator has no result: {said}", self.subject.name))
        })?;
        Sample::of_generator(line).map_err(|message| Failure::new(format!("{line}: {message}")))
    }

    /// The HTTP/3 generator, ready to be started at the client's end.
    pub(crate) fn generator(&self, lab: &Lab, load: &Load) -> Command {
        let pids: Vec<String> = self.pids().iter().map(u32::to_string).collect();
        let mut command = self.net.at_the_client(&lab.cores.client, lab.program("spooky-load"));
        command.arg("-n").arg(load.requests.to_string()).args(&load.words);
        command.args(["--pid", &pids.join(","), "--name", &self.subject.name]);
        let beside: Vec<String> = self.net.threads().edge.iter().map(u32::to_string).collect();
        if !beside.is_empty() {
            command.args(["--beside", &beside.join(",")]);
        }
        command.arg(format!("{}:{PORT}", self.net.place().address()));
        command
    }

    /// One run of `h2load` at the backend itself; the last word is the path.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) fn run_backend(&self, lab: &Lab, load: &Load) -> Result<Sample, Failure> {
        let pid = self.pids().first().copied().unwrap_or_default();
        let (path, words) =
            load.words.split_last().map_or(("/", &[][..]), |(p, w)| (p.as_str(), w));
        let h2load = which("h2load").unwrap_or_else(|| "h2load".into());
        let mut command = self.net.at_the_client(&lab.cores.client, h2load);
        command.args(["-t", "1", "-n"]).arg(load.requests.to_string()).args(words);
        command.arg(format!("http://127.0.0.1:{BACKEND_PORT}{path}"));
        let before = cpu(pid);
        let output = self.generate(lab, command)?;
        let spent = cpu(pid).zip(before).map(|(now, then)| now.saturating_sub(then));
        Sample::of_h2load(&output, load.requests, spent.unwrap_or_default())
            .map_err(|message| Failure::new(format!("h2load: {message}: {output}")))
    }

    /// Everything that `command` writes, when it has ended.
    pub(crate) fn generate(&self, lab: &Lab, command: Command) -> Result<String, Failure> {
        let mut generator = Running::start("generator", command, &self.dir.join("load.log"))?;
        let deadline = Instant::now() + RUN_MAX;
        while generator.is_alive() {
            if lab.stop.asked() {
                return Err(stopped());
            }
            if Instant::now() > deadline {
                return Err(generator.blame("does not end"));
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(generator.output())
    }

    /// Its network.
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// Where its logs and its configuration are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the proxy now, so that what it writes at its end can be read.
    pub(crate) fn end_proxy(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            proxy.end_within(START);
        }
    }

    /// # Errors
    /// The proxy, or the backend, is no longer there.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        for running in [&mut self.proxy, &mut self.backend].into_iter().flatten() {
            if !running.is_alive() {
                return Err(running.blame("ended while it was measured"));
            }
        }
        Ok(())
    }
}
