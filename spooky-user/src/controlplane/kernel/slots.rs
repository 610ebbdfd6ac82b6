//! The placement table: 256 slots shared out by weight, moving as few as possible from one state to the next. Pure.

use spooky_common::{
    cid::Owner,
    map::{SLOTS_CAPACITY, Slot},
};

use super::WorkerSlot;

const SLOTS: usize = SLOTS_CAPACITY as usize;

/// How many slots each worker gets: largest remainder (Hamilton), ties to the lower number. Unreachable workers and
/// weight 0 get none. Adds up to 256, or to 0 when nobody may take a connection.
pub(super) fn quotas(workers: &[WorkerSlot]) -> [usize; 256] {
    let mut weights = [0_usize; 256];
    for slot in workers.iter().filter(|slot| slot.reachable) {
        if let Some(weight) = weights.get_mut(usize::from(slot.worker)) {
            *weight = usize::from(slot.weight);
        }
    }
    let total: usize = weights.iter().sum();
    if total == 0 {
        return weights;
    }
    let mut quotas = weights.map(|weight| weight * SLOTS / total);
    let mut by_remainder: Vec<(usize, usize)> = weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
        .map(|(worker, weight)| (weight * SLOTS % total, worker))
        .collect();
    by_remainder.sort_by_key(|(remainder, worker)| (std::cmp::Reverse(*remainder), *worker));
    let left = SLOTS - quotas.iter().sum::<usize>();
    for (_, worker) in by_remainder.into_iter().take(left) {
        if let Some(quota) = quotas.get_mut(worker) {
            *quota += 1;
        }
    }
    quotas
}

/// The next table: every slot whose worker still has room keeps it, the others go to whoever lacks slots.
pub(super) fn plan(current: &[Slot], generation: u8, workers: &[WorkerSlot]) -> Vec<Slot> {
    let mut left = quotas(workers);
    let kept: Vec<Option<Owner>> = (0..SLOTS)
        .map(|slot| {
            let owner = current.get(slot).copied().unwrap_or_default().owner()?;
            let room = left.get_mut(usize::from(owner.worker))?;
            if owner.generation != generation & 0x0f || *room == 0 {
                return None;
            }
            *room -= 1;
            Some(owner)
        })
        .collect();
    // Round robin over those who lack slots, so that neighbours differ and a part of the table is a fair sample.
    let mut next = 0;
    kept.into_iter()
        .map(|kept| {
            let owner = kept.or_else(|| {
                let has_room = |worker: &u8| left.get(usize::from(*worker)).is_some_and(|n| *n > 0);
                let worker = (0..=u8::MAX).map(|step| step.wrapping_add(next)).find(has_room)?;
                *left.get_mut(usize::from(worker))? -= 1;
                next = worker.wrapping_add(1);
                Some(Owner { worker, generation })
            });
            owner.map_or(Slot::DEAD, Slot::live)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn worker(worker: u8, weight: u16) -> WorkerSlot {
        WorkerSlot { worker, weight, reachable: true }
    }

    fn counts(table: &[Slot]) -> [usize; 256] {
        let mut counts = [0; 256];
        for owner in table.iter().filter_map(|slot| slot.owner()) {
            counts[usize::from(owner.worker)] += 1;
        }
        counts
    }

    fn moved(before: &[Slot], after: &[Slot]) -> usize {
        before.iter().zip(after).filter(|(before, after)| before != after).count()
    }

    #[test]
    fn weights_decide_the_shares() {
        let table = plan(&[], 3, &[worker(0, 100), worker(1, 100), worker(2, 50), worker(9, 0)]);
        let counts = counts(&table);
        assert_eq!((counts[0], counts[1], counts[2], counts[9]), (103, 102, 51, 0));
        assert!(table.iter().all(|slot| slot.owner().is_some_and(|owner| owner.generation == 3)));
    }

    #[test]
    fn a_dead_worker_moves_only_its_own_slots() {
        let mut workers: Vec<_> = (0..4).map(|n| worker(n, 100)).collect();
        let before = plan(&[], 0, &workers);
        workers[2].reachable = false;
        let without = plan(&before, 0, &workers);
        assert_eq!(moved(&before, &without), 64);
        assert_eq!(counts(&without)[2], 0);
        workers[2].reachable = true;
        let again = plan(&without, 0, &workers);
        assert_eq!(moved(&without, &again), 64);
        assert_eq!(counts(&again)[..4], [64; 4]);
    }

    #[test]
    fn nobody_left_is_a_dead_table() {
        let table =
            plan(&[Slot::live(Owner { worker: 1, generation: 0 }); 256], 0, &[worker(1, 0)]);
        assert!(table.iter().all(|slot| *slot == Slot::DEAD));
    }

    #[test]
    fn another_generation_takes_every_slot() {
        let before = plan(&[], 4, &[worker(0, 1)]);
        let after = plan(&before, 5, &[worker(0, 1)]);
        assert_eq!(moved(&before, &after), 256);
    }

    proptest! {
        #[test]
        fn shares_are_fair_and_moves_fewest(
            before in proptest::collection::vec(0_u16..1000, 1..32),
            after in proptest::collection::vec(0_u16..1000, 1..32),
        ) {
            let workers = |weights: &[u16]| -> Vec<_> {
                weights.iter().enumerate().map(|(n, weight)| worker(n as u8, *weight)).collect()
            };
            let first = plan(&[], 0, &workers(&before));
            let second = plan(&first, 0, &workers(&after));
            let quotas = quotas(&workers(&after));
            prop_assert_eq!(counts(&second), quotas);
            let total: usize = after.iter().map(|weight| usize::from(*weight)).sum();
            for (weight, quota) in after.iter().zip(quotas) {
                let exact = usize::from(*weight) * 256;
                prop_assert!(total == 0 || (quota * total).abs_diff(exact) < total, "{} for {}", quota, weight);
            }
            // No slot moved that could have stayed.
            let could_stay: usize = counts(&first).iter().zip(quotas).map(|(had, has)| (*had).min(has)).sum();
            let dead = first.iter().zip(&second).filter(|(a, b)| a == b && a.owner().is_none()).count();
            prop_assert_eq!(256 - moved(&first, &second), could_stay + dead);
            prop_assert_eq!(plan(&second, 0, &workers(&after)), second);
        }
    }
}
