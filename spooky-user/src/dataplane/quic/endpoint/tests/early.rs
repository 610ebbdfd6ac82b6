//! What XDP drops by a header alone must be refused here, whatever connections there are; under attack, what it drops by an ID
//! as well.

use spooky_common::counter::Counter;
use spooky_common::frame::Address;
use spooky_common::map::{AddressKey, Port, Queue, Settings};
use spooky_common::steer::Keys;
use spooky_common::verdict::{Buckets, Listeners, Queues, Tables, Verdict};
use spooky_common::{access, cid, guard};

use super::*;

/// The kernel's tables for a host with one listener and no lists.
struct Host {
    keys: [Option<cid::LocalKey>; 7],
    settings: Settings,
}

impl Keys for Host {
    fn local_key(&self, config_id: u8) -> Option<&cid::LocalKey> {
        self.keys.local_key(config_id)
    }
}

impl access::Lists for Host {
    fn allows(&self, _: &Address) -> bool {
        false
    }
    fn denies(&self, _: &Address) -> bool {
        false
    }
}

impl Listeners for Host {
    fn port(&self, port: u16) -> Port {
        Port { any_v4: u8::from(port == 443), ..Port::default() }
    }
    fn address(&self, _: &AddressKey) -> Option<u8> {
        None
    }
}

impl Queues for Host {
    fn queue(&self) -> u32 {
        0
    }
    fn owner_of_queue(&self) -> Queue {
        Queue::NOBODYS
    }
    fn is_live(&self, _: Owner) -> bool {
        true
    }
}

impl Buckets for Host {
    fn now(&self) -> u64 {
        0
    }
    fn due(&self, _: u32) -> u64 {
        0
    }
    fn set_due(&self, _: u32, _: u64) {}
}

impl Tables for Host {
    fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// A frame around a datagram to the listener.
fn frame(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("IPv4 alone") };
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((28 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(from.ip().octets());
    frame.extend(to.ip().octets());
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend((8 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// What became of the handshake's packets while they were changed.
#[derive(Debug, Default)]
struct Seen {
    dropped: std::collections::BTreeMap<Counter, u32>,
    passed: u32,
}

impl Seen {
    fn has(&self, counter: Counter, more_than: u32) {
        let count = self.dropped.get(&counter).copied().unwrap_or(0);
        assert!(count > more_than, "{counter:?}: {self:?}");
    }
}

/// Gives a changed datagram to both, and compares.
fn compare(rig: &mut Rig, host: &Host, datagram: &[u8], port: u16, seen: &mut Seen) {
    let from = SocketAddr::new(rig.from.ip(), port);
    let frame = frame(from, rig.to, datagram);
    let Verdict::Drop(reason, _) = guard::decide(&frame.as_slice(), host) else {
        seen.passed += 1;
        return;
    };
    *seen.dropped.entry(reason.counter()).or_default() += 1;
    let mut copy = datagram.to_vec();
    let disposition = rig.receive(&mut copy, from, false);
    assert_eq!(disposition, Disposition::Dropped, "{reason:?} from port {port}: {datagram:02x?}");
}

fn changed(random: &mut fastrand::Rng, datagram: &[u8]) -> Vec<u8> {
    let mut copy = datagram.to_vec();
    for _ in 0..random.usize(..4) {
        let places = copy.len().clamp(1, 40);
        match random.u8(..6) {
            0 if !copy.is_empty() => copy[0] ^= 1 << random.u8(..8),
            1 if copy.len() > 6 => copy[random.usize(1..6)] = random.u8(..22),
            2 if copy.len() > 5 => copy[5] = random.u8(..),
            3 => copy.truncate(random.usize(..=copy.len())),
            4 if !copy.is_empty() => copy[random.usize(..places)] = random.u8(..),
            _ => copy.truncate(1300),
        }
    }
    copy
}

#[test]
fn h02_what_the_kernel_drops_by_its_header_is_refused_here() {
    let seen = compare_all(Settings { early: 1, ..Settings::default() });
    for counter in [
        Counter::XdpDropMalformed,
        Counter::XdpTooShort,
        Counter::XdpSourcePort,
        Counter::XdpNotInitial,
    ] {
        seen.has(counter, 10);
    }
    assert!(seen.passed > 500, "{seen:?}");
}

/// Here strangers have all they ask for, and every owner is live.
#[test]
fn h02_what_the_kernel_drops_under_attack_is_refused_here() {
    let seen = compare_all(Settings { early: 1, attack: 1, ..Settings::default() });
    for counter in [Counter::XdpDropUnknownShort, Counter::XdpDropUnknownLong] {
        seen.has(counter, 10);
    }
    assert!(seen.passed > 500, "{seen:?}");
}

fn compare_all(settings: Settings) -> Seen {
    let seed = std::env::var("SPOOKY_SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(7);
    println!("SPOOKY_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let secrets = Secrets::random(0, [0; 3]);
    let mut host = Host { keys: [None; 7], settings };
    host.keys[0] = Some(secrets.local_key);
    let mut seen = Seen::default();
    for _ in 0..8 {
        let mut rig = Rig::new(&secrets, me());
        // Packets of every stage: the first flight, opened by its own Initial; the handshake; the connection itself.
        let mut stages = vec![rig.client_datagrams()];
        for mut datagram in stages[0].clone() {
            rig.receive(&mut datagram, rig.from, false);
        }
        rig.establish();
        assert_eq!(rig.client.stream_send(0, b"GET", false), Ok(3));
        stages.push(rig.client_datagrams());
        let own: Vec<[u8; 20]> = rig.endpoint.issued.keys().copied().collect();
        for datagram in stages.iter().flatten() {
            for _ in 0..400 {
                let mut copy = changed(&mut random, datagram);
                // Under an ID of the connection's, and under that which the client chose.
                if random.bool() && copy.len() > 30 && copy[0] & 0x80 != 0 {
                    copy[5] = 20;
                    copy[6..26].copy_from_slice(&own[random.usize(..own.len())]);
                    // And now and then under one that is nobody's.
                    copy[25] ^= u8::from(random.u8(..4) == 0);
                }
                let port = [4000, 4000, 4001, 53, 443, 1900][random.usize(..6)];
                compare(&mut rig, &host, &copy, port, &mut seen);
            }
        }
    }
    println!("{seen:?}");
    seen
}
