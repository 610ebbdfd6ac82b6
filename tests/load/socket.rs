//! A connected UDP socket with GSO and GRO, through quinn-udp. Knows no QUIC.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, poll};

/// GRO trains taken by one receive call.
const BATCH: usize = 4;
const TRAIN_SIZE: usize = 65_535;

/// The socket of one connection.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// Receive buffers, shared by all sockets of the one thread.
#[derive(Debug)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
    meta: [RecvMeta; BATCH],
    filled: usize,
}

// === impl Socket ===

impl Socket {
    /// A port of our own, connected to `peer`.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn connect(peer: SocketAddr) -> io::Result<Self> {
        let any = match peer {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(peer)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Asked for, not required: the kernel caps it at net.core.rmem_max.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), 4 << 20);
        Ok(Self { local: socket.local_addr()?, socket, state, peer })
    }

    /// One receive call; `false` when there was nothing.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens there.
    pub(crate) fn receive(&self, arena: &mut Arena) -> io::Result<bool> {
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
    /// `ConnectionRefused` when nobody listens there.
    pub(crate) fn send(&self, bytes: &[u8], segment_size: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.peer,
            ecn: None,
            contents: bytes,
            segment_size: (bytes.len() > segment_size).then_some(segment_size),
            src_ip: None,
        };
        loop {
            match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut writable = [PollFd::new(&self.socket, PollFlags::OUT)];
                    poll(&mut writable, None)?;
                }
                other => return other,
            }
        }
    }

    /// Datagrams one send call may carry.
    pub(crate) fn max_segments(&self) -> usize {
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
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; BATCH * TRAIN_SIZE], meta: [RecvMeta::default(); BATCH], filled: 0 }
    }

    /// The datagrams of the last receive call, GRO undone.
    pub(crate) fn datagrams(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_exact_mut(TRAIN_SIZE).zip(&self.meta).take(self.filled).flat_map(
            |(train, meta)| {
                let length = meta.len.min(train.len());
                train[..length].chunks_mut(meta.stride.max(1))
            },
        )
    }
}
