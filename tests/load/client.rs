//! One connection: quiche's transport and HTTP/3 over one socket, with its requests in flight. Knows nothing of the others.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use quiche::h3;
use spooky_tests::socket::{Arena, Socket};
use spooky_tests::train::Builder;

use crate::account::{Failure, Tally};
use crate::plan::Plan;
use crate::request::Request;

/// A handshake that takes longer has failed.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
/// Octets of a body handed to quiche at a time, and read at a time.
const BODY_PIECE: usize = 64 << 10;
/// RFC 9114 §8.1 H3_REQUEST_REJECTED: not processed, may be sent again.
const REQUEST_REJECTED: u64 = 0x10b;
/// `ssl_early_data_accepted` of BoringSSL's `ssl_early_data_reason_t`.
const EARLY_DATA_ACCEPTED: u32 = 2;

/// Buffers of the one thread, and what went through them.
pub(crate) struct Buffers {
    arena: Arena,
    builder: Builder,
    scratch: Vec<u8>,
    body: Vec<u8>,
    /// UDP payload received and sent.
    pub(crate) traffic: Traffic,
}

/// Octets of UDP payload, and in how many datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) datagrams_received: u64,
    pub(crate) datagrams_sent: u64,
}

/// One connection.
pub(crate) struct Client {
    pub(crate) socket: Socket,
    transport: quiche::Connection,
    http: Option<h3::Connection>,
    requests: HashMap<u64, Request>,
    pub(crate) begun: Instant,
    /// It was given a ticket, so it has to resume.
    must_resume: bool,
    /// The server sent GOAWAY: what it took ends, nothing more begins.
    leaving: bool,
    /// Requests that the server did not process and that may be sent again, by the time their latency counts from.
    pub(crate) rejected: Vec<Instant>,
    /// When a PING is due that keeps the connection from timing out, and how often.
    keep_alive: Option<(Instant, Duration)>,
}

// === impl Buffers ===

impl Buffers {
    pub(crate) fn new() -> Self {
        Self {
            arena: Arena::new(),
            builder: Builder::new(),
            scratch: vec![0; BODY_PIECE],
            body: (0..BODY_PIECE).map(|place| (place % 251) as u8).collect(),
            traffic: Traffic::default(),
        }
    }
}

// === impl Client ===

impl Client {
    /// Begins a connection; its first flight goes with [`Client::flush`].
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub(crate) fn connect(plan: &mut Plan, now: Instant) -> io::Result<Self> {
        let socket = Socket::connect(plan.target, plan.source)?;
        plan.made += 1;
        // Differs between connections and runs; nothing here has to be unpredictable.
        let mut id = [0; 16];
        id[..8].copy_from_slice(&plan.made.to_be_bytes());
        id[8..].copy_from_slice(&fastrand::u64(..).to_be_bytes());
        let id = quiche::ConnectionId::from_ref(&id);
        let (host, local) = (Some(plan.host.as_str()), socket.local());
        let mut transport = quiche::connect(host, &id, local, plan.target, &mut plan.transport)
            .map_err(io::Error::other)?;
        let ticket = if plan.resume { plan.tickets.take() } else { None };
        if let Some(ticket) = &ticket {
            transport.set_session(ticket).map_err(io::Error::other)?;
        }
        Ok(Self {
            socket,
            transport,
            http: None,
            requests: HashMap::new(),
            begun: now,
            must_resume: ticket.is_some(),
            leaving: false,
            rejected: Vec::new(),
            keep_alive: None,
        })
    }

    /// Takes what one receive call gives.
    ///
    /// # Errors
    /// What the socket said. What QUIC says of a datagram ends up in the connection's state.
    pub(crate) fn receive(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        if !self.socket.receive(&mut buffers.arena)? {
            return Ok(());
        }
        for (from, datagram) in buffers.arena.datagrams() {
            buffers.traffic.received += datagram.len() as u64;
            buffers.traffic.datagrams_received += 1;
            let info = quiche::RecvInfo { from, to: self.socket.local() };
            let _ = self.transport.recv(datagram, info);
        }
        Ok(())
    }

    /// HTTP/3 begins once the handshake allows it; then answers are read and bodies sent on.
    pub(crate) fn progress(&mut self, plan: &Plan, buffers: &mut Buffers, tally: &mut Tally) {
        let may_begin = self.transport.is_established() || self.transport.is_in_early_data();
        if self.http.is_none() && may_begin {
            self.http = h3::Connection::with_transport(&mut self.transport, &plan.http).ok();
        }
        self.read(plan, buffers, tally);
        if plan.body > 0 {
            self.send_bodies(buffers, tally);
        }
    }

    fn read(&mut self, plan: &Plan, buffers: &mut Buffers, tally: &mut Tally) {
        let Some(http) = &mut self.http else { return };
        loop {
            let (stream, event) = match http.poll(&mut self.transport) {
                Ok(it) => it,
                Err(h3::Error::Done) => return,
                Err(_) => {
                    let _ = self.transport.close(true, 0x102, b"");
                    return;
                }
            };
            if event == h3::Event::GoAway {
                // RFC 9114 §5.2: from this ID on nothing was processed, and all of it may be sent again.
                self.leaving = true;
                let unprocessed = self.requests.extract_if(|id, _| *id >= stream);
                self.rejected.extend(unprocessed.map(|(_, request)| request.begun));
            }
            let Some(request) = self.requests.get_mut(&stream) else { continue };
            match event {
                h3::Event::Headers { list, .. } => request.head(&list, &plan.expected),
                h3::Event::Data => {
                    let scratch = &mut buffers.scratch;
                    while let Ok(size) = http.recv_body(&mut self.transport, stream, scratch) {
                        request.body(scratch.get(..size).unwrap_or_default());
                        tally.moved += size as u64;
                    }
                }
                h3::Event::Finished => {
                    let verdict = request.verdict(&plan.expected);
                    match verdict.and_then(|()| resumed(&self.transport, self.must_resume, tally)) {
                        Ok(()) => tally.good(request.begun.elapsed()),
                        Err(failure) => tally.failed(failure, 1),
                    }
                    self.requests.remove(&stream);
                }
                h3::Event::Reset(REQUEST_REJECTED) => {
                    self.rejected.push(request.begun);
                    self.requests.remove(&stream);
                }
                h3::Event::Reset(_) => {
                    tally.failed(Failure::Reset, 1);
                    self.requests.remove(&stream);
                }
                h3::Event::PriorityUpdate | h3::Event::GoAway => {}
            }
        }
    }

    fn send_bodies(&mut self, buffers: &Buffers, tally: &mut Tally) {
        let Some(http) = &mut self.http else { return };
        for (stream, request) in &mut self.requests {
            while request.unsent > 0 {
                let size = request.unsent.min(buffers.body.len() as u64);
                let piece = buffers.body.get(..size as usize).unwrap_or_default();
                let last = size == request.unsent;
                match http.send_body(&mut self.transport, *stream, piece, last) {
                    Ok(taken) => {
                        request.unsent -= taken as u64;
                        tally.moved += taken as u64;
                    }
                    Err(_) => break,
                }
            }
        }
    }

    /// Begins a request; `false` when the connection cannot take it now. Its latency counts from `begun`.
    pub(crate) fn request(
        &mut self,
        plan: &Plan,
        buffers: &Buffers,
        begun: Instant,
        tally: &mut Tally,
    ) -> bool {
        let Some(http) = self.http.as_mut().filter(|_| !self.leaving) else { return false };
        match http.send_request(&mut self.transport, &plan.head, plan.body == 0) {
            Ok(stream) => {
                self.requests.insert(stream, Request::new(begun, plan));
                if plan.body > 0 {
                    self.send_bodies(buffers, tally);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Sends what is to be sent.
    ///
    /// # Errors
    /// What the socket said.
    pub(crate) fn flush(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        let sent = buffers.builder.transmit(&mut self.transport, &self.socket, u64::MAX)?;
        buffers.traffic.sent += sent.octets;
        buffers.traffic.datagrams_sent += sent.datagrams;
        Ok(())
    }

    /// When [`Client::expire`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let handshake = (!self.is_established()).then(|| self.begun + HANDSHAKE);
        let keep_alive = self.keep_alive.map(|(due, _)| due);
        [self.transport.timeout_instant(), handshake, keep_alive].into_iter().flatten().min()
    }

    /// A deadline has come, or none yet.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.transport.timeout_instant().is_some_and(|due| due <= now) {
            self.transport.on_timeout();
        }
        if !self.is_established() && now.saturating_duration_since(self.begun) >= HANDSHAKE {
            let _ = self.transport.close(false, 0, b"");
        }
        if let Some((due, period)) = self.keep_alive.filter(|(due, _)| *due <= now) {
            let _ = self.transport.send_ack_eliciting();
            self.keep_alive = Some((due.max(now) + period, period));
        }
    }

    /// From now on nothing happens here: a PING goes often enough that neither side gives the connection up.
    pub(crate) fn keep_alive(&mut self, now: Instant) {
        let theirs = self.transport.peer_transport_params().map_or(0, |it| it.max_idle_timeout);
        if theirs > 0 {
            let period = Duration::from_millis(theirs) * 2 / 3;
            self.keep_alive = Some((now + period, period));
        }
    }

    /// Ends the connection as a client does that has what it wanted (RFC 9114 §8.1 H3_NO_ERROR).
    pub(crate) fn close(&mut self) {
        let _ = self.transport.close(true, 0x100, b"");
    }

    /// Its requests are lost with it.
    pub(crate) fn abandon(&mut self, tally: &mut Tally) {
        tally.failed(Failure::Connection, self.requests.len() as u64);
        self.requests.clear();
    }

    /// The session ticket the server gave, the last if it gave several.
    pub(crate) fn ticket(&self) -> Option<&[u8]> {
        self.transport.session()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn is_established(&self) -> bool {
        self.transport.is_established()
    }

    /// Requests can begin.
    pub(crate) fn is_ready(&self) -> bool {
        self.http.is_some() && !self.leaving
    }

    /// Told to go, and nothing is left to wait for.
    pub(crate) fn has_left(&self) -> bool {
        self.leaving && self.requests.is_empty()
    }

    /// Ended by either side, or about to be.
    pub(crate) fn is_over(&self) -> bool {
        self.transport.is_closed()
            || self.transport.is_draining()
            || self.transport.local_error().is_some()
    }

    /// Why it ended, for a message.
    pub(crate) fn reason(&self) -> String {
        match (self.transport.peer_error(), self.transport.local_error()) {
            (Some(error), _) => format!("closed by the peer: {error:?}"),
            (None, Some(_)) if !self.is_established() => {
                format!("given up after {} s", HANDSHAKE.as_secs())
            }
            (None, Some(error)) => format!("closed by us: {error:?}"),
            (None, None) if self.transport.is_timed_out() => "timed out".into(),
            (None, None) => "ended".into(),
        }
    }

    /// Packets that we sent and that did not arrive.
    pub(crate) fn lost(&self) -> u64 {
        self.transport.stats().lost as u64
    }
}

/// Whether the connection resumed if it had to; counted here, with 0-RTT.
fn resumed(transport: &quiche::Connection, must: bool, tally: &mut Tally) -> Result<(), Failure> {
    if must && !transport.is_resumed() {
        return Err(Failure::NotResumed);
    }
    tally.resumed += u64::from(transport.is_resumed());
    tally.early_accepted += u64::from(transport.early_data_reason() == EARLY_DATA_ACCEPTED);
    Ok(())
}
