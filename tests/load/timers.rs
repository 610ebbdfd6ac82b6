//! When which connection has to be looked at: one deadline each, in order. Knows no clock.

use std::collections::BTreeSet;
use std::time::Instant;

/// Deadlines of connections, which are numbers.
#[derive(Debug, Default)]
pub struct Timers {
    order: BTreeSet<(Instant, usize)>,
    set: Vec<Option<Instant>>,
}

// === impl Timers ===

impl Timers {
    /// Says when `slot` is due; `None`: never. A deadline that moves away keeps its place: [`Timers::pop`] then gives
    /// the slot too early, and whoever takes it compares and sets it again. Deadlines move away with every packet, and
    /// that way most of it costs a comparison.
    pub fn set(&mut self, slot: usize, due: Option<Instant>) {
        if self.set.len() <= slot {
            self.set.resize(slot + 1, None);
        }
        let Some(known) = self.set.get_mut(slot) else { return };
        if let (Some(known), Some(due)) = (*known, due)
            && known <= due
        {
            return;
        }
        if let Some(old) = std::mem::replace(known, due) {
            self.order.remove(&(old, slot));
        }
        if let Some(due) = due {
            self.order.insert((due, slot));
        }
    }

    /// No slot is due before this.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// A slot that may be due, taken out.
    pub fn pop(&mut self, now: Instant) -> Option<usize> {
        let (_, slot) = *self.order.first().filter(|(due, _)| *due <= now)?;
        self.set(slot, None);
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn slots_come_in_order_and_once() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        for (slot, ms) in [(3, 30), (1, 10), (2, 20), (3, 5)] {
            timers.set(slot, Some(at(ms)));
        }
        timers.set(2, None);
        assert_eq!(timers.next(), Some(at(5)));
        assert_eq!(
            (timers.pop(at(4)), timers.pop(at(30)), timers.pop(at(30))),
            (None, Some(3), Some(1))
        );
        assert_eq!((timers.pop(at(99)), timers.next()), (None, None));
    }

    #[test]
    fn a_deadline_that_moves_away_is_given_early_and_set_again() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut timers = Timers::default();
        timers.set(0, Some(start));
        timers.set(0, Some(later));
        assert_eq!(timers.pop(start), Some(0));
        timers.set(0, Some(later));
        assert_eq!((timers.pop(start), timers.pop(later)), (None, Some(0)));
    }
}
