//! One QUIC connection: quiche's state, the IDs it answers to, and the opaque session `S` above it.
//!
//! ```text
//!  Handshaking ──established──▶ Open ──close or error──▶ closing/draining (quiche) ──▶ gone
//!        └──handshake_timeout; six times that if it can receive──▲
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use spooky_common::invariant::Header;

use super::buffers::Transport;
use super::cid::{Cid, Issuer};
use super::initial_close;
use super::migration::Migration;
use super::settings::QuicSettings;
use super::sources::Source;
use super::transmit::{Blocked, Builder, Outcome};
use super::validation::Credit;
use crate::dataplane::packet::Path;
use crate::dataplane::packet::udp::Train;
use crate::id::ListenerId;
use crate::telemetry::metrics::WorkerMetrics;
use crate::telemetry::reason::{CloseReason, HandshakeFailure};

/// How often a busy connection's round trips and losses are added to the metrics.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// RFC 9000 §20.1; NO_ERROR is below it.
const INTERNAL_ERROR: u64 = 0x1;
/// RFC 9000 §20.1.
const TRANSPORT_PARAMETER_ERROR: u64 = 0x8;
/// A datagram so long after the first is no part of the same flight: the client waits for us.
const AGAIN: Duration = Duration::from_millis(500);
/// So many times `handshake_timeout` has a client that has shown that it can receive (decision 0073). If we forgot it earlier it
/// could not begin anew: its Initials name an ID of ours by then, and their keys come from the ID it named first.
const PATIENCE_FACTOR: u32 = 6;

/// Octets in datagrams with Initials that a connection takes: a ClientHello of 2 KiB in single octets and twenty times sent again
/// are less. Each octet that comes by itself and before its turn takes 160 octets of memory.
const INITIAL_OCTETS: usize = 64 << 10;

/// A connection in its worker's table.
pub struct Connection<S> {
    /// quiche's side.
    pub transport: Transport,
    /// The protocol above, once the handshake is over.
    pub session: Option<S>,
    /// Where it came in, and so whose socket it answers from.
    pub listener: ListenerId,
    /// IDs of ours that lead here.
    pub(super) issued: Vec<Cid>,
    /// The ID the client chose for its first Initial; leads here until the handshake is confirmed.
    pub(super) original: Option<(u8, [u8; 20])>,
    /// The first ID we gave it: its name in logs.
    pub first_cid: Cid,
    /// Where the client is and was.
    migration: Migration,
    /// The last ID we gave it.
    newest_cid: Cid,
    /// IDs under a former configuration for which a new one is to be issued.
    renewals: usize,
    /// What may be sent where.
    pub(super) credit: Credit,
    /// Whose connection this is, for the limit of each source.
    pub(super) source: Source,
    /// Its handshake is under way, and counted so.
    pub(super) half_open: bool,
    /// It has failed and may not even say so: its address has had all that it may get.
    abandoned: bool,
    /// Source of the last datagram, validated or not; so that access lists are asked once a change, not once a datagram.
    pub(super) last_source: SocketAddr,
    /// Version of the access lists that let it in.
    pub(super) vetted: u64,
    pub(super) accepted: Instant,
    handshake_deadline: Option<Instant>,
    /// The handshake has failed, and nobody was told yet.
    failed: bool,
    /// The deadline of a client that has shown that it can receive.
    last_deadline: Instant,
    /// A time in the worker's heap at or before which this connection will be looked at.
    pub timer: Option<Instant>,
    /// Waits for its turn already.
    pub queued: bool,
    /// When the second step of a graceful close is due (RFC 9114 §5.2).
    pub leave_at: Option<Instant>,
    /// When the session wants to look at its streams.
    pub look_at: Option<Instant>,
    /// Until when it may wait with an acknowledgement.
    pub ack_due: Option<Instant>,
    /// Datagrams taken in since anything was sent.
    pub unacknowledged: u32,
    /// Octets of datagrams with Initials in them.
    initials: usize,
    reported: Reported,
}

/// What has been added to the metrics already.
struct Reported {
    at: Instant,
    lost: usize,
    retransmitted: usize,
    lost_bytes: u64,
    streams_blocked: u64,
    windows_blocked: u64,
    limited: bool,
}

impl Reported {
    fn new(at: Instant) -> Self {
        Self {
            at,
            lost: 0,
            retransmitted: 0,
            lost_bytes: 0,
            streams_blocked: 0,
            windows_blocked: 0,
            limited: false,
        }
    }
}

impl<S> Connection<S> {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, by the endpoint, with what it has made"
    )]
    pub(super) fn new(
        transport: Transport,
        listener: ListenerId,
        first_cid: Cid,
        original: (u8, [u8; 20]),
        path: Path,
        validated: bool,
        now: Instant,
        settings: &QuicSettings,
    ) -> Self {
        // quiche remembers as many paths as we keep IDs of the client's.
        let paths_max = usize::try_from(settings.active_connection_id_limit).unwrap_or(2);
        Self {
            transport,
            session: None,
            listener,
            issued: vec![first_cid],
            original: Some(original),
            first_cid,
            migration: Migration::new(path, settings.paths, paths_max, now),
            newest_cid: first_cid,
            renewals: 0,
            credit: Credit::new(path.peer, validated),
            source: Source::of(path.peer.ip()),
            half_open: true,
            abandoned: false,
            last_source: path.peer,
            vetted: 0,
            accepted: now,
            handshake_deadline: Some(now + settings.handshake_timeout),
            failed: false,
            last_deadline: now + settings.handshake_timeout * PATIENCE_FACTOR,
            timer: None,
            queued: false,
            leave_at: None,
            look_at: None,
            ack_due: None,
            unacknowledged: 0,
            initials: 0,
            reported: Reported::new(now),
        }
    }

    /// Peer of the last path that was validated (RFC 9000 §8): the client, for all purposes.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.migration.current().peer
    }

    /// Sends what the transport has; see `Builder::transmit`.
    pub fn transmit(
        &mut self,
        builder: &mut Builder,
        max_segments: usize,
        send: impl FnMut(Train<'_>) -> Result<(), Blocked>,
    ) -> Outcome {
        self.ack_due = None;
        self.unacknowledged = 0;
        let Self { transport, migration, credit, .. } = self;
        builder.transmit(transport, migration, credit, max_segments, send)
    }

    /// When it next wants to be looked at, if no datagram comes before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let timeout = self.transport.timeout_instant();
        [timeout, self.handshake_deadline, self.leave_at, self.look_at].into_iter().flatten().min()
    }

    /// Runs what is due.
    pub fn on_timeout(&mut self, now: Instant, metrics: &WorkerMetrics) {
        if self.transport.timeout_instant().is_some_and(|due| due <= now) {
            self.transport.on_timeout();
            self.follow_paths(now, metrics);
            self.migration.on_timeout(&mut self.transport);
        }
        if self.handshake_deadline.is_some_and(|due| due <= now) {
            self.handshake_deadline = None;
            if !self.transport.is_established() && !self.transport.is_closed() {
                metrics.handshakes_failed.inc(HandshakeFailure::Timeout);
                self.failed = true;
                //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3
                //# An endpoint that wishes to communicate a fatal connection error MUST use
                //# a CONNECTION_CLOSE frame if it is able.
                // An unvalidated peer gets no more than RFC 9000 §8.1 allows; quiche sends the close within it.
                let _ = self.transport.close(false, 0, b"handshake timeout");
                self.abandoned = self.credit.datagram() == Some(0);
            }
        }
    }

    /// Nothing more will come of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.transport.is_closed() || self.abandoned
    }

    /// Whether the handshake has just ended: true once.
    pub fn became_established(&mut self, now: Instant, metrics: &WorkerMetrics) -> bool {
        if self.handshake_deadline.is_none() || !self.transport.is_established() {
            return false;
        }
        self.handshake_deadline = None;
        //= https://www.rfc-editor.org/rfc/rfc9000#section-7.3
        //# An endpoint MUST treat the absence of the
        //# initial_source_connection_id transport parameter from either endpoint
        //# or the absence of the original_destination_connection_id transport
        //# parameter from the server as a connection error of type
        //# TRANSPORT_PARAMETER_ERROR.
        // quiche sees to it, but takes an extension with nothing in it for none.
        if self.transport.peer_transport_params().is_none() {
            let _ = self.transport.close(false, TRANSPORT_PARAMETER_ERROR, b"no parameters");
        }
        metrics.handshakes_completed.inc();
        if self.transport.is_resumed() {
            metrics.handshakes_resumed.inc();
        }
        metrics.handshake_seconds.observe(now.saturating_duration_since(self.accepted));
        true
    }

    /// Whether a datagram of so many octets with an Initial in it is one that a handshake needs.
    pub(super) fn takes_initial(&mut self, octets: usize) -> bool {
        self.initials = self.initials.saturating_add(octets);
        self.initials <= INITIAL_OCTETS
    }

    /// A datagram of this connection comes from elsewhere than the last one. Called before the transport sees it:
    /// `false` when it is not to see it.
    pub(super) fn arriving(&mut self, path: Path, now: Instant) -> bool {
        self.migration.arriving(&mut self.transport, path, now)
    }

    /// Whether `arriving` has to be asked of this source.
    pub(super) fn is_new(&self, source: SocketAddr) -> bool {
        source != self.last_source || self.migration.is_wary()
    }

    /// A datagram came while the handshake is under way. One that uses an ID of ours, from where the client was in the
    /// beginning, shows that it can receive there. Only then: whoever has a connection knows its IDs, and could name
    /// another's address as its new one.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1
    //# Additionally, an endpoint MAY consider the peer address validated if
    //# the peer uses a connection ID chosen by the endpoint and the connection
    //# ID contains at least 64 bits of entropy.
    ///
    /// Packets get lost, and each loss doubles the client's wait before the next one: such a client is waited for longer, and
    /// as long as things are `calm` one that only repeats itself, too.
    pub(super) fn heard(&mut self, header: &Header, source: SocketAddr, calm: bool, now: Instant) {
        if !self.half_open || source != self.migration.current().peer {
            return;
        }
        let receives = self.issued.contains(&header.dcid);
        if receives {
            self.credit.validate();
        }
        if receives || (calm && now >= self.accepted + AGAIN) {
            self.handshake_deadline = self.handshake_deadline.map(|_| self.last_deadline);
        }
    }

    /// Follows the paths: only a validated one moves the client's address.
    pub(super) fn follow_paths(&mut self, now: Instant, metrics: &WorkerMetrics) {
        self.migration.follow(&mut self.transport, now, metrics);
    }

    /// The client has completed the handshake, so it can receive where it came from.
    pub(super) fn handshake_ended(&mut self) {
        self.credit.validate();
    }

    /// Gives the client spare IDs, so that it can migrate without being linked (RFC 9000 §5.1.1, §9.5), and under another
    /// configuration than before others for all that it has. Returns those that are new.
    pub(super) fn issue_spares(&mut self, issuer: &Issuer, most: u64, new: &mut Vec<Cid>) {
        //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-3.1
        //# Servers MUST NOT generate new connection IDs using an old configuration
        //# after receiving a new one from the configuration agent.
        //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-3.1
        //# Servers MUST use that QUIC version's methods to update the client with
        //# CIDs (e.g., NEW_CONNECTION_ID frames) using the new configuration and
        //# retire CIDs using the old configuration.
        if issuer.reads(&self.newest_cid).is_none() {
            self.renewals = self.transport.active_scids() + self.transport.scids_left();
        }
        while self.renewals > 0 && self.may_renew() && self.issue(issuer, true, new) {
            self.renewals -= 1;
        }
        while self.transport.scids_left() > 0
            && (self.transport.active_scids() as u64) < most
            && self.issue(issuer, false, new)
        {}
    }

    /// Whether quiche has room for an ID while the client has not given others back. It keeps one less than twice the client's
    /// limit; asked for another it refuses, and asks one more back all the same.
    fn may_renew(&self) -> bool {
        let limit = self.transport.peer_transport_params().map_or(2, |it| it.active_conn_id_limit);
        (self.transport.active_scids() as u64) < limit.saturating_mul(2).saturating_sub(1)
    }

    /// Issues one ID; with `retire`, the oldest is asked back when there are as many as may be. Whether it was issued.
    fn issue(&mut self, issuer: &Issuer, retire: bool, new: &mut Vec<Cid>) -> bool {
        let cid = issuer.issue();
        let token = u128::from_be_bytes(issuer.reset_token(&cid));
        let id = quiche::ConnectionId::from_ref(&cid);
        if self.transport.new_scid(&id, token, retire).is_err() {
            return false;
        }
        self.newest_cid = cid;
        self.issued.push(cid);
        new.push(cid);
        true
    }

    /// Reports once a second, so that the figures of a long connection do not wait for its end.
    pub fn report_when_due(&mut self, now: Instant, metrics: &WorkerMetrics) {
        if now.saturating_duration_since(self.reported.at) >= REPORT_INTERVAL {
            self.reported.at = now;
            self.report(metrics);
        }
    }

    /// Adds what the transport has counted since the last call.
    pub(super) fn report(&mut self, metrics: &WorkerMetrics) {
        let stats = self.transport.stats();
        metrics.packets_lost.add(stats.lost.saturating_sub(self.reported.lost) as u64);
        metrics
            .packets_retransmitted
            .add(stats.retrans.saturating_sub(self.reported.retransmitted) as u64);
        metrics.bytes_lost.add(stats.lost_bytes.saturating_sub(self.reported.lost_bytes));
        let windows = stats.data_blocked_recv_count + stats.stream_data_blocked_recv_count;
        let streams = stats.streams_blocked_bidi_recv_count;
        metrics.streams_blocked.add(streams.saturating_sub(self.reported.streams_blocked));
        metrics.windows_blocked.add(windows.saturating_sub(self.reported.windows_blocked));
        (self.reported.streams_blocked, self.reported.windows_blocked) = (streams, windows);
        if self.credit.has_bitten() && !std::mem::replace(&mut self.reported.limited, true) {
            metrics.amplification_limited.inc();
        }
        self.reported.lost = stats.lost;
        self.reported.retransmitted = stats.retrans;
        self.reported.lost_bytes = stats.lost_bytes;
        if let Some(path) = self.transport.path_stats().find(|path| path.active) {
            metrics.rtt_seconds.observe(path.rtt);
        }
    }

    /// How it ended, for a connection that is closed.
    pub(super) fn close_reason(&self) -> CloseReason {
        if self.transport.is_timed_out() {
            return CloseReason::Idle;
        }
        if let Some(error) = self.transport.local_error() {
            return match (error.is_app, error.error_code) {
                (true, 0x100) => CloseReason::Drained,
                (true, _) => CloseReason::LocalApplication,
                (false, _) => CloseReason::LocalTransport,
            };
        }
        match self.transport.peer_error() {
            Some(error) if error.is_app => CloseReason::PeerApplication,
            Some(_) => CloseReason::PeerTransport,
            None => CloseReason::Idle,
        }
    }

    /// Writes the CONNECTION_CLOSE that a client can read when an Initial of it has just failed; its size, or `None` when quiche
    /// tells it or the address has had all that it may get.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.2.3
    //# Under these circumstances, a
    //# server SHOULD send a CONNECTION_CLOSE frame in both Handshake and
    //# Initial packets to ensure that at least one of them is processable by
    //# the client.
    pub(super) fn last_word(&mut self, fault: quiche::Error, out: &mut [u8]) -> Option<usize> {
        let error = self.transport.local_error().filter(|error| !error.is_app)?;
        // Alerts of TLS come before there are Handshake keys: quiche sends those in Initial packets itself.
        if (0x100..0x200).contains(&error.error_code) || self.credit.datagram() == Some(0) {
            return None;
        }
        let (length, first) = self.original.as_ref()?;
        // quiche has no code of its own for what is cut short. When ClientHello was read, as the name in it shows, and its
        // parameters were not, it is they.
        let cut_short = fault == quiche::Error::BufferTooShort
            && self.transport.server_name().is_some()
            && self.transport.peer_transport_params().is_none();
        let code = if cut_short { TRANSPORT_PARAMETER_ERROR } else { error.error_code };
        let ids = initial_close::Ids {
            first: first.get(..usize::from(*length))?,
            client: &self.transport.destination_id(),
            server: &self.first_cid,
        };
        let size = initial_close::write(ids, code, out)?;
        self.credit.charge(size);
        Some(size)
    }

    /// Counts a handshake that has failed, once, as soon as it has.
    pub(super) fn note_handshake_failure(&mut self, metrics: &WorkerMetrics) {
        if let Some(failure) = self.handshake_failure() {
            self.handshake_deadline = None;
            self.failed = true;
            metrics.handshakes_failed.inc(failure);
        }
    }

    /// Whether the handshake has failed of a client that can receive where it says it is: true once.
    pub(super) fn take_failure(&mut self) -> bool {
        std::mem::take(&mut self.failed) && self.credit.is_validated()
    }

    /// Whether we have closed the connection because its client broke a rule of QUIC; those of HTTP/3 are the session's.
    pub(super) fn has_violated(&self) -> bool {
        let rule =
            |error: &quiche::ConnectionError| !error.is_app && error.error_code > INTERNAL_ERROR;
        self.transport.is_established() && self.transport.local_error().is_some_and(rule)
    }

    /// Why the handshake failed; `None` when it has not, or when that was counted.
    fn handshake_failure(&self) -> Option<HandshakeFailure> {
        self.handshake_deadline?;
        if self.transport.is_established() {
            return None;
        }
        if let Some(error) = self.transport.local_error() {
            // RFC 9001 §4.8: 0x100 + TLS alert; no_application_protocol is alert 120.
            return Some(match error.error_code {
                0x178 => HandshakeFailure::Alpn,
                0x100..=0x1ff if !error.is_app => HandshakeFailure::Tls,
                _ => HandshakeFailure::Transport,
            });
        }
        if self.transport.peer_error().is_some() {
            return Some(HandshakeFailure::PeerClosed);
        }
        self.transport.is_closed().then_some(HandshakeFailure::Timeout)
    }
}

impl<S> std::fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("listener", &self.listener)
            .field("client", &self.client())
            .field("established", &self.transport.is_established())
            .finish_non_exhaustive()
    }
}
