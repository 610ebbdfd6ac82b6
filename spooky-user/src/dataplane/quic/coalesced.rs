//! How much of a datagram is for the connection of its first packet (RFC 9000 §12.2): quiche would take what follows for its
//! own, whatever connection ID it names. Imports nothing of the crate.

use spooky_common::invariant::VERSION_1;

/// Octets up to the first packet with another destination connection ID, or all.
//= https://www.rfc-editor.org/rfc/rfc9000#section-12.2
//# Receivers SHOULD ignore any subsequent packets with a different
//# Destination Connection ID than the first packet in the datagram.
pub(super) fn own_part(datagram: &[u8]) -> usize {
    let mut own = 0;
    let mut first: Option<&[u8]> = None;
    loop {
        let Some(rest) = datagram.get(own..).filter(|rest| !rest.is_empty()) else {
            return datagram.len();
        };
        let Some((dcid, size)) = packet(rest, first.map_or(0, <[u8]>::len)) else {
            // A tail that is no packet, such as padding: quiche drops it.
            return datagram.len();
        };
        match first {
            None => first = Some(dcid),
            Some(first) if first != dcid => return own,
            Some(_) => {}
        }
        match size {
            Some(size) => own += size,
            None => return datagram.len(),
        }
    }
}

/// A packet's destination connection ID, and its size where it does not take the rest of the datagram. A short header has an ID
/// of `short` octets.
fn packet(bytes: &[u8], short: usize) -> Option<(&[u8], Option<usize>)> {
    let first = *bytes.first()?;
    if first & 0x40 == 0 {
        // Without the fixed bit it is no packet: zeros, as some clients pad their datagrams.
        return None;
    }
    if first & 0x80 == 0 {
        return Some((bytes.get(1..=short)?, None));
    }
    let mut reader = Reader { bytes, at: 1 };
    let version = u32::from_be_bytes(reader.take(4)?.try_into().ok()?);
    let length = usize::from(*reader.take(1)?.first()?);
    let dcid = reader.take(length)?;
    let length = usize::from(*reader.take(1)?.first()?);
    reader.take(length)?;
    // Initial, 0-RTT and Handshake say how long they are; Retry and other versions do not.
    let kind = first >> 4 & 3;
    if version != VERSION_1 || kind == 3 {
        return Some((dcid, None));
    }
    if kind == 0 {
        let token = reader.varint()?;
        reader.take(usize::try_from(token).ok()?)?;
    }
    let payload = reader.varint()?;
    reader.take(usize::try_from(payload).ok()?)?;
    Some((dcid, Some(reader.at)))
}

struct Reader<'d> {
    bytes: &'d [u8],
    at: usize,
}

impl<'d> Reader<'d> {
    fn take(&mut self, length: usize) -> Option<&'d [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// RFC 9000 §16.
    fn varint(&mut self) -> Option<u64> {
        let first = *self.take(1)?.first()?;
        let mut value = u64::from(first & 0x3f);
        for octet in self.take((1 << (first >> 6)) - 1)? {
            value = value << 8 | u64::from(*octet);
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Initial (with an empty token) or Handshake packet.
    fn long(kind: u8, dcid: &[u8], payload: usize) -> Vec<u8> {
        let mut packet = vec![0xc0 | kind << 4, 0, 0, 0, 1, dcid.len() as u8];
        packet.extend_from_slice(dcid);
        packet.extend_from_slice(&[2, 9, 9]);
        if kind == 0 {
            packet.push(0);
        }
        packet.extend_from_slice(&(0x4000 | payload as u16).to_be_bytes());
        packet.resize(packet.len() + payload, 0xee);
        packet
    }

    #[test]
    fn what_follows_under_the_same_id_is_kept() {
        let datagram =
            [long(0, b"12345678", 100), long(2, b"12345678", 70), b"\x4012345678rest".to_vec()];
        let datagram = datagram.concat();
        assert_eq!(own_part(&datagram), datagram.len());
    }

    #[test]
    fn what_follows_under_another_id_is_cut_off() {
        let own = [long(0, b"12345678", 100), long(2, b"12345678", 70)].concat();
        for foreign in [
            long(2, b"12345679", 30),
            long(0, b"1234567", 30),
            long(1, b"", 30),
            b"\x4022345678rest".to_vec(),
        ] {
            let datagram = [own.clone(), foreign, long(2, b"12345678", 9)].concat();
            assert_eq!(own_part(&datagram), own.len());
        }
    }

    #[test]
    fn cut_short_anywhere_it_is_no_panic_and_never_more_than_all() {
        let whole = [long(0, b"12345678", 100), long(2, b"87654321", 70)].concat();
        for length in 0..=whole.len() {
            assert!(own_part(&whole[..length]) <= length);
        }
        // Padding behind a packet.
        let padded = [long(0, b"12345678", 100), vec![0; 50]].concat();
        assert_eq!(own_part(&padded), padded.len());
    }
}
