//! Allow and deny lists by real packets through generic XDP on a loopback of the test's own, and the difference that
//! is written.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use spooky_common::{counter::Counter, frame::Address, map};
use spooky_user::controlplane::kernel::{Attach, Edit, Kernel, KernelError, Mode, Running, Side};

use crate::{
    frames::short,
    group::{desired, kernel, settings},
    netns,
};

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn on_loopback(test: &str) -> Option<Kernel> {
    netns::enter(test)?;
    let mut settings = settings(Mode::Xdp);
    settings.interface = Some("lo".to_owned());
    settings.attach = Attach::Generic;
    settings.sample_every = 1;
    let mut kernel = kernel(test, &settings)?;
    assert_eq!(kernel.attach_xdp().expect("attach"), Running::XdpGeneric);
    Some(kernel)
}

/// Sends from each source, then from `last`, which must come through; says which of the others did.
fn arrived(server: &UdpSocket, sources: &[&str], last: &str) -> Vec<SocketAddr> {
    let to = server.local_addr().expect("an address");
    let last: SocketAddr = last.parse().expect("an address");
    for source in sources {
        UdpSocket::bind(source).expect("bind").send_to(&short(&[1; 20]), to).expect("send");
    }
    let closing = UdpSocket::bind(last).expect("bind");
    closing.send_to(b"last", to).expect("send");
    let closing = closing.local_addr().expect("an address");
    let mut arrived = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(5);
    server.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    loop {
        assert!(Instant::now() < deadline, "the closing datagram did not come: {arrived:?}");
        match server.recv_from(&mut [0; 64]) {
            // Loopback keeps the order, so nothing can come behind it.
            Ok((_, from)) if from == closing => return arrived,
            Ok((_, from)) => arrived.push(from),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("receive: {error}"),
        }
    }
}

fn dropped(kernel: &Kernel) -> u64 {
    let counters = kernel.counters().expect("counters");
    counters
        .iter()
        .filter(|(counter, _)| *counter == Counter::XdpDenied)
        .map(|(_, count)| count)
        .sum()
}

#[test]
fn a_denied_source_gets_nothing_and_its_neighbour_everything() {
    let Some(mut kernel) = on_loopback("lists") else { return };
    netns::ip(&["addr", "add", "fd00::66/128", "dev", "lo", "nodad"]);
    netns::ip(&["addr", "add", "fd00::67/128", "dev", "lo", "nodad"]);
    let v4 = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let v6 = UdpSocket::bind("[::1]:0").expect("bind");
    let listeners = [v4.local_addr().expect("an address"), v6.local_addr().expect("an address")];
    let mut desired = desired(0, &[1], &listeners);
    desired.access.deny = vec![net("127.0.0.66/32"), net("fd00::66/128"), net("127.9.0.0/16")];
    desired.access.allow = vec![net("127.9.9.0/24")];
    assert_eq!(kernel.apply(&desired).expect("apply").prefixes, 4);

    let came = arrived(
        &v4,
        &["127.0.0.66:0", "127.0.0.67:0", "127.9.1.1:0", "127.9.9.1:0"],
        "127.0.0.1:0",
    );
    let addresses: Vec<_> = came.iter().map(|from| from.ip().to_string()).collect();
    assert_eq!(addresses, ["127.0.0.67", "127.9.9.1"]);
    let came = arrived(&v6, &["[fd00::66]:0", "[fd00::67]:0"], "[::1]:0");
    let addresses: Vec<_> = came.iter().map(|from| from.ip().to_string()).collect();
    assert_eq!(addresses, ["fd00::67"]);
    assert_eq!(dropped(&kernel), 3);
    let mut samples = Vec::new();
    kernel.drain_samples(|sample| samples.push(*sample));
    let sources: Vec<_> = samples.iter().map(|sample| sample.source()).collect();
    let denied_v6 = "fd00::66".parse::<std::net::Ipv6Addr>().expect("an address").octets();
    assert_eq!(
        sources,
        [Address::V4([127, 0, 0, 66]), Address::V4([127, 9, 1, 1]), Address::V6(denied_v6)]
    );

    // Lifted: only the difference is written, and the source is back.
    desired.access.deny = vec![net("127.9.0.0/16")];
    assert_eq!(kernel.apply(&desired).expect("apply").prefixes, 2);
    assert_eq!(kernel.apply(&desired).expect("apply").total(), 0);
    assert_eq!(arrived(&v4, &["127.0.0.66:0"], "127.0.0.1:0").len(), 1);

    // Default deny: only the allowed.
    desired.access.default_deny = true;
    desired.access.allow = vec![net("127.0.0.1/32"), net("127.5.0.0/16")];
    kernel.apply(&desired).expect("apply");
    let came = arrived(&v4, &["127.0.0.67:0", "127.5.1.1:0"], "127.0.0.1:0");
    assert_eq!(came.len(), 1, "{came:?}");
}

#[test]
fn another_socket_of_the_host_is_left_alone() {
    let Some(mut kernel) = on_loopback("other sockets") else { return };
    let ours = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let other = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let mut desired = desired(0, &[1], &[ours.local_addr().expect("an address")]);
    desired.access.default_deny = true;
    kernel.apply(&desired).expect("apply");
    assert_eq!(arrived(&other, &["127.0.0.66:0"], "127.0.0.1:0").len(), 1);
}

#[test]
fn a_full_list_says_what_did_not_fit() {
    let Some(mut kernel) = kernel("full list", &settings(Mode::Reuseport)) else { return };
    let capacity = map::ALLOW_CAPACITY;
    let address =
        |number: u32| IpNet::new(std::net::Ipv4Addr::from(number).into(), 32).expect("a prefix");
    let mut desired = desired(0, &[1], &[]);
    desired.access.allow = (0..capacity + 5).map(|number| address(0x0a00_0000 + number)).collect();
    desired.access.deny = vec![net("192.0.2.0/24")];
    match kernel.apply(&desired) {
        Err(KernelError::ListFull { map: map::ALLOW_V4, capacity: held, refused }) => {
            assert_eq!((held, refused.len()), (capacity, 5));
            let last = address(0x0a00_0000 + capacity + 4);
            assert!(refused.contains(&last), "{refused:?}");
        }
        other => panic!("{other:?}"),
    }
    // All else was applied, and room made is used.
    desired.access.allow.drain(..5);
    assert_eq!(kernel.apply(&desired).expect("fits").prefixes, 10);
    assert_eq!(kernel.apply(&desired).expect("fits").total(), 0);
}

#[test]
fn a_hundred_thousand_prefixes_are_written_once() {
    let Some(mut kernel) = kernel("many prefixes", &settings(Mode::Reuseport)) else { return };
    let mut desired = desired(0, &[1], &[]);
    desired.access.deny = (0..100_000_u32)
        .map(|number| {
            if number % 2 == 0 {
                IpNet::new(std::net::Ipv4Addr::from(0x2000_0000 + number * 256).into(), 24)
            } else {
                IpNet::new(
                    std::net::Ipv6Addr::from((0x2001_0db8_u128 << 96) + (u128::from(number) << 64))
                        .into(),
                    64,
                )
            }
            .expect("a prefix")
        })
        .collect();
    let mut took = Vec::new();
    for expected in [100_000, 0, 1] {
        if expected == 1 {
            desired.access.deny.push(net("198.51.100.7/32"));
        }
        let start = Instant::now();
        assert_eq!(kernel.apply(&desired).expect("apply").prefixes, expected);
        took.push(start.elapsed());
    }
    println!("100,000 prefixes: {:?}, unchanged {:?}, one more {:?}", took[0], took[1], took[2]);
}

/// Entry `number` of the row's lists, IPv4 by turns with IPv6, none in loopback's ranges.
pub(crate) fn entry(number: u32) -> IpNet {
    if number.is_multiple_of(2) {
        IpNet::new(std::net::Ipv4Addr::from(0x2000_0000 + number / 2 * 256).into(), 24)
    } else {
        let address = (0x2001_0db8_u128 << 96) + (u128::from(number / 2) << 64);
        IpNet::new(std::net::Ipv6Addr::from(address).into(), 64)
    }
    .expect("a prefix")
}

fn edit(kernel: &mut Kernel, net: IpNet, listed: bool) -> Result<usize, KernelError> {
    kernel.edit(&[Edit { side: Side::Deny, net, listed }])
}

/// 100,000 prefixes of each family on the list. One more, or one less, is seen by the very next packet after the call, which is
/// what the row's 10 ms are measured for; listed sources get nothing and the others everything, before the list is compiled
/// again, and after.
#[test]
fn h06_one_entry_more_is_in_force_at_once_among_two_hundred_thousand() {
    let Some(mut kernel) = on_loopback("h06") else { return };
    let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let mut desired = desired(0, &[1], &[server.local_addr().expect("an address")]);
    desired.access.deny = (0..200_000).map(entry).collect();
    assert_eq!(kernel.apply(&desired).expect("apply").prefixes, 200_000);
    let (one, wide) = (net("127.0.0.66/32"), net("127.0.0.64/26"));
    let of_others = ["127.0.0.66:0", "127.0.0.67:0", "127.0.1.1:0"];
    let came = |server: &UdpSocket| -> Vec<String> {
        let came = arrived(server, &of_others, "127.0.0.1:0");
        came.iter().map(|from| from.ip().to_string()).collect()
    };
    let mut took = Vec::new();
    let mut timed = |kernel: &mut Kernel, net, listed| {
        let start = Instant::now();
        assert_eq!(edit(kernel, net, listed).expect("edit"), 1);
        took.push(start.elapsed());
    };
    for round in 0..20 {
        timed(&mut kernel, one, true);
        assert_eq!(came(&server), ["127.0.0.67", "127.0.1.1"], "round {round}");
        // Overlapping: the larger one covers more, and without the smaller one the same.
        timed(&mut kernel, wide, true);
        assert_eq!(came(&server), ["127.0.1.1"], "round {round}");
        timed(&mut kernel, one, false);
        assert_eq!(came(&server), ["127.0.1.1"], "round {round}");
        if round % 5 == 4 {
            // Compiled on another thread, and written; a look-up finds the same.
            while let Some(list) = kernel.compilation() {
                let compiled = std::thread::spawn(move || list.run()).join().expect("compiled");
                kernel.settle(compiled).expect("settle");
            }
            assert_eq!(came(&server), ["127.0.1.1"], "compiled, round {round}");
        }
        timed(&mut kernel, wide, false);
        assert_eq!(came(&server).len(), 3, "round {round}");
    }
    // What was compiled for a list that has changed meanwhile is not taken.
    edit(&mut kernel, one, true).expect("edit");
    let old = kernel.compilation().expect("the list has changed").run();
    edit(&mut kernel, one, false).expect("edit");
    kernel.settle(old).expect("settle");
    assert_eq!(came(&server).len(), 3);
    // Told again as a whole, nothing is different but for what was done by hand.
    assert_eq!(kernel.keep_up(&desired).expect("keep up").prefixes, 0);

    took.sort_unstable();
    let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
    println!("h06: {} updates among 200,000: median {median:?}, most {most:?}", took.len());
    assert!(median < Duration::from_millis(10), "{took:?}");
}

/// A full map: the entry is refused and told, those that are there stay, and it goes in when there is room.
#[test]
fn h06_a_full_map_refuses_and_takes_the_entry_when_there_is_room() {
    let Some(mut kernel) = kernel("h06 full", &settings(Mode::Reuseport)) else { return };
    let capacity = map::DENY_CAPACITY;
    let address = |number: u32| IpNet::from(std::net::IpAddr::V4((0x0a00_0000 + number).into()));
    let mut desired = desired(0, &[1], &[]);
    desired.access.deny = (0..capacity).map(address).collect();
    assert_eq!(kernel.apply(&desired).expect("apply").prefixes, capacity as usize);
    for number in [capacity, capacity + 1] {
        match edit(&mut kernel, address(number), true) {
            Err(KernelError::ListFull { map: map::DENY_V4, capacity: held, refused }) => {
                assert_eq!((held, refused), (capacity, vec![address(number)]));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(kernel.missing(), 2);
    assert_eq!(edit(&mut kernel, address(capacity + 1), false).expect("was never in"), 0);
    assert_eq!(kernel.missing(), 1);
    // The other family has room of its own.
    assert_eq!(edit(&mut kernel, net("2001:db8::/32"), true).expect("room"), 1);
    assert_eq!(edit(&mut kernel, address(7), false).expect("removed"), 2, "one out, one in");
    assert_eq!(kernel.missing(), 0);
}
