//! How soon a worker may try to connect to an endpoint again. Pure: time is told. Imports only exchange.

use std::time::Duration;

use tokio::time::Instant;

use crate::dataplane::exchange::error::Kind;

/// After the first failure; doubles with each further one.
pub(super) const DELAY_MIN: Duration = Duration::from_millis(50);

/// So that an endpoint that came back waits at most this long for its first request, and one that is gone gets at most one
/// connection attempt a second from each worker.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(1);

/// Failures in a row, and what to answer meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    last: Option<(Instant, Kind)>,
}

// === impl Backoff ===

impl Backoff {
    /// A connection could not be opened. Returns how often that happened in a row.
    pub(super) fn failed(&mut self, now: Instant, kind: Kind) -> u32 {
        let delay = DELAY_MIN.saturating_mul(1 << self.failures.min(16)).min(DELAY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.last = Some((now + delay, kind));
        self.failures
    }

    /// A connection was opened. Returns how many failures came before it.
    pub(super) fn succeeded(&mut self) -> u32 {
        self.last = None;
        std::mem::take(&mut self.failures)
    }

    /// Until when no attempt may be made, and how the last one failed.
    pub(super) fn blocked(&self, now: Instant) -> Option<(Instant, Kind)> {
        self.last.filter(|(until, _)| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_a_second_and_forgets_on_success() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.blocked(start).is_none());
        let mut delays = Vec::new();
        for count in 1..=40 {
            assert_eq!(backoff.failed(start, Kind::ConnectFailed), count);
            let (until, kind) = backoff.blocked(start).expect("it has just failed");
            assert_eq!(kind, Kind::ConnectFailed);
            delays.push((until - start).as_millis());
        }
        assert_eq!(delays[..6], [50, 100, 200, 400, 800, 1000]);
        assert!(delays[6..].iter().all(|delay| *delay == 1000));
        assert!(backoff.blocked(start + DELAY_MAX).is_none());
        assert_eq!(backoff.succeeded(), 40);
        assert!(backoff.blocked(start).is_none());
        assert_eq!(backoff.failed(start, Kind::TlsFailed), 1);
        assert_eq!(backoff.blocked(start), Some((start + DELAY_MIN, Kind::TlsFailed)));
    }
}
