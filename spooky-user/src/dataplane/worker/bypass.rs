//! A worker's AF_XDP sockets: what XDP has redirected comes in here, and goes out the way it came. Everything else, and
//! everything while such a socket cannot send, goes by the UDP sockets. May import: `packet`, telemetry.
//!
//! Above this file nobody knows by which way a datagram came: path, listener, access lists and the limit of RFC 9000 §8.1
//! are the same for both.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::socket::Socket;
use super::turn::Worker;
use crate::dataplane::filter::ip_access::AccessList;
use crate::dataplane::packet::udp::Train;
use crate::dataplane::packet::xdp::frame::{self, Found};
use crate::dataplane::packet::xdp::neighbours::{Neighbour, Neighbours};
use crate::dataplane::packet::xdp::{self, Home, Incoming, Opened, Outgoing, Sent};
use crate::dataplane::packet::{Datagram, Path};
use crate::dataplane::quic::endpoint::Arrival;
use crate::dataplane::quic::transmit::Blocked;
use crate::telemetry::metrics::WorkerMetrics;

/// Frames taken from one queue in one turn: as many as a turn takes datagrams of a UDP socket, when they come singly.
const FRAMES: usize = 256;
/// Datagrams of one train; the smallest ring has room for two such trains.
const SEGMENTS: usize = 64;
/// Paths whose neighbour is known: some 130 octets each.
const PATHS: usize = 8192;
/// How often what the kernel has counted is read, and a queue that did not send is tried again.
const LOOK: Duration = Duration::from_millis(100);

/// The sockets of one worker.
#[derive(Debug)]
pub(super) struct Bypass {
    incoming: Vec<Incoming>,
    outgoing: Vec<Outgoing>,
    /// None until there is a socket.
    neighbours: Option<Neighbours>,
    held: Option<Held>,
    looked_at: Option<Instant>,
    counted: Counted,
    metrics: Arc<WorkerMetrics>,
    home: Option<Arc<Home>>,
}

/// A train for which there was no room.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    segment_size: usize,
    path: Path,
}

/// What the metrics have of the numbers that queues count up.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    fill_starved: u64,
    ring_full: u64,
    dropped: u64,
    invalid: u64,
    wakeups: u64,
}

impl Bypass {
    pub(super) fn new(metrics: Arc<WorkerMetrics>) -> Self {
        Self {
            incoming: Vec::new(),
            outgoing: Vec::new(),
            neighbours: None,
            held: None,
            looked_at: None,
            counted: Counted::default(),
            metrics,
            home: None,
        }
    }

    /// Takes over one more socket, to be given back to `home` when the worker ends. On the worker's runtime.
    pub(super) fn add(&mut self, opened: Opened, home: Arc<Home>) -> std::io::Result<()> {
        self.home = Some(home);
        let (incoming, outgoing) = xdp::take_over(opened)?;
        self.incoming.push(incoming);
        self.outgoing.push(outgoing);
        let key = || (fastrand::u64(..), fastrand::u64(..));
        self.neighbours.get_or_insert_with(|| Neighbours::new(PATHS, key()));
        self.looked_at = None;
        Ok(())
    }

    /// Closes all sockets. What is in their rings is lost, like any packet.
    pub(super) fn close(&mut self) {
        self.incoming.clear();
        self.outgoing.clear();
        (self.neighbours, self.held) = (None, None);
        self.show();
    }

    /// A train is waiting: nobody else may send.
    #[must_use]
    pub(super) fn is_blocked(&self) -> bool {
        self.held.is_some()
    }

    /// Most datagrams of a train, where a UDP socket takes `segments`.
    #[must_use]
    pub(super) fn max_segments(&self, segments: usize) -> usize {
        if self.outgoing.is_empty() { segments } else { segments.min(SEGMENTS) }
    }

    /// Sends a train the way its path's frames came, or keeps a copy of it. `None`: it is for the UDP socket.
    pub(super) fn send(&mut self, train: Train<'_>) -> Option<Result<(), Blocked>> {
        match self.try_send(train)? {
            Sent::All => Some(Ok(())),
            Sent::Not => None,
            Sent::Full => {
                self.metrics.af_xdp_tx_full.inc();
                let Train { bytes, segment_size, path } = train;
                self.held = Some(Held { bytes: bytes.to_vec(), segment_size, path });
                Some(Err(Blocked))
            }
        }
    }

    /// Sends one datagram that may be lost; `false`: it is for the UDP socket.
    pub(super) fn send_or_drop(&mut self, bytes: &[u8], path: Path) -> bool {
        let train = Train { bytes, segment_size: bytes.len(), path };
        !matches!(self.try_send(train), None | Some(Sent::Not))
    }

    /// `None`: nothing has come from there by any of the queues.
    fn try_send(&mut self, train: Train<'_>) -> Option<Sent> {
        let Neighbour { link, queue } = self.neighbours.as_ref()?.find(train.path)?;
        let sent = self.outgoing.get_mut(*queue)?.send(train, link);
        let metrics = &self.metrics;
        match sent {
            Sent::All => {
                let segments = train.bytes.len().div_ceil(train.segment_size.max(1)) as u64;
                metrics.datagrams_sent.add(segments);
                metrics.bytes_sent.add(train.bytes.len() as u64);
                metrics.af_xdp_frames_sent.add(segments);
            }
            Sent::Not => metrics.af_xdp_fallbacks.inc(),
            Sent::Full => {}
        }
        Some(sent)
    }

    /// Sends what is left in the rings and the held train. Ready once nothing is held.
    pub(super) fn poll_unblock(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for queue in &mut self.outgoing {
            // Pending: its waker is set.
            let _ = queue.poll_flush(cx);
        }
        while let Some(held) = self.held.take() {
            let train =
                Train { bytes: &held.bytes, segment_size: held.segment_size, path: held.path };
            if self.try_send(train) != Some(Sent::Full) {
                // Sent, or lost with its queue.
                return Poll::Ready(());
            }
            let neighbour = self.neighbours.as_ref().and_then(|known| known.find(held.path));
            let place = neighbour.map_or(usize::MAX, |neighbour| neighbour.queue);
            self.held = Some(held);
            let Some(queue) = self.outgoing.get_mut(place) else { continue };
            std::task::ready!(queue.poll_room(cx, SEGMENTS));
        }
        Poll::Ready(())
    }

    /// The turn is over: what was sent goes out, all of it with as few calls as can be.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>) {
        self.outgoing.iter_mut().for_each(|queue| queue.finish(cx));
    }

    /// The worker is about to end.
    pub(super) fn flush(&mut self) {
        self.outgoing.iter_mut().for_each(Outgoing::flush);
    }

    /// Reads what the kernel has counted, when it is time, and tries queues that did not send.
    pub(super) fn look(&mut self, now: Instant) {
        let rested = |at| now.saturating_duration_since(at) >= LOOK;
        if self.outgoing.is_empty() || !self.looked_at.is_none_or(rested) {
            return;
        }
        self.looked_at = Some(now);
        self.outgoing.iter_mut().for_each(Outgoing::look);
        self.show();
    }

    fn show(&mut self) {
        let metrics = &self.metrics;
        let mut counted = Counted::default();
        let (mut all, mut fill, mut rx, mut free, mut tx, mut completion, mut driver) =
            (0, 0, 0, 0, 0, 0, 0);
        for (incoming, outgoing) in self.incoming.iter().zip(&self.outgoing) {
            let statistics = incoming.statistics().unwrap_or_default();
            counted.fill_starved += statistics.fill_empty;
            counted.ring_full += statistics.ring_full;
            counted.dropped += statistics.dropped;
            counted.invalid += statistics.invalid + incoming.invalid() + outgoing.invalid();
            counted.wakeups += outgoing.wakeups();
            let (in_audit, out_audit) = (incoming.audit(), outgoing.audit());
            all += i64::from(in_audit.total) + i64::from(out_audit.total);
            fill += i64::from(in_audit.first);
            rx += i64::from(in_audit.second);
            free += i64::from(in_audit.own) + i64::from(out_audit.own);
            tx += i64::from(out_audit.first);
            completion += i64::from(out_audit.second);
            driver += i64::from(in_audit.driver) + i64::from(out_audit.driver);
        }
        let before = std::mem::replace(&mut self.counted, counted);
        metrics.af_xdp_fill_starved.add(counted.fill_starved.saturating_sub(before.fill_starved));
        metrics.af_xdp_rx_full.add(counted.ring_full.saturating_sub(before.ring_full));
        metrics.af_xdp_dropped.add(counted.dropped.saturating_sub(before.dropped));
        metrics.af_xdp_invalid.add(counted.invalid.saturating_sub(before.invalid));
        metrics.af_xdp_wakeups.add(counted.wakeups.saturating_sub(before.wakeups));
        metrics.af_xdp_queues.set(i64::try_from(self.incoming.len()).unwrap_or(0));
        metrics.af_xdp_frames.set(all);
        metrics.af_xdp_frames_fill.set(fill);
        metrics.af_xdp_frames_rx.set(rx);
        metrics.af_xdp_frames_free.set(free);
        metrics.af_xdp_frames_tx.set(tx);
        metrics.af_xdp_frames_completion.set(completion);
        metrics.af_xdp_frames_driver.set(driver);
    }
}

/// Also when a panic ends the worker.
impl Drop for Bypass {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        for (incoming, outgoing) in self.incoming.drain(..).zip(self.outgoing.drain(..)) {
            // There is room for all that were ever opened.
            let _ = home.push(xdp::give_back(incoming, outgoing));
        }
    }
}

impl Worker {
    /// Receives from every AF_XDP socket; `true` when there may be more.
    pub(super) fn receive_bypassed(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        self.bypass.look(now);
        let mut queues = std::mem::take(&mut self.bypass.incoming);
        let mut more = false;
        for (place, queue) in queues.iter_mut().enumerate() {
            more |= self.receive_by(place, queue, cx, now);
        }
        self.bypass.incoming = queues;
        more
    }

    /// Until the queue has nothing, and says so by itself when that changes; `true` when it has had its share before.
    fn receive_by(
        &mut self,
        place: usize,
        queue: &mut Incoming,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> bool {
        let mut left = FRAMES;
        while left > 0 {
            match queue.poll_receive(cx) {
                Poll::Ready(Ok(())) => left -= self.take_frames(place, queue, left, now),
                Poll::Ready(Err(error)) => {
                    // The interface is gone; the control plane will say so, too.
                    self.metrics.receive_errors.inc();
                    tracing::debug!(worker = %self.id, %error, "AF_XDP does not receive");
                    return true;
                }
                Poll::Pending => return false,
            }
        }
        true
    }

    /// Takes what has come, at most so many frames, and gives them back. Returns how many there were, and 1 at least: what
    /// cannot be taken is no reason to look for ever.
    fn take_frames(
        &mut self,
        place: usize,
        queue: &mut Incoming,
        most: usize,
        now: Instant,
    ) -> usize {
        let snapshot = self.context.snapshot();
        let interface = queue.interface;
        let mut taken = 0;
        while taken < most {
            let Some(frame) = queue.take() else { break };
            taken += 1;
            self.metrics.af_xdp_frames_received.inc();
            if self.take_frame(place, interface, frame, now, &snapshot.access).is_none() {
                self.metrics.af_xdp_unusable.inc();
            }
        }
        queue.refill();
        taken.max(1)
    }

    /// `None`: there is no datagram for a listener in it.
    fn take_frame(
        &mut self,
        queue: usize,
        interface: u32,
        frame: &mut [u8],
        now: Instant,
        access: &AccessList,
    ) -> Option<()> {
        let Found { link, source, destination, payload } = frame::read(frame).ok()?;
        let place = socket_for(&self.sockets, destination)?;
        let socket = self.sockets.get(place)?;
        let path = as_seen_by(socket.udp.bound(), source, destination, interface);
        let arrival = Arrival { listener: socket.arrivals, forwarded: false, now };
        let bytes = frame.get_mut(payload)?;
        self.metrics.datagrams_received.inc();
        self.metrics.bytes_received.add(bytes.len() as u64);
        let neighbour = Neighbour { link, queue };
        if let Some(known) = &mut self.bypass.neighbours {
            known.hear(path, neighbour, false);
        }
        let delivered = self.datagram(place, arrival, Datagram { bytes, path }, access);
        if delivered && let Some(known) = &mut self.bypass.neighbours {
            known.hear(path, neighbour, true);
        }
        Some(())
    }
}

/// The socket that the kernel would have given a datagram to: that of the address, or of its family's wildcard, or of
/// the one for both.
fn socket_for(sockets: &[Socket], destination: SocketAddr) -> Option<usize> {
    let rank = |bound: SocketAddr| -> Option<u8> {
        if bound.port() != destination.port() {
            return None;
        }
        if bound.ip().to_canonical() == destination.ip() {
            return Some(0);
        }
        match bound.ip() {
            IpAddr::V4(any) if any.is_unspecified() && destination.is_ipv4() => Some(1),
            IpAddr::V6(any) if any.is_unspecified() => Some(2),
            _ => None,
        }
    };
    let ranked = sockets.iter().enumerate();
    let ranked = ranked.filter_map(|(place, socket)| Some((rank(socket.udp.bound())?, place)));
    ranked.min().map(|(_, place)| place)
}

/// The path as the UDP socket bound there would show it: IPv4 in its mapped form on an IPv6 socket, the scope of
/// link-local addresses.
fn as_seen_by(
    bound: SocketAddr,
    source: SocketAddr,
    destination: SocketAddr,
    interface: u32,
) -> Path {
    let seen = |address: SocketAddr| match address {
        SocketAddr::V4(address) if bound.is_ipv6() => {
            SocketAddr::new(address.ip().to_ipv6_mapped().into(), address.port())
        }
        other => other,
    };
    let peer = match seen(source) {
        SocketAddr::V6(peer) if peer.ip().is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(*peer.ip(), peer.port(), 0, interface))
        }
        other => other,
    };
    Path { local: seen(destination), peer }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_looks_as_the_socket_shows_it() {
        let (source, destination) = (address("192.0.2.7:5000"), address("192.0.2.1:443"));
        let plain = as_seen_by(address("0.0.0.0:443"), source, destination, 3);
        assert_eq!((plain.peer, plain.local), (source, destination));
        let mapped = as_seen_by(address("[::]:443"), source, destination, 3);
        assert_eq!(mapped.peer, address("[::ffff:192.0.2.7]:5000"));
        assert_eq!(mapped.local, address("[::ffff:192.0.2.1]:443"));
        let (source, destination) = (address("[fe80::7]:5000"), address("[fe80::1]:443"));
        let scoped = as_seen_by(address("[::]:443"), source, destination, 3);
        assert_eq!(scoped.peer, address("[fe80::7%3]:5000"));
        assert_eq!(scoped.local, destination);
    }

    #[tokio::test]
    async fn the_narrowest_socket_takes_a_datagram() {
        let metrics = Arc::new(WorkerMetrics::new());
        let socket = |bind: &str, listener| {
            let bound = crate::dataplane::packet::udp::bind(address(bind)).unwrap();
            let udp = crate::dataplane::packet::udp::Udp::new(bound).unwrap();
            Socket::new(crate::id::ListenerId(listener), udp, Arc::clone(&metrics))
        };
        let both = socket("[::]:0", 0);
        let port = both.udp.bound().port();
        let sockets =
            [both, socket(&format!("127.0.0.1:{port}"), 1), socket(&format!("[::1]:{port}"), 2)];
        let to =
            |text: &str, port| socket_for(&sockets, SocketAddr::new(text.parse().unwrap(), port));
        assert_eq!(to("127.0.0.1", port), Some(1));
        assert_eq!(to("::1", port), Some(2));
        assert_eq!(to("127.0.0.2", port), Some(0));
        assert_eq!(to("fd00::1", port), Some(0));
        assert_eq!(to("127.0.0.1", port.wrapping_add(1)), None);
    }
}
