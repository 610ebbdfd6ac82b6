//! The sockets of a relay, its flows, and the loop that carries datagrams between them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::fate::{Fate, Survivor};
use super::link::Link;
use super::{Impairment, Tally};

/// Longest time a datagram is held back for another to overtake it.
const HOLD: Duration = Duration::from_millis(20);
const DATAGRAM_MAX: usize = 65_536;
/// Answers that were read and not yet dealt with; further ones wait in the sockets.
const ANSWERS_MAX: usize = 256;

/// Where flows come from, as the server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    pub address: IpAddr,
    /// Another number is another port.
    pub epoch: u64,
}

impl Source {
    pub(super) fn at(address: IpAddr) -> Self {
        Self { address, epoch: 0 }
    }
}

/// The address to send from towards `server`: its own on loopback, else the kernel's choice.
pub(super) fn outward(server: SocketAddr) -> IpAddr {
    match server.ip() {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// All of a relay that moves.
pub(super) struct Path {
    front: UdpSocket,
    server: SocketAddr,
    impairment: Impairment,
    source: watch::Receiver<Source>,
    tally: Arc<Tally>,
    flows: HashMap<SocketAddr, Flow>,
    answers: mpsc::Receiver<Answer>,
    answers_in: mpsc::Sender<Answer>,
    on_the_way: BinaryHeap<Reverse<Departure>>,
    departures: u64,
    /// When the first datagram came.
    began: Option<Instant>,
}

/// One client's way through.
struct Flow {
    source: Source,
    outward: Way,
    inward: Way,
    reader: JoinHandle<()>,
    /// The same task of the port before, which still delivers what comes there.
    before: Option<JoinHandle<()>>,
    socket: Arc<UdpSocket>,
}

/// One direction of a flow.
struct Way {
    fate: Fate,
    link: Link,
    /// Since when a datagram waits to be overtaken.
    held_since: Option<Instant>,
}

/// A datagram of the server's and the client it is for.
struct Answer {
    client: SocketAddr,
    bytes: Vec<u8>,
}

/// A datagram on its way, in the order in which they arrive.
struct Departure {
    due: Instant,
    number: u64,
    to: Destination,
    bytes: Vec<u8>,
}

#[derive(Clone)]
enum Destination {
    Server(Arc<UdpSocket>),
    Client(SocketAddr),
}

impl Path {
    pub(super) fn new(
        front: UdpSocket,
        server: SocketAddr,
        impairment: Impairment,
        source: watch::Receiver<Source>,
        tally: Arc<Tally>,
    ) -> Self {
        let (answers_in, answers) = mpsc::channel(ANSWERS_MAX);
        Self {
            front,
            server,
            impairment,
            source,
            tally,
            flows: HashMap::new(),
            answers,
            answers_in,
            on_the_way: BinaryHeap::new(),
            departures: 0,
            began: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            let wake = self.wake();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into()),
                    if wake.is_some() => {}
                Some(answer) = self.answers.recv() => self.inward(&answer),
                arrival = self.front.recv_from(&mut buffer) => {
                    // A failed receive tells of an earlier datagram that was refused.
                    if let Ok((length, client)) = arrival {
                        self.outward(&buffer[..length], client);
                    }
                }
            }
            self.release();
            self.deliver().await;
        }
    }

    /// When there is something to do although nothing arrives.
    fn wake(&self) -> Option<Instant> {
        let next = self.on_the_way.peek().map(|Reverse(departure)| departure.due);
        let ways = self.flows.values().flat_map(|flow| [&flow.outward, &flow.inward]);
        let held = ways.filter_map(|way| way.held_since).map(|since| since + HOLD);
        held.chain(next).min()
    }

    fn outward(&mut self, datagram: &[u8], client: SocketAddr) {
        let now = Instant::now();
        self.reopen(client, now);
        let Some(flow) = self.flows.get_mut(&client) else { return };
        let to = Destination::Server(Arc::clone(&flow.socket));
        let survivors = flow.outward.pass(datagram, now, &self.tally);
        self.send(survivors, &to);
    }

    fn inward(&mut self, answer: &Answer) {
        let Some(flow) = self.flows.get_mut(&answer.client) else { return };
        let survivors = flow.inward.pass(&answer.bytes, Instant::now(), &self.tally);
        self.send(survivors, &Destination::Client(answer.client));
    }

    /// Makes sure that the client has a flow that comes from where flows come from now.
    fn reopen(&mut self, client: SocketAddr, now: Instant) {
        let source = *self.source.borrow_and_update();
        if self.flows.get(&client).is_some_and(|flow| flow.source == source) {
            return;
        }
        let socket = connected(source.address, self.server).expect("a socket for a flow");
        let socket = Arc::new(socket);
        let reader = read(Arc::clone(&socket), client, self.answers_in.clone());
        let reader = tokio::spawn(reader);
        self.tally.ports.fetch_add(1, Relaxed);
        if let Some(flow) = self.flows.get_mut(&client) {
            (flow.source, flow.socket) = (source, socket);
            let old = flow.before.replace(std::mem::replace(&mut flow.reader, reader));
            if let Some(older) = old {
                older.abort();
            }
            return;
        }
        // Each flow and each direction draws from a source of its own, numbered in the order of their opening.
        let seed = self.impairment.seed.wrapping_add(self.flows.len() as u64 * 2);
        let began = *self.began.get_or_insert(now);
        let way = |seed| Way::new(self.impairment, seed, began);
        let (outward, inward) = (way(seed), way(seed.wrapping_add(1)));
        self.flows.insert(client, Flow { source, outward, inward, reader, before: None, socket });
    }

    fn send(&mut self, survivors: Vec<(Instant, Vec<u8>)>, to: &Destination) {
        for (due, bytes) in survivors {
            self.departures += 1;
            let departure = Departure { due, number: self.departures, to: to.clone(), bytes };
            self.on_the_way.push(Reverse(departure));
        }
    }

    /// Lets go what has waited long enough to be overtaken.
    fn release(&mut self) {
        let now = Instant::now();
        let mut released = Vec::new();
        for (client, flow) in &mut self.flows {
            let server = Destination::Server(Arc::clone(&flow.socket));
            let ways =
                [(&mut flow.outward, server), (&mut flow.inward, Destination::Client(*client))];
            for (way, to) in ways {
                if way.held_since.is_some_and(|since| since + HOLD <= now) {
                    released.push((way.release(now, &self.tally), to));
                }
            }
        }
        for (survivors, to) in released {
            self.send(survivors, &to);
        }
    }

    /// Sends all that is due.
    async fn deliver(&mut self) {
        let now = Instant::now();
        while self.on_the_way.peek().is_some_and(|Reverse(next)| next.due <= now) {
            let Some(Reverse(departure)) = self.on_the_way.pop() else { return };
            // A refused datagram is a lost one.
            let _sent = match departure.to {
                Destination::Server(socket) => {
                    self.tally.to_server.fetch_add(1, Relaxed);
                    socket.send(&departure.bytes).await
                }
                Destination::Client(client) => {
                    self.tally.to_client.fetch_add(1, Relaxed);
                    self.front.send_to(&departure.bytes, client).await
                }
            };
        }
    }
}

impl Way {
    fn new(impairment: Impairment, seed: u64, began: Instant) -> Self {
        let fate = Fate::new(impairment, seed);
        Self { fate, link: Link::new(impairment, began), held_since: None }
    }

    /// What becomes of a datagram, and of one that waited for it: when each arrives.
    fn pass(&mut self, datagram: &[u8], now: Instant, tally: &Tally) -> Vec<(Instant, Vec<u8>)> {
        let survivors = self.fate.pass(datagram, tally);
        self.held_since = self.fate.holds().then(|| self.held_since.unwrap_or(now));
        self.arrivals(survivors, now, tally)
    }

    /// The datagram that nobody has overtaken.
    fn release(&mut self, now: Instant, tally: &Tally) -> Vec<(Instant, Vec<u8>)> {
        self.held_since = None;
        let held = self.fate.release().map(|bytes| Survivor { bytes, jitter: 0.0 });
        self.arrivals(held.into_iter().collect(), now, tally)
    }

    fn arrivals(
        &mut self,
        survivors: Vec<Survivor>,
        now: Instant,
        tally: &Tally,
    ) -> Vec<(Instant, Vec<u8>)> {
        let arrival = |Survivor { bytes, jitter }| {
            self.link.arrival(bytes.len(), jitter, now, tally).map(|due| (due, bytes))
        };
        survivors.into_iter().filter_map(arrival).collect()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        for task in [Some(&self.reader), self.before.as_ref()].into_iter().flatten() {
            task.abort();
        }
    }
}

impl PartialEq for Departure {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Departure {}

impl PartialOrd for Departure {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Departure {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// A socket from this address to the server, at a port of the kernel's choice.
fn connected(from: IpAddr, server: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(SocketAddr::new(from, 0))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Brings the server's datagrams to the loop.
async fn read(from: Arc<UdpSocket>, client: SocketAddr, answers: mpsc::Sender<Answer>) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        // A failed receive tells of an earlier datagram that was refused.
        if let Ok(length) = from.recv(&mut buffer).await {
            let answer = Answer { client, bytes: buffer[..length].to_vec() };
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    }
}
