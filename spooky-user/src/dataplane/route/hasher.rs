//! The hash of the route table's keys: eight bytes a step. Imports nothing.
//!
//! It has no secret. Only the operator puts keys into the table; what a client sends is looked up and never kept, so a
//! client can make no bucket long.

use std::hash::{BuildHasherDefault, Hasher};

/// For `HashMap`.
pub(super) type Build = BuildHasherDefault<Words>;

/// An odd number with bits all over it: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The state: everything so far, folded.
#[derive(Debug, Default)]
pub(super) struct Words(u64);

// === impl Words ===

impl Words {
    /// Both halves of the product, so that every bit of the word reaches the low ones that choose a bucket.
    #[inline]
    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ MULTIPLIER) * u128::from(MULTIPLIER);
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

impl Hasher for Words {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        // The length is part of the last word, so that zeros at the end count.
        let last = rest.iter().fold(rest.len() as u64, |sum, byte| sum << 8 | u64::from(*byte));
        self.word(last);
    }

    /// The end mark of a string: with the length above it tells nothing new.
    #[inline]
    fn write_u8(&mut self, _: u8) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher as _;

    use super::*;

    #[test]
    fn names_that_differ_little_have_hashes_that_differ_much() {
        let names: Vec<String> =
            (0..20_000).map(|number| format!("service-{number}.example.com")).collect();
        let hashes: Vec<u64> =
            names.iter().map(|name| Build::default().hash_one(name.as_str())).collect();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), names.len());
        // Buckets go by the low bits, the map's tags by the top seven.
        for shift in [0, 57] {
            let mut buckets = [0_u32; 128];
            for hash in &hashes {
                buckets[(hash >> shift & 127) as usize] += 1;
            }
            // 156 each, the deviation is 12: six of them either way.
            assert!(buckets.iter().all(|count| (84..=228).contains(count)), "{buckets:?}");
        }
    }

    #[test]
    fn zeros_and_lengths_count() {
        let of = |text: &str| Build::default().hash_one(text);
        let texts = ["", "\0", "\0\0", "a", "a\0", "aaaaaaaa", "aaaaaaaa\0", "aaaaaaaaa"];
        assert_eq!(texts.map(of).iter().collect::<HashSet<_>>().len(), texts.len());
    }
}
