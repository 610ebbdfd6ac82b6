//! Allow and deny lists: what the tries hold against what they shall hold, and only the difference written; then the
//! words that the XDP program looks a list up in. Must not know steering.
//!
//! While a list changes, the program is told to look it up in its trie, which is written entry by entry and right at
//! every moment; its words are made anew from what the trie holds, and then they are looked up again. A whole list
//! ([`plan`]) is compiled at once; single entries ([`edit`]) are in force before anything is compiled, and the words
//! follow when the caller finds it quiet ([`compilation`]), made on another thread.

use std::{collections::BTreeSet, fmt};

use aya::{
    Pod,
    maps::{Array, LpmTrie, MapData, MapError, lpm_trie::Key},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use spooky_common::{
    map::Lookup,
    prefix::{Compiled, DoesNotFit},
};

use super::{AccessLists, Edit, KernelError, Side, error::map_error, object::Loaded};

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
    /// What did not fit.
    refused: Prefixes<K>,
    /// Counts changes of `held`, so that words that were compiled meanwhile are known to be old.
    edits: u64,
    /// The count of edits at which it did not fit into its words.
    unfit: Option<u64>,
    /// Shows a prefix to people.
    show: fn(&Prefix<K>) -> Option<IpNet>,
    compile: fn(&[Prefix<K>]) -> Result<Compiled<N>, DoesNotFit>,
}

/// Both lists as they shall be.
pub(super) struct Plan {
    allow: (Prefixes<[u8; 4]>, Prefixes<[u8; 16]>),
    deny: (Prefixes<[u8; 4]>, Prefixes<[u8; 16]>),
}

/// A list to be compiled, on any thread.
pub struct Compilation(Box<dyn FnOnce() -> Compiling + Send>);

/// What came of a [`Compilation`].
pub struct Compiling(Box<Write>);

type Write = dyn FnOnce(&mut Loaded) -> Result<(), KernelError> + Send;

/// Calls something for the list that an entry belongs to.
macro_rules! on_list {
    ($loaded:expr, $side:expr, $net:expr, |$list:ident, $prefix:ident| $do:expr) => {
        match ($side, prefix($net)) {
            (Side::Allow, Family::V4($prefix)) => {
                let $list = &mut $loaded.allow_v4;
                $do
            }
            (Side::Allow, Family::V6($prefix)) => {
                let $list = &mut $loaded.allow_v6;
                $do
            }
            (Side::Deny, Family::V4($prefix)) => {
                let $list = &mut $loaded.deny_v4;
                $do
            }
            (Side::Deny, Family::V6($prefix)) => {
                let $list = &mut $loaded.deny_v6;
                $do
            }
        }
    };
}

/// Turns the look-up of every list that these edits change to its trie; to be in the kernel before [`edit`].
pub(super) fn turn(loaded: &mut Loaded, edits: &[Edit]) {
    for Edit { side, net, listed } in edits {
        on_list!(loaded, side, net, |list, prefix| list.turn(&prefix, *listed));
    }
}

/// Carries out edits; how many entries that took. One that does not fit does not keep the others out.
pub(super) fn edit(loaded: &mut Loaded, edits: &[Edit]) -> Result<usize, KernelError> {
    let mut changed = 0;
    let mut full: Option<KernelError> = None;
    for Edit { side, net, listed } in edits {
        let edited = on_list!(loaded, side, net, |list, prefix| list.edit(prefix, *listed));
        match edited {
            Ok(count) => changed += count,
            Err(KernelError::ListFull { map, capacity, refused }) => match &mut full {
                Some(KernelError::ListFull { refused: all, .. }) => all.extend(refused),
                _ => full = Some(KernelError::ListFull { map, capacity, refused }),
            },
            Err(error) => return Err(error),
        }
    }
    full.map_or(Ok(changed), Err)
}

/// The first list whose words are behind its trie.
pub(super) fn compilation(loaded: &mut Loaded) -> Option<Compilation> {
    None.or_else(|| loaded.deny_v4.compilation(|loaded| &mut loaded.deny_v4))
        .or_else(|| loaded.deny_v6.compilation(|loaded| &mut loaded.deny_v6))
        .or_else(|| loaded.allow_v4.compilation(|loaded| &mut loaded.allow_v4))
        .or_else(|| loaded.allow_v6.compilation(|loaded| &mut loaded.allow_v6))
}

/// How many entries did not fit.
pub(super) fn missing(loaded: &Loaded) -> usize {
    let allow = loaded.allow_v4.refused.len() + loaded.allow_v6.refused.len();
    allow + loaded.deny_v4.refused.len() + loaded.deny_v6.refused.len()
}

/// What the lists shall hold by what was last told, if they are short enough to be read back and compared.
pub(super) fn repair(loaded: &mut Loaded) -> Result<Option<Plan>, KernelError> {
    let lengths = [
        loaded.allow_v4.held.len(),
        loaded.allow_v6.held.len(),
        loaded.deny_v4.held.len(),
        loaded.deny_v6.held.len(),
    ];
    if lengths.iter().any(|length| *length > READ_BACK_MAX) {
        return Ok(None);
    }
    let plan = Plan {
        allow: (loaded.allow_v4.wanted(), loaded.allow_v6.wanted()),
        deny: (loaded.deny_v4.wanted(), loaded.deny_v6.wanted()),
    };
    plan.begin(loaded)?;
    Ok(Some(plan))
}

/// Finds out what will change: [`lookups`] then says how each list is looked up meanwhile, and must be in the kernel
/// before [`Plan::write`].
pub(super) fn plan(loaded: &mut Loaded, access: &AccessLists) -> Result<Plan, KernelError> {
    let plan = Plan { allow: prefixes(&access.allow), deny: prefixes(&access.deny) };
    plan.begin(loaded)?;
    Ok(plan)
}

/// How each list is to be looked up now, as the settings say it.
pub(super) fn lookups(loaded: &Loaded) -> [u8; 4] {
    let (deny_v4, deny_v6) = (loaded.deny_v4.lookup, loaded.deny_v6.lookup);
    [deny_v4, deny_v6, loaded.allow_v4.lookup, loaded.allow_v6.lookup].map(|lookup| lookup as u8)
}

impl Plan {
    fn begin(&self, loaded: &mut Loaded) -> Result<(), KernelError> {
        loaded.allow_v4.begin(&self.allow.0)?;
        loaded.allow_v6.begin(&self.allow.1)?;
        loaded.deny_v4.begin(&self.deny.0)?;
        loaded.deny_v6.begin(&self.deny.1)
    }

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
        match prefix(net) {
            Family::V4(prefix) => {
                v4.insert(prefix);
            }
            Family::V6(prefix) => {
                v6.insert(prefix);
            }
        }
    }
    (v4, v6)
}

/// A prefix as the trie of its family keys it.
enum Family {
    V4(Prefix<[u8; 4]>),
    V6(Prefix<[u8; 16]>),
}

fn prefix(net: &IpNet) -> Family {
    match net.trunc() {
        IpNet::V4(net) => Family::V4((u32::from(net.prefix_len()), net.addr().octets())),
        IpNet::V6(net) => match (net.addr().to_ipv4_mapped(), net.prefix_len().checked_sub(96)) {
            (Some(address), Some(bits)) => Family::V4((u32::from(bits), address.octets())),
            _ => Family::V6((u32::from(net.prefix_len()), net.addr().octets())),
        },
    }
}

// === impl List ===

impl<const N: usize> List<[u8; 4], N> {
    pub(super) fn v4(
        trie: LpmTrie<MapData, [u8; 4], u32>,
        (name, capacity): (&'static str, u32),
        words: Option<(WordsMap<N>, &'static str)>,
    ) -> Self {
        let compile = |held: &[Prefix<_>]| Compiled::v4(held.iter().map(|(bits, a)| (*a, *bits)));
        Self::new(trie, (name, capacity), words, show_v4, compile)
    }
}

impl<const N: usize> List<[u8; 16], N> {
    pub(super) fn v6(
        trie: LpmTrie<MapData, [u8; 16], u32>,
        (name, capacity): (&'static str, u32),
        words: Option<(WordsMap<N>, &'static str)>,
    ) -> Self {
        let compile = |held: &[Prefix<_>]| Compiled::v6(held.iter().map(|(bits, a)| (*a, *bits)));
        Self::new(trie, (name, capacity), words, show_v6, compile)
    }
}

impl<K: Pod + Ord + Send, const N: usize> List<K, N> {
    /// Its trie, and the name of that.
    pub(super) fn trie(&self) -> (&LpmTrie<MapData, K, u32>, &'static str) {
        (&self.trie, self.name)
    }

    fn new(
        trie: LpmTrie<MapData, K, u32>,
        (name, capacity): (&'static str, u32),
        words: Option<(WordsMap<N>, &'static str)>,
        show: fn(&Prefix<K>) -> Option<IpNet>,
        compile: fn(&[Prefix<K>]) -> Result<Compiled<N>, DoesNotFit>,
    ) -> Self {
        Self {
            trie,
            name,
            capacity,
            words,
            lookup: Lookup::Nowhere,
            held: Prefixes::new(),
            refused: Prefixes::new(),
            edits: 0,
            unfit: None,
            show,
            compile,
        }
    }

    fn turn(&mut self, prefix: &Prefix<K>, listed: bool) {
        if self.held.contains(prefix) != listed {
            self.lookup = Lookup::Trie;
        }
    }

    fn edit(&mut self, prefix: Prefix<K>, listed: bool) -> Result<usize, KernelError> {
        if !listed {
            self.refused.remove(&prefix);
        }
        if self.held.contains(&prefix) == listed {
            return Ok(0);
        }
        self.edits += 1;
        if listed {
            return self.insert(prefix);
        }
        self.take_out(&prefix)?;
        // There is room for one that did not fit.
        match self.refused.pop_first() {
            Some(next) => self.insert(next).map(|inserted| inserted + 1),
            None => Ok(1),
        }
    }

    fn insert(&mut self, prefix: Prefix<K>) -> Result<usize, KernelError> {
        match self.trie.insert(&Key::new(prefix.0, prefix.1), LISTED, 0).map_err(map_error) {
            Ok(()) => {
                self.held.insert(prefix);
                Ok(1)
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                let refused = (self.show)(&prefix).into_iter().collect();
                self.refused.insert(prefix);
                Err(KernelError::ListFull { map: self.name, capacity: self.capacity, refused })
            }
            Err(error) => Err(KernelError::Map { map: self.name, error }),
        }
    }

    fn take_out(&mut self, prefix: &Prefix<K>) -> Result<(), KernelError> {
        match self.trie.remove(&Key::new(prefix.0, prefix.1)) {
            Ok(()) | Err(MapError::KeyNotFound) => {
                self.held.remove(prefix);
                Ok(())
            }
            Err(error) => Err(KernelError::map(self.name, error)),
        }
    }

    /// Held, or refused for want of room.
    fn wanted(&self) -> Prefixes<K> {
        self.held.union(&self.refused).copied().collect()
    }

    fn compilation(&self, list: fn(&mut Loaded) -> &mut Self) -> Option<Compilation> {
        let behind = self.lookup == Lookup::Trie && self.unfit != Some(self.edits);
        if !behind || self.words.is_none() {
            return None;
        }
        let held: Vec<_> = self.held.iter().copied().collect();
        let (compile, edits) = (self.compile, self.edits);
        Some(Compilation(Box::new(move || {
            let compiled = if held.is_empty() { None } else { Some(compile(&held)) };
            Compiling(Box::new(move |loaded| list(loaded).compiled(edits, compiled)))
        })))
    }

    /// Looks the list up in these words, if it is still the one they were made from.
    fn compiled(
        &mut self,
        edits: u64,
        compiled: Option<Result<Compiled<N>, DoesNotFit>>,
    ) -> Result<(), KernelError> {
        if self.edits != edits {
            return Ok(());
        }
        match (compiled, &mut self.words) {
            (None, _) => self.lookup = Lookup::Nowhere,
            (Some(_), None) => {}
            (Some(Ok(compiled)), Some((map, name))) => {
                map.set(0, compiled.words(), 0).map_err(|error| KernelError::map(name, error))?;
                self.lookup = Lookup::Words;
            }
            (Some(Err(DoesNotFit)), Some(_)) => {
                self.unfit = Some(edits);
                tracing::warn!(
                    list = self.name,
                    "too scattered to be compiled: look-ups are slower"
                );
            }
        }
        Ok(())
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
        self.edits += 1;
        let written = self.write_trie(desired);
        // The words are behind the trie after a change, and after an earlier attempt that failed.
        if self.lookup == Lookup::Trie {
            let compiled = self.write_words();
            return written.and_then(|changed| compiled.map(|()| changed));
        }
        written
    }

    fn write_words(&mut self) -> Result<(), KernelError> {
        let held: Vec<_> = self.held.iter().copied().collect();
        let compiled = if held.is_empty() || self.words.is_none() {
            None
        } else {
            Some((self.compile)(&held))
        };
        if held.is_empty() || compiled.is_some() {
            self.compiled(self.edits, compiled)
        } else {
            Ok(())
        }
    }

    fn write_trie(&mut self, desired: &Prefixes<K>) -> Result<usize, KernelError> {
        let mut changed = 0;
        self.refused.clear();
        // Removals first, to make room.
        let surplus: Vec<_> = self.held.difference(desired).copied().collect();
        for prefix in surplus {
            self.take_out(&prefix)?;
            changed += 1;
        }
        let missing: Vec<_> = desired.difference(&self.held).copied().collect();
        for prefix in missing {
            match self.insert(prefix) {
                Ok(inserted) => changed += inserted,
                Err(KernelError::ListFull { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if self.refused.is_empty() {
            return Ok(changed);
        }
        let refused = self.refused.iter().filter_map(self.show).collect();
        Err(KernelError::ListFull { map: self.name, capacity: self.capacity, refused })
    }

    fn read(&self) -> Result<Prefixes<K>, KernelError> {
        let keys = self.trie.keys().map(|key| key.map(|key| (key.prefix_len(), key.data())));
        keys.collect::<Result<_, _>>().map_err(|error| KernelError::map(self.name, error))
    }
}

impl Compilation {
    /// Compiles. Takes some milliseconds for 100,000 entries.
    #[must_use]
    pub fn run(self) -> Compiling {
        (self.0)()
    }
}

impl Compiling {
    pub(super) fn write(self, loaded: &mut Loaded) -> Result<(), KernelError> {
        (self.0)(loaded)
    }
}

impl fmt::Debug for Compilation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compilation")
    }
}

impl fmt::Debug for Compiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compiling")
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
