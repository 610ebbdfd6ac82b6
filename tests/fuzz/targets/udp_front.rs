//! Datagrams from many addresses at a worker's endpoint: the header is read as the model here reads it; nobody gets more than
//! three times what it sent as long as it has not shown that it can receive; nothing is kept for what was refused.
//!
//! Input: `raw ADDRESS HEX`, `long ADDRESS FIRST VERSION DCID-LENGTH SIZE`, `short ADDRESS SIZE`, `flight ADDRESS` (a true
//! client's first), `cut ADDRESS SIZE` and `flip ADDRESS PLACE` (of that flight), `wait MILLISECONDS`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use spooky_common::invariant::{self, Form, Header, Kind, Malformed};
use spooky_user::dataplane::quic::endpoint::Disposition;
use spooky_user::dataplane::quic::settings::{AddressValidation, QuicSettings, ValidationMode};
use spooky_user::id::ConnectionKey;

use crate::rig::{self, Server};
use crate::script::{self, Line};

const OPERATIONS: [&str; 7] = ["raw", "long", "short", "flight", "cut", "flip", "wait"];

struct Front {
    server: Server,
    keys: Vec<ConnectionKey>,
    /// Octets to and from each address.
    counted: HashMap<SocketAddr, (usize, usize)>,
}

pub(super) fn run(input: &[u8]) {
    let usual = QuicSettings::default();
    let validation = AddressValidation {
        mode: ValidationMode::Adaptive,
        half_open_threshold: 3,
        max_half_open: 6,
        ..usual.address_validation
    };
    let quic = QuicSettings { address_validation: validation, max_connections: 5, ..usual };
    let mut front =
        Front { server: Server::usual(quic), keys: Vec::new(), counted: HashMap::new() };
    for line in script::lines(input, 40) {
        front.follow(&line);
    }
    for key in std::mem::take(&mut front.keys) {
        front.server.close(key);
    }
    assert!(front.server.endpoint.is_empty());
    assert_eq!(front.server.metrics.connections_active.value(), 0);
    assert_eq!(front.server.metrics.connections_half_open.value(), 0);
}

impl Front {
    fn follow(&mut self, line: &Line<'_>) {
        let number = line.below(1, 64);
        let from = rig::client(number);
        let datagram = match line.choice(&OPERATIONS) {
            "raw" => script::hex(&line.word(2)),
            "long" => {
                let mut bytes = vec![0x80 | line.below(2, 256) as u8];
                bytes.extend((line.number(3) as u32).to_be_bytes());
                let length = line.below(4, 256);
                bytes.push(length as u8);
                bytes.extend(std::iter::repeat_n(number as u8, length));
                bytes.resize(line.below(5, 1500), 0);
                bytes
            }
            "short" => vec![0x40; line.below(2, 1500)],
            "wait" => {
                self.server.now += Duration::from_millis(line.number(1) % 10_000);
                self.time_passes();
                return;
            }
            verb => Self::flight(verb, line),
        };
        self.receive(&datagram, from);
    }

    /// A true client's first flight, perhaps damaged.
    fn flight(verb: &str, line: &Line<'_>) -> Vec<u8> {
        let mut datagram = FLIGHTS.with_borrow_mut(|flights| {
            flights
                .entry(line.below(1, 64))
                .or_insert_with_key(|number| first_flight(*number))
                .clone()
        });
        match verb {
            "cut" => datagram.truncate(line.below(2, 1500)),
            "flip" => {
                let place = line.below(2, datagram.len() * 8);
                datagram[place / 8] ^= 1 << (place % 8);
            }
            _ => {}
        }
        datagram
    }

    fn receive(&mut self, datagram: &[u8], from: SocketAddr) {
        let header = invariant::parse(datagram);
        assert_eq!(header, model(datagram));
        agrees_with_quiche(datagram, &header);
        self.counted.entry(from).or_default().0 += datagram.len();
        let (disposition, reply) = self.server.receive(datagram, from);
        self.counted.entry(from).or_default().1 += reply.len();
        assert!(reply.len() <= datagram.len(), "{} octets for {}", reply.len(), datagram.len());
        match disposition {
            Disposition::Delivered(key) | Disposition::Refused(key, _) => {
                if !self.keys.contains(&key) {
                    self.keys.push(key);
                }
            }
            // One ID in 2^17 of those that nobody issued names a worker.
            Disposition::Reply(_) | Disposition::Dropped | Disposition::Stray(_) => {}
        }
        self.send();
        assert!(self.server.endpoint.len() <= 5, "more than max_connections");
    }

    /// Sends what there is and counts it.
    fn send(&mut self) {
        for key in self.keys.clone() {
            for (datagram, to) in self.server.service(key, &mut Vec::new()) {
                self.counted.entry(to).or_default().1 += datagram.len();
            }
            if self.server.settle(key) {
                self.keys.retain(|kept| *kept != key);
            }
        }
        for (address, (received, sent)) in &self.counted {
            assert!(*sent <= 3 * received, "{sent} octets to {address}, {received} from there");
        }
    }

    fn time_passes(&mut self) {
        for key in self.keys.clone() {
            if let Some(connection) = self.server.endpoint.get_mut(key) {
                connection.on_timeout(self.server.now, &self.server.metrics);
            }
        }
        self.send();
    }
}

thread_local! {
    /// One flight for each client, as making them takes most of the time.
    static FLIGHTS: RefCell<HashMap<usize, Vec<u8>>> = RefCell::default();
}

fn first_flight(number: usize) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let mut client = rig::connect(rig::client(number), 1 << 16);
    let (size, _) = client.send(&mut buffer).expect("a first flight");
    buffer[..size].to_vec()
}

/// RFC 8999 §5, and the types of RFC 9000 §17.2, read in another way.
fn model(datagram: &[u8]) -> Result<Header, Malformed> {
    let first = *datagram.first().ok_or(Malformed::Empty)?;
    let mut dcid = [0; 20];
    if first < 0x80 {
        dcid.copy_from_slice(datagram.get(1..21).ok_or(Malformed::Truncated)?);
        return Ok(Header { form: Form::Short, dcid, dcid_len: 20 });
    }
    let fixed = datagram.get(1..6).ok_or(Malformed::Truncated)?;
    let length = usize::from(fixed[4]);
    let id = datagram.get(6..6 + length).ok_or(Malformed::Truncated)?;
    dcid[..length.min(20)].copy_from_slice(&id[..length.min(20)]);
    let kind = match (&fixed[..4], first & 0x30) {
        ([0, 0, 0, 0], _) => Kind::VersionNegotiation,
        ([0, 0, 0, 1], 0x00) => Kind::Initial,
        ([0, 0, 0, 1], 0x10) => Kind::ZeroRtt,
        ([0, 0, 0, 1], 0x20) => Kind::Handshake,
        ([0, 0, 0, 1], _) => Kind::Retry,
        _ => Kind::OtherVersion,
    };
    let version = fixed[..4].iter().fold(0, |version, octet| version << 8 | u32::from(*octet));
    Ok(Header { form: Form::Long { version, kind }, dcid, dcid_len: fixed[4] })
}

/// What quiche can read at all has the same destination to us.
fn agrees_with_quiche(datagram: &[u8], header: &Result<Header, Malformed>) {
    let mut copy = datagram.to_vec();
    if let Ok(theirs) = quiche::Header::from_slice(&mut copy, 20) {
        let ours = header.expect("quiche reads it");
        let length = theirs.dcid.len().min(20);
        assert_eq!(ours.dcid()[..length], theirs.dcid[..length]);
    }
}
