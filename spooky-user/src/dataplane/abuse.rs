//! What workers tell the control plane about clients that do harm: one bounded ring for each worker, written by it alone and read
//! at each beat. Nothing is judged here. Imports nothing of the crate.
//!
//! Only addresses that have shown that they can receive are reported (RFC 9000 §8): anybody can write any other into a packet,
//! and would have its owner blocked.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

/// Reports of one worker that may wait: 40,000 a second at ten beats. What is too many is counted; a flood of that size shows
/// without its rest.
const CAPACITY: usize = 4096;

/// What a client did. Each has a weight in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A handshake failed, whoever ended it.
    Handshake,
    /// A request got a status of 400 to 499, other than 429.
    ClientError,
    /// A request was reset or its response stopped early.
    Reset,
    /// A malformed request, or one that was never whole.
    Glitch,
    /// The connection was closed for what the client did: a rule of QUIC or HTTP/3 broken, or a limit on resets, on what cannot
    /// be read, on lost connections to backends reached.
    Violation,
    /// A request was one too many for its route.
    RateLimit,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The client's validated address, IPv4 in its own form.
    pub client: IpAddr,
    /// What it did.
    pub event: Event,
}

/// One worker's ring. Never blocks: a report that does not fit is counted and gone.
#[derive(Debug)]
pub struct Reports {
    ring: ArrayQueue<Report>,
    /// Somebody listens.
    wanted: AtomicBool,
    lost: AtomicU64,
}

// === impl Event ===

impl Event {
    /// All of them, by [`Event::index`].
    pub const ALL: [Self; 6] = [
        Self::Handshake,
        Self::ClientError,
        Self::Reset,
        Self::Glitch,
        Self::Violation,
        Self::RateLimit,
    ];

    /// Its place in [`Event::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::ClientError => "client_error",
            Self::Reset => "reset",
            Self::Glitch => "glitch",
            Self::Violation => "violation",
            Self::RateLimit => "rate_limit",
        }
    }
}

// === impl Reports ===

impl Reports {
    /// Empty; nobody listens yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ring: ArrayQueue::new(CAPACITY),
            wanted: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }

    /// Called by the worker: the client at this validated address did that.
    pub fn report(&self, client: IpAddr, event: Event) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let client = client.to_canonical();
        if self.ring.push(Report { client, event }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Called by the control plane: whether anything is to be reported.
    pub fn listen(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// The oldest report. Called by the control plane.
    #[must_use]
    pub fn next(&self) -> Option<Report> {
        self.ring.pop()
    }

    /// The most that can wait: who takes so many has taken what there was.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Reports that did not fit so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Default for Reports {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> IpAddr {
        IpAddr::from([192, 0, 2, 1])
    }

    #[test]
    fn nobody_listens_nothing_is_kept() {
        let reports = Reports::new();
        reports.report(client(), Event::Reset);
        assert_eq!((reports.next(), reports.lost()), (None, 0));
        reports.listen(true);
        reports.report("::ffff:192.0.2.1".parse().unwrap(), Event::Reset);
        assert_eq!(reports.next(), Some(Report { client: client(), event: Event::Reset }));
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let reports = Reports::new();
        reports.listen(true);
        for _ in 0..CAPACITY + 7 {
            reports.report(client(), Event::Glitch);
        }
        assert_eq!(reports.lost(), 7);
        assert_eq!(std::iter::from_fn(|| reports.next()).count(), reports.capacity());
    }

    #[test]
    fn events_are_in_their_places() {
        for (place, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(event.index(), place);
        }
    }
}
