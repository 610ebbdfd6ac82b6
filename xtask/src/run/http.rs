//! The one HTTP/1.1 request `run` needs: GET of a small page from the admin port of a spooky it
//! started itself. Knows nothing of the rest of xtask.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for the connection and for each piece of the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// No page of the admin port is near this size; more is cut off.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Status and body, or `None` when nobody answers.
pub(super) fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address.parse().ok()?, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).ok()?;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let chunked = head.lines().any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
    Some((status, if chunked { join_chunks(body)? } else { body.to_owned() }))
}

fn join_chunks(mut body: &str) -> Option<String> {
    let mut joined = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(joined);
        }
        joined.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(parse(answer), Some((200, "ok".to_owned())));
        assert_eq!(parse("HTTP/1.1 503 Service Unavailable\r\n\r\n").map(|it| it.0), Some(503));
    }

    #[test]
    fn chunks_are_joined() {
        let answer =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(parse(answer), Some((200, "abcd".to_owned())));
    }

    #[test]
    fn what_is_cut_short_is_no_answer() {
        for answer in ["", "HTTP/1.1 20", "SSH-2.0\r\n\r\n"] {
            assert_eq!(parse(answer), None, "{answer:?}");
        }
        assert_eq!(join_chunks("5\r\nab"), None);
    }
}
