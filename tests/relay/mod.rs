//! A UDP path that loses, spoils, doubles, swaps, delays and slows datagrams, goes dark, and moves its flows to new source
//! ports or addresses on demand, as a NAT does that lost its mapping. It is part of the tests and the program
//! `spooky-relay`, and must not import anything of the proxy or of the test guards.
//!
//! ```text
//! impairment.rs  what is done to datagrams, as a value      fate.rs   lost, spoiled, doubled, swapped: seeded
//! link.rs        delay, rate, queue, darkness: by the clock path.rs   sockets, flows, the loop
//! ```

mod fate;
mod impairment;
mod link;
mod path;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::net::UdpSocket;
use tokio::sync::{oneshot, watch};

pub use impairment::{Darkness, Impairment};
use path::{Path, Source};

/// What happened so far, in datagrams.
#[derive(Debug, Default)]
pub struct Tally {
    pub to_server: AtomicU64,
    pub to_client: AtomicU64,
    pub lost: AtomicU64,
    pub spoiled: AtomicU64,
    pub doubled: AtomicU64,
    pub swapped: AtomicU64,
    /// Did not fit into the queue of a link with a rate.
    pub overflowed: AtomicU64,
    /// Came while the path was dark.
    pub darkened: AtomicU64,
    /// Source ports used towards the server.
    pub ports: AtomicU64,
}

/// A running relay; dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    source: watch::Sender<Source>,
    tally: Arc<Tally>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Relay {
    /// Starts a relay on loopback that clients use in place of `server`.
    ///
    /// # Panics
    /// When sockets cannot be had.
    pub fn start(server: SocketAddr, impairment: Impairment) -> Self {
        let any = SocketAddr::new(server.ip(), 0);
        Self::bind(any, server, impairment).expect("a loopback socket can be bound")
    }

    /// Starts a relay from `listen` to `server`.
    ///
    /// # Errors
    /// The address cannot be bound.
    ///
    /// # Panics
    /// When the runtime of its thread cannot be built.
    pub fn bind(
        listen: SocketAddr,
        server: SocketAddr,
        impairment: Impairment,
    ) -> std::io::Result<Self> {
        let front = std::net::UdpSocket::bind(listen)?;
        let address = front.local_addr()?;
        front.set_nonblocking(true)?;
        let tally = Arc::new(Tally::default());
        let (source, changes) = watch::channel(Source::at(path::outward(server)));
        let (end, ended) = oneshot::channel();
        let for_path = Arc::clone(&tally);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(async move {
                let front = UdpSocket::from_std(front).expect("the socket is non-blocking");
                let path = Path::new(front, server, impairment, changes, for_path);
                tokio::select! {
                    () = path.run() => {}
                    _ = ended => {}
                }
            });
        });
        Ok(Self { address, source, tally, end: Some(end), thread: Some(thread) })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the next datagram on, every flow comes from a new source port. What is on its way to the old one still
    /// arrives: a client that has acknowledged everything would otherwise never send again.
    pub fn rebind(&self) {
        self.source.send_modify(|source| source.epoch += 1);
    }

    /// The same from another address of this host, such as any of 127.0.0.0/8.
    pub fn rebind_to(&self, address: IpAddr) {
        self.source.send_modify(|source| *source = Source { address, epoch: source.epoch + 1 });
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed already.
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::{Duration, Instant};

    use super::*;

    fn socket() -> std::net::UdpSocket {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
        socket
    }

    fn relay_to(server: &std::net::UdpSocket, impairment: Impairment) -> Relay {
        Relay::start(server.local_addr().expect("a bound socket has an address"), impairment)
    }

    /// One question and its answer; where the question came from.
    fn exchange(
        server: &std::net::UdpSocket,
        client: &std::net::UdpSocket,
        relay: &Relay,
    ) -> SocketAddr {
        let mut buffer = [0; 16];
        client.send_to(b"question", relay.address()).expect("the relay is there");
        let (_, from) = server.recv_from(&mut buffer).expect("the question arrives");
        server.send_to(b"answer", from).expect("the relay is there");
        let (length, by) = client.recv_from(&mut buffer).expect("the answer arrives");
        assert_eq!((&buffer[..length], by), (&b"answer"[..], relay.address()));
        from
    }

    #[test]
    fn a_rebound_flow_comes_from_another_port_and_still_gets_its_answers() {
        let (server, client) = (socket(), socket());
        let relay = relay_to(&server, Impairment::default());
        let mut ports = Vec::new();
        for _round in 0..3 {
            ports.push(exchange(&server, &client, &relay).port());
            relay.rebind();
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!((ports.len(), relay.tally().ports.load(Relaxed)), (3, 3));
    }

    #[test]
    fn a_flow_moves_to_another_address() {
        let (server, client) = (socket(), socket());
        let relay = relay_to(&server, Impairment::default());
        for address in ["127.0.0.1", "127.0.0.2", "127.9.8.7"] {
            let address: IpAddr = address.parse().expect("an address");
            relay.rebind_to(address);
            assert_eq!(exchange(&server, &client, &relay).ip(), address);
        }
    }

    #[test]
    fn a_long_path_takes_its_time_both_ways() {
        let (server, client) = (socket(), socket());
        let delay = Duration::from_millis(60);
        let relay = relay_to(&server, Impairment { delay, ..Impairment::default() });
        let started = Instant::now();
        exchange(&server, &client, &relay);
        assert!(started.elapsed() >= 2 * delay, "{:?}", started.elapsed());
    }
}
