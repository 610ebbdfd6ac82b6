//! Names for requests: 32 hexadecimal digits, unique over workers, restarts and machines. Imports nothing of the crate.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// Makes the IDs of one worker. No system call, no allocation after it is made.
#[derive(Debug)]
pub struct Generator {
    high: u64,
    low: u64,
    count: u64,
}

/// 128 bits as 32 lower-case hexadecimal digits. Unique, not secret: the next one can be guessed from the last.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 32]);

// === impl Generator ===

impl Generator {
    /// A generator with 128 random bits of its own.
    #[must_use]
    pub fn new() -> Self {
        // `RandomState` is seeded by the operating system; two states give two independent words.
        let word = |salt: u64| RandomState::new().hash_one(salt);
        Self { high: word(1), low: word(2), count: 0 }
    }

    /// The next ID. Repeats after 2^64.
    pub fn next_id(&mut self) -> RequestId {
        self.count = self.count.wrapping_add(1);
        // The low word alone differs for each count; the high word is mixed so that neighbours do not look alike.
        let low = self.low.wrapping_add(self.count);
        let high = self.high ^ mix(low);
        RequestId::from_words(high, low)
    }
}

impl Default for Generator {
    fn default() -> Self {
        Self::new()
    }
}

/// The finaliser of SplitMix64: a bijection, so that it keeps what is unique unique.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

// === impl RequestId ===

impl RequestId {
    fn from_words(high: u64, low: u64) -> Self {
        let mut digits = [0; 32];
        let value = u128::from(high) << 64 | u128::from(low);
        for (at, digit) in digits.iter_mut().enumerate() {
            *digit = match (value >> (124 - 4 * at)) as u8 & 15 {
                decimal @ 0..=9 => b'0' + decimal,
                letter => b'a' - 10 + letter,
            };
        }
        Self(digits)
    }

    /// The digits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Hexadecimal digits are ASCII, so this is never the default.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_over_generators() {
        let mut seen = HashSet::new();
        let mut generators: Vec<Generator> = (0..8).map(|_| Generator::new()).collect();
        for _ in 0..10_000 {
            for generator in &mut generators {
                assert!(seen.insert(generator.next_id()));
            }
        }
    }

    #[test]
    fn an_id_is_32_hexadecimal_digits() {
        assert_eq!(
            RequestId::from_words(0x0123_4567_89ab_cdef, 0x00ff).as_str(),
            "0123456789abcdef00000000000000ff"
        );
        let id = Generator::new().next_id();
        assert!(id.as_str().bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    }
}
