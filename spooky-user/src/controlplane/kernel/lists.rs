//! Allow and deny lists: what the tries hold against what they shall hold, and only the difference written. Must not
//! know steering.

use std::collections::BTreeSet;

use aya::{
    Pod,
    maps::{LpmTrie, MapData, MapError, lpm_trie::Key},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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

/// One trie and what it holds.
pub(super) struct List<K: Pod> {
    trie: LpmTrie<MapData, K, u32>,
    name: &'static str,
    capacity: u32,
    /// What was last read or written; empty for a trie that was just made.
    held: Prefixes<K>,
    /// Shows a prefix to people.
    show: fn(&Prefix<K>) -> Option<IpNet>,
}

/// Writes the difference of both lists. A full list does not keep the others from being written.
pub(super) fn apply(loaded: &mut Loaded, access: &AccessLists) -> Result<usize, KernelError> {
    let (allow_v4, allow_v6) = prefixes(&access.allow);
    let (deny_v4, deny_v6) = prefixes(&access.deny);
    // The allow list first: a new deny entry must not hit a source that the same change allows.
    let results = [
        loaded.allow_v4.write(&allow_v4),
        loaded.allow_v6.write(&allow_v6),
        loaded.deny_v4.write(&deny_v4),
        loaded.deny_v6.write(&deny_v6),
    ];
    results.into_iter().sum()
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

impl List<[u8; 4]> {
    pub(super) fn v4(
        trie: LpmTrie<MapData, [u8; 4], u32>,
        name: &'static str,
        capacity: u32,
    ) -> Self {
        Self { trie, name, capacity, held: Prefixes::new(), show: show_v4 }
    }
}

impl List<[u8; 16]> {
    pub(super) fn v6(
        trie: LpmTrie<MapData, [u8; 16], u32>,
        name: &'static str,
        capacity: u32,
    ) -> Self {
        Self { trie, name, capacity, held: Prefixes::new(), show: show_v6 }
    }
}

impl<K: Pod + Ord> List<K> {
    /// Makes the trie hold `desired` and returns how many entries that took.
    fn write(&mut self, desired: &Prefixes<K>) -> Result<usize, KernelError> {
        if self.held.len() <= READ_BACK_MAX {
            self.held = self.read()?;
        }
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
