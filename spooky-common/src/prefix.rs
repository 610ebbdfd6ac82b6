//! A list of prefixes compiled to one array of words, so that a look-up is a few dependent loads however long the
//! list is: the kernel reads it per packet, the control plane writes it whole. Imports [`crate::frame`] only.
//!
//! ```text
//! word 0..65536       by the first 16 bits of the address
//! behind them         nodes of 16 words, by the next 4 bits each, and leaves
//!
//! a word   0          no prefix of the list is here
//!          1          a prefix covers everything here
//!          node       bit 31 clear: where the node's 16 words begin
//!          leaf       bit 31 set, bits 28..=30 entries - 1, bits 0..=27 where they begin
//! an entry of a leaf  address and mask: 1 + 1 words for IPv4, 4 + 4 for IPv6
//! ```
//!
//! Indices are taken modulo the array's length, so whatever the words say, a look-up ends and reads inside the array.

use crate::frame::Address;

/// Words of a deny list, a power of two: 4 MiB, the largest value that every supported kernel takes.
pub const DENY_WORDS: usize = 1 << 20;
/// Words of an allow list: 1 MiB.
pub const ALLOW_WORDS: usize = 1 << 18;

/// Bits of the address that the first table consumes.
const ROOT_BITS: u32 = 16;
/// Bits that each node consumes.
const STRIDE: u32 = 4;
/// Nodes on the way to the last bit.
const V4_NODES: u32 = (32 - ROOT_BITS) / STRIDE;
const V6_NODES: u32 = (128 - ROOT_BITS) / STRIDE;

const NONE: u32 = 0;
const ALL: u32 = 1;
const LEAF: u32 = 1 << 31;
const LEAF_COUNT_SHIFT: u32 = 28;
const LEAF_INDEX: u32 = (1 << LEAF_COUNT_SHIFT) - 1;
/// Entries a leaf holds before it becomes a node.
const LEAF_ENTRIES_MAX: u32 = 4;
/// Words of an entry. Whatever is placed takes a multiple of as many, so that an entry begins at one.
const V4_ENTRY: usize = 2;
const V6_ENTRY: usize = 8;

/// An array of words, of a length that is a power of two.
pub trait Words {
    /// The word at `index` modulo the length.
    fn word(&self, index: u32) -> u32;
    /// The `M` words from `index` on, which is rounded down to a multiple of `M`, a power of two, modulo the length.
    fn entry<const M: usize>(&self, index: u32) -> [u32; M];
}

/// Whether a prefix of the list covers `source`.
#[inline(always)]
#[must_use]
pub fn covers<W: Words + ?Sized>(words: &W, source: &Address) -> bool {
    match source {
        Address::V4(octets) => covers_v4(words, u32::from_be_bytes(*octets)),
        Address::V6(octets) => covers_v6(words, u128::from_be_bytes(*octets)),
    }
}

#[inline(always)]
fn covers_v4<W: Words + ?Sized>(words: &W, address: u32) -> bool {
    let mut word = words.word(address >> ROOT_BITS);
    let mut rest = address << ROOT_BITS;
    for _ in 0..V4_NODES {
        if word <= ALL || word & LEAF != 0 {
            break;
        }
        word = words.word(word + (rest >> (32 - STRIDE)));
        rest <<= STRIDE;
    }
    if word & LEAF == 0 {
        return word == ALL;
    }
    let entries = (word >> LEAF_COUNT_SHIFT) & (LEAF_ENTRIES_MAX - 1);
    let at = word & LEAF_INDEX;
    for entry in 0..LEAF_ENTRIES_MAX {
        if entry > entries {
            break;
        }
        let [first, mask] = words.entry::<V4_ENTRY>(at + entry * V4_ENTRY as u32);
        if (first ^ address) & mask == 0 {
            return true;
        }
    }
    false
}

#[inline(always)]
fn covers_v6<W: Words + ?Sized>(words: &W, address: u128) -> bool {
    let (mut high, mut low) = ((address >> 64) as u64, address as u64);
    let mut word = words.word((high >> (64 - ROOT_BITS)) as u32);
    high = high << ROOT_BITS | low >> (64 - ROOT_BITS);
    low <<= ROOT_BITS;
    for _ in 0..V6_NODES {
        if word <= ALL || word & LEAF != 0 {
            break;
        }
        word = words.word(word + (high >> (64 - STRIDE)) as u32);
        high = high << STRIDE | low >> (64 - STRIDE);
        low <<= STRIDE;
    }
    if word & LEAF == 0 {
        return word == ALL;
    }
    let parts = [96, 64, 32, 0].map(|shift| (address >> shift) as u32);
    let entries = (word >> LEAF_COUNT_SHIFT) & (LEAF_ENTRIES_MAX - 1);
    let at = word & LEAF_INDEX;
    for entry in 0..LEAF_ENTRIES_MAX {
        if entry > entries {
            break;
        }
        let [a, b, c, d, mask @ ..] = words.entry::<V6_ENTRY>(at + entry * V6_ENTRY as u32);
        let mut differs = 0;
        for ((first, part), mask) in [a, b, c, d].into_iter().zip(parts).zip(mask) {
            differs |= (first ^ part) & mask;
        }
        if differs == 0 {
            return true;
        }
    }
    false
}

impl Words for [u32] {
    #[inline]
    fn word(&self, index: u32) -> u32 {
        let mask = self.len().wrapping_sub(1);
        self.get(index as usize & mask).copied().unwrap_or(NONE)
    }

    #[inline]
    fn entry<const M: usize>(&self, index: u32) -> [u32; M] {
        let begin = index as usize & self.len().wrapping_sub(1) & !(M - 1);
        self.get(begin..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([NONE; M])
    }
}

#[cfg(feature = "user")]
pub use build::{Compiled, DoesNotFit};

/// The writer's side.
#[cfg(feature = "user")]
mod build {
    extern crate alloc;

    use alloc::{boxed::Box, vec, vec::Vec};

    use super::{
        ALL, LEAF, LEAF_COUNT_SHIFT, LEAF_ENTRIES_MAX, NONE, ROOT_BITS, STRIDE, V4_ENTRY, V6_ENTRY,
    };

    const ROOT_WORDS: u32 = 1 << ROOT_BITS;
    const FANOUT: u32 = 1 << STRIDE;

    const _: () = assert!((ROOT_WORDS as usize).is_multiple_of(V6_ENTRY));
    const _: () = assert!((FANOUT as usize).is_multiple_of(V6_ENTRY));
    const _: () = assert!(V6_ENTRY.is_multiple_of(V4_ENTRY));

    /// The words of one list of one family.
    #[derive(Debug)]
    pub struct Compiled<const N: usize> {
        words: Box<[u32; N]>,
        /// Everything behind is zero.
        used: usize,
        is_v6: bool,
    }

    /// The list needs more words than there are; it is looked up in its trie instead.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct DoesNotFit;

    /// The addresses of one prefix, in the upper bits.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Range {
        first: u128,
        last: u128,
        mask: u128,
    }

    impl<const N: usize> Compiled<N> {
        /// Compiles IPv4 prefixes, given as address and length 0..=32; order, repetition and overlap do not matter.
        ///
        /// # Errors
        /// [`DoesNotFit`].
        pub fn v4(prefixes: impl Iterator<Item = ([u8; 4], u32)>) -> Result<Self, DoesNotFit> {
            let widened = prefixes.map(|(a, bits)| (u128::from(u32::from_be_bytes(a)) << 96, bits));
            Self::new(ranges(widened), false)
        }

        /// Compiles IPv6 prefixes, given as address and length 0..=128.
        ///
        /// # Errors
        /// [`DoesNotFit`].
        pub fn v6(prefixes: impl Iterator<Item = ([u8; 16], u32)>) -> Result<Self, DoesNotFit> {
            Self::new(ranges(prefixes.map(|(a, bits)| (u128::from_be_bytes(a), bits))), true)
        }

        /// The words, as the map takes them.
        #[must_use]
        pub fn words(&self) -> &[u32; N] {
            &self.words
        }

        /// How many of them are in use.
        #[must_use]
        pub fn used(&self) -> usize {
            self.used
        }

        fn new(ranges: Vec<Range>, is_v6: bool) -> Result<Self, DoesNotFit> {
            const { assert!(N.is_power_of_two() && N > ROOT_WORDS as usize && N <= 1 << 28) };
            let words: Box<[u32]> = vec![NONE; N].into_boxed_slice();
            let words = Box::<[u32; N]>::try_from(words).map_err(|_len| DoesNotFit)?;
            let mut compiled = Self { words, used: ROOT_WORDS as usize, is_v6 };
            let mut rest = ranges.as_slice();
            for slot in 0..ROOT_WORDS {
                let first = u128::from(slot) << (128 - ROOT_BITS);
                let last = first | u128::MAX >> ROOT_BITS;
                while let Some((_, behind)) = rest.split_first().filter(|(r, _)| r.last < first) {
                    rest = behind;
                }
                let here = rest.iter().take_while(|range| range.first <= last).count();
                let word = compiled.region(rest.get(..here).unwrap_or(rest), first, ROOT_BITS)?;
                compiled.put(slot as usize, word);
            }
            Ok(compiled)
        }

        /// The word for the region of the `depth` first bits of `first`, which `ranges` are all that touch.
        fn region(&mut self, ranges: &[Range], first: u128, depth: u32) -> Result<u32, DoesNotFit> {
            let last = first | u128::MAX.checked_shr(depth).unwrap_or(0);
            match ranges {
                [] => Ok(NONE),
                [one] if one.first <= first && last <= one.last => Ok(ALL),
                few if few.len() <= LEAF_ENTRIES_MAX as usize => self.leaf(few),
                many => {
                    let node = self.take(FANOUT as usize)?;
                    for child in 0..FANOUT {
                        let shift = 128 - depth - STRIDE;
                        let first = first | u128::from(child) << shift;
                        let last = first | u128::MAX.checked_shr(depth + STRIDE).unwrap_or(0);
                        let from = many.partition_point(|range| range.last < first);
                        let to = many.partition_point(|range| range.first <= last);
                        let inside = many.get(from..to).unwrap_or_default();
                        let word = self.region(inside, first, depth + STRIDE)?;
                        self.put(node + child as usize, word);
                    }
                    Ok(node as u32)
                }
            }
        }

        fn leaf(&mut self, ranges: &[Range]) -> Result<u32, DoesNotFit> {
            let parts: &[u32] = if self.is_v6 { &[96, 64, 32, 0] } else { &[96] };
            let entry = if self.is_v6 { V6_ENTRY } else { V4_ENTRY };
            let leaf = self.take(ranges.len() * entry)?;
            let mut at = leaf;
            for range in ranges {
                for value in [range.first, range.mask] {
                    for shift in parts {
                        self.put(at, (value >> shift) as u32);
                        at += 1;
                    }
                }
            }
            Ok(LEAF | (ranges.len() as u32 - 1) << LEAF_COUNT_SHIFT | leaf as u32)
        }

        fn take(&mut self, words: usize) -> Result<usize, DoesNotFit> {
            let at = self.used;
            self.used += words;
            if self.used > N { Err(DoesNotFit) } else { Ok(at) }
        }

        fn put(&mut self, index: usize, word: u32) {
            if let Some(place) = self.words.get_mut(index) {
                *place = word;
            }
        }
    }

    /// Sorted, and none inside another.
    fn ranges(prefixes: impl Iterator<Item = (u128, u32)>) -> Vec<Range> {
        let range = |(address, bits): (u128, u32)| {
            let host = u128::MAX.checked_shr(bits).unwrap_or(0);
            Range { first: address & !host, last: address | host, mask: !host }
        };
        let mut sorted: Vec<Range> = prefixes.map(range).collect();
        // The wider first, where two begin together.
        sorted.sort_unstable_by_key(|range| (range.first, range.mask));
        let mut end = None;
        sorted.retain(|range| {
            let is_outside = end.is_none_or(|end| range.first > end);
            if is_outside {
                end = Some(range.last);
            }
            is_outside
        });
        sorted
    }
}

#[cfg(test)]
#[cfg(feature = "user")]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn v4(list: &[(u32, u32)]) -> Compiled<DENY_WORDS> {
        Compiled::v4(list.iter().map(|(a, bits)| (a.to_be_bytes(), *bits))).expect("fits")
    }

    fn v6(list: &[(u128, u32)]) -> Compiled<DENY_WORDS> {
        Compiled::v6(list.iter().map(|(a, bits)| (a.to_be_bytes(), *bits))).expect("fits")
    }

    fn mask(bits: u32) -> u128 {
        u128::MAX.checked_shl(128 - bits).unwrap_or(0)
    }

    /// Addresses at, inside and just outside of a prefix, widened.
    fn probes(address: u128, bits: u32, salt: u128) -> [u128; 5] {
        let (first, last) = (address & mask(bits), address | !mask(bits));
        [first, last, first.wrapping_sub(1), last.wrapping_add(1), first | salt & !mask(bits)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_asking_every_prefix_v6(
            // Few distinct bits, so that prefixes nest, meet and crowd in one place.
            list in prop::collection::vec((0_u128..4, 0_u128..64, 0_u32..=128), 0..40),
            salt: u128,
        ) {
            let list: Vec<_> = list
                .into_iter()
                .map(|(high, low, bits)| (0x2001_0db8 << 96 | high << 62 | low, bits))
                .collect();
            let compiled = v6(&list);
            for (address, bits) in &list {
                for probe in probes(*address, *bits, salt) {
                    let wanted = list.iter().any(|(a, bits)| (a ^ probe) & mask(*bits) == 0);
                    let source = Address::V6(probe.to_be_bytes());
                    prop_assert_eq!(covers(&compiled.words()[..], &source), wanted, "{:x}", probe);
                }
            }
        }

        #[test]
        fn agrees_with_asking_every_prefix_v4(
            list in prop::collection::vec((0_u32..8, 0_u32..256, 0_u32..=32), 0..60),
            salt: u32,
        ) {
            let list: Vec<_> =
                list.into_iter().map(|(high, low, bits)| (high << 14 | low << 2, bits)).collect();
            let compiled = v4(&list);
            let cover = |probe: u128| {
                list.iter().any(|(a, bits)| (u128::from(*a) << 96 ^ probe) & mask(*bits) == 0)
            };
            for (address, bits) in &list {
                for probe in probes(u128::from(*address) << 96, *bits, u128::from(salt) << 96) {
                    let source = Address::V4(((probe >> 96) as u32).to_be_bytes());
                    let probe = probe >> 96 << 96;
                    prop_assert_eq!(covers(&compiled.words()[..], &source), cover(probe), "{:x}", probe);
                }
            }
        }

        #[test]
        fn any_words_are_read_to_an_end(
            words in prop::collection::vec(any::<u32>(), 256), v4: [u8; 4], v6: [u8; 16],
        ) {
            let _ = covers(&words[..], &Address::V4(v4));
            let _ = covers(&words[..], &Address::V6(v6));
        }
    }

    #[test]
    fn everything_and_nothing() {
        let any = [Address::V4([0; 4]), Address::V4([255; 4])];
        let any_v6 = [Address::V6([0; 16]), Address::V6([255; 16])];
        assert!(any.iter().all(|source| covers(&v4(&[(7, 0)]).words()[..], source)));
        assert!(any_v6.iter().all(|source| covers(&v6(&[(7, 0)]).words()[..], source)));
        assert!(!any.iter().any(|source| covers(&v4(&[]).words()[..], source)));
        assert!(!any_v6.iter().any(|source| covers(&v6(&[]).words()[..], source)));
    }

    #[test]
    fn what_does_not_fit_says_so() {
        // Five hosts that differ in their last bits alone need a chain of nodes each time.
        let hosts = |n: u128| ((n / 5) << 64) + n % 5;
        let list = (0..60_000_u128).map(|n| ((0x2001 << 112 | hosts(n)).to_be_bytes(), 128));
        assert_eq!(Compiled::<ALLOW_WORDS>::v6(list).err(), Some(DoesNotFit));
    }
}
