//! The Internet checksum: RFC 1071. Imports nothing of the crate.

/// A sum under way, not folded, in the machine's order of octets: the sum of swapped words is the sum with its octets swapped
/// (RFC 1071 section 2 (B)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds octets; a last odd one as if a zero came behind it.
    #[must_use]
    pub(super) fn octets(self, octets: &[u8]) -> Self {
        // Any word size will do (RFC 1071 section 2): four octets at once, 2^32 of them before 64 bits are full.
        let (words, rest) = octets.as_chunks::<4>();
        let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        Self(self.0 + sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// Adds a number of 16 bits.
    #[must_use]
    pub(super) fn number(self, number: u16) -> Self {
        Self(self.0 + u64::from(number.to_be()))
    }

    /// The checksum: 0 when what was added held a right one.
    #[must_use]
    pub(super) fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !u16::from_be(u16::try_from(sum).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 4.1, word for word.
    fn by_the_book(octets: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in octets.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |octet| u32::from(*octet));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn is_that_of_the_rfc(octets in proptest::collection::vec(any::<u8>(), 0..1600), number: u16) {
            prop_assert_eq!(Sum::default().octets(&octets).finish(), by_the_book(&octets));
            let mut with_number = number.to_be_bytes().to_vec();
            with_number.extend(&octets);
            prop_assert_eq!(Sum::default().number(number).octets(&octets).finish(), by_the_book(&with_number));
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().octets(&octets).finish(), !0xddf2);
    }
}
