//! Keeps clients that cancel from making spooky a rapid-reset attacker on a connection that others share. Pure: time is told.
//!
//! Each cancelled exchange is a RST_STREAM towards the backend. Backends defend themselves against too many by closing the
//! connection under everybody (CVE-2023-44487 and its cures): h2 and hyper at 20 streams reset before they were accepted,
//! Envoy at 500 streams of which half were reset early. So the place of a cancelled stream is given back a little later, at
//! most [`HELD_MAX`] at once, and a connection that saw mostly cancellations is replaced before the backend does it.

use std::time::Duration;

use tokio::time::Instant;

/// Below the 20 of h2 and hyper, whose count goes down as their application accepts streams.
pub(super) const HELD_MAX: u32 = 16;

/// Time for the backend to accept and forget what was reset: 16 in 10 ms are 1,600 cancellations a second and connection,
/// beyond which further connections are opened and then requests wait.
pub(super) const HELD_FOR: Duration = Duration::from_millis(10);

/// Half of Envoy's 500, less than twice the streams that may be open when it is reached (100) beneath it.
pub(super) const CANCELLED_MAX: u64 = 250;

/// What was cancelled on one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resets {
    opened: u64,
    cancelled: u64,
    held: u32,
    held_until: Option<Instant>,
}

// === impl Resets ===

impl Resets {
    /// A stream was opened.
    pub(super) fn opened(&mut self) {
        self.opened += 1;
    }

    /// A stream was given up before both sides had ended. Its place stays taken until [`Resets::release`].
    pub(super) fn cancelled(&mut self, now: Instant) {
        self.cancelled += 1;
        self.held += 1;
        self.held_until.get_or_insert(now + HELD_FOR);
    }

    /// Places not yet given back.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// When they are.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Gives the places back if it is time. Returns whether any were.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        let due = self.held_until.is_some_and(|until| until <= now);
        if due {
            self.held = 0;
            self.held_until = None;
        }
        due
    }

    /// May a stream be opened now?
    pub(super) fn allow(&self) -> bool {
        self.held < HELD_MAX
    }

    /// Should the connection be replaced?
    pub(super) fn spent(&self) -> bool {
        self.cancelled >= CANCELLED_MAX && self.cancelled * 2 >= self.opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelled_places_come_back_together_and_bound_the_rate() {
        let start = Instant::now();
        let mut resets = Resets::default();
        for count in 0..HELD_MAX {
            assert!(resets.allow(), "after {count}");
            resets.opened();
            resets.cancelled(start);
        }
        assert!(!resets.allow());
        assert_eq!(resets.held(), HELD_MAX);
        assert!(!resets.release(start + HELD_FOR / 2));
        assert!(resets.release(start + HELD_FOR));
        assert!(resets.allow());
        assert_eq!((resets.held(), resets.held_until()), (0, None));
        assert!(!resets.release(start + HELD_FOR * 2), "there is nothing left to give back");
    }

    #[test]
    fn a_connection_is_spent_when_half_of_many_were_cancelled() {
        let start = Instant::now();
        let mut resets = Resets::default();
        for _ in 0..CANCELLED_MAX * 2 + 1 {
            resets.opened();
        }
        for _ in 0..CANCELLED_MAX {
            assert!(!resets.spent());
            resets.cancelled(start);
        }
        assert!(!resets.spent(), "less than half");
        resets.cancelled(start);
        assert!(resets.spent());
    }
}
