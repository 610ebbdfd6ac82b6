//! The version-independent QUIC header (RFC 8999) and the packet type of version 1: as much of a datagram as steering
//! needs. Used by XDP, by sk_reuseport and by user space for every segment of a GRO train. Imports only
//! [`crate::cid`] and [`crate::cursor`].

use crate::{cid::CID_LEN, cursor::Cursor};

/// QUIC version 1 (RFC 9000 s15).
pub const VERSION_1: u32 = 1;
/// The version field of a Version Negotiation packet (RFC 8999 s6).
pub const VERSION_NEGOTIATION: u32 = 0;

/// Octets of a long header before its destination connection ID: first octet, version, length.
const LONG_PREFIX_LEN: usize = 6;

/// The part of a QUIC header that says where the packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Short, or long with its version and type.
    pub form: Form,
    /// The destination connection ID; octets from `dcid_len` on are zero. Of an ID longer than 20 octets, which no
    /// version 1 packet has, the first 20.
    pub dcid: [u8; CID_LEN],
    /// Length of the destination connection ID in octets: 20 for a short header (ours all have that length), 0..=255
    /// for a long one.
    pub dcid_len: u8,
}

/// Header form (RFC 8999 s5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Short header: 1-RTT, or a stateless reset. Carries no length; [`CID_LEN`] octets are taken.
    Short,
    /// Long header.
    Long {
        /// Version field, host order.
        version: u32,
        /// Packet type, where the version tells it.
        kind: Kind,
    },
}

/// Type of a long header packet (RFC 9000 s17.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Version 1, type 0.
    Initial,
    /// Version 1, type 1.
    ZeroRtt,
    /// Version 1, type 2.
    Handshake,
    /// Version 1, type 3. Only servers send it.
    Retry,
    /// Version 0. Only servers send it.
    VersionNegotiation,
    /// A version whose types are not known here: what a client opens with before it is told which versions we speak.
    OtherVersion,
}

/// Why a datagram has no readable QUIC header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// No octet at all.
    Empty,
    /// It ends before its destination connection ID does. For a short header: fewer than 21 octets, so it cannot
    /// carry a connection ID of ours.
    Truncated,
    /// The frame ends before the datagram does: nothing is known. Never of a whole datagram.
    Cut,
}

/// Reads the header of the packet a datagram (or GRO segment) begins with.
///
/// # Errors
/// [`Malformed`]; such a datagram belongs to no connection.
#[inline]
pub fn parse(datagram: &[u8]) -> Result<Header, Malformed> {
    let mut cursor = datagram;
    read(&mut cursor, datagram.len())
}

/// As [`parse`], over any cursor that stands at the UDP payload. `payload_len` is how long the payload says it is, in
/// octets: what follows it in the frame is padding and is not read.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn read<C: Cursor>(cursor: &mut C, payload_len: usize) -> Result<Header, Malformed> {
    if payload_len == 0 {
        return Err(Malformed::Empty);
    }
    let [first] = cursor.take().ok_or(Malformed::Cut)?;
    if first & 0x80 == 0 {
        return short(cursor, payload_len);
    }
    long(cursor, payload_len, first)
}

#[inline(always)]
fn short<C: Cursor>(cursor: &mut C, payload_len: usize) -> Result<Header, Malformed> {
    if payload_len < 1 + CID_LEN {
        return Err(Malformed::Truncated);
    }
    let dcid = cursor.take().ok_or(Malformed::Cut)?;
    Ok(Header { form: Form::Short, dcid, dcid_len: CID_LEN as u8 })
}

#[inline(always)]
fn long<C: Cursor>(cursor: &mut C, payload_len: usize, first: u8) -> Result<Header, Malformed> {
    if payload_len < LONG_PREFIX_LEN {
        return Err(Malformed::Truncated);
    }
    let prefix: [u8; LONG_PREFIX_LEN - 1] = cursor.take().ok_or(Malformed::Cut)?;
    let [v0, v1, v2, v3, dcid_len] = prefix;
    let version = u32::from_be_bytes([v0, v1, v2, v3]);
    let held = usize::from(dcid_len);
    if payload_len < LONG_PREFIX_LEN + held {
        return Err(Malformed::Truncated);
    }
    let dcid = if held >= CID_LEN {
        let dcid = cursor.take().ok_or(Malformed::Cut)?;
        cursor.skip(held - CID_LEN).ok_or(Malformed::Cut)?;
        dcid
    } else {
        cursor.take_up_to(held).ok_or(Malformed::Cut)?
    };
    Ok(Header { form: Form::Long { version, kind: kind(version, first) }, dcid, dcid_len })
}

#[inline(always)]
const fn kind(version: u32, first: u8) -> Kind {
    match version {
        VERSION_NEGOTIATION => Kind::VersionNegotiation,
        VERSION_1 => match first >> 4 & 0x03 {
            0 => Kind::Initial,
            1 => Kind::ZeroRtt,
            2 => Kind::Handshake,
            _ => Kind::Retry,
        },
        _ => Kind::OtherVersion,
    }
}

impl Header {
    /// The destination connection ID, as many octets of it as were kept (at most 20).
    #[inline]
    #[must_use]
    pub fn dcid(&self) -> &[u8] {
        self.dcid.get(..usize::from(self.dcid_len)).unwrap_or(&self.dcid)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn long_packet(first: u8, version: u32, dcid: &[u8]) -> Vec<u8> {
        let mut packet = std::vec![first];
        packet.extend_from_slice(&version.to_be_bytes());
        packet.push(dcid.len() as u8);
        packet.extend_from_slice(dcid);
        packet.extend_from_slice(&[4, 9, 9, 9, 9, 0, 0]);
        packet
    }

    #[test]
    fn types_of_version_1() {
        for (first, expected) in [
            (0xc0, Kind::Initial),
            (0xd3, Kind::ZeroRtt),
            (0xe1, Kind::Handshake),
            (0xff, Kind::Retry),
        ] {
            let header = parse(&long_packet(first, VERSION_1, &[7; 8])).expect("whole");
            assert_eq!(header.form, Form::Long { version: 1, kind: expected });
            assert_eq!(header.dcid(), [7; 8]);
        }
        let other = parse(&long_packet(0xc0, 0x6b33_43cf, &[])).expect("whole");
        assert_eq!(other.form, Form::Long { version: 0x6b33_43cf, kind: Kind::OtherVersion });
        let negotiation = parse(&long_packet(0x80, 0, &[1; 20])).expect("whole");
        assert_eq!(negotiation.form, Form::Long { version: 0, kind: Kind::VersionNegotiation });
    }

    #[test]
    fn long_ids_are_reported_as_such() {
        // RFC 8999 s5.1 allows 255 octets; version negotiation must be able to answer them (RFC 9000 s17.2).
        let header = parse(&long_packet(0xc0, 0xfafa_fafa, &[5; 255])).expect("whole");
        assert_eq!((header.dcid_len, header.dcid), (255, [5; 20]));
        assert_eq!(header.dcid().len(), 20);
    }

    #[test]
    fn a_short_header_has_twenty_octets() {
        let mut packet = [3; 21];
        packet[0] = 0x40;
        let header = parse(&packet).expect("whole");
        assert_eq!((header.form, header.dcid_len, header.dcid), (Form::Short, 20, [3; 20]));
        assert_eq!(parse(&packet[..20]), Err(Malformed::Truncated));
        assert_eq!(parse(&[]), Err(Malformed::Empty));
    }

    #[test]
    fn padding_behind_the_payload_is_not_read() {
        let frame = [0x40; 64];
        assert_eq!(read(&mut frame.as_slice(), 20), Err(Malformed::Truncated));
        assert_eq!(read(&mut frame.as_slice(), 0), Err(Malformed::Empty));
        assert!(read(&mut frame.as_slice(), 21).is_ok());
    }

    proptest! {
        #[test]
        fn every_cut_is_truncated(first in 0x80_u8.., version: u32, dcid in proptest::collection::vec(any::<u8>(), 0..=255)) {
            let packet = long_packet(first, version, &dcid);
            let whole = LONG_PREFIX_LEN + dcid.len();
            for cut in 1..packet.len() {
                let header = parse(&packet[..cut]);
                prop_assert_eq!(header.is_ok(), cut >= whole);
            }
            let header = parse(&packet).expect("whole");
            prop_assert_eq!(usize::from(header.dcid_len), dcid.len());
            prop_assert_eq!(header.dcid(), &dcid[..dcid.len().min(20)]);
        }

        #[test]
        fn anything_is_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&octets);
        }
    }
}
