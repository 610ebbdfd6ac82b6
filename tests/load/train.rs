//! What a quiche connection has to send, in trains: datagrams of one size for one send call each (GSO). Knows no HTTP.

use std::io;
use std::net::SocketAddr;

use quiche::{BufFactory, Connection};

use crate::socket::Socket;

/// A train is this long at most: the kernel takes 64 KiB in one call, headers included.
const TRAIN_OCTETS: usize = 64_000;
/// No datagram is larger.
const DATAGRAM_OCTETS: usize = 1500;

/// The buffer trains are built in; one a thread.
#[derive(Debug)]
pub struct Builder {
    buffer: Vec<u8>,
}

/// What a call of [`Builder::transmit`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// UDP payload.
    pub octets: u64,
    pub datagrams: u64,
    /// The limit was reached and more may be waiting.
    pub more: bool,
}

/// The train being built: a part of the buffer.
struct Open {
    start: usize,
    end: usize,
    segments: usize,
    segment_size: usize,
    peer: Option<SocketAddr>,
}

// === impl Builder ===

impl Builder {
    /// Allocates the buffer.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: vec![0; TRAIN_OCTETS] }
    }

    /// Sends what `connection` has, at most about `limit` octets.
    ///
    /// # Errors
    /// What the socket said. What QUIC says ends up in the connection's state.
    pub fn transmit<F: BufFactory>(
        &mut self,
        connection: &mut Connection<F>,
        socket: &Socket,
        limit: u64,
    ) -> io::Result<Sent> {
        let mut sent = Sent { octets: 0, datagrams: 0, more: false };
        let mut open = Open::at(0);
        let max_segments = socket.max_segments();
        loop {
            if self.buffer.len() - open.end < DATAGRAM_OCTETS || open.segments >= max_segments {
                sent.octets += open.close(&self.buffer, socket)?;
                open = Open::at(0);
                if sent.octets >= limit {
                    return Ok(Sent { more: true, ..sent });
                }
            }
            let Some(space) = self.buffer.get_mut(open.end..) else { break };
            let Ok((size, info)) = connection.send(space) else { break };
            if !open.takes(size, info.to) {
                sent.octets += open.close(&self.buffer, socket)?;
                open = Open::at(open.end);
            }
            open.add(size, info.to);
            sent.datagrams += 1;
        }
        sent.octets += open.close(&self.buffer, socket)?;
        Ok(sent)
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Open ===

impl Open {
    fn at(place: usize) -> Self {
        Self { start: place, end: place, segments: 0, segment_size: 0, peer: None }
    }

    /// All datagrams of a train but the last have one size, and the last is not larger.
    fn takes(&self, size: usize, peer: SocketAddr) -> bool {
        let full = self.end - self.start == self.segments * self.segment_size;
        self.segments == 0 || (full && size <= self.segment_size && self.peer == Some(peer))
    }

    fn add(&mut self, size: usize, peer: SocketAddr) {
        if self.segments == 0 {
            self.segment_size = size;
            self.peer = Some(peer);
        }
        self.segments += 1;
        self.end += size;
    }

    fn close(&self, buffer: &[u8], socket: &Socket) -> io::Result<u64> {
        match (self.peer, buffer.get(self.start..self.end)) {
            (Some(peer), Some(bytes)) => {
                socket.send(peer, bytes, self.segment_size)?;
                Ok(bytes.len() as u64)
            }
            _ => Ok(0),
        }
    }
}
