//! Moving datagrams between a worker and the network; knows no QUIC.
//!
//! May import: sys, telemetry. Must not import quic.

use std::net::SocketAddr;

pub mod udp;
pub mod xdp;

/// The two ends of a datagram's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Our address, as the client used it.
    pub local: SocketAddr,
    /// The client's address, as the packet claims it.
    pub peer: SocketAddr,
}

/// One received datagram. The octets are mutable because QUIC decrypts in place.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// UDP payload.
    pub bytes: &'a mut [u8],
    /// Where it came from and to.
    pub path: Path,
}
