//! Weighted round robin by due times: an endpoint is due every `1 / weight`, and who is due first is picked. Imports
//! nothing of the crate.
//!
//! In every run of `sum of weights` picks each endpoint is picked as often as its weight says, at even distances. The
//! endpoints stand in a heap, so that a pick among a thousand costs little more than one among ten. An ineligible endpoint
//! whose time comes misses it, so it does not come back with a burst.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The time between two picks of an endpoint of weight 1.
const PERIOD: u64 = 1 << 32;

/// Due times are taken back before they can overflow; seen once in 2^30 rounds.
const LATEST: u64 = 1 << 62;

/// Looks into the heap that a pick takes before it asks all endpoints one by one.
const LOOKS_MAX: usize = 32;

/// When each endpoint is due. A pick never changes the length of either part.
#[derive(Debug)]
pub(super) struct Schedule {
    /// By index.
    due: Box<[u64]>,
    /// Each endpoint once, at its due time or an earlier one that it has had.
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    /// When the last pick was due.
    now: u64,
}

// === impl Schedule ===

impl Schedule {
    /// Everyone's first time is chosen at random within its distance, so that workers do not move in lock step.
    pub(super) fn new(weights: &[u16], rng: &mut fastrand::Rng) -> Self {
        let due: Box<[u64]> = weights.iter().map(|&weight| rng.u64(0..distance(weight))).collect();
        let heap = due.iter().copied().zip(0..).map(Reverse).collect();
        Self { due, heap, now: 0 }
    }

    pub(super) fn pick(
        &mut self,
        weights: &[u16],
        mut eligible: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        for _ in 0..LOOKS_MAX {
            let Reverse((at, first)) = *self.heap.peek()?;
            let index = first as usize;
            let (due, distance) = (*self.due.get(index)?, distance(*weights.get(index)?));
            let caught_up = self.caught_up(due, distance);
            // Picked by the list before, or left behind while others were asked.
            if at != caught_up {
                self.set(index, caught_up);
                self.move_first(caught_up, first);
                continue;
            }
            let is_picked = eligible(index);
            self.set(index, due + distance);
            self.move_first(due + distance, first);
            if is_picked {
                self.pass(due);
                return Some(index);
            }
        }
        self.first_of_all(weights, eligible)
    }

    /// The eligible one that is due first. Its place in the heap is found to be old when its turn there comes.
    fn first_of_all(
        &mut self,
        weights: &[u16],
        mut eligible: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let all = self.due.iter().zip(weights).enumerate();
        let times = all.filter(|(index, _)| eligible(*index)).map(|(index, (due, weight))| {
            let distance = distance(*weight);
            (self.caught_up(*due, distance), index, distance)
        });
        let (due, index, distance) = times.min()?;
        self.set(index, due + distance);
        self.pass(due);
        Some(index)
    }

    /// A due time without the turns that were missed: at most one distance ago.
    fn caught_up(&self, due: u64, distance: u64) -> u64 {
        due + self.now.saturating_sub(due) / distance * distance
    }

    fn set(&mut self, index: usize, due: u64) {
        if let Some(place) = self.due.get_mut(index) {
            *place = due;
        }
    }

    /// Gives the first in the heap its time there.
    fn move_first(&mut self, due: u64, index: u32) {
        if let Some(mut first) = self.heap.peek_mut() {
            *first = Reverse((due, index));
        }
    }

    /// Time goes on; long before its end, everything begins at 0 again in the same order.
    fn pass(&mut self, due: u64) {
        self.now = self.now.max(due);
        if self.now < LATEST {
            return;
        }
        for due in &mut self.due {
            *due = due.saturating_sub(self.now);
        }
        self.now = 0;
        self.heap.clear();
        self.heap.extend(self.due.iter().copied().zip(0..).map(Reverse));
    }
}

fn distance(weight: u16) -> u64 {
    PERIOD / u64::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_away_comes_back_without_a_burst() {
        let weights = [2, 1, 1];
        let mut schedule = Schedule::new(&weights, &mut fastrand::Rng::with_seed(4));
        for _ in 0..1000 {
            assert_ne!(schedule.pick(&weights, |index| index != 0), Some(0));
        }
        let picks: Vec<_> = (0..8).filter_map(|_| schedule.pick(&weights, |_| true)).collect();
        let of_first = picks.iter().filter(|index| **index == 0).count();
        assert!((3..=5).contains(&of_first), "{picks:?}");
    }

    #[test]
    fn the_last_one_standing_of_many_keeps_its_own_pace() {
        let weights: Vec<u16> = (0..200).map(|index| 1 + index % 5).collect();
        let mut schedule = Schedule::new(&weights, &mut fastrand::Rng::with_seed(4));
        let mut counts = [0_usize; 2];
        // Of weights 3 and 4: the others are away, so that the heap is left for the list each time.
        for _ in 0..700 {
            let picked = schedule.pick(&weights, |index| index == 102 || index == 103);
            counts[usize::from(picked == Some(103))] += 1;
        }
        assert!(counts[0].abs_diff(300) <= 12 && counts[1].abs_diff(400) <= 12, "{counts:?}");
        let all: Vec<_> = (0..600).filter_map(|_| schedule.pick(&weights, |_| true)).collect();
        let of_last = all.iter().filter(|index| **index == 103).count();
        assert!(of_last <= 5, "{of_last} of one cycle");
    }

    #[test]
    fn time_begins_anew_before_it_ends() {
        let weights = [1, 3];
        let mut schedule = Schedule::new(&weights, &mut fastrand::Rng::with_seed(1));
        for due in &mut schedule.due {
            *due += LATEST - 2 * PERIOD;
        }
        schedule.now = LATEST - 2 * PERIOD;
        schedule.heap = schedule.due.iter().copied().zip(0..).map(Reverse).collect();
        let picks: Vec<_> = (0..40).filter_map(|_| schedule.pick(&weights, |_| true)).collect();
        let of_heavy = picks.iter().filter(|index| **index == 1).count();
        assert!(of_heavy.abs_diff(30) <= 1, "{picks:?}");
        assert!(schedule.due.iter().all(|due| *due < LATEST / 2));
        assert_eq!(schedule.heap.len(), 2);
    }
}
