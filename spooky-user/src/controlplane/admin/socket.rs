//! The control socket: HTTP/1.1 on a unix socket, for those whom the file's mode lets in. What the admin port shows is here too,
//! and besides it the operations of `verbs`, which the control plane's one thread carries out. Imports its siblings alone.
//!
//! Bounds: [`super::CONNECTIONS_MAX`] connections, one request each, [`super::CONNECTION_TIME_MAX`] for all of it,
//! [`CONTENT_MAX`] of content, and a queue of [`ORDERS_MAX`] operations; what finds it full is answered 503.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::verbs::{self, Answer, Ask, Asker, Order, Reply};
use super::{
    ACCEPT_PAUSE, CONNECTION_TIME_MAX, CONNECTIONS_MAX, HEAD_MAX, HEADER_TIME_MAX, State, endpoint,
};

/// Octets of an operation's content.
pub const CONTENT_MAX: usize = 64 << 10;

/// Operations that wait for the control plane.
pub const ORDERS_MAX: usize = 64;

/// How long an operation may take. It is carried out all the same when it takes longer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(8);

const BACKLOG: i32 = 128;

/// The bound socket. Its file goes with it, if it is still the same file.
#[derive(Debug)]
pub struct ControlSocket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

/// Why there is no control socket.
#[derive(Debug)]
pub enum SocketError {
    /// Somebody serves it.
    InUse,
    /// Something is there that is no socket.
    NotASocket,
    /// What the system said.
    System(io::Error),
}

// === impl ControlSocket ===

impl ControlSocket {
    /// Binds a socket file with this mode. A file that a process left behind which nobody serves any more is replaced.
    ///
    /// # Errors
    /// [`SocketError`]; nothing was changed then.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, SocketError> {
        let address = SockAddr::unix(path).map_err(SocketError::System)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(SocketError::System)?;
        if let Err(error) = socket.bind(&address) {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(SocketError::System(error));
            }
            remove_stale(path)?;
            socket.bind(&address).map_err(SocketError::System)?;
        }
        // Nobody can connect before `listen`, so that nobody gets in before the mode is right.
        let ready = fs::set_permissions(path, Permissions::from_mode(mode))
            .and_then(|()| socket.listen(BACKLOG))
            .and_then(|()| socket.set_nonblocking(true))
            .and_then(|()| fs::symlink_metadata(path));
        let file = match ready {
            Ok(metadata) => (metadata.dev(), metadata.ino()),
            Err(error) => {
                let _ = fs::remove_file(path);
                return Err(SocketError::System(error));
            }
        };
        Ok(Self { listener: socket.into(), path: path.to_owned(), file })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A second handle to the same socket, to be served.
    ///
    /// # Errors
    /// What the system says.
    pub fn listener(&self) -> io::Result<std::os::unix::net::UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if same && let Err(error) = fs::remove_file(&self.path) {
            // The user that serves may not write to the directory. The next start replaces the file.
            tracing::debug!(path = %self.path.display(), %error, "the control socket's file stays");
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let metadata = fs::symlink_metadata(path).map_err(SocketError::System)?;
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket);
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(SocketError::System)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(SocketError::System(error))
        }
        _ => Err(SocketError::InUse),
    }
}

// === serving ===

/// Serves the socket until `shutdown` is done; then connections still open are cut.
///
/// # Errors
/// What the system says, before anything is served. Once it serves, it goes on through all errors.
///
/// # Cancel safety
/// Dropping the future closes this handle and all connections.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    state: Arc<State>,
    orders: mpsc::Sender<Order>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _unnamed)) => {
                    connections.spawn(connection(stream, Arc::clone(&state), orders.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket: a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn connection(stream: UnixStream, state: Arc<State>, orders: mpsc::Sender<Order>) {
    let asker = match stream.peer_cred() {
        Ok(peer) => Asker { uid: peer.uid(), pid: peer.pid() },
        Err(error) => {
            // Nobody may ask without being known.
            tracing::warn!(%error, "control socket: a peer without credentials is turned away");
            return;
        }
    };
    let service = service_fn(|request| {
        let (state, orders) = (Arc::clone(&state), orders.clone());
        async move { Ok::<_, std::convert::Infallible>(respond(request, asker, &state, &orders).await) }
    });
    let serving = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A client that breaks off or is too slow is none of our errors.
    let _ = tokio::time::timeout(CONNECTION_TIME_MAX, serving).await;
}

async fn respond(
    request: Request<Incoming>,
    asker: Asker,
    state: &State,
    orders: &mpsc::Sender<Order>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if let Some(show) = endpoint::shown(path) {
        return endpoint::show(&request, state, show);
    }
    let verb = match verbs::find(path, request.method()) {
        Ok(verb) => verb,
        Err(allowed) if allowed.is_empty() => {
            let answer =
                Answer::refused(StatusCode::NOT_FOUND, "path", "no such operation; / lists them");
            return json(&answer);
        }
        Err(allowed) => {
            let message = format!("only {allowed}");
            let mut response =
                json(&Answer::refused(StatusCode::METHOD_NOT_ALLOWED, "method", &message));
            if let Ok(value) = HeaderValue::from_str(&allowed) {
                response.headers_mut().insert(ALLOW, value);
            }
            return response;
        }
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    let content = match Limited::new(request.into_body(), CONTENT_MAX).collect().await {
        Ok(content) => content.to_bytes(),
        Err(_too_long_or_broken_off) => {
            let message = format!("content that ends within {CONTENT_MAX} octets is wanted");
            return json(&Answer::refused(StatusCode::PAYLOAD_TOO_LARGE, "content", &message));
        }
    };
    let (reply, replied) = oneshot::channel();
    let ask = Ask { query, content, asker };
    if orders.try_send(Order { verb, ask, reply: Reply(reply) }).is_err() {
        let message = "the control plane has too much to do; try again";
        return json(&Answer::refused(StatusCode::SERVICE_UNAVAILABLE, "busy", message));
    }
    let answer = match tokio::time::timeout(ANSWER_TIME_MAX, replied).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_gone)) => Answer::refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "ending",
            "the daemon ends; nothing was changed",
        ),
        Err(_late) => Answer::refused(
            StatusCode::GATEWAY_TIMEOUT,
            "late",
            "no answer in time; it may still be carried out",
        ),
    };
    json(&answer)
}

fn json(answer: &Answer) -> Response<Full<Bytes>> {
    let mut text = answer.body.to_string();
    text.push('\n');
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

// === impl SocketError ===

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str(
                "another process serves it; give each daemon a path of its own in admin.socket",
            ),
            Self::NotASocket => f.write_str(
                "something is there that is no socket, and is left alone; move it, or choose another path",
            ),
            Self::System(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "{error}; let the user who starts spooky write to its directory")
            }
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SocketError {}
