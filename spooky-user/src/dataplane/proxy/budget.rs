//! How many requests of an upstream are tried again at once: a share of those that are live, so that a backend in trouble gets
//! little more than it would without retries. One budget for each upstream on each worker. May import: upstream's cluster.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::dataplane::upstream::cluster::{Cluster, RetryBudget};

/// The budgets of one worker.
#[derive(Debug, Default)]
pub(super) struct Budgets(RefCell<Vec<Named>>);

/// In the order of the clusters' `id`.
#[derive(Debug)]
struct Named {
    name: Arc<str>,
    budget: Rc<Budget>,
}

/// What one upstream's requests have taken of it.
#[derive(Debug, Default)]
struct Budget {
    live: Cell<u32>,
    again: Cell<u32>,
    room: Notify,
}

/// A request that is being served. It counts for as long as it lives.
#[derive(Debug)]
pub(super) struct Live(Rc<Budget>);

/// A request that is being tried again. Its place is given back on drop.
#[derive(Debug)]
pub(super) struct Again<'l>(&'l Budget);

// === impl Budgets ===

impl Budgets {
    /// Takes a snapshot's upstreams. Those that keep their name keep what is taken.
    pub(super) fn retain(&self, clusters: &[Arc<Cluster>]) {
        let mut known = self.0.borrow_mut();
        let find = |cluster: &Arc<Cluster>| {
            let found = known.iter().find(|named| named.name == cluster.name);
            let budget = found.map(|named| Rc::clone(&named.budget)).unwrap_or_default();
            Named { name: Arc::clone(&cluster.name), budget }
        };
        *known = clusters.iter().map(find).collect();
    }

    /// A request to this upstream begins. One of an older snapshot whose upstream is gone has a budget of its own.
    pub(super) fn enter(&self, cluster: &Cluster) -> Live {
        let known = self.0.borrow();
        let found = known
            .get(cluster.id.index())
            .filter(|named| Arc::ptr_eq(&named.name, &cluster.name))
            .or_else(|| known.iter().find(|named| named.name == cluster.name));
        let budget = found.map(|named| Rc::clone(&named.budget)).unwrap_or_default();
        budget.live.set(budget.live.get() + 1);
        Live(budget)
    }
}

// === impl Live ===

impl Live {
    /// Waits for a place among those that are tried again, for `patience` at most and first come first served. `None` when
    /// there is none in time, or can be none.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place in the queue back.
    pub(super) async fn again(&self, most: RetryBudget, patience: Duration) -> Option<Again<'_>> {
        timeout(patience, self.0.place(most)).await.ok().flatten()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.set(self.0.live.get().saturating_sub(1));
    }
}

impl Drop for Again<'_> {
    fn drop(&mut self) {
        self.0.again.set(self.0.again.get().saturating_sub(1));
        self.0.room.notify_one();
    }
}

// === impl Budget ===

impl Budget {
    async fn place(&self, most: RetryBudget) -> Option<Again<'_>> {
        loop {
            let limit = self.limit(most);
            if self.again.get() < limit {
                self.again.set(self.again.get() + 1);
                if self.again.get() < limit {
                    // There may be room for who waits next, too.
                    self.room.notify_one();
                }
                return Some(Again(self));
            }
            if self.again.get() == 0 {
                // Nobody will give a place back. Who waits next has to see it, too.
                self.room.notify_one();
                return None;
            }
            self.room.notified().await;
        }
    }

    fn limit(&self, most: RetryBudget) -> u32 {
        let share = u64::from(self.live.get()) * u64::from(most.percent) / 100;
        u32::try_from(share).unwrap_or(u32::MAX).max(most.min_concurrency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: RetryBudget = RetryBudget { percent: 20, min_concurrency: 3 };
    const NOW: Duration = Duration::ZERO;

    fn enter(budget: &Rc<Budget>, count: usize) -> Vec<Live> {
        let live = |_| {
            budget.live.set(budget.live.get() + 1);
            Live(Rc::clone(budget))
        };
        (0..count).map(live).collect()
    }

    #[tokio::test]
    async fn a_fifth_of_those_that_live_may_be_tried_again() {
        let budget = Rc::default();
        for (count, most) in [(100, 20), (10, 3)] {
            let live = enter(&budget, count);
            let mut again = Vec::new();
            for one in &live {
                again.extend(one.again(BUDGET, NOW).await);
            }
            assert_eq!(again.len(), most, "of {count}");
        }
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_of_who_has_ended() {
        let budget = Rc::default();
        let live = enter(&budget, 4);
        let one = RetryBudget { percent: 0, min_concurrency: 1 };
        let first = live[0].again(one, NOW).await;
        assert!(first.is_some());
        let patience = Duration::from_millis(50);
        let (waited, ()) = tokio::join!(live[1].again(one, patience), async { drop(first) });
        assert!(waited.is_some() && live[2].again(one, NOW).await.is_none());
        // One that waited and went away keeps nobody from it.
        let (gone, _) =
            tokio::join!(live[2].again(one, patience), tokio::time::sleep(patience * 2));
        assert!(gone.is_none());
        drop(waited);
        assert!(live[3].again(one, NOW).await.is_some());
    }

    #[tokio::test]
    async fn without_a_budget_nothing_is_tried_again() {
        let live = enter(&Rc::default(), 10);
        let none = RetryBudget { percent: 0, min_concurrency: 0 };
        assert!(live[0].again(none, NOW).await.is_none());
    }
}
