//! From an Ethernet frame to its UDP datagram: VLAN and QinQ tags, IPv4 with options, IPv6 with extension headers.
//! Must not know QUIC, maps or verdicts; imports only [`crate::cursor`].
//!
//! What cannot be read with certainty is reported as [`Opaque`] and never judged: the host's own stack decides.

use crate::cursor::Cursor;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q tag.
const ETHERTYPE_VLAN: u16 = 0x8100;
/// IEEE 802.1ad service tag, the outer one of QinQ.
const ETHERTYPE_QINQ: u16 = 0x88a8;

const PROTOCOL_UDP: u8 = 17;
const EXTENSION_HOP_BY_HOP: u8 = 0;
const EXTENSION_ROUTING: u8 = 43;
const EXTENSION_FRAGMENT: u8 = 44;
const EXTENSION_DESTINATION: u8 = 60;

/// Length of a UDP header in octets.
pub const UDP_HEADER_LEN: u16 = 8;

/// VLAN tags read before the frame counts as not understood.
const VLAN_TAGS_MAX: usize = 2;

/// IPv6 extension headers read before the packet counts as not understood. Real traffic has none or one; RFC 9288
/// advises against long chains.
const EXTENSIONS_MAX: usize = 4;

/// An IP address as it stood in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// IPv4, network order.
    V4([u8; 4]),
    /// IPv6, network order.
    V6([u8; 16]),
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(address) => Self::V4(address.octets()),
            core::net::IpAddr::V6(address) => Self::V6(address.octets()),
        }
    }
}

/// Where a UDP datagram comes from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Source address. Anyone can write anything here: it proves nothing.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// Octets of UDP payload by the UDP header; the frame may hold fewer (cut short) or more (Ethernet padding).
    pub payload_len: u16,
    /// Octets before the IP header: Ethernet and VLAN tags.
    pub link_len: u8,
    /// Octets from the IP header to the UDP header, options and extension headers included.
    pub network_len: u16,
}

/// Why a frame was not read down to UDP. None of these is a reason to drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opaque {
    /// The frame ends inside a header.
    Truncated,
    /// Neither IPv4 nor IPv6, or more than two VLAN tags.
    NotIp,
    /// Another protocol than UDP, or an extension header that is not walked.
    NotUdp,
    /// A fragment, first or later: the ports of later ones are elsewhere.
    Fragment,
    /// A header contradicts itself: version, header length, total length.
    Malformed,
}

/// Reads the headers of one Ethernet frame; on success the cursor stands at the UDP payload.
#[inline(always)]
pub fn udp<C: Cursor>(cursor: &mut C) -> Result<Tuple, Opaque> {
    let (ethertype, link_len) = link(cursor)?;
    let mut tuple = match ethertype {
        ETHERTYPE_IPV4 => ipv4(cursor)?,
        ETHERTYPE_IPV6 => ipv6(cursor)?,
        _ => return Err(Opaque::NotIp),
    };
    tuple.link_len = link_len;
    Ok(tuple)
}

/// The type behind the tags, and how long all this is.
#[inline(always)]
fn link<C: Cursor>(cursor: &mut C) -> Result<(u16, u8), Opaque> {
    let header: [u8; 14] = cursor.take().ok_or(Opaque::Truncated)?;
    let mut ethertype = u16::from_be_bytes([header[12], header[13]]);
    let mut link_len = 14;
    for _ in 0..VLAN_TAGS_MAX {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        let tag: [u8; 4] = cursor.take().ok_or(Opaque::Truncated)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        link_len += 4;
    }
    Ok((ethertype, link_len))
}

/// RFC 791 s3.1.
#[inline(always)]
fn ipv4<C: Cursor>(cursor: &mut C) -> Result<Tuple, Opaque> {
    let header: [u8; 20] = cursor.take().ok_or(Opaque::Truncated)?;
    let header_len = u16::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_len < 20 {
        return Err(Opaque::Malformed);
    }
    if header[9] != PROTOCOL_UDP {
        return Err(Opaque::NotUdp);
    }
    // More fragments, or an offset; the reserved and the don't-fragment bit do not matter.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(Opaque::Fragment);
    }
    let total_len = u16::from_be_bytes([header[2], header[3]]);
    let room = total_len.checked_sub(header_len).ok_or(Opaque::Malformed)?;
    if header_len > 20 {
        cursor.skip(usize::from(header_len - 20)).ok_or(Opaque::Truncated)?;
    }
    let (mut source, mut destination) = ([0; 4], [0; 4]);
    source.copy_from_slice(&header[12..16]);
    destination.copy_from_slice(&header[16..20]);
    let (source, destination) = (Address::V4(source), Address::V4(destination));
    ports(cursor, source, destination, header_len, room)
}

/// RFC 8200 s3 and s4.
#[inline(always)]
fn ipv6<C: Cursor>(cursor: &mut C) -> Result<Tuple, Opaque> {
    let header: [u8; 40] = cursor.take().ok_or(Opaque::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Opaque::Malformed);
    }
    // A jumbogram says 0 here and is not understood: it ends as malformed below.
    let mut room = u16::from_be_bytes([header[4], header[5]]);
    let mut network_len = 40;
    let mut next = header[6];
    for _ in 0..EXTENSIONS_MAX {
        match next {
            EXTENSION_HOP_BY_HOP | EXTENSION_ROUTING | EXTENSION_DESTINATION => {}
            EXTENSION_FRAGMENT => return Err(Opaque::Fragment),
            _ => break,
        }
        let start: [u8; 8] = cursor.take().ok_or(Opaque::Truncated)?;
        next = start[0];
        let more = u16::from(start[1]) * 8;
        room = room.checked_sub(8 + more).ok_or(Opaque::Malformed)?;
        network_len += 8 + more;
        if more > 0 {
            cursor.skip(usize::from(more)).ok_or(Opaque::Truncated)?;
        }
    }
    if next == EXTENSION_FRAGMENT {
        return Err(Opaque::Fragment);
    }
    if next != PROTOCOL_UDP {
        return Err(Opaque::NotUdp);
    }
    let mut source = [0; 16];
    let mut destination = [0; 16];
    source.copy_from_slice(&header[8..24]);
    destination.copy_from_slice(&header[24..40]);
    ports(cursor, Address::V6(source), Address::V6(destination), network_len, room)
}

/// RFC 768. `room` is what the IP header leaves for UDP, in octets.
#[inline(always)]
fn ports<C: Cursor>(
    cursor: &mut C,
    source: Address,
    destination: Address,
    network_len: u16,
    room: u16,
) -> Result<Tuple, Opaque> {
    let header: [u8; 8] = cursor.take().ok_or(Opaque::Truncated)?;
    let udp_len = u16::from_be_bytes([header[4], header[5]]);
    if udp_len > room {
        return Err(Opaque::Malformed);
    }
    let payload_len = udp_len.checked_sub(UDP_HEADER_LEN).ok_or(Opaque::Malformed)?;
    Ok(Tuple {
        source,
        destination,
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        payload_len,
        link_len: 0,
        network_len,
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const SOURCE: [u8; 4] = [192, 0, 2, 1];
    const DESTINATION: [u8; 4] = [192, 0, 2, 9];

    fn ethernet(tags: usize, ethertype: u16) -> Vec<u8> {
        let mut frame = std::vec![0; 12];
        for _ in 0..tags {
            frame.extend([0x81, 0x00, 0, 5]);
        }
        frame.extend(ethertype.to_be_bytes());
        frame
    }

    fn datagram(payload: &[u8]) -> Vec<u8> {
        let mut udp = Vec::from([0xc3, 0x50, 0x01, 0xbb, 0, 8 + payload.len() as u8, 0, 0]);
        udp.extend(payload);
        udp
    }

    fn v4(tags: usize, options: usize, payload: &[u8]) -> Vec<u8> {
        let udp = datagram(payload);
        let mut frame = ethernet(tags, ETHERTYPE_IPV4);
        let total_len = (20 + options + udp.len()) as u16;
        frame.push(0x45 + (options / 4) as u8);
        frame.push(0);
        frame.extend(total_len.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, PROTOCOL_UDP, 0, 0]);
        frame.extend(SOURCE);
        frame.extend(DESTINATION);
        frame.extend(std::vec![1; options]);
        frame.extend(udp);
        frame
    }

    fn v6(extensions: &[(u8, usize)], payload: &[u8]) -> Vec<u8> {
        let mut chain = Vec::new();
        for (index, (_, units)) in extensions.iter().enumerate() {
            let next = extensions.get(index + 1).map_or(PROTOCOL_UDP, |(kind, _)| *kind);
            chain.extend([next, *units as u8]);
            chain.extend(std::vec![0; 6 + units * 8]);
        }
        chain.extend(datagram(payload));
        let mut frame = ethernet(0, ETHERTYPE_IPV6);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((chain.len() as u16).to_be_bytes());
        frame.push(extensions.first().map_or(PROTOCOL_UDP, |(kind, _)| *kind));
        frame.push(64);
        frame.extend([1; 16]);
        frame.extend([2; 16]);
        frame.extend(chain);
        frame
    }

    proptest! {
        #[test]
        fn reads_what_was_built(tags in 0_usize..3, options in 0_usize..11, payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let frame = v4(tags, options * 4, &payload);
            let mut cursor = frame.as_slice();
            let tuple = udp(&mut cursor).expect("whole");
            prop_assert_eq!(tuple, Tuple {
                source: Address::V4(SOURCE),
                destination: Address::V4(DESTINATION),
                source_port: 50_000,
                destination_port: 443,
                payload_len: payload.len() as u16,
                link_len: 14 + 4 * tags as u8,
                network_len: 20 + 4 * options as u16,
            });
            prop_assert_eq!(cursor, &payload[..]);
        }

        #[test]
        fn walks_four_extension_headers(kinds in proptest::collection::vec(0_usize..3, 0..6), units in 0_usize..3) {
            let kinds: Vec<_> = kinds
                .into_iter()
                .map(|kind| ([EXTENSION_HOP_BY_HOP, EXTENSION_ROUTING, EXTENSION_DESTINATION][kind], units))
                .collect();
            let frame = v6(&kinds, &[7; 9]);
            let mut cursor = frame.as_slice();
            let read = udp(&mut cursor);
            if kinds.len() <= EXTENSIONS_MAX {
                let tuple = read.expect("whole");
                prop_assert_eq!((tuple.source, tuple.destination), (Address::V6([1; 16]), Address::V6([2; 16])));
                prop_assert_eq!(usize::from(tuple.network_len), frame.len() - 14 - 8 - 9);
                prop_assert_eq!(cursor, &[7; 9][..]);
            } else {
                prop_assert_eq!(read, Err(Opaque::NotUdp));
            }
        }

        #[test]
        fn a_cut_before_the_payload_is_truncated(cut in 0_usize..42) {
            prop_assert_eq!(udp(&mut &v4(0, 0, &[1; 20])[..cut]), Err(Opaque::Truncated));
            prop_assert_eq!(udp(&mut &v6(&[], &[1; 20])[..cut]), Err(Opaque::Truncated));
        }

        #[test]
        fn anything_is_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = udp(&mut octets.as_slice());
        }
    }

    #[test]
    fn what_is_not_understood_has_its_reason() {
        let changed = |at: usize, octet: u8| {
            let mut frame = v4(0, 0, &[1; 30]);
            frame[at] = octet;
            udp(&mut frame.as_slice())
        };
        assert_eq!(udp(&mut v4(3, 0, &[]).as_slice()), Err(Opaque::NotIp));
        assert_eq!(changed(13, 6), Err(Opaque::NotIp));
        assert_eq!(changed(14, 0x44), Err(Opaque::Malformed));
        assert_eq!(changed(14, 0x65), Err(Opaque::Malformed));
        assert_eq!(changed(17, 19), Err(Opaque::Malformed));
        assert_eq!(changed(17, 57), Err(Opaque::Malformed));
        assert_eq!(changed(20, 0x20), Err(Opaque::Fragment));
        assert_eq!(changed(21, 1), Err(Opaque::Fragment));
        assert_eq!(changed(23, 6), Err(Opaque::NotUdp));
        assert_eq!(changed(39, 7), Err(Opaque::Malformed));
        assert_eq!(changed(38, 1), Err(Opaque::Malformed));
        assert_eq!(udp(&mut v6(&[(44, 0)], &[]).as_slice()), Err(Opaque::Fragment));
        assert_eq!(udp(&mut v6(&[(0, 0), (44, 0)], &[]).as_slice()), Err(Opaque::Fragment));
        assert_eq!(udp(&mut v6(&[(51, 0)], &[]).as_slice()), Err(Opaque::NotUdp));
    }
}
