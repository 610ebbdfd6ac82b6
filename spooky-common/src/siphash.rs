//! SipHash-2-4 (Aumasson, Bernstein 2012) over whole 64-bit words: the keyed hash of connection IDs and of placement.
//! Imports nothing.
//!
//! Both inputs that spooky hashes have a fixed length (16 and 24 octets), so the general byte-wise form is not needed
//! and the kernel's verifier sees straight-line code.

/// SipHash-2-4 of the little-endian octets of `words`, under `(k0, k1)`.
///
/// Equal to the reference implementation for an input of `8 * N` octets.
#[inline(always)]
#[must_use]
pub fn siphash24<const N: usize>(k0: u64, k1: u64, words: [u64; N]) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    for word in words {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    // The last block holds the length in octets in its top octet; no octets are left over.
    let last = (8 * N as u64) << 56;
    v[3] ^= last;
    round(&mut v);
    round(&mut v);
    v[0] ^= last;
    v[2] ^= 0xff;
    round(&mut v);
    round(&mut v);
    round(&mut v);
    round(&mut v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
const fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher as _;

    use proptest::prelude::*;
    use siphasher::sip::SipHasher24;

    use super::*;

    /// Key 00..0f of the reference vectors.
    const K0: u64 = 0x0706_0504_0302_0100;
    const K1: u64 = 0x0f0e_0d0c_0b0a_0908;

    fn word(at: u8) -> u64 {
        u64::from_le_bytes(core::array::from_fn(|i| at + i as u8))
    }

    #[test]
    fn reference_vectors() {
        // vectors_sip64 of the reference implementation: inputs 00, 01, .. of 0, 8, 16 and 24 octets.
        assert_eq!(siphash24(K0, K1, []), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash24(K0, K1, [word(0)]), 0x93f5_f579_9a93_2462);
        assert_eq!(siphash24(K0, K1, [word(0), word(8)]), 0x3f2a_cc7f_57c2_9bdb);
    }

    proptest! {
        #[test]
        fn equals_siphasher(k0: u64, k1: u64, a: u64, b: u64, c: u64) {
            let expect = |words: &[u64]| {
                let mut hasher = SipHasher24::new_with_keys(k0, k1);
                for word in words {
                    hasher.write(&word.to_le_bytes());
                }
                hasher.finish()
            };
            prop_assert_eq!(siphash24(k0, k1, [a]), expect(&[a]));
            prop_assert_eq!(siphash24(k0, k1, [a, b]), expect(&[a, b]));
            prop_assert_eq!(siphash24(k0, k1, [a, b, c]), expect(&[a, b, c]));
        }
    }
}
