//! One thread of the floor: a socket, its connections, and the loop that serves them. Sends only what `site` says.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use quiche::{ConnectionId, h3};
use rustix::event::PollFlags;
use spooky_tests::socket::{Arena, Socket};
use spooky_tests::timers::Timers;
use spooky_tests::train::Builder;
use spooky_user::dataplane::quic::settings::{Congestion, QuicSettings};

use crate::site::{Answer, Buffers, Site};

/// As long as spooky's.
const ID_LEN: usize = 20;
/// Receive calls before connections are served.
const RECEIVES: usize = 8;
/// Octets one connection may send before the others have their turn, as in spooky.
const TURN_OCTETS: u64 = 512 << 10;
/// The loop turns at least so often.
const IDLE: Duration = Duration::from_secs(1);
/// Octets of request bodies read at a time.
const SCRATCH: usize = 64 << 10;

/// What TLS needs.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) cert: String,
    pub(crate) key: String,
    /// The same in all threads, so that a client resumes at any.
    pub(crate) ticket_key: [u8; 48],
    pub(crate) early_data: bool,
}

/// One thread's work.
pub(crate) struct Server {
    socket: Socket,
    config: quiche::Config,
    http: h3::Config,
    peers: Vec<Option<Box<Peer>>>,
    free: Vec<usize>,
    ids: HashMap<ConnectionId<'static>, usize>,
    timers: Timers,
    /// Connections to serve in this turn.
    touched: Vec<usize>,
    builder: Builder,
    site: Site,
    scratch: Vec<u8>,
}

struct Peer {
    transport: quiche::Connection<Buffers>,
    http: Option<h3::Connection>,
    /// Of streams that are not done.
    answers: HashMap<u64, Unsent>,
    ids: [ConnectionId<'static>; 2],
    touched: bool,
}

struct Unsent {
    answer: Answer,
    head_sent: bool,
    offset: u64,
}

// === impl Server ===

impl Server {
    /// # Errors
    /// When certificate or key cannot be used.
    pub(crate) fn new(socket: Socket, tls: &Tls) -> Result<Self, String> {
        let config = config(tls).map_err(|error| {
            format!("quiche does not take {} with {}: {error}", tls.cert, tls.key)
        })?;
        Ok(Self {
            socket,
            config,
            http: h3::Config::new().map_err(|error| format!("quiche: {error}"))?,
            peers: Vec::new(),
            free: Vec::new(),
            ids: HashMap::new(),
            timers: Timers::default(),
            touched: Vec::new(),
            builder: Builder::new(),
            site: Site::new(),
            scratch: vec![0; SCRATCH],
        })
    }

    /// Serves without end.
    ///
    /// # Errors
    /// When the socket breaks.
    pub(crate) fn serve(mut self) -> Result<(), String> {
        let mut arena = Arena::new();
        loop {
            let turn = self.turn(&mut arena);
            turn.map_err(|error| format!("{}: {error}", self.socket.local()))?;
        }
    }

    fn turn(&mut self, arena: &mut Arena) -> std::io::Result<()> {
        let mut empty = false;
        for _ in 0..RECEIVES {
            empty = !self.socket.receive(arena)?;
            if empty {
                break;
            }
            for (from, datagram) in arena.datagrams() {
                self.route(from, datagram);
            }
        }
        let now = Instant::now();
        while let Some(slot) = self.timers.pop(now) {
            self.expire(slot, now);
        }
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            self.attend(slot)?;
        }
        // The memory is kept; what has more to send comes in the next turn.
        touched.append(&mut self.touched);
        self.touched = touched;
        if empty && self.touched.is_empty() {
            let next = self.timers.next().map_or(IDLE, |due| due.saturating_duration_since(now));
            self.socket.wait(PollFlags::IN, next.min(IDLE))?;
        }
        Ok(())
    }

    /// Gives a datagram to its connection, which may be a new one.
    fn route(&mut self, from: std::net::SocketAddr, datagram: &mut [u8]) {
        let known = match datagram {
            // RFC 9000 §17.3: a short header has the ID right after its first octet.
            [first, id @ ..] if *first & 0x80 == 0 => {
                id.get(..ID_LEN).and_then(|id| self.ids.get(&ConnectionId::from_ref(id)).copied())
            }
            _ => match quiche::Header::from_slice(datagram, ID_LEN) {
                Ok(header) => match self.ids.get(&header.dcid) {
                    Some(slot) => Some(*slot),
                    None => self.accept(&header, from),
                },
                Err(_) => None,
            },
        };
        let Some(slot) = known else { return };
        let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { return };
        let info = quiche::RecvInfo { from, to: self.socket.local() };
        // What QUIC finds wrong ends up in the connection's state.
        let _ = peer.transport.recv(datagram, info);
        if !std::mem::replace(&mut peer.touched, true) {
            self.touched.push(slot);
        }
    }

    /// A connection for a first Initial packet of a client's.
    fn accept(&mut self, header: &quiche::Header<'_>, from: std::net::SocketAddr) -> Option<usize> {
        let version = quiche::version_is_supported(header.version);
        if header.ty != quiche::Type::Initial || !version || header.dcid.len() < 8 {
            return None;
        }
        let id = ConnectionId::from_vec((0..ID_LEN).map(|_| fastrand::u8(..)).collect());
        let local = self.socket.local();
        let transport =
            quiche::accept_with_buf_factory(&id, None, local, from, &mut self.config).ok()?;
        let original = header.dcid.clone().into_owned();
        let slot = self.free.pop().unwrap_or(self.peers.len());
        if slot == self.peers.len() {
            self.peers.push(None);
        }
        self.ids.insert(id.clone(), slot);
        self.ids.insert(original.clone(), slot);
        let ids = [id, original];
        let peer = Peer { transport, http: None, answers: HashMap::new(), ids, touched: false };
        *self.peers.get_mut(slot)? = Some(Box::new(peer));
        Some(slot)
    }

    fn expire(&mut self, slot: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { return };
        let due = peer.transport.timeout_instant();
        if due.is_some_and(|due| due <= now) {
            peer.transport.on_timeout();
            if !std::mem::replace(&mut peer.touched, true) {
                self.touched.push(slot);
            }
        } else {
            self.timers.set(slot, due);
        }
    }

    /// Answers what is asked, sends what may be sent.
    fn attend(&mut self, slot: usize) -> std::io::Result<()> {
        let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        peer.touched = false;
        peer.progress(&self.http, &mut self.site, &mut self.scratch);
        match self.builder.transmit(&mut peer.transport, &self.socket, TURN_OCTETS) {
            Ok(sent) if sent.more => {
                peer.touched = true;
                self.touched.push(slot);
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => return Err(error),
            // A client that is gone: its connection times out.
            Err(_) => {}
        }
        if peer.transport.is_closed() {
            for id in &peer.ids {
                self.ids.remove(id);
            }
            self.timers.set(slot, None);
            self.peers[slot] = None;
            self.free.push(slot);
        } else {
            self.timers.set(slot, peer.transport.timeout_instant());
        }
        Ok(())
    }
}

// === impl Peer ===

impl Peer {
    fn progress(&mut self, config: &h3::Config, site: &mut Site, scratch: &mut [u8]) {
        let may_begin = self.transport.is_established() || self.transport.is_in_early_data();
        if self.http.is_none() && may_begin {
            self.http = h3::Connection::with_transport(&mut self.transport, config).ok();
        }
        let Some(http) = &mut self.http else { return };
        // An answer that waited for capacity goes before new ones.
        self.answers.retain(|stream, unsent| {
            unsent.answer.after_body || !unsent.send(*stream, http, &mut self.transport, site)
        });
        while let Ok((stream, event)) = http.poll(&mut self.transport) {
            let ready = match event {
                h3::Event::Headers { list, more_frames } => {
                    let answer = Answer::to(&list);
                    let unsent = Unsent { answer, head_sent: false, offset: 0 };
                    if answer.after_body && more_frames {
                        self.answers.insert(stream, unsent);
                        continue;
                    }
                    Some(unsent)
                }
                h3::Event::Data => {
                    while http.recv_body(&mut self.transport, stream, scratch).is_ok() {}
                    None
                }
                h3::Event::Finished => {
                    let waits = self.answers.get(&stream).is_some_and(|it| it.answer.after_body);
                    waits.then(|| self.answers.remove(&stream)).flatten()
                }
                h3::Event::Reset(_) => {
                    self.answers.remove(&stream);
                    None
                }
                h3::Event::PriorityUpdate | h3::Event::GoAway => None,
            };
            let Some(mut unsent) = ready else { continue };
            unsent.answer.after_body = false;
            if !unsent.send(stream, http, &mut self.transport, site) {
                self.answers.insert(stream, unsent);
            }
        }
    }
}

// === impl Unsent ===

impl Unsent {
    /// Gives quiche what it takes; `true` when nothing is left to do.
    fn send(
        &mut self,
        stream: u64,
        http: &mut h3::Connection,
        transport: &mut quiche::Connection<Buffers>,
        site: &mut Site,
    ) -> bool {
        let Answer { length, .. } = self.answer;
        if !self.head_sent {
            match http.send_response(transport, stream, site.head(self.answer), length == 0) {
                Ok(()) => self.head_sent = true,
                Err(h3::Error::StreamBlocked | h3::Error::Done) => return false,
                Err(_) => return true,
            }
        }
        while self.offset < length {
            let mut piece = site.piece(self.offset, length);
            let last = self.offset + piece.as_ref().len() as u64 == length;
            match http.send_body_zc(transport, stream, &mut piece, last) {
                Ok(taken) => self.offset += taken as u64,
                Err(h3::Error::Done) => return false,
                // The client wants no more of it, or the connection is ending.
                Err(_) => return true,
            }
        }
        true
    }
}

/// quiche's configuration with the settings that spooky has without a configuration file.
fn config(tls: &Tls) -> quiche::Result<quiche::Config> {
    let settings = QuicSettings::default();
    let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION)?;
    config.load_cert_chain_from_pem_file(&tls.cert)?;
    config.load_priv_key_from_pem_file(&tls.key)?;
    config.set_ticket_key(&tls.ticket_key)?;
    if tls.early_data {
        config.enable_early_data();
    }
    config.set_application_protos(h3::APPLICATION_PROTOCOL)?;
    config.set_max_idle_timeout(settings.idle_timeout.as_millis() as u64);
    config.set_max_recv_udp_payload_size(1500);
    config.set_max_send_udp_payload_size(settings.max_udp_payload);
    config.set_initial_max_data(settings.connection_window.initial);
    config.set_max_connection_window(settings.connection_window.max);
    config.set_initial_max_stream_data_bidi_remote(settings.stream_window.initial);
    config.set_max_stream_window(settings.stream_window.max);
    config.set_initial_max_stream_data_uni(16 << 10);
    config.set_initial_max_streams_bidi(settings.max_streams);
    config.set_initial_max_streams_uni(16);
    config.set_active_connection_id_limit(settings.active_connection_id_limit);
    config.set_cc_algorithm(match settings.congestion {
        Congestion::Cubic => quiche::CongestionControlAlgorithm::CUBIC,
        Congestion::Reno => quiche::CongestionControlAlgorithm::Reno,
        Congestion::Bbr2 => quiche::CongestionControlAlgorithm::Bbr2Gcongestion,
    });
    config.enable_pacing(false);
    Ok(config)
}
