//! How long a client is waited for: in its handshake (decision 0073), and until it has given connection IDs back.

use super::*;
use crate::telemetry::reason::HandshakeFailure;

/// When a handshake is given up, in seconds after its Initial, if the client says this after so many.
fn patience(after: Duration, then: impl FnOnce(&mut Rig, Vec<Vec<u8>>) -> Vec<Vec<u8>>) -> u64 {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    let accepted = rig.now;
    let hello = rig.client_datagrams();
    for mut datagram in hello.clone() {
        rig.receive(&mut datagram, rig.from, false);
    }
    rig.now += after;
    for mut datagram in then(&mut rig, hello) {
        rig.receive(&mut datagram, rig.from, false);
    }
    let (metrics, key) = (Arc::clone(&rig.metrics), rig.key.unwrap());
    let connection = rig.endpoint.get_mut(key).unwrap();
    let given_up = |second: &u64| {
        connection.on_timeout(accepted + Duration::from_secs(*second), &metrics);
        metrics.handshakes_failed[HandshakeFailure::Timeout].value() > 0
    };
    (1..60).find(given_up).unwrap()
}

#[test]
fn a_handshake_is_waited_for_longer_when_the_client_is_heard_again() {
    let [at_once, later] = [10, 2000].map(Duration::from_millis);
    assert_eq!(patience(later, |_, _| Vec::new()), 5);
    assert_eq!(patience(at_once, |_, hello| hello), 5);
    assert_eq!(patience(later, |_, hello| hello), 30);
    let receives = |rig: &mut Rig, _| {
        let info = quiche::RecvInfo { from: rig.to, to: rig.from };
        for (mut datagram, _) in rig.server_datagrams() {
            rig.client.recv(&mut datagram, info).unwrap();
        }
        let mut second_flight = rig.client_datagrams();
        assert!(!second_flight.is_empty());
        // It names our ID, and what it says is spoiled on the way.
        for octet in second_flight.iter_mut().flat_map(|datagram| datagram.iter_mut().skip(40)) {
            *octet ^= 1;
        }
        second_flight
    };
    assert_eq!(patience(at_once, receives), 30);
}

/// A client that is slow to give IDs back is asked for no more than it has (RFC 9000 §19.15: Retire Prior To is not above the
/// sequence number of its frame), however often the worker turns meanwhile.
#[test]
fn ids_are_not_asked_back_before_others_are_there() {
    let former = Secrets::random(2, [1, 2, 3]);
    let mut rig = Rig::new(&former, me());
    let key = rig.establish();
    let (_folder, store) = certificates();
    let issuer = Issuer::new(&Secrets::random(3, [1, 2, 3]), me());
    let next = listener(store, issuer, QuicSettings::default());
    rig.endpoint.open(next.with_former(vec![Issuer::new(&former, me())]));
    for _turn in 0..20 {
        rig.endpoint.maintain(key);
    }
    for _round in 0..3 {
        rig.client.send_ack_eliciting().unwrap();
        rig.settle(rig.from);
    }
    assert_eq!(rig.client.local_error(), None);
    let issued = rig.endpoint.get_mut(key).unwrap().issued.clone();
    assert_eq!(issued.iter().map(|cid| cid[0] >> 5).collect::<Vec<_>>(), [3, 3, 3, 3]);
}
