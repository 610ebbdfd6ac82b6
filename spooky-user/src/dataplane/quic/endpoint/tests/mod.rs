//! The endpoint against a real quiche client, in memory: no socket, no clock but the one the tests hold.

mod early;
mod paths;
mod patience;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use spooky_common::cid::Owner;

use super::*;
use crate::dataplane::packet::Path;
use crate::dataplane::quic::cid::Secrets;
use crate::dataplane::quic::settings::{QuicSettings, ResetRate};
use crate::dataplane::quic::tls::{self, CertificateFiles, CertificateStore};
use crate::dataplane::quic::transmit::{Builder, Outcome};
use crate::telemetry::reason::RefusedReason;

const LISTENER: ListenerId = ListenerId(0);

/// A worker's endpoint, its clock and a client.
struct Rig {
    endpoint: Endpoint<()>,
    client: quiche::Connection,
    from: SocketAddr,
    to: SocketAddr,
    now: Instant,
    metrics: Arc<WorkerMetrics>,
    key: Option<ConnectionKey>,
    /// What was sent to where the client is not.
    astray: Vec<(Vec<u8>, SocketAddr)>,
}

fn certificates() -> (tempfile::TempDir, Arc<ArcSwap<CertificateStore>>) {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let cert = folder.path().join("cert.pem");
    let key = folder.path().join("key.pem");
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let store = CertificateStore::load(&[CertificateFiles { sni: Vec::new(), cert, key }]).unwrap();
    (folder, Arc::new(ArcSwap::from_pointee(store)))
}

fn endpoint(
    secrets: &Secrets,
    owner: Owner,
    settings: QuicSettings,
) -> (Endpoint<()>, Arc<WorkerMetrics>) {
    let (_folder, store) = certificates();
    let metrics = Arc::new(WorkerMetrics::new());
    let mut endpoint = Endpoint::new(Arc::clone(&metrics), Arc::default());
    endpoint.open(listener(store, Issuer::new(secrets, owner), settings));
    (endpoint, metrics)
}

fn listener(
    store: Arc<ArcSwap<CertificateStore>>,
    issuer: Issuer,
    settings: QuicSettings,
) -> Listener {
    let context = tls::context(store).unwrap();
    let config =
        quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, context).unwrap();
    let clock = Clock { instant: Instant::now(), wall: std::time::SystemTime::now() };
    Listener::new(LISTENER, config, settings, issuer, 1, clock)
}

fn client_config(alpn: &[u8]) -> quiche::Config {
    let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION).unwrap();
    config.verify_peer(false);
    config.set_application_protos(&[alpn]).unwrap();
    config.set_max_idle_timeout(30_000);
    config.set_initial_max_data(1 << 20);
    config.set_initial_max_stream_data_bidi_local(1 << 18);
    config.set_initial_max_stream_data_uni(1 << 18);
    config.set_initial_max_streams_uni(3);
    config.set_active_connection_id_limit(4);
    config
}

impl Rig {
    fn new(secrets: &Secrets, owner: Owner) -> Self {
        Self::with(secrets, owner, QuicSettings::default(), b"h3")
    }

    fn with(secrets: &Secrets, owner: Owner, settings: QuicSettings, alpn: &[u8]) -> Self {
        let (endpoint, metrics) = endpoint(secrets, owner, settings);
        let from: SocketAddr = "192.0.2.7:4000".parse().unwrap();
        let to: SocketAddr = "198.51.100.1:443".parse().unwrap();
        let scid = quiche::ConnectionId::from_ref(&[9; 8]);
        let client =
            quiche::connect(Some("localhost"), &scid, from, to, &mut client_config(alpn)).unwrap();
        let now = Instant::now();
        Self { endpoint, client, from, to, now, metrics, key: None, astray: Vec::new() }
    }

    fn receive(&mut self, bytes: &mut [u8], from: SocketAddr, forwarded: bool) -> Disposition {
        let arrival = Arrival { listener: LISTENER, forwarded, now: self.now };
        let path = Path { local: self.to, peer: from };
        let mut out = [0; 600];
        let answer = self.endpoint.receive(arrival, Datagram { bytes, path }, |_| true, &mut out);
        if let Disposition::Delivered(key) = answer {
            self.key = Some(key);
        }
        answer
    }

    /// What the client has to send, as datagrams. It keeps the server in spare IDs, as clients do.
    fn client_datagrams(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        while self.client.is_established() && self.client.scids_left() > 0 {
            let cid: [u8; 8] = std::array::from_fn(|_| fastrand::u8(..));
            let cid = quiche::ConnectionId::from_ref(&cid);
            self.client.new_scid(&cid, fastrand::u128(..), false).unwrap();
        }
        let mut buffer = [0; 1500];
        while let Ok((size, _)) = self.client.send(&mut buffer) {
            datagrams.push(buffer[..size].to_vec());
        }
        datagrams
    }

    /// Moves datagrams both ways until neither side has one. `from` is where the client's come from on the wire.
    fn settle(&mut self, from: SocketAddr) {
        loop {
            let mut moved = false;
            for mut datagram in self.client_datagrams() {
                moved = true;
                self.receive(&mut datagram, from, false);
            }
            if let Some(key) = self.key {
                self.endpoint.maintain(key);
            }
            for (datagram, peer) in self.server_datagrams() {
                moved = true;
                if peer != from {
                    // Where nobody is any more.
                    self.astray.push((datagram, peer));
                    continue;
                }
                let info = quiche::RecvInfo { from: self.to, to: self.from };
                let _ = self.client.recv(&mut datagram.clone(), info);
            }
            if !moved {
                return;
            }
        }
    }

    fn server_datagrams(&mut self) -> Vec<(Vec<u8>, SocketAddr)> {
        let mut datagrams = Vec::new();
        let Some(connection) = self.key.and_then(|key| self.endpoint.get_mut(key)) else {
            return datagrams;
        };
        let outcome = connection.transmit(&mut Builder::new(), 10, |train| {
            for datagram in train.bytes.chunks(train.segment_size) {
                datagrams.push((datagram.to_vec(), train.path.peer));
            }
            Ok(())
        });
        assert_eq!(outcome, Outcome::Idle);
        datagrams
    }

    fn establish(&mut self) -> ConnectionKey {
        self.settle(self.from);
        assert!(self.client.is_established());
        let key = self.key.unwrap();
        let (now, metrics) = (self.now, Arc::clone(&self.metrics));
        let connection = self.endpoint.get_mut(key).unwrap();
        assert!(connection.became_established(now, &metrics));
        assert!(!connection.became_established(now, &metrics));
        key
    }
}

fn me() -> Owner {
    Owner { worker: 3, generation: 1 }
}

#[test]
fn what_comes_late_under_a_retired_id_ends_nothing() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    let key = rig.establish();
    let before = rig.endpoint.get_mut(key).unwrap().issued.len();
    assert_eq!(rig.client.stream_send(0, b"late", false), Ok(4));
    let mut late = rig.client_datagrams();
    rig.client.retire_dcid(0).unwrap();
    // In the same turn of the worker, and in the other order.
    for mut datagram in rig.client_datagrams() {
        rig.receive(&mut datagram, rig.from, false);
    }
    for datagram in &mut late {
        let disposition = rig.receive(datagram, rig.from, false);
        assert!(!matches!(disposition, Disposition::Delivered(_)), "{disposition:?}");
    }
    let connection = rig.endpoint.get_mut(key).unwrap();
    assert_eq!((connection.transport.local_error(), connection.issued.len()), (None, before - 1));
    rig.settle(rig.from);
    assert_eq!(rig.endpoint.get_mut(key).unwrap().issued.len(), before);
}

#[test]
fn a_handshake_gives_the_client_spare_ids_that_lead_here() {
    let secrets = Secrets::random(2, [1, 2, 3]);
    let mut rig = Rig::new(&secrets, me());
    let key = rig.establish();
    let connection = rig.endpoint.get_mut(key).unwrap();
    assert_eq!(connection.issued.len(), 4);
    let issuer = Issuer::new(&secrets, me());
    for cid in connection.issued.clone() {
        assert_eq!(issuer.open(&cid), Some(me()));
        assert_eq!(rig.endpoint.issued.get(&cid), Some(&key));
    }
    assert_eq!(rig.client.available_dcids(), 3);
    assert_eq!(rig.metrics.handshakes_completed.value(), 1);
    assert!(rig.metrics.steer_right.value() > 0);
}

//= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-3.1
//= type=test
//# Servers MUST NOT generate new connection IDs using an old configuration
//# after receiving a new one from the configuration agent.
//= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-3.1
//= type=test
//# Servers MUST use that QUIC version's methods to update the client with
//# CIDs (e.g., NEW_CONNECTION_ID frames) using the new configuration and
//# retire CIDs using the old configuration.
#[test]
fn ids_of_another_configuration_replace_those_of_the_former() {
    let former = Secrets::random(2, [1, 2, 3]);
    let mut rig = Rig::new(&former, me());
    let key = rig.establish();
    let (_folder, store) = certificates();
    let issuer = Issuer::new(&Secrets::random(3, [1, 2, 3]), me());
    let next = listener(store, issuer, QuicSettings::default());
    rig.endpoint.open(next.with_former(vec![Issuer::new(&former, me())]));
    // One of a former configuration that leads nowhere any more is still known for ours.
    let mut stale = vec![0x40; 60];
    stale[1..21].copy_from_slice(&Issuer::new(&former, me()).issue());
    let from = rig.from;
    assert!(matches!(rig.receive(&mut stale, from, false), Disposition::Reply(_)));
    for _round in 0..3 {
        rig.client.send_ack_eliciting().unwrap();
        rig.settle(from);
    }
    let configurations = |rig: &mut Rig| -> Vec<u8> {
        let issued = rig.endpoint.get_mut(key).unwrap().issued.clone();
        assert!(issued.iter().all(|cid| rig.endpoint.issued.get(cid) == Some(&key)));
        issued.iter().map(|cid| cid[0] >> 5).collect()
    };
    assert_eq!(configurations(&mut rig), [3, 3, 3, 3]);
    assert_eq!(rig.endpoint.issued.len(), 4, "those asked back lead nowhere");
    assert!(rig.client.is_established() && !rig.client.is_draining());
    // And nothing more is exchanged for its own sake.
    let after = rig.endpoint.get_mut(key).unwrap().issued.clone();
    rig.client.send_ack_eliciting().unwrap();
    rig.settle(from);
    assert_eq!(rig.endpoint.get_mut(key).unwrap().issued, after);
}

#[test]
fn another_workers_packets_are_strays_once() {
    let secrets = Secrets::random(5, [7; 3]);
    let mut owner = Rig::new(&secrets, me());
    owner.establish();
    let mut other = Rig::new(&secrets, Owner { worker: 1, generation: 1 });
    owner.client.send_ack_eliciting().unwrap();
    let mut datagram = owner.client_datagrams().remove(0);
    let from = owner.from;
    assert_eq!(other.receive(&mut datagram.clone(), from, false), Disposition::Stray(me()));
    // Handed over and still unknown: its connection is gone, so the client is told instead of sent round again.
    assert!(matches!(other.receive(&mut datagram, from, true), Disposition::Reply(_)));
}

#[test]
fn a_packet_of_an_old_generation_is_answered_with_the_reset_its_client_knows() {
    let secrets = Secrets::random(5, [7; 3]);
    let mut old = Rig::new(&secrets, me());
    old.establish();
    let mut new = Rig::new(&secrets, Owner { worker: 3, generation: 2 });
    old.client.send_ack_eliciting().unwrap();
    let mut datagram = old.client_datagrams().remove(0);
    datagram.resize(100, 0);
    let arrival = Arrival { listener: LISTENER, forwarded: false, now: new.now };
    let path = Path { local: old.to, peer: old.from };
    let mut out = [0; 600];
    let datagram = Datagram { bytes: &mut datagram, path };
    let Disposition::Reply(size) = new.endpoint.receive(arrival, datagram, |_| true, &mut out)
    else {
        panic!("no reset")
    };
    assert_eq!(new.metrics.steer_old_generation.value(), 1);
    let info = quiche::RecvInfo { from: old.to, to: old.from };
    let _ = old.client.recv(&mut out[..size], info);
    assert!(old.client.is_draining() || old.client.is_closed(), "the client took the reset");
}

#[test]
fn resets_are_rate_limited() {
    let secrets = Secrets::random(0, [0; 3]);
    let stateless_resets = ResetRate { per_second: 5, per_source: 5 };
    let settings = QuicSettings { stateless_resets, ..QuicSettings::default() };
    let mut rig = Rig::with(&secrets, me(), settings, b"h3");
    let gone = Issuer::new(&secrets, me());
    let mut replies = 0;
    for _ in 0..50 {
        let mut datagram = vec![0x40; 60];
        datagram[1..21].copy_from_slice(&gone.issue());
        let from = rig.from;
        replies +=
            usize::from(matches!(rig.receive(&mut datagram, from, false), Disposition::Reply(_)));
    }
    assert_eq!(replies, 5);
    assert_eq!(rig.metrics.stateless_resets_limited.value(), 45);
}

//= https://www.rfc-editor.org/rfc/rfc9000#section-10.3
//= type=test
//# Endpoints MUST discard packets that are too small to be valid QUIC
//# packets.
#[test]
fn what_may_not_open_a_connection_is_dropped_for_its_reason() {
    let secrets = Secrets::random(0, [0; 3]);
    let mut rig = Rig::new(&secrets, me());
    let from = rig.from;
    let mut initial = rig.client_datagrams().remove(0);
    let mut handshake = initial.clone();
    handshake[0] = 0xe0;
    let mut version = initial.clone();
    version[1..5].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    let cases: [(Vec<u8>, DropReason); 6] = [
        (Vec::new(), DropReason::Empty),
        (vec![0x40; 10], DropReason::Malformed),
        (vec![0x41; 60], DropReason::UnknownConnection),
        (initial[..1199].to_vec(), DropReason::TooShort),
        (handshake, DropReason::NotInitial),
        (version[..1199].to_vec(), DropReason::TooShort),
    ];
    for (mut bytes, reason) in cases {
        let before = rig.metrics.datagrams_dropped[reason].value();
        assert_eq!(rig.receive(&mut bytes, from, false), Disposition::Dropped, "{reason:?}");
        assert_eq!(rig.metrics.datagrams_dropped[reason].value(), before + 1, "{reason:?}");
    }
    assert!(matches!(rig.receive(&mut version, from, false), Disposition::Reply(_)));
    assert_eq!(rig.metrics.version_negotiations.value(), 1);
    assert!(rig.endpoint.is_empty());
    for port in [0, 53, 1023, 1900, 5353, 11_211] {
        let service = SocketAddr::new(from.ip(), port);
        for bytes in [&initial, &version] {
            assert_eq!(rig.receive(&mut bytes.clone(), service, false), Disposition::Dropped);
        }
    }
    assert_eq!(rig.metrics.datagrams_dropped[DropReason::SourcePort].value(), 12);
    let client = SocketAddr::new(from.ip(), 1024);
    assert!(matches!(rig.receive(&mut initial, client, false), Disposition::Delivered(_)));
}

/// What becomes of the first datagram of another client.
fn another(rig: &mut Rig) -> Disposition {
    let scid = quiche::ConnectionId::from_ref(&[8; 8]);
    let (from, to) = (rig.from, rig.to);
    let mut client = quiche::connect(None, &scid, from, to, &mut client_config(b"h3")).unwrap();
    let mut buffer = [0; 1500];
    let (size, _) = client.send(&mut buffer).unwrap();
    rig.receive(&mut buffer[..size], from, false)
}

#[test]
fn no_more_connections_than_allowed_and_none_while_draining() {
    let secrets = Secrets::random(0, [0; 3]);
    let settings = QuicSettings { max_connections: 1, ..QuicSettings::default() };
    let mut rig = Rig::with(&secrets, me(), settings, b"h3");
    let key = rig.establish();
    assert_eq!(another(&mut rig), Disposition::Dropped);
    assert_eq!(rig.metrics.connections_refused[RefusedReason::Limit].value(), 1);
    assert!(rig.endpoint.remove(key).is_some());
    assert!(rig.endpoint.get_mut(key).is_none());
    assert!(rig.endpoint.issued.is_empty() && rig.endpoint.originals.is_empty());
    assert!(matches!(another(&mut rig), Disposition::Delivered(_)));
    rig.endpoint.drain();
    assert_eq!(another(&mut rig), Disposition::Dropped);
    assert_eq!(rig.metrics.connections_refused[RefusedReason::Draining].value(), 1);
}

#[test]
fn no_session_lets_data_in_early() {
    let secrets = Secrets::random(0, [0; 3]);
    let mut rig = Rig::new(&secrets, me());
    rig.establish();
    let session = rig.client.session().expect("the server resumes sessions").to_vec();
    let mut config = client_config(b"h3");
    config.enable_early_data();
    let scid = quiche::ConnectionId::from_ref(&[8; 8]);
    let (from, to) = (rig.from, rig.to);
    let mut client = quiche::connect(Some("localhost"), &scid, from, to, &mut config).unwrap();
    client.set_session(&session).unwrap();
    let mut buffer = [0; 1500];
    while client.send(&mut buffer).is_ok() {}
    assert!(!client.is_in_early_data());
}

#[test]
fn a_client_that_has_filled_a_window_is_counted() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    let key = rig.establish();
    let window = QuicSettings::default().stream_window.initial as usize;
    let mut sent = 0;
    while sent < window {
        // As much as the client's congestion window lets out at once.
        sent += rig.client.stream_send(0, &vec![0; window + 1 - sent], false).unwrap();
        rig.settle(rig.from);
    }
    assert_eq!((sent, rig.client.stream_send(0, b"x", false)), (window, Err(quiche::Error::Done)));
    rig.settle(rig.from);
    let metrics = Arc::clone(&rig.metrics);
    rig.endpoint.get_mut(key).unwrap().report(&metrics);
    assert!(metrics.windows_blocked.value() > 0);
    assert_eq!(metrics.streams_blocked.value(), 0);
}

#[test]
fn so_many_handshakes_may_be_under_way() {
    let secrets = Secrets::random(0, [0; 3]);
    let mut settings = QuicSettings::default();
    settings.address_validation.max_half_open = 2;
    let mut rig = Rig::with(&secrets, me(), settings, b"h3");
    for _ in 0..2 {
        assert!(matches!(another(&mut rig), Disposition::Delivered(_)));
    }
    assert_eq!(another(&mut rig), Disposition::Dropped);
    assert_eq!(rig.metrics.connections_refused[RefusedReason::HalfOpen].value(), 1);
    rig.endpoint.remove(rig.key.unwrap()).unwrap();
    assert!(matches!(another(&mut rig), Disposition::Delivered(_)));
}

#[test]
fn all_listeners_together_may_have_so_many_connections() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    rig.endpoint.set_connections_max(2);
    for _ in 0..2 {
        assert!(matches!(another(&mut rig), Disposition::Delivered(_)));
    }
    assert_eq!(another(&mut rig), Disposition::Dropped);
    assert_eq!(rig.metrics.connections_refused[RefusedReason::All].value(), 1);
    rig.endpoint.set_connections_max(3);
    assert!(matches!(another(&mut rig), Disposition::Delivered(_)));
}

//= https://www.rfc-editor.org/rfc/rfc9000#section-10.3
//= type=test
//# An endpoint that wishes to communicate a fatal connection error MUST use
//# a CONNECTION_CLOSE frame if it is able.
#[test]
fn a_client_without_h3_is_refused_with_its_alert() {
    let secrets = Secrets::random(0, [0; 3]);
    let mut rig = Rig::with(&secrets, me(), QuicSettings::default(), b"hq-interop");
    rig.settle(rig.from);
    // RFC 9001 §8.1: no_application_protocol, alert 120.
    assert_eq!(rig.client.peer_error().map(|error| error.error_code), Some(0x100 + 120));
    let alpn = crate::telemetry::reason::HandshakeFailure::Alpn;
    assert_eq!(rig.metrics.handshakes_failed[alpn].value(), 1);
    assert!(rig.endpoint.remove(rig.key.unwrap()).is_some());
    assert_eq!(rig.metrics.handshakes_failed[alpn].value(), 1, "counted once");
}

#[test]
fn random_datagrams_do_no_harm() {
    let secrets = Secrets::random(0, [0; 3]);
    let mut rig = Rig::new(&secrets, me());
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let initial = rig.client_datagrams().remove(0);
    let from = rig.from;
    for _ in 0..20_000 {
        let mut bytes = if random.bool() {
            let mut bytes = initial.clone();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..bytes.len().min(60));
                bytes[at] = random.u8(..);
            }
            bytes
        } else {
            (0..random.usize(..1400)).map(|_| random.u8(..)).collect()
        };
        rig.receive(&mut bytes, from, random.bool());
    }
    assert!(rig.endpoint.len() <= QuicSettings::default().max_connections);
}
