//! What all connections of a run have in common: quiche's settings, the request, what its answer must be, and session
//! tickets. Knows no connection.

use std::net::{IpAddr, SocketAddr};

use boring::ssl::{SslContextBuilder, SslMethod};
use quiche::h3;

use crate::options::Options;

/// What we send in one datagram at most.
const DATAGRAM_SIZE: usize = 1350;
/// Windows that never hold a download up.
const STREAM_WINDOW: u64 = 16 << 20;
const CONNECTION_WINDOW: u64 = 64 << 20;
/// In milliseconds; for held connections, the server's own is to decide.
const IDLE_TIMEOUT: u64 = 30_000;
const HELD_IDLE_TIMEOUT: u64 = 600_000;
/// Tickets that are kept.
const TICKETS: usize = 256;

/// For all connections of a run.
pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    pub(crate) source: Option<IpAddr>,
    pub(crate) host: String,
    pub(crate) transport: quiche::Config,
    pub(crate) http: h3::Config,
    pub(crate) head: Vec<h3::Header>,
    /// Octets of the request's body.
    pub(crate) body: u64,
    pub(crate) expected: Expected,
    /// Connections resume, all but the first.
    pub(crate) resume: bool,
    pub(crate) tickets: Tickets,
    /// Connections made so far: their IDs.
    pub(crate) made: u64,
}

/// What an answer must be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// In digits, as it comes.
    pub(crate) status: String,
    pub(crate) length: Option<u64>,
    pub(crate) sha256: Option<[u8; 32]>,
}

/// Session tickets that connections brought. A client uses each once (RFC 8446 appendix C.4), unless it has no other.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    unused: Vec<Vec<u8>>,
    last: Option<Vec<u8>>,
}

// === impl Plan ===

impl Plan {
    /// # Errors
    /// When quiche refuses a setting.
    pub(crate) fn new(options: &Options) -> quiche::Result<Self> {
        let http = h3::Config::new().map_err(|_cause| quiche::Error::InvalidState)?;
        let status = options.status.to_string();
        Ok(Self {
            target: options.target,
            source: options.source,
            host: options.host.clone(),
            transport: transport(options)?,
            http,
            head: head(options),
            body: options.body.unwrap_or(0),
            expected: Expected { status, length: options.expect, sha256: options.sha256 },
            resume: options.resume,
            tickets: Tickets::default(),
            made: 0,
        })
    }
}

fn transport(options: &Options) -> quiche::Result<quiche::Config> {
    let mut config = match &options.groups {
        None => quiche::Config::new(quiche::PROTOCOL_VERSION)?,
        Some(groups) => {
            let mut tls = SslContextBuilder::new(SslMethod::tls())
                .map_err(|_cause| quiche::Error::TlsFail)?;
            tls.set_curves_list(groups).map_err(|_cause| quiche::Error::TlsFail)?;
            quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, tls)?
        }
    };
    config.verify_peer(false);
    config.set_application_protos(h3::APPLICATION_PROTOCOL)?;
    let held = options.idle.is_some();
    config.set_max_idle_timeout(if held { HELD_IDLE_TIMEOUT } else { IDLE_TIMEOUT });
    config.set_max_send_udp_payload_size(DATAGRAM_SIZE);
    config.set_initial_max_data(CONNECTION_WINDOW);
    config.set_max_connection_window(CONNECTION_WINDOW);
    config.set_initial_max_stream_data_bidi_local(STREAM_WINDOW);
    config.set_max_stream_window(STREAM_WINDOW);
    config.set_initial_max_stream_data_uni(1 << 20);
    config.set_initial_max_streams_uni(16);
    config.enable_pacing(false);
    if options.early {
        config.enable_early_data();
    }
    Ok(config)
}

fn head(options: &Options) -> Vec<h3::Header> {
    let method = if options.body.is_some() { "POST" } else { "GET" };
    let port = options.target.port();
    let mut head = vec![
        h3::Header::new(b":method", method.as_bytes()),
        h3::Header::new(b":scheme", b"https"),
        h3::Header::new(b":authority", format!("{}:{port}", options.host).as_bytes()),
        h3::Header::new(b":path", options.path.as_bytes()),
        h3::Header::new(b"user-agent", b"spooky-load"),
    ];
    if let Some(length) = options.body {
        head.push(h3::Header::new(b"content-length", length.to_string().as_bytes()));
    }
    head
}

// === impl Tickets ===

impl Tickets {
    pub(crate) fn put(&mut self, ticket: &[u8]) {
        if self.unused.len() < TICKETS {
            self.unused.push(ticket.to_owned());
        }
        if self.last.is_none() {
            self.last = Some(ticket.to_owned());
        }
    }

    /// One for a new connection; `None` before the first has come.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        self.unused.pop().or_else(|| self.last.clone())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_none()
    }
}
