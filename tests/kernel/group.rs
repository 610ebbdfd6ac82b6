//! Reuseport groups of real sockets, and the control plane's `Kernel` over them.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd as _, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};
use spooky_common::{
    cid::{LocalKey, Owner},
    counter::Counter,
};
use spooky_user::controlplane::kernel::{
    AccessLists, Attach, Desired, Flood, Kernel, KernelError, ListenerAddress, Mode, OnFailure,
    Settings, WorkerSlot,
};

use crate::rig;

pub(crate) const KEY: LocalKey = LocalKey { k0: 0xdead_beef, k1: 0xfeed_f00d };
/// How long a datagram on loopback may take before it counts as lost.
const DEADLINE: Duration = Duration::from_secs(5);

/// Sockets bound to one address with `SO_REUSEPORT`.
pub(crate) struct Group {
    pub(crate) sockets: Vec<UdpSocket>,
    pub(crate) address: SocketAddr,
}

pub(crate) fn settings(mode: Mode) -> Settings {
    Settings {
        mode,
        interface: None,
        attach: Attach::Auto,
        on_failure: OnFailure::Abort,
        sample_every: 0,
    }
}

/// The kernel side, or why the test is skipped.
pub(crate) fn kernel(test: &str, settings: &Settings) -> Option<Kernel> {
    match Kernel::load(settings) {
        Ok(kernel) => Some(kernel),
        Err(error @ KernelError::Privilege) => {
            rig::skip(test, &error.to_string());
            None
        }
        Err(error) => panic!("{test}: {error}"),
    }
}

/// Everyone allowed, our key at config id 0, these weights for workers 0, 1, ..
pub(crate) fn desired(generation: u8, weights: &[u16], listeners: &[SocketAddr]) -> Desired {
    let mut keys = [None; 7];
    keys[0] = Some(KEY);
    Desired {
        generation,
        workers: (0..)
            .zip(weights)
            .map(|(worker, weight)| WorkerSlot { worker, weight: *weight, reachable: true })
            .collect(),
        listeners: (0..)
            .zip(listeners)
            .map(|(index, address)| ListenerAddress { index, address: *address })
            .collect(),
        keys,
        access: AccessLists::default(),
        queues: Vec::new(),
        flood: Flood::default(),
    }
}

/// What each counter gained since `before`.
pub(crate) fn gained(kernel: &Kernel, before: &[(Counter, u64)]) -> Vec<(Counter, u64)> {
    let after = kernel.counters().expect("counters");
    after
        .iter()
        .zip(before)
        .map(|((counter, after), (_, before))| (*counter, after - before))
        .filter(|(_, gained)| *gained > 0)
        .collect()
}

// === impl Group ===

impl Group {
    pub(crate) fn bind(ip: IpAddr, port: u16, count: usize) -> Self {
        let mut address = SocketAddr::new(ip, port);
        let sockets = (0..count)
            .map(|_| {
                let socket =
                    Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
                        .expect("socket");
                socket.set_reuse_port(true).expect("SO_REUSEPORT");
                socket.set_nonblocking(true).expect("non-blocking");
                socket.bind(&address.into()).expect("bind");
                let socket = UdpSocket::from(socket);
                address = socket.local_addr().expect("an address");
                socket
            })
            .collect();
        Self { sockets, address }
    }

    pub(crate) fn loopback(count: usize) -> Self {
        Self::bind("127.0.0.1".parse().expect("an address"), 0, count)
    }

    /// The sockets as workers 0, 1, .. of one generation.
    pub(crate) fn owners(&self, generation: u8) -> Vec<(Owner, BorrowedFd<'_>)> {
        (0..)
            .zip(&self.sockets)
            .map(|(worker, socket)| (Owner { worker, generation }, socket.as_fd()))
            .collect()
    }

    /// Which sockets got how many datagrams, until `count` have come.
    ///
    /// # Panics
    /// When they have not after the deadline.
    pub(crate) fn received(&self, count: usize) -> Vec<usize> {
        let mut got = vec![0; self.sockets.len()];
        let deadline = Instant::now() + DEADLINE;
        while got.iter().sum::<usize>() < count {
            let mut buffer = [0; 2048];
            for (socket, got) in self.sockets.iter().zip(&mut got) {
                loop {
                    match socket.recv_from(&mut buffer) {
                        Ok(_) => *got += 1,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => panic!("receive: {error}"),
                    }
                }
            }
            assert!(Instant::now() < deadline, "{got:?} of {count} datagrams came");
            if got.iter().sum::<usize>() < count {
                self.wait(Duration::from_millis(200));
            }
        }
        got
    }

    /// The one socket that gets what `send` sends.
    pub(crate) fn receiver(&self, send: impl FnOnce()) -> usize {
        send();
        let got = self.received(1);
        got.iter().position(|got| *got == 1).expect("one datagram")
    }

    /// Returns at once when anything is readable.
    fn wait(&self, at_most: Duration) {
        let mut fds: Vec<_> =
            self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(at_most).expect("a short time");
        poll(&mut fds, Some(&timeout)).expect("poll");
    }
}

/// A client on another port of loopback each time.
pub(crate) fn client(to: SocketAddr) -> UdpSocket {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => "127.0.0.1:0".parse().expect("an address"),
        SocketAddr::V6(_) => "[::1]:0".parse().expect("an address"),
    };
    let socket = UdpSocket::bind(any).expect("bind");
    socket.connect(to).expect("connect");
    socket
}

/// One packet from a fresh port.
pub(crate) fn send(to: SocketAddr, packet: &[u8]) {
    send_from(&client(to), packet);
}

/// One packet from this client.
pub(crate) fn send_from(client: &UdpSocket, packet: &[u8]) {
    assert_eq!(client.send(packet).expect("send"), packet.len());
}
