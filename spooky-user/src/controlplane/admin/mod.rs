//! The admin port: plain HTTP/1.1 on loopback, for metrics and health; and the control socket, where the same server takes
//! orders. May import: telemetry, codec, sys; verbs also boot's state.
//!
//! Endpoints (one flat table in `endpoint`):
//! - `GET /` — this list
//! - `GET /health` — 200 when ready, 503 with the reason otherwise
//! - `GET /metrics` — Prometheus text
//!
//! The port reads and never changes anything; `socket` and `verbs` are what changes. Bounds: [`CONNECTIONS_MAX`] connections, one request each, [`CONNECTION_TIME_MAX`] for
//! all of it, no request content. A web page must not reach it through a name that it points at loopback, so the `Host` has to
//! be a loopback name or address with the right port.

mod endpoint;
mod process;
pub mod socket;
#[cfg(test)]
mod tests;
pub mod verbs;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::process::ProcessSource;
use crate::telemetry::metrics::Registry;

/// Connections served at a time; more wait in the listen backlog.
pub const CONNECTIONS_MAX: usize = 64;

/// A request's head must be complete after this.
pub const HEADER_TIME_MAX: Duration = Duration::from_secs(5);

/// A connection is closed after this, whatever it does.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of a request's head.
const HEAD_MAX: usize = 16 << 10;

/// How long to wait after `accept` failed, usually for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether the proxy serves, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet.
    Starting,
    /// All workers listen.
    Ready,
    /// It was ready and is not, for this reason.
    Degraded(String),
    /// Shutting down: requests in flight end, nothing new is accepted.
    Draining,
}

/// What the endpoints show.
#[derive(Debug)]
pub struct State {
    readiness: watch::Sender<Readiness>,
    registry: Arc<Registry>,
    /// Asked for while asking is still allowed.
    pid: u32,
}

/// Why the port cannot be served.
#[derive(Debug)]
pub enum Error {
    /// The listener is bound to an address that others can reach.
    NotLoopback(SocketAddr),
    /// The listener cannot be used.
    Listener(io::Error),
}

// === impl State ===

impl State {
    /// Not ready yet. Whoever has more numbers adds them to the registry with [`Registry::add_source`].
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        let pid = std::process::id();
        Self { readiness: watch::Sender::new(Readiness::Starting), registry, pid }
    }

    /// What `/health` says from now on.
    pub fn set_readiness(&self, readiness: Readiness) {
        self.readiness.send_replace(readiness);
    }

    /// What `/health` says.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where the metrics are.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// Serves the port until `shutdown` is done; then connections still open are cut.
///
/// # Errors
/// [`Error`], before anything is served. Once it serves, it goes on through all errors.
///
/// # Cancel safety
/// Dropping the future closes the listener and all connections.
pub async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let local = listener.local_addr().map_err(Error::Listener)?;
    if !local.ip().to_canonical().is_loopback() {
        return Err(Error::NotLoopback(local));
    }
    listener.set_nonblocking(true).map_err(Error::Listener)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::Listener)?;
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _peer)) => {
                    connections.spawn(connection(stream, local, Arc::clone(&state)));
                }
                Err(error) => {
                    tracing::warn!(%error, "admin port: a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, local: SocketAddr, state: Arc<State>) {
    let service = service_fn(move |request| {
        let response = endpoint::respond(&request, local, &state);
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    let serving = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A client that breaks off or is too slow is none of our errors.
    let _ = tokio::time::timeout(CONNECTION_TIME_MAX, serving).await;
}

// === impl Error ===

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoopback(address) => write!(
                f,
                "admin.bind: {address} is not a loopback address; bind 127.0.0.1 or [::1], the port has no authentication"
            ),
            Self::Listener(error) => write!(f, "admin.bind: the listener cannot be used: {error}"),
        }
    }
}

impl std::error::Error for Error {}
