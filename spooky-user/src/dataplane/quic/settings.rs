//! What the configuration decides for the QUIC and HTTP/3 side of a listener, in plain values.
//!
//! Filled by `controlplane::config`, read by workers. Imports nothing of the crate.

use std::time::Duration;

/// Transport settings of one listener (RFC 9000 §18.2 where they are transport parameters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicSettings {
    /// max_idle_timeout: a connection without packets is dropped after this.
    pub idle_timeout: Duration,
    /// From the first Initial to the end of the handshake.
    pub handshake_timeout: Duration,
    /// initial_max_streams_bidi: requests a client may have open at once.
    pub max_streams: u64,
    /// Flow control window of one request stream, in octets.
    pub stream_window: Window,
    /// Flow control window of the connection, in octets.
    pub connection_window: Window,
    /// Congestion controller for what we send.
    pub congestion: Congestion,
    /// Largest UDP payload we send, in octets, 1200..=1452.
    pub max_udp_payload: usize,
    /// active_connection_id_limit: IDs of the client's that we keep; also how many of ours a client may hold.
    pub active_connection_id_limit: u64,
    /// Connections of this listener in all workers together.
    pub max_connections: usize,
    /// Connections of one source (an IPv4 address, an IPv6 /64) in all workers together.
    pub max_connections_per_source: usize,
    /// When a client has to prove its address before it gets a connection.
    pub address_validation: AddressValidation,
    /// Stateless resets sent at most (RFC 9000 §10.3), by all workers together.
    pub stateless_resets: ResetRate,
    /// How often, and to how many places at once, a client may say it has moved.
    pub paths: PathLimits,
}

/// Stateless resets a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetRate {
    /// To everybody together.
    pub per_second: u32,
    /// To one source (an IPv4 address, an IPv6 /64).
    pub per_source: u32,
}

/// Paths of one connection (RFC 9000 §9) besides that of its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathLimits {
    /// New ones a second, and at once.
    pub per_second: u32,
    /// Those on which the client has not yet shown that it can receive.
    pub unvalidated: usize,
}

/// When Retry is sent (RFC 9000 §8.1.2), and how many handshakes may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressValidation {
    /// For whom.
    pub mode: ValidationMode,
    /// Handshakes under way in all workers together from which on the adaptive mode sends Retry to everybody.
    pub half_open_threshold: usize,
    /// Handshakes under way in all workers together above which Initials are dropped.
    pub max_half_open: usize,
    /// How long a client may take to come back with its token.
    pub token_ttl: Duration,
}

/// Who has to prove its address first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidationMode {
    /// Nobody.
    Off,
    /// Everybody while many handshakes are under way.
    Adaptive,
    /// Everybody.
    Always,
}

/// A window that starts small and grows with the client's speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// At first, in octets.
    pub initial: u64,
    /// At most, in octets.
    pub max: u64,
}

/// Congestion controllers that quiche has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 9438.
    Cubic,
    /// RFC 9002 §7.
    Reno,
    /// draft-ietf-ccwg-bbr.
    Bbr2,
}

/// HTTP/3 settings of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http3Settings {
    /// Field section size by RFC 9114 §4.2.2, in octets; above it a request is answered 431.
    pub max_field_section_size: u64,
    /// Fields in a section, pseudo-header fields included.
    pub max_fields: usize,
    /// One field name, in octets.
    pub max_field_name_size: usize,
    /// One field value, in octets.
    pub max_field_value_size: usize,
    /// Requests after which a connection is told to go away (RFC 9114 §5.2).
    pub max_requests_per_connection: u64,
    /// A request's host has to be the name of the TLS handshake (RFC 9110 §7.4).
    pub authority_must_match_sni: bool,
    /// Requests that may end early.
    pub resets: ResetBudget,
    /// From a request's first octet to the end of its field section.
    pub request_header_timeout: Duration,
    /// Without an octet of a request's body.
    pub request_body_timeout: Duration,
    /// Octets a second of a request's body at least, on average over that time.
    pub request_body_rate: u64,
    /// Without the client taking an octet of a response.
    pub response_drain_timeout: Duration,
    /// Octets received that cannot be read because earlier ones are missing.
    pub max_unreadable: u64,
    /// The same for all connections of a listener on one worker.
    pub max_unreadable_total: u64,
    /// Connections to backends that may end under a client's requests in a minute; 0 for no limit.
    pub max_backend_connections_lost: u32,
}

/// How many requests of a connection may end early before it is closed with H3_EXCESSIVE_LOAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetBudget {
    /// The share is of this many requests as long as there were not more.
    pub requests: u64,
    /// Of a hundred requests, how many may end early.
    pub percent: u64,
    /// Resets a second, on average over five.
    pub per_second: u64,
}

impl Http3Settings {
    /// Octets of a request's body that have to come within `request_body_timeout`: at least one.
    #[must_use]
    pub fn request_body_enough(&self) -> u64 {
        let milliseconds = u64::try_from(self.request_body_timeout.as_millis()).unwrap_or(u64::MAX);
        (self.request_body_rate.saturating_mul(milliseconds) / 1000).max(1)
    }
}

impl Default for QuicSettings {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(5),
            max_streams: 100,
            stream_window: Window { initial: 256 << 10, max: 4 << 20 },
            connection_window: Window { initial: 1 << 20, max: 8 << 20 },
            congestion: Congestion::Cubic,
            max_udp_payload: 1350,
            active_connection_id_limit: 8,
            max_connections: 10_000,
            max_connections_per_source: 256,
            address_validation: AddressValidation {
                mode: ValidationMode::Adaptive,
                half_open_threshold: 100,
                max_half_open: 10_000,
                token_ttl: Duration::from_secs(10),
            },
            stateless_resets: ResetRate { per_second: 1000, per_source: 100 },
            paths: PathLimits { per_second: 4, unvalidated: 8 },
        }
    }
}

impl Default for Http3Settings {
    fn default() -> Self {
        Self {
            max_field_section_size: 32 << 10,
            max_fields: 100,
            max_field_name_size: 256,
            max_field_value_size: 16 << 10,
            max_requests_per_connection: 10_000,
            authority_must_match_sni: false,
            resets: ResetBudget { requests: 500, percent: 50, per_second: 100 },
            request_header_timeout: Duration::from_secs(10),
            request_body_timeout: Duration::from_secs(10),
            request_body_rate: 240,
            response_drain_timeout: Duration::from_secs(30),
            max_unreadable: 128 << 10,
            max_unreadable_total: 4 << 20,
            max_backend_connections_lost: 3,
        }
    }
}
