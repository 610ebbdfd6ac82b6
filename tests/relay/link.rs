//! When a datagram arrives: delay, rate with a queue, darkness. Takes the time as an argument; imports no socket.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::{Impairment, Tally};

/// IPv4 and UDP headers, which take their share of a rate.
const HEADERS: u64 = 28;

/// One direction of one flow.
#[derive(Debug)]
pub(super) struct Link {
    impairment: Impairment,
    /// When the last datagram will have left.
    free_at: Option<Instant>,
    /// When each of those that wait will have left.
    waiting: VecDeque<Instant>,
    /// When the path began, for light and dark.
    began: Instant,
}

impl Link {
    pub(super) fn new(impairment: Impairment, began: Instant) -> Self {
        Self { impairment, free_at: None, waiting: VecDeque::new(), began }
    }

    /// When a datagram of this length arrives that is sent now; `None`: never. `jitter` is a share of the jitter, of 1.
    pub(super) fn arrival(
        &mut self,
        length: usize,
        jitter: f64,
        now: Instant,
        tally: &Tally,
    ) -> Option<Instant> {
        let elapsed = now.saturating_duration_since(self.began);
        if self.impairment.darkness.is_some_and(|darkness| darkness.at(elapsed)) {
            tally.darkened.fetch_add(1, Relaxed);
            return None;
        }
        let left = self.leave(length, now).or_else(|| {
            tally.overflowed.fetch_add(1, Relaxed);
            None
        })?;
        Some(left + self.impairment.delay + self.impairment.jitter.mul_f64(jitter))
    }

    /// When it has left a link of this rate; `None` when the queue is full.
    fn leave(&mut self, length: usize, now: Instant) -> Option<Instant> {
        let Impairment { rate, queue, .. } = self.impairment;
        if rate == 0 {
            return Some(now);
        }
        while self.waiting.front().is_some_and(|left| *left <= now) {
            self.waiting.pop_front();
        }
        if queue > 0 && self.waiting.len() >= queue {
            return None;
        }
        let bits = (length as u64 + HEADERS) * 8;
        let takes = std::time::Duration::from_nanos(bits.saturating_mul(1_000_000_000) / rate);
        let left = self.free_at.map_or(now, |free_at| free_at.max(now)) + takes;
        self.free_at = Some(left);
        self.waiting.push_back(left);
        Some(left)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_spaces_datagrams_and_a_queue_bounds_them() {
        let impairment = Impairment {
            rate: 1_000_000,
            queue: 5,
            delay: Duration::from_millis(10),
            ..Impairment::default()
        };
        let (now, tally) = (Instant::now(), Tally::default());
        let mut link = Link::new(impairment, now);
        // 1,222 octets and 28 of headers are 10 ms at 1 Mbit/s.
        let mut arrivals = |at| -> Vec<Option<u128>> {
            let arrival = |_| link.arrival(1222, 0.0, at, &tally);
            let since = |arrival: Instant| arrival.duration_since(now).as_millis();
            (0..7).map(arrival).map(|arrival| arrival.map(since)).collect()
        };
        let first = [20, 30, 40, 50, 60].map(Some);
        assert_eq!(arrivals(now), [&first[..], &[None, None]].concat());
        let later = arrivals(now + Duration::from_millis(20));
        assert_eq!(later, [Some(70), Some(80), None, None, None, None, None]);
        assert_eq!(tally.overflowed.into_inner(), 7);
    }

    #[test]
    fn without_a_rate_only_time_passes() {
        let impairment = Impairment {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(8),
            ..Impairment::default()
        };
        let (now, tally) = (Instant::now(), Tally::default());
        let mut link = Link::new(impairment, now);
        let arrival = link.arrival(1000, 0.5, now, &tally);
        assert_eq!(arrival, Some(now + Duration::from_millis(14)));
    }
}
