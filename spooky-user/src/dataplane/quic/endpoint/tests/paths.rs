//! Clients that move: what counts as where they are, what they may try, what is sent again.

use super::*;

//= https://www.rfc-editor.org/rfc/rfc9000#section-9
//= type=test
//# An endpoint MUST perform path validation (Section 8.2) if it detects any
//# change to a peer's address, unless it has previously validated that
//# address.
//= https://www.rfc-editor.org/rfc/rfc9000#section-9.3
//= type=test
//# If the recipient permits the migration, it MUST send subsequent packets
//# to the new peer address and MUST initiate path validation (Section 8.2)
//# to verify the peer's ownership of the address if validation is not
//# already underway.
#[test]
fn a_rebinding_keeps_the_connection_and_moves_the_client_only_when_validated() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    let key = rig.establish();
    let rebound: SocketAddr = "192.0.2.7:4001".parse().unwrap();
    let old = rig.from;
    rig.client.send_ack_eliciting().unwrap();
    for mut datagram in rig.client_datagrams() {
        assert_eq!(rig.receive(&mut datagram, rebound, false), Disposition::Delivered(key));
    }
    assert_eq!(rig.endpoint.get_mut(key).unwrap().client(), old, "claimed, not validated");
    rig.settle(rebound);
    rig.client.send_ack_eliciting().unwrap();
    rig.settle(rebound);
    assert_eq!(rig.endpoint.get_mut(key).unwrap().client(), rebound);
    assert_eq!(rig.metrics.migrations_validated.value(), 1);
    assert_eq!(rig.metrics.connections_accepted.value(), 1);
}

/// Where the client was, one challenge goes when it has moved, and from then on nothing while nothing comes from there.
//= https://www.rfc-editor.org/rfc/rfc9000#section-9.3.3
//= type=test
//# In response to an apparent migration, endpoints MUST validate the
//# previously active path using a PATH_CHALLENGE frame.
#[test]
fn the_old_path_is_challenged_once() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    let key = rig.establish();
    let (old, rebound) = (rig.from, "192.0.2.7:4001".parse().unwrap());
    rig.client.send_ack_eliciting().unwrap();
    rig.settle(rebound);
    assert_eq!(rig.endpoint.get_mut(key).unwrap().client(), rebound);
    let [(challenge, to)] = &rig.astray[..] else { panic!("{} datagrams", rig.astray.len()) };
    assert_eq!(*to, old);
    // It was the client's all along: what it answers from there moves it back.
    let info = quiche::RecvInfo { from: rig.to, to: rig.from };
    rig.client.recv(&mut challenge.clone(), info).unwrap();
    rig.client.send_ack_eliciting().unwrap();
    rig.settle(old);
    assert_eq!(rig.endpoint.get_mut(key).unwrap().client(), old);
}

//= https://www.rfc-editor.org/rfc/rfc9000#section-8.2.2
//= type=test
//# A PATH_RESPONSE frame MUST be sent on the network path where the
//# PATH_CHALLENGE frame was received.
#[test]
fn a_challenge_from_where_the_client_was_is_answered_there() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    let key = rig.establish();
    let (old, rebound) = (rig.from, "192.0.2.7:4001".parse().unwrap());
    for _round in 0..2 {
        rig.client.send_ack_eliciting().unwrap();
        rig.settle(rebound);
    }
    assert_eq!(rig.endpoint.get_mut(key).unwrap().client(), rebound);
    rig.client.probe_path(rig.from, rig.to).unwrap();
    let mut challenge = rig.client_datagrams().remove(0);
    assert_eq!(rig.receive(&mut challenge, old, false), Disposition::Delivered(key));
    let peers: Vec<SocketAddr> = rig.server_datagrams().into_iter().map(|(_, to)| to).collect();
    assert!(peers.contains(&old), "{peers:?}");
}

#[test]
fn a_denied_address_cannot_migrate_in() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    rig.establish();
    rig.client.send_ack_eliciting().unwrap();
    let denied: SocketAddr = "203.0.113.9:4000".parse().unwrap();
    let mut datagram = rig.client_datagrams().remove(0);
    let arrival = Arrival { listener: LISTENER, forwarded: false, now: rig.now };
    let path = Path { local: rig.to, peer: denied };
    let datagram = Datagram { bytes: &mut datagram, path };
    let answer = rig.endpoint.receive(arrival, datagram, |ip| ip != denied.ip(), &mut [0; 600]);
    assert_eq!(answer, Disposition::Dropped);
}

/// One datagram of the client's that wants an answer.
fn ping(rig: &mut Rig) -> Vec<u8> {
    rig.client.send_ack_eliciting().unwrap();
    rig.client_datagrams().remove(0)
}

#[test]
fn a_connection_may_try_four_paths_a_second_and_its_own_goes_on() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    let key = rig.establish();
    let own = rig.from;
    for second in 0..3 {
        let taken = (0..50).filter(|n| {
            let elsewhere = SocketAddr::from(([203, 0, 113, 9], 4000 + second * 100 + n));
            let mut datagram = ping(&mut rig);
            rig.receive(&mut datagram, elsewhere, false) == Disposition::Delivered(key)
        });
        // quiche keeps eight paths with that of the handshake.
        assert_eq!(taken.count(), [4, 3, 0][usize::from(second)], "second {second}");
        assert!(rig.endpoint.get_mut(key).unwrap().transport.path_stats().count() <= 8);
        rig.now += Duration::from_secs(1);
    }
    let dropped = rig.metrics.datagrams_dropped[DropReason::Paths].value();
    assert_eq!(dropped, 150 - 7);
    rig.server_datagrams();
    rig.client.stream_send(0, b"x", true).unwrap();
    rig.settle(own);
    let connection = rig.endpoint.get_mut(key).unwrap();
    assert!(connection.transport.readable().next().is_some(), "the request has come");
    assert_eq!((connection.client(), connection.transport.is_closed()), (own, false));
}

/// Two datagrams in one turn: quiche alone would take the second for an error of the connection.
#[test]
fn a_path_that_failed_may_be_tried_again() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    let key = rig.establish();
    let rebound: SocketAddr = "192.0.2.7:4001".parse().unwrap();
    let mut datagram = ping(&mut rig);
    rig.receive(&mut datagram, rebound, false);
    let began = Instant::now();
    while rig.metrics.path_failures.value() == 0 {
        rig.server_datagrams();
        let (now, metrics) = (Instant::now(), Arc::clone(&rig.metrics));
        rig.endpoint.get_mut(key).unwrap().on_timeout(now, &metrics);
        assert!(began.elapsed() < Duration::from_secs(20), "never given up");
        std::thread::yield_now();
    }
    let mut again = [ping(&mut rig), ping(&mut rig)];
    let [first, second] = again.each_mut().map(|it| rig.receive(it, rebound, false));
    assert_eq!((first, second), (Disposition::Delivered(key), Disposition::Dropped));
    rig.settle(rebound);
    rig.client.send_ack_eliciting().unwrap();
    rig.settle(rebound);
    let connection = rig.endpoint.get_mut(key).unwrap();
    assert_eq!((connection.transport.local_error(), connection.client()), (None, rebound));
}

#[test]
fn a_connection_counts_where_its_client_is() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    let key = rig.establish();
    let (old, new) = (rig.from, SocketAddr::from(([203, 0, 113, 9], 4000)));
    let counts = |rig: &Rig| {
        let sources = &rig.endpoint.listeners[0].counts.sources;
        [old, new].map(|address| sources.count(Source::of(address.ip())))
    };
    let mut datagram = ping(&mut rig);
    rig.receive(&mut datagram, new, false);
    rig.endpoint.maintain(key);
    assert_eq!(counts(&rig), [1, 0], "claimed, not validated");
    rig.settle(new);
    rig.client.send_ack_eliciting().unwrap();
    rig.settle(new);
    assert_eq!(counts(&rig), [0, 1]);
    assert!(rig.endpoint.remove(key).is_some());
    assert_eq!(counts(&rig), [0, 0]);
}

/// Ten times in one download the client's port changes and everything in flight is lost with the old one.
#[test]
fn what_was_in_flight_at_a_rebinding_is_sent_again() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    let key = rig.establish();
    rig.client.stream_send(0, b"x", true).unwrap();
    rig.settle(rig.from);
    let body = vec![7; 450_000];
    let (mut sent, mut received, mut moves) = (0, 0, 0);
    let mut buffer = [0; 65_536];
    let mut at = rig.from;
    let began = Instant::now();
    let mut moved = began;
    while received < body.len() {
        let waited = began.elapsed();
        rig.now = began + waited;
        let connection = rig.endpoint.get_mut(key).unwrap();
        assert!(waited < Duration::from_secs(20), "{received} of {sent} after {moves} moves");
        // As much as belongs before the next move, so that there is always something left to lose.
        let allowed = if moves < 10 { 36_000 * (moves + 1) } else { body.len() };
        sent += connection.transport.stream_send(0, &body[sent..allowed], false).unwrap_or(0);
        if moves < 10
            && received + 8_000 >= 36_000 * (moves + 1)
            && moved.elapsed() > Duration::from_millis(100)
        {
            let more = 36_000 * (moves + 2);
            let transport = &mut rig.endpoint.get_mut(key).unwrap().transport;
            sent += transport.stream_send(0, &body[sent..more], false).unwrap_or(0);
            let lost = rig.server_datagrams();
            if !lost.is_empty() {
                (moves, moved) = (moves + 1, Instant::now());
                at.set_port(at.port() + 1);
                rig.client.send_ack_eliciting().unwrap();
            }
        }
        rig.settle(at);
        while let Ok((size, _)) = rig.client.stream_recv(0, &mut buffer) {
            received += size;
        }
        let (now, metrics) = (Instant::now(), Arc::clone(&rig.metrics));
        rig.endpoint.get_mut(key).unwrap().on_timeout(now, &metrics);
        if rig.client.timeout().is_some_and(|left| left.is_zero()) {
            rig.client.on_timeout();
        }
        std::thread::yield_now();
    }
    assert_eq!(rig.metrics.migrations_validated.value(), 10);
    assert_eq!(rig.metrics.connections_accepted.value(), 1);
}

/// What is left to be sent to a path after its first challenge may be too little for a second one, for which quiche waits.
#[test]
fn a_path_that_nothing_can_be_sent_to_stops_no_other() {
    let mut rig = Rig::new(&Secrets::random(0, [0; 3]), me());
    let key = rig.establish();
    let own = rig.from;
    let victim = SocketAddr::from(([203, 0, 113, 9], 4000));
    let send = |rig: &mut Rig, octets: usize, from: SocketAddr| {
        assert_eq!(rig.client.stream_send(0, &vec![0; octets], false), Ok(octets));
        let mut datagram = rig.client_datagrams().remove(0);
        rig.receive(&mut datagram, from, false);
        datagram.len()
    };
    send(&mut rig, 100, own);
    let around = send(&mut rig, 100, own) - 100;
    rig.settle(own);
    // Three times this is a challenge of 1,350 octets and 30 more.
    assert_eq!(send(&mut rig, 460 - around, victim), 460);
    let began = Instant::now();
    let timeouts = |rig: &mut Rig| {
        let transport = &rig.endpoint.get_mut(key).unwrap().transport;
        transport.path_stats().map(|stats| stats.total_pto_count).sum::<usize>()
    };
    let before = timeouts(&mut rig);
    while timeouts(&mut rig) == before {
        rig.server_datagrams();
        let (now, metrics) = (Instant::now(), Arc::clone(&rig.metrics));
        rig.endpoint.get_mut(key).unwrap().on_timeout(now, &metrics);
        assert!(began.elapsed() < Duration::from_secs(20), "no probe time-out");
        std::thread::yield_now();
    }
    send(&mut rig, 1, own);
    let connection = rig.endpoint.get_mut(key).unwrap();
    connection.transport.stream_send(0, b"answer", true).unwrap();
    for (mut datagram, peer) in rig.server_datagrams() {
        if peer == own {
            let info = quiche::RecvInfo { from: rig.to, to: own };
            let _ = rig.client.recv(&mut datagram, info);
        }
    }
    assert_eq!(rig.client.stream_recv(0, &mut [0; 16]), Ok((6, true)));
}
