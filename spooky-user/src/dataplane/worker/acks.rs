//! Acknowledgements that wait for the answer they can travel with (RFC 9000 §13.2.1 leaves a server 25 ms, the default of
//! `max_ack_delay`). quiche would acknowledge a request at once, in a datagram of its own, and send the answer in the next.
//! Imports `id` only.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::id::ConnectionKey;

/// Most backends that are near answer sooner; a client whose backend does not is told after this.
const DELAY: Duration = Duration::from_millis(5);

/// Connections that have acknowledged nothing yet, in the order in which they must.
#[derive(Debug, Default)]
pub(super) struct Acks {
    queue: VecDeque<(Instant, ConnectionKey)>,
}

impl Acks {
    /// The connection waits from now on; until when.
    pub(super) fn wait(&mut self, key: ConnectionKey, now: Instant) -> Instant {
        let due = now + DELAY;
        self.queue.push_back((due, key));
        due
    }

    /// The next connection whose time has come, whether or not it still waits.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, ConnectionKey)> {
        self.queue.pop_front_if(|(due, _)| *due <= now)
    }

    /// When the next one is due that `waits`; the others before it are forgotten.
    pub(super) fn next(
        &mut self,
        mut waits: impl FnMut(ConnectionKey, Instant) -> bool,
    ) -> Option<Instant> {
        loop {
            let (due, key) = *self.queue.front()?;
            if waits(key, due) {
                return Some(due);
            }
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_been_answered_wakes_nobody() {
        let start = Instant::now();
        let key = |index| ConnectionKey { index, serial: 0 };
        let mut acks = Acks::default();
        let first = acks.wait(key(1), start);
        let second = acks.wait(key(2), start + Duration::from_millis(1));
        assert_eq!(acks.next(|_, _| true), Some(first));
        assert_eq!(acks.next(|waiting, _| waiting == key(2)), Some(second));
        assert_eq!(acks.pop_due(start + DELAY), None, "the first was forgotten");
        assert_eq!(acks.pop_due(second), Some((second, key(2))));
        assert_eq!(acks.next(|_, _| true), None);
    }
}
