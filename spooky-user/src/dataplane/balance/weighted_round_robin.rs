//! Smooth weighted round robin: each eligible endpoint earns its weight, the richest is picked and pays the sum.
//! Imports nothing of the crate.
//!
//! In every run of `sum of weights` picks each endpoint is picked exactly `weight` times, and a heavy one is never picked
//! in a row when a light one can stand between. An ineligible endpoint earns nothing, so it does not come back with a burst.

/// The initial state is one of the first rounds of the cycle, chosen at random, so that workers do not move in lock step.
const WARM_UP_ROUNDS_MAX: u64 = 256;

/// What each endpoint has earned and not yet been paid for, by index.
#[derive(Debug)]
pub(super) struct Credits(Box<[i64]>);

impl Credits {
    pub(super) fn new(weights: &[u16], rng: &mut fastrand::Rng) -> Self {
        let mut credits = Self(vec![0; weights.len()].into_boxed_slice());
        let cycle: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        for _ in 0..rng.u64(0..cycle.clamp(1, WARM_UP_ROUNDS_MAX)) {
            credits.pick(weights, |_| true);
        }
        credits
    }

    pub(super) fn pick(
        &mut self,
        weights: &[u16],
        mut eligible: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let mut sum = 0;
        let mut richest: Option<(usize, i64)> = None;
        for (index, (credit, &weight)) in self.0.iter_mut().zip(weights).enumerate() {
            if !eligible(index) {
                continue;
            }
            *credit += i64::from(weight);
            sum += i64::from(weight);
            if richest.is_none_or(|(_, most)| *credit > most) {
                richest = Some((index, *credit));
            }
        }
        let (index, _) = richest?;
        if let Some(credit) = self.0.get_mut(index) {
            *credit -= sum;
        }
        Some(index)
    }
}
