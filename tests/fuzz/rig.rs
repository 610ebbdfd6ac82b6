//! A worker's QUIC side in memory: its endpoint with HTTP/3 sessions as a worker drives them, and a client that writes what it
//! likes on its streams. No socket; quiche reads the system's clock, everything else the time that is given.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use quiche::{ConnectionId, RecvInfo};
use spooky_common::cid::Owner;
use spooky_user::dataplane::downstream::h3::session::{Session, Shared};
use spooky_user::dataplane::exchange::Exchange;
use spooky_user::dataplane::exchange::mailbox::{Mailbox, Ready};
use spooky_user::dataplane::packet::{Datagram, Path};
use spooky_user::dataplane::quic::cid::{Issuer, Secrets};
use spooky_user::dataplane::quic::endpoint::{Arrival, Clock, Disposition, Endpoint, Listener};
use spooky_user::dataplane::quic::settings::{Http3Settings, QuicSettings};
use spooky_user::dataplane::quic::tls::{self, CertificateFiles, CertificateStore};
use spooky_user::dataplane::quic::transmit::{Builder, Outcome};
use spooky_user::id::{ConnectionKey, ListenerId};
use spooky_user::telemetry::metrics::WorkerMetrics;

pub(crate) const LISTENER: ListenerId = ListenerId(0);
/// Answers outside connections fit, as in a worker.
const ANSWER_SIZE: usize = 600;
/// Segments in a train.
const SEGMENTS: usize = 10;

/// Where the server is.
pub(crate) fn server() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 443))
}

/// Where clients are: one of a thousand.
pub(crate) fn client(number: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, (number % 8) as u8], 4000 + (number / 8 % 128) as u16))
}

/// One certificate for all, made once.
static CERTIFICATES: LazyLock<Arc<ArcSwap<CertificateStore>>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("the folder can be written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("the folder can be written");
    let files = [CertificateFiles { sni: Vec::new(), cert, key }];
    Arc::new(ArcSwap::from_pointee(CertificateStore::load(&files).expect("a good pair")))
});

/// A worker without its sockets.
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint<Session>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) ready: Rc<Ready>,
    pub(crate) now: Instant,
    shared: Rc<Shared>,
    builder: Builder,
}

/// A datagram of the server's, and to whom it goes.
pub(crate) type Sent = (Vec<u8>, SocketAddr);

// === impl Server ===

impl Server {
    pub(crate) fn new(
        secrets: &Secrets,
        owner: Owner,
        quic: QuicSettings,
        http3: &Http3Settings,
    ) -> Self {
        let metrics = Arc::new(WorkerMetrics::new());
        let context = tls::context(Arc::clone(&CERTIFICATES)).expect("a TLS context");
        let config = quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, context);
        let now = Instant::now();
        let clock =
            Clock { instant: now, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30) };
        let issuer = Issuer::new(secrets, owner);
        let listener =
            Listener::new(LISTENER, config.expect("a configuration"), quic, issuer, 1, clock);
        let mut endpoint = Endpoint::new(Arc::clone(&metrics), Arc::default());
        endpoint.open(listener);
        let shared = Shared::new(http3, LISTENER, Arc::clone(&metrics), Arc::default())
            .expect("quiche allocates");
        let (ready, shared) = (Rc::default(), Rc::new(shared));
        Self { endpoint, metrics, ready, now, shared, builder: Builder::new() }
    }

    /// With the usual settings.
    pub(crate) fn usual(quic: QuicSettings) -> Self {
        let secrets = Secrets::from_bytes(1, [7; 3], &[0x5a; 32]);
        Self::new(&secrets, Owner { worker: 3, generation: 1 }, quic, &Http3Settings::default())
    }

    /// Takes in a datagram; what is answered outside connections comes back.
    pub(crate) fn receive(&mut self, datagram: &[u8], from: SocketAddr) -> (Disposition, Vec<u8>) {
        let arrival = Arrival { listener: LISTENER, forwarded: false, now: self.now };
        let path = Path { local: server(), peer: from };
        let (mut bytes, mut out) = (datagram.to_vec(), [0; ANSWER_SIZE]);
        let datagram = Datagram { bytes: &mut bytes, path };
        let disposition = self.endpoint.receive(arrival, datagram, |_| true, &mut out);
        let size = match disposition {
            Disposition::Reply(size) | Disposition::Refused(_, size) => size,
            Disposition::Delivered(_) | Disposition::Stray(_) | Disposition::Dropped => 0,
        };
        (disposition, out[..size].to_vec())
    }

    /// One service of a connection, as a worker gives it: the session reads and writes, packets go out.
    pub(crate) fn service(&mut self, key: ConnectionKey, opened: &mut Vec<Exchange>) -> Vec<Sent> {
        let Some(connection) = self.endpoint.get_mut(key) else { return Vec::new() };
        if connection.became_established(self.now, &self.metrics) {
            let mailbox = Mailbox::new(key, Rc::clone(&self.ready));
            let shared = Rc::clone(&self.shared);
            let cid = connection.first_cid;
            connection.session = Session::new(shared, mailbox, cid, &mut connection.transport).ok();
        }
        let peer = connection.client();
        if let Some(session) = &mut connection.session {
            session.receive(&mut connection.transport, peer, self.now, opened);
            session.transmit(&mut connection.transport);
        }
        self.endpoint.maintain(key);
        self.transmit(key)
    }

    /// What a connection has to send.
    pub(crate) fn transmit(&mut self, key: ConnectionKey) -> Vec<Sent> {
        let mut sent = Vec::new();
        let Some(connection) = self.endpoint.get_mut(key) else { return sent };
        let mut more = true;
        while more {
            let outcome = connection.transmit(&mut self.builder, SEGMENTS, |train| {
                let datagrams = train.bytes.chunks(train.segment_size);
                sent.extend(datagrams.map(|datagram| (datagram.to_vec(), train.path.peer)));
                Ok(())
            });
            more = outcome == Outcome::More;
        }
        sent
    }

    /// Takes out connections that are over; returns whether this one was.
    pub(crate) fn settle(&mut self, key: ConnectionKey) -> bool {
        let over = self.endpoint.get_mut(key).is_none_or(|connection| connection.is_over());
        if over {
            self.close(key);
        }
        over
    }

    /// Takes a connection out whatever its state is.
    pub(crate) fn close(&mut self, key: ConnectionKey) {
        if let Some(mut connection) = self.endpoint.remove(key)
            && let Some(session) = &mut connection.session
        {
            session.close();
        }
    }
}

/// A client of one connection that is under way or established, and the server.
pub(crate) struct Pair {
    pub(crate) server: Server,
    pub(crate) client: quiche::Connection,
    pub(crate) key: Option<ConnectionKey>,
    pub(crate) opened: Vec<Exchange>,
    /// What came on each stream, and whether it ended: cleanly or by a reset.
    pub(crate) received: HashMap<u64, Received>,
    /// What the client could not write yet, and whether the stream ends with it.
    unwritten: BTreeMap<u64, (Vec<u8>, bool)>,
}

/// What the client got on one stream.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) octets: Vec<u8>,
    pub(crate) fin: bool,
    pub(crate) reset: Option<u64>,
}

/// The client of a connection that has sent nothing yet.
pub(crate) fn connect(from: SocketAddr, window: u64) -> quiche::Connection {
    let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION).expect("a version");
    config.verify_peer(false);
    config.set_application_protos(&[b"h3"]).expect("a short name");
    config.set_max_idle_timeout(30_000);
    config.set_initial_max_data(4 * window);
    config.set_initial_max_stream_data_bidi_local(window);
    config.set_initial_max_stream_data_uni(1 << 16);
    config.set_initial_max_streams_uni(3);
    config.set_active_connection_id_limit(4);
    let scid = ConnectionId::from_ref(&[9; 8]);
    quiche::connect(Some("localhost"), &scid, from, server(), &mut config).expect("a client")
}

// === impl Pair ===

impl Pair {
    /// After the handshake.
    pub(crate) fn established(server: Server, window: u64) -> Self {
        let client = connect(client(0), window);
        let (opened, received, unwritten) = (Vec::new(), HashMap::new(), BTreeMap::new());
        let mut pair = Self { server, client, key: None, opened, received, unwritten };
        pair.settle();
        assert!(pair.client.is_established(), "the handshake");
        pair
    }

    /// Moves datagrams both ways until neither side has one; returns whether any was moved.
    pub(crate) fn settle(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut moved = false;
            self.write_on();
            let mut buffer = [0; 1500];
            while let Ok((size, _)) = self.client.send(&mut buffer) {
                moved = true;
                let (disposition, _) = self.server.receive(&buffer[..size], client(0));
                if let Disposition::Delivered(key) | Disposition::Refused(key, _) = disposition {
                    self.key = Some(key);
                }
            }
            moved |= self.serve();
            self.read();
            if !moved {
                return any;
            }
            any = true;
        }
    }

    /// The server's turn.
    fn serve(&mut self) -> bool {
        let Some(key) = self.key else { return false };
        let sent = self.server.service(key, &mut self.opened);
        for (datagram, _) in &sent {
            let info = RecvInfo { from: server(), to: client(0) };
            // What the client does not take is its own business.
            let _ = self.client.recv(&mut datagram.clone(), info);
        }
        if self.server.settle(key) {
            self.key = None;
        }
        !sent.is_empty()
    }

    /// Reads whatever came to the client.
    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        for id in self.client.readable().collect::<Vec<_>>() {
            let stream = self.received.entry(id).or_default();
            loop {
                match self.client.stream_recv(id, &mut buffer) {
                    Ok((size, fin)) => {
                        stream.octets.extend_from_slice(&buffer[..size]);
                        stream.fin |= fin;
                    }
                    Err(quiche::Error::StreamReset(code)) => {
                        stream.reset = Some(code);
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
    }

    /// Writes to a stream of the client's; what does not go now goes when there is credit.
    pub(crate) fn write(&mut self, id: u64, octets: &[u8], fin: bool) {
        let (waiting, end) = self.unwritten.entry(id).or_default();
        if !*end {
            waiting.extend_from_slice(octets);
            *end = fin;
        }
        self.write_on();
    }

    /// Whether something waits for credit.
    pub(crate) fn waits(&self, id: u64) -> bool {
        self.unwritten.contains_key(&id)
    }

    fn write_on(&mut self) {
        self.unwritten.retain(|id, (waiting, end)| {
            match self.client.stream_send(*id, waiting, *end) {
                Ok(size) => {
                    waiting.drain(..size);
                    !waiting.is_empty()
                }
                // No credit; anything else is the end of the stream.
                Err(error) => matches!(error, quiche::Error::Done | quiche::Error::StreamLimit),
            }
        });
    }

    /// Opens a control stream with empty SETTINGS (RFC 9114 §6.2.1), as a client that means well.
    pub(crate) fn open_control(&mut self) {
        self.write(2, &[0x00, 0x04, 0x00], false);
    }

    /// The connection is gone or going.
    pub(crate) fn is_over(&self) -> bool {
        self.key.is_none()
            || self.client.is_closed()
            || self.client.is_draining()
            || self.client.local_error().is_some()
            || self.client.peer_error().is_some()
    }

    /// The HTTP/3 session of the connection.
    pub(crate) fn session(&mut self) -> Option<&mut Session> {
        self.server.endpoint.get_mut(self.key?)?.session.as_mut()
    }
}

// === frames ===

/// A frame of HTTP/3 (RFC 9114 §7.1).
pub(crate) fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = varint(kind);
    out.extend(varint(payload.len() as u64));
    out.extend_from_slice(payload);
    out
}

/// A field section of literals alone (RFC 9204 §4.5.6), neither Huffman-coded nor out of a table.
pub(crate) fn section(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = vec![0, 0];
    for (name, value) in fields {
        prefixed(&mut out, 0x20, 3, name.len());
        out.extend_from_slice(name);
        prefixed(&mut out, 0, 7, value.len());
        out.extend_from_slice(value);
    }
    out
}

/// An integer of RFC 7541 §5.1 behind `pattern` in the first octet.
fn prefixed(out: &mut Vec<u8>, pattern: u8, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// RFC 9000 §16; larger values lose their upper bits.
pub(crate) fn varint(value: u64) -> Vec<u8> {
    match value {
        0..0x40 => vec![value as u8],
        0x40..0x4000 => (0x4000 | value as u16).to_be_bytes().to_vec(),
        0x4000..0x4000_0000 => (0x8000_0000 | value as u32).to_be_bytes().to_vec(),
        _ => (0xc000_0000_0000_0000 | value).to_be_bytes().to_vec(),
    }
}

/// A complete answer as the client got it: its status, and how much content came.
pub(crate) fn answer(octets: &[u8]) -> Option<(u16, Vec<u8>)> {
    let (mut rest, mut status, mut content) = (octets, None, Vec::new());
    while !rest.is_empty() {
        let (kind, after) = take_varint(rest)?;
        let (length, after) = take_varint(after)?;
        let (payload, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        rest = after;
        match kind {
            0x00 => content.extend_from_slice(payload),
            0x01 if status.is_none() => {
                let list = quiche::h3::qpack::Decoder::new().decode(payload, 1 << 20).ok()?;
                let line =
                    list.iter().find(|line| quiche::h3::NameValue::name(*line) == b":status")?;
                let text = std::str::from_utf8(quiche::h3::NameValue::value(line)).ok()?;
                status = Some(text.parse::<u16>().ok()?).filter(|status| *status >= 200);
            }
            _ => {}
        }
    }
    Some((status?, content))
}

fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, _) = bytes.split_first()?;
    let (octets, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    let (first, others) = octets.split_first()?;
    let value =
        others.iter().fold(u64::from(first & 0x3f), |value, octet| value << 8 | u64::from(*octet));
    Some((value, rest))
}
