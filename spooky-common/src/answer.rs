//! A Version Negotiation packet (RFC 8999 s6, RFC 9000 s17.2.1) made out of the frame that asks for it, to be sent back by
//! the interface it came in by. Imports [`crate::early`] and [`crate::frame`] only.
//!
//! Less than half of what it answers, with connection IDs of any length. It is written behind the header that it takes
//! them from, [`SHIFT`] octets into the frame, so that nothing is kept beside it; the caller cuts off what is before and
//! behind. Frames with IP options or extension headers are left to user space.

use crate::{
    early::INITIAL_DATAGRAM_MIN,
    frame::{Address, Tuple, UDP_HEADER_LEN},
};

/// How far into the frame its answer begins, in octets: behind the longest invariant header, and with room for the longest
/// answer before the datagram's end.
pub const SHIFT: usize = 600;
/// A reserved version that clients must ignore (RFC 9000 s15), so that they keep being able to.
pub const GREASE: u32 = 0x1a2a_3a4a;
/// The version that is offered.
pub const OFFERED: u32 = crate::invariant::VERSION_1;

/// Octets of a connection ID with its length, at most.
const PREFIXED_MAX: usize = 256;
/// Octets of an answer's payload besides its connection IDs.
const FIXED_LEN: usize = 15;
/// Answers go this far, as the stack's own packets do.
const HOPS: u8 = 64;
const LEN_V4: usize = 20;
const LEN_V6: usize = 40;
const PROTOCOL_UDP: u8 = 17;

const _: () = assert!(5 + 2 * PREFIXED_MAX <= SHIFT);
const _: () = assert!(SHIFT + 5 + 2 * PREFIXED_MAX + 12 <= INITIAL_DATAGRAM_MIN);

/// Reads and writes within a frame. `None` beyond its end.
pub trait Edit {
    /// `N` octets from `at` on.
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]>;
    /// Replaces `N` octets from `at` on.
    fn write<const N: usize>(&mut self, at: usize, octets: [u8; N]) -> Option<()>;
}

/// Whether an answer to this frame can be made here: it goes from one station to one station, has plain headers, and is as
/// long as it says. The datagram must have [`INITIAL_DATAGRAM_MIN`] octets.
#[inline(always)]
#[must_use]
pub fn can_answer<E: Edit>(frame: &E, tuple: &Tuple) -> bool {
    let Some([to, _, _, _, _, _, from]) = frame.read::<7>(0) else { return false };
    let network_len = usize::from(tuple.network_len);
    let plain = network_len == if is_v4(tuple) { LEN_V4 } else { LEN_V6 };
    let end = usize::from(tuple.link_len)
        + network_len
        + usize::from(UDP_HEADER_LEN)
        + INITIAL_DATAGRAM_MIN;
    (to | from) & 1 == 0 && plain && frame.read::<1>(end - 1).is_some()
}

/// Writes the answer into the frame, from [`SHIFT`] on; its length as a frame, in octets. `None`: a write went beyond the
/// frame's end, which [`can_answer`] has ruled out, and the frame is spoiled.
#[inline(always)]
pub fn version_negotiation<E: Edit>(frame: &mut E, tuple: &Tuple) -> Option<usize> {
    let network = usize::from(tuple.link_len);
    let network_len = if is_v4(tuple) { LEN_V4 } else { LEN_V6 };
    let payload_len = packet(frame, network + network_len + usize::from(UDP_HEADER_LEN))?;
    let udp_len = UDP_HEADER_LEN + payload_len as u16;
    let pseudo =
        if is_v4(tuple) { ipv4(frame, network, udp_len)? } else { ipv6(frame, network, udp_len)? };
    udp(frame, network + network_len, udp_len, pseudo)?;
    link(frame, network)?;
    Some(network + network_len + usize::from(udp_len))
}

#[inline(always)]
const fn is_v4(tuple: &Tuple) -> bool {
    matches!(tuple.source, Address::V4(_))
}

/// The packet out of the one at `at`, connection IDs in the other order; its length.
#[inline(always)]
fn packet<E: Edit>(frame: &mut E, at: usize) -> Option<usize> {
    let [dcid_len] = frame.read(at + 5)?;
    let dcid_len = usize::from(dcid_len);
    let [scid_len] = frame.read(at + 6 + dcid_len)?;
    let scid_len = usize::from(scid_len);
    let to = at + SHIFT;
    frame.write(to, [0xc0, 0, 0, 0, 0])?;
    // Each ID with its length before it, and whatever is behind it: the next piece covers that.
    copy(frame, at + 6 + dcid_len, to + 5)?;
    copy(frame, at + 5, to + 6 + scid_len)?;
    let versions = to + 7 + scid_len + dcid_len;
    frame.write(versions, GREASE.to_be_bytes())?;
    frame.write(versions + 4, OFFERED.to_be_bytes())?;
    // The checksum is over whole words.
    frame.write(versions + 8, [0; 4])?;
    Some(FIXED_LEN + scid_len + dcid_len)
}

/// [`PREFIXED_MAX`] octets to another place.
#[inline(always)]
fn copy<E: Edit>(frame: &mut E, from: usize, to: usize) -> Option<()> {
    for step in 0..PREFIXED_MAX / 8 {
        let octets: [u8; 8] = frame.read(from + 8 * step)?;
        frame.write(to + 8 * step, octets)?;
    }
    Some(())
}

/// A header without options; the sum of what UDP's checksum covers of it.
#[inline(always)]
fn ipv4<E: Edit>(frame: &mut E, at: usize, udp_len: u16) -> Option<u32> {
    let client: [u8; 4] = frame.read(at + 12)?;
    let server: [u8; 4] = frame.read(at + 16)?;
    let to = at + SHIFT;
    let total_len = LEN_V4 as u16 + udp_len;
    let addresses = sum(&client) + sum(&server);
    let [high, low] = total_len.to_be_bytes();
    // Not to be fragmented, so that it needs no identification (RFC 6864).
    let fields = [0x45, 0, high, low, 0, 0, 0x40, 0, HOPS, PROTOCOL_UDP];
    let checksum = folded(sum(&fields) + addresses);
    frame.write(to, fields)?;
    frame.write(to + 10, checksum.to_be_bytes())?;
    frame.write(to + 12, server)?;
    frame.write(to + 16, client)?;
    Some(addresses)
}

/// As [`ipv4`].
#[inline(always)]
fn ipv6<E: Edit>(frame: &mut E, at: usize, udp_len: u16) -> Option<u32> {
    let to = at + SHIFT;
    let [high, low] = udp_len.to_be_bytes();
    frame.write(to, [0x60, 0, 0, 0, high, low, PROTOCOL_UDP, HOPS])?;
    let mut addresses = 0;
    // From the source's place to the destination's, and back.
    for (from, place) in [(8, 24), (16, 32), (24, 8), (32, 16)] {
        let half: [u8; 8] = frame.read(at + from)?;
        addresses += sum(&half);
        frame.write(to + place, half)?;
    }
    Some(addresses)
}

#[inline(always)]
fn udp<E: Edit>(frame: &mut E, at: usize, udp_len: u16, addresses: u32) -> Option<()> {
    let client: [u8; 2] = frame.read(at)?;
    let server: [u8; 2] = frame.read(at + 2)?;
    let to = at + SHIFT;
    frame.write(to, server)?;
    frame.write(to + 2, client)?;
    frame.write(to + 4, udp_len.to_be_bytes())?;
    frame.write(to + 6, [0, 0])?;
    let mut total = addresses + u32::from(PROTOCOL_UDP) + u32::from(udp_len);
    for word in 0..(8 + 5 + 2 * PREFIXED_MAX + 8) / 4 + 1 {
        if 4 * word >= usize::from(udp_len) {
            break;
        }
        total += sum(&frame.read::<4>(to + 4 * word)?);
    }
    // Zero would say that there is none (RFC 768); its other form is as good.
    let checksum = match folded(total) {
        0 => u16::MAX,
        checksum => checksum,
    };
    frame.write(to + 6, checksum.to_be_bytes())
}

/// Stations change places, tags and type stay.
#[inline(always)]
fn link<E: Edit>(frame: &mut E, link_len: usize) -> Option<()> {
    let to: [u8; 6] = frame.read(0)?;
    let from: [u8; 6] = frame.read(6)?;
    frame.write(SHIFT, from)?;
    frame.write(SHIFT + 6, to)?;
    for tag in 0..3 {
        let at = 12 + 4 * tag;
        if at >= link_len {
            break;
        }
        // The last one is a type without a tag.
        let kept: [u8; 2] = frame.read(at)?;
        frame.write(SHIFT + at, kept)?;
        if at + 2 < link_len {
            let number: [u8; 2] = frame.read(at + 2)?;
            frame.write(SHIFT + at + 2, number)?;
        }
    }
    Some(())
}

/// Sum of the 16-bit words of an even number of octets.
#[inline(always)]
fn sum<const N: usize>(octets: &[u8; N]) -> u32 {
    let words = octets.as_chunks::<2>().0;
    words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum()
}

/// The Internet checksum of a sum (RFC 1071).
#[inline(always)]
const fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

impl Edit for &mut [u8] {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..)?.first_chunk().copied()
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, octets: [u8; N]) -> Option<()> {
        *self.get_mut(at..)?.first_chunk_mut()? = octets;
        Some(())
    }
}
