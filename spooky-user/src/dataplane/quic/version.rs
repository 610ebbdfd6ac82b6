//! Version Negotiation (RFC 8999 §6, RFC 9000 §6.1): the answer to a version we do not speak.

use spooky_common::invariant::VERSION_1;

/// A client's first datagram is never smaller (RFC 9000 §14.1); smaller ones are not answered, so nothing is amplified.
pub(super) const TRIGGER_SIZE_MIN: usize = 1200;

/// A reserved version that clients must ignore (RFC 9000 §15), so that they keep being able to.
const GREASE: u32 = 0x1a2a_3a4a;

/// Writes the answer to `trigger` into `out`; its size, or `None` when it must not be answered.
//= https://www.rfc-editor.org/rfc/rfc9000#section-5.2.2
//# If a server receives a packet that indicates an unsupported version
//# and if the packet is large enough to initiate a new connection for
//# any supported version, the server SHOULD send a Version Negotiation
//# packet as described in Section 6.1.
//= https://www.rfc-editor.org/rfc/rfc9000#section-5.2.2
//# Servers MUST drop smaller packets that specify unsupported versions.
pub(super) fn negotiate(trigger: &[u8], random: u8, out: &mut [u8]) -> Option<usize> {
    if trigger.len() < TRIGGER_SIZE_MIN {
        return None;
    }
    // First octet and version, then two length-prefixed connection IDs of up to 255 octets (RFC 8999 §5.1).
    let (dcid, rest) = prefixed(trigger.get(5..)?)?;
    let (scid, _) = prefixed(rest)?;
    let mut size = 0;
    let mut put = |octets: &[u8]| -> Option<()> {
        out.get_mut(size..size + octets.len())?.copy_from_slice(octets);
        size += octets.len();
        Some(())
    };
    put(&[0x80 | random])?;
    put(&0u32.to_be_bytes())?;
    put(scid)?;
    put(dcid)?;
    put(&GREASE.to_be_bytes())?;
    put(&VERSION_1.to_be_bytes())?;
    Some(size)
}

/// A length octet and what follows, length included.
fn prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(1 + usize::from(*bytes.first()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(dcid: usize, scid: usize) -> Vec<u8> {
        let mut packet = vec![0xc0, 0xfa, 0xce, 0xb0, 0x0c];
        packet.push(u8::try_from(dcid).unwrap());
        packet.extend(std::iter::repeat_n(0xd0, dcid));
        packet.push(u8::try_from(scid).unwrap());
        packet.extend(std::iter::repeat_n(0x5c, scid));
        packet.resize(1200, 0);
        packet
    }

    #[test]
    fn connection_ids_are_swapped_and_version_1_is_offered() {
        let mut out = [0; 600];
        for (dcid, scid) in [(0, 0), (8, 4), (20, 20), (255, 255)] {
            let size = negotiate(&trigger(dcid, scid), 0x3f, &mut out).unwrap();
            assert_eq!(out[..5], [0xbf, 0, 0, 0, 0]);
            assert_eq!(usize::from(out[5]), scid);
            assert_eq!(usize::from(out[6 + scid]), dcid);
            assert_eq!(out[size - 4..size], [0, 0, 0, 1]);
            assert!(size < 1200);
        }
    }

    //= https://www.rfc-editor.org/rfc/rfc9000#section-5.2.2
    //= type=test
    //# Servers MUST drop smaller packets that specify unsupported versions.
    #[test]
    fn small_and_truncated_triggers_are_not_answered() {
        let mut out = [0; 600];
        let whole = trigger(8, 8);
        for size in 0..1200 {
            assert_eq!(negotiate(&whole[..size], 0, &mut out), None);
        }
        let mut lying = vec![0xff; 1200];
        lying[5] = 255;
        lying.truncate(1200);
        assert!(negotiate(&lying, 0, &mut out).is_some());
    }
}
