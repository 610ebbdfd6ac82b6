//! Receive queues with AF_XDP sockets: which frames are redirected, what happens without the socket, and the control
//! plane's hold on both maps.

use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketType};
use spooky_common::{
    cid::Owner,
    counter::Counter,
    map::{Queue, REDIRECT_OCTETS_MAX, XSKS_CAPACITY},
};
use spooky_tests::{
    netns::{EDGE, Pair},
    privilege,
};
use spooky_user::{
    controlplane::kernel::{KernelError, Mode, QueueShare},
    sys::{
        link::Links,
        xsk::{Place, Settings, Stock, Transfer},
    },
};

use crate::{
    fixtures::{self, Fixture, OWNER},
    group::{desired, kernel, settings},
    rig::{self, XDP_PASS},
    xdp_verdicts::check,
};

/// An AF_XDP socket that is bound to nothing.
pub(crate) fn socket(test: &str) -> Option<OwnedFd> {
    match rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None) {
        Ok(socket) => Some(socket),
        Err(error) => {
            rig::skip(test, &format!("an AF_XDP socket needs CAP_NET_RAW ({error})"));
            None
        }
    }
}

#[test]
fn h01_a_queue_takes_what_its_owner_owns() {
    let Some(mut rig) = rig::load("queues") else { return };
    let Some(socket) = socket("queues") else { return };
    let mut setup = fixtures::setup();
    setup.live.push(Owner { worker: 4, ..OWNER });
    for share in [0, 1, 128, 255, 256] {
        setup.queue = Queue::live(OWNER, share);
        setup.socket = true;
        rig.apply(&setup);
        rig.socket(socket.as_fd());
        check(&mut rig, &setup, &fixtures::on_its_queue(share));
    }
    setup.queue = Queue::NOBODYS;
    rig.apply(&setup);
    let ours: Vec<_> =
        fixtures::all().into_iter().filter(|it| it.name != "short, another worker").collect();
    check(&mut rig, &setup, &ours);
}

#[test]
fn h01_without_its_socket_a_queue_passes() {
    let Some(mut rig) = rig::load("queues without sockets") else { return };
    let Some(socket) = socket("queues without sockets") else { return };
    let mut setup = fixtures::setup();
    setup.live.push(Owner { worker: 4, ..OWNER });
    setup.queue = Queue::live(OWNER, 256);
    rig.apply(&setup);
    let passed = || {
        let mut fixtures = fixtures::on_its_queue(256);
        for fixture in &mut fixtures {
            fixture.counter = match fixture.counter {
                Counter::XdpRedirected => Counter::XdpOwner,
                Counter::XdpRedirectedNew => Counter::XdpNewFlow,
                other => {
                    fixture.verdict =
                        if other == Counter::XdpDenied { rig::XDP_DROP } else { XDP_PASS };
                    other
                }
            };
            if fixture.verdict == rig::XDP_REDIRECT {
                fixture.verdict = XDP_PASS;
            }
        }
        fixtures
    };
    check(&mut rig, &setup, &passed());
    // A socket that is closed leaves the map by itself.
    rig.socket(socket.as_fd());
    drop(socket);
    check(&mut rig, &setup, &passed());
}

/// The kernel drops what is longer than a frame of the socket's memory; the stack does not.
#[test]
fn h09_what_is_too_long_for_the_socket_goes_to_the_stack() {
    let Some(mut rig) = rig::load("long frames") else { return };
    let Some(socket) = socket("long frames") else { return };
    let mut setup = fixtures::setup();
    setup.queue = Queue::live(OWNER, 256);
    setup.socket = true;
    rig.apply(&setup);
    rig.socket(socket.as_fd());
    let of = |len: usize, verdict, counter| {
        let short = fixtures::on_its_queue(256);
        let mut octets = short.into_iter().next().expect("there are some").octets;
        octets.resize(len, 0);
        Fixture {
            name: "short, of the queue's owner, and more behind it",
            octets,
            verdict,
            counter,
        }
    };
    let fits = REDIRECT_OCTETS_MAX;
    check(
        &mut rig,
        &setup,
        &[
            of(fits, rig::XDP_REDIRECT, Counter::XdpRedirected),
            of(fits + 1, XDP_PASS, Counter::XdpOwner),
            of(3_000, XDP_PASS, Counter::XdpOwner),
        ],
    );
}

#[test]
fn a_queue_has_an_owner_only_while_it_has_a_socket() {
    let test = "queue sockets";
    let Some(mut kernel) = kernel(test, &settings(Mode::Xdp)) else { return };
    let Some(socket) = socket(test) else { return };
    let mut desired = desired(3, &[1, 1], &[]);
    let owner = Owner { worker: 1, generation: 3 };
    desired.queues = vec![QueueShare { queue: 2, owner, share: 256 }];
    kernel.apply(&desired).expect("applied");
    assert_eq!(kernel.apply(&desired).expect("applied").total(), 0, "nothing but wishes");
    // Another's socket is not the owner's.
    let other = Owner { worker: 0, generation: 3 };
    kernel.set_queue_socket(2, other, socket.as_fd()).expect("set");
    assert_eq!(kernel.apply(&desired).expect("applied").queues, 0);
    kernel.set_queue_socket(2, owner, socket.as_fd()).expect("set");
    assert_eq!(kernel.apply(&desired).expect("applied").queues, 1);
    assert_eq!(kernel.apply(&desired).expect("applied").total(), 0);
    desired.queues[0].share = 17;
    assert_eq!(kernel.apply(&desired).expect("applied").queues, 1);
    kernel.clear_queue_socket(2).expect("cleared");
    assert_eq!(kernel.apply(&desired).expect("applied").total(), 0, "cleared at once");
    kernel.clear_queue_socket(2).expect("cleared twice is cleared");
    kernel.set_queue_socket(2, owner, socket.as_fd()).expect("set again");
    assert_eq!(kernel.apply(&desired).expect("applied").queues, 1);
    kernel.forget_worker(1);
    assert_eq!(kernel.apply(&desired).expect("applied").total(), 0, "forgotten at once");
    // What cannot be.
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    for (queue, socket) in [(0, udp.as_fd()), (XSKS_CAPACITY, socket.as_fd())] {
        let refused = kernel.set_queue_socket(queue, owner, socket);
        assert!(
            matches!(refused, Err(KernelError::Queue { queue: at, .. }) if at == queue),
            "{refused:?}"
        );
    }
    assert_eq!(kernel.apply(&desired).expect("applied").total(), 0);
}

/// All sockets of a stock have one memory: the next one is opened when the one before is closed and its interface gone.
#[test]
fn h08_the_memory_of_a_stock_has_one_socket_at_a_time() {
    let test = "the sockets of a stock";
    if !privilege::kernel(test) {
        return;
    }
    let pair = Pair::new(1);
    let settings = Settings { frames: 128, frame_size: 2048, busy_poll: None };
    let (mut stock, mut links) = pair.server.run(|| {
        let stock = Stock::new(&settings, 2).expect("two sockets of half a MiB");
        (stock, Links::open().expect("netlink"))
    });
    let mut place = || {
        let link = links.find(EDGE).expect("asked").expect("there");
        Place { interface: link.index, queue: 0, transfer: Transfer::Copy }
    };
    let first = place();
    let sides = stock.open(&first).expect("opened");
    assert_eq!((stock.left(), stock.is_free()), (1, false));
    assert_eq!(stock.open(&first).map(drop).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(sides);
    assert!(!stock.is_free(), "the kernel may still write there");
    pair.server.ip(&["link", "delete", EDGE]);
    assert!(stock.is_free());
    pair.link(1);
    let second = place();
    assert_ne!(first, second);
    let sides = stock.open(&second).expect("opened again");
    pair.server.ip(&["link", "delete", EDGE]);
    assert!(!stock.is_free(), "somebody may still read there");
    drop(sides);
    assert_eq!(stock.open(&second).map(drop).unwrap_err().kind(), ErrorKind::NotFound);
}
