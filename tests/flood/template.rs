//! What a frame of each kind looks like. Headers are made once; addresses, ports, connection IDs and checksums are new in
//! each frame. Knows no socket.

use std::net::{IpAddr, SocketAddr};

use fastrand::Rng;
use ipnet::IpNet;

#[path = "../kernel/frames.rs"]
#[expect(dead_code, reason = "the kernel tests use all of it")]
mod frames;

/// Ethernet.
const LINK_LEN: usize = 14;
/// Octets of a UDP header.
const UDP_LEN: usize = 8;
/// Where the connection ID stands in a short header.
const SHORT_ID: usize = 1;
/// And in a long one.
const LONG_ID: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Short,
    Initial,
    Tiny,
    Version,
}

/// One frame, to be made many of.
#[derive(Debug)]
pub(crate) struct Template {
    octets: Vec<u8>,
    from: IpNet,
    /// Where the IP addresses begin, and how long one is.
    source: usize,
    width: usize,
    udp: usize,
    /// Where the random connection ID stands, and its length.
    id: (usize, usize),
}

impl Kind {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "short" => Some(Self::Short),
            "initial" => Some(Self::Initial),
            "tiny" => Some(Self::Tiny),
            "version" => Some(Self::Version),
            _ => None,
        }
    }

    /// The datagram, and where its random part begins and how long it is.
    fn payload(self) -> (Vec<u8>, (usize, usize)) {
        let long = |version, length| {
            let mut packet = frames::long(0xc0, version, &[0; 8]);
            packet.truncate(length);
            (packet, (LONG_ID, 8))
        };
        match self {
            Self::Short => (frames::short(&[0; 20]), (SHORT_ID, 20)),
            Self::Initial => long(1, 1200),
            Self::Tiny => long(1, 100),
            Self::Version => long(0x1a2a_3a4a, 1200),
        }
    }
}

impl Template {
    pub(crate) fn new(
        kind: Kind,
        mac: [u8; 6],
        to: SocketAddr,
        from: IpNet,
    ) -> Result<Self, String> {
        if to.is_ipv4() != matches!(from, IpNet::V4(_)) {
            return Err("--to and --from are of different families".to_owned());
        }
        let (payload, id) = kind.payload();
        let source = SocketAddr::new(from.network(), 0).to_string();
        let mut octets = frames::frame(&source, &to.to_string(), &payload).octets();
        if let Some(destination) = octets.get_mut(..6) {
            destination.copy_from_slice(&mac);
        }
        let (source, width, udp) = if to.is_ipv4() {
            (LINK_LEN + 12, 4, LINK_LEN + 20)
        } else {
            (LINK_LEN + 8, 16, LINK_LEN + 40)
        };
        let id = (udp + UDP_LEN + id.0, id.1);
        Ok(Self { octets, from, source, width, udp, id })
    }

    pub(crate) fn len(&self) -> usize {
        self.octets.len()
    }

    /// Writes the next frame.
    pub(crate) fn write(&mut self, frame: &mut [u8], random: &mut Rng) {
        match (self.from, self.address(random)) {
            (_, IpAddr::V4(address)) => self.put(self.source, &address.octets()),
            (_, IpAddr::V6(address)) => self.put(self.source, &address.octets()),
        }
        self.put(self.udp, &random.u16(1024..).to_be_bytes());
        let (at, length) = self.id;
        random.fill(&mut self.octets[at..at + length]);
        self.checksums();
        frame.copy_from_slice(&self.octets);
    }

    fn address(&self, random: &mut Rng) -> IpAddr {
        match self.from {
            IpNet::V4(net) => IpAddr::V4(
                (u32::from(net.network()) | random.u32(..) & u32::from(net.hostmask())).into(),
            ),
            IpNet::V6(net) => IpAddr::V6(
                (u128::from(net.network()) | random.u128(..) & u128::from(net.hostmask())).into(),
            ),
        }
    }

    fn put(&mut self, at: usize, octets: &[u8]) {
        self.octets[at..at + octets.len()].copy_from_slice(octets);
    }

    /// IPv4 header and UDP (RFC 791, RFC 768, RFC 8200 section 8.1).
    fn checksums(&mut self) {
        if self.width == 4 {
            self.put(LINK_LEN + 10, &[0, 0]);
            let sum = !fold(sum(&self.octets[LINK_LEN..self.udp]));
            self.put(LINK_LEN + 10, &sum.to_be_bytes());
        }
        self.put(self.udp + 6, &[0, 0]);
        let datagram = &self.octets[self.udp..];
        let pseudo = sum(&self.octets[self.source..self.source + 2 * self.width])
            + u64::from(frames::UDP)
            + datagram.len() as u64;
        let sum = match !fold(pseudo + sum(datagram)) {
            0 => 0xffff,
            sum => sum,
        };
        self.put(self.udp + 6, &sum.to_be_bytes());
    }
}

/// The one's complement sum of RFC 1071, not yet folded.
fn sum(octets: &[u8]) -> u64 {
    let mut pairs = octets.chunks_exact(2);
    let whole: u64 =
        pairs.by_ref().map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    whole + pairs.remainder().first().map_or(0, |last| u64::from(*last) << 8)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
