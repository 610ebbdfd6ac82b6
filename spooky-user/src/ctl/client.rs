//! One HTTP/1.1 request over a unix socket and its answer, blocking, within bounds. Imports nothing of the crate.
//!
//! The daemon answers one request a connection with a length and closes; no more of HTTP is spoken here.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// Longer than the daemon takes for anything.
const TIME_MAX: Duration = Duration::from_secs(15);
/// Octets of an answer.
const ANSWER_MAX: u64 = 32 << 20;

/// Where to ask.
#[derive(Debug)]
pub(super) struct Client<'a> {
    path: &'a Path,
}

/// Why there is no good answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The socket cannot be connected to.
    Connect(PathBuf, io::Error),
    /// The connection broke, or took too long.
    Exchange(PathBuf, io::Error),
    /// What answers is no spooky.
    Foreign(PathBuf),
    /// The command line names something else.
    NotAnAddress(String),
    /// The daemon said no.
    Refused {
        /// Why, for people.
        message: String,
        /// All it said.
        answer: Value,
    },
}

// === impl Client ===

impl<'a> Client<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path }
    }

    /// Sends `content` to `target` and gives the daemon's answer.
    pub(super) fn ask(
        &self,
        method: &str,
        target: &str,
        content: Option<&Value>,
    ) -> Result<Value, Failure> {
        let stream = UnixStream::connect(self.path)
            .map_err(|error| Failure::Connect(self.path.to_owned(), error))?;
        let exchanged = exchange(stream, method, target, content)
            .map_err(|error| Failure::Exchange(self.path.to_owned(), error))?;
        let (status, answer) =
            parse(&exchanged).ok_or_else(|| Failure::Foreign(self.path.to_owned()))?;
        if status == 200 {
            return Ok(answer);
        }
        let message = answer.get("error").and_then(Value::as_str).map(str::to_owned);
        Err(Failure::Refused {
            message: message.unwrap_or_else(|| format!("refused with status {status}")),
            answer,
        })
    }
}

fn exchange(
    mut stream: UnixStream,
    method: &str,
    target: &str,
    content: Option<&Value>,
) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(TIME_MAX))?;
    stream.set_write_timeout(Some(TIME_MAX))?;
    let content = content.map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: spooky\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{content}",
        content.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status and content of a whole response.
fn parse(response: &[u8]) -> Option<(u16, Value)> {
    let end = response.windows(4).position(|octets| octets == b"\r\n\r\n")?;
    let head = std::str::from_utf8(response.get(..end)?).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let content = response.get(end + 4..)?;
    if content.len() != length {
        return None;
    }
    Some((status, serde_json::from_slice(content).ok()?))
}

// === impl Failure ===

impl Failure {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } => 1,
            Self::Connect(..) | Self::Exchange(..) | Self::Foreign(_) | Self::NotAnAddress(_) => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(path, error) => {
                let path = path.display();
                match error.kind() {
                    io::ErrorKind::NotFound => write!(
                        f,
                        "there is no socket {path}; does spooky run, and does its admin.socket name this path?"
                    ),
                    io::ErrorKind::ConnectionRefused => {
                        write!(f, "nobody serves {path} any more; spooky has ended, start it again")
                    }
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "{path}: permission denied; become the user who owns it, or root, or set admin.socket_access to group"
                    ),
                    _ => write!(f, "{path} cannot be connected to: {error}"),
                }
            }
            Self::Exchange(path, error) => {
                write!(f, "{}: no answer: {error}; it may have been carried out", path.display())
            }
            Self::Foreign(path) => {
                write!(f, "{}: what answers there is not spooky", path.display())
            }
            Self::NotAnAddress(text) => {
                write!(f, "\"{}\" is neither an address nor a network", text.escape_debug())
            }
            Self::Refused { message, .. } => f.write_str(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_whole_answers_count() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\":1}\n";
        assert_eq!(parse(whole), Some((200, json!({"a": 1}))));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(parse(b"SSH-2.0-x\r\n\r\n"), None);
    }

    #[test]
    fn failures_say_what_to_do() {
        let missing = Client::new(Path::new("/nonexistent/spooky.sock"));
        let failure = missing.ask("GET", "/status", None).unwrap_err();
        assert!(failure.to_string().contains("admin.socket"), "{failure}");
        assert_eq!(failure.exit_code(), 2);
    }
}
