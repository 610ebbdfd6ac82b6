//! How a serving task tells the worker which streams of which connection want attention, without a lock or a thread.
//!
//! One [`Ready`] for each worker, one [`Mailbox`] for each connection; both live on the worker's thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use crate::id::ConnectionKey;

/// The connections of one worker that want a turn.
#[derive(Debug, Default)]
pub struct Ready {
    connections: RefCell<Vec<ConnectionKey>>,
    waker: RefCell<Option<Waker>>,
    /// Octets of bodies held by all links of the worker.
    buffered: Cell<usize>,
}

/// The streams of one connection that want a turn.
#[derive(Debug)]
pub struct Mailbox {
    key: ConnectionKey,
    queued: Cell<bool>,
    streams: RefCell<Vec<u64>>,
    ready: Rc<Ready>,
}

// === impl Ready ===

impl Ready {
    /// Remembers whom to wake.
    pub fn register(&self, cx: &Context<'_>) {
        let mut slot = self.waker.borrow_mut();
        match slot.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
    }

    /// Moves the waiting connections into `out`.
    pub fn take(&self, out: &mut Vec<ConnectionKey>) {
        out.append(&mut self.connections.borrow_mut());
    }

    /// Octets of bodies held between clients and backends.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffered.get()
    }

    /// Nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    fn push(&self, key: ConnectionKey) {
        let mut connections = self.connections.borrow_mut();
        let first = connections.is_empty();
        connections.push(key);
        if first && let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

// === impl Mailbox ===

impl Mailbox {
    /// For one connection.
    #[must_use]
    pub fn new(key: ConnectionKey, ready: Rc<Ready>) -> Rc<Self> {
        Rc::new(Self { key, queued: Cell::new(false), streams: RefCell::new(Vec::new()), ready })
    }

    /// A link of this connection holds this many octets more.
    pub(super) fn hold(&self, octets: usize) {
        let buffered = &self.ready.buffered;
        buffered.set(buffered.get() + octets);
    }

    /// A link of this connection has let go of this many octets.
    pub(super) fn release(&self, octets: usize) {
        let buffered = &self.ready.buffered;
        buffered.set(buffered.get().saturating_sub(octets));
    }

    /// A stream has something to send or room for more. The caller makes sure that a stream is posted once.
    pub fn post(&self, stream: u64) {
        self.streams.borrow_mut().push(stream);
        if !self.queued.replace(true) {
            self.ready.push(self.key);
        }
    }

    /// Moves the posted streams into `out` and lets the connection be queued again.
    pub fn take(&self, out: &mut Vec<u64>) {
        self.queued.set(false);
        out.append(&mut self.streams.borrow_mut());
    }
}
