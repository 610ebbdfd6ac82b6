//! The layout of the connection IDs that spooky issues: the one value by which XDP, sk_reuseport and user space find
//! the worker that owns a connection. Must not import anything but [`crate::siphash`].
//!
//! ```text
//!  octet   0        1 ..................... 16   17        18        19
//!        +--------+-----------------------------+---------+---------+---------+
//!        |cid conf| opaque block                | wwwwwwww  ggggcccc  cccccccc |
//!        |3b | 19 | AES-128(server, worker,     | worker 8, generation 4,      |
//!        |   |    |   generation, nonce)        | check 12, all XOR mask       |
//!        +--------+-----------------------------+------------------------------+
//!                   h = SipHash-2-4(k_local, octets 1..=16)      64 bits
//!                   mask  = h[0..24]          hides worker, generation and check
//!                   r     = h[24..47]         23 bits, selects the check function
//!                   check = T_r * (worker || generation)   over GF(2)
//! ```
//!
//! Octet 0 and octets 1 to 16 are a connection ID of draft-ietf-quic-load-balancers with a self-encoded length of 19;
//! a load balancer that holds the AES key reads them, nobody on this host has to. Octets 17 to 19 are for this host.
//!
//! # What a forger gets
//! A plain XOR would let whoever holds one connection ID flip worker bits and a matching check. So the check is a
//! function of worker and generation chosen by other bits of the same hash: `T_r` is the 12 x 12 Hankel matrix whose
//! entry (i, j) is bit i + j of `r`. For any change d != 0 of worker and generation, `T_r * d` is uniform over the
//! random `r`, so each accompanying change of the check passes with probability exactly 2^-12; a change of the check
//! alone never passes, and any change of octets 1 to 16 draws a new `h`, so it passes with 2^-12. A random 20-octet
//! string must in addition have 19 in its first octet: 2^-17. (docs/codex/decisions/0010-connection-id-check.md)

use crate::siphash::siphash24;

/// Length of every connection ID that spooky issues, in octets: the longest of QUIC version 1 (RFC 9000 s17.2).
//= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.4
//# In particular, all servers using a configuration MUST consistently add
//# the same length to each connection ID, to preserve the linkability
//# objectives of QUIC-LB.
pub const CID_LEN: usize = 20;

/// How many config ids have a key: 0..=6. Config id 7 is reserved for connection IDs that no host can route
/// (draft-ietf-quic-load-balancers, "Unroutable Connection IDs"), so it never decodes.
//= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-3.1
//# A configuration MUST NOT use the reserved identifier 0b111
pub const CONFIG_IDS: u8 = 7;

/// What the low five bits of octet 0 say: how many octets follow it.
const LENGTH_BITS: u8 = (CID_LEN - 1) as u8;

/// How many generations a connection ID can tell apart.
pub const GENERATIONS: u8 = 16;

/// The host's secret behind octets 17 to 19. One per config id; never leaves this host.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LocalKey {
    /// First half of the SipHash key, as it is read from little-endian octets.
    pub k0: u64,
    /// Second half.
    pub k1: u64,
}

/// Who owns a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Number of the worker, 0..=255.
    pub worker: u8,
    /// Generation of the process that runs it, 0..=15. It changes when a new process takes the sockets over.
    pub generation: u8,
}

/// Octet 0 for `config_id`, of which the low three bits count.
//= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-3.1
//# The first three bits of any connection ID MUST encode an identifier for
//# the configuration that the connection ID uses.
#[inline(always)]
#[must_use]
pub const fn first_octet(config_id: u8) -> u8 {
    config_id << 5 | LENGTH_BITS
}

/// The config id in octet 0: 0..=7. Only 0..=6 have a key.
#[inline(always)]
#[must_use]
pub const fn config_id(first: u8) -> u8 {
    first >> 5
}

/// Writes octets 17 to 19 of `cid`, whose octets 0 to 16 are already final. Bits of `owner.generation` above the low
/// four are lost.
//= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.4
//# These bytes MUST NOT provide observers with any information that could
//# link two connection IDs to the same connection, client, or server.
#[inline]
pub fn seal(cid: &mut [u8; CID_LEN], key: &LocalKey, owner: Owner) {
    let hash = hash(cid, key);
    let who = (owner.worker as u32) << 4 | (owner.generation & 0x0f) as u32;
    let clear = who << 12 | check(hash, who);
    let [_, a, b, c] = (clear ^ mask(hash)).to_be_bytes();
    cid[17] = a;
    cid[18] = b;
    cid[19] = c;
}

/// Reads the owner back. `None`: not one of ours, or not under this key. The caller picks `key` by
/// [`config_id`]`(cid[0])`.
#[inline(always)]
#[must_use]
pub fn open(cid: &[u8; CID_LEN], key: &LocalKey) -> Option<Owner> {
    if cid[0] & 0x1f != LENGTH_BITS {
        return None;
    }
    let hash = hash(cid, key);
    let clear = u32::from_be_bytes([0, cid[17], cid[18], cid[19]]) ^ mask(hash);
    let who = clear >> 12;
    if check(hash, who) != clear & 0xfff {
        return None;
    }
    Some(Owner { worker: (who >> 4) as u8, generation: (who & 0x0f) as u8 })
}

#[inline(always)]
fn hash(cid: &[u8; CID_LEN], key: &LocalKey) -> u64 {
    let low = u64::from_le_bytes([cid[1], cid[2], cid[3], cid[4], cid[5], cid[6], cid[7], cid[8]]);
    let high =
        u64::from_le_bytes([cid[9], cid[10], cid[11], cid[12], cid[13], cid[14], cid[15], cid[16]]);
    siphash24(key.k0, key.k1, [low, high])
}

#[inline(always)]
const fn mask(hash: u64) -> u32 {
    (hash & 0x00ff_ffff) as u32
}

/// The 12-bit product of the Hankel matrix in `hash[24..47]` with the 12 bits of `who`: a carry-less multiplication
/// without its outer columns. Twelve steps without a branch.
#[inline(always)]
const fn check(hash: u64, who: u32) -> u32 {
    let rows = (hash >> 24) as u32 & 0x007f_ffff;
    let mut sum = 0;
    let mut column = 0;
    while column < 12 {
        sum ^= (rows >> column) & 0_u32.wrapping_sub(who >> column & 1);
        column += 1;
    }
    sum & 0xfff
}

impl core::fmt::Debug for LocalKey {
    /// Says that there is a key, never which: a key in a log is a key lost.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("LocalKey(..)")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const KEY: LocalKey = LocalKey { k0: 0x0123_4567_89ab_cdef, k1: 0xfedc_ba98_7654_3210 };

    fn block(seed: u64) -> [u8; CID_LEN] {
        let mut cid = [0; CID_LEN];
        cid[0] = first_octet(0);
        cid[1..9].copy_from_slice(&siphash24(1, 2, [seed]).to_le_bytes());
        cid[9..17].copy_from_slice(&siphash24(3, 4, [seed]).to_le_bytes());
        cid
    }

    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-3.1
    //= type=test
    //# The first three bits of any connection ID MUST encode an identifier for
    //# the configuration that the connection ID uses.
    #[test]
    fn known_answer() {
        // Pins the layout: a change of these octets is a change of LAYOUT_VERSION.
        let mut cid = [0; CID_LEN];
        cid[0] = first_octet(3);
        for (i, octet) in cid[1..17].iter_mut().enumerate() {
            *octet = i as u8;
        }
        let reference = LocalKey { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 };
        seal(&mut cid, &reference, Owner { worker: 0xa5, generation: 0xc });
        // h = 0x3f2acc7f57c29bdb; mask = c29bdb, r = h >> 24 = ..3f2acc7f57 & 7fffff = 4c7f57.
        let who = 0xa5c_u32;
        let mut expected = 0;
        for i in 0..12 {
            let mut bit = 0;
            for j in 0..12 {
                bit ^= (0x4c_7f57 >> (i + j)) & (who >> j) & 1;
            }
            expected |= bit << i;
        }
        let clear = (who << 12 | expected) ^ 0xc2_9bdb;
        assert_eq!(cid[17..], clear.to_be_bytes()[1..]);
        assert_eq!(config_id(cid[0]), 3);
        assert_eq!(cid[0], 0x73);
    }

    proptest! {
        #[test]
        fn opens_what_it_sealed(octets: [u8; 17], worker: u8, generation in 0_u8..16, config in 0_u8..8, k0: u64, k1: u64) {
            let mut cid = [0; CID_LEN];
            cid[..17].copy_from_slice(&octets);
            cid[0] = first_octet(config);
            let (key, owner) = (LocalKey { k0, k1 }, Owner { worker, generation });
            seal(&mut cid, &key, owner);
            prop_assert_eq!(open(&cid, &key), Some(owner));
            prop_assert_eq!(config_id(cid[0]), config);
        }

        #[test]
        fn another_length_in_the_first_octet_is_not_ours(first: u8, seed: u64) {
            let mut cid = block(seed);
            seal(&mut cid, &KEY, Owner { worker: 1, generation: 1 });
            cid[0] = first;
            prop_assert_eq!(open(&cid, &KEY).is_some(), first & 0x1f == 19);
        }

        #[test]
        fn a_changed_check_never_passes(seed: u64, flip in 1_u32..0x1000) {
            let mut cid = block(seed);
            seal(&mut cid, &KEY, Owner { worker: 9, generation: 3 });
            cid[18] ^= (flip >> 8) as u8;
            cid[19] ^= flip as u8;
            prop_assert_eq!(open(&cid, &KEY), None);
        }
    }

    /// How many of `cids` sealed IDs still open after `forge`.
    fn forged(cids: u64, forge: impl Fn(u64, &mut [u8; CID_LEN])) -> u64 {
        let mut passed = 0;
        for seed in 0..cids {
            let mut cid = block(seed);
            seal(&mut cid, &KEY, Owner { worker: seed as u8, generation: (seed >> 8) as u8 & 15 });
            forge(seed, &mut cid);
            passed += u64::from(open(&cid, &KEY).is_some());
        }
        passed
    }

    #[test]
    fn forgeries_pass_with_two_to_the_minus_twelve() {
        // 2^20 trials, 256 expected, standard deviation 16: five of them either way is one false alarm in a million.
        const TRIALS: u64 = 1 << 20;
        let bound = 176..=336;
        for (worker, low, high) in
            [(0x01, 0, 0), (0x80, 0, 0), (0xff, 0xf0, 0), (0x02, 0x0a, 0x55), (0, 0x10, 0x01)]
        {
            let passed = forged(TRIALS, |_, cid| {
                cid[17] ^= worker;
                cid[18] ^= low;
                cid[19] ^= high;
            });
            assert!(
                bound.contains(&passed),
                "flip {worker:02x} {low:02x} {high:02x}: {passed} passed"
            );
        }
        let moved =
            forged(TRIALS, |seed, cid| cid[1 + (seed as usize >> 12) % 16] ^= 1 << (seed & 7));
        assert!(bound.contains(&moved), "changed block: {moved} passed");
    }

    #[test]
    fn the_best_xor_forgery_is_no_better() {
        // For one change of the worker, all 4096 changes of the check: none may be a favourite.
        const TRIALS: u64 = 1 << 18;
        let mut hits: Vec<u32> = std::vec![0; 4096];
        for seed in 0..TRIALS {
            let h = siphash24(KEY.k0, KEY.k1, [seed, !seed]);
            hits[(check(h, 0x123) ^ check(h, 0x103)) as usize] += 1;
        }
        // 64 expected a cell, standard deviation 8: 64 + 6 * 8 over 4096 cells.
        let most = hits.iter().copied().max().unwrap_or_default();
        assert!(most <= 120, "a change of the check passes {most} times of {TRIALS}");
    }

    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.4
    //= type=test
    //# These bytes MUST NOT provide observers with any information that could
    //# link two connection IDs to the same connection, client, or server.
    #[test]
    fn worker_and_generation_do_not_show() {
        // Octet 17 of one worker's IDs is uniform: chi-squared over 256 cells, 255 degrees of freedom, p > 0.001.
        let mut cells = [0_f64; 256];
        for seed in 0..65_536 {
            let mut cid = block(seed);
            seal(&mut cid, &KEY, Owner { worker: 7, generation: 1 });
            cells[usize::from(cid[17])] += 1.0;
        }
        let chi: f64 = cells.iter().map(|n| (n - 256.0) * (n - 256.0) / 256.0).sum();
        assert!((180.0..330.5).contains(&chi), "chi-squared {chi}");
    }
}
