//! The control socket of a daemon under test: `spooky ctl` as an operator runs it, and raw requests as nobody should send them.
//! Imports config, programs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Config;
use crate::programs;

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder for the socket and for what else a daemon keeps, outliving it.
#[derive(Debug)]
pub struct Control {
    directory: tempfile::TempDir,
}

/// How `spooky ctl` ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Asked {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Control {
    /// An empty folder.
    ///
    /// # Panics
    /// When none can be made.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory can be made") }
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.file("spooky.sock")
    }

    /// The configuration, with the socket.
    #[must_use]
    pub fn configure(&self, config: Config) -> Config {
        config.set("/admin/socket", json!(self.socket()))
    }

    /// Runs `spooky ctl`.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn ctl(&self, arguments: &[&str]) -> Asked {
        self.spooky(&[&["ctl"], arguments].concat())
    }

    /// Runs a command of `spooky` that asks over the socket.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn spooky(&self, arguments: &[&str]) -> Asked {
        self.command(arguments).output().expect("spooky runs").into()
    }

    /// The same, to be run by the test.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::spooky());
        command.args(arguments).arg("--socket").arg(self.socket());
        command
    }

    /// Runs `spooky ctl --json`, which must go well.
    ///
    /// # Panics
    /// When it does not.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let asked = self.ctl(&[arguments, &["--json"]].concat());
        assert_eq!(asked.code, 0, "{arguments:?}: {asked:?}");
        serde_json::from_str(&asked.stdout).expect("JSON")
    }

    /// Sends octets as they are; what comes back until the daemon closes, empty when it just does.
    ///
    /// # Panics
    /// When there is no socket, or no end.
    pub fn raw(&self, octets: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).expect("the socket is served");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // A daemon that has heard enough resets the connection.
        let _ = stream.write_all(octets);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            let kind = error.kind();
            assert_ne!(kind, std::io::ErrorKind::WouldBlock, "no answer and no end: {octets:?}");
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// One request with this content: status and answer.
    ///
    /// # Panics
    /// When the answer is none.
    pub fn request(&self, method: &str, target: &str, content: &[u8]) -> (u16, Value) {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            content.len()
        );
        let answer = self.raw(&[head.as_bytes(), content].concat());
        let (head, body) = answer.split_once("\r\n\r\n").expect("a response");
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}
