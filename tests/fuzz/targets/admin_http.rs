//! The admin port: any octets get an answer or the end of the connection, the port serves the next one, and only who names a
//! loopback address learns anything.
//!
//! Input: what a client sends, `PORT` for the port's number; then it ends its side.

use std::cell::OnceCell;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use spooky_user::controlplane::admin::{self, Readiness, State};
use spooky_user::telemetry::metrics::Registry;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(8);
/// More than all metrics of an idle process.
const ANSWER_MAX: usize = 256 << 10;

thread_local! {
    static PORT: OnceCell<SocketAddr> = const { OnceCell::new() };
}

pub(super) fn run(input: &[u8]) {
    let port = PORT.with(|port| *port.get_or_init(serve));
    let text = input.split(|octet| *octet == b'\n').map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let number = port.port().to_string();
        let parts: Vec<&[u8]> = split(line, b"PORT");
        parts.join(number.as_bytes())
    });
    let sent = text.collect::<Vec<_>>().join(&b"\r\n"[..]);
    let answer = exchange(port, &sent);
    assert!(answer.len() < ANSWER_MAX, "{} octets", answer.len());
    if answer.is_empty() {
        return;
    }
    let head = String::from_utf8_lossy(&answer);
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    let status: u16 = status.and_then(|digits| digits.parse().ok()).expect("a status line");
    assert!([200, 400, 403, 404, 405, 413, 414, 431, 505].contains(&status), "{status}");
    assert!(status != 200 || names_loopback(&sent, port.port()), "answered to a stranger's name");
}

/// Whether some word is a loopback address or its name with this port.
fn names_loopback(sent: &[u8], port: u16) -> bool {
    let said = String::from_utf8_lossy(sent).to_ascii_lowercase();
    let tail = format!(":{port}");
    said.split(|c: char| c.is_whitespace() || c == '/').any(|word| {
        let Some(host) = word.strip_suffix(&tail) else { return false };
        let host = host.strip_prefix("host:").unwrap_or(host);
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        matches!(host, "localhost" | "localhost.")
            || address.is_ok_and(|address| address.to_canonical().is_loopback())
    })
}

fn split<'l>(line: &'l [u8], word: &[u8]) -> Vec<&'l [u8]> {
    let mut parts = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.windows(word.len()).position(|window| window == word) {
        parts.push(&rest[..at]);
        rest = &rest[at + word.len()..];
    }
    parts.push(rest);
    parts
}

/// All that comes until the port ends the connection.
fn exchange(port: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(port).expect("the port takes connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    // A port that has answered already may close while this is still coming.
    let _ = stream.write_all(sent).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => {
            let kind = error.kind();
            assert!(
                kind == std::io::ErrorKind::ConnectionReset,
                "no end within {PATIENCE:?}: {error}"
            );
        }
    }
    answer
}

/// Starts a port that serves as long as the process.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its number");
    let state = Arc::new(State::new(Arc::new(Registry::new(1))));
    state.set_readiness(Readiness::Ready);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(admin::serve(listener, state, std::future::pending())).expect("it serves");
    });
    address
}
