//! Real sockets on loopback, port 0; the raw bytes of HTTP/1.1.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

struct Port {
    address: SocketAddr,
    state: Arc<State>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), Error>>,
}

fn port() -> Port {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let registry = Arc::new(Registry::new(1));
    registry.add_source(Arc::new(ProcessSource::new()));
    let state = Arc::new(State::new(registry));
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(serve(listener, Arc::clone(&state), shutdown));
    Port { address, state, stop, serving }
}

impl Port {
    /// Sends bytes as they are and reads until the port closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        // A port that closes with bytes unread resets the connection: what came before still counts.
        let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut response)).await.unwrap();
        String::from_utf8(response).unwrap()
    }

    async fn request(&self, method: &str, path: &str, host: &str) -> String {
        self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
    }

    async fn get(&self, path: &str) -> String {
        self.request("GET", path, &self.address.to_string()).await
    }
}

fn status(response: &str) -> u16 {
    let status = response.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status.unwrap_or_else(|| panic!("no status in {response:?}")).parse().unwrap()
}

#[tokio::test]
async fn health_follows_readiness() {
    let port = port();
    for (readiness, want, body) in [
        (Readiness::Starting, 503, "\r\n\r\nstarting\n"),
        (Readiness::Ready, 200, "\r\n\r\nok\n"),
        (Readiness::Degraded("worker 3 does not turn".into()), 503, "worker 3 does not turn\n"),
        (Readiness::Ready, 200, "\r\n\r\nok\n"),
        (Readiness::Draining, 503, "\r\n\r\ndraining\n"),
    ] {
        port.state.set_readiness(readiness.clone());
        let response = port.get("/health").await;
        assert_eq!(status(&response), want, "{readiness:?}");
        assert!(response.ends_with(body), "{response}");
    }
}

#[tokio::test]
async fn metrics_and_list() {
    let port = port();
    let response = port.get("/metrics").await;
    assert_eq!(status(&response), 200);
    assert!(response.contains("content-type: text/plain; version=0.0.4"), "{response}");
    for name in [
        "\nspooky_connections_active 0\n",
        "\nspooky_build_info{version=\"",
        "\nprocess_resident_memory_bytes ",
        "\nprocess_open_fds ",
        "\nprocess_cpu_seconds_total ",
    ] {
        assert!(response.contains(name), "{name} is not in {response}");
    }
    let list = port.get("/").await;
    assert!(list.contains("/health") && list.contains("/metrics"), "{list}");
    let head = port.request("HEAD", "/metrics", "localhost").await;
    assert_eq!(status(&head), 403, "the port is missing");
    let head = port.request("HEAD", "/metrics", &port.address.to_string()).await;
    assert!(status(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn other_methods_and_paths() {
    let port = port();
    let host = port.address.to_string();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let response = port.request(method, "/health", &host).await;
        assert_eq!(status(&response), 405, "{method}");
        assert!(response.contains("allow: GET, HEAD\r\n"), "{response}");
    }
    for path in ["/metrics/", "/Health", "//metrics", "/admin", "/metrics%2f", "/../metrics"] {
        assert_eq!(status(&port.get(path).await), 404, "{path}");
    }
    assert_eq!(status(&port.get("/health?x=1").await), 503);
}

#[tokio::test]
async fn a_foreign_host_is_refused() {
    let port = port();
    let number = port.address.port();
    for host in [
        format!("127.0.0.1:{number}"),
        format!("localhost:{number}"),
        format!("LOCALHOST.:{number}"),
        format!("[::1]:{number}"),
        format!("127.9.9.9:{number}"),
    ] {
        assert_eq!(status(&port.request("GET", "/", &host).await), 200, "{host}");
    }
    for host in [
        format!("evil.example:{number}"),
        format!("localhost.evil.example:{number}"),
        format!("127.0.0.1.evil.example:{number}"),
        format!("192.0.2.1:{number}"),
        format!("0.0.0.0:{number}"),
        format!("user@localhost:{number}"),
        "localhost".to_owned(),
        format!("localhost:{}", number ^ 1),
        String::new(),
    ] {
        assert_eq!(status(&port.request("GET", "/metrics", &host).await), 403, "{host}");
    }
    let twice = format!("GET / HTTP/1.1\r\nHost: localhost:{number}\r\nHost: evil.example\r\n\r\n");
    assert_eq!(status(&port.raw(&twice).await), 403);
    let absolute = format!("GET http://evil.example/ HTTP/1.1\r\nHost: localhost:{number}\r\n\r\n");
    assert_eq!(status(&port.raw(&absolute).await), 403);
    assert!(!port.raw("GET / HTTP/1.1\r\n\r\n").await.contains(" 200 "));
}

#[tokio::test]
async fn request_content_is_refused_unread() {
    let port = port();
    let host = port.address;
    for framing in ["Content-Length: 1000000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let request = format!("POST /metrics HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n");
        assert_eq!(status(&port.raw(&request).await), 413, "{framing}");
    }
    let huge = format!("GET / HTTP/1.1\r\nHost: {host}\r\nx: {}\r\n\r\n", "y".repeat(2 * HEAD_MAX));
    assert!(!port.raw(&huge).await.contains(" 200 "));
}

/// Clients that hold all places and say nothing are put out in time; the next one is served.
#[tokio::test]
async fn idle_connections_cannot_hold_the_port() {
    let port = port();
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(port.address).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHo").await.unwrap();
        idle.push(stream);
    }
    let begun = std::time::Instant::now();
    let response = port.get("/health").await;
    assert_eq!(status(&response), 503);
    assert!(begun.elapsed() > HEADER_TIME_MAX / 2, "served beside {CONNECTIONS_MAX} others");
    let mut stream = idle.swap_remove(0);
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap();
    assert!(!String::from_utf8(rest).unwrap().contains(" 200 "));
}

#[tokio::test]
async fn shutdown_ends_it_and_closes_the_port() {
    let port = port();
    let mut open = TcpStream::connect(port.address).await.unwrap();
    assert_eq!(status(&port.get("/").await), 200);
    port.stop.send(()).unwrap();
    assert!(tokio::time::timeout(DEADLINE, port.serving).await.unwrap().unwrap().is_ok());
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, open.read_to_end(&mut rest)).await.unwrap();
    assert!(TcpStream::connect(port.address).await.is_err());
}

#[tokio::test]
async fn only_loopback_is_served() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let state = Arc::new(State::new(Arc::new(Registry::new(1))));
    let error = serve(listener, state, std::future::pending()).await.unwrap_err();
    assert!(matches!(error, Error::NotLoopback(_)) && error.to_string().contains("127.0.0.1"));
}
