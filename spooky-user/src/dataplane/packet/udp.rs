//! A worker's SO_REUSEPORT socket: batched receive with GRO, batched send with GSO, packet info.
//!
//! Source: `udp(7)` (UDP_SEGMENT, UDP_GRO), `ip(7)` (IP_PKTINFO), through quinn-udp.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::{Datagram, Path};

/// Buffers filled by one receive call. 16 calls' worth of GRO trains of up to 64 KiB: 1 MiB a worker.
const BATCH: usize = 16;
const TRAIN_SIZE: usize = 65_535;

/// A bound socket of one worker.
pub struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    bound: SocketAddr,
}

/// The receive buffers of one worker, shared by its sockets.
pub struct Arena {
    bytes: Box<[u8]>,
    meta: [RecvMeta; BATCH],
}

/// What one send call carries: datagrams of one size to one client, the last may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Train<'a> {
    /// The datagrams, one after the other.
    pub bytes: &'a [u8],
    /// Size of each but the last, in octets.
    pub segment_size: usize,
    /// From where and to whom.
    pub path: Path,
}

/// Binds a socket that shares its address with the other workers' sockets.
///
/// Called by the control plane before any worker runs, so that a port in use is an error at start.
///
/// # Errors
///
/// What `socket`, `setsockopt` or `bind` said.
pub fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Asked for, not required: the kernel caps it at net.core.{r,w}mem_max.
    let _ = socket.set_recv_buffer_size(4 << 20);
    let _ = socket.set_send_buffer_size(4 << 20);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

// === impl Udp ===

impl Udp {
    /// Takes over a bound socket. Must be called on the worker's runtime.
    ///
    /// # Errors
    ///
    /// When the socket cannot be registered or its options cannot be set.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let bound = socket.local_addr()?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { socket: UdpSocket::from_std(socket)?, state, bound })
    }

    /// The address it is bound to.
    #[must_use]
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Datagrams one send call may carry; 1 where the kernel has no UDP_SEGMENT.
    #[must_use]
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// One receive call. Ready with the number of trains in `arena`; pending once the socket is empty.
    ///
    /// # Errors
    ///
    /// What `recvmmsg` said; the socket stays usable (an ICMP error of one client, say).
    pub fn poll_receive(&self, cx: &mut Context<'_>, arena: &mut Arena) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.socket.poll_recv_ready(cx))?;
            let received = self.socket.try_io(Interest::READABLE, || {
                let (mut slices, meta) = arena.parts();
                self.state.recv(UdpSockRef::from(&self.socket), &mut slices, meta)
            });
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// One send call.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the socket's buffer is full: wait with [`Self::poll_writable`] and send the same train again.
    /// Anything else means that this train is lost; QUIC recovers.
    pub fn send(&self, train: Train<'_>) -> io::Result<()> {
        let transmit = Transmit {
            destination: train.path.peer,
            ecn: None,
            contents: train.bytes,
            segment_size: (train.bytes.len() > train.segment_size).then_some(train.segment_size),
            src_ip: Some(train.path.local.ip()).filter(|ip| !ip.is_unspecified()),
        };
        self.socket.try_io(Interest::WRITABLE, || {
            self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
        })
    }

    /// Ready when a send may succeed again.
    ///
    /// # Errors
    ///
    /// When the runtime is gone.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(cx)
    }
}

impl fmt::Debug for Udp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Udp").field("bound", &self.bound).finish_non_exhaustive()
    }
}

// === impl Arena ===

impl Arena {
    /// Allocates the buffers of one worker.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: vec![0; BATCH * TRAIN_SIZE].into_boxed_slice(),
            meta: [RecvMeta::default(); BATCH],
        }
    }

    fn parts(&mut self) -> ([IoSliceMut<'_>; BATCH], &mut [RecvMeta]) {
        let mut chunks = self.bytes.chunks_exact_mut(TRAIN_SIZE);
        let slices = std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        (slices, &mut self.meta)
    }

    /// Every datagram of the first `trains` trains, GRO undone.
    pub fn datagrams(
        &mut self,
        trains: usize,
        bound: SocketAddr,
    ) -> impl Iterator<Item = Datagram<'_>> {
        self.bytes.chunks_exact_mut(TRAIN_SIZE).zip(&self.meta).take(trains).flat_map(
            move |(buffer, meta)| {
                let path = Path {
                    local: SocketAddr::new(meta.dst_ip.unwrap_or(bound.ip()), bound.port()),
                    peer: meta.addr,
                };
                let length = meta.len.min(buffer.len());
                let stride = meta.stride.max(1);
                buffer
                    .get_mut(..length)
                    .unwrap_or_default()
                    .chunks_mut(stride)
                    .map(move |bytes| Datagram { bytes, path })
            },
        )
    }
}

/// Without buffers: what stays behind while the arena is lent out.
impl Default for Arena {
    fn default() -> Self {
        Self { bytes: Box::default(), meta: [RecvMeta::default(); BATCH] }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// The address without the IPv4-mapped form that a dual-stack socket shows.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The IP of a peer without the IPv4-mapped form.
#[must_use]
pub fn canonical_ip(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}
