//! Why an exchange could not be served, who is to blame, and what may be done about it.
//!
//! The only place where a failure becomes an HTTP status or an HTTP/3 error code: each mapping is one exhaustive `match`.

use std::fmt;

use http::StatusCode;

/// Whose fault it is. Only `Upstream` counts against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The client: malformed, over a limit, or gone.
    Downstream,
    /// The backend.
    Upstream,
    /// spooky: a limit of ours, no route, shutting down.
    Proxy,
}

/// Whether another endpoint may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never: the request may have been processed, or the client is to blame.
    Never,
    /// Any method: nothing was processed (connect failure, REFUSED_STREAM, GOAWAY below; RFC 9113 §8.7).
    Always,
    /// Only idempotent methods (RFC 9110 §9.2.2), and only while no response field was seen.
    IfIdempotent,
}

/// What went wrong. Each kind has one origin, one retry rule and one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No route matches the request's authority and path.
    NoRoute,
    /// Every endpoint of the upstream is unhealthy.
    NoHealthyEndpoint,
    /// The queue for a pooled connection is full.
    PoolFull,
    /// No pooled connection became free in time.
    PoolTimeout,
    /// The TCP connection was refused, unreachable or reset while opening.
    ConnectFailed,
    /// The TCP connection or TLS handshake took longer than `timeouts.connect`.
    ConnectTimeout,
    /// The backend's certificate or ALPN was not acceptable.
    TlsFailed,
    /// The backend refused the stream unprocessed (REFUSED_STREAM).
    StreamRefused,
    /// The backend's connection was closing before it took the stream: it is above GOAWAY's last stream, or was never sent.
    GoingAway,
    /// The backend asked for less (ENHANCE_YOUR_CALM).
    Overloaded,
    /// The backend reset the stream.
    StreamReset,
    /// The backend's connection broke while the exchange was open.
    ConnectionLost,
    /// The backend broke HTTP/2 or sent a malformed response.
    UpstreamProtocol,
    /// The backend's response head did not come within `timeouts.response_header`.
    ResponseHeaderTimeout,
    /// No body byte moved for `timeouts.stream_idle`.
    StreamIdle,
    /// The client cancelled the request or its connection went away.
    ClientGone,
    /// The client's message broke RFC 9114 §4 after its head was accepted (content-length, trailers).
    ClientMalformed,
    /// The client did not go on with its request for `http3.request_body_timeout`.
    RequestTimeout,
    /// The client took nothing of its response for `http3.response_drain_timeout`.
    ClientStalled,
    /// The request has more content than its route admits.
    BodyTooLarge,
    /// There were more requests than the route admits.
    RateLimited,
    /// spooky is short of memory and did not accept the request.
    MemoryScarce,
    /// spooky is shutting down and did not accept the request.
    ShuttingDown,
}

/// A failed exchange. Cheap to copy; the details go to the log where they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyError {
    /// What went wrong.
    pub kind: Kind,
}

// === impl ProxyError ===

impl ProxyError {
    /// An error of this kind.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self { kind }
    }

    /// Whose fault it is.
    #[must_use]
    pub const fn origin(self) -> Origin {
        match self.kind {
            Kind::NoRoute
            | Kind::ClientGone
            | Kind::ClientMalformed
            | Kind::RequestTimeout
            | Kind::ClientStalled
            | Kind::BodyTooLarge
            | Kind::RateLimited => Origin::Downstream,
            Kind::ConnectFailed
            | Kind::ConnectTimeout
            | Kind::TlsFailed
            | Kind::StreamRefused
            | Kind::GoingAway
            | Kind::Overloaded
            | Kind::StreamReset
            | Kind::ConnectionLost
            | Kind::UpstreamProtocol
            | Kind::ResponseHeaderTimeout
            | Kind::StreamIdle => Origin::Upstream,
            Kind::NoHealthyEndpoint
            | Kind::PoolFull
            | Kind::PoolTimeout
            | Kind::MemoryScarce
            | Kind::ShuttingDown => Origin::Proxy,
        }
    }

    /// Whether it may be tried again.
    #[must_use]
    pub const fn retry(self) -> Retry {
        match self.kind {
            Kind::ConnectFailed
            | Kind::ConnectTimeout
            | Kind::TlsFailed
            | Kind::StreamRefused
            | Kind::GoingAway
            | Kind::PoolFull => Retry::Always,
            Kind::StreamReset | Kind::ConnectionLost => Retry::IfIdempotent,
            Kind::NoRoute
            | Kind::NoHealthyEndpoint
            | Kind::PoolTimeout
            | Kind::Overloaded
            | Kind::UpstreamProtocol
            | Kind::ResponseHeaderTimeout
            | Kind::StreamIdle
            | Kind::ClientGone
            | Kind::ClientMalformed
            | Kind::RequestTimeout
            | Kind::ClientStalled
            | Kind::BodyTooLarge
            | Kind::RateLimited
            | Kind::MemoryScarce
            | Kind::ShuttingDown => Retry::Never,
        }
    }

    /// The status of the answer spooky makes when no response head has been sent yet (RFC 9110 §15).
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self.kind {
            Kind::NoRoute => StatusCode::NOT_FOUND,
            Kind::ClientGone | Kind::ClientMalformed => StatusCode::BAD_REQUEST,
            Kind::RequestTimeout | Kind::ClientStalled => StatusCode::REQUEST_TIMEOUT,
            Kind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Kind::NoHealthyEndpoint
            | Kind::PoolFull
            | Kind::PoolTimeout
            | Kind::StreamRefused
            | Kind::GoingAway
            | Kind::Overloaded
            | Kind::MemoryScarce
            | Kind::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Kind::ConnectTimeout | Kind::ResponseHeaderTimeout | Kind::StreamIdle => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Kind::ConnectFailed
            | Kind::TlsFailed
            | Kind::StreamReset
            | Kind::ConnectionLost
            | Kind::UpstreamProtocol => StatusCode::BAD_GATEWAY,
        }
    }

    /// The word for logs and metric labels.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self.kind {
            Kind::NoRoute => "no_route",
            Kind::NoHealthyEndpoint => "no_healthy_endpoint",
            Kind::PoolFull => "pool_full",
            Kind::PoolTimeout => "pool_timeout",
            Kind::ConnectFailed => "connect_failed",
            Kind::ConnectTimeout => "connect_timeout",
            Kind::TlsFailed => "tls_failed",
            Kind::StreamRefused => "stream_refused",
            Kind::GoingAway => "going_away",
            Kind::Overloaded => "overloaded",
            Kind::StreamReset => "stream_reset",
            Kind::ConnectionLost => "connection_lost",
            Kind::UpstreamProtocol => "upstream_protocol",
            Kind::ResponseHeaderTimeout => "response_header_timeout",
            Kind::StreamIdle => "stream_idle",
            Kind::ClientGone => "client_gone",
            Kind::ClientMalformed => "client_malformed",
            Kind::RequestTimeout => "request_timeout",
            Kind::ClientStalled => "client_stalled",
            Kind::BodyTooLarge => "body_too_large",
            Kind::RateLimited => "rate_limited",
            Kind::MemoryScarce => "memory_scarce",
            Kind::ShuttingDown => "shutting_down",
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for ProxyError {}

impl From<Kind> for ProxyError {
    fn from(kind: Kind) -> Self {
        Self::new(kind)
    }
}
