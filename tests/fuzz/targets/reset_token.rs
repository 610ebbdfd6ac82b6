//! Stateless resets (RFC 9000 §10.3): a packet of a connection that is gone is answered with the token that its ID has under
//! its key, in something smaller; whoever sends anything else gets nothing, and two endpoints cannot keep each other busy.
//!
//! Input: `gone SIZE`, `other-generation SIZE`, `other-worker SIZE`, `other-key SIZE`, `stranger HEX SIZE`, `bounce`,
//! `wait MILLISECONDS`.

use std::collections::HashMap;
use std::time::Duration;

use spooky_common::cid::Owner;
use spooky_user::dataplane::quic::cid::{Cid, Issuer, Secrets};
use spooky_user::dataplane::quic::endpoint::Disposition;
use spooky_user::dataplane::quic::settings::{Http3Settings, QuicSettings, ResetRate};

use crate::rig::{self, Server};
use crate::script::{self, Line};

const OPERATIONS: [&str; 7] =
    ["gone", "other-generation", "other-worker", "other-key", "stranger", "bounce", "wait"];
const ME: Owner = Owner { worker: 3, generation: 1 };
const PER_SECOND: u32 = 5;

struct Edge {
    server: Server,
    secrets: Secrets,
    waited: Duration,
    resets: u64,
    /// By ID.
    tokens: HashMap<Cid, [u8; 16]>,
    last: Vec<u8>,
}

pub(super) fn run(input: &[u8]) {
    let secrets = Secrets::from_bytes(2, [7; 3], &[0x33; 32]);
    let stateless_resets = ResetRate { per_second: PER_SECOND, per_source: PER_SECOND };
    let quic = QuicSettings { stateless_resets, ..QuicSettings::default() };
    let server = Server::new(&secrets, ME, quic, &Http3Settings::default());
    let (tokens, last) = (HashMap::new(), Vec::new());
    let mut edge = Edge { server, secrets, waited: Duration::ZERO, resets: 0, tokens, last };
    for line in script::lines(input, 60) {
        edge.follow(&line);
    }
    let most = u64::from(PER_SECOND) * (1 + edge.waited.as_secs() + 1);
    assert!(edge.resets <= most, "{} resets in {:?}", edge.resets, edge.waited);
}

impl Edge {
    fn follow(&mut self, line: &Line<'_>) {
        let issued = |owner: Owner, secrets: &Secrets| Issuer::new(secrets, owner).issue();
        let elsewhere = Secrets::from_bytes(2, [7; 3], &[0x34; 32]);
        let size = line.below(1, 1500);
        match line.choice(&OPERATIONS) {
            "gone" => self.send(&issued(ME, &self.secrets), size, true),
            "other-generation" => {
                let old = Owner { generation: 2, ..ME };
                self.send(&issued(old, &self.secrets), size, true);
            }
            "other-worker" => {
                let other = Owner { worker: 4, ..ME };
                let packet = packet(&issued(other, &self.secrets), size);
                let (disposition, _) = self.server.receive(&packet, rig::client(0));
                let expected =
                    if size < 21 { Disposition::Dropped } else { Disposition::Stray(other) };
                assert_eq!(disposition, expected);
            }
            // Whether its check fits is a matter of 1 in 4,096; then it is answered, and the token is ours.
            "other-key" => self.send(&issued(ME, &elsewhere), size, false),
            "stranger" => {
                let mut cid = [0; 20];
                for (octet, byte) in cid.iter_mut().zip(script::hex(&line.word(1))) {
                    *octet = byte;
                }
                self.send(&cid, line.below(2, 1500), false);
            }
            "bounce" => self.bounce(),
            _ => {
                let time = Duration::from_millis(line.number(1) % 3000);
                self.server.now += time;
                self.waited += time;
            }
        }
    }

    fn send(&mut self, cid: &Cid, size: usize, ours: bool) {
        let packet = packet(cid, size);
        let limited = self.server.metrics.stateless_resets_limited.value();
        let (disposition, reset) = self.server.receive(&packet, rig::client(0));
        let was_limited = self.server.metrics.stateless_resets_limited.value() > limited;
        match disposition {
            Disposition::Reply(_) => self.check(cid, packet.len(), &reset),
            // Too small to be answered by something smaller that still looks like a packet, or one too many.
            Disposition::Dropped => {
                assert!(!ours || size < 22 || was_limited, "no reset for {size}")
            }
            Disposition::Stray(_) => assert!(!ours),
            Disposition::Delivered(_) | Disposition::Refused(..) => {
                panic!("there is no connection")
            }
        }
    }

    fn check(&mut self, cid: &Cid, trigger: usize, reset: &[u8]) {
        self.resets += 1;
        let issuer = Issuer::new(&self.secrets, Owner { worker: 200, generation: 9 });
        assert!(issuer.open(cid).is_some(), "a reset for a stranger's ID");
        assert!(reset.len() < trigger && (21..=42).contains(&reset.len()), "{}", reset.len());
        assert_eq!(reset[0] & 0xc0, 0x40, "a short header");
        let token = issuer.reset_token(cid);
        assert_eq!(reset.last_chunk(), Some(&token), "any worker, any process knows it");
        assert!(self.tokens.values().all(|known| *known != token) || self.tokens.contains_key(cid));
        self.tokens.insert(*cid, token);
        self.last = reset.to_vec();
    }

    /// The reset comes back, and what that draws, until nothing does.
    fn bounce(&mut self) {
        let mut steps = 0;
        while !self.last.is_empty() {
            let (disposition, answer) = self.server.receive(&self.last.clone(), rig::client(1));
            assert!(!matches!(disposition, Disposition::Delivered(_)));
            assert!(answer.len() < self.last.len(), "not smaller");
            self.resets += u64::from(!answer.is_empty());
            self.last = answer;
            steps += 1;
        }
        assert!(steps <= 22, "{steps} steps");
    }
}

/// A short-header packet of this size.
fn packet(cid: &Cid, size: usize) -> Vec<u8> {
    let mut packet = vec![0x40];
    packet.extend_from_slice(cid);
    packet.resize(size.max(1), 0xee);
    packet
}
