//! How many requests of a connection may end early. Pure: counts in, verdicts out; imports nothing of the crate but settings.
//!
//! A request that is opened and reset costs its client a frame and us a backend stream (CVE-2023-44487), and it does not matter
//! who resets it: a client can make us do so (CVE-2025-8671). Two budgets: what share of all requests may end early, and how
//! many resets a second there may be.

use std::time::{Duration, Instant};

use crate::dataplane::quic::settings::ResetBudget;
use crate::telemetry::reason::LimitReason;

/// A reset within this time of the request's head is early, whatever was answered until then.
pub(super) const EARLY: Duration = Duration::from_secs(1);

/// Seconds for which the rate of resets may be over its limit.
const RATE_SECONDS: u64 = 5;

/// What one connection has used of its budgets.
#[derive(Debug)]
pub(super) struct Resets {
    budget: ResetBudget,
    /// Requests that are over.
    closed: u64,
    /// Those of them that ended early.
    early: u64,
    /// Resets not yet forgotten, in thousandths: `per_second` of them are forgotten each second.
    recent: u64,
    counted: Option<Instant>,
}

impl Resets {
    pub(super) fn new(budget: ResetBudget) -> Self {
        Self { budget, closed: 0, early: 0, recent: 0, counted: None }
    }

    /// A request was answered in full.
    pub(super) fn ended(&mut self) {
        self.closed += 1;
    }

    /// A request was reset, by either side; `early` when it had no answer or was not older than [`EARLY`].
    pub(super) fn reset(&mut self, early: bool, now: Instant) {
        self.closed += 1;
        self.early += u64::from(early);
        self.count(now);
    }

    /// Counts a reset for the rate alone.
    pub(super) fn count(&mut self, now: Instant) {
        let past = self.counted.replace(now).map_or(Duration::ZERO, |at| now.duration_since(at));
        let forgotten = u64::try_from(past.as_millis()).unwrap_or(u64::MAX);
        let forgotten = forgotten.saturating_mul(self.budget.per_second);
        self.recent = self.recent.saturating_sub(forgotten).saturating_add(1000);
    }

    /// The budget that is used up, if one is.
    pub(super) fn verdict(&self) -> Option<LimitReason> {
        if self.early >= self.early_max(self.closed) {
            return Some(LimitReason::EarlyResets);
        }
        let most = self.budget.per_second.saturating_mul(RATE_SECONDS).saturating_mul(1000);
        (self.recent > most).then_some(LimitReason::ResetRate)
    }

    /// Whether one request more may be opened beside `open` others: when half of the budget is used up, those that are under way
    /// count as if they were reset, so that no burst goes past the budget before its resets are seen.
    pub(super) fn may_open(&self, open: u64) -> bool {
        self.early.saturating_mul(2) < self.early_max(self.closed)
            || self.early + open < self.early_max(self.closed + open)
    }

    /// How many of `closed` requests may end early; of the first `requests` as many as of them all.
    fn early_max(&self, closed: u64) -> u64 {
        closed.max(self.budget.requests).saturating_mul(self.budget.percent).div_ceil(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: ResetBudget = ResetBudget { requests: 500, percent: 50, per_second: 100 };

    #[test]
    fn half_of_the_first_five_hundred_may_end_early() {
        let now = Instant::now();
        let mut resets = Resets::new(BUDGET);
        for _ in 0..100 {
            resets.ended();
        }
        for number in 1..250 {
            resets.reset(true, now);
            assert_eq!(resets.verdict(), None, "{number}");
        }
        resets.reset(true, now);
        assert_eq!(resets.verdict(), Some(LimitReason::EarlyResets));
    }

    #[test]
    fn later_it_is_a_share_of_all() {
        let mut now = Instant::now();
        let mut resets = Resets::new(BUDGET);
        for _ in 0..1000 {
            resets.ended();
        }
        for number in 1..1000 {
            now += Duration::from_millis(20);
            resets.reset(true, now);
            assert_eq!(resets.verdict(), None, "{number}");
        }
        resets.reset(true, now);
        assert_eq!(resets.verdict(), Some(LimitReason::EarlyResets));
    }

    #[test]
    fn a_rate_is_borne_for_five_seconds() {
        let start = Instant::now();
        // Twice what may be: half of it is forgotten, so it is borne for ten seconds.
        let over = |per_second: u32| {
            let mut resets = Resets::new(BUDGET);
            (0..100_000_u32).find(|number| {
                resets.ended();
                resets.reset(false, start + Duration::from_secs(1) * *number / per_second);
                resets.verdict() == Some(LimitReason::ResetRate)
            })
        };
        assert_eq!(over(100), None);
        assert!(over(200).is_some_and(|number| (990..1010).contains(&number)), "{:?}", over(200));
        assert!(over(20_000).is_some_and(|number| number < 520), "{:?}", over(20_000));
    }

    #[test]
    fn what_is_under_way_counts_when_half_is_used_up() {
        let now = Instant::now();
        let mut resets = Resets::new(BUDGET);
        for _ in 0..124 {
            resets.reset(true, now);
        }
        assert!(resets.may_open(1000));
        for _ in 0..26 {
            resets.reset(true, now);
        }
        assert!(resets.may_open(99) && !resets.may_open(100));
    }
}
