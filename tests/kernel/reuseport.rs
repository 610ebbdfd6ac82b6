//! The reuseport program with real sockets: who gets a datagram, and the counters that prove by which way. There is
//! no test run for this program type.

use spooky_common::{
    cid::Owner,
    counter::Counter::{self, *},
    map,
};
use spooky_user::controlplane::kernel::{Desired, Kernel, KernelError, Mode};

use crate::{
    frames::{long, our_cid, short},
    group::{Group, KEY, client, desired, gained, kernel, send, send_from, settings},
    rig::{self, moved},
};

fn steered(test: &str, weights: &[u16], generation: u8) -> Option<(Kernel, Group, Desired)> {
    let mut kernel = kernel(test, &settings(Mode::Reuseport))?;
    let group = Group::loopback(weights.len());
    kernel.join_group(0, &group.owners(generation)).expect("join");
    let desired = desired(generation, weights, &[group.address]);
    kernel.apply(&desired).expect("apply");
    Some((kernel, group, desired))
}

fn initial(number: u64) -> Vec<u8> {
    let mut packet = long(0xc0, 1, &number.to_be_bytes());
    packet.truncate(60);
    packet
}

/// Sends `count` Initials of new connections and says who got how many.
fn initials(group: &Group, count: u64) -> Vec<usize> {
    let client = client(group.address);
    let mut sum = vec![0; group.sockets.len()];
    for number in 0..count {
        client.send(&initial(number)).expect("send");
        // One by one: a burst would test the receive buffer, not the program.
        for (sum, got) in sum.iter_mut().zip(group.received(1)) {
            *sum += got;
        }
    }
    sum
}

fn live(worker: u8, generation: u8) -> Owner {
    Owner { worker, generation }
}

#[test]
fn our_ids_reach_their_worker_and_generation() {
    let Some(mut kernel) = kernel("owners", &settings(Mode::Reuseport)) else { return };
    // Two processes' worth of workers in one group: generations 15 and 0.
    let group = Group::loopback(16);
    let owners: Vec<_> = group
        .owners(15)
        .into_iter()
        .enumerate()
        .map(|(at, (_, socket))| (live(at as u8 % 8, if at < 8 { 15 } else { 0 }), socket))
        .collect();
    kernel.join_group(0, &owners).expect("join");
    kernel.apply(&desired(0, &[1; 8], &[group.address])).expect("apply");
    let before = kernel.counters().expect("counters");
    let mut sent = 0;
    for (at, (owner, _)) in owners.iter().enumerate() {
        for nonce in 0..20 {
            let dcid = our_cid(&KEY, 0, *owner, nonce * 31 + at as u64);
            // Every kind of packet that may carry our ID, each from another source port.
            for packet in [short(&dcid), long(0xc0, 1, &dcid), long(0xe0, 1, &dcid)] {
                let client = client(group.address);
                let receiver = group.receiver(|| send_from(&client, &packet));
                assert_eq!(receiver, at, "{owner:?}");
                sent += 1;
            }
        }
    }
    assert_eq!(gained(&kernel, &before), [(ReuseportOwner, sent)]);
}

#[test]
fn new_flows_spread_by_weight() {
    let Some((mut kernel, group, mut desired)) = steered("spread", &[300, 100, 0, 100], 2) else {
        return;
    };
    let before = kernel.counters().expect("counters");
    let got = initials(&group, 2000);
    // 2000 x 3/5 with a standard deviation of 22, 2000 x 1/5 with 18: five of them, and the half slot that rounding
    // may move.
    assert!(
        got[0].abs_diff(1200) < 115 && got[1].abs_diff(400) < 95 && got[3].abs_diff(400) < 95,
        "{got:?}"
    );
    assert_eq!(got[2], 0, "weight 0 gets no new connection");
    assert_eq!(gained(&kernel, &before), [(ReuseportNewFlow, 2000)]);
    // But its own connections reach it.
    let dcid = our_cid(&KEY, 0, live(2, 2), 1);
    assert_eq!(group.receiver(|| send(group.address, &short(&dcid))), 2);
    // A new weight is in force with the next packet.
    desired.workers[0].weight = 0;
    desired.workers[1].weight = 0;
    assert!(kernel.apply(&desired).expect("apply").slots > 0);
    assert_eq!(initials(&group, 50), [0, 0, 0, 50]);
}

#[test]
fn a_first_flight_stays_together() {
    let Some((_kernel, group, _)) = steered("first flight", &[1; 8], 0) else { return };
    for number in 0..40_u64 {
        let dcid = number.to_be_bytes();
        let first = group.receiver(|| send(group.address, &initial(number)));
        for packet in [long(0xc0, 1, &dcid), long(0xd0, 1, &dcid)] {
            // From another port, as after a rebinding in the first round trip.
            let client = client(group.address);
            assert_eq!(group.receiver(|| send_from(&client, &packet)), first);
        }
    }
}

#[test]
fn strangers_stay_with_one_worker() {
    let Some((kernel, group, _)) = steered("strangers", &[1; 8], 0) else { return };
    let before = kernel.counters().expect("counters");
    for _ in 0..20 {
        let client = client(group.address);
        let packets = [short(&[0xb3; 20]), long(0xe0, 1, &[1; 8]), vec![1, 2, 3], Vec::new()];
        let receivers: Vec<_> =
            packets.iter().map(|packet| group.receiver(|| send_from(&client, packet))).collect();
        assert!(receivers.iter().all(|receiver| *receiver == receivers[0]), "{receivers:?}");
    }
    let expected =
        [(ReuseportUnknownLong, 20), (ReuseportUnknownShort, 20), (ReuseportNotQuic, 40)];
    assert_eq!(gained(&kernel, &before), expected);
}

#[test]
fn h05_an_unreachable_worker_loses_its_packets_and_gets_them_back() {
    let Some((mut kernel, group, mut desired)) = steered("unreachable", &[1; 4], 1) else { return };
    let dcid = our_cid(&KEY, 0, live(2, 1), 9);
    let to_owner = || group.receiver(|| send(group.address, &short(&dcid)));
    assert_eq!(to_owner(), 2);

    desired.workers[2].reachable = false;
    let applied = kernel.apply(&desired).expect("apply");
    assert_eq!((applied.sockets, applied.slots), (1, 64));
    let before = kernel.counters().expect("counters");
    for _ in 0..20 {
        assert_ne!(to_owner(), 2);
    }
    assert_eq!(gained(&kernel, &before), [(ReuseportOwnerGone, 20)]);
    assert_eq!(initials(&group, 100)[2], 0);

    desired.workers[2].reachable = true;
    let applied = kernel.apply(&desired).expect("apply");
    assert_eq!((applied.sockets, applied.slots), (1, 64));
    assert_eq!(to_owner(), 2);

    // A worker that is gone for good: its duplicates are dropped, and its packets go to the living.
    kernel.forget_worker(2);
    let before = kernel.counters().expect("counters");
    let _ = to_owner();
    let gained = gained(&kernel, &before);
    assert!(
        gained == [(ReuseportOwnerGone, 1)] || gained == [(ReuseportRefused, 1)],
        "{gained:?}: slots still name it until the next apply"
    );
    assert_eq!(kernel.apply(&desired).expect("apply").sockets, 0, "nothing to put back");
}

#[test]
fn h05_a_forgotten_worker_can_come_back_with_new_sockets() {
    let Some((mut kernel, mut group, desired)) = steered("worker restart", &[1; 3], 0) else {
        return;
    };
    kernel.forget_worker(1);
    let port = group.address.port();
    let fresh = Group::bind(group.address.ip(), port, 1);
    group.sockets[1] = fresh.sockets.into_iter().next().expect("one socket");
    kernel.join_group(0, &group.owners(0)[1..2]).expect("join again");
    assert_eq!(kernel.apply(&desired).expect("apply").total(), 0);
    let dcid = our_cid(&KEY, 0, live(1, 0), 4);
    assert_eq!(group.receiver(|| send(group.address, &short(&dcid))), 1);
}

#[test]
fn the_same_state_twice_changes_nothing() {
    let Some((mut kernel, group, mut desired)) = steered("idempotent", &[3, 2, 1], 0) else {
        return;
    };
    assert_eq!(kernel.apply(&desired).expect("apply").total(), 0);
    desired.keys[4] = Some(KEY);
    assert_eq!(kernel.apply(&desired).expect("apply").keys, 1);
    desired.access.default_deny = true;
    assert_eq!(kernel.apply(&desired).expect("apply").settings, 1);
    desired.listeners.clear();
    // Port and address.
    assert_eq!(kernel.apply(&desired).expect("apply").listeners, 2);
    let before = kernel.counters().expect("counters");
    assert_eq!(initials(&group, 20).iter().sum::<usize>(), 20);
    assert_eq!(gained(&kernel, &before), [(ReuseportOtherPort, 20)]);
}

#[test]
fn before_the_first_apply_the_kernels_hash_decides() {
    let Some(mut kernel) = kernel("not applied", &settings(Mode::Reuseport)) else { return };
    let group = Group::loopback(4);
    kernel.join_group(0, &group.owners(0)).expect("join");
    let before = kernel.counters().expect("counters");
    for number in 0..40 {
        let _ = group.receiver(|| send(group.address, &initial(number)));
    }
    assert_eq!(gained(&kernel, &before), [(ReuseportOtherPort, 40)]);
}

/// An ID of ours that names a worker or a generation that never was, and one whose socket was closed behind our back.
#[test]
fn h05_an_owner_without_a_socket_costs_a_hop_and_no_packet() {
    let Some((kernel, mut group, _)) = steered("no socket", &[1; 4], 0) else { return };
    let before = kernel.counters().expect("counters");
    for owner in [live(200, 0), live(255, 15), live(1, 9)] {
        let packet = short(&our_cid(&KEY, 0, owner, 3));
        for _ in 0..10 {
            let _ = group.receiver(|| send(group.address, &packet));
        }
    }
    assert_eq!(gained(&kernel, &before), [(ReuseportOwnerGone, 30)]);
    // The duplicate that the control plane holds keeps the group's socket alive until it lets go of the worker.
    let mut kernel = kernel;
    drop(group.sockets.remove(1));
    kernel.forget_worker(1);
    let ours = short(&our_cid(&KEY, 0, live(1, 0), 5));
    for number in 0..40 {
        for packet in [&ours, &initial(number)] {
            let _ = group.receiver(|| send(group.address, packet));
        }
    }
}

#[test]
fn h05_dead_slots_fall_back_to_the_kernels_hash() {
    let Some((kernel, group, _)) = steered("dead slots", &[0; 4], 0) else { return };
    let before = kernel.counters().expect("counters");
    let mut got = [0; 4];
    for number in 0..200 {
        got[group.receiver(|| send(group.address, &initial(number)))] += 1;
    }
    assert!(got.iter().all(|got| *got > 10), "{got:?}");
    assert_eq!(gained(&kernel, &before), [(ReuseportDeadSlot, 200)]);
}

#[test]
fn listeners_do_not_mix() {
    let Some(mut kernel) = kernel("listeners", &settings(Mode::Reuseport)) else { return };
    // One port on two addresses, another on the wildcard of both families.
    let first = Group::loopback(3);
    let second = Group::bind("127.0.0.2".parse().expect("an address"), first.address.port(), 3);
    let dual = Group::bind("::".parse().expect("an address"), 0, 3);
    for (index, group) in [&first, &second, &dual].into_iter().enumerate() {
        kernel.join_group(index as u16, &group.owners(0)).expect("join");
    }
    kernel
        .apply(&desired(0, &[1; 3], &[first.address, second.address, dual.address]))
        .expect("apply");
    let before = kernel.counters().expect("counters");
    let port = dual.address.port();
    let v4 = format!("127.0.0.1:{port}").parse().expect("an address");
    let v6 = format!("[::1]:{port}").parse().expect("an address");
    for worker in 0..3 {
        let packet = short(&our_cid(&KEY, 0, live(worker, 0), 1));
        for (group, to) in
            [(&first, first.address), (&second, second.address), (&dual, v4), (&dual, v6)]
        {
            let receiver = group.receiver(|| send(to, &packet));
            assert_eq!(receiver, usize::from(worker), "{to}");
        }
    }
    assert_eq!(gained(&kernel, &before), [(ReuseportOwner, 12)]);
}

#[test]
fn what_cannot_be_steered_is_said() {
    let Some(mut kernel) = kernel("errors", &settings(Mode::Reuseport)) else { return };
    let plain = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let owners = [(live(0, 0), std::os::fd::AsFd::as_fd(&plain))];
    assert!(matches!(kernel.join_group(0, &owners), Err(KernelError::Group { listener: 0, .. })));
    let group = Group::loopback(1);
    assert!(matches!(
        kernel.join_group(16, &group.owners(0)),
        Err(KernelError::ListenerNumber(16))
    ));
    kernel.join_group(0, &group.owners(0)).expect("join");
    let again = kernel.join_group(1, &group.owners(0));
    assert!(matches!(again, Err(KernelError::Socket { listener: 1, worker: 0, .. })), "{again:?}");
}

#[test]
fn dropping_the_kernel_detaches_the_program() {
    let Some((kernel, group, _)) = steered("detach", &[0, 1], 0) else { return };
    assert_eq!(initials(&group, 20), [0, 20]);
    drop(kernel);
    let mut got = [0; 2];
    for number in 0..200 {
        got[group.receiver(|| send(group.address, &initial(number)))] += 1;
    }
    assert!(got[0] > 20, "{got:?}: worker 0 has weight 0 only as long as the program is there");
}

#[test]
fn h05_a_poisoned_slot_table_loses_nothing() {
    let Some(mut rig) = rig::load("poisoned slots") else { return };
    let group = Group::loopback(4);
    rig.reuseport().attach(&group.sockets[0]).expect("attach");
    let mut setup = rig::Setup { listeners: vec![group.address], ..rig::Setup::default() };
    setup.keys[0] = Some(KEY);
    rig.apply(&setup);
    // Every slot names a worker that never was, of another generation; the socket array is empty.
    rig.slots(|slot| Some(live(slot as u8 | 0x80, 7)));
    let ours = short(&our_cid(&KEY, 0, live(1, 0), 1));
    let before = rig.counters();
    for number in 0..50 {
        for packet in [initial(number), ours.clone()] {
            let client = client(group.address);
            let _ = group.receiver(|| send_from(&client, &packet));
        }
    }
    assert_eq!(moved(&before, &rig.counters()), [(ReuseportRefused, 100)]);
    // All slots to one worker, with its socket in the array: everything reaches it but what has an owner.
    let sockets = rig.ebpf.map_mut(map::SOCKETS).expect("in the object");
    let mut sockets: aya::maps::ReusePortSockArray<_> = sockets.try_into().expect("socket array");
    for (owner, socket) in group.owners(0) {
        use std::os::fd::AsRawFd as _;
        sockets.set(map::socket_index(0, owner), &socket.as_raw_fd(), 0).expect("set");
    }
    rig.slots(|_| Some(live(3, 0)));
    assert_eq!(initials(&group, 50), [0, 0, 0, 50]);
    assert_eq!(group.receiver(|| send(group.address, &ours)), 1);
}

/// Every reuseport counter is proven by some test above.
#[test]
fn no_reuseport_counter_is_untested() {
    let source = include_str!("reuseport.rs");
    for counter in Counter::ALL {
        let name = format!("{counter:?}");
        assert!(!name.starts_with("Reuseport") || source.contains(&format!("({name}, ")), "{name}");
    }
}
