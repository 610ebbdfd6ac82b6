//! What the snapshot knows of one configured upstream: endpoints, policy, limits, and the health of each endpoint.
//!
//! Immutable but for [`Health`], which the control plane's probes write and every worker reads.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::tls::Connector;
use crate::dataplane::balance::{Balancer, HashOn};
use crate::id::ClusterId;
use crate::telemetry::metrics::EndpointMetrics;

/// One configured upstream, compiled.
#[derive(Debug)]
pub struct Cluster {
    /// Its place in the snapshot.
    pub id: ClusterId,
    /// The name in the file; the key across reloads and the metric label.
    pub name: Arc<str>,
    /// The endpoints, in file order; a balancer speaks of them by index.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// The policy, built for exactly these endpoints and weights.
    pub balancer: Balancer,
    /// What the hash policies hash.
    pub hash_on: HashOn,
    /// How often one request may be tried, 1..=10.
    pub attempts: u8,
    /// How many requests one worker tries again at once.
    pub retry_budget: RetryBudget,
    /// Limits and windows of the connections.
    pub settings: Arc<Settings>,
    /// Active probing, if configured.
    pub health_check: Option<HealthCheck>,
}

/// A bound on requests that are tried again at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Of a hundred live requests, 0..=100.
    pub percent: u8,
    /// So many in any case.
    pub min_concurrency: u32,
}

/// One backend address.
#[derive(Debug)]
pub struct Endpoint {
    /// The name in the file, unique in its upstream; the metric label.
    pub name: Arc<str>,
    /// Where to connect.
    pub address: SocketAddr,
    /// Relative share, 1..=65535.
    pub weight: u16,
    /// Shared across snapshots while name and address stay the same.
    pub health: Arc<Health>,
    /// The settings of its cluster.
    pub settings: Arc<Settings>,
    /// Its counters, one shard a worker; the registry keeps them across snapshots by name.
    pub metrics: Arc<EndpointMetrics>,
}

/// Whether an endpoint may get requests. One writer (the control plane), many readers.
#[derive(Debug)]
pub struct Health {
    healthy: AtomicBool,
}

/// How connections to the endpoints of one upstream are made and bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// TLS towards the backend, compiled by [`Connector::new`]; `None` is cleartext HTTP/2 with prior knowledge (RFC 9113 §3.3).
    pub tls: Option<Connector>,
    /// TCP connect and TLS handshake together.
    pub connect_timeout: Duration,
    /// From the end of the request head sent to the response head.
    pub response_header_timeout: Duration,
    /// Longest time without a body byte in either direction.
    pub stream_idle_timeout: Duration,
    /// Connections one worker opens to one endpoint at most.
    pub max_connections: u16,
    /// Streams spooky opens on one connection at most; the backend's SETTINGS may lower it.
    pub max_streams: u32,
    /// Requests that may wait for a stream, for each worker and endpoint.
    pub max_pending: u32,
    /// Longest wait of such a request.
    pub pending_timeout: Duration,
    /// A connection without streams is closed after this.
    pub idle_timeout: Duration,
    /// SETTINGS_INITIAL_WINDOW_SIZE we offer, in bytes.
    pub stream_window: u32,
    /// Connection window we offer, in bytes.
    pub connection_window: u32,
    /// SETTINGS_MAX_HEADER_LIST_SIZE we offer, in bytes.
    pub max_header_list_size: u32,
    /// PING keepalive, if configured.
    pub keepalive: Option<Keepalive>,
}

/// HTTP/2 PING keepalive towards a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Time without a frame received before a PING is sent.
    pub interval: Duration,
    /// Time to wait for its acknowledgement before the connection is given up.
    pub timeout: Duration,
}

/// TLS towards a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// `false` accepts any certificate; logged at start.
    pub verify: bool,
    /// Name sent as SNI and checked in the certificate; the endpoint's IP address when absent.
    pub sni: Option<String>,
    /// PEM file with the accepted authorities instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// Versions of TLS that carry HTTP/2 (RFC 9113 §9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Active probing of each endpoint over connections of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Request target; a 2xx answer is a success.
    pub path: String,
    /// `:authority` of the probe; the endpoint's address when absent.
    pub host: Option<String>,
    /// Between probes.
    pub interval: Duration,
    /// For a whole probe, connection included.
    pub timeout: Duration,
    /// Failures in a row that take an endpoint out.
    pub unhealthy_after: u32,
    /// Successes in a row that take it back.
    pub healthy_after: u32,
    /// Share of the interval added or taken away at random, 0..=100 percent.
    pub jitter_percent: u8,
}

// === impl Health ===

impl Health {
    /// Healthy until a probe says otherwise.
    #[must_use]
    pub fn new() -> Self {
        Self { healthy: AtomicBool::new(true) }
    }

    /// May it get requests?
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Written by the control plane alone. Returns what it was.
    pub fn set(&self, healthy: bool) -> bool {
        self.healthy.swap(healthy, Ordering::Relaxed)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}
