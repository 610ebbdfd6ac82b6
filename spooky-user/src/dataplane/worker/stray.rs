//! Datagrams that reached the wrong worker, on their way to the right one: one bounded ring for each worker, and the only
//! place where workers touch.
//!
//! They are strays when the kernel cannot steer (mode `off`), when it was given a wrong table, and when GRO put datagrams of
//! several connections into one train, of which sk_reuseport sees only the first.

use super::sync::{ArrayQueue, AtomicBool, AtomicWaker, Ordering};
use crate::dataplane::packet::Path;
use crate::id::{ListenerId, WorkerId};

/// Strays that may wait for one worker: at 1,500 octets each, 3 MiB.
pub(super) const CAPACITY: usize = 2048;

/// A copied datagram.
#[derive(Debug)]
pub struct Stray {
    /// UDP payload.
    pub bytes: Vec<u8>,
    /// As it was received.
    pub path: Path,
    /// The listener it came to.
    pub listener: ListenerId,
}

/// Where a stray could not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its owner does not run: the client is to be told by a stateless reset.
    OwnerGone,
    /// Its owner's ring is full: dropped like any datagram in a full queue.
    RingFull,
}

/// The rings of all workers.
#[derive(Debug)]
pub struct Strays {
    rings: Box<[Ring]>,
}

#[derive(Debug)]
struct Ring {
    queue: ArrayQueue<Stray>,
    waker: AtomicWaker,
    /// Cleared while the worker is considered dead.
    reachable: AtomicBool,
}

// === impl Strays ===

impl Strays {
    /// One ring for each worker.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let ring = || Ring {
            queue: ArrayQueue::new(CAPACITY),
            waker: AtomicWaker::new(),
            reachable: AtomicBool::new(true),
        };
        Self { rings: (0..workers).map(|_| ring()).collect() }
    }

    /// Hands a stray to its owner.
    ///
    /// # Errors
    ///
    /// [`Lost`], when the owner is not there or cannot keep up.
    pub fn push(&self, owner: u8, stray: Stray) -> Result<(), Lost> {
        let ring = self.rings.get(usize::from(owner)).ok_or(Lost::OwnerGone)?;
        if !ring.reachable.load(Ordering::Relaxed) {
            return Err(Lost::OwnerGone);
        }
        ring.queue.push(stray).map_err(|_full| Lost::RingFull)?;
        ring.waker.wake();
        Ok(())
    }

    /// Whether this worker can be handed anything.
    #[must_use]
    pub fn is_reachable(&self, owner: u8) -> bool {
        self.rings
            .get(usize::from(owner))
            .is_some_and(|ring| ring.reachable.load(Ordering::Relaxed))
    }

    /// The next stray for this worker.
    #[must_use]
    pub fn pop(&self, worker: WorkerId) -> Option<Stray> {
        self.rings.get(worker.index())?.queue.pop()
    }

    /// Asks to be woken by the next push.
    pub fn register(&self, worker: WorkerId, waker: &std::task::Waker) {
        if let Some(ring) = self.rings.get(worker.index()) {
            ring.waker.register(waker);
        }
    }

    /// Written by the control plane: a worker is considered dead, or has come back.
    pub fn set_reachable(&self, worker: WorkerId, reachable: bool) {
        if let Some(ring) = self.rings.get(worker.index()) {
            ring.reachable.store(reachable, Ordering::Relaxed);
            if !reachable {
                while ring.queue.pop().is_some() {}
            }
        }
    }
}
