//! What a worker sends, and by which way: past the stack, where the path came so, else from its listener's UDP socket.
//! May import: `packet`, quic.

use std::task::Context;

use super::socket::Socket;
use super::turn::Worker;
use crate::dataplane::packet::Path;
use crate::dataplane::quic::transmit::Outcome;
use crate::id::ConnectionKey;

impl Worker {
    /// Sends an answer outside any connection; it may be lost.
    pub(super) fn reply(&mut self, socket: usize, answer: Option<&[u8]>, path: Path) {
        let Some(bytes) = answer else { return };
        if !self.bypass.send_or_drop(bytes, path)
            && let Some(socket) = self.sockets.get_mut(socket)
        {
            socket.send_or_drop(bytes, path);
        }
    }

    /// Sends the connection's packets the way its path came, else from its listener's socket.
    pub(super) fn transmit(&mut self, key: ConnectionKey) {
        let Some(connection) = self.endpoint.get_mut(key) else { return };
        let listener = connection.listener;
        let Some(socket) = self.sockets.iter_mut().find(|it| it.listener == listener) else {
            return;
        };
        let bypass = &mut self.bypass;
        let outcome = if socket.is_blocked() || bypass.is_blocked() {
            Outcome::Blocked
        } else {
            let segments = bypass.max_segments(socket.udp.max_segments());
            connection.transmit(&mut self.builder, segments, |train| {
                bypass.send(train).unwrap_or_else(|| socket.send(train))
            })
        };
        match outcome {
            Outcome::Idle => {}
            Outcome::More | Outcome::Blocked => self.postponed.push(key),
        }
    }

    /// Sends what was held.
    pub(super) fn unblock(&mut self, cx: &mut Context<'_>) {
        let _ = self.bypass.poll_unblock(cx);
        for socket in &mut self.sockets {
            // Pending: the socket's waker is set. Ready: nothing is held any more.
            let _ = socket.poll_unblock(cx);
        }
    }

    /// Postponed connections can be served: some because no socket is full.
    pub(super) fn postponed_can_go(&self) -> bool {
        let blocked = self.bypass.is_blocked() || self.sockets.iter().any(Socket::is_blocked);
        !self.postponed.is_empty() && !blocked
    }
}
