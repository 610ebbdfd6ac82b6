//! Allow and deny lists: what the tries hold against what they shall hold, and only the difference written; then the
//! words that the XDP program looks a list up in. Must not know steering.
//!
//! While a list changes, the program is told to look it up in its trie, which is written entry by entry and right at
//! every moment; its words are made anew from what the trie holds, and then they are looked up again.

use std::collections::BTreeSet;

use aya::{
    Pod,
    maps::{Array, LpmTrie, MapData, MapError, lpm_trie::Key},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use spooky_common::{
    map::Lookup,
    prefix::{Compiled, DoesNotFit},
};

use super::{AccessLists, KernelError, error::map_error, object::Loaded};

/// What stands behind a listed prefix. Only membership counts.
const LISTED: u32 = 1;

/// A prefix as the trie keys it: length in bits, then address.
type Prefix<K> = (u32, K);

/// Prefixes in the trie's own order, each once.
type Prefixes<K> = BTreeSet<Prefix<K>>;

/// Up to this many prefixes a list is read back before it is compared. A trie gives its keys one system call each,
/// the next one searched from the root: 100,000 take longer than a change may. A longer list is compared with what was
/// written to it; nobody else has its map.
const READ_BACK_MAX: usize = 1024;

/// The map of a list's words: one value.
pub(super) type WordsMap<const N: usize> = Array<MapData, [u32; N]>;

/// One list of one family: its trie, its words, and what they hold.
pub(super) struct List<K: Pod, const N: usize> {
    trie: LpmTrie<MapData, K, u32>,
    name: &'static str,
    capacity: u32,
    /// `None` where no XDP program reads them.
    words: Option<(WordsMap<N>, &'static str)>,
    /// Where the program is to look.
    lookup: Lookup,
    /// What was last read or written; empty for a trie that was just made.
    held: Prefixes<K>,
    /// Shows a prefix to people.
    show: fn(&Prefix<K>) -> Option<IpNet>,
    compile: fn(&Prefixes<K>) -> Result<Compiled<N>, DoesNotFit>,
}

/// Both lists as they shall be.
pub(super) struct Plan {
    allow: (Prefixes<[u8; 4]>, Prefixes<[u8; 16]>),
    deny: (Prefixes<[u8; 4]>, Prefixes<[u8; 16]>),
}

/// Finds out what will change: [`lookups`] then says how each list is looked up meanwhile, and must be in the kernel
/// before [`Plan::write`].
pub(super) fn plan(loaded: &mut Loaded, access: &AccessLists) -> Result<Plan, KernelError> {
    let plan = Plan { allow: prefixes(&access.allow), deny: prefixes(&access.deny) };
    loaded.allow_v4.begin(&plan.allow.0)?;
    loaded.allow_v6.begin(&plan.allow.1)?;
    loaded.deny_v4.begin(&plan.deny.0)?;
    loaded.deny_v6.begin(&plan.deny.1)?;
    Ok(plan)
}

/// How each list is to be looked up now, as the settings say it.
pub(super) fn lookups(loaded: &Loaded) -> [u8; 4] {
    let (deny_v4, deny_v6) = (loaded.deny_v4.lookup, loaded.deny_v6.lookup);
    [deny_v4, deny_v6, loaded.allow_v4.lookup, loaded.allow_v6.lookup].map(|lookup| lookup as u8)
}

impl Plan {
    /// Writes the difference of both lists. A full list does not keep the others from being written. [`lookups`] is
    /// final afterwards, also after an error.
    pub(super) fn write(&self, loaded: &mut Loaded) -> Result<usize, KernelError> {
        // The allow list first: a new deny entry must not hit a source that the same change allows.
        let results = [
            loaded.allow_v4.write(&self.allow.0),
            loaded.allow_v6.write(&self.allow.1),
            loaded.deny_v4.write(&self.deny.0),
            loaded.deny_v6.write(&self.deny.1),
        ];
        results.into_iter().sum()
    }
}

/// Both families' prefixes, each once, host bits cleared. An IPv4-mapped prefix counts as IPv4: that is what the
/// packet carries.
fn prefixes(nets: &[IpNet]) -> (Prefixes<[u8; 4]>, Prefixes<[u8; 16]>) {
    let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
    for net in nets {
        match net.trunc() {
            IpNet::V4(net) => {
                v4.insert((u32::from(net.prefix_len()), net.addr().octets()));
            }
            IpNet::V6(net) => match (net.addr().to_ipv4_mapped(), net.prefix_len().checked_sub(96))
            {
                (Some(address), Some(bits)) => {
                    v4.insert((u32::from(bits), address.octets()));
                }
                _ => {
                    v6.insert((u32::from(net.prefix_len()), net.addr().octets()));
                }
            },
        }
    }
    (v4, v6)
}

// === impl List ===

impl<const N: usize> List<[u8; 4], N> {
    pub(super) fn v4(
        trie: LpmTrie<MapData, [u8; 4], u32>,
        (name, capacity): (&'static str, u32),
        words: Option<(WordsMap<N>, &'static str)>,
    ) -> Self {
        let compile = |held: &Prefixes<_>| Compiled::v4(held.iter().map(|(bits, a)| (*a, *bits)));
        let held = Prefixes::new();
        Self { trie, name, capacity, words, lookup: Lookup::Nowhere, held, show: show_v4, compile }
    }
}

impl<const N: usize> List<[u8; 16], N> {
    pub(super) fn v6(
        trie: LpmTrie<MapData, [u8; 16], u32>,
        (name, capacity): (&'static str, u32),
        words: Option<(WordsMap<N>, &'static str)>,
    ) -> Self {
        let compile = |held: &Prefixes<_>| Compiled::v6(held.iter().map(|(bits, a)| (*a, *bits)));
        let held = Prefixes::new();
        Self { trie, name, capacity, words, lookup: Lookup::Nowhere, held, show: show_v6, compile }
    }
}

impl<K: Pod + Ord, const N: usize> List<K, N> {
    /// Its trie, and the name of that.
    pub(super) fn trie(&self) -> (&LpmTrie<MapData, K, u32>, &'static str) {
        (&self.trie, self.name)
    }

    /// Turns the look-up to the trie when the list is going to change.
    fn begin(&mut self, desired: &Prefixes<K>) -> Result<(), KernelError> {
        if self.held.len() <= READ_BACK_MAX {
            self.held = self.read()?;
        }
        if self.held != *desired {
            self.lookup = Lookup::Trie;
        }
        Ok(())
    }

    /// Makes trie and words hold `desired` and returns how many entries of the trie that took.
    fn write(&mut self, desired: &Prefixes<K>) -> Result<usize, KernelError> {
        let written = self.write_trie(desired);
        // The words are behind the trie after a change, and after an earlier attempt that failed.
        if self.lookup == Lookup::Trie {
            let compiled = self.write_words();
            return written.and_then(|changed| compiled.map(|()| changed));
        }
        written
    }

    fn write_words(&mut self) -> Result<(), KernelError> {
        if self.held.is_empty() {
            self.lookup = Lookup::Nowhere;
            return Ok(());
        }
        let Some((map, name)) = &mut self.words else { return Ok(()) };
        match (self.compile)(&self.held) {
            Ok(compiled) => {
                map.set(0, compiled.words(), 0).map_err(|error| KernelError::map(name, error))?;
                self.lookup = Lookup::Words;
            }
            Err(DoesNotFit) => {
                tracing::warn!(
                    list = self.name,
                    "too scattered to be compiled: look-ups are slower"
                );
            }
        }
        Ok(())
    }

    fn write_trie(&mut self, desired: &Prefixes<K>) -> Result<usize, KernelError> {
        let mut changed = 0;
        // Removals first, to make room.
        let surplus: Vec<_> = self.held.difference(desired).copied().collect();
        for prefix in surplus {
            match self.trie.remove(&Key::new(prefix.0, prefix.1)) {
                Ok(()) | Err(MapError::KeyNotFound) => changed += 1,
                Err(error) => return Err(KernelError::map(self.name, error)),
            }
            self.held.remove(&prefix);
        }
        let missing: Vec<_> = desired.difference(&self.held).copied().collect();
        let mut refused = Vec::new();
        for prefix in missing {
            match self.trie.insert(&Key::new(prefix.0, prefix.1), LISTED, 0).map_err(map_error) {
                Ok(()) => {
                    changed += 1;
                    self.held.insert(prefix);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    refused.extend((self.show)(&prefix));
                }
                Err(error) => return Err(KernelError::Map { map: self.name, error }),
            }
        }
        if !refused.is_empty() {
            return Err(KernelError::ListFull { map: self.name, capacity: self.capacity, refused });
        }
        Ok(changed)
    }

    fn read(&self) -> Result<Prefixes<K>, KernelError> {
        let keys = self.trie.keys().map(|key| key.map(|key| (key.prefix_len(), key.data())));
        keys.collect::<Result<_, _>>().map_err(|error| KernelError::map(self.name, error))
    }
}

fn show_v4((bits, octets): &Prefix<[u8; 4]>) -> Option<IpNet> {
    let bits = u8::try_from(*bits).ok()?;
    Ipv4Net::new((*octets).into(), bits).ok().map(IpNet::V4)
}

fn show_v6((bits, octets): &Prefix<[u8; 16]>) -> Option<IpNet> {
    let bits = u8::try_from(*bits).ok()?;
    Ipv6Net::new((*octets).into(), bits).ok().map(IpNet::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_normal_and_once() {
        let nets =
            ["192.0.2.77/24", "192.0.2.0/24", "::ffff:198.51.100.0/120", "2001:db8::1/32", "::/0"]
                .map(|net| net.parse::<IpNet>().expect("a prefix"));
        let (v4, v6) = prefixes(&nets);
        assert_eq!(v4, BTreeSet::from([(24, [192, 0, 2, 0]), (24, [198, 51, 100, 0])]));
        assert_eq!(v6.len(), 2);
        let shown: Vec<_> = v6.iter().filter_map(show_v6).map(|net| net.to_string()).collect();
        assert_eq!(shown, ["::/0", "2001:db8::/32"]);
    }
}
