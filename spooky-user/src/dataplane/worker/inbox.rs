//! What the control plane tells a worker, and what a worker shows of its life. Both bounded, neither locked. May import: id.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::sync::{ArrayQueue, AtomicBool, AtomicU16, AtomicU64, AtomicWaker, Ordering};
use super::{ListenerSetup, Terms};
use crate::dataplane::packet::xdp::{Home, Opened};
use crate::id::ListenerId;

/// Orders that may wait: four reloads that replace all 16 listeners, less a few.
const ORDERS: usize = 128;

/// A change of a worker's listeners or of its AF_XDP sockets, or a question.
#[derive(Debug)]
pub enum Order {
    /// Serve this one, too.
    Open(Box<ListenerSetup>),
    /// New connections get these terms.
    Change(Box<Terms>),
    /// Accept nothing new, tell its clients, and close the socket when the last connection has ended.
    Close {
        /// Which one.
        listener: ListenerId,
        /// When what is left is cut off.
        deadline: Instant,
    },
    /// Receive from this AF_XDP socket, too, and give it back at the end.
    AddQueue(Box<Opened>, std::sync::Arc<Home>),
    /// Close all AF_XDP sockets.
    CloseQueues,
    /// Say how many connections have their client in this network.
    Count {
        /// The network.
        network: IpNet,
        /// Who asks.
        reply: oneshot::Sender<usize>,
    },
}

/// Orders to one worker. Those about the whole worker are levels, not edges: given twice, they are carried out once.
#[derive(Debug)]
pub struct Inbox {
    orders: ArrayQueue<Order>,
    drain: AtomicBool,
    stop: AtomicBool,
    reconfigured: AtomicBool,
    waker: AtomicWaker,
}

/// A shorter wait for a turn is none.
const PUNCTUAL_US: u64 = 1_000;

/// When a worker last turned, and how late.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    beat_ms: AtomicU64,
    /// In a turn: when it was due. Between turns: when the next one is, at the latest.
    due_us: AtomicU64,
    /// The longest time from when a turn was due to its end, since it was last asked for.
    worst_us: AtomicU64,
    ended: AtomicBool,
    /// Bit n: the socket of listener n is open.
    open: AtomicU16,
}

// === impl Inbox ===

impl Inbox {
    /// No orders.
    #[must_use]
    pub fn new() -> Self {
        Self {
            orders: ArrayQueue::new(ORDERS),
            drain: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            reconfigured: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// How many more orders fit. Only one thread gives orders, so that there is never less room than this says.
    #[must_use]
    pub fn room(&self) -> usize {
        ORDERS.saturating_sub(self.orders.len())
    }

    /// Hands orders over, to be carried out one after the other. What does not fit is lost: ask [`Self::room`] before.
    pub fn give(&self, orders: Vec<Order>) {
        for order in orders {
            if self.orders.push(order).is_err() {
                tracing::error!("a worker's inbox is full; it lacks a change of its listeners");
            }
        }
        self.waker.wake();
    }

    /// The next order.
    pub(super) fn next(&self) -> Option<Order> {
        self.orders.pop()
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
        Self {
            start: Instant::now(),
            beat_ms: AtomicU64::new(0),
            // Before its first turn nobody is late.
            due_us: AtomicU64::new(u64::MAX),
            worst_us: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            open: AtomicU16::new(0),
        }
    }

    /// A turn begins. One that was woken before it was due is due now.
    pub(super) fn beat(&self, now: Instant) {
        let now = self.micros(now);
        self.beat_ms.store(now / 1_000, Ordering::Relaxed);
        // Only this thread writes it.
        self.due_us.store(self.due_us.load(Ordering::Relaxed).min(now), Ordering::Relaxed);
    }

    /// A turn ends; the next one is due at `next`, or when something comes.
    pub(super) fn rest(&self, now: Instant, next: Instant) {
        let lag = self.micros(now).saturating_sub(self.due_us.load(Ordering::Relaxed));
        if lag >= PUNCTUAL_US {
            self.worst_us.fetch_max(lag, Ordering::Relaxed);
        }
        self.due_us.store(self.micros(next.max(now)), Ordering::Relaxed);
    }

    /// The longest that anything has waited for its turn since this was last asked, or waits now. Asked by one thread.
    #[must_use]
    pub fn lag(&self, now: Instant) -> Duration {
        let waits = self.micros(now).saturating_sub(self.due_us.load(Ordering::Relaxed));
        Duration::from_micros(waits.max(self.worst_us.swap(0, Ordering::Relaxed)))
    }

    fn micros(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start).as_micros();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }

    pub(super) fn set_open(&self, listener: ListenerId, open: bool) {
        let bit = bit(listener);
        if open {
            self.open.fetch_or(bit, Ordering::AcqRel);
        } else {
            self.open.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Whether the worker has a socket of this listener, as far as it has come with its orders.
    #[must_use]
    pub fn has_open(&self, listener: ListenerId) -> bool {
        self.open.load(Ordering::Acquire) & bit(listener) != 0
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Time since the last turn.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        let beat = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
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

/// The bit of a listener; none for a number that no listener has.
fn bit(listener: ListenerId) -> u16 {
    1u16.checked_shl(u32::from(listener.0)).unwrap_or(0)
}
