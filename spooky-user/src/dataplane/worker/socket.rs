//! A worker's socket with the one train it could not send: the whole of what waits below QUIC.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::dataplane::packet::Path;
use crate::dataplane::packet::udp::{Train, Udp};
use crate::dataplane::quic::transmit::Blocked;
use crate::id::ListenerId;
use crate::telemetry::metrics::WorkerMetrics;

/// One listener's socket on one worker.
#[derive(Debug)]
pub(super) struct Socket {
    /// Which listener's connections send here.
    pub listener: ListenerId,
    /// The listener that what arrives here has come to: another one, if that has taken over the address.
    pub arrivals: ListenerId,
    /// The socket.
    pub udp: Udp,
    held: Option<Held>,
    metrics: Arc<WorkerMetrics>,
}

/// A train that the socket did not take.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    segment_size: usize,
    path: Path,
}

impl Socket {
    /// With nothing held.
    #[must_use]
    pub(super) fn new(listener: ListenerId, udp: Udp, metrics: Arc<WorkerMetrics>) -> Self {
        Self { listener, arrivals: listener, udp, held: None, metrics }
    }

    /// A train is waiting: nobody else may send.
    #[must_use]
    pub(super) fn is_blocked(&self) -> bool {
        self.held.is_some()
    }

    /// Sends a train, or keeps a copy of it.
    ///
    /// # Errors
    ///
    /// [`Blocked`] when it was kept; the caller stops sending until [`Self::poll_unblock`] is ready.
    pub(super) fn send(&mut self, train: Train<'_>) -> Result<(), Blocked> {
        match self.try_send(train) {
            Ok(()) => Ok(()),
            Err(Blocked) => {
                self.metrics.send_blocked.inc();
                self.held = Some(Held {
                    bytes: train.bytes.to_vec(),
                    segment_size: train.segment_size,
                    path: train.path,
                });
                Err(Blocked)
            }
        }
    }

    /// Sends one datagram that may be lost: an answer outside any connection.
    pub(super) fn send_or_drop(&mut self, bytes: &[u8], path: Path) {
        if !self.is_blocked() {
            let _ = self.try_send(Train { bytes, segment_size: bytes.len(), path });
        }
    }

    fn try_send(&self, train: Train<'_>) -> Result<(), Blocked> {
        match self.udp.send(train) {
            Ok(()) => {
                self.metrics.send_calls.inc();
                let segments = train.bytes.len().div_ceil(train.segment_size.max(1));
                self.metrics.datagrams_sent.add(segments as u64);
                self.metrics.bytes_sent.add(train.bytes.len() as u64);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Blocked),
            Err(error) => {
                // Lost like any packet: QUIC finds out by itself (RFC 9002). One client's ICMP error must not matter here.
                self.metrics.send_errors.inc();
                tracing::debug!(%error, peer = %train.path.peer, "a train was not sent");
                Ok(())
            }
        }
    }

    /// Ready once the held train is sent; at once when there is none.
    pub(super) fn poll_unblock(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(held) = self.held.take() {
            let train =
                Train { bytes: &held.bytes, segment_size: held.segment_size, path: held.path };
            if self.try_send(train).is_ok() {
                return Poll::Ready(());
            }
            self.held = Some(held);
            match self.udp.poll_writable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}
