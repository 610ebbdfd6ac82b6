//! Retry tokens at a worker that asks everybody for one: a client gets its connection exactly when it comes back in time, from
//! where it was, with the ID it was given and the token as it was, in its original first ID; a token of chance never does.
//!
//! Input: `ask ADDRESS DCID-LENGTH` (a new token), `flip BIT`, `cut SIZE`, `append HEX`, `token HEX`, `from ADDRESS`,
//! `wait MILLISECONDS`, `id PLACE` (changes the ID), `send`.

use std::time::Duration;

use spooky_user::dataplane::quic::endpoint::Disposition;
use spooky_user::dataplane::quic::settings::{AddressValidation, QuicSettings, ValidationMode};

use crate::rig::{self, Server};
use crate::script::{self, Line};

const OPERATIONS: [&str; 9] =
    ["ask", "flip", "cut", "append", "token", "from", "wait", "id", "send"];
/// How long a token is good.
const LIFETIME: Duration = Duration::from_secs(10);

struct Client {
    server: Server,
    /// What it was given, and what it has now.
    given: Ticket,
    held: Ticket,
    waited: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ticket {
    address: usize,
    id: Vec<u8>,
    token: Vec<u8>,
}

pub(super) fn run(input: &[u8]) {
    let usual = QuicSettings::default();
    let validation = AddressValidation {
        mode: ValidationMode::Always,
        token_ttl: LIFETIME,
        ..usual.address_validation
    };
    let server = Server::usual(QuicSettings { address_validation: validation, ..usual });
    let (given, held) = (Ticket::default(), Ticket::default());
    let mut client = Client { server, given, held, waited: Duration::ZERO };
    client.ask(0, 8);
    for line in script::lines(input, 40) {
        client.follow(&line);
    }
    client.send();
}

impl Client {
    fn follow(&mut self, line: &Line<'_>) {
        let token = &mut self.held.token;
        match line.choice(&OPERATIONS) {
            "ask" => self.ask(line.below(1, 64), 8 + line.below(2, 13)),
            "flip" if !token.is_empty() => {
                let bit = line.below(1, token.len() * 8);
                token[bit / 8] ^= 1 << (bit % 8);
            }
            "cut" => token.truncate(line.below(1, 64)),
            "append" => token.extend(script::hex(&line.word(1)).into_iter().take(64)),
            "token" => *token = script::hex(&line.word(1)).into_iter().take(256).collect(),
            "from" => self.held.address = line.below(1, 64),
            "wait" => {
                let time = Duration::from_millis(line.number(1) % 20_000);
                self.server.now += time;
                self.waited += time;
            }
            "id" => {
                let place = line.below(1, self.held.id.len());
                self.held.id[place] ^= 1;
            }
            _ => self.send(),
        }
    }

    /// A first Initial, which draws a Retry and nothing else.
    fn ask(&mut self, address: usize, length: usize) {
        let datagram = initial(&vec![0xd1; length], &[]);
        let (disposition, mut retry) = self.server.receive(&datagram, rig::client(address));
        assert!(matches!(disposition, Disposition::Reply(_)), "{disposition:?}");
        assert!(retry.len() < datagram.len());
        let header = quiche::Header::from_slice(&mut retry, 20).expect("a packet");
        assert_eq!(header.ty, quiche::Type::Retry);
        let token = header.token.expect("a Retry has a token");
        self.given = Ticket { address, id: header.scid.to_vec(), token };
        self.held = self.given.clone();
        self.waited = Duration::ZERO;
    }

    /// Comes back with what it holds.
    fn send(&mut self) {
        let metrics = &self.server.metrics;
        let before = metrics.addresses_validated.value();
        let datagram = initial(&self.held.id, &self.held.token);
        let (disposition, _) = self.server.receive(&datagram, rig::client(self.held.address));
        let validated = self.server.metrics.addresses_validated.value() - before;
        let good = self.held == self.given && self.waited <= LIFETIME;
        assert_eq!(validated == 1, good, "{:?} for {:?}", self.held, self.given);
        match disposition {
            Disposition::Delivered(key) | Disposition::Refused(key, _) => {
                assert!(good, "a connection without a token");
                self.server.close(key);
            }
            // An ID that is not ours is a first Initial.
            Disposition::Reply(_) => assert_ne!(self.held.id, self.given.id),
            // Of an Initial that cannot be read nothing stays, with a token or without.
            Disposition::Dropped => {}
            // One changed ID in 4,096 names another worker.
            Disposition::Stray(_) => assert_ne!(self.held.id, self.given.id),
        }
    }
}

/// An Initial of 1,200 octets (RFC 9000 §17.2.2) with nothing in it that can be decrypted.
fn initial(dcid: &[u8], token: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xc3, 0, 0, 0, 1, dcid.len() as u8];
    packet.extend_from_slice(dcid);
    packet.extend([4, 9, 9, 9, 9]);
    packet.extend(rig::varint(token.len() as u64));
    packet.extend_from_slice(token);
    let rest = 1200 - packet.len() - 2;
    packet.extend((0x4000 | rest as u16).to_be_bytes());
    packet.resize(1200, 0);
    packet
}
