//! Membership of a source in a pair of LPM tries, one a family. Must not know what a list is for.

use aya_ebpf::maps::{LpmTrie, lpm_trie::Key};
use spooky_common::frame::Address;

/// Whether any prefix covers `source`.
#[inline(always)]
pub fn covers(v4: &LpmTrie<[u8; 4], u32>, v6: &LpmTrie<[u8; 16], u32>, source: &Address) -> bool {
    match source {
        Address::V4(octets) => v4.get(Key::new(32, *octets)).is_some(),
        Address::V6(octets) => v6.get(Key::new(128, *octets)).is_some(),
    }
}
