//! A UDP path that loses, doubles and swaps datagrams, and moves its flows to new source ports on demand, as a NAT does
//! that lost its mapping. Seeded: one random source a flow and direction, drawn from the same number of times a datagram,
//! so that the fate of the n-th datagram of a flow depends on the seed alone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longest time a datagram is held back for another to overtake it.
const HOLD: Duration = Duration::from_millis(20);
const DATAGRAM_MAX: usize = 65_536;

/// What is done to datagrams, each direction alike. Shares are of 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Impairment {
    pub seed: u64,
    pub loss: f64,
    pub duplication: f64,
    pub reordering: f64,
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct Tally {
    pub to_server: AtomicU64,
    pub to_client: AtomicU64,
    pub lost: AtomicU64,
    pub doubled: AtomicU64,
    pub swapped: AtomicU64,
    /// Source ports used towards the server.
    pub ports: AtomicU64,
}

/// A running relay; dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    epoch: Arc<AtomicU64>,
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
        let front = std::net::UdpSocket::bind(any).expect("a loopback socket can be bound");
        let address = front.local_addr().expect("a bound socket has an address");
        front.set_nonblocking(true).expect("a socket can be made non-blocking");
        let (epoch, tally) = (Arc::new(AtomicU64::new(0)), Arc::new(Tally::default()));
        let (end, ended) = oneshot::channel();
        let path = Path {
            server,
            impairment,
            epoch: Arc::clone(&epoch),
            tally: Arc::clone(&tally),
            flows: HashMap::new(),
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(async move {
                let front = UdpSocket::from_std(front).expect("the socket is non-blocking");
                tokio::select! {
                    () = path.run(Arc::new(front)) => {}
                    _ = ended => {}
                }
            });
        });
        Self { address, epoch, tally, end: Some(end), thread: Some(thread) }
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the next datagram on, every flow comes from a new source port. What is on its way to the old one still
    /// arrives: a client that has acknowledged everything would otherwise never send again.
    pub fn rebind(&self) {
        self.epoch.fetch_add(1, Relaxed);
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

struct Path {
    server: SocketAddr,
    impairment: Impairment,
    epoch: Arc<AtomicU64>,
    tally: Arc<Tally>,
    flows: HashMap<SocketAddr, Flow>,
}

/// One client's way through: the socket towards the server, and the task that brings answers back.
struct Flow {
    epoch: u64,
    socket: Arc<UdpSocket>,
    outward: Direction,
    back: JoinHandle<()>,
    /// The same task of the port before, which still delivers what comes there.
    before: Option<JoinHandle<()>>,
}

impl Path {
    async fn run(mut self, front: Arc<UdpSocket>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            match tokio::time::timeout(HOLD, front.recv_from(&mut buffer)).await {
                Ok(Ok((length, client))) => {
                    self.reopen(&front, client).await;
                    let Some(flow) = self.flows.get_mut(&client) else { continue };
                    let datagrams = flow.outward.pass(&buffer[..length], &self.tally);
                    flow.send(datagrams, &self.tally).await;
                }
                Ok(Err(_)) => {}
                Err(_) => {
                    for flow in self.flows.values_mut() {
                        let held = flow.outward.held.take();
                        flow.send(held.into_iter().collect(), &self.tally).await;
                    }
                }
            }
        }
    }

    /// Makes sure that the client has a flow of the present epoch.
    async fn reopen(&mut self, front: &Arc<UdpSocket>, client: SocketAddr) {
        let epoch = self.epoch.load(Relaxed);
        if self.flows.get(&client).is_some_and(|flow| flow.epoch == epoch) {
            return;
        }
        let any = SocketAddr::new(self.server.ip(), 0);
        let socket = UdpSocket::bind(any).await.expect("a loopback socket can be bound");
        socket.connect(self.server).await.expect("a UDP socket can be connected");
        let socket = Arc::new(socket);
        // Each flow and each direction draws from a source of its own, numbered in the order of their opening.
        let number = self.tally.ports.fetch_add(1, Relaxed);
        let seed = self.impairment.seed.wrapping_add(number.wrapping_mul(2));
        let inward = Direction::new(self.impairment, seed.wrapping_add(1));
        let (from, front) = (Arc::clone(&socket), Arc::clone(front));
        let back = tokio::spawn(bring_back(from, front, client, inward, Arc::clone(&self.tally)));
        let outward = Direction::new(self.impairment, seed);
        let flow = Flow { epoch, socket, outward, back, before: None };
        if let Some(mut old) = self.flows.insert(client, flow) {
            if let Some(older) = old.before.take() {
                older.abort();
            }
            if let Some(flow) = self.flows.get_mut(&client) {
                flow.before = Some(old.back);
            }
        }
    }
}

impl Flow {
    async fn send(&self, datagrams: Vec<Vec<u8>>, tally: &Tally) {
        for datagram in datagrams {
            tally.to_server.fetch_add(1, Relaxed);
            // A refused datagram is a lost one.
            let _sent = self.socket.send(&datagram).await;
        }
    }
}

async fn bring_back(
    from: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    client: SocketAddr,
    mut direction: Direction,
    tally: Arc<Tally>,
) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let datagrams = match tokio::time::timeout(HOLD, from.recv(&mut buffer)).await {
            Ok(Ok(length)) => direction.pass(&buffer[..length], &tally),
            Ok(Err(_)) => continue,
            Err(_) => direction.held.take().into_iter().collect(),
        };
        for datagram in datagrams {
            tally.to_client.fetch_add(1, Relaxed);
            // A refused datagram is a lost one.
            let _sent = front.send_to(&datagram, client).await;
        }
    }
}

/// One direction's fate.
#[derive(Debug)]
struct Direction {
    impairment: Impairment,
    random: fastrand::Rng,
    held: Option<Vec<u8>>,
}

impl Direction {
    fn new(impairment: Impairment, seed: u64) -> Self {
        Self { impairment, random: fastrand::Rng::with_seed(seed), held: None }
    }

    /// What leaves when this datagram arrives, in order.
    fn pass(&mut self, datagram: &[u8], tally: &Tally) -> Vec<Vec<u8>> {
        let [loss, duplication, reordering] = [(); 3].map(|()| self.random.f64());
        if loss < self.impairment.loss {
            tally.lost.fetch_add(1, Relaxed);
            return self.held.take().into_iter().collect();
        }
        if reordering < self.impairment.reordering && self.held.is_none() {
            tally.swapped.fetch_add(1, Relaxed);
            self.held = Some(datagram.to_vec());
            return Vec::new();
        }
        let mut out = vec![datagram.to_vec()];
        if duplication < self.impairment.duplication {
            tally.doubled.fetch_add(1, Relaxed);
            out.push(datagram.to_vec());
        }
        out.extend(self.held.take());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fate_of_a_datagram_depends_on_the_seed_alone() {
        let impairment = Impairment { seed: 5, loss: 0.2, duplication: 0.1, reordering: 0.2 };
        let fates = |seed| {
            let (mut direction, tally) = (Direction::new(impairment, seed), Tally::default());
            let pass = |n: u8| direction.pass(&[n], &tally);
            let out: Vec<Vec<Vec<u8>>> = (0..200).map(pass).collect();
            (out, tally.lost.into_inner(), tally.swapped.into_inner())
        };
        let (first, lost, swapped) = fates(5);
        assert_eq!(first, fates(5).0);
        assert_ne!(first, fates(6).0);
        assert!((20..60).contains(&lost) && swapped > 10, "{lost} lost, {swapped} swapped");
    }

    #[test]
    fn a_rebound_flow_comes_from_another_port_and_still_gets_its_answers() {
        let socket = || std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
        let (server, client) = (socket(), socket());
        let relay = Relay::start(
            server.local_addr().expect("a bound socket has an address"),
            Impairment::default(),
        );
        let mut ports = Vec::new();
        for _round in 0..3 {
            let mut buffer = [0; 16];
            for socket in [&server, &client] {
                socket
                    .set_read_timeout(Some(Duration::from_secs(5)))
                    .expect("a timeout can be set");
            }
            client.send_to(b"question", relay.address()).expect("the relay is there");
            let (_, from) = server.recv_from(&mut buffer).expect("the question arrives");
            server.send_to(b"answer", from).expect("the relay is there");
            let (length, by) = client.recv_from(&mut buffer).expect("the answer arrives");
            assert_eq!((&buffer[..length], by), (&b"answer"[..], relay.address()));
            ports.push(from.port());
            relay.rebind();
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!((ports.len(), relay.tally().ports.load(Relaxed)), (3, 3));
    }

    #[test]
    fn a_quiet_path_changes_nothing() {
        let (mut direction, tally) = (Direction::new(Impairment::default(), 1), Tally::default());
        for n in 0..100u8 {
            assert_eq!(direction.pass(&[n], &tally), [vec![n]]);
        }
    }
}
