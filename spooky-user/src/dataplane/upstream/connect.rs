//! Opening a backend connection: TCP, TLS if configured, HTTP/2 up to the backend's SETTINGS. Deadlines are the caller's.
//!
//! Used by the pools and, over connections of their own, by the control plane's probes. May import: exchange, upstream's
//! settings.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::cluster::Settings;
use super::tls::{ALPN_H2, Connector};
use crate::dataplane::exchange::error::Kind;

/// Request body bytes of one stream that h2 may hold because the backend's window is open but its socket is not: four times
/// what the exchange itself holds. `SendStream::capacity` never shows more, so a slow backend stops the reading from the
/// client here; 100 streams a connection bound it at 25 MiB a connection, which the clients' QUIC windows bound again.
const SEND_BUFFER_SIZE_MAX: usize = 256 * 1024;

/// Streams we reset that h2 remembers, so that frames the backend had sent before it saw the reset are ignored. A frame for a
/// forgotten one counts as an error of the connection; at 32 for each of 128 streams that takes a backend that answers later
/// than [`RESETS_REMEMBERED_FOR`]. Some 300 octets each, only while there are any.
const RESETS_REMEMBERED_MAX: usize = 4096;

/// Several round trips and a stalled backend.
const RESETS_REMEMBERED_FOR: Duration = Duration::from_secs(5);

/// Malformed streams after which a backend's connection is given up (RFC 9113 §5.4.2; CVE-2025-8671 is the abuse of it).
const ERROR_RESETS_MAX: usize = 100;

/// What h2 reports as the backend's stream limit before its SETTINGS came. No SETTINGS can say it: the value is a u32 there,
/// and absent means `usize::MAX`.
const SETTINGS_NOT_SEEN: usize = usize::MAX - 1;

/// RFC 9113 §6.9.1. The configuration is checked against it; h2 panics beyond it.
const WINDOW_SIZE_MAX: u32 = (1 << 31) - 1;

/// A connected byte stream.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Cleartext, prior knowledge (RFC 9113 §3.3).
    Plain(TcpStream),
    /// TLS with `h2` selected.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why a connection could not be opened. The text goes to the log, the kind to the request.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// It took longer than `timeouts.connect`.
    Timeout(Duration),
    /// TCP failed, or the connection broke during the TLS handshake.
    Tcp(io::Error),
    /// The certificate or the handshake was not acceptable, to either side.
    Tls(io::Error),
    /// The handshake went well but the backend did not select `h2`.
    Alpn,
    /// The backend does not speak HTTP/2 or broke it at once.
    Http2(h2::Error),
    /// The backend closed the connection before its SETTINGS.
    Closed,
}

/// Connects and, if configured, secures a byte stream to `address`.
///
/// # Errors
/// Everything but [`ConnectError::Timeout`], [`ConnectError::Http2`] and [`ConnectError::Closed`].
///
/// # Cancel safety
/// Dropping the future closes the socket.
pub(crate) async fn transport(
    address: SocketAddr,
    tls: Option<&Connector>,
) -> Result<Transport, ConnectError> {
    let tcp = TcpStream::connect(address).await.map_err(ConnectError::Tcp)?;
    // HEADERS of a small request must not wait for an acknowledgement (Nagle); h2 writes whole frames.
    tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
    let Some(tls) = tls else {
        return Ok(Transport::Plain(tcp));
    };
    let stream = TlsConnector::from(tls.client())
        .connect(tls.name(address.ip()), tcp)
        .await
        .map_err(of_handshake)?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
        return Err(ConnectError::Alpn);
    }
    Ok(Transport::Tls(Box::new(stream)))
}

/// tokio-rustls wraps what rustls refused; anything else is the network.
fn of_handshake(error: io::Error) -> ConnectError {
    let refused = error.get_ref().is_some_and(|source| source.is::<rustls::Error>());
    if refused { ConnectError::Tls(error) } else { ConnectError::Tcp(error) }
}

/// Sends our connection preface and waits for the backend's SETTINGS, so that no request is sent before its stream limit is
/// known (RFC 9113 §3.4, §5.1.2) and a peer that does not speak HTTP/2 is found before it is given one.
///
/// # Errors
/// [`ConnectError::Http2`] and [`ConnectError::Closed`].
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn http2<T>(
    io: T,
    settings: &Settings,
) -> Result<(SendRequest<Bytes>, Connection<T, Bytes>), ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (sender, mut connection) =
        builder(settings).handshake(io).await.map_err(ConnectError::Http2)?;
    poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(ConnectError::Closed)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(ConnectError::Http2(error))),
        Poll::Pending if connection.max_concurrent_send_streams() == SETTINGS_NOT_SEEN => {
            Poll::Pending
        }
        Poll::Pending => Poll::Ready(Ok(())),
    })
    .await?;
    Ok((sender, connection))
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(settings.stream_window.min(WINDOW_SIZE_MAX))
        .initial_connection_window_size(settings.connection_window.min(WINDOW_SIZE_MAX))
        .max_header_list_size(settings.max_header_list_size)
        .initial_max_send_streams(SETTINGS_NOT_SEEN)
        .max_send_buffer_size(SEND_BUFFER_SIZE_MAX)
        .max_concurrent_reset_streams(RESETS_REMEMBERED_MAX)
        .reset_stream_duration(RESETS_REMEMBERED_FOR)
        .max_local_error_reset_streams(Some(ERROR_RESETS_MAX));
    builder
}

// === impl ConnectError ===

impl ConnectError {
    /// What the waiting requests are told. All are safe to try elsewhere: no request was sent.
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Timeout(_) => Kind::ConnectTimeout,
            Self::Tcp(_) | Self::Http2(_) | Self::Closed => Kind::ConnectFailed,
            Self::Tls(_) | Self::Alpn => Kind::TlsFailed,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(limit) => write!(f, "no connection within {limit:?}"),
            Self::Tcp(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Alpn => f.write_str("TLS: the backend did not select ALPN h2"),
            Self::Http2(error) => write!(f, "the backend does not speak HTTP/2: {error}"),
            Self::Closed => f.write_str("the backend closed the connection before its SETTINGS"),
        }
    }
}

impl std::error::Error for ConnectError {}

// === impl Transport ===

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
