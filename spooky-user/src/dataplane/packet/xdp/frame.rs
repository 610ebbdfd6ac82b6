//! Ethernet frames of UDP datagrams, read and built: up to two VLAN tags, IPv4 (RFC 791), IPv6 (RFC 8200), UDP (RFC 768).
//! Imports only `checksum` and `packet`.
//!
//! The stack is not there to check what comes, so this does: header, length and the IPv4 checksum. Not the checksum of UDP:
//! between virtual interfaces it is not computed, and QUIC's packets carry a stronger one (RFC 9001 section 5.3).

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::Range;

use spooky_common::frame::{self, Address};

use super::checksum::Sum;
use crate::dataplane::packet::Path;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];
const PROTOCOL_UDP: u8 = 17;
/// Two addresses and a type.
const ETHERNET_OCTETS: usize = 14;
const VLAN_OCTETS: usize = 4;
const LINK_OCTETS_MAX: usize = ETHERNET_OCTETS + 2 * VLAN_OCTETS;
const IPV4_OCTETS: usize = 20;
const IPV6_OCTETS: usize = 40;
const UDP_OCTETS: usize = 8;
/// Routers that a datagram of ours may pass; the value Linux takes.
const HOPS: u8 = 64;
/// IPv4: never cut this into fragments (RFC 9000 section 14).
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];

/// Everything before the IP header of frames to one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    octets: [u8; LINK_OCTETS_MAX],
    len: usize,
}

/// A datagram found in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Back to the neighbour that sent it.
    pub link: Link,
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// Where in the frame its payload is.
    pub payload: Range<usize>,
}

/// Why there is no datagram for us in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// No Ethernet frame of one UDP datagram, or one that contradicts itself.
    Unreadable,
    /// The frame ends before its datagram.
    Short,
    /// To or from a group of stations.
    Group,
    /// The checksum of the IPv4 header is wrong.
    Checksum,
    /// From an address that nobody on a link has, such as loopback.
    Source,
}

/// Reads a frame.
///
/// # Errors
/// [`Unusable`].
pub fn read(frame: &[u8]) -> Result<Found, Unusable> {
    let link = Link::of_reply(frame).ok_or(Unusable::Unreadable)?;
    let mut cursor = frame;
    let tuple = frame::udp(&mut cursor).map_err(|_opaque| Unusable::Unreadable)?;
    if is_group(frame.first()) || is_group(frame.get(6)) {
        return Err(Unusable::Group);
    }
    if let Address::V4(_) = tuple.source {
        let header = frame.get(link.len..).unwrap_or_default();
        let header_len = header.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
        let header = header.get(..header_len).ok_or(Unusable::Unreadable)?;
        if Sum::default().octets(header).finish() != 0 {
            return Err(Unusable::Checksum);
        }
    }
    let source = socket_address(tuple.source, tuple.source_port);
    if is_nobodys(source.ip()) {
        return Err(Unusable::Source);
    }
    let start = frame.len() - cursor.len();
    let end = start + usize::from(tuple.payload_len);
    if end > frame.len() {
        return Err(Unusable::Short);
    }
    Ok(Found {
        link,
        source,
        destination: socket_address(tuple.destination, tuple.destination_port),
        payload: start..end,
    })
}

/// Builds the frame of a datagram and returns its length. `None` when it does not fit, or `path` and `link` are not of one
/// family.
#[must_use]
pub fn build(frame: &mut [u8], link: &Link, path: Path, payload: &[u8]) -> Option<usize> {
    let udp_len = u16::try_from(UDP_OCTETS + payload.len()).ok()?;
    frame.get_mut(..link.len)?.copy_from_slice(link.octets()?);
    let packet = frame.get_mut(link.len..)?;
    let (local, peer) = (path.local.ip().to_canonical(), path.peer.ip().to_canonical());
    let (ip_len, pseudo) = match (local, peer, link.ethertype()) {
        (IpAddr::V4(local), IpAddr::V4(peer), ETHERTYPE_IPV4) => {
            let addresses = [local.octets(), peer.octets()];
            *packet.first_chunk_mut()? = ipv4(addresses, udp_len)?;
            (IPV4_OCTETS, Sum::default().octets(addresses.as_flattened()))
        }
        (IpAddr::V6(local), IpAddr::V6(peer), ETHERTYPE_IPV6) => {
            let addresses = [local.octets(), peer.octets()];
            *packet.first_chunk_mut()? = ipv6(addresses, udp_len);
            (IPV6_OCTETS, Sum::default().octets(addresses.as_flattened()))
        }
        _ => return None,
    };
    let mut udp = [0; UDP_OCTETS];
    udp[0..2].copy_from_slice(&path.local.port().to_be_bytes());
    udp[2..4].copy_from_slice(&path.peer.port().to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    let sum = pseudo.number(PROTOCOL_UDP.into()).number(udp_len).octets(&udp).octets(payload);
    // 0 says that there is none, so 0 is sent as its other form (RFC 768).
    let checksum = match sum.finish() {
        0 => 0xffff,
        checksum => checksum,
    };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    let datagram = packet.get_mut(ip_len..)?;
    *datagram.first_chunk_mut()? = udp;
    datagram.get_mut(UDP_OCTETS..UDP_OCTETS + payload.len())?.copy_from_slice(payload);
    Some(link.len + ip_len + usize::from(udp_len))
}

/// Octets of the IP packet around a payload.
#[must_use]
pub fn packet_len(peer: SocketAddr, payload: usize) -> usize {
    let ip = if peer.ip().to_canonical().is_ipv4() { IPV4_OCTETS } else { IPV6_OCTETS };
    ip + UDP_OCTETS + payload
}

fn ipv4([local, peer]: [[u8; 4]; 2], udp_len: u16) -> Option<[u8; IPV4_OCTETS]> {
    let mut header = [0; IPV4_OCTETS];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&udp_len.checked_add(IPV4_OCTETS as u16)?.to_be_bytes());
    header[6..8].copy_from_slice(&DONT_FRAGMENT);
    header[8] = HOPS;
    header[9] = PROTOCOL_UDP;
    header[12..16].copy_from_slice(&local);
    header[16..20].copy_from_slice(&peer);
    let checksum = Sum::default().octets(&header).finish();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    Some(header)
}

fn ipv6([local, peer]: [[u8; 16]; 2], udp_len: u16) -> [u8; IPV6_OCTETS] {
    let mut header = [0; IPV6_OCTETS];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&udp_len.to_be_bytes());
    header[6] = PROTOCOL_UDP;
    header[7] = HOPS;
    header[8..24].copy_from_slice(&local);
    header[24..40].copy_from_slice(&peer);
    header
}

fn socket_address(address: Address, port: u16) -> SocketAddr {
    match address {
        Address::V4(octets) => SocketAddr::from((octets, port)),
        Address::V6(octets) => {
            SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, 0))
        }
    }
}

/// Whether the stack would have dropped a packet from there. IPv4 in an IPv6 header would pass for the real one above.
fn is_nobodys(source: IpAddr) -> bool {
    let special = source.is_loopback() || source.is_unspecified() || source.is_multicast();
    special
        || match source {
            IpAddr::V4(source) => source.is_broadcast(),
            IpAddr::V6(source) => source.to_ipv4_mapped().is_some(),
        }
}

/// Whether a hardware address with this first octet is that of a group (IEEE 802).
fn is_group(first: Option<&u8>) -> bool {
    first.is_none_or(|octet| octet & 1 != 0)
}

// === impl Link ===

impl Link {
    /// That of an answer: the addresses change places, tags and type stay. `None` when there is no IP behind it.
    #[must_use]
    pub fn of_reply(frame: &[u8]) -> Option<Self> {
        let mut len = ETHERNET_OCTETS;
        let ethertype = |len: usize| {
            let octets = frame.get(len - 2..len)?;
            Some(u16::from_be_bytes(octets.try_into().ok()?))
        };
        while VLAN_TAGS.contains(&ethertype(len)?) {
            len += VLAN_OCTETS;
            if len > LINK_OCTETS_MAX {
                return None;
            }
        }
        if ![ETHERTYPE_IPV4, ETHERTYPE_IPV6].contains(&ethertype(len)?) {
            return None;
        }
        let mut octets = [0; LINK_OCTETS_MAX];
        octets.get_mut(..len)?.copy_from_slice(frame.get(..len)?);
        octets.get_mut(..6)?.copy_from_slice(frame.get(6..12)?);
        octets.get_mut(6..12)?.copy_from_slice(frame.get(..6)?);
        Some(Self { octets, len })
    }

    fn octets(&self) -> Option<&[u8]> {
        self.octets.get(..self.len)
    }

    fn ethertype(&self) -> u16 {
        let octets = self.octets.get(self.len.saturating_sub(2)..self.len);
        octets.and_then(|octets| octets.try_into().ok()).map_or(0, u16::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATION: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
    const NEIGHBOUR: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

    fn link(tags: usize, ethertype: u16) -> Link {
        let mut received = [STATION, NEIGHBOUR].concat();
        for tag in 0..tags {
            received.extend(VLAN_TAGS[(tag + 1) % 2].to_be_bytes());
            received.extend([0x20, 5 + tag as u8]);
        }
        received.extend(ethertype.to_be_bytes());
        Link::of_reply(&received).expect("a whole header")
    }

    fn path(v6: bool, port: u16) -> Path {
        let (local, peer) = if v6 { ("fd00::1", "fd00::2") } else { ("192.0.2.1", "198.51.100.7") };
        let address = |text: &str, port| SocketAddr::new(text.parse().expect("an address"), port);
        Path { local: address(local, 443), peer: address(peer, port) }
    }

    fn ethertype(v6: bool) -> u16 {
        if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }
    }

    /// The UDP checksum of a built frame, reckoned anew over pseudo header and datagram; 0 is right.
    fn udp_sum(frame: &[u8], path: Path, payload: usize) -> u16 {
        let mut octets = match (path.local.ip(), path.peer.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => [a.octets(), b.octets()].concat(),
            (IpAddr::V6(a), IpAddr::V6(b)) => [a.octets(), b.octets()].concat(),
            _ => unreachable!("of one family"),
        };
        octets.extend([0, PROTOCOL_UDP]);
        octets.extend(((UDP_OCTETS + payload) as u16).to_be_bytes());
        octets.extend(&frame[frame.len() - UDP_OCTETS - payload..]);
        Sum::default().octets(&octets).finish()
    }

    proptest! {
        #[test]
        fn what_is_built_is_read(
            v6: bool,
            tags in 0_usize..3,
            port: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..1452),
            padding in 0_usize..30,
        ) {
            let (path, link) = (path(v6, port), link(tags, ethertype(v6)));
            let mut frame = [0xaa; 2048];
            let len = build(&mut frame, &link, path, &payload).expect("it fits");
            let found = read(&frame[..len + padding]).expect("a good frame");
            prop_assert_eq!((found.source, found.destination), (path.local, path.peer));
            prop_assert_eq!(&frame[found.payload.clone()], &payload[..]);
            prop_assert_eq!(found.payload.end, len);
            prop_assert_eq!(packet_len(path.peer, payload.len()), len - 14 - 4 * tags);
            prop_assert_eq!(udp_sum(&frame[..len], path, payload.len()), 0);
            // The answer to it goes the way back, tags and all.
            prop_assert_eq!(&found.link.octets[..12], &[STATION, NEIGHBOUR].concat()[..]);
            prop_assert_eq!(&found.link.octets[12..found.link.len], &link.octets[12..link.len]);
            let back = Path { local: path.peer, peer: path.local };
            let mut answer = [0; 2048];
            let len = build(&mut answer, &found.link, back, b"!").expect("it fits");
            prop_assert_eq!(&answer[..12], &[STATION, NEIGHBOUR].concat()[..]);
            prop_assert!(read(&answer[..len]).is_ok());
        }

        #[test]
        fn anything_is_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = read(&octets);
        }

        #[test]
        fn a_good_frame_that_is_spoiled_is_read_without_panic(v6: bool, at in 0_usize..60, octet: u8, cut in 0_usize..100) {
            let mut frame = [0; 256];
            let len = build(&mut frame, &link(1, ethertype(v6)), path(v6, 9), &[7; 30]).expect("it fits");
            frame[at] = octet;
            let _ = read(&frame[..len.saturating_sub(cut)]);
        }
    }

    #[test]
    fn what_cannot_be_used_has_its_reason() {
        let mut good = [0; 256];
        let len = build(&mut good, &link(0, ETHERTYPE_IPV4), path(false, 9), &[7; 30]).unwrap();
        let changed = |at: usize, octet: u8| {
            let mut frame = good;
            frame[at] = octet;
            read(&frame[..len]).map(|found| found.source)
        };
        assert_eq!(changed(0, 0x03), Err(Unusable::Group));
        assert_eq!(changed(6, 0xff), Err(Unusable::Group));
        assert_eq!(changed(22, 63), Err(Unusable::Checksum));
        assert_eq!(changed(13, 6), Err(Unusable::Unreadable));
        assert_eq!(changed(23, 6), Err(Unusable::Unreadable));
        assert_eq!(read(&good[..len - 1]).map(|_| ()), Err(Unusable::Short));
        assert_eq!(read(&[]).map(|_| ()), Err(Unusable::Unreadable));
    }

    #[test]
    fn a_source_that_the_stack_would_drop_is_nobodys() {
        let source = |local: &str, ethertype| {
            let local: IpAddr = local.parse().unwrap();
            let peer = if local.is_ipv4() { "192.0.2.1" } else { "fd00::1" };
            let path = Path {
                local: SocketAddr::new(local, 443),
                peer: SocketAddr::new(peer.parse().unwrap(), 9),
            };
            let mut frame = [0; 128];
            let len = build(&mut frame, &link(0, ethertype), path, b"x")?;
            Some(read(&frame[..len]).map(|_found| ()))
        };
        for text in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
            assert_eq!(source(text, ETHERTYPE_IPV4), Some(Err(Unusable::Source)), "{text}");
        }
        for text in ["::1", "::", "ff02::1"] {
            assert_eq!(source(text, ETHERTYPE_IPV6), Some(Err(Unusable::Source)), "{text}");
        }
        assert!(is_nobodys("::ffff:192.0.2.7".parse().unwrap()));
        assert_eq!(source("192.0.2.7", ETHERTYPE_IPV4), Some(Ok(())));
        assert_eq!(source("fe80::7", ETHERTYPE_IPV6), Some(Ok(())));
    }

    #[test]
    fn families_do_not_mix_and_frames_do_not_overflow() {
        let mut frame = [0; 128];
        assert_eq!(build(&mut frame, &link(0, ETHERTYPE_IPV6), path(false, 9), b"x"), None);
        assert_eq!(build(&mut frame, &link(0, ETHERTYPE_IPV4), path(true, 9), b"x"), None);
        assert_eq!(build(&mut frame, &link(0, ETHERTYPE_IPV4), path(false, 9), &[0; 100]), None);
        let mapped = Path {
            local: "[::ffff:192.0.2.1]:443".parse().unwrap(),
            peer: "[::ffff:198.51.100.7]:9".parse().unwrap(),
        };
        let len = build(&mut frame, &link(0, ETHERTYPE_IPV4), mapped, b"x").unwrap();
        assert_eq!(read(&frame[..len]).unwrap().source, "192.0.2.1:443".parse().unwrap());
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_ones() {
        // Payloads of two octets run through all sums.
        let zero = (0..=u16::MAX).find_map(|number| {
            let mut frame = [0; 64];
            let payload = number.to_be_bytes();
            let len = build(&mut frame, &link(0, ETHERTYPE_IPV4), path(false, 9), &payload)?;
            (frame[len - 4..len - 2] == [0xff, 0xff]).then_some(udp_sum(
                &frame[..len],
                path(false, 9),
                2,
            ))
        });
        assert_eq!(zero, Some(0));
    }
}
