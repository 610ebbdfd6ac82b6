//! Durations in fixed buckets. Single writer, like every cell of `metrics::counter`. Imports nothing of the crate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most bounds a histogram can have; one more bucket is for everything above the last.
const BOUNDS_MAX: usize = 16;

const MS: u64 = 1_000_000;
const US: u64 = 1_000;

/// Whole exchanges and handshakes, 1 ms to 60 s: the default time-outs of upstreams are bounds of their own.
pub const EXCHANGE_BOUNDS: &[u64] = &[
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    1_000 * MS,
    2_500 * MS,
    5_000 * MS,
    10_000 * MS,
    30_000 * MS,
    60_000 * MS,
];

/// Round-trip times, 250 µs (same rack) to 2.5 s (satellite and bufferbloat).
pub const RTT_BOUNDS: &[u64] = &[
    250 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    20 * MS,
    40 * MS,
    80 * MS,
    160 * MS,
    320 * MS,
    640 * MS,
    1_000 * MS,
    2_500 * MS,
];

/// Turns of a worker, 5 µs to 1 s: a turn of 10 ms already delays acknowledgements (max_ack_delay is 25 ms).
pub const TURN_BOUNDS: &[u64] = &[
    5 * US,
    10 * US,
    25 * US,
    50 * US,
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    100 * MS,
    1_000 * MS,
];

/// Counts durations by bucket and keeps their sum. Buckets are `<=` their bound, as Prometheus has it.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in nanoseconds, ascending.
    bounds: &'static [u64],
    counts: [AtomicU64; BOUNDS_MAX + 1],
    /// Nanoseconds; wraps after 584 years of observed time.
    sum: AtomicU64,
}

// === impl Histogram ===

impl Histogram {
    /// Empty. `bounds` are nanoseconds, ascending, at most 16.
    ///
    /// # Panics
    /// At compile time (in a const) or at start when there are too many bounds.
    #[must_use]
    pub const fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() <= BOUNDS_MAX);
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; BOUNDS_MAX + 1],
            sum: AtomicU64::new(0),
        }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        self.observe_nanoseconds(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts one duration in seconds. Negative values and NaN count as zero.
    pub fn observe_seconds(&self, seconds: f64) {
        self.observe(Duration::try_from_secs_f64(seconds).unwrap_or(if seconds > 0.0 {
            Duration::MAX
        } else {
            Duration::ZERO
        }));
    }

    fn observe_nanoseconds(&self, nanoseconds: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < nanoseconds);
        // There is one count more than bounds, so that every place has one.
        if let Some(count) = self.counts.get(bucket) {
            bump(count, 1);
        }
        bump(&self.sum, nanoseconds);
    }

    /// Upper bounds in nanoseconds.
    #[must_use]
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    /// Counts for each bucket (not cumulative), the last being everything above the last bound.
    pub fn buckets(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().take(self.bounds.len() + 1).map(|count| count.load(Ordering::Relaxed))
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets().sum()
    }

    /// Sum of all durations, in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a sum shown to people; 53 bits are plenty")]
    pub fn sum_seconds(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / 1e9
    }
}

fn bump(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_ascend() {
        for bounds in [EXCHANGE_BOUNDS, RTT_BOUNDS, TURN_BOUNDS] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
            assert!(bounds.len() <= BOUNDS_MAX);
        }
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let histogram = Histogram::new(EXCHANGE_BOUNDS);
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_nanos(1_000_001));
        histogram.observe(Duration::MAX);
        let buckets: Vec<u64> = histogram.buckets().collect();
        assert_eq!(buckets[0], 1);
        assert_eq!(buckets[1], 1);
        assert_eq!(*buckets.last().unwrap(), 1);
        assert_eq!(histogram.count(), 3);
    }

    #[test]
    fn odd_seconds_do_not_panic() {
        let histogram = Histogram::new(RTT_BOUNDS);
        for seconds in [-1.0, f64::NAN, f64::INFINITY, 0.5] {
            histogram.observe_seconds(seconds);
        }
        let buckets: Vec<u64> = histogram.buckets().collect();
        assert_eq!(buckets[0], 2);
        assert_eq!(*buckets.last().unwrap(), 1);
        assert_eq!(histogram.count(), 4);
    }
}
