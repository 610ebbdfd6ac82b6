//! A UDP socket with GSO and GRO, through quinn-udp, as the load generator and the floor server use it: connected to a
//! peer, or bound and open to all. Knows no QUIC.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// GRO trains taken by one receive call.
const BATCH: usize = 4;
const TRAIN_SIZE: usize = 65_535;
/// Octets of receive buffer asked for; the kernel caps it at net.core.rmem_max.
const RECEIVE_BUFFER: usize = 4 << 20;
/// A socket that takes nothing for so long is broken: a UDP socket's buffer empties at the speed of the link.
const FULL: Duration = Duration::from_secs(10);

/// A socket of one address family.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

/// Receive buffers, shared by all sockets of one thread.
#[derive(Debug)]
pub struct Arena {
    bytes: Vec<u8>,
    meta: [RecvMeta; BATCH],
    filled: usize,
}

// === impl Socket ===

impl Socket {
    /// A port of our own at `source` (any address when absent), connected to `peer`.
    ///
    /// # Errors
    /// What the system said.
    pub fn connect(peer: SocketAddr, source: Option<IpAddr>) -> io::Result<Self> {
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(source.unwrap_or(any), 0))?;
        socket.connect(peer)?;
        Self::prepared(socket)
    }

    /// Bound to `address`; several sockets may be, and the kernel spreads peers over them (SO_REUSEPORT).
    ///
    /// # Errors
    /// What the system said.
    pub fn listen(address: SocketAddr) -> io::Result<Self> {
        let kind = socket2::Type::DGRAM;
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), kind, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        Self::prepared(socket.into())
    }

    fn prepared(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Asked for, not required: a smaller buffer is still a buffer.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), RECEIVE_BUFFER);
        Ok(Self { local: socket.local_addr()?, socket, state })
    }

    /// Address and port of ours.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// One receive call; `false` when there was nothing.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens there.
    pub fn receive(&self, arena: &mut Arena) -> io::Result<bool> {
        let mut chunks = arena.bytes.chunks_exact_mut(TRAIN_SIZE);
        let mut slices: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        arena.filled = 0;
        match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut arena.meta) {
            Ok(trains) => arena.filled = trains,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(arena.filled > 0)
    }

    /// One send call: datagrams of `segment_size` octets, the last may be shorter. Waits when the socket is full.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens there, `TimedOut` when the socket stays full for 10 s.
    pub fn send(&self, peer: SocketAddr, bytes: &[u8], segment_size: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: peer,
            ecn: None,
            contents: bytes,
            segment_size: (bytes.len() > segment_size).then_some(segment_size),
            src_ip: None,
        };
        loop {
            match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait(PollFlags::OUT, FULL)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }

    /// Until the socket is ready or the time is over; `false` for the latter.
    ///
    /// # Errors
    /// What the system said.
    pub fn wait(&self, flags: PollFlags, time: Duration) -> io::Result<bool> {
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.socket, flags)], Some(&time)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Datagrams one send call may carry.
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

// === impl Arena ===

impl Arena {
    /// Allocates the buffers.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: vec![0; BATCH * TRAIN_SIZE], meta: [RecvMeta::default(); BATCH], filled: 0 }
    }

    /// The datagrams of the last receive call with their senders, GRO undone.
    pub fn datagrams(&mut self) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        self.bytes.chunks_exact_mut(TRAIN_SIZE).zip(&self.meta).take(self.filled).flat_map(
            |(train, meta)| {
                let length = meta.len.min(train.len());
                let datagrams = train[..length].chunks_mut(meta.stride.max(1));
                datagrams.map(|datagram| (meta.addr, datagram))
            },
        )
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}
