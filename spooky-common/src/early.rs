//! What a header alone proves: a datagram that user space would refuse, whatever connections it has. XDP drops such a
//! datagram, user space refuses it by the same rules. Imports [`crate::cursor`] and [`crate::invariant`]
//! only.
//!
//! A rule may look at the datagram and at nothing that is remembered: a packet that some connection would take must
//! never fall under it. So the fixed bit is not looked at: quiche takes packets without it.

use crate::{
    cursor::Cursor,
    invariant::{Form, Header, Kind, VERSION_1},
};

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A long header with connection IDs of lengths that its version does not have, or cut short.
    Malformed,
    /// It would open a connection, and is shorter than that takes.
    TooShort,
    /// It would open a connection, from a port of a service.
    SourcePort,
    /// Another kind of packet than an Initial, under an ID that we never issue.
    NotInitial,
}

/// Octets of a datagram that may open a connection (RFC 9000 s14.1).
pub const INITIAL_DATAGRAM_MIN: usize = 1200;
/// Longest connection ID of version 1 (RFC 9000 s17.2).
const CID_LEN_MAX: u8 = 20;
/// Shortest first destination connection ID of a client (RFC 9000 s7.2).
const ORIGINAL_DCID_LEN_MIN: u8 = 8;
/// Octets of a long header besides its connection IDs: first octet, version, both lengths.
const LONG_HEADER_LEN: usize = 7;

/// Ports of services that answer whoever asks: SSDP, mDNS, memcached, games. A datagram from there is a reflected one,
/// and its answer would go round (RFC 9308 s8.1).
const REFLECTORS: [u16; 5] = [1900, 5353, 11_211, 20_800, 27_015];
/// Below are the ports of services, which no client takes, and no NAT gives to one (RFC 4787 REQ-3).
const CLIENT_PORT_MIN: u16 = 1024;

/// Whether this is a service's port, from which no client opens a connection.
#[inline(always)]
#[must_use]
pub const fn is_service(port: u16) -> bool {
    let [a, b, c, d, e] = REFLECTORS;
    port < CLIENT_PORT_MIN || port == a || port == b || port == c || port == d || port == e
}

/// Why a datagram is refused by what its first packet's header says, if it is. `rest` stands behind the destination
/// connection ID, `payload_len` is the whole datagram's length in octets. What `rest` does not hold although the datagram
/// does is not judged.
#[inline(always)]
#[must_use]
pub fn refuse<C: Cursor>(
    header: &Header,
    rest: &mut C,
    payload_len: usize,
    source_port: u16,
) -> Option<Reason> {
    let Form::Long { version, kind } = header.form else { return None };
    let (too_short, dcid_len) = (payload_len < INITIAL_DATAGRAM_MIN, header.dcid_len);
    // An ID of 20 octets may be one of ours, and some connection's.
    let strange = dcid_len != CID_LEN_MAX;
    let reason = match kind {
        // RFC 9000 s14.1: a server discards it, whatever connection it names.
        Kind::Initial if too_short => Some(Reason::TooShort),
        Kind::OtherVersion if too_short && strange => Some(Reason::TooShort),
        Kind::Initial | Kind::ZeroRtt if dcid_len < ORIGINAL_DCID_LEN_MIN => {
            Some(Reason::Malformed)
        }
        _ if version == VERSION_1 && dcid_len > CID_LEN_MAX => Some(Reason::Malformed),
        Kind::Initial | Kind::ZeroRtt | Kind::OtherVersion
            if strange && is_service(source_port) =>
        {
            Some(Reason::SourcePort)
        }
        Kind::Handshake | Kind::Retry | Kind::VersionNegotiation if strange => {
            Some(Reason::NotInitial)
        }
        _ => None,
    };
    if reason.is_some() || version != VERSION_1 {
        return reason;
    }
    let begun = LONG_HEADER_LEN + usize::from(dcid_len);
    if payload_len < begun {
        return Some(Reason::Malformed);
    }
    let [scid_len] = rest.take()?;
    let malformed = scid_len > CID_LEN_MAX || payload_len < begun + usize::from(scid_len);
    malformed.then_some(Reason::Malformed)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::invariant;

    fn packet(first: u8, version: u32, dcid: usize, scid: usize, len: usize) -> Vec<u8> {
        let mut packet = std::vec![first];
        packet.extend(version.to_be_bytes());
        packet.push(dcid as u8);
        packet.extend(std::vec![0xd0; dcid]);
        packet.push(scid as u8);
        packet.extend(std::vec![0x5c; scid]);
        packet.resize(len, 0);
        packet
    }

    fn judged(packet: &[u8], port: u16) -> Option<Reason> {
        let mut cursor = packet;
        let header = invariant::read(&mut cursor, packet.len()).expect("an invariant header");
        refuse(&header, &mut cursor, packet.len(), port)
    }

    #[test]
    fn an_initial_fills_its_datagram() {
        assert_eq!(judged(&packet(0xc0, 1, 8, 8, 1199), 5000), Some(Reason::TooShort));
        assert_eq!(judged(&packet(0xc0, 1, 20, 8, 1199), 5000), Some(Reason::TooShort));
        assert_eq!(judged(&packet(0xc0, 1, 8, 8, 1200), 5000), None);
        assert_eq!(judged(&packet(0xc0, 2, 8, 8, 1199), 5000), Some(Reason::TooShort));
        assert_eq!(judged(&packet(0xc0, 2, 20, 8, 1199), 5000), None, "perhaps ours");
        for first in [0xd0, 0xe0] {
            assert_eq!(judged(&packet(first, 1, 20, 8, 100), 5000), None);
        }
    }

    #[test]
    fn ids_of_version_1_have_their_lengths() {
        let malformed = Some(Reason::Malformed);
        for (dcid, scid, expected) in [
            (7, 8, malformed),
            (8, 0, None),
            (20, 20, None),
            (20, 21, malformed),
            (21, 8, malformed),
            (255, 255, malformed),
        ] {
            assert_eq!(judged(&packet(0xc0, 1, dcid, scid, 1200), 5000), expected, "{dcid} {scid}");
            assert_eq!(judged(&packet(0xd0, 1, dcid, scid, 600), 5000), expected, "{dcid} {scid}");
            assert_eq!(judged(&packet(0xc0, 9, dcid, scid, 1200), 5000), None, "another version");
        }
        // The datagram ends within or before the second ID.
        for len in 26..46 {
            let cut = judged(&packet(0xe0, 1, 20, 20, 60)[..len], 5000);
            assert_eq!(cut, malformed, "cut at {len}");
        }
        // The frame does, the datagram does not: nothing is proved.
        let whole = packet(0xe0, 1, 20, 20, 60);
        let mut cursor = &whole[..26];
        let header = invariant::read(&mut cursor, whole.len()).expect("whole");
        assert_eq!(refuse(&header, &mut cursor, whole.len(), 5000), None);
    }

    #[test]
    fn nothing_else_opens_a_connection() {
        for (first, version) in [(0xe0, 1), (0xf0, 1), (0x80, 0)] {
            assert_eq!(judged(&packet(first, version, 8, 8, 100), 1), Some(Reason::NotInitial));
            assert_eq!(judged(&packet(first, version, 20, 8, 100), 1), None, "perhaps ours");
        }
    }

    #[test]
    fn services_open_no_connections() {
        for (port, service) in [(0, true), (53, true), (443, true), (1023, true), (1024, false)] {
            assert_eq!(is_service(port), service, "{port}");
        }
        assert!(REFLECTORS.into_iter().all(is_service));
        for (first, version) in [(0xc0, 1), (0xd0, 1), (0xc0, 0x1a2a_3a4a)] {
            let from = |dcid, port| judged(&packet(first, version, dcid, 8, 1200), port);
            assert_eq!(from(8, 53), Some(Reason::SourcePort));
            assert_eq!(from(8, 50_000), None);
            assert_eq!(from(20, 53), None, "perhaps ours");
        }
        assert_eq!(judged(&[0x40; 60], 53), None);
    }

    #[test]
    fn without_the_fixed_bit_it_is_no_worse() {
        for first in [0xc0, 0xd0, 0xe0] {
            let judged = |first| judged(&packet(first, 1, 20, 8, 1200), 5000);
            assert_eq!(judged(first & !0x40), judged(first));
        }
    }
}
