//! One run: spooky under callgrind in front of the project's own backend, and the load generator. All on loopback, on
//! ports that were free, without privilege. Imports `command` and `process`.

use super::profile::Profile;
use crate::bench::process::Running;
use crate::command::{Failure, output};
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A daemon takes thirty times as long to start as without callgrind.
const START: Duration = Duration::from_secs(60);
/// To drain and to write its file.
const END: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// Programs, certificate and backend that all runs share. Everything is gone when it is dropped.
#[derive(Debug)]
pub(super) struct Bench {
    bin: PathBuf,
    dir: PathBuf,
    backend: Running,
    backend_address: String,
}

impl Bench {
    /// # Errors
    /// A directory cannot be made, or a program does not start.
    pub(super) fn new(bin: PathBuf) -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("spooky-gate-{}", std::process::id()));
        fs::create_dir_all(&dir)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", dir.display())))?;
        output(Command::new(bin.join("spooky-devcert")).arg(dir.join("certs")))
            .ok_or_else(|| Failure::new("spooky-devcert failed: no certificate"))?;
        let mut origin = Command::new(bin.join("spooky-origin"));
        origin.args(["--listen", "127.0.0.1:0", "--name", "gate"]);
        let mut backend = Running::start("spooky-origin", origin, &dir.join("origin.log"))?;
        let backend_address = wait(&mut backend, |backend| {
            let text = backend.output();
            let line = text.lines().find_map(|line| line.strip_prefix("listening "))?;
            Some(line.trim().to_owned())
        })?;
        Ok(Self { bin, dir, backend, backend_address })
    }

    /// `requests` requests, on a daemon of their own.
    ///
    /// # Errors
    /// The daemon does not start or leaves no profile, or a request failed.
    pub(super) fn run(&self, arguments: &str, requests: u64) -> Result<Profile, Failure> {
        let (edge, admin) = (free_udp()?, free_tcp()?);
        let config = self.dir.join("spooky.yaml");
        self.write(&config, &self.config(&edge, &admin))?;
        let out = self.dir.join("callgrind.out");
        let mut command = Command::new("valgrind");
        command
            .arg("--tool=callgrind")
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(self.bin.join("spooky"))
            .args(["run", "--config"])
            .arg(&config);
        let mut daemon = Running::start("spooky", command, &self.dir.join("spooky.log"))?;
        wait(&mut daemon, |_| is_healthy(&admin).then_some(()))?;
        self.load(&daemon, arguments, requests, &edge)?;
        daemon.end_within(END);
        let text = fs::read_to_string(&out).unwrap_or_default();
        // The next run must not read this one's.
        let _ = fs::remove_file(&out);
        Profile::parse(&text).ok_or_else(|| daemon.blame("left no profile"))
    }

    fn load(
        &self,
        daemon: &Running,
        arguments: &str,
        requests: u64,
        edge: &str,
    ) -> Result<(), Failure> {
        let mut load = Command::new(self.bin.join("spooky-load"));
        load.args(["--warm", "0", "-n", &requests.to_string()]);
        load.args(arguments.split_whitespace()).arg(edge).stderr(Stdio::inherit());
        match output(&mut load) {
            Some(_) => Ok(()),
            None => {
                let what = format!("did not serve {requests} requests of `{arguments}`");
                Err(daemon.blame(&what))
            }
        }
    }

    /// One worker, no kernel programs, nothing written a request: what is left is the request. No sandbox: valgrind shares the
    /// process, and writes its file at the end.
    fn config(&self, edge: &str, admin: &str) -> String {
        let certs = self.dir.join("certs");
        let certs = certs.display();
        format!(
            "version: 1\n\
             log: {{level: warn, format: text}}\n\
             access_log: {{path: \"off\"}}\n\
             workers: {{count: 1, pin: false}}\n\
             listeners:\n\
             \x20 - name: edge\n\
             \x20   bind: \"{edge}\"\n\
             \x20   tls: {{certificates: [{{cert: \"{certs}/cert.pem\", key: \"{certs}/key.pem\"}}]}}\n\
             ebpf: {{mode: off}}\n\
             upstreams: {{backend: {{endpoints: [{{name: b, address: \"{}\"}}]}}}}\n\
             routes: [{{name: all, match: {{path_prefix: /}}, upstream: backend}}]\n\
             admin: {{bind: \"{admin}\"}}\n\
             privileges: {{user: keep, sandbox: \"off\"}}\n\
             shutdown: {{drain_timeout: 1s}}\n",
            self.backend_address
        )
    }

    fn write(&self, file: &PathBuf, text: &str) -> Result<(), Failure> {
        let cannot = |error| Failure::new(format!("cannot write {}: {error}", file.display()));
        fs::File::create(file).and_then(|mut open| open.write_all(text.as_bytes())).map_err(cannot)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.backend.end();
        // Nothing of it is worth a failure: it lies in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Looks until `look` finds something.
fn wait<T>(
    running: &mut Running,
    mut look: impl FnMut(&mut Running) -> Option<T>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(found) = look(running) {
            return Ok(found);
        }
        if !running.is_alive() {
            return Err(running.blame("ended at once"));
        }
        if Instant::now() > deadline {
            return Err(running.blame("did not start in time"));
        }
        std::thread::park_timeout(LOOK);
    }
}

/// The admin port is bound before the workers listen; the health page says when they do.
fn is_healthy(admin: &str) -> bool {
    use std::io::Read as _;
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    let patience = Some(Duration::from_secs(5));
    let request = format!("GET /health HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.set_read_timeout(patience).is_ok()
        && stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

fn free_udp() -> Result<String, Failure> {
    let socket = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    socket.map(|address| address.to_string()).map_err(no_port)
}

fn free_tcp() -> Result<String, Failure> {
    let socket = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    socket.map(|address| address.to_string()).map_err(no_port)
}

fn no_port(error: std::io::Error) -> Failure {
    Failure::new(format!("no free port on 127.0.0.1: {error}"))
}
