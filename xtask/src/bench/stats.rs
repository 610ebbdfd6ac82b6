//! Medians, spreads, and which rounds count. Numbers only; imports nothing of xtask.

/// A round whose floor is further than this from the median of the floors does not count.
pub(crate) const FLOOR_TOLERANCE: f64 = 0.15;
/// Two results differ by noise at least up to here.
pub(crate) const NOISE_MIN: f64 = 0.05;

/// What the rounds said of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// `None` without values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let median = median(values)?;
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Self { median, min, max })
    }

    /// The further of min and max from the median, as a part of it.
    pub(crate) fn spread(self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        ((self.max - self.median).max(self.median - self.min) / self.median).abs()
    }
}

/// Of an even number of values the mean of the middle two.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted.get(middle.checked_sub(1)?)? + upper) / 2.0)
}

/// For each round whether it counts: all its floors are near the median of all floors. A round without floors counts.
pub(crate) fn which_count(floors: &[Vec<f64>]) -> Vec<bool> {
    let all: Vec<f64> = floors.iter().flatten().copied().collect();
    let Some(middle) = median(&all) else { return vec![true; floors.len()] };
    let is_near = |floor: &f64| (floor / middle - 1.0).abs() <= FLOOR_TOLERANCE;
    floors.iter().map(|floors| floors.iter().all(is_near)).collect()
}

/// `a / b` round by round: what neighbours do to a round they do to both.
pub(crate) fn ratios(a: &[Option<f64>], b: &[Option<f64>]) -> Vec<f64> {
    let pairs = a.iter().zip(b).filter_map(|(a, b)| a.zip(*b));
    pairs.filter(|(_, b)| *b > 0.0).map(|(a, b)| a / b).collect()
}

/// Whether the median of `new` differs from that of `old` by more than the noise of both: the change, or `None`.
pub(crate) fn moved(old: Summary, new: Summary) -> Option<f64> {
    if old.median == 0.0 {
        return None;
    }
    let noise = old.spread().max(new.spread()).max(NOISE_MIN);
    let change = new.median / old.median - 1.0;
    (change.abs() > noise).then_some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[f64::NAN, 1.0]), Some(1.0));
    }

    #[test]
    fn a_summary_has_its_ends() {
        let summary = Summary::of(&[10.0, 9.0, 13.0]).expect("values");
        assert_eq!((summary.median, summary.min, summary.max), (10.0, 9.0, 13.0));
        assert!((summary.spread() - 0.3).abs() < 1e-9);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_round_far_from_the_others_does_not_count() {
        let floors =
            [vec![10.0, 10.2], vec![9.8, 10.1], vec![10.0, 12.0], vec![10.0, 10.0], vec![]];
        assert_eq!(which_count(&floors), [true, true, false, true, true]);
        assert_eq!(which_count(&[vec![], vec![]]), [true, true]);
        assert_eq!(which_count(&[]), [true; 0]);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let ratios = ratios(&[Some(2.0), Some(9.0), None], &[Some(1.0), Some(3.0), Some(1.0)]);
        assert_eq!(ratios, [2.0, 3.0]);
        assert_eq!(super::ratios(&[Some(1.0)], &[Some(0.0)]), [0.0; 0]);
    }

    #[test]
    fn a_move_is_more_than_the_noise() {
        let of = |median: f64, spread: f64| Summary {
            median,
            min: median * (1.0 - spread),
            max: median * (1.0 + spread),
        };
        assert_eq!(moved(of(100.0, 0.01), of(104.0, 0.01)), None);
        assert!(moved(of(100.0, 0.01), of(106.0, 0.01)).is_some_and(|change| change > 0.05));
        assert_eq!(moved(of(100.0, 0.2), of(115.0, 0.01)), None);
        assert!(moved(of(100.0, 0.02), of(80.0, 0.02)).is_some_and(|change| change < -0.19));
        assert_eq!(moved(of(0.0, 0.0), of(1.0, 0.0)), None);
    }
}
