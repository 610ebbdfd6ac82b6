//! Which endpoint, as pure algorithms. Built once per change of membership; a pick allocates nothing.
//!
//! May import: exchange, codec, id, telemetry. Health and load are told to it, never looked up by it.

/// What the hash policies hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// The validated client address.
    SourceIp,
    /// The path, without the query.
    Path,
    /// The first value of this field; the source address when absent.
    Header(http::HeaderName),
    /// The value of this cookie; the source address when absent.
    Cookie(String),
}

/// A policy built for one set of endpoints. Immutable, shared by all workers.
#[derive(Debug)]
pub enum Balancer {
    /// Each in turn.
    RoundRobin,
}
