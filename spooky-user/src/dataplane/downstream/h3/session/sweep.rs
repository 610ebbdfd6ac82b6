//! What a session looks at from time to time: requests that do not go on, responses that are not taken, and what one connection
//! may do before it is closed. One look at all streams each half second instead of timers for each.

use std::time::{Duration, Instant};

use super::Session;
use crate::dataplane::abuse::Event as Harm;
use crate::dataplane::downstream::h3::code;
use crate::dataplane::downstream::h3::intake::Received;
use crate::dataplane::downstream::h3::resets::EARLY;
use crate::dataplane::exchange::error::Kind;
use crate::dataplane::quic::buffers::Transport;
use crate::telemetry::reason::LimitReason;

/// How often; so late a time-out may come.
const INTERVAL: Duration = Duration::from_millis(500);
/// Readable octets of one stream that are reckoned with: more than a stream's window is never there.
const READABLE_MAX: usize = 16 << 20;

impl Session {
    /// When it wants to be looked at, if anything can time out.
    #[must_use]
    pub fn next_sweep(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Looks at all streams if it is time.
    pub(super) fn sweep(&mut self, transport: &mut Transport, now: Instant) {
        if self.sweep_at.is_none_or(|due| due > now) {
            return;
        }
        self.end_unheard(transport, now);
        self.end_stalled(transport, now);
        if self.intake.is_over(self.unreadable.is_scarce(), now) {
            self.shut(transport, LimitReason::Unreadable);
        }
        let short =
            self.intake.is_much() || (self.intake.is_short() && self.unreadable.is_scarce());
        let idle = self.streams.is_empty() && self.unheard.is_empty() && !short;
        self.sweep_at = (!self.shut && !idle).then(|| now + INTERVAL);
    }

    /// Something came, so something may stand still.
    pub(super) fn arm_sweep(&mut self, now: Instant) {
        if self.sweep_at.is_none() && !self.shut {
            self.sweep_at = Some(now + INTERVAL);
        }
    }

    /// Answers requests whose field section takes too long.
    fn end_unheard(&mut self, transport: &mut Transport, now: Instant) {
        if self.unheard.is_empty() {
            return;
        }
        let patience = self.shared.header_timeout;
        let due = |since: &Instant| now.saturating_duration_since(*since) >= patience;
        let mut ids = std::mem::take(&mut self.scratch);
        ids.extend(self.unheard.iter().filter(|(_, since)| due(since)).map(|(id, _)| *id));
        for id in ids.drain(..) {
            self.unheard.remove(&id);
            self.shared.metrics.limits_reached.inc(LimitReason::RequestHeader);
            self.report(Harm::Glitch);
            self.next_stream = self.next_stream.max(id.saturating_add(4));
            self.answer(transport, id, http::StatusCode::REQUEST_TIMEOUT);
            // Who does not even take the answer does not get it.
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.reset(transport, code::REQUEST_INCOMPLETE);
                self.forget_if_over(id);
            }
        }
        self.scratch = ids;
    }

    /// Ends requests whose body does not go on, and responses that are not taken.
    fn end_stalled(&mut self, transport: &mut Transport, now: Instant) {
        let mut untaken = std::mem::take(&mut self.scratch);
        for (id, stream) in &mut self.streams {
            let (stalled, came) = stream.request_stalled(self.shared.body_enough, now);
            if stalled >= self.shared.body_timeout {
                self.shared.metrics.limits_reached.inc(match came {
                    0 => LimitReason::RequestBody,
                    _ => LimitReason::RequestBodyRate,
                });
                // The serving task knows whether there is an answer already, and gives one if not.
                stream.link().fail(Kind::RequestTimeout);
            }
            if stream.response_stalled(now) >= self.shared.drain_timeout {
                untaken.push(*id);
            }
        }
        for id in untaken.drain(..) {
            self.shared.metrics.limits_reached.inc(LimitReason::ResponseDrain);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.link().fail(Kind::ClientStalled);
                stream.reset(transport, code::REQUEST_CANCELLED);
            }
            self.forget_if_over(id);
        }
        self.scratch = untaken;
    }

    // === reckoned each turn ===

    /// Looks at what can be read, before it is: new streams whose field section may not be whole, and how much there is.
    /// Returns how many streams the client has stopped since the connection began.
    pub(super) fn look_at_arrivals(&mut self, transport: &Transport, now: Instant) -> u64 {
        let mut readable = 0;
        for id in transport.readable() {
            readable += transport.stream_readable_len(id, READABLE_MAX) as u64;
            let request = id & 0b11 == 0;
            let known = self.streams.contains_key(&id)
                || (id < self.next_stream && self.lingering.contains(&id));
            if request && !known {
                self.unheard.entry(id).or_insert(now);
            }
        }
        let stats = transport.stats();
        let stopped = stats.stopped_stream_count_local + stats.reset_stream_count_remote;
        if std::mem::replace(&mut self.given_up, stopped) != stopped {
            self.intake.stopped();
        }
        let received = Received {
            octets: stats.recv_bytes,
            packets: stats.recv as u64,
            packets_sent: stats.sent as u64,
        };
        self.intake.begin(received, readable);
        stats.stopped_stream_count_remote
    }

    /// Reckons what was left unread, and closes the connection of a client that has used up what it may reset.
    pub(super) fn judge(&mut self, transport: &mut Transport) {
        let left = transport.readable().map(|id| transport.stream_readable_len(id, READABLE_MAX));
        self.intake.end(left.map(|octets| octets as u64).sum());
        if let Some(reason) = self.resets.verdict() {
            self.shut(transport, reason);
        }
        self.unreadable.set(self.intake.missing());
        if self.unreadable.is_scarce() && self.intake.is_much() {
            // Who has the most cannot be waited for: memory is gone before its patience is.
            self.shut(transport, LimitReason::UnreadableTotal);
        }
        let most = self.shared.max_backend_connections_lost;
        if most > 0 && self.blame.is_over(most, self.now) {
            self.shut(transport, LimitReason::BackendConnectionsLost);
        }
    }

    /// Whether a further request is within what may be reset; refuses it if not.
    pub(super) fn may_open(&mut self, transport: &mut Transport, id: u64) -> bool {
        if self.resets.may_open(self.streams.len() as u64) {
            return true;
        }
        self.shared.metrics.requests_rejected.inc();
        self.shared.metrics.limits_reached.inc(LimitReason::OpenRequests);
        self.resets.count(self.now);
        self.refuse(transport, id, code::REQUEST_REJECTED);
        false
    }

    /// A stream is about to be reset, by whomever: it counts, once.
    pub(super) fn count_reset(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.set_counted() {
            self.resets.reset(stream.ends_early(EARLY, self.now), self.now);
        }
    }

    /// The client has reset a request or stopped its response.
    pub(super) fn count_peer_reset(&mut self, id: u64) {
        let (now, stream) = (self.now, self.streams.get(&id));
        if stream.is_some_and(|stream| !stream.is_counted() && stream.ends_early(EARLY, now)) {
            self.report(Harm::Reset);
        }
        self.count_reset(id);
    }

    fn shut(&mut self, transport: &mut Transport, reason: LimitReason) {
        if !self.shut {
            // Backends that end are not the client's fault for sure.
            if reason != LimitReason::BackendConnectionsLost {
                self.violated();
            }
            self.shared.metrics.limits_reached.inc(reason);
            self.end_with(transport, code::EXCESSIVE_LOAD, b"");
        }
    }
}
