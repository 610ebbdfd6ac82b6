//! The HTTP/3 clients of `tests/clients/`, run as child processes: JSON in, JSON events and a result out.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::netns::Namespace;
use crate::process::Process;
use crate::programs;

/// Lines a client may be ahead of its reader.
const BACKLOG: usize = 4096;

/// Where a client connects, whom it trusts, and from where.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// SNI and `:authority`.
    pub server_name: String,
    pub ca: PathBuf,
    pub bind: Option<IpAddr>,
    pub namespace: Option<Namespace>,
}

/// A client at work. Dropping it kills it.
#[derive(Debug)]
pub struct Client {
    what: String,
    process: Process,
    lines: Receiver<Value>,
}

impl Target {
    pub fn new(address: SocketAddr, ca: PathBuf) -> Self {
        Self { address, server_name: "localhost".into(), ca, bind: None, namespace: None }
    }

    #[must_use]
    pub fn named(&self, server_name: &str) -> Self {
        Self { server_name: server_name.into(), ..self.clone() }
    }

    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    #[must_use]
    pub fn from(&self, bind: IpAddr) -> Self {
        Self { bind: Some(bind), ..self.clone() }
    }

    #[must_use]
    pub fn within(&self, namespace: &Namespace) -> Self {
        Self { namespace: Some(namespace.clone()), ..self.clone() }
    }

    /// Starts a scenario of `scenario.py`.
    ///
    /// # Panics
    /// When Python or its packages are missing.
    pub fn start(&self, scenario: &str, args: Value) -> Client {
        self.spawn("scenario.py", scenario, args)
    }

    /// Runs a scenario of `scenario.py` to its end.
    ///
    /// # Panics
    /// When it fails, or has no result by `deadline`.
    #[track_caller]
    pub fn run(&self, scenario: &str, args: Value, deadline: Duration) -> Value {
        self.start(scenario, args).result(deadline)
    }

    /// Starts a verb of `curl.py`.
    ///
    /// # Panics
    /// When Python or its packages are missing.
    pub fn start_curl(&self, verb: &str, args: Value) -> Client {
        self.spawn("curl.py", verb, args)
    }

    /// Runs a verb of `curl.py` to its end.
    ///
    /// # Panics
    /// When it fails, or has no result by `deadline`.
    #[track_caller]
    pub fn curl(&self, verb: &str, args: Value, deadline: Duration) -> Value {
        self.start_curl(verb, args).result(deadline)
    }

    /// Starts the health oracle ([`crate::oracle`]).
    pub(crate) fn start_oracle(&self, args: Value) -> Client {
        self.spawn("oracle.py", "oracle", args)
    }

    /// Starts a case with one of the clients behind `interop.py`.
    ///
    /// # Panics
    /// When Python or its packages are missing.
    pub fn start_interop(&self, client: &str, case: Value) -> Client {
        self.spawn("interop.py", client, case)
    }

    /// Starts a verb of `chromium.py`; `args` has the proxy's own certificate.
    ///
    /// # Panics
    /// When Python or its packages are missing.
    pub fn start_chromium(&self, verb: &str, args: Value) -> Client {
        self.spawn("chromium.py", verb, args)
    }

    /// GETs one path and returns the answer.
    ///
    /// # Panics
    /// When there is no connection to be had.
    #[track_caller]
    pub fn fetch(&self, path: &str) -> Value {
        let args = json!({ "requests": [{ "path": path }] });
        let mut result = self.run("requests", args, Duration::from_secs(60));
        result["answers"][0].take()
    }

    fn spawn(&self, script: &str, verb: &str, mut args: Value) -> Client {
        let script = programs::repository().join("tests/clients").join(script);
        let mut command = match &self.namespace {
            None => Command::new(programs::python()),
            Some(namespace) => namespace.command(programs::python()),
        };
        command.arg("-B").arg(script).arg(verb);
        args["host"] = json!(self.address.ip().to_string());
        args["port"] = json!(self.address.port());
        args["server_name"] = json!(self.server_name);
        args["ca"] = json!(self.ca);
        if let Some(bind) = self.bind {
            args["bind"] = json!(bind.to_string());
        }
        Client::start(format!("{verb} {args}"), &mut command, &args)
    }
}

impl Client {
    /// Stops the thread `name` of process `id`, and only that, until the client is told to stop or is dropped. It
    /// stands once the event `stalled` has come.
    ///
    /// # Panics
    /// When Python is missing.
    pub fn stall(id: u32, name: &str) -> Self {
        Self::stall_with(id, name, json!({}))
    }

    /// The same by turns: the thread stands for `stop` and goes for `go`, again and again.
    ///
    /// # Panics
    /// When Python is missing.
    pub fn stall_by_turns(id: u32, name: &str, stop: Duration, go: Duration) -> Self {
        Self::stall_with(id, name, json!({ "stop": stop.as_secs_f64(), "go": go.as_secs_f64() }))
    }

    fn stall_with(id: u32, name: &str, args: Value) -> Self {
        let script = programs::repository().join("tests/clients/stall.py");
        let mut command = Command::new(programs::python());
        command.arg("-B").arg(script).arg(id.to_string()).arg(name);
        Self::start(format!("stall {name} of {id}"), &mut command, &args)
    }

    fn start(what: String, command: &mut Command, args: &Value) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&what, command);
        let stdin = process.child().stdin.as_mut().expect("standard input is a pipe");
        writeln!(stdin, "{args}").expect("the client reads its arguments");
        let stdout = process.child().stdout.take().expect("standard output is a pipe");
        let (sender, lines) = sync_channel(BACKLOG);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Self { what, process, lines }
    }

    /// Waits for an event; earlier ones of other names are passed over.
    ///
    /// # Panics
    /// When the client ends before, or `deadline` passes.
    #[track_caller]
    pub fn event(&mut self, name: &str, deadline: Duration) -> Value {
        self.next(deadline, |value| value["event"] == name)
    }

    /// Waits for an event of this name for which `condition` holds.
    ///
    /// # Panics
    /// When the client ends before, or `deadline` passes.
    #[track_caller]
    pub fn event_where(
        &mut self,
        name: &str,
        deadline: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        self.next(deadline, |value| value["event"] == name && condition(value))
    }

    /// Tells the client to finish what it does without end.
    pub fn stop(&mut self) {
        self.tell("stop");
    }

    /// Gives the client a command.
    pub fn tell(&mut self, command: &str) {
        if let Some(stdin) = self.process.child().stdin.as_mut() {
            // A client that has ended needs no telling.
            let _told = writeln!(stdin, "{command}");
        }
    }

    /// Waits for the result.
    ///
    /// # Panics
    /// When the client reports an error, ends without a result, or `deadline` passes.
    #[track_caller]
    pub fn result(mut self, deadline: Duration) -> Value {
        self.next(deadline, |value| value.get("result").is_some())["result"].take()
    }

    #[track_caller]
    fn next(&mut self, deadline: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + deadline;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(value) if wanted(&value) => return value,
                Ok(value) => assert!(
                    value.get("error").is_none() && value.get("result").is_none(),
                    "{}: {}",
                    self.what,
                    value["error"].as_str().map_or(value.to_string(), str::to_owned)
                ),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: nothing within {deadline:?}", self.what)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{}: ended without a result", self.what)
                }
            }
        }
    }
}
