//! When an endpoint is taken out and taken back. Pure; imports nothing of the crate.

/// Counts results in a row against the thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    healthy: bool,
    /// Results in a row that speak against `healthy`.
    against: u32,
    unhealthy_after: u32,
    healthy_after: u32,
}

/// A change of mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// Enough probes in a row have failed.
    Out,
    /// Enough probes in a row have succeeded.
    Back,
}

// === impl Verdict ===

impl Verdict {
    /// Starts from what is believed so far. A threshold of 0 is taken as 1.
    pub(super) fn new(healthy: bool, unhealthy_after: u32, healthy_after: u32) -> Self {
        Self {
            healthy,
            against: 0,
            unhealthy_after: unhealthy_after.max(1),
            healthy_after: healthy_after.max(1),
        }
    }

    /// Takes one result into account.
    pub(super) fn record(&mut self, success: bool) -> Option<Transition> {
        if success == self.healthy {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let (threshold, transition) = if self.healthy {
            (self.unhealthy_after, Transition::Out)
        } else {
            (self.healthy_after, Transition::Back)
        };
        if self.against < threshold {
            return None;
        }
        self.healthy = success;
        self.against = 0;
        Some(transition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results as `+` and `-`; what comes out of each as `.`, `o` (out) and `b` (back).
    fn run(mut verdict: Verdict, results: &str) -> String {
        let told = |result| match verdict.record(result == '+') {
            None => '.',
            Some(Transition::Out) => 'o',
            Some(Transition::Back) => 'b',
        };
        results.chars().map(told).collect()
    }

    #[test]
    fn only_results_in_a_row_count() {
        let healthy = Verdict::new(true, 3, 2);
        assert_eq!(run(healthy, "--+--+---"), "........o");
        assert_eq!(run(healthy, "---+-+-++"), "..o.....b");
        assert_eq!(run(healthy, "++++++"), "......");
    }

    #[test]
    fn each_change_is_told_once() {
        assert_eq!(run(Verdict::new(true, 3, 2), "------++++---"), "..o....b....o");
        assert_eq!(run(Verdict::new(false, 3, 2), "----++"), ".....b");
    }

    #[test]
    fn thresholds_of_one_and_zero_react_at_once() {
        for threshold in [0, 1] {
            assert_eq!(run(Verdict::new(true, threshold, threshold), "-+-+"), "obob");
        }
    }
}
