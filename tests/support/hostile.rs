//! A backend that breaks HTTP/2 (RFC 9113) in one chosen way, frame by frame: what no library would send.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Config;

/// Frame types (RFC 9113 §6).
pub mod frame {
    pub const DATA: u8 = 0x0;
    pub const HEADERS: u8 = 0x1;
    pub const RST_STREAM: u8 = 0x3;
    pub const SETTINGS: u8 = 0x4;
    pub const PUSH_PROMISE: u8 = 0x5;
    pub const PING: u8 = 0x6;
    pub const GOAWAY: u8 = 0x7;
    pub const WINDOW_UPDATE: u8 = 0x8;
    pub const CONTINUATION: u8 = 0x9;
}

/// Flags: the same bit means END_STREAM or ACK.
pub const END_STREAM: u8 = 0x1;
/// The field section is complete.
pub const END_HEADERS: u8 = 0x4;

const PREFACE_LEN: usize = 24;

/// What a backend does about a request: it gets the peer and the stream of a request whose head has come.
pub type Conduct = fn(&mut Peer, u32) -> io::Result<()>;

/// Settings (RFC 9113 §6.5.2).
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 0x1;
    pub const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub const INITIAL_WINDOW_SIZE: u16 = 0x4;
}

/// Answers every request of every connection as `misbehave` says.
#[derive(Debug)]
pub struct Hostile {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

/// The other end of one connection.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    /// Requests on this connection, the one at hand included.
    pub requests: u64,
    /// The field section of the request at hand (RFC 7541).
    pub block: Vec<u8>,
    /// That request ended with its head.
    pub ended: bool,
}

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream_id: u32,
    pub payload: Vec<u8>,
}

impl Hostile {
    /// Listens on loopback.
    ///
    /// # Panics
    /// When no port can be bound.
    pub fn start(misbehave: Conduct) -> Self {
        Self::with(&[], misbehave)
    }

    /// The same with SETTINGS of its own.
    ///
    /// # Panics
    /// When no port can be bound.
    pub fn with(settings: &'static [(u16, u32)], misbehave: Conduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the test's own");
        let address = listener.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let (connections, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let hostile = Self { address, stop, connections, requests };
        let (stop, connections, requests) = (
            Arc::clone(&hostile.stop),
            Arc::clone(&hostile.connections),
            Arc::clone(&hostile.requests),
        );
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                connections.fetch_add(1, Ordering::Relaxed);
                let requests = Arc::clone(&requests);
                thread::spawn(move || {
                    let peer = Peer { stream, requests: 0, block: Vec::new(), ended: false };
                    // Ends with the connection, however it ends.
                    let _over = peer.serve(settings, misbehave, &requests);
                });
            }
        });
        hostile
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A configuration with a route to it, `/NAME` and below, and these keys for its upstream.
    #[must_use]
    pub fn behind(&self, config: Config, name: &str, keys: &Value) -> Config {
        behind(&[self], config, name, keys)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests seen so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A configuration with a route to these, `/NAME` and below, in turn, and these keys for their upstream.
#[must_use]
pub fn behind(backends: &[&Hostile], config: Config, name: &str, keys: &Value) -> Config {
    let mut upstream = keys.clone();
    let endpoint = |(index, backend): (usize, &&Hostile)| json!({ "name": format!("h{}", index + 1), "address": backend.address.to_string() });
    upstream["endpoints"] = backends.iter().enumerate().map(endpoint).collect();
    let matching = json!({ "path_prefix": format!("/{name}") });
    config.set(&format!("/upstreams/{name}"), upstream).route(name, matching, name)
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _woken = TcpStream::connect(self.address);
    }
}

impl Peer {
    fn serve(
        mut self,
        settings: &[(u16, u32)],
        misbehave: Conduct,
        requests: &AtomicU64,
    ) -> io::Result<()> {
        self.stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        self.stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        let mut preface = [0; PREFACE_LEN];
        self.stream.read_exact(&mut preface)?;
        let setting =
            |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        self.send(frame::SETTINGS, 0, 0, &settings.iter().flat_map(setting).collect::<Vec<u8>>())?;
        loop {
            let next = self.receive()?;
            if next.kind == frame::HEADERS {
                requests.fetch_add(1, Ordering::Relaxed);
                self.requests += 1;
                self.block = next.payload;
                self.ended = next.flags & END_STREAM != 0;
                misbehave(&mut self, next.stream_id)?;
            }
        }
    }

    /// The next frame of those that are not answered by themselves, as SETTINGS and PING are.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn receive(&mut self) -> io::Result<Frame> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload)?;
            let stream_id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let (kind, flags) = (head[3], head[4]);
            match kind {
                frame::SETTINGS if flags & END_STREAM == 0 => {
                    self.send(frame::SETTINGS, END_STREAM, 0, &[])?;
                }
                frame::PING if flags & END_STREAM == 0 => {
                    self.send(frame::PING, END_STREAM, 0, &payload)?;
                }
                frame::SETTINGS | frame::PING => {}
                _ => return Ok(Frame { kind, flags, stream_id, payload }),
            }
        }
    }

    /// GOAWAY: streams above `last` are not processed.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn go_away(&mut self, last: u32, code: u32) -> io::Result<()> {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.send(frame::GOAWAY, 0, 0, &payload)
    }

    /// RST_STREAM.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn reset(&mut self, stream_id: u32, code: u32) -> io::Result<()> {
        self.send(frame::RST_STREAM, 0, stream_id, &code.to_be_bytes())
    }

    /// One frame.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, kind: u8, flags: u8, stream_id: u32, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(9 + payload.len());
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream_id.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes)
    }

    /// A response of one field section and nothing else.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn head(&mut self, stream_id: u32, block: &[u8], end: bool) -> io::Result<()> {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.send(frame::HEADERS, flags, stream_id, block)
    }

    /// Ends the TCP connection.
    ///
    /// # Errors
    /// It has ended already.
    pub fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Both)
    }
}

/// `:status: 200` of the static table (RFC 7541 appendix A).
pub const STATUS_200: &[u8] = &[0x88];

/// A field as it is: literal, not indexed, not Huffman-coded (RFC 7541 §6.2.2).
pub fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![0x00];
    for text in [name, value] {
        integer(&mut block, text.len());
        block.extend_from_slice(text);
    }
    block
}

/// The same, put into the dynamic table (§6.2.1).
pub fn indexed_field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = field(name, value);
    block[0] = 0x40;
    block
}

/// An integer with a prefix of seven bits, the first of them zero (§5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// Whether a field section refers to the dynamic table (RFC 7541 §6): an index above the 61 of the static one.
///
/// # Panics
/// When it is not well-formed.
pub fn uses_dynamic_table(block: &[u8]) -> bool {
    let mut rest = block;
    while let Some(first) = rest.first().copied() {
        // Indexed; literal with indexing; size update; literal without.
        let (bits, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let index = take_integer(&mut rest, bits);
        if index > 61 && (first & 0xe0) != 0x20 {
            return true;
        }
        let strings = if literal { 1 + usize::from(index == 0) } else { 0 };
        for _ in 0..strings {
            let length = take_integer(&mut rest, 7);
            rest = rest.get(length..).expect("a string is within its section");
        }
    }
    false
}

/// The next integer, with a prefix of `bits` bits (§5.1).
fn take_integer(rest: &mut &[u8], bits: u32) -> usize {
    let mut next = || {
        let (first, others) = rest.split_first().expect("an integer is within its section");
        *rest = others;
        usize::from(*first)
    };
    let most = (1 << bits) - 1;
    let mut value = next() & most;
    if value < most {
        return value;
    }
    for shift in (0..28).step_by(7) {
        let octet = next();
        value += (octet & 0x7f) << shift;
        if octet < 0x80 {
            break;
        }
    }
    value
}
