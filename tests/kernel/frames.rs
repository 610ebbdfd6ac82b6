//! Frames from Ethernet to QUIC, octet by octet, valid unless told otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use spooky_common::cid::{self, CID_LEN, LocalKey, Owner};

pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const QINQ: u16 = 0x88a8;
pub(crate) const UDP: u8 = 17;

/// One frame to be.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) tags: Vec<u16>,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) protocol: u8,
    /// IPv4 options, a multiple of four octets.
    pub(crate) options: Vec<u8>,
    /// IPv4 flags and fragment offset.
    pub(crate) fragment: u16,
    /// IPv6 extension headers: type and whole content behind the two common octets.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) payload: Vec<u8>,
    /// Octets behind the IP packet.
    pub(crate) padding: usize,
}

/// A datagram between these two.
pub(crate) fn frame(source: &str, destination: &str, payload: &[u8]) -> Frame {
    Frame {
        tags: Vec::new(),
        source: source.parse().expect("an address and port"),
        destination: destination.parse().expect("an address and port"),
        protocol: UDP,
        options: Vec::new(),
        fragment: 0x4000,
        extensions: Vec::new(),
        payload: payload.to_vec(),
        padding: 0,
    }
}

impl Frame {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend(7_u16.to_be_bytes());
        }
        let mut udp = Vec::new();
        udp.extend(self.source.port().to_be_bytes());
        udp.extend(self.destination.port().to_be_bytes());
        udp.extend((8 + self.payload.len() as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(0x0800_u16.to_be_bytes());
                self.ipv4(&mut frame, source, destination, &udp);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend(0x86dd_u16.to_be_bytes());
                self.ipv6(&mut frame, source, destination, &udp);
            }
            _ => panic!("one family a frame"),
        }
        frame.extend(vec![0; self.padding]);
        frame
    }

    fn ipv4(&self, frame: &mut Vec<u8>, source: Ipv4Addr, destination: Ipv4Addr, udp: &[u8]) {
        let header_len = 20 + self.options.len();
        frame.push(0x40 | (header_len / 4) as u8);
        frame.push(0);
        frame.extend(((header_len + udp.len()) as u16).to_be_bytes());
        frame.extend([0, 1]);
        frame.extend(self.fragment.to_be_bytes());
        frame.extend([64, self.protocol, 0, 0]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend(&self.options);
        frame.extend(udp);
    }

    fn ipv6(&self, frame: &mut Vec<u8>, source: Ipv6Addr, destination: Ipv6Addr, udp: &[u8]) {
        let mut chain = Vec::new();
        for (index, (_, content)) in self.extensions.iter().enumerate() {
            let next = self.extensions.get(index + 1).map_or(self.protocol, |(kind, _)| *kind);
            let octets = 2 + content.len();
            assert_eq!(octets % 8, 0, "an extension header is a multiple of eight octets");
            chain.extend([next, (octets / 8 - 1) as u8]);
            chain.extend(content);
        }
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(((chain.len() + udp.len()) as u16).to_be_bytes());
        frame.push(self.extensions.first().map_or(self.protocol, |(kind, _)| *kind));
        frame.push(64);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend(chain);
        frame.extend(udp);
    }
}

/// A long header packet, padded to the 1200 octets of a client's Initial.
pub(crate) fn long(first: u8, version: u32, dcid: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    packet.extend(version.to_be_bytes());
    packet.push(dcid.len() as u8);
    packet.extend(dcid);
    packet.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
    packet.resize(1200, 0);
    packet
}

/// A short header packet.
pub(crate) fn short(dcid: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x41];
    packet.extend(dcid);
    packet.resize(1 + dcid.len() + 24, 0x5a);
    packet
}

/// One of our connection IDs; `nonce` stands in for the opaque block.
pub(crate) fn our_cid(key: &LocalKey, config_id: u8, owner: Owner, nonce: u64) -> [u8; CID_LEN] {
    let mut dcid = [0; CID_LEN];
    dcid[0] = cid::first_octet(config_id);
    dcid[1..9].copy_from_slice(&nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    dcid[9..17].copy_from_slice(&nonce.to_be_bytes());
    cid::seal(&mut dcid, key, owner);
    dcid
}
