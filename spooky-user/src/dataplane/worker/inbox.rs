//! What the control plane tells a worker, and what a worker shows of its life. Both bounded, neither locked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use futures_util::task::AtomicWaker;

/// Orders to one worker. Each is a level, not an edge: given twice, it is carried out once.
#[derive(Debug)]
pub struct Inbox {
    drain: AtomicBool,
    stop: AtomicBool,
    reconfigured: AtomicBool,
    waker: AtomicWaker,
}

/// When a worker last turned.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    beat_ms: AtomicU64,
    ended: AtomicBool,
}

// === impl Inbox ===

impl Inbox {
    /// No orders.
    #[must_use]
    pub fn new() -> Self {
        Self {
            drain: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            reconfigured: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Accept nothing new, finish what is in flight, then end.
    pub fn drain(&self) {
        self.drain.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// End now.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// There is a new snapshot: let go of what the old one kept alive.
    pub fn reconfigured(&self) {
        self.reconfigured.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.load(Ordering::Acquire)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn take_reconfigured(&self) -> bool {
        self.reconfigured.swap(false, Ordering::AcqRel)
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Pulse ===

impl Pulse {
    /// Beats from now on.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), beat_ms: AtomicU64::new(0), ended: AtomicBool::new(false) }
    }

    pub(super) fn beat(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.start).as_millis();
        self.beat_ms.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Time since the last turn.
    #[must_use]
    pub fn age(&self, now: Instant) -> std::time::Duration {
        let beat = std::time::Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.start).saturating_sub(beat)
    }

    /// The thread has left its loop.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}
