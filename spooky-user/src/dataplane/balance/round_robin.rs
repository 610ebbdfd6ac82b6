//! Round robin: whoever has waited longest. Imports nothing of the crate.
//!
//! A position that skips ineligible endpoints would give the successor of a dead endpoint a double share. A queue does not:
//! the eligible ones keep taking strict turns among themselves, and one that comes back takes its turn among them, once.

use std::collections::VecDeque;

/// Endpoints, the one picked longest ago first.
#[derive(Debug)]
pub(super) struct Queue(VecDeque<u32>);

impl Queue {
    /// Starts in an order of its own, so that workers do not move in lock step.
    pub(super) fn new(endpoint_count: usize, rng: &mut fastrand::Rng) -> Self {
        let mut order: VecDeque<u32> = (0..).take(endpoint_count).collect();
        rng.shuffle(order.make_contiguous());
        Self(order)
    }

    pub(super) fn pick(&mut self, mut eligible: impl FnMut(usize) -> bool) -> Option<usize> {
        // Who is not eligible when its turn comes misses it: left in front, a dead half would be asked in every pick.
        for _ in 0..self.0.len() {
            // The length is what it was afterwards: nothing is allocated.
            let index = self.0.pop_front()?;
            self.0.push_back(index);
            if eligible(index as usize) {
                return Some(index as usize);
            }
        }
        None
    }
}
