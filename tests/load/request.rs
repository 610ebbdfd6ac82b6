//! One request in flight and what its answer has been so far. Knows no connection.

use std::time::Instant;

use quiche::h3::{Header, NameValue};
use sha2::{Digest, Sha256};

use crate::account::Failure;
use crate::plan::{Expected, Plan};

/// From its first octet to the end of its answer.
pub(crate) struct Request {
    /// What its latency counts from.
    pub(crate) begun: Instant,
    /// Octets of its body that quiche has not taken yet.
    pub(crate) unsent: u64,
    status_ok: bool,
    declared: Option<u64>,
    received: u64,
    hash: Option<Box<Sha256>>,
}

// === impl Request ===

impl Request {
    pub(crate) fn new(begun: Instant, plan: &Plan) -> Self {
        let hash = plan.expected.sha256.map(|_| Box::new(Sha256::new()));
        Self { begun, unsent: plan.body, status_ok: false, declared: None, received: 0, hash }
    }

    /// A field section of the answer: interim, final or trailers.
    pub(crate) fn head(&mut self, list: &[Header], expected: &Expected) {
        for field in list {
            match field.name() {
                b":status" => self.status_ok = field.value() == expected.status.as_bytes(),
                b"content-length" => {
                    let digits = std::str::from_utf8(field.value()).ok();
                    self.declared = digits.and_then(|it| it.parse().ok());
                }
                _ => {}
            }
        }
    }

    /// A piece of the answer's body.
    pub(crate) fn body(&mut self, piece: &[u8]) {
        self.received += piece.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(piece);
        }
    }

    /// Whether the answer, now complete, is as it has to be.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(crate) fn verdict(&mut self, expected: &Expected) -> Result<(), Failure> {
        let wrong = |length: Option<u64>| length.is_some_and(|it| it != self.received);
        if !self.status_ok {
            return Err(Failure::Status);
        }
        if wrong(self.declared) || wrong(expected.length) {
            return Err(Failure::Length);
        }
        let hash = self.hash.take().map(|hash| <[u8; 32]>::from(hash.finalize()));
        if hash != expected.sha256 {
            return Err(Failure::Hash);
        }
        if self.unsent > 0 { Err(Failure::Upload) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::options::Options;

    fn verdict(options: Options, fields: &[(&str, &str)], body: &[u8]) -> Result<(), Failure> {
        let plan = Plan::new(&options).expect("the defaults are fine");
        let mut request = Request::new(Instant::now(), &plan);
        let header = |(name, value): &(&str, &str)| Header::new(name.as_bytes(), value.as_bytes());
        let list: Vec<Header> = fields.iter().map(header).collect();
        request.head(&list, &plan.expected);
        request.body(body);
        request.verdict(&plan.expected)
    }

    #[test]
    fn an_answer_is_judged_by_status_length_hash_and_upload() {
        let usual = || Options::of(SocketAddr::from(([127, 0, 0, 1], 1)));
        let good = [(":status", "200"), ("content-length", "3")];
        let hash = Some(Sha256::digest(b"abc").into());
        assert_eq!(verdict(usual(), &good, b"abc"), Ok(()));
        assert_eq!(verdict(usual(), &good, b"ab"), Err(Failure::Length));
        assert_eq!(verdict(usual(), &[(":status", "503")], b""), Err(Failure::Status));
        assert_eq!(verdict(Options { status: 503, ..usual() }, &[(":status", "503")], b""), Ok(()));
        assert_eq!(
            verdict(Options { expect: Some(4), ..usual() }, &good, b"abc"),
            Err(Failure::Length)
        );
        assert_eq!(verdict(Options { sha256: hash, ..usual() }, &good, b"abc"), Ok(()));
        assert_eq!(verdict(Options { sha256: hash, ..usual() }, &good, b"abd"), Err(Failure::Hash));
        assert_eq!(
            verdict(Options { body: Some(1), ..usual() }, &good, b"abc"),
            Err(Failure::Upload)
        );
    }
}
