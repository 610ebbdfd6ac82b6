//! One worker's shard. The list here *is* the list of worker metrics: the doc comment of a field is its help text, its name
//! with `spooky_` before it (and `_total` behind a counter) is its Prometheus name. Imports only its siblings and `reason`.

use std::sync::Arc;

use super::counter::{Counter, Counters, Gauge, Labelled};
use super::histogram::{EXCHANGE_BOUNDS, Histogram, RTT_BOUNDS, TURN_BOUNDS};
use super::render::{Rendered, Samples};
use crate::telemetry::reason::{
    CloseReason, DropReason, HandshakeFailure, LimitReason, MalformedReason, Panicked,
    RefusedReason,
};

macro_rules! worker_metrics {
    ($( #[doc = $help:literal] $field:ident: $type:ty = $init:expr; )+) => {
        /// What one worker counts. Written by that worker's thread alone; its own cache lines.
        #[derive(Debug)]
        #[repr(align(128))]
        pub struct WorkerMetrics {
            $( #[doc = $help] pub $field: $type, )+
        }

        impl WorkerMetrics {
            /// All zero.
            #[must_use]
            pub fn new() -> Self {
                Self { $( $field: $init, )+ }
            }
        }

        /// Renders the sum over all workers.
        pub(super) fn render(workers: &[Arc<WorkerMetrics>], samples: &mut Samples) {
            $(
                let parts: Vec<&$type> = workers.iter().map(|worker| &worker.$field).collect();
                <$type as Rendered>::render(stringify!($field), $help.trim(), &parts, samples);
            )+
        }
    };
}

worker_metrics! {
    /// UDP datagrams received, GRO trains counted by segment.
    datagrams_received: Counter = Counter::new();
    /// UDP payload bytes received.
    bytes_received: Counter = Counter::new();
    /// Receive system calls that returned datagrams.
    receive_calls: Counter = Counter::new();
    /// Receive system calls that failed, other than for want of data.
    receive_errors: Counter = Counter::new();
    /// UDP datagrams sent, GSO trains counted by segment.
    datagrams_sent: Counter = Counter::new();
    /// UDP payload bytes sent.
    bytes_sent: Counter = Counter::new();
    /// Send system calls that sent something.
    send_calls: Counter = Counter::new();
    /// Send system calls that failed, other than for want of buffer space.
    send_errors: Counter = Counter::new();
    /// Sends put off because the socket buffer was full.
    send_blocked: Counter = Counter::new();
    /// Frames received from AF_XDP sockets; their datagrams count in `datagrams_received`, too.
    af_xdp_frames_received: Counter = Counter::new();
    /// Frames sent by AF_XDP sockets; their datagrams count in `datagrams_sent`, too.
    af_xdp_frames_sent: Counter = Counter::new();
    /// Frames from AF_XDP sockets without a datagram for a listener.
    af_xdp_unusable: Counter = Counter::new();
    /// Trains that a UDP socket got because the AF_XDP socket their path came by could not send them.
    af_xdp_fallbacks: Counter = Counter::new();
    /// Trains put off because all frames for sending were on their way.
    af_xdp_tx_full: Counter = Counter::new();
    /// Packets the kernel dropped because it had no frame to put them in: the worker is behind.
    af_xdp_fill_starved: Counter = Counter::new();
    /// Packets the kernel dropped because a receive ring was full.
    af_xdp_rx_full: Counter = Counter::new();
    /// Packets the kernel dropped on their way to an AF_XDP socket for other reasons: too large for a frame, say.
    af_xdp_dropped: Counter = Counter::new();
    /// Ring entries that the kernel or spooky refused as impossible. Each is a defect of one of them.
    af_xdp_invalid: Counter = Counter::new();
    /// Calls that told the kernel of frames to send.
    af_xdp_wakeups: Counter = Counter::new();
    /// AF_XDP sockets, one for each receive queue that has one.
    af_xdp_queues: Gauge = Gauge::new();
    /// Frames of all AF_XDP sockets. The six gauges that follow add up to it.
    af_xdp_frames: Gauge = Gauge::new();
    /// Frames waiting for packets, in the fill rings.
    af_xdp_frames_fill: Gauge = Gauge::new();
    /// Frames with packets that the worker has not taken, in the receive rings.
    af_xdp_frames_rx: Gauge = Gauge::new();
    /// Frames free for sending.
    af_xdp_frames_free: Gauge = Gauge::new();
    /// Frames that the kernel has not sent yet, in the transmit rings.
    af_xdp_frames_tx: Gauge = Gauge::new();
    /// Frames sent and not taken back, in the completion rings.
    af_xdp_frames_completion: Gauge = Gauge::new();
    /// Frames in no ring: with the driver or on the wire. In copy mode it falls to 0 when nothing is under way.
    af_xdp_frames_driver: Gauge = Gauge::new();
    /// Times a source was let in only because what refuses it is a dry run: when it connects, moves, or goes on after a change.
    access_spared: Counter = Counter::new();
    /// Datagrams with one of our connection IDs that the kernel gave to their owner.
    steer_right: Counter = Counter::new();
    /// Datagrams that reached the wrong worker and were handed to their owner's ring.
    steer_forwarded: Counter = Counter::new();
    /// Short-header datagrams whose connection ID is not one of ours.
    steer_unknown: Counter = Counter::new();
    /// Datagrams whose connection ID belongs to a socket generation that is gone.
    steer_old_generation: Counter = Counter::new();
    /// Datagrams whose owner is a worker that does not run any more.
    steer_dead_owner: Counter = Counter::new();
    /// Datagrams taken from this worker's ring of strays.
    stray_received: Counter = Counter::new();
    /// Strays dropped because their owner's ring was full.
    stray_ring_full: Counter = Counter::new();
    /// Initial packets that asked for a new connection.
    initials: Counter = Counter::new();
    /// Connections accepted.
    connections_accepted: Counter = Counter::new();
    /// Connections that exist now, handshakes included.
    connections_active: Gauge = Gauge::new();
    /// Connections whose handshake is under way.
    connections_half_open: Gauge = Gauge::new();
    /// Clients asked to prove their address by a Retry packet.
    retries_sent: Counter = Counter::new();
    /// Clients that proved their address with the token of a Retry packet.
    addresses_validated: Counter = Counter::new();
    /// Clients that got all that an address may get before it has shown that it can receive.
    amplification_limited: Counter = Counter::new();
    /// Connections refused at their Initial, by reason.
    connections_refused: Counters<RefusedReason> = Counters::new();
    /// Connections closed because memory was scarce.
    connections_shed: Counter = Counter::new();
    /// Connections that ended, by reason.
    connections_closed: Counters<CloseReason> = Counters::new();
    /// TLS handshakes completed.
    handshakes_completed: Counter = Counter::new();
    /// Those of them that went on with an earlier session (RFC 8446 §2.2).
    handshakes_resumed: Counter = Counter::new();
    /// TLS handshakes that failed, by reason.
    handshakes_failed: Counters<HandshakeFailure> = Counters::new();
    /// Time from the Initial to the end of the handshake.
    handshake_seconds: Histogram = Histogram::new(EXCHANGE_BOUNDS);
    /// Smoothed round-trip time of the active path, observed once a second while a connection is busy, and when it ends.
    rtt_seconds: Histogram = Histogram::new(RTT_BOUNDS);
    /// QUIC packets declared lost.
    packets_lost: Counter = Counter::new();
    /// QUIC packets whose frames were sent again.
    packets_retransmitted: Counter = Counter::new();
    /// Bytes in QUIC packets declared lost.
    bytes_lost: Counter = Counter::new();
    /// Version Negotiation packets sent.
    version_negotiations: Counter = Counter::new();
    /// Stateless resets sent.
    stateless_resets_sent: Counter = Counter::new();
    /// Stateless resets not sent because of their rate limit.
    stateless_resets_limited: Counter = Counter::new();
    /// Datagrams dropped before they reached a connection, by reason.
    datagrams_dropped: Counters<DropReason> = Counters::new();
    /// Client addresses that changed and were validated.
    migrations_validated: Counter = Counter::new();
    /// Paths that failed validation.
    path_failures: Counter = Counter::new();
    /// Requests being served now.
    requests_active: Gauge = Gauge::new();
    /// Malformed requests, by reason.
    requests_malformed: Counters<MalformedReason> = Counters::new();
    /// STREAMS_BLOCKED frames received: a client had as many requests open as it may, and wanted more.
    streams_blocked: Counter = Counter::new();
    /// DATA_BLOCKED and STREAM_DATA_BLOCKED frames received: a client had filled a window, and wanted to send more.
    windows_blocked: Counter = Counter::new();
    /// Requests refused unprocessed (H3_REQUEST_REJECTED).
    requests_rejected: Counter = Counter::new();
    /// Limits on what a connection or request may do that were reached, by limit.
    limits_reached: Counters<LimitReason> = Counters::new();
    /// Clients whose debt to a rate limit was forgotten because its table (`rate_limit.clients`) was full.
    rate_limit_displaced: Counter = Counter::new();
    /// Requests the client cancelled.
    requests_cancelled: Counter = Counter::new();
    /// Responses that spooky reset after their head was sent.
    response_resets: Counter = Counter::new();
    /// Exchanges that ended in an error of spooky's own making, by kind.
    proxy_errors: Labelled = Labelled::new();
    /// Body bytes held in memory between client and backend.
    buffered_bytes: Gauge = Gauge::new();
    /// Panics that were caught, by what they ended. Each is a defect of spooky's: please report it.
    panics: Counters<Panicked> = Counters::new();
    /// Turns of the worker loop.
    turns: Counter = Counter::new();
    /// Time one turn of the worker loop took.
    turn_seconds: Histogram = Histogram::new(TURN_BOUNDS);
    /// Access log lines dropped because the writer was behind.
    access_log_dropped: Counter = Counter::new();
    /// Backend connections opened.
    pool_connections_opened: Counter = Counter::new();
    /// Backend connections that could not be opened, by kind.
    pool_connect_failures: Labelled = Labelled::new();
    /// Backend connections closed.
    pool_connections_closed: Counter = Counter::new();
    /// Backend connections open now.
    pool_connections_active: Gauge = Gauge::new();
    /// Requests waiting for a backend stream now.
    pool_pending: Gauge = Gauge::new();
    /// Requests refused because too many were waiting for a backend stream.
    pool_full: Counter = Counter::new();
    /// Requests that waited too long for a backend stream.
    pool_timeouts: Counter = Counter::new();
    /// Requests sent to a backend again.
    retries: Counter = Counter::new();
    /// Requests that were not sent again because too many others were.
    retries_refused: Counter = Counter::new();
}

impl WorkerMetrics {
    /// Sets to zero what is counted up and down: a worker that begins has nothing, whatever its predecessor had.
    pub fn forget_what_was_active(&self) {
        for gauge in [
            &self.connections_active,
            &self.connections_half_open,
            &self.requests_active,
            &self.buffered_bytes,
            &self.pool_connections_active,
            &self.pool_pending,
            &self.af_xdp_queues,
            &self.af_xdp_frames,
            &self.af_xdp_frames_fill,
            &self.af_xdp_frames_rx,
            &self.af_xdp_frames_free,
            &self.af_xdp_frames_tx,
            &self.af_xdp_frames_completion,
            &self.af_xdp_frames_driver,
        ] {
            gauge.set(0);
        }
    }
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Renders the few values that are worth seeing worker by worker: whether load is spread and whether each one turns.
pub(super) fn render_each(workers: &[Arc<WorkerMetrics>], samples: &mut Samples) {
    for (number, worker) in workers.iter().enumerate() {
        let number = number.to_string();
        let label = [("worker", number.as_str())];
        samples.counter(
            "spooky_worker_datagrams_received_total",
            "UDP datagrams received, by worker.",
            &label,
            worker.datagrams_received.value(),
        );
        samples.counter(
            "spooky_worker_af_xdp_frames_received_total",
            "Frames received from AF_XDP sockets, by worker.",
            &label,
            worker.af_xdp_frames_received.value(),
        );
        samples.counter(
            "spooky_worker_connections_accepted_total",
            "Connections accepted, by worker.",
            &label,
            worker.connections_accepted.value(),
        );
        samples.gauge(
            "spooky_worker_connections_active",
            "Connections that exist now, by worker.",
            &label,
            worker.connections_active.value() as f64,
        );
        samples.counter(
            "spooky_worker_turns_total",
            "Turns of the worker loop, by worker.",
            &label,
            worker.turns.value(),
        );
    }
}
