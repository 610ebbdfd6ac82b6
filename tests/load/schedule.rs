//! When which request is to begin. Closed loop: as soon as there is room for it. Open loop: at its own time, however the
//! others fare, and its latency counts from then, so that a server that stands still is seen by all requests that it
//! would have had. Knows no connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::histogram::Histogram;

/// The requests of one phase.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    /// Requests a second; `None` is the closed loop.
    rate: Option<u64>,
    total: u64,
    given: u64,
    /// Requests that were given and have to be given once more.
    again: VecDeque<Instant>,
    last: Option<Instant>,
    /// Open loop: how long after its time a request was given.
    pub(crate) lag: Histogram,
}

// === impl Schedule ===

impl Schedule {
    /// `total` requests, the first at `start`.
    pub(crate) fn new(start: Instant, total: u64, rate: Option<u64>) -> Self {
        let (again, lag) = (VecDeque::new(), Histogram::default());
        Self { start, rate, total, given: 0, again, last: None, lag }
    }

    /// A request that may begin now, by the time its latency counts from.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        if let Some(intended) = self.again.pop_front() {
            return Some(if self.rate.is_some() { intended } else { now });
        }
        let intended = self.next()?;
        if intended > now {
            return None;
        }
        self.given += 1;
        self.last = Some(now);
        if self.rate.is_some() {
            self.lag.add(now - intended);
            Some(intended)
        } else {
            Some(now)
        }
    }

    /// A request that could not begin, or that the server has not processed.
    pub(crate) fn give_back(&mut self, intended: Instant) {
        self.again.push_back(intended);
    }

    /// Whether requests wait to be given once more.
    pub(crate) fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// When the next new request is due; `None` when there is none left.
    pub(crate) fn next(&self) -> Option<Instant> {
        (self.given < self.total).then(|| match self.rate {
            // In whole nanoseconds from the start, so that no error adds up.
            Some(rate) => {
                let nanos = u128::from(self.given) * 1_000_000_000 / u128::from(rate);
                self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
            None => self.start,
        })
    }

    /// Requests begun a second until the last one began; `None` in the closed loop. Below the rate that was asked for
    /// when there was no room for them in time.
    pub(crate) fn achieved_rate(&self) -> Option<f64> {
        let (rate, last) = (self.rate?, self.last?);
        // The first request takes its interval too.
        let seconds = (last - self.start).as_secs_f64() + 1.0 / rate as f64;
        Some(self.given as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_closed_loop_gives_all_at_once() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 2, None);
        let now = start + MS;
        let taken = [schedule.take(now), schedule.take(now), schedule.take(now)];
        assert_eq!(taken, [Some(now), Some(now), None]);
        schedule.give_back(start);
        assert_eq!((schedule.take(now), schedule.take(now)), (Some(now), None));
        assert_eq!((schedule.achieved_rate(), schedule.lag.total()), (None, 0));
    }

    #[test]
    fn the_open_loop_gives_each_at_its_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 3, Some(1000));
        assert_eq!((schedule.take(start), schedule.take(start)), (Some(start), None));
        assert_eq!(schedule.next(), Some(start + MS));
        assert_eq!(schedule.take(start + MS), Some(start + MS));
        assert_eq!(schedule.take(start + 2 * MS), Some(start + 2 * MS));
        assert_eq!((schedule.take(start + 9 * MS), schedule.next()), (None, None));
        assert_eq!(schedule.achieved_rate(), Some(1000.0));
    }

    #[test]
    fn what_is_late_keeps_its_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 1000, Some(1000));
        let late = start + 1999 * MS;
        for number in 0..1000 {
            assert_eq!(schedule.take(late), Some(start + number * MS));
        }
        assert_eq!((schedule.take(late), schedule.achieved_rate()), (None, Some(500.0)));
        assert_eq!(schedule.lag.max(), Some(1999 * MS));
        schedule.give_back(start + MS);
        assert_eq!(schedule.take(late), Some(start + MS));
    }

    #[test]
    fn no_error_adds_up() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 3_000_001, Some(3));
        schedule.given = 3_000_000;
        assert_eq!(schedule.next(), Some(start + Duration::from_secs(1_000_000)));
    }
}
