//! How many of the new flows that come by a receive queue stay with its owner. Imports the kernel's words for it.

use std::collections::BTreeMap;

use spooky_common::cid::Owner;
use spooky_common::map::SLOTS_CAPACITY;

use crate::controlplane::kernel::{QueueShare, WorkerSlot};

/// How many slots of new flows stay on each queue, so that with the slot table for the others every worker gets its share by
/// weight. With `q` the part of the queues that a worker has and `t` its share by weight, a queue keeps `c t / q` of what
/// comes to it, `c` as large as no worker exceeds all: the queues then give each worker `c t`, and the table `(1 - c) t`.
/// Workers without a queue count for nothing in this: they get their part of the rest.
pub(super) fn shares(
    given: &BTreeMap<u32, u8>,
    workers: &[WorkerSlot],
    generation: u8,
) -> Vec<QueueShare> {
    let weight = |worker: u8| {
        let slot = workers.iter().find(|slot| slot.worker == worker && slot.reachable)?;
        Some(f64::from(slot.weight))
    };
    let total: f64 = workers.iter().filter_map(|slot| weight(slot.worker)).sum();
    let queues = |worker: u8| given.values().filter(|owner| **owner == worker).count() as f64;
    // Of the share of one queue: q / t, but for what is the same for all.
    let ratio = |worker: u8| match weight(worker) {
        Some(weight) if weight > 0.0 => Some(queues(worker) * total / weight),
        _ => None,
    };
    let least = given.values().filter_map(|worker| ratio(*worker)).fold(f64::INFINITY, f64::min);
    let share = |worker: u8| {
        let kept = ratio(worker).map_or(0.0, |ratio| least / ratio);
        (kept * f64::from(SLOTS_CAPACITY)).round() as u16
    };
    given
        .iter()
        .filter(|(_, worker)| weight(**worker).is_some())
        .map(|(queue, worker)| QueueShare {
            queue: *queue,
            owner: Owner { worker: *worker, generation },
            share: share(*worker),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(worker: u8, weight: u16) -> WorkerSlot {
        WorkerSlot { worker, weight, reachable: true }
    }

    fn share_of(queues: &[u8], workers: &[WorkerSlot]) -> Vec<u16> {
        let given = (0..).zip(queues.iter().copied()).collect();
        shares(&given, workers, 3).into_iter().map(|share| share.share).collect()
    }

    /// What each worker gets of new flows that come evenly over the queues.
    fn got(queues: &[u8], workers: &[WorkerSlot]) -> Vec<f64> {
        let kept = share_of(queues, workers);
        let total: f64 = workers.iter().map(|slot| f64::from(slot.weight)).sum();
        let each = 1.0 / queues.len() as f64;
        let rest: f64 = kept.iter().map(|kept| each * (1.0 - f64::from(*kept) / 256.0)).sum();
        workers
            .iter()
            .map(|slot| {
                let own = queues.iter().zip(&kept).filter(|(owner, _)| **owner == slot.worker);
                let own: f64 = own.map(|(_, kept)| each * f64::from(*kept) / 256.0).sum();
                own + rest * f64::from(slot.weight) / total
            })
            .collect()
    }

    #[test]
    fn every_worker_gets_its_share_of_new_flows() {
        let cases: [(&[u8], &[u16]); 5] = [
            (&[0, 1], &[1, 1]),
            (&[0, 1], &[100, 50]),
            (&[0, 1, 2, 0], &[1, 1, 1]),
            (&[0, 1, 2, 3], &[10, 20, 30, 40]),
            (&[0, 1], &[1, 0]),
        ];
        for (queues, weights) in cases {
            let workers: Vec<_> =
                (0..).zip(weights).map(|(number, weight)| worker(number, *weight)).collect();
            let total: u16 = weights.iter().sum();
            for (got, weight) in got(queues, &workers).into_iter().zip(weights) {
                let wanted = f64::from(*weight) / f64::from(total);
                assert!((got - wanted).abs() < 0.01, "{queues:?} {weights:?}: {got} for {wanted}");
            }
        }
        assert_eq!(share_of(&[0, 1], &[worker(0, 1), worker(1, 1)]), [256, 256], "nothing leaves");
    }

    #[test]
    fn a_worker_out_of_reach_is_not_redirected_to() {
        let dead = WorkerSlot { worker: 1, weight: 0, reachable: false };
        let given = BTreeMap::from([(0, 0), (1, 1)]);
        let shares = shares(&given, &[worker(0, 1), dead], 3);
        assert_eq!(shares.len(), 1);
        assert_eq!(shares[0].owner, Owner { worker: 0, generation: 3 });
        // A stalled one keeps its own connections and takes no new one.
        assert_eq!(share_of(&[0, 1], &[worker(0, 1), worker(1, 0)]), [256, 0]);
    }
}
