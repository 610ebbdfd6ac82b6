//! Listening, TLS, one task a connection and one a stream. Knows nothing of what the paths mean.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::behaviour;
use super::stats::Stats;

/// How an origin is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Name in `x-origin` of every answer.
    pub name: String,
    /// TLS with ALPN `h2`; without it, HTTP/2 by prior knowledge.
    pub tls: Option<TlsFiles>,
    /// SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 §6.5.2); default 1000.
    pub max_streams: Option<u32>,
    /// Streams after which a connection gets GOAWAY; default never.
    pub goaway_after: Option<u64>,
}

/// PEM files of a TLS origin.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A bound origin; nothing is accepted before [`Origin::serve`].
#[derive(Debug)]
pub struct Origin {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<Tls>,
}

/// What every stream of an origin can reach.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) stats: Arc<Stats>,
    /// Bumped to send GOAWAY on every open connection.
    pub(super) goaway: watch::Sender<u64>,
}

/// What a stream can ask of its connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    /// Close the TCP connection once what was sent is written.
    Die,
}

struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tls")
    }
}

impl Origin {
    /// Binds the listener and reads the TLS files.
    ///
    /// # Errors
    /// One line that says which address or file is at fault.
    pub async fn bind(options: Options) -> Result<Self, String> {
        let acceptor = options.tls.as_ref().map(acceptor).transpose()?;
        let listener = TcpListener::bind(options.listen)
            .await
            .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
        let local_addr = listener.local_addr().map_err(|error| error.to_string())?;
        let shared =
            Shared { options, stats: Arc::new(Stats::default()), goaway: watch::Sender::new(0) };
        Ok(Self { listener, local_addr, shared: Arc::new(shared), acceptor })
    }

    /// The address that clients reach.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The counters, shared with the caller.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
    }

    /// Accepts connections for ever.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener; open connections end with the runtime.
    pub async fn serve(self) {
        loop {
            let Ok((socket, _peer)) = self.listener.accept().await else {
                // Out of descriptors: let the connections that hold them make progress first.
                tokio::task::yield_now().await;
                continue;
            };
            let shared = Arc::clone(&self.shared);
            let acceptor = self.acceptor.as_ref().map(|tls| tls.0.clone());
            tokio::spawn(async move { greet(socket, acceptor, shared).await });
        }
    }
}

fn acceptor(files: &TlsFiles) -> Result<Tls, String> {
    let at = |file: &PathBuf| {
        let file = file.display().to_string();
        move |error| format!("cannot read {file}: {error}")
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(at(&files.cert))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(at(&files.key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("{}: {error}", files.cert.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Tls(TlsAcceptor::from(Arc::new(config))))
}

async fn greet(socket: TcpStream, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Nagle's algorithm would hold the last frame of an answer back for a delayed ACK.
    let served = match (socket.set_nodelay(true), acceptor) {
        (Err(_), _) => false,
        (Ok(()), None) => converse(socket, &shared).await,
        (Ok(()), Some(acceptor)) => match acceptor.accept(socket).await {
            Ok(stream) => converse(stream, &shared).await,
            Err(_) => false,
        },
    };
    if !served {
        shared.stats.handshakes_failed.fetch_add(1, Relaxed);
    }
}

/// Serves one connection to its end. False when HTTP/2 was never spoken.
async fn converse<T: AsyncRead + AsyncWrite + Unpin>(io: T, shared: &Arc<Shared>) -> bool {
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(shared.options.max_streams.unwrap_or(1000))
        .initial_window_size(1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .max_concurrent_reset_streams(1000)
        .max_pending_accept_reset_streams(1000)
        .handshake::<T, Bytes>(io);
    let Ok(mut connection) = handshake.await else {
        return false;
    };
    shared.stats.connections_total.fetch_add(1, Relaxed);
    shared.stats.connections_open.fetch_add(1, Relaxed);
    let (commands, mut asked) = mpsc::channel(1);
    let mut goaway = shared.goaway.subscribe();
    let mut streams = 0u64;
    loop {
        tokio::select! {
            next = connection.accept() => {
                let Some(Ok((request, reply))) = next else { break };
                streams += 1;
                if shared.options.goaway_after.is_some_and(|limit| streams >= limit) {
                    connection.graceful_shutdown();
                }
                let (shared, commands) = (Arc::clone(shared), commands.clone());
                tokio::spawn(async move {
                    shared.stats.stream_opened(request.uri().path());
                    behaviour::answer(request, reply, &shared, &commands).await;
                    shared.stats.stream_ended();
                });
            }
            Some(Command::Die) = asked.recv() => {
                // One more poll writes what the stream has queued; dropping the connection then closes the socket.
                let mut written = false;
                std::future::poll_fn(|cx| {
                    if !std::mem::replace(&mut written, true) {
                        let _state = connection.poll_closed(cx);
                    }
                    Poll::Ready(())
                })
                .await;
                break;
            }
            Ok(()) = goaway.changed() => connection.graceful_shutdown(),
        }
    }
    shared.stats.connections_open.fetch_sub(1, Relaxed);
    true
}
