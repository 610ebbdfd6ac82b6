//! One connection: quiche's transport and HTTP/3 over one socket, with its requests in flight. Knows nothing of the others.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use quiche::h3::{self, NameValue};

use crate::account::{Failure, Tally};
use crate::options::Options;
use crate::socket::{Arena, Socket};

/// What we send in one datagram at most.
const DATAGRAM_SIZE: usize = 1350;
/// A first datagram shorter than this goes alone: the rest would be cut to its size.
const TRAIN_SEGMENT: usize = 1000;
/// A train is this long at most; the kernel takes 64 KiB in one call, headers included.
const TRAIN_SIZE: usize = 64_000;
/// Octets of a body handed to quiche at a time.
const BODY_PIECE: usize = 64 << 10;
/// Windows that never hold a download up.
const STREAM_WINDOW: u64 = 16 << 20;
const CONNECTION_WINDOW: u64 = 64 << 20;

/// RFC 9114 §8.1 H3_REQUEST_REJECTED: not processed, may be sent again.
const REQUEST_REJECTED: u64 = 0x10b;

/// What all connections of a run have in common.
pub(crate) struct Plan {
    transport: quiche::Config,
    http: h3::Config,
    head: Vec<h3::Header>,
    body: u64,
    expect: Option<u64>,
    host: String,
    /// Connections made so far: their IDs.
    made: u64,
}

/// Buffers of the one thread.
pub(crate) struct Buffers {
    pub(crate) arena: Arena,
    train: Vec<u8>,
    body: Vec<u8>,
}

/// One connection.
pub(crate) struct Client {
    pub(crate) socket: Socket,
    transport: quiche::Connection,
    http: Option<h3::Connection>,
    requests: HashMap<u64, Request>,
    pub(crate) begun: Instant,
    /// The server sent GOAWAY: what it took ends, nothing more begins.
    leaving: bool,
    rejected: u64,
    /// When [`Client::expire`] is due.
    pub(crate) deadline: Option<Instant>,
}

struct Request {
    begun: Instant,
    status_ok: bool,
    declared: Option<u64>,
    received: u64,
    unsent: u64,
}

// === impl Plan ===

impl Plan {
    /// # Errors
    /// When quiche refuses a setting.
    pub(crate) fn new(options: &Options) -> quiche::Result<Self> {
        let mut transport = quiche::Config::new(quiche::PROTOCOL_VERSION)?;
        transport.verify_peer(false);
        transport.set_application_protos(h3::APPLICATION_PROTOCOL)?;
        transport.set_max_idle_timeout(30_000);
        transport.set_max_send_udp_payload_size(DATAGRAM_SIZE);
        transport.set_initial_max_data(CONNECTION_WINDOW);
        transport.set_max_connection_window(CONNECTION_WINDOW);
        transport.set_initial_max_stream_data_bidi_local(STREAM_WINDOW);
        transport.set_max_stream_window(STREAM_WINDOW);
        transport.set_initial_max_stream_data_uni(1 << 20);
        transport.set_initial_max_streams_uni(16);
        transport.enable_pacing(false);
        let method = if options.body.is_some() { "POST" } else { "GET" };
        let port = options.target.port();
        let mut head = vec![
            h3::Header::new(b":method", method.as_bytes()),
            h3::Header::new(b":scheme", b"https"),
            h3::Header::new(b":authority", format!("{}:{port}", options.host).as_bytes()),
            h3::Header::new(b":path", options.path.as_bytes()),
            h3::Header::new(b"user-agent", b"spooky-load"),
        ];
        if let Some(length) = options.body {
            head.push(h3::Header::new(b"content-length", length.to_string().as_bytes()));
        }
        Ok(Self {
            transport,
            http: h3::Config::new().map_err(|_cause| quiche::Error::InvalidState)?,
            head,
            body: options.body.unwrap_or(0),
            expect: options.expect,
            host: options.host.clone(),
            made: 0,
        })
    }
}

impl Buffers {
    pub(crate) fn new() -> Self {
        let body = (0..BODY_PIECE).map(|place| (place % 251) as u8).collect();
        Self { arena: Arena::new(), train: vec![0; TRAIN_SIZE], body }
    }
}

// === impl Client ===

impl Client {
    /// Begins a connection; its first flight goes with [`Client::flush`].
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub(crate) fn connect(
        target: std::net::SocketAddr,
        plan: &mut Plan,
        now: Instant,
    ) -> io::Result<Self> {
        let socket = Socket::connect(target)?;
        plan.made += 1;
        // Differs between connections and runs; nothing here has to be unpredictable.
        let mut id = [0; 16];
        id[..8].copy_from_slice(&plan.made.to_be_bytes());
        id[8..].copy_from_slice(&fastrand::u64(..).to_be_bytes());
        let id = quiche::ConnectionId::from_ref(&id);
        let transport =
            quiche::connect(Some(&plan.host), &id, socket.local, target, &mut plan.transport)
                .map_err(io::Error::other)?;
        Ok(Self {
            socket,
            transport,
            http: None,
            requests: HashMap::new(),
            begun: now,
            leaving: false,
            rejected: 0,
            deadline: None,
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
        let info = quiche::RecvInfo { from: self.socket.peer, to: self.socket.local };
        for datagram in buffers.arena.datagrams() {
            let _ = self.transport.recv(datagram, info);
        }
        Ok(())
    }

    /// HTTP/3 begins once the handshake allows it; then answers are read and bodies sent on.
    pub(crate) fn progress(&mut self, plan: &Plan, buffers: &mut Buffers, tally: &mut Tally) {
        if self.http.is_none() && self.transport.is_established() {
            self.http = h3::Connection::with_transport(&mut self.transport, &plan.http).ok();
        }
        self.read(plan, buffers, tally);
        if plan.body > 0 {
            self.send_bodies(buffers);
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
                self.rejected += self.requests.extract_if(|id, _| *id >= stream).count() as u64;
            }
            let Some(request) = self.requests.get_mut(&stream) else { continue };
            match event {
                h3::Event::Headers { list, .. } => request.head(&list),
                h3::Event::Data => {
                    while let Ok(size) =
                        http.recv_body(&mut self.transport, stream, &mut buffers.train)
                    {
                        request.received += size as u64;
                    }
                }
                h3::Event::Finished => {
                    match request.verdict(plan) {
                        Ok(()) => tally.good(request.begun.elapsed()),
                        Err(failure) => tally.failed(failure, 1),
                    }
                    self.requests.remove(&stream);
                }
                h3::Event::Reset(REQUEST_REJECTED) => {
                    self.rejected += 1;
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

    fn send_bodies(&mut self, buffers: &Buffers) {
        let Some(http) = &mut self.http else { return };
        for (stream, request) in &mut self.requests {
            while request.unsent > 0 {
                let size = request.unsent.min(buffers.body.len() as u64);
                let piece = &buffers.body[..size as usize];
                let last = size == request.unsent;
                match http.send_body(&mut self.transport, *stream, piece, last) {
                    Ok(taken) => request.unsent -= taken as u64,
                    Err(_) => break,
                }
            }
        }
    }

    /// Begins a request; `false` when the connection cannot take it now. Its latency counts from `begun`.
    pub(crate) fn request(&mut self, plan: &Plan, buffers: &Buffers, begun: Instant) -> bool {
        let Some(http) = self.http.as_mut().filter(|_| !self.leaving) else { return false };
        match http.send_request(&mut self.transport, &plan.head, plan.body == 0) {
            Ok(stream) => {
                let unsent = plan.body;
                let request =
                    Request { begun, status_ok: false, declared: None, received: 0, unsent };
                self.requests.insert(stream, request);
                if unsent > 0 {
                    self.send_bodies(buffers);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Sends what is to be sent, in trains of one datagram size.
    ///
    /// # Errors
    /// What the socket said.
    pub(crate) fn flush(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        let mut more = true;
        while more {
            let (mut filled, mut segment) = (0, DATAGRAM_SIZE);
            for _ in 0..self.socket.max_segments() {
                let Some(space) = buffers.train.get_mut(filled..filled + segment) else { break };
                let Ok((size, _)) = self.transport.send(space) else {
                    more = false;
                    break;
                };
                if filled == 0 && size >= TRAIN_SEGMENT {
                    segment = size;
                }
                filled += size;
                // A datagram shorter than the others can only be the last of its train.
                if size < segment {
                    break;
                }
            }
            if filled > 0 {
                self.socket.send(&buffers.train[..filled], segment)?;
            }
        }
        self.deadline = self.transport.timeout_instant();
        Ok(())
    }

    /// The deadline has come.
    pub(crate) fn expire(&mut self) {
        self.transport.on_timeout();
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

    /// Requests that the server did not process and that may be sent again, since the last call.
    pub(crate) fn take_rejected(&mut self) -> u64 {
        std::mem::take(&mut self.rejected)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.http.is_some()
    }

    /// Told to go, and nothing is left to wait for.
    pub(crate) fn has_left(&self) -> bool {
        self.leaving && self.requests.is_empty()
    }

    /// Ended by either side, or about to be.
    pub(crate) fn is_over(&self) -> bool {
        self.transport.is_closed() || self.transport.is_draining()
    }

    /// Why it ended, for a message.
    pub(crate) fn reason(&self) -> String {
        match (self.transport.peer_error(), self.transport.local_error()) {
            (Some(error), _) => format!("closed by the peer: {error:?}"),
            (None, Some(error)) => format!("closed by us: {error:?}"),
            (None, None) if self.transport.is_timed_out() => "timed out".into(),
            (None, None) => "ended".into(),
        }
    }

    /// Packets that we sent and that did not arrive.
    pub(crate) fn lost(&self) -> u64 {
        self.transport.stats().lost as u64
    }

    /// How long the connection has been there.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }
}

// === impl Request ===

impl Request {
    fn head(&mut self, list: &[h3::Header]) {
        let field = |name: &[u8]| list.iter().find(|it| it.name() == name).map(NameValue::value);
        self.status_ok |= field(b":status") == Some(b"200");
        let length = field(b"content-length").and_then(|it| std::str::from_utf8(it).ok());
        self.declared = length.and_then(|it| it.parse().ok()).or(self.declared);
    }

    fn verdict(&self, plan: &Plan) -> Result<(), Failure> {
        let wrong = |length: Option<u64>| length.is_some_and(|it| it != self.received);
        if !self.status_ok {
            Err(Failure::Status)
        } else if wrong(self.declared) || wrong(plan.expect) {
            Err(Failure::Length)
        } else if self.unsent > 0 {
            Err(Failure::Upload)
        } else {
            Ok(())
        }
    }
}
