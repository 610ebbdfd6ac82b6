//! Whose requests connections to backends end under. Pure: time is told; lives on the worker's thread. Imports nothing of the
//! crate.
//!
//! A client can send what spooky accepts and a backend answers by closing the connection, which other clients share. Nobody
//! says which of the requests it was. So all clients on the connection share the blame, and each request that can be sent again is
//! sent alone, on a connection of its own: when that ends too, there is no doubt, and when it is answered, its client's share
//! is taken back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Points for one connection that ended under the requests of one client alone.
const WHOLE: u32 = 60;
/// A point is forgotten in this time: a whole connection in a minute.
const FORGOTTEN_IN: Duration = Duration::from_secs(1);

/// What one client connection is blamed for.
#[derive(Debug, Default)]
pub struct Blame {
    points: Cell<u32>,
    since: Cell<Option<Instant>>,
}

/// One connection to a backend that ended, and whose requests were on it.
#[derive(Debug, Default)]
pub struct Death {
    clients: RefCell<Vec<Involved>>,
}

#[derive(Debug)]
struct Involved {
    blame: Rc<Blame>,
    /// Points it got; 0 until all requests of the connection have been seen.
    share: u32,
    /// Requests that are sent again and not yet answered.
    open: u32,
    /// One of its requests cannot be sent again, or ended another connection.
    suspect: bool,
}

// === impl Blame ===

impl Blame {
    /// Whether this client is to blame for as much as `most` whole connections.
    #[must_use]
    pub fn is_over(&self, most: u32, now: Instant) -> bool {
        self.points(now) >= most.saturating_mul(WHOLE)
    }

    /// What has not been forgotten.
    fn points(&self, now: Instant) -> u32 {
        let Some(since) = self.since.get() else { return 0 };
        let past = now.saturating_duration_since(since).as_secs() / FORGOTTEN_IN.as_secs();
        self.points.get().saturating_sub(u32::try_from(past).unwrap_or(u32::MAX))
    }

    fn add(&self, points: u32, now: Instant) {
        self.points.set(self.points(now).saturating_add(points));
        self.since.set(Some(now));
    }

    fn take_back(&self, points: u32) {
        self.points.set(self.points.get().saturating_sub(points));
    }
}

// === impl Death ===

impl Death {
    /// A request of this client was on the connection; `again` when it can be sent again, alone.
    pub fn involve(&self, blame: &Rc<Blame>, again: bool) {
        let mut clients = self.clients.borrow_mut();
        let known = clients.iter_mut().find(|client| Rc::ptr_eq(&client.blame, blame));
        match known {
            Some(client) => {
                client.open += u32::from(again);
                client.suspect |= !again;
            }
            None => clients.push(Involved {
                blame: Rc::clone(blame),
                share: 0,
                open: u32::from(again),
                suspect: !again,
            }),
        }
    }

    /// All requests that were on the connection have been seen.
    pub fn settle(&self, now: Instant) {
        let mut clients = self.clients.borrow_mut();
        let count = u32::try_from(clients.len()).unwrap_or(u32::MAX).max(1);
        for client in clients.iter_mut().filter(|client| client.share == 0) {
            client.share = (WHOLE / count).max(1);
            client.blame.add(client.share, now);
        }
    }

    /// A request that was sent again alone was answered. When that holds for all of its client's, it was not that client.
    pub fn acquit(&self, blame: &Rc<Blame>) {
        let mut clients = self.clients.borrow_mut();
        let found = clients.iter_mut().find(|client| Rc::ptr_eq(&client.blame, blame));
        let Some(client) = found else { return };
        client.open = client.open.saturating_sub(1);
        if client.open == 0 && !client.suspect {
            client.blame.take_back(client.share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_connections_that_ended_under_one_client_are_too_many() {
        let (now, blame) = (Instant::now(), Rc::new(Blame::default()));
        for ended in 0..3 {
            assert!(!blame.is_over(3, now), "after {ended}");
            let death = Death::default();
            death.involve(&blame, true);
            death.involve(&blame, false);
            death.settle(now);
        }
        assert!(blame.is_over(3, now));
        assert!(!blame.is_over(3, now + FORGOTTEN_IN), "it is forgotten little by little");
        assert!(!blame.is_over(1, now + FORGOTTEN_IN * 3 * WHOLE));
    }

    #[test]
    fn blame_is_shared_and_taken_back_from_whom_it_was_not() {
        let now = Instant::now();
        let clients: Vec<Rc<Blame>> = (0..4).map(|_| Rc::default()).collect();
        for _round in 0..100 {
            let death = Death::default();
            // Two requests of each; the second of the last client cannot be sent again.
            for (number, blame) in clients.iter().enumerate() {
                death.involve(blame, true);
                death.involve(blame, number < 3);
            }
            death.settle(now);
            death.settle(now);
            for blame in &clients {
                death.acquit(blame);
                death.acquit(blame);
            }
        }
        assert_eq!(clients.iter().map(|it| it.points(now)).collect::<Vec<_>>(), [0, 0, 0, 1500]);
    }

    #[test]
    fn a_request_that_is_not_answered_keeps_the_blame() {
        let (now, guilty, other) = (Instant::now(), Rc::default(), Rc::default());
        let death = Death::default();
        death.involve(&guilty, true);
        death.involve(&guilty, true);
        death.involve(&other, true);
        death.settle(now);
        // One of the guilty client's two ends another connection instead.
        death.acquit(&guilty);
        death.acquit(&other);
        let alone = Death::default();
        alone.involve(&guilty, false);
        alone.settle(now);
        assert_eq!((guilty.points(now), other.points(now)), (WHOLE / 2 + WHOLE, 0));
    }
}
