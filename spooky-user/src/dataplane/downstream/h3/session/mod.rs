//! The HTTP/3 side of one connection: drives quiche's h3, owns the request streams, opens exchanges.
//!
//! Sans-IO: called with the transport after datagrams came in and after serving tasks posted streams. Never blocks, knows
//! no route and no backend. What a client may do and how long it may take is in `sweep`, the rules
//! that quiche does not look at in `strict`.

mod leave;
mod shared;
mod strict;
mod sweep;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use http::HeaderValue;
use quiche::h3::{self, Event, NameValue};

use self::leave::Leaving;
pub use self::shared::Shared;
use self::shared::Unreadable;
use super::code;
use super::intake::{Intake, Received};
use super::resets::Resets;
use super::stream::{Flushed, Stream, StreamHasher};
use crate::codec::field::{self, Answer, Malformed};
use crate::codec::forwarded;
use crate::dataplane::abuse::Event as Harm;
use crate::dataplane::exchange::blame::Blame;
use crate::dataplane::exchange::error::Kind;
use crate::dataplane::exchange::link::{Link, Outbound};
use crate::dataplane::exchange::mailbox::Mailbox;
use crate::dataplane::exchange::{Client, Exchange};
use crate::dataplane::quic::buffers::Transport;
use crate::telemetry::reason::{LimitReason, MalformedReason};

/// Streams that may linger before the list is pruned: twice what may usually be open.
const LINGERING: usize = 256;

/// The HTTP/3 state of one connection.
pub struct Session {
    http: h3::Connection,
    streams: HashMap<u64, Stream, BuildHasherDefault<StreamHasher>>,
    shared: Rc<Shared>,
    mailbox: Rc<Mailbox>,
    cid: [u8; 20],
    /// The client's validated address, from the first turn on.
    client: Option<IpAddr>,
    /// The client's address and its text for backends, from its first request on.
    forwarded_for: Option<(IpAddr, HeaderValue)>,
    /// Above every request stream seen: the ID a GOAWAY would carry.
    next_stream: u64,
    requests: u64,
    leaving: Leaving,
    /// Streams that have output QUIC did not take, oldest first.
    blocked: Vec<u64>,
    scratch: Vec<u64>,
    /// STOP_SENDING frames seen so far.
    stopped: u64,
    /// Streams that are over for HTTP and perhaps not yet acknowledged in full.
    lingering: Vec<u64>,
    /// Requests whose field section has begun and is not whole, and since when.
    unheard: HashMap<u64, Instant, BuildHasherDefault<StreamHasher>>,
    /// When to look at all streams.
    sweep_at: Option<Instant>,
    /// When this turn began.
    now: Instant,
    resets: Resets,
    /// Connections to backends that ended under its requests.
    blame: Rc<Blame>,
    intake: Intake,
    /// Its part of what nobody can read.
    unreadable: Unreadable,
    /// Streams that the client has reset or we have stopped, as counted by QUIC.
    given_up: u64,
    /// The client's settings have come and are in order.
    settings_judged: bool,
    /// The connection was closed for what the client did.
    shut: bool,
    /// That was reported.
    has_violated: bool,
}

// === impl Session ===

impl Session {
    /// Opens our control and QPACK streams on an established connection.
    ///
    /// # Errors
    ///
    /// What quiche says; the connection is of no use then.
    pub fn new(
        shared: Rc<Shared>,
        mailbox: Rc<Mailbox>,
        cid: [u8; 20],
        transport: &mut Transport,
    ) -> Result<Self, h3::Error> {
        if !strict::has_room_for_control(transport) {
            return Err(h3::Error::StreamCreationError);
        }
        let http = h3::Connection::with_transport(transport, &shared.config)?;
        let (resets, most) = (Resets::new(shared.resets), shared.max_unreadable);
        Ok(Self {
            http,
            streams: HashMap::default(),
            unreadable: Unreadable::new(Rc::clone(&shared)),
            shared,
            mailbox,
            cid,
            client: None,
            forwarded_for: None,
            next_stream: 0,
            requests: 0,
            leaving: Leaving::No,
            blocked: Vec::new(),
            scratch: Vec::new(),
            stopped: 0,
            lingering: Vec::new(),
            unheard: HashMap::default(),
            sweep_at: None,
            now: Instant::now(),
            resets,
            blame: Rc::default(),
            intake: Intake::new(most, Received::default()),
            given_up: 0,
            settings_judged: false,
            shut: false,
            has_violated: false,
        })
    }

    /// Requests that are being served.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Takes in what the transport received: new requests go to `opened`, body and ends to their tasks. `peer` is the
    /// client's validated address, IPv4 in its own form.
    pub fn receive(
        &mut self,
        transport: &mut Transport,
        peer: SocketAddr,
        now: Instant,
        opened: &mut Vec<Exchange>,
    ) {
        if self.shut {
            return;
        }
        self.now = now;
        self.client = Some(peer.ip());
        let stopped = self.look_at_arrivals(transport, now);
        while !self.shut {
            match self.http.poll(transport) {
                Ok((id, Event::Headers { list, .. })) => {
                    self.unheard.remove(&id);
                    if self.streams.contains_key(&id) {
                        self.trailers(transport, id, &list);
                    } else if let Some(exchange) = self.open(transport, id, &list, peer, now) {
                        opened.push(exchange);
                    }
                }
                Ok((id, Event::Data)) => self.readable(transport, id),
                Ok((id, Event::Finished)) => self.finished(transport, id),
                //= https://www.rfc-editor.org/rfc/rfc9114#section-8
                //# use of an error code in an unexpected context or receipt of an unknown
                //# error code MUST be treated as equivalent to H3_NO_ERROR.
                Ok((id, Event::Reset(_))) => self.reset_by_peer(transport, id),
                Ok((_, Event::PriorityUpdate | Event::GoAway)) => {}
                Err(h3::Error::Done) => break,
                // quiche has closed the connection with the right code.
                Err(_) => {
                    if transport.local_error().is_some_and(|error| error.is_app) {
                        self.violated();
                    }
                    break;
                }
            }
        }
        self.judge_settings(transport);
        if std::mem::replace(&mut self.stopped, stopped) != stopped {
            self.find_stopped(transport);
        }
        self.arm_sweep(now);
    }

    /// Sends what serving tasks have queued and reads what they have room for.
    pub fn transmit(&mut self, transport: &mut Transport) {
        if self.shut {
            return;
        }
        // Those that wait come before those that have something new, and each is first once: capacity is handed out in turn,
        // or one fast download would starve the others of its connection.
        let mut waiting = std::mem::take(&mut self.blocked);
        if !waiting.is_empty() {
            waiting.rotate_left(1);
        }
        for id in waiting.drain(..) {
            self.flush(transport, id);
        }
        // `flush` puts those that are still blocked into the (new) list; keep the old one's memory for them.
        waiting.append(&mut self.blocked);
        self.blocked = waiting;
        let mut posted = std::mem::take(&mut self.scratch);
        self.mailbox.take(&mut posted);
        for id in posted.drain(..) {
            self.serve_post(transport, id);
        }
        self.scratch = posted;
        if self.lingering.len() >= LINGERING {
            self.prune_lingering(transport);
        }
        self.send_goaway(transport);
        self.sweep(transport, self.now);
        self.judge(transport);
    }

    /// The connection is over: every task stops. What it has that cannot be read counts until it is dropped: the transport keeps
    /// that through the closing period.
    pub fn close(&mut self) {
        for (_, stream) in self.streams.drain() {
            self.shared.metrics.requests_active.dec();
            stream.link().fail(Kind::ClientGone);
        }
    }

    // === requests ===

    fn open(
        &mut self,
        transport: &mut Transport,
        id: u64,
        list: &[h3::Header],
        peer: SocketAddr,
        now: Instant,
    ) -> Option<Exchange> {
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.1
        //# Servers MUST NOT use the H3_REQUEST_REJECTED error code for requests
        //# that were partially or fully processed.
        if matches!(self.leaving, Leaving::Final { from, .. } if id >= from) {
            self.shared.metrics.requests_rejected.inc();
            self.refuse(transport, id, code::REQUEST_REJECTED);
            return None;
        }
        self.next_stream = self.next_stream.max(id.saturating_add(4));
        if !self.may_open(transport, id) {
            return None;
        }
        self.requests += 1;
        if self.requests >= self.shared.max_requests {
            if self.requests == self.shared.max_requests {
                self.shared.metrics.limits_reached.inc(LimitReason::Requests);
            }
            self.announce_leaving();
        }
        let fields = list.iter().map(|line| (line.name(), line.value()));
        let head = match field::request_head(fields, &self.shared.limits) {
            Ok(head) => head,
            Err(malformed) => {
                self.malformed(transport, id, malformed);
                return None;
            }
        };
        if self.shared.authority_must_match_sni
            && !transport.server_name().is_some_and(|name| head.authority.is_named(name))
        {
            self.shared.metrics.requests_malformed.inc(MalformedReason::Misdirected);
            self.report(Harm::ClientError);
            self.answer(transport, id, http::StatusCode::MISDIRECTED_REQUEST);
            return None;
        }
        let link = Link::new(id, Rc::clone(&self.mailbox));
        let stream = Stream::new(id, Rc::clone(&link), head.content_length, now);
        self.streams.insert(id, stream);
        self.shared.metrics.requests_active.inc();
        let client = Client {
            address: peer.ip(),
            forwarded_for: self.forwarded_for(peer.ip()),
            port: peer.port(),
            listener: self.shared.listener,
            cid: self.cid,
        };
        // quiche reports the end of a bodyless request as the next event; the stream tells for sure.
        let end_of_stream = transport.stream_finished(id);
        let blame = Rc::clone(&self.blame);
        Some(Exchange { head, link, client, blame, opened: now, end_of_stream })
    }

    fn forwarded_for(&mut self, address: IpAddr) -> HeaderValue {
        match &self.forwarded_for {
            Some((known, text)) if *known == address => text.clone(),
            _ => {
                let text = forwarded::address(address);
                self.forwarded_for = Some((address, text.clone()));
                text
            }
        }
    }

    /// A head that RFC 9114 §4.1.2 or a limit forbids: answered where an answer helps, else reset.
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.2
    //# Intermediaries that process HTTP requests or responses (i.e., any
    //# intermediary not acting as a tunnel) MUST NOT forward a malformed
    //# request or response.
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.2
    //# Malformed requests or responses that are detected MUST be treated as a
    //# stream error of type H3_MESSAGE_ERROR.
    fn malformed(&mut self, transport: &mut Transport, id: u64, malformed: Malformed) {
        self.shared.metrics.requests_malformed.inc(malformed.into());
        self.report(Harm::Glitch);
        match malformed.answer() {
            Answer::Status(status) => self.answer(transport, id, status),
            Answer::MessageError => {
                self.resets.reset(true, self.now);
                self.refuse(transport, id, code::MESSAGE_ERROR);
            }
        }
    }

    fn answer(&mut self, transport: &mut Transport, id: u64, status: http::StatusCode) {
        let link = Link::new(id, Rc::clone(&self.mailbox));
        link.send(Outbound::Head(status, http::HeaderMap::new(), true));
        self.streams.insert(id, Stream::new(id, link, None, self.now));
        self.shared.metrics.requests_active.inc();
        self.flush(transport, id);
    }

    fn refuse(&mut self, transport: &mut Transport, id: u64, error: u64) {
        self.lingering.push(id);
        // Done: already gone.
        let _ = transport.stream_shutdown(id, quiche::Shutdown::Read, error);
        let _ = transport.stream_shutdown(id, quiche::Shutdown::Write, error);
    }

    fn trailers(&mut self, transport: &mut Transport, id: u64, list: &[h3::Header]) {
        let fields = list.iter().map(|line| (line.name(), line.value()));
        match field::trailers(fields, &self.shared.limits) {
            Ok(map) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.set_trailers(map);
                }
            }
            Err(malformed) => self.fail(transport, id, malformed.into()),
        }
    }

    fn readable(&mut self, transport: &mut Transport, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            // Refused or answered already: what still comes is thrown away by quiche after its shutdown.
            return;
        };
        if stream.has_trailers() {
            self.data_after_trailers(transport);
            return;
        }
        stream.set_readable();
        if stream.read(&mut self.http, transport).is_err() {
            self.fail(transport, id, MalformedReason::ContentLength);
        }
    }

    fn finished(&mut self, transport: &mut Transport, id: u64) {
        if self.unheard.remove(&id).is_some() {
            // RFC 9114 §8.1: the stream ended without a fully formed request.
            self.report(Harm::Glitch);
            self.resets.reset(true, self.now);
            self.refuse(transport, id, code::REQUEST_INCOMPLETE);
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.end_request().is_err() {
            self.fail(transport, id, MalformedReason::ContentLength);
        } else {
            self.forget_if_over(id);
        }
    }

    fn reset_by_peer(&mut self, transport: &mut Transport, id: u64) {
        if self.unheard.remove(&id).is_some() {
            // Opened and reset before anybody saw it: nothing to free, but it counts.
            self.report(Harm::Reset);
            self.resets.reset(true, self.now);
        }
        self.count_peer_reset(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.shared.metrics.requests_cancelled.inc();
        stream.cancel(transport);
        self.forget_if_over(id);
    }

    /// The message broke the rules after its head was accepted (RFC 9114 §4.1.2).
    fn fail(&mut self, transport: &mut Transport, id: u64, reason: MalformedReason) {
        self.shared.metrics.requests_malformed.inc(reason);
        self.report(Harm::Glitch);
        self.count_reset(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.link().fail(Kind::ClientMalformed);
            stream.reset(transport, code::MESSAGE_ERROR);
        }
        self.forget_if_over(id);
    }

    /// Frees the backends of responses the client has asked to stop (STOP_SENDING). A stream that waits for its backend
    /// writes nothing, so it would not notice; quiche counts the frames, so the streams are looked at only after one.
    fn find_stopped(&mut self, transport: &mut Transport) {
        let mut ids = std::mem::take(&mut self.scratch);
        ids.extend(self.streams.keys());
        for id in ids.drain(..) {
            if !matches!(transport.stream_capacity(id), Err(quiche::Error::StreamStopped(_))) {
                continue;
            }
            self.count_peer_reset(id);
            if let Some(stream) = self.streams.get_mut(&id) {
                self.shared.metrics.requests_cancelled.inc();
                stream.stopped(transport);
                self.forget_if_over(id);
            }
        }
        self.scratch = ids;
    }

    // === responses ===

    fn serve_post(&mut self, transport: &mut Transport, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.link().seen();
        if stream.request_open() && stream.read(&mut self.http, transport).is_err() {
            self.fail(transport, id, MalformedReason::ContentLength);
            return;
        }
        self.flush(transport, id);
    }

    fn flush(&mut self, transport: &mut Transport, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.flush(&mut self.http, transport) {
            Flushed::All => stream.note_unblocked(),
            Flushed::Blocked => {
                stream.note_blocked(self.now);
                if !self.blocked.contains(&id) {
                    self.blocked.push(id);
                }
                return;
            }
            Flushed::Stopped => {
                self.shared.metrics.requests_cancelled.inc();
                stream.stopped(transport);
                self.count_peer_reset(id);
            }
        }
        self.forget_if_over(id);
    }

    /// The client has done what it should not.
    fn report(&self, event: Harm) {
        if let Some(client) = self.client {
            self.shared.reports.report(client, event);
        }
    }

    /// The connection ends because of the client: reported once.
    fn violated(&mut self) {
        if !std::mem::replace(&mut self.has_violated, true) {
            self.report(Harm::Violation);
        }
    }

    fn forget_if_over(&mut self, id: u64) {
        if self.streams.get(&id).is_some_and(Stream::is_over)
            && let Some(stream) = self.streams.remove(&id)
        {
            if !stream.is_counted() {
                self.resets.ended();
            }
            self.shared.metrics.requests_active.dec();
            self.lingering.push(id);
        }
    }

    /// Forgets those of `lingering` that quiche has forgotten: everything sent on them is acknowledged.
    fn prune_lingering(&mut self, transport: &mut Transport) {
        self.lingering.retain(|id| {
            !matches!(transport.stream_capacity(*id), Err(quiche::Error::InvalidStreamState(_)))
        });
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("streams", &self.streams.len())
            .field("leaving", &self.leaving)
            .finish_non_exhaustive()
    }
}
