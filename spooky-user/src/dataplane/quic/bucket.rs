//! A token bucket: so many a second, and no more than that at once. Imports nothing of the crate.

use std::time::Instant;

/// What may be taken now.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    per_second: u32,
    tokens: f64,
    refilled: Instant,
}

impl Bucket {
    /// At most `per_second` on average and at once; full at first.
    #[must_use]
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, tokens: f64::from(per_second), refilled: now }
    }

    /// Whether there is one.
    pub(super) fn has_one(&mut self, now: Instant) -> bool {
        let rate = f64::from(self.per_second);
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate).min(rate);
        self.refilled = now;
        self.tokens >= 1.0
    }

    /// Takes one if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let granted = self.has_one(now);
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_bounded_and_refills() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 10);
        assert!(!bucket.has_one(start));
        let later = start + Duration::from_millis(500);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 5);
        let much_later = later + Duration::from_secs(100);
        assert_eq!((0..100).filter(|_| bucket.take(much_later)).count(), 10);
    }
}
