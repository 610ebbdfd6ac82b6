//! Where this worker's balancers stand: a position, credits or a generator for each upstream. May import: balance.
//!
//! The state of an upstream that a reload leaves as it was goes on; starting again would send the first requests after each
//! reload to the same few endpoints.

use std::sync::Arc;

use super::cluster::Cluster;
use crate::dataplane::balance::Turn;

#[derive(Debug, Default)]
pub(super) struct Turns(Vec<Slot>);

#[derive(Debug)]
struct Slot {
    cluster: Arc<Cluster>,
    turn: Turn,
}

// === impl Turns ===

impl Turns {
    /// Makes these the upstreams to choose in, in the order of their `id`.
    pub(super) fn retain(&mut self, clusters: &[Arc<Cluster>]) {
        let mut known = std::mem::take(&mut self.0);
        for cluster in clusters {
            let place = known.iter().position(|slot| is_same_choice(&slot.cluster, cluster));
            let turn = match place {
                Some(place) => known.swap_remove(place).turn,
                None => cluster.balancer.turn(fastrand::u64(..)),
            };
            self.0.push(Slot { cluster: Arc::clone(cluster), turn });
        }
    }

    /// The next endpoint of this upstream, by index.
    ///
    /// A cluster of another snapshot than the last one retained (an exchange older than a reload that tries again) is chosen
    /// in from a fresh state.
    pub(super) fn pick(
        &mut self,
        cluster: &Arc<Cluster>,
        key: u64,
        eligible: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        match self.0.get_mut(cluster.id.index()) {
            Some(slot) if Arc::ptr_eq(&slot.cluster, cluster) => {
                cluster.balancer.pick(&mut slot.turn, key, eligible)
            }
            _ => {
                let mut turn = cluster.balancer.turn(fastrand::u64(..));
                cluster.balancer.pick(&mut turn, key, eligible)
            }
        }
    }
}

/// The same upstream with the same policy over the same endpoints and weights?
fn is_same_choice(one: &Cluster, other: &Cluster) -> bool {
    let members = |cluster: &Cluster| -> Vec<(Arc<str>, u16)> {
        cluster.endpoints.iter().map(|e| (Arc::clone(&e.name), e.weight)).collect()
    };
    one.name == other.name
        && std::mem::discriminant(&one.balancer) == std::mem::discriminant(&other.balancer)
        && members(one) == members(other)
}
