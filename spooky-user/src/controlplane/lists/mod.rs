//! The access lists while spooky runs: what the configuration and its files say, and entries that come and go. The one place
//! that knows all of them; user space's lists and the kernel's follow from here, by `enforce`. May import: config, kernel's
//! types, the data plane's lists, telemetry.
//!
//! `table` are the entries, `cover` what of them the data plane looks up, `fixed` is the configuration's part, `files` the files that are watched, `state` what outlives
//! the process, `store` its writing, `show` what can be asked of them, `figures` the numbers.
//!
//! A change is a few map operations and a small piece of an otherwise shared structure, however long the lists are: nothing is
//! compiled before an entry is in force.

mod cover;
pub mod enforce;
pub mod figures;
mod files;
mod fixed;
pub mod show;
mod state;
mod store;
mod table;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use tokio::task::JoinHandle;

use self::cover::Cover;
use self::figures::ListFigures;
use self::files::{Change, Watch};
use self::fixed::Fixed;
use self::store::Store;
pub use self::store::Told;
pub use self::table::{By, Entry, List, Origin, Put, REASON_MAX, Refusal, TTL_MAX, Table};
use super::config::Access;
use super::kernel::{AccessLists, Edit, Side};
use crate::dataplane::filter::ip_access::{AccessList, Dynamic};

/// Entries that one beat lets go.
const EXPIRIES: usize = 1000;
/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Of those that an answer names.
const NAMED: usize = 5;
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The list.
    pub list: List,
    /// The network; host bits are cleared, and IPv4 in IPv6 form becomes IPv4.
    pub prefix: IpNet,
    /// For how long; `None` until it is removed.
    pub ttl: Option<Duration>,
    /// Why.
    pub reason: String,
    /// Only count whom it would refuse.
    pub dry_run: bool,
    /// Where it comes from: [`Origin::Ctl`] or [`Origin::Abuse`].
    pub origin: Origin,
    /// Who asks.
    pub by: Option<By>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The network as it is listed.
    pub prefix: IpNet,
    /// New, or another word about one that was there.
    pub put: Put,
    /// Not a dry run, neither by itself nor by `access.dry_run`.
    pub enforced: bool,
    /// Allowed networks that overlap with one that is to be blocked, five at most: what they hold is still let in.
    pub allowed: Vec<IpNet>,
    /// It holds loopback addresses.
    pub loopback: bool,
}

/// A look at the files that has ended.
#[derive(Debug)]
struct Looked {
    watch: Watch,
    changes: Vec<Change>,
    /// The configuration's part with the changes in it, and what it was made from.
    made: Option<(Fixed, Arc<Fixed>)>,
}

/// All lists.
#[derive(Debug)]
pub struct Lists {
    table: Table,
    allow: Cover,
    deny: Cover,
    dry: Cover,
    fixed: Arc<Fixed>,
    dry_run: bool,
    version: u64,
    /// The data plane has not got the newest lists.
    changed: bool,
    /// What the kernel is to look at again, in this order; what is asked for now before what files bring.
    urgent: VecDeque<(List, IpNet)>,
    backlog: VecDeque<(List, IpNet)>,
    watch: Watch,
    looking: Option<JoinHandle<Looked>>,
    looked_at: Option<Instant>,
    store: Store,
    figures: Arc<ListFigures>,
}

impl Lists {
    /// What the configuration says, compiled as `compiled`, and what an earlier process has kept in `access.state_file`. Blocks on
    /// that file.
    #[must_use]
    pub fn new(access: &Access, compiled: &AccessList, now: Instant) -> Self {
        let mut lists = Self {
            table: Table::new(access.dynamic_max),
            allow: Cover::default(),
            deny: Cover::default(),
            dry: Cover::default(),
            fixed: Arc::new(Fixed::new(access, compiled)),
            dry_run: access.dry_run,
            version: 0,
            changed: true,
            urgent: VecDeque::new(),
            backlog: VecDeque::new(),
            watch: Watch::default(),
            looking: None,
            looked_at: None,
            store: Store::new(access.state_file.clone()),
            figures: Arc::default(),
        };
        for entry in lists.store.restore(&lists.figures, now) {
            let (list, prefix) = (entry.list, entry.prefix);
            match lists.table.put(entry) {
                Ok(_) => lists.follow(list, prefix),
                Err(refusal) => {
                    lists.figures.refused(&refusal);
                    tracing::warn!(%prefix, %refusal, "access: a kept entry is not restored");
                }
            }
        }
        lists.urgent.clear();
        lists.watch.follow(&access.sources);
        lists.count();
        lists
    }

    /// Their numbers.
    #[must_use]
    pub fn figures(&self) -> Arc<ListFigures> {
        Arc::clone(&self.figures)
    }

    // === entries ===

    /// Blocks a network. In force with the next [`enforce::enforce`]; each beat of the control plane makes one.
    ///
    /// # Errors
    /// [`Refusal`]; [`Refusal::Trusted`] only for [`Origin::Abuse`]. Nothing has changed then.
    pub fn block(
        &mut self,
        prefix: IpNet,
        ttl: Option<Duration>,
        reason: &str,
        origin: Origin,
        dry_run: bool,
        now: Instant,
    ) -> Result<Outcome, Refusal> {
        let reason = reason.to_owned();
        let request = Request { list: List::Deny, prefix, ttl, reason, dry_run, origin, by: None };
        self.put(request, now)
    }

    /// Puts an entry on a list, in place of one of the same network. In force with the next [`enforce::enforce`].
    ///
    /// # Errors
    /// As [`Self::block`].
    pub fn put(&mut self, request: Request, now: Instant) -> Result<Outcome, Refusal> {
        let put = self.try_put(request, now);
        if let Err(refusal) = &put {
            self.figures.refused(refusal);
        }
        put
    }

    fn try_put(&mut self, request: Request, now: Instant) -> Result<Outcome, Refusal> {
        let Request { list, prefix, ttl, reason, dry_run, origin, by } = request;
        let prefix = normal(prefix);
        let (mut allowed, mut loopback) = (Vec::new(), false);
        if list == List::Deny {
            allowed = self.allowed_in(prefix);
            let local = LOOPBACK.iter().filter_map(|net| net.parse().ok());
            let local = local.into_iter().find(|net| overlap(*net, prefix));
            loopback = local.is_some();
            if origin == Origin::Abuse {
                // What else is trusted, loopback above all, the loop knows: it is the operator's word.
                if let Some(trusted) = allowed.first() {
                    return Err(Refusal::Trusted(*trusted));
                }
                if self.table.get(list, &prefix).is_some_and(|it| it.origin == Origin::Ctl) {
                    return Err(Refusal::NotOurs(Origin::Ctl));
                }
            }
        }
        let until = ttl.and_then(|ttl| now.checked_add(ttl));
        let since = SystemTime::now();
        let entry = Entry { list, prefix, dry_run, reason, origin, by, since, ttl, until };
        let put = self.table.put(entry)?;
        self.follow(list, prefix);
        self.store.touch();
        self.count();
        let enforced = !(dry_run || self.dry_run && list == List::Deny);
        Ok(Outcome { prefix, put, enforced, allowed, loopback })
    }

    /// Removes a dynamic entry. Gone with the next [`enforce::enforce`].
    ///
    /// # Errors
    /// [`Refusal::NotOurs`] for what only the configuration or a file has, [`Refusal::Unknown`].
    pub fn remove(&mut self, list: List, prefix: IpNet) -> Result<Arc<Entry>, Refusal> {
        let prefix = normal(prefix);
        let Some(entry) = self.table.remove(list, &prefix) else {
            let refusal = match self.fixed.origin(list, &prefix) {
                Some((origin, _)) => Refusal::NotOurs(origin),
                None => Refusal::Unknown,
            };
            self.figures.refused(&refusal);
            return Err(refusal);
        };
        self.follow(list, prefix);
        self.store.touch();
        self.count();
        Ok(entry)
    }

    /// Ends the block of a network for what its clients did, if there is one.
    pub fn forgive(&mut self, prefix: IpNet) -> bool {
        let entry = self.table.get(List::Deny, &prefix);
        let ours = entry.is_some_and(|entry| entry.origin == Origin::Abuse);
        ours && self.remove(List::Deny, prefix).is_ok()
    }

    /// Makes what is looked up follow the table for one network.
    fn follow(&mut self, list: List, prefix: IpNet) {
        let entry = self.table.get(list, &prefix);
        let spared = |entry: &Arc<Entry>| entry.dry_run || self.dry_run && list == List::Deny;
        let enforced = entry.is_some_and(|entry| !spared(entry));
        let dry = list == List::Deny && entry.is_some_and(spared);
        let cover = match list {
            List::Allow => &mut self.allow,
            List::Deny => &mut self.deny,
        };
        set(cover, prefix, enforced);
        if list == List::Deny {
            set(&mut self.dry, prefix, dry);
        }
        self.changed = true;
        self.urgent.push_back((list, prefix));
    }

    fn count(&self) {
        let mut counts = [[0; Origin::ALL.len()]; 2];
        let mut dry = 0;
        let fixed = self.fixed.sources.iter().map(|source| {
            let list = if source.deny { List::Deny } else { List::Allow };
            let origin = if source.file.is_some() { Origin::File } else { Origin::Config };
            (list, origin, source.networks.len())
        });
        let [allow, deny] = self.table.counts();
        let dynamic = [(List::Allow, allow), (List::Deny, deny)].into_iter();
        let dynamic = dynamic.flat_map(|(list, (ctl, abuse))| {
            [(list, Origin::Ctl, ctl), (list, Origin::Abuse, abuse)]
        });
        for (list, origin, count) in fixed.chain(dynamic) {
            let row: Option<&mut [usize; 4]> = counts.get_mut(list as usize);
            if let Some(slot) = row.and_then(|row| row.get_mut(origin as usize)) {
                *slot += count;
            }
        }
        dry += if self.dry_run { deny.0 + deny.1 } else { self.table.dry_runs() };
        for (list, row) in List::ALL.into_iter().zip(counts) {
            for (origin, count) in Origin::ALL.into_iter().zip(row) {
                self.figures.set_entries(list, origin, count);
            }
        }
        self.figures.set_dry_run(dry);
    }

    // === time and files ===

    /// Lets go of entries whose time is over, begins a look at the files when it is time for one.
    pub fn beat(&mut self, now: Instant) {
        let mut expired = 0;
        while expired < EXPIRIES
            && let Some(entry) = self.table.expire(now)
        {
            expired += 1;
            self.figures.expired();
            tracing::info!(list = entry.list.word(), prefix = %entry.prefix, reason = entry.reason, "access: entry expired");
            self.follow(entry.list, entry.prefix);
        }
        if expired > 0 {
            self.store.touch();
            self.count();
        }
        let due = self.looked_at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK);
        if due && self.looking.is_none() && !self.watch.is_idle() {
            self.looked_at = Some(now);
            let (mut watch, fixed) = (self.watch.clone(), Arc::clone(&self.fixed));
            self.looking = Some(tokio::task::spawn_blocking(move || {
                let changes = watch.look(SystemTime::now());
                let made = fixed.changed(&changes).map(|next| (next, fixed));
                Looked { watch, changes, made }
            }));
        }
    }

    /// Something to do has come up: [`enforce::enforce`] is to be called. Waits for ever when nothing does.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn event(&mut self) {
        if !self.backlog.is_empty() || !self.urgent.is_empty() {
            return;
        }
        tokio::select! {
            looked = finished(&mut self.looking) => self.take_look(looked),
            () = self.store.written(&self.figures) => {}
        }
    }

    fn take_look(&mut self, looked: Option<Looked>) {
        let Some(Looked { watch, changes, made }) = looked else { return };
        match made {
            // A reload has come between: its files are looked at again.
            Some((_, from)) if !Arc::ptr_eq(&from, &self.fixed) => return,
            Some((next, _)) => {
                let before = std::mem::replace(&mut self.fixed, Arc::new(next));
                self.after_change_of(&before);
                tracing::info!("access: list files taken");
            }
            None => {}
        }
        for (file, error) in
            changes.iter().filter_map(|(file, it)| Some((file, it.as_ref().err()?)))
        {
            self.figures.file_error();
            tracing::error!(file = %file.display(), "access: list file not taken, the old entries stay: {error}");
        }
        self.watch = watch;
    }

    /// A reload: the configuration's part is another, compiled as `compiled`.
    pub fn configure(&mut self, access: &Access, compiled: &AccessList) {
        let before = std::mem::replace(&mut self.fixed, Arc::new(Fixed::new(access, compiled)));
        self.table.set_max(access.dynamic_max);
        self.watch.follow(&access.sources);
        if std::mem::replace(&mut self.dry_run, access.dry_run) != access.dry_run {
            let all: Vec<_> = self.table.iter().map(|entry| (entry.list, entry.prefix)).collect();
            for (list, prefix) in all {
                self.follow(list, prefix);
            }
        }
        self.after_change_of(&before);
    }

    /// What is to be looked at in the kernel, in the order in which nobody is refused who is let in before and after.
    fn after_change_of(&mut self, before: &Fixed) {
        let fixed = Arc::clone(&self.fixed);
        let queue = &mut self.backlog;
        queue.extend(without(&fixed.allow, &before.allow).map(|net| (List::Allow, net)));
        queue.extend(without(&before.deny, &fixed.deny).map(|net| (List::Deny, net)));
        queue.extend(without(&before.allow, &fixed.allow).map(|net| (List::Allow, net)));
        queue.extend(without(&fixed.deny, &before.deny).map(|net| (List::Deny, net)));
        self.changed = true;
        self.count();
    }

    // === what follows ===

    /// The lists for the data plane, if they have changed.
    pub fn take_access(&mut self) -> Option<AccessList> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.version += 1;
        let dynamic = Dynamic {
            allow: self.allow.networks(),
            deny: self.deny.networks(),
            dry: self.dry.networks(),
        };
        Some(self.fixed.compiled.with(self.version, dynamic))
    }

    /// At most `max` entries that the kernel may not have as they are to be; and when there are no more, what happens to sources
    /// on no list.
    fn take_edits(&mut self, max: usize) -> (Vec<Edit>, Option<bool>) {
        let mut edits = Vec::new();
        while edits.len() < max {
            let Some((list, net)) = self.urgent.pop_front().or_else(|| self.backlog.pop_front())
            else {
                break;
            };
            let (side, cover) = match list {
                List::Allow => (Side::Allow, &self.allow),
                List::Deny => (Side::Deny, &self.deny),
            };
            let listed = cover.contains(&net) || self.fixed.has(list, &net);
            edits.push(Edit { side, net, listed });
        }
        let settled = self.urgent.is_empty() && self.backlog.is_empty();
        (edits, settled.then_some(self.fixed.default_deny))
    }

    /// All that the kernel is to have, at the start.
    #[must_use]
    pub fn union(&self) -> AccessLists {
        let enforced = |list: List, cover: &Cover, fixed: &[IpNet]| {
            let dynamic = self.table.iter().filter(|entry| entry.list == list);
            let dynamic = dynamic.map(|entry| entry.prefix).filter(|net| cover.contains(net));
            fixed.iter().copied().chain(dynamic).collect()
        };
        AccessLists {
            default_deny: self.fixed.default_deny,
            allow: enforced(List::Allow, &self.allow, &self.fixed.allow),
            deny: enforced(List::Deny, &self.deny, &self.fixed.deny),
        }
    }

    /// Allowed networks that have addresses in common with this one.
    fn allowed_in(&self, prefix: IpNet) -> Vec<IpNet> {
        let dynamic = self.table.iter().take_while(|entry| entry.list == List::Allow);
        let dynamic = dynamic.filter(|entry| !entry.dry_run).map(|entry| entry.prefix);
        let all = self.fixed.allow.iter().copied().chain(dynamic);
        all.filter(|net| overlap(*net, prefix)).take(NAMED).collect()
    }
}

/// The result of a task, when it has ended; waits for ever when there is none.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let Some(handle) = task else { return std::future::pending().await };
    let result = handle.await;
    *task = None;
    result.inspect_err(|error| tracing::error!(%error, "access: a task has failed")).ok()
}

fn set(cover: &mut Cover, prefix: IpNet, inside: bool) {
    if inside {
        cover.insert(prefix);
    } else {
        cover.remove(prefix);
    }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Host bits cleared; IPv4 in IPv6 form as IPv4, which is what its packets carry.
fn normal(prefix: IpNet) -> IpNet {
    let prefix = prefix.trunc();
    let IpNet::V6(v6) = prefix else { return prefix };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    let mapped = mapped.and_then(|(address, bits)| IpNet::new(address.into(), bits).ok());
    mapped.unwrap_or(prefix)
}

/// Those of `these`, sorted, that are not among `those`, sorted.
fn without<'a>(these: &'a [IpNet], those: &'a [IpNet]) -> impl Iterator<Item = IpNet> + 'a {
    let mut those = those.iter().peekable();
    these.iter().copied().filter(move |net| {
        while those.next_if(|other| *other < net).is_some() {}
        those.peek() != Some(&net)
    })
}

#[cfg(test)]
mod tests;
