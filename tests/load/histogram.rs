//! Latencies in buckets whose width grows with the value, so that a run of any length needs the same memory and a rank
//! is found without sorting. Knows nothing of this program.

use std::time::Duration;

/// Values below this many nanoseconds have a bucket each; above, a bucket is at most 1/1024 of its values wide.
const EXACT: u64 = 2048;
/// Buckets of one power of two.
const HALF: usize = 1024;
/// The largest value that is told from larger ones: 2^43 ns, a little under two and a half hours.
const LARGEST: u64 = (1 << 43) - 1;
const BUCKETS: usize = HALF * (43 - 11 + 2);

/// Counts by latency.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

// === impl Histogram ===

impl Histogram {
    pub(crate) fn add(&mut self, latency: Duration) {
        let value = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.max = self.max.max(value);
        self.total += 1;
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count += 1;
        }
    }

    /// How many there are.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The largest, exactly; `None` when there is none.
    pub(crate) fn max(&self) -> Option<Duration> {
        (self.total > 0).then(|| Duration::from_nanos(self.max))
    }

    /// The value that `per_mille` of 1000 do not exceed, at most 0.1 % too large; `None` when there is none.
    pub(crate) fn at(&self, per_mille: u64) -> Option<Duration> {
        let rank = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(upper(place).min(self.max)))
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

fn bucket(value: u64) -> usize {
    let value = value.min(LARGEST);
    if value < EXACT {
        return value as usize;
    }
    // The leading one is at bit 11 or above; eleven bits from it on are kept.
    let shift = value.ilog2() - 10;
    shift as usize * HALF + (value >> shift) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    if bucket < EXACT as usize {
        return bucket as u64;
    }
    let shift = bucket / HALF - 1;
    ((bucket - shift * HALF + 1) as u64) * (1 << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_is_narrow_enough() {
        let powers = (0..43).map(|bit| 1_u64 << bit);
        for value in
            powers.flat_map(|it| [it, it + it / 3, it.saturating_sub(1), LARGEST.min(it * 2 - 1)])
        {
            let upper = upper(bucket(value));
            assert!(upper >= value && upper - value <= value / 1024, "{value} is told as {upper}");
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn ranks_and_the_largest() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.at(500), histogram.max()), (None, None));
        (1..=1000).rev().for_each(|it| histogram.add(Duration::from_nanos(it)));
        let ranks = [500, 990, 999, 1000].map(|rank| histogram.at(rank));
        assert_eq!(ranks, [500, 990, 999, 1000].map(|it| Some(Duration::from_nanos(it))));
        histogram.add(Duration::from_secs(1 << 40));
        assert_eq!(
            (histogram.total(), histogram.max()),
            (1001, Some(Duration::from_nanos(u64::MAX)))
        );
    }
}
