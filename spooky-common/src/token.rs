//! The head of an address validation token (RFC 9000 s8.1.2): as much of it as shows without any state, and before any
//! cryptography of user space's, that somebody at this address has been asked to come back. Imports [`crate::cid`],
//! [`crate::cursor`], [`crate::frame`] and [`crate::siphash`] only.
//!
//! ```text
//!  token: version(1) mark(8) minted(8, Unix milliseconds) .. the rest is user space's, which signs all of it
//!  mark:  SipHash-2-4(k_local of the connection ID's config id, address(16) port(8) minted(8))
//! ```
//!
//! A mark without a valid signature opens nothing: it gets a packet past XDP while that lets no stranger pass. The key is the one
//! of connection IDs, whose inputs have another length.

use crate::{
    cid::{CID_LEN, LocalKey},
    cursor::Cursor,
    frame::{Address, Tuple},
    siphash::siphash24,
};

/// The first octet of our tokens.
pub const VERSION: u8 = 2;
/// Octets of the head.
pub const HEAD_LEN: usize = 17;
/// The longest token whose length is written in one octet (RFC 9000 s16); ours are no longer.
pub const LEN_MAX: usize = 63;

/// Octets of an Initial up to the end of a destination connection ID of ours.
pub const BEFORE: usize = 6 + CID_LEN;

/// Longest connection ID of version 1 (RFC 9000 s17.2).
const CID_LEN_MAX: u8 = 20;

/// The mark of a token for a client at this address.
#[inline(always)]
#[must_use]
pub fn mark(key: &LocalKey, address: &Address, port: u16, minted_ms: u64) -> u64 {
    let [high, low] = match *address {
        Address::V4([a, b, c, d]) => [0, u64::from_be_bytes([0, 0, 0xff, 0xff, a, b, c, d])],
        Address::V6(octets) => halves(octets),
    };
    siphash24(key.k0, key.k1, [high, low, port as u64, minted_ms])
}

/// The head of a token.
#[must_use]
pub fn head(mark: u64, minted_ms: u64) -> [u8; HEAD_LEN] {
    let [a, b, c, d, e, f, g, h] = mark.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = minted_ms.to_be_bytes();
    [VERSION, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// Whether an Initial brings a token with the mark of its sender, minted at `since_ms` or later. `rest` stands behind the
/// destination connection ID, whose key `key` is.
#[inline(always)]
#[must_use]
pub fn is_marked<C: Cursor>(rest: &mut C, from: &Tuple, key: &LocalKey, since_ms: u64) -> bool {
    let Some((theirs, minted_ms)) = read(rest) else { return false };
    minted_ms >= since_ms && theirs == mark(key, &from.source, from.source_port, minted_ms)
}

/// Marks the token of an Initial anew, under another key. `rest` is what stands behind the destination connection ID.
/// `None`, and nothing changed: there is no token of ours.
pub fn mark_again(rest: &mut [u8], from: &Tuple, key: &LocalKey) -> Option<()> {
    let (_, minted_ms) = read(&mut &*rest)?;
    // Both lengths and the version.
    let place = 3 + usize::from(*rest.first()?);
    let mark = mark(key, &from.source, from.source_port, minted_ms);
    rest.get_mut(place..place + 8)?.copy_from_slice(&mark.to_be_bytes());
    Some(())
}

/// Mark and time of the token in an Initial.
#[inline(always)]
fn read<C: Cursor>(rest: &mut C) -> Option<(u64, u64)> {
    let [scid_len] = rest.take()?;
    if scid_len > CID_LEN_MAX {
        return None;
    }
    rest.skip(usize::from(scid_len))?;
    let [token_len, version] = rest.take()?;
    if version != VERSION || !(HEAD_LEN..=LEN_MAX).contains(&usize::from(token_len)) {
        return None;
    }
    let mark: [u8; 8] = rest.take()?;
    let minted: [u8; 8] = rest.take()?;
    Some((u64::from_be_bytes(mark), u64::from_be_bytes(minted)))
}

#[inline(always)]
const fn halves(o: [u8; 16]) -> [u64; 2] {
    [
        u64::from_be_bytes([o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]]),
        u64::from_be_bytes([o[8], o[9], o[10], o[11], o[12], o[13], o[14], o[15]]),
    ]
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    const KEY: LocalKey = LocalKey { k0: 5, k1: 6 };
    const NOW: u64 = 1_790_000_000_000;

    fn from(source: Address, source_port: u16) -> Tuple {
        Tuple {
            source,
            destination: Address::V4([192, 0, 2, 1]),
            source_port,
            destination_port: 443,
            payload_len: 1200,
            link_len: 14,
            network_len: 20,
        }
    }

    /// What stands behind the destination connection ID of an Initial with this token.
    fn behind(scid: usize, token: &[u8]) -> Vec<u8> {
        let mut octets = std::vec![scid as u8];
        octets.resize(1 + scid, 0x5c);
        octets.push(token.len() as u8);
        octets.extend(token);
        octets.resize(1100, 0);
        octets
    }

    fn is_marked_behind(octets: &[u8], tuple: &Tuple) -> bool {
        let mut rest = octets;
        is_marked(&mut rest, tuple, &KEY, NOW - 10)
    }

    fn token(tuple: &Tuple, minted: u64) -> Vec<u8> {
        let mark = mark(&KEY, &tuple.source, tuple.source_port, minted);
        let mut token = head(mark, minted).to_vec();
        token.extend([0xee; 30]);
        token
    }

    #[test]
    fn it_is_known_again_where_it_was_given() {
        for source in [Address::V4([203, 0, 113, 9]), Address::V6([0x20; 16])] {
            let here = from(source, 4711);
            for scid in [0, 8, 20] {
                let octets = behind(scid, &token(&here, NOW));
                assert!(is_marked_behind(&octets, &here));
                assert!(!is_marked_behind(&octets, &from(source, 4712)), "another port");
                assert!(!is_marked_behind(&octets, &from(Address::V4([203, 0, 113, 8]), 4711)));
            }
            assert!(is_marked_behind(&behind(8, &token(&here, NOW - 10)), &here));
            assert!(!is_marked_behind(&behind(8, &token(&here, NOW - 11)), &here), "too old");
        }
    }

    #[test]
    fn it_can_be_marked_under_another_key() {
        let (here, other) = (from(Address::V6([0x20; 16]), 4711), LocalKey { k0: 7, k1: 8 });
        let mut octets = behind(8, &token(&here, NOW));
        assert_eq!(mark_again(&mut octets, &here, &other), Some(()));
        assert!(!is_marked_behind(&octets, &here));
        assert!(is_marked(&mut &octets[..], &here, &other, NOW));
        let none = behind(8, &[]);
        let mut octets = none.clone();
        assert_eq!(mark_again(&mut octets, &here, &other), None);
        assert_eq!(octets, none);
    }

    #[test]
    fn an_ipv4_client_has_one_mark_in_both_forms() {
        let mapped = core::net::Ipv4Addr::new(203, 0, 113, 9).to_ipv6_mapped().octets();
        let [four, six] = [Address::V4([203, 0, 113, 9]), Address::V6(mapped)];
        assert_eq!(mark(&KEY, &four, 1, NOW), mark(&KEY, &six, 1, NOW));
    }

    #[test]
    fn no_changed_octet_passes_and_nothing_is_read_past_the_end() {
        let here = from(Address::V4([203, 0, 113, 9]), 4711);
        let whole = behind(8, &token(&here, NOW));
        for place in 10..10 + HEAD_LEN {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[place] ^= 1 << bit;
                assert!(!is_marked_behind(&changed, &here), "{place}.{bit}");
            }
        }
        for length in 0..1 + 8 + 1 + HEAD_LEN {
            assert!(!is_marked_behind(&whole[..length], &here), "{length}");
        }
        assert!(!is_marked_behind(&behind(21, &token(&here, NOW)), &here), "no such ID");
        assert!(!is_marked_behind(&behind(8, &[]), &here), "no token");
        assert!(!is_marked_behind(&behind(8, &token(&here, NOW)[..16]), &here), "half a head");
        let long = [token(&here, NOW), std::vec![0; 17]].concat();
        assert!(!is_marked_behind(&behind(8, &long), &here), "a length of two octets");
    }
}
