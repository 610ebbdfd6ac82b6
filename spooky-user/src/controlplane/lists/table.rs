//! The entries that come and go while spooky runs: who asked for each, why, and until when. No clock of its own, no IO.
//! Imports nothing of the crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;

/// Octets of a reason.
pub const REASON_MAX: usize = 256;
/// The longest time an entry may have; without one it stays until it is removed.
pub const TTL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// May connect whatever else holds.
    Allow,
    /// May not.
    Deny,
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The configuration file.
    Config,
    /// A list file.
    File,
    /// Somebody, over the control socket.
    Ctl,
    /// What clients of the network did.
    Abuse,
}

/// Who asked: a user and a process, as the kernel knew them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// User.
    pub uid: u32,
    /// Process.
    pub pid: Option<i32>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The list it is on.
    pub list: List,
    /// The network, host bits cleared.
    pub prefix: IpNet,
    /// Not enforced.
    pub dry_run: bool,
    /// Why; at most [`REASON_MAX`] octets, without control characters.
    pub reason: String,
    /// [`Origin::Ctl`] or [`Origin::Abuse`].
    pub origin: Origin,
    /// Who asked, if somebody did.
    pub by: Option<By>,
    /// Since when, by the wall clock.
    pub since: SystemTime,
    /// For how long it was made.
    pub ttl: Option<Duration>,
    /// Until when.
    pub until: Option<Instant>,
}

/// What became of an entry that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is new.
    Added,
    /// It has taken the place of another of the same list and network.
    Updated,
}

/// Why an entry was not taken, or not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There are as many as there may be.
    Full {
        /// So many.
        max: usize,
    },
    /// The reason is too long, or has control characters.
    Reason,
    /// The time is zero, or longer than [`TTL_MAX`].
    Ttl,
    /// The network holds addresses that are never to be blocked without somebody's word: allowed ones, or loopback.
    Trusted(IpNet),
    /// No such entry.
    Unknown,
    /// It comes from the configuration or a file, and goes when that changes.
    NotOurs(Origin),
}

/// All entries.
#[derive(Debug)]
pub struct Table {
    entries: BTreeMap<(List, IpNet), Arc<Entry>>,
    due: BTreeSet<(Instant, List, IpNet)>,
    max: usize,
    /// By list: of `ctl`, of `abuse`.
    counts: [(usize, usize); 2],
    /// Of the deny list, by themselves.
    dry_runs: usize,
}

// === impl Table ===

impl Table {
    /// Empty, with room for `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            max,
            counts: [(0, 0); 2],
            dry_runs: 0,
        }
    }

    /// Room for so many from now on. Those that are there stay.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Puts an entry in, in place of one of the same list and network.
    ///
    /// # Errors
    /// [`Refusal::Full`], [`Refusal::Reason`], [`Refusal::Ttl`]; nothing has changed then.
    pub fn put(&mut self, entry: Entry) -> Result<Put, Refusal> {
        if entry.reason.len() > REASON_MAX || entry.reason.chars().any(char::is_control) {
            return Err(Refusal::Reason);
        }
        if entry.ttl.is_some_and(|ttl| ttl.is_zero() || ttl > TTL_MAX) {
            return Err(Refusal::Ttl);
        }
        let key = (entry.list, entry.prefix);
        let put = if self.entries.contains_key(&key) { Put::Updated } else { Put::Added };
        if put == Put::Added && self.entries.len() >= self.max {
            return Err(Refusal::Full { max: self.max });
        }
        self.remove(key.0, &key.1);
        if let Some(until) = entry.until {
            self.due.insert((until, key.0, key.1));
        }
        self.count(&entry, |count| *count += 1);
        self.entries.insert(key, Arc::new(entry));
        Ok(put)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, list: List, prefix: &IpNet) -> Option<Arc<Entry>> {
        let entry = self.entries.remove(&(list, *prefix))?;
        if let Some(until) = entry.until {
            self.due.remove(&(until, list, *prefix));
        }
        self.count(&entry, |count| *count -= 1);
        Some(entry)
    }

    fn count(&mut self, entry: &Entry, change: impl Fn(&mut usize)) {
        if let Some((ctl, abuse)) = self.counts.get_mut(entry.list as usize) {
            change(if entry.origin == Origin::Abuse { abuse } else { ctl });
        }
        if entry.dry_run && entry.list == List::Deny {
            change(&mut self.dry_runs);
        }
    }

    /// How many are on each list, the allow list first: of `ctl`, of `abuse`.
    #[must_use]
    pub fn counts(&self) -> [(usize, usize); 2] {
        self.counts
    }

    /// How many of the deny list are dry runs by themselves.
    #[must_use]
    pub fn dry_runs(&self) -> usize {
        self.dry_runs
    }

    /// Takes out an entry whose time is over, if there is one.
    pub fn expire(&mut self, now: Instant) -> Option<Arc<Entry>> {
        let (until, list, prefix) = *self.due.first()?;
        if until > now {
            return None;
        }
        self.remove(list, &prefix)
    }

    /// One entry.
    #[must_use]
    pub fn get(&self, list: List, prefix: &IpNet) -> Option<&Arc<Entry>> {
        self.entries.get(&(list, *prefix))
    }

    /// All, by list and network.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// Those behind this place, by list and network.
    pub fn after(&self, list: List, prefix: IpNet) -> impl Iterator<Item = &Arc<Entry>> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.entries.range((Excluded((list, prefix)), Unbounded)).map(|(_, entry)| entry)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// None at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

// === impl List ===

impl List {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Allow, Self::Deny];

    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

// === impl Origin ===

impl Origin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Config, Self::File, Self::Ctl, Self::Abuse];

    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::File => "file",
            Self::Ctl => "ctl",
            Self::Abuse => "abuse",
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// Every reason, as a metric has it.
    pub const REASONS: [&str; 6] = ["full", "reason", "ttl", "trusted", "unknown", "not_ours"];

    /// One word for programs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Full { .. } => "full",
            Self::Reason => "reason",
            Self::Ttl => "ttl",
            Self::Trusted(_) => "trusted",
            Self::Unknown => "unknown",
            Self::NotOurs(_) => "not_ours",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { max } => write!(
                f,
                "there are {max} dynamic entries, as many as access.max_dynamic_entries allows; remove some, or block larger networks"
            ),
            Self::Reason => write!(
                f,
                "the reason is longer than {REASON_MAX} octets or has control characters; shorten it"
            ),
            Self::Ttl => {
                f.write_str("a ttl is longer than 0 and at most 366 days; leave it out for no end")
            }
            Self::Trusted(net) => write!(f, "it holds addresses of {net}, which are trusted"),
            Self::Unknown => f.write_str("there is no such dynamic entry; `spooky ctl list --match ADDRESS` shows those there are"),
            Self::NotOurs(Origin::File) => f.write_str(
                "it comes from a list file; take it out there, and it is gone within two seconds",
            ),
            Self::NotOurs(Origin::Ctl) => f.write_str(
                "somebody has asked for it over the control socket; `spooky ctl unblock` ends that",
            ),
            Self::NotOurs(_) => f.write_str(
                "it comes from the configuration; take it out there and reload (SIGHUP)",
            ),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(prefix: &str, seconds: Option<u64>, now: Instant) -> Entry {
        let ttl = seconds.map(Duration::from_secs);
        Entry {
            list: List::Deny,
            prefix: prefix.parse().expect("a network"),
            dry_run: false,
            reason: "why not".to_owned(),
            origin: Origin::Ctl,
            by: Some(By { uid: 0, pid: Some(1) }),
            since: SystemTime::UNIX_EPOCH,
            ttl,
            until: ttl.map(|ttl| now + ttl),
        }
    }

    #[test]
    fn entries_end_in_the_order_of_their_times_and_a_second_word_counts() {
        let now = Instant::now();
        let mut table = Table::new(10);
        for (prefix, seconds) in
            [("10.0.0.0/8", Some(5)), ("10.0.0.0/9", Some(3)), ("2001:db8::/32", None)]
        {
            assert_eq!(table.put(entry(prefix, seconds, now)), Ok(Put::Added));
        }
        assert_eq!(table.put(entry("10.0.0.0/9", Some(9), now)), Ok(Put::Updated));
        let mut ended = Vec::new();
        for second in 0..20 {
            while let Some(entry) = table.expire(now + Duration::from_secs(second)) {
                ended.push((second, entry.prefix.to_string()));
            }
        }
        assert_eq!(ended, [(5, "10.0.0.0/8".to_owned()), (9, "10.0.0.0/9".to_owned())]);
        assert_eq!((table.len(), table.due.len()), (1, 0));
    }

    #[test]
    fn what_is_too_much_is_refused_and_changes_nothing() {
        let now = Instant::now();
        let mut table = Table::new(2);
        let long = |reason: String| Entry { reason, ..entry("10.0.0.0/8", None, now) };
        assert_eq!(table.put(long("x".repeat(REASON_MAX + 1))), Err(Refusal::Reason));
        assert_eq!(table.put(long("a\nb".to_owned())), Err(Refusal::Reason));
        assert_eq!(table.put(entry("10.0.0.0/8", Some(0), now)), Err(Refusal::Ttl));
        assert_eq!(
            table.put(entry("10.0.0.0/8", Some(u64::from(u32::MAX)), now)),
            Err(Refusal::Ttl)
        );
        assert!(table.is_empty());
        assert_eq!(table.put(long("x".repeat(REASON_MAX))), Ok(Put::Added));
        assert_eq!(table.put(entry("10.0.0.0/9", None, now)), Ok(Put::Added));
        assert_eq!(table.put(entry("10.0.0.0/10", None, now)), Err(Refusal::Full { max: 2 }));
        // One that is there may still be changed.
        assert_eq!(table.put(entry("10.0.0.0/9", Some(1), now)), Ok(Put::Updated));
        assert!(table.remove(List::Deny, &"10.0.0.0/9".parse().expect("a network")).is_some());
        assert_eq!(table.put(entry("10.0.0.0/10", None, now)), Ok(Put::Added));
    }
}
