//! A backend that breaks HTTP/2 (RFC 9113) in one chosen way, frame by frame: what no library would send. Imports nothing.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

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
}

impl Hostile {
    /// Listens on loopback. `misbehave` gets the peer and the stream of a request whose head has come.
    ///
    /// # Panics
    /// When no port can be bound.
    pub fn start(misbehave: fn(&mut Peer, u32) -> io::Result<()>) -> Self {
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
                    let peer = Peer { stream };
                    // Ends with the connection, however it ends.
                    let _over = peer.serve(misbehave, &requests);
                });
            }
        });
        hostile
    }

    pub fn address(&self) -> SocketAddr {
        self.address
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
        misbehave: fn(&mut Self, u32) -> io::Result<()>,
        requests: &AtomicU64,
    ) -> io::Result<()> {
        self.stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        self.stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        let mut preface = [0; PREFACE_LEN];
        self.stream.read_exact(&mut preface)?;
        self.send(frame::SETTINGS, 0, 0, &[])?;
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload)?;
            let stream_id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                frame::SETTINGS if head[4] & END_STREAM == 0 => {
                    self.send(frame::SETTINGS, END_STREAM, 0, &[])?;
                }
                frame::PING if head[4] & END_STREAM == 0 => {
                    self.send(frame::PING, END_STREAM, 0, &payload)?;
                }
                frame::HEADERS => {
                    requests.fetch_add(1, Ordering::Relaxed);
                    misbehave(&mut self, stream_id)?;
                }
                _ => {}
            }
        }
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
