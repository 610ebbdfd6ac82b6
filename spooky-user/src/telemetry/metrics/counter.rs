//! Cells that one thread writes and any thread reads: counters, gauges, and counters by reason.
//!
//! Imports only `telemetry::reason`. A write is a plain load and store: no locked instruction, no allocation. The price is the
//! contract *single writer*: two threads writing one cell lose counts (they never corrupt memory).

use std::fmt;
use std::marker::PhantomData;
use std::ops::Index;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::telemetry::reason::Reason;

/// Most values a [`Reason`] list or a [`Labelled`] set can have.
pub const REASONS_MAX: usize = 32;

/// Counts up, wraps at 2^64. Single writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A value that goes up and down. Single writer.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// One counter for each value of a closed list of reasons. Single writer.
pub struct Counters<R> {
    cells: [Counter; REASONS_MAX],
    reason: PhantomData<fn() -> R>,
}

/// Counters whose labels the caller brings: for lists that a layer above telemetry owns, such as the kinds of
/// `dataplane::exchange::error`. Single writer; bounded by [`REASONS_MAX`].
pub struct Labelled {
    cells: [(OnceLock<&'static str>, Counter); REASONS_MAX],
}

// === impl Counter ===

impl Counter {
    /// Zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Gauge ===

impl Gauge {
    /// Zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.add(-1);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` away.
    pub fn sub(&self, n: i64) {
        self.add(n.wrapping_neg());
    }

    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Counters ===

impl<R: Reason> Counters<R> {
    /// All zero. A list longer than [`REASONS_MAX`] does not compile.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(R::ALL.len() <= REASONS_MAX) };
        Self { cells: [const { Counter::new() }; REASONS_MAX], reason: PhantomData }
    }

    /// Adds one to the counter of `reason`.
    pub fn inc(&self, reason: R) {
        self[reason].inc();
    }

    /// The sum over all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.cells.iter().map(Counter::value).fold(0, u64::wrapping_add)
    }
}

impl<R: Reason> Default for Counters<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Reason> Index<R> for Counters<R> {
    type Output = Counter;

    fn index(&self, reason: R) -> &Counter {
        // `new` makes sure that there is a place for each; the last one stands for what cannot be.
        let [.., last] = &self.cells;
        self.cells.get(reason.index()).unwrap_or(last)
    }
}

impl<R: Reason> fmt::Debug for Counters<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(R::ALL.iter().map(|r| (r.label(), self[*r].value()))).finish()
    }
}

// === impl Labelled ===

impl Labelled {
    /// All zero, no label known.
    #[must_use]
    pub const fn new() -> Self {
        Self { cells: [const { (OnceLock::new(), Counter::new()) }; REASONS_MAX] }
    }

    /// Adds one to the counter at `index`, whose label is `label`: `labelled.inc(kind as usize, kind.label())`.
    /// The first call for an index gives it its label. An index of [`REASONS_MAX`] or more is counted at the last place.
    pub fn inc(&self, index: usize, label: &'static str) {
        let [.., last] = &self.cells;
        let (known, counter) = self.cells.get(index).unwrap_or(last);
        let _ = known.get_or_init(|| label);
        counter.inc();
    }

    /// The labels that were counted, with their counts.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.cells.iter().filter_map(|(label, count)| Some((*label.get()?, count.value())))
    }

    /// The sum over all labels.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.values().map(|(_, count)| count).fold(0, u64::wrapping_add)
    }
}

impl Default for Labelled {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Labelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.values()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::reason::DropReason;

    #[test]
    fn counters_count_each_reason_apart() {
        let drops: Counters<DropReason> = Counters::new();
        drops[DropReason::Empty].inc();
        drops.inc(DropReason::Malformed);
        drops[DropReason::Malformed].add(2);
        assert_eq!(drops[DropReason::Empty].value(), 1);
        assert_eq!(drops[DropReason::Malformed].value(), 3);
        assert_eq!(drops.total(), 4);
    }

    #[test]
    fn labelled_is_bounded() {
        let errors = Labelled::new();
        errors.inc(0, "zero");
        errors.inc(REASONS_MAX + 5, "far");
        errors.inc(usize::MAX, "farther");
        let seen: Vec<_> = errors.values().collect();
        assert_eq!(seen, [("zero", 1), ("far", 2)]);
    }

    #[test]
    fn gauge_goes_below_zero_and_back() {
        let gauge = Gauge::new();
        gauge.dec();
        assert_eq!(gauge.value(), -1);
        gauge.add(5);
        gauge.sub(2);
        assert_eq!(gauge.value(), 2);
    }
}
