//! Backends of a test: the origin as a child process, which can be killed, or as a thread, whose counters can be read
//! without asking it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::netns::Namespace;
use crate::origin::{Options, Origin, Stats};
use crate::process::Process;
use crate::programs;

/// An origin in a process of its own.
#[derive(Debug)]
pub struct Backend {
    process: Process,
    address: SocketAddr,
}

/// An origin in a thread of this process.
#[derive(Debug)]
pub struct LocalBackend {
    address: SocketAddr,
    stats: Arc<Stats>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Backend {
    /// Starts one on a port of the kernel's choice.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(name: &str) -> Self {
        Self::start_at(name, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts one at an address, as when it comes back.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_at(name: &str, listen: SocketAddr) -> Self {
        Self::start_with(None, name, listen, &[])
    }

    /// Starts one with further arguments, in a network namespace or not.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_with(
        namespace: Option<&Namespace>,
        name: &str,
        listen: SocketAddr,
        arguments: &[&str],
    ) -> Self {
        let mut command = match namespace {
            None => Command::new(programs::origin()),
            Some(namespace) => namespace.command(programs::origin()),
        };
        command.args(["--listen", &listen.to_string(), "--name", name]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(&format!("origin {name}"), &mut command);
        let stdout = process.child().stdout.take().expect("standard output is a pipe");
        let mut line = String::new();
        // Ends at the latest when the origin does.
        BufReader::new(stdout).read_line(&mut line).expect("a pipe can be read");
        let address = line.trim().strip_prefix("listening ").and_then(|text| text.parse().ok());
        let address = address.unwrap_or_else(|| panic!("origin {name} at {listen}: {line:?}"));
        Self { process, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `/control/stats`.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn stats(&self) -> Value {
        control(self.address, "stats")
    }

    /// One counter of `/control/stats`.
    ///
    /// # Panics
    /// When it does not answer or has no such counter.
    pub fn count(&self, counter: &str) -> u64 {
        self.stats()[counter].as_u64().unwrap_or_else(|| panic!("no counter {counter}"))
    }

    /// Sends `/control/...`.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn control(&self, verb: &str) -> Value {
        control(self.address, verb)
    }

    /// Ends it as a crash would (SIGKILL).
    pub fn kill(self) -> SocketAddr {
        self.address
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl LocalBackend {
    /// Starts one in a thread.
    ///
    /// # Panics
    /// When the address or the TLS files cannot be had.
    pub fn start(options: Options) -> Self {
        let (ready, started) = sync_channel(1);
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(async move {
                let origin = Origin::bind(options).await.expect("the origin starts");
                let address_and_stats = (origin.local_addr(), origin.stats());
                ready.send(address_and_stats).expect("the test waits for the origin");
                tokio::select! {
                    () = origin.serve() => {}
                    _ = ended => {}
                }
            });
        });
        let patience = Duration::from_secs(10);
        let (address, stats) = started.recv_timeout(patience).expect("the origin starts in time");
        Self { address, stats, end: Some(end), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

impl Drop for LocalBackend {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed already.
            let _ended = thread.join();
        }
    }
}

/// GET over HTTP/2 to a control path, on a runtime of its own.
fn control(address: SocketAddr, verb: &str) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.expect("a runtime can be built").block_on(async {
        tokio::time::timeout(Duration::from_secs(10), fetch(address, verb)).await
    });
    let body = answer.expect("the origin answers in time").expect("the origin answers");
    serde_json::from_slice(&body).unwrap_or(Value::Null)
}

async fn fetch(address: SocketAddr, verb: &str) -> Result<Vec<u8>, h2::Error> {
    let socket = tokio::net::TcpStream::connect(address).await.expect("the origin accepts");
    let (mut requests, connection) = h2::client::handshake(socket).await?;
    let connection = tokio::spawn(connection);
    let uri = format!("http://{address}/control/{verb}");
    let request = http::Request::get(uri).body(()).expect("the URI is well-formed");
    let (response, _) = requests.send_request(request, true)?;
    let mut body = response.await?.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    connection.abort();
    Ok(bytes)
}
