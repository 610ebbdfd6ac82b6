//! Weighted random: Vose's alias method, one draw a pick whatever the number of endpoints.
//! May import: its parent's `Weights`.

use super::Weights;

/// Draws that may hit an ineligible endpoint before all endpoints are looked at. Most are eligible most of the time.
const DRAWS: usize = 4;

/// Columns of equal width; each belongs to its own endpoint up to a threshold and to one other above it.
#[derive(Debug)]
pub struct AliasTable {
    weights: Weights,
    /// Of all weights; the width of a column.
    sum: u64,
    columns: Box<[Column]>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    /// Share of the column that is its own, in units of the sum of all weights.
    own: u64,
    alias: usize,
}

impl AliasTable {
    pub(super) fn new(weights: Weights) -> Self {
        let sum: u64 = weights.0.iter().map(|&weight| u64::from(weight)).sum();
        let count = weights.0.len() as u64;
        // In whole numbers: a column is `sum` wide, an endpoint has `weight * count` to place. 65535 * count fits.
        let shares = weights.0.iter().map(|&weight| u64::from(weight) * count).enumerate();
        let (mut small, mut large): (Vec<_>, Vec<_>) = shares.partition(|&(_, share)| share < sum);
        // What is never poor fills its column by itself.
        let mut columns: Box<[Column]> =
            (0..weights.0.len()).map(|index| Column { own: sum, alias: index }).collect();
        while let (Some((poor, own)), Some((rich, share))) = (small.pop(), large.last_mut()) {
            if let Some(column) = columns.get_mut(poor) {
                *column = Column { own, alias: *rich };
            }
            *share -= sum - own;
            if *share < sum {
                small.extend(large.pop());
            }
        }
        Self { weights, sum, columns }
    }

    pub(super) fn endpoint_count(&self) -> usize {
        self.columns.len()
    }

    pub(super) fn pick(
        &self,
        rng: &mut fastrand::Rng,
        mut eligible: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        for _ in 0..DRAWS {
            let index = self.draw(rng)?;
            if eligible(index) {
                return Some(index);
            }
        }
        // Many are ineligible: one pass that keeps each candidate with the right likelihood (reservoir sampling).
        let mut sum = 0;
        let mut chosen = None;
        for (index, &weight) in self.weights.0.iter().enumerate() {
            if eligible(index) {
                sum += u64::from(weight);
                if rng.u64(0..sum) < u64::from(weight) {
                    chosen = Some(index);
                }
            }
        }
        chosen
    }

    fn draw(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        if self.columns.is_empty() {
            return None;
        }
        let index = rng.usize(0..self.columns.len());
        let column = self.columns.get(index)?;
        Some(if rng.u64(0..self.sum) < column.own { index } else { column.alias })
    }
}
