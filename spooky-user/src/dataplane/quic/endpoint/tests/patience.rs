//! How long a handshake is waited for (decision 0073).

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
