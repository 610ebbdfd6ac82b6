//! Membership of a source in a list of one family: in its compiled words, or in its LPM trie. Must not know what a
//! list is for.

use core::cell::UnsafeCell;

use aya_ebpf::maps::{LpmTrie, lpm_trie::Key};
use spooky_common::{
    frame::Address,
    map::Lookup,
    prefix::{self, Words},
};

/// The words of one list: a map with one value, whose address the program holds, so that a word costs a load and no
/// look-up.
#[repr(transparent)]
pub struct Compiled<const N: usize>(UnsafeCell<[u32; N]>);

/// Whether any prefix covers `source`, whose octets are `octets`.
#[inline(always)]
pub fn covers<const N: usize, const L: usize>(
    lookup: u8,
    words: &Compiled<N>,
    trie: &LpmTrie<[u8; L], u32>,
    octets: [u8; L],
    source: &Address,
) -> bool {
    if lookup == Lookup::Nowhere as u8 {
        return false;
    }
    if lookup == Lookup::Words as u8 {
        return prefix::covers(words, source);
    }
    let mut key = TrieKey(Key::new(0, [0; L]));
    let parts = core::iter::once(8 * L as u32)
        .chain(octets.as_chunks().0.iter().map(|part| u32::from_ne_bytes(*part)));
    let place = (&raw mut key).cast::<u32>();
    for (index, part) in parts.enumerate() {
        // Kernel 6.18, `misaligned stack access`: LLVM would write two words at once, for the frame may be read so.
        // SAFETY: the key is `1 + L / 4` words, aligned to 8, and as many are written.
        unsafe { place.add(index).write_volatile(part) };
    }
    trie.get(&key.0).is_some()
}

/// The key of a trie where the verifier wants it.
#[repr(C, align(8))]
struct TrieKey<const L: usize>(Key<[u8; L]>);

// === impl Compiled ===

// SAFETY: the kernel programs only read it, word by word; the control plane writes it through the map while no program
// is told to look here.
unsafe impl<const N: usize> Sync for Compiled<N> {}

impl<const N: usize> Compiled<N> {
    pub const EMPTY: Self = Self(UnsafeCell::new([0; N]));
}

impl<const N: usize> Words for Compiled<N> {
    #[inline(always)]
    fn word(&self, index: u32) -> u32 {
        let index = index as usize & (N - 1);
        // SAFETY: `N` is a power of two, so the index is below it. Volatile, for the control plane writes it.
        unsafe { self.0.get().cast::<u32>().add(index).read_volatile() }
    }

    #[inline(always)]
    fn entry<const M: usize>(&self, index: u32) -> [u32; M] {
        const { assert!(M.is_power_of_two() && M <= N) };
        // One bound for all of them: the verifier adds the constants behind it.
        let begin = index as usize & (N - 1) & !(M - 1);
        let mut words = [0; M];
        for (offset, word) in words.iter_mut().enumerate() {
            // SAFETY: `N` is a multiple of `M`, so `begin` is at most `N - M`. Volatile as above.
            *word = unsafe { self.0.get().cast::<u32>().add(begin + offset).read_volatile() };
        }
        words
    }
}
