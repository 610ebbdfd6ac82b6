//! The deadlines of one worker's connections: a heap with lazy entries and one sleep.
//!
//! A connection is in the heap once, at or before the time it wants. When its entry comes up too early, because an
//! acknowledgement moved its timer in the meantime, it is put back: cheaper than moving an entry at every packet.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::id::ConnectionKey;

/// The heap.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, ConnectionKey)>>,
}

impl Timers {
    /// Makes sure that the connection comes up at `deadline` or before. `armed` is its note of its entry.
    pub(super) fn arm(
        &mut self,
        key: ConnectionKey,
        armed: &mut Option<Instant>,
        deadline: Option<Instant>,
    ) {
        let Some(deadline) = deadline else { return };
        if armed.is_none_or(|at| deadline < at) {
            *armed = Some(deadline);
            self.heap.push(Reverse((deadline, key)));
        }
    }

    /// The next connection whose entry is due, with the time of the entry.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, ConnectionKey)> {
        let Reverse((due, _)) = self.heap.peek()?;
        if *due > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// When the next entry is due.
    #[must_use]
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_entry_is_added_only_when_it_comes_sooner() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let key = ConnectionKey { index: 1, serial: 0 };
        let mut timers = Timers::default();
        let mut armed = None;
        timers.arm(key, &mut armed, Some(at(50)));
        timers.arm(key, &mut armed, Some(at(80)));
        timers.arm(key, &mut armed, None);
        assert_eq!(timers.next(), Some(at(50)));
        timers.arm(key, &mut armed, Some(at(20)));
        assert_eq!(timers.next(), Some(at(20)));
        assert_eq!(timers.pop_due(at(10)), None);
        assert_eq!(timers.pop_due(at(60)), Some((at(20), key)));
        assert_eq!(timers.pop_due(at(60)), Some((at(50), key)));
        assert_eq!(timers.pop_due(at(60)), None);
    }
}
