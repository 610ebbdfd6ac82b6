//! Brings what the lists say into force: the data plane's snapshot first, then the kernel's maps, then the file. May import:
//! boot's state, snapshot.

use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::Lists;
use super::store::Told;
use crate::controlplane::boot::Running;
use crate::snapshot::Snapshot;

/// Entries that the kernel is told of at once: some milliseconds.
const EDITS: usize = 512;

/// Brings what has changed into force. What files bring may be more than fits into a moment: [`Lists::event`] asks for more.
///
/// Gives back what the kernel has no room for, of what it was told now.
pub fn enforce(running: &mut Running, now: Instant) -> Vec<IpNet> {
    let Running { lists, supervisor, makings, .. } = running;
    if let Some(access) = lists.take_access() {
        let next = Snapshot { access, ..Snapshot::clone(&makings.snapshot.load()) };
        makings.snapshot.store(Arc::new(next));
    }
    let (edits, default_deny) = lists.take_edits(EDITS);
    let mut full = Vec::new();
    if !edits.is_empty() {
        match supervisor.edit_access(&edits, now) {
            Some(refused) => full = refused,
            None => supervisor.set_access(lists.union()),
        }
        lists.figures.set_missing(supervisor.kernel().missing());
    }
    if let Some(deny) = default_deny {
        supervisor.set_default_deny(deny);
    }
    lists.store.write(&lists.table, now);
    full
}

impl Lists {
    /// After [`enforce`]: how long a change has taken that was asked for at `began`.
    pub fn took(&self, began: Instant) {
        self.figures.updated(began.elapsed());
    }

    /// Tells when all changes so far will outlive the process, or why they will not.
    pub fn when_kept(&mut self, told: Told) {
        self.store.tell(told);
    }

    /// At the end: what is not in the file yet. Blocks.
    pub fn finish(&mut self) {
        self.store.finish(&self.table);
    }

    /// Whether this network is listed by the configuration, or one of its files.
    #[must_use]
    pub fn is_fixed(&self, list: super::List, net: &IpNet) -> bool {
        self.fixed.has(list, net)
    }
}
