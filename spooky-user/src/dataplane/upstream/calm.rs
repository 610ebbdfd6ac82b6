//! What a backend gets that has asked for less (ENHANCE_YOUR_CALM, RFC 9113 §7): half of the streams it had, and twice as many
//! each second from then on. Pure: time is told.

use std::time::Duration;

use tokio::time::Instant;

const STEP: Duration = Duration::from_secs(1);

/// A backend that has asked for less.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calm {
    streams: u32,
    since: Instant,
}

// === impl Calm ===

impl Calm {
    /// A stream was refused so, one of `active`. Those of the same burst count once.
    pub(super) fn asked(before: Option<Self>, active: u32, now: Instant) -> Self {
        match before {
            Some(calm) if now.saturating_duration_since(calm.since) < STEP => calm,
            _ => Self { streams: (active / 2).max(1), since: now },
        }
    }

    /// How many streams it gets now.
    pub(super) fn allowed(&self, now: Instant) -> u32 {
        let steps = now.saturating_duration_since(self.since).as_secs() / STEP.as_secs();
        u32::try_from(steps)
            .ok()
            .and_then(|steps| 2_u32.checked_pow(steps))
            .map_or(u32::MAX, |factor| self.streams.saturating_mul(factor))
    }

    /// When it gets more than now.
    pub(super) fn more_at(&self, now: Instant) -> Instant {
        let steps = now.saturating_duration_since(self.since).as_secs() / STEP.as_secs();
        self.since + STEP * u32::try_from(steps + 1).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_at_first_and_twice_as_many_each_second() {
        let now = Instant::now();
        let calm = Calm::asked(None, 41, now);
        // The others of the burst.
        let calm = Calm::asked(Some(calm), 20, now + STEP / 2);
        let allowed = [0, 1, 2, 3].map(|second| calm.allowed(now + STEP * second));
        assert_eq!(allowed, [20, 40, 80, 160]);
        assert_eq!(calm.allowed(now + STEP * 40), u32::MAX);
        assert_eq!(calm.more_at(now + STEP / 2), now + STEP);
        assert_eq!(Calm::asked(Some(calm), 30, now + STEP).allowed(now + STEP), 15);
        assert_eq!(Calm::asked(None, 1, now).allowed(now), 1, "never none");
    }
}
