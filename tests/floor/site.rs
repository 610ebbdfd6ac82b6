//! What the floor serves: which request gets how many octets, and the octets. Knows no transport.

use std::collections::HashMap;

use bytes::Bytes;
use quiche::h3::{Header, NameValue};
use quiche::{BufFactory, BufSplit};

/// Octets of bodies repeat after so many: not a power of two, so that a piece that is lost or moved shows.
const PERIOD: usize = 251;
/// Whole periods, and enough that 1 MiB is one piece.
const BLOCK: usize = PERIOD * 8192;
/// Answers whose fields are kept.
const HEADS: usize = 64;

/// Body and fields of every answer.
#[derive(Debug)]
pub(crate) struct Site {
    block: Bytes,
    heads: HashMap<(u16, u64), Vec<Header>>,
}

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) length: u64,
    /// Once the request's body has come, not before.
    pub(crate) after_body: bool,
}

/// Makes [`Chunk`]s for quiche.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers;

/// A piece of a body that quiche keeps without a copy until it is acknowledged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chunk(Bytes);

// === impl Site ===

impl Site {
    pub(crate) fn new() -> Self {
        let block = (0..BLOCK).map(|place| (place % PERIOD) as u8).collect();
        Self { block, heads: HashMap::new() }
    }

    /// What follows `offset` in a body of `length` octets; the whole rest unless that is very long.
    pub(crate) fn piece(&self, offset: u64, length: u64) -> Chunk {
        let start = (offset % PERIOD as u64) as usize;
        let size = (length - offset).min((BLOCK - start) as u64) as usize;
        Chunk(self.block.slice(start..start + size))
    }

    /// The fields of an answer.
    pub(crate) fn head(&mut self, answer: Answer) -> &[Header] {
        let known = (answer.status, answer.length);
        if self.heads.len() >= HEADS && !self.heads.contains_key(&known) {
            self.heads.clear();
        }
        self.heads.entry(known).or_insert_with(|| {
            vec![
                Header::new(b":status", answer.status.to_string().as_bytes()),
                Header::new(b"content-length", answer.length.to_string().as_bytes()),
            ]
        })
    }
}

// === impl Answer ===

impl Answer {
    /// By method and path.
    pub(crate) fn to(request: &[Header]) -> Self {
        let field = |name: &[u8]| request.iter().find(|it| it.name() == name).map(NameValue::value);
        let answer = |status, length| Self { status, length, after_body: false };
        match (field(b":method"), field(b":path")) {
            (Some(b"POST" | b"PUT"), Some(_)) => Self { after_body: true, ..answer(200, 1024) },
            (Some(b"GET"), Some(path)) => octets(path).map_or(answer(404, 0), |it| answer(200, it)),
            _ => answer(405, 0),
        }
    }
}

fn octets(path: &[u8]) -> Option<u64> {
    let path = std::str::from_utf8(path).ok()?;
    match path.split('?').next()? {
        "/1k" => Some(1 << 10),
        "/1m" => Some(1 << 20),
        path => path.strip_prefix("/bytes/")?.parse().ok(),
    }
}

// === impl Chunk ===

impl BufFactory for Buffers {
    type Buf = Chunk;
    type DgramBuf = Vec<u8>;

    fn buf_from_slice(buf: &[u8]) -> Chunk {
        Chunk(Bytes::copy_from_slice(buf))
    }

    fn dgram_buf_from_slice(buf: &[u8]) -> Vec<u8> {
        buf.to_vec()
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl BufSplit for Chunk {
    fn split_at(&mut self, at: usize) -> Self {
        Self(self.0.split_off(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: &str, path: &str) -> Answer {
        let field = |name: &str, value: &str| Header::new(name.as_bytes(), value.as_bytes());
        Answer::to(&[field(":method", method), field(":path", path)])
    }

    #[test]
    fn paths_say_how_much() {
        let get = |path| (answer("GET", path).status, answer("GET", path).length);
        assert_eq!((get("/1k"), get("/1m?x=1")), ((200, 1024), (200, 1 << 20)));
        assert_eq!((get("/bytes/77"), get("/bytes/x"), get("/")), ((200, 77), (404, 0), (404, 0)));
        assert_eq!(answer("POST", "/any"), Answer { status: 200, length: 1024, after_body: true });
        assert_eq!(answer("PUT", "/any"), answer("POST", "/any"));
        assert_eq!(answer("DELETE", "/1k").status, 405);
    }

    #[test]
    fn pieces_make_up_one_body() {
        let site = Site::new();
        let length = 3 * BLOCK as u64 + 7;
        let mut offset = 5;
        while offset < length {
            let piece = site.piece(offset, length);
            let octets = piece.as_ref();
            assert!(octets.iter().zip(offset..).all(|(octet, at)| u64::from(*octet) == at % 251));
            offset += octets.len() as u64;
        }
        assert_eq!(offset, length);
    }
}
