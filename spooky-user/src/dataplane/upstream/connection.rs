//! One pooled connection as those who lease streams on it see it. Its socket belongs to [`super::driver`].
//!
//! ```text
//!            GOAWAY, idle, spent, pool drained          last lease returned
//!   Open ------------------------------------> Draining --------------------> (closed, driver ends)
//!     \                                            \
//!      `---------------- socket lost ---------------`-----------------------> (driver ends)
//! ```

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use tokio::time::Instant;

use super::pool::Pool;
use super::resets::Resets;
use crate::dataplane::exchange::blame::{Blame, Death};
use crate::dataplane::exchange::error::{Kind, ProxyError};

/// What a pool, its leases and the driver know of one connection.
pub(super) struct Connection {
    pool: Weak<Pool>,
    /// Gone once the connection is being closed; h2 closes it when this and all streams are.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    open: Cell<bool>,
    /// Streams the backend and the settings allow.
    limit: Cell<u32>,
    /// Leases out.
    active: Cell<u32>,
    idle_since: Cell<Instant>,
    resets: Cell<Resets>,
    /// Made when it has ended under a request.
    death: RefCell<Option<Rc<Death>>>,
    /// The driver's task, and when its timer fires next.
    driver: RefCell<Option<Waker>>,
    armed: Cell<Option<Instant>>,
}

/// The right to open one stream on one connection, and its place while it is open.
///
/// Keep it until both halves of the exchange are over, and drop it *after* the h2 handles. Dropping it gives the place back:
/// at once if nothing was sent or [`Lease::finished`] was called, else (the exchange was cancelled or broke) a few
/// milliseconds later, so that cancelling clients cannot provoke the backend into closing a shared connection. Dropping it
/// does not reset the stream: dropping the h2 handles does (RST_STREAM CANCEL).
#[must_use = "an unused lease keeps a stream's place from others"]
pub struct Lease {
    connection: Rc<Connection>,
    sent: bool,
    finished: bool,
}

// === impl Lease ===

impl Lease {
    /// Sends the request's head and opens the stream.
    ///
    /// The URI needs scheme and authority, the version should be HTTP/2; fields special to a connection must be gone
    /// (RFC 9113 §8.2.2). The response's window is not opened by reading: release it with
    /// `RecvStream::flow_control().release_capacity` only for octets the client side has accepted, so that a slow client
    /// stops the backend (RFC 9113 §5.2). What dropped unread is given back to the connection's window by h2. The request's
    /// body goes by `SendStream::reserve_capacity` and `poll_capacity`: never more than the capacity shown, which is bounded
    /// by the backend's windows and by 256 KiB.
    ///
    /// # Errors
    /// `GoingAway` when the connection went away since the lease was given (nothing was sent: try again, the same
    /// endpoint included); `ClientMalformed` when HTTP/2 cannot carry the request.
    pub fn send(
        &mut self,
        request: Request<()>,
        end_of_stream: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), ProxyError> {
        debug_assert!(!self.sent, "a lease is for one stream");
        // A clone of its own: h2 lets a handle wait for at most one stream that the backend's limit holds back.
        let Some(mut sender) = self.connection.sender.borrow().clone() else {
            return Err(ProxyError::new(Kind::GoingAway));
        };
        match sender.send_request(request, end_of_stream) {
            Ok(halves) => {
                self.sent = true;
                self.connection.update_resets(Resets::opened);
                Ok(halves)
            }
            Err(error) if self.connection.is_lost() => {
                tracing::debug!(%error, "a leased connection went away before the request was sent");
                self.connection.retire();
                Err(ProxyError::new(Kind::GoingAway))
            }
            Err(error) => {
                tracing::debug!(%error, "a request that HTTP/2 cannot carry");
                Err(ProxyError::new(Kind::ClientMalformed))
            }
        }
    }

    /// The connection has ended under this request. `again` when it can be sent again, on a connection of its own.
    pub fn lost(&self, blame: &Rc<Blame>, again: bool) -> Rc<Death> {
        let death = Rc::clone(self.connection.death.borrow_mut().get_or_insert_default());
        death.involve(blame, again);
        death
    }

    /// The backend has answered this stream with ENHANCE_YOUR_CALM.
    pub fn asked_for_calm(&self) {
        if let Some(pool) = self.connection.pool.upgrade() {
            pool.asked_for_calm();
        }
    }

    /// Both halves ended with END_STREAM, or the backend had answered in full: the stream's place is free at once.
    pub fn finished(mut self) {
        self.finished = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.give_back(self.sent && !self.finished);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("sent", &self.sent).finish_non_exhaustive()
    }
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(pool: &Rc<Pool>, sender: SendRequest<Bytes>) -> Rc<Self> {
        Rc::new(Self {
            pool: Rc::downgrade(pool),
            sender: RefCell::new(Some(sender)),
            open: Cell::new(true),
            limit: Cell::new(0),
            active: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            resets: Cell::new(Resets::default()),
            death: RefCell::new(None),
            driver: RefCell::new(None),
            armed: Cell::new(None),
        })
    }

    /// A lease if there is room.
    pub(super) fn lease(self: &Rc<Self>) -> Option<Lease> {
        let resets = self.resets.get();
        let taken = self.active.get().saturating_add(resets.held());
        if !self.open.get() || taken >= self.limit.get() || !resets.allow() {
            return None;
        }
        self.active.set(self.active.get() + 1);
        Some(Lease { connection: Rc::clone(self), sent: false, finished: false })
    }

    /// The end of a lease.
    fn give_back(&self, cancelled: bool) {
        self.active.set(self.active.get() - 1);
        if cancelled {
            self.update_resets(|resets| resets.cancelled(Instant::now()));
            self.wake_driver_before(self.resets.get().held_until());
            if self.open.get() && self.resets.get().spent() {
                tracing::debug!(
                    "replacing a backend connection on which most streams were cancelled"
                );
                self.retire();
            }
        }
        if self.active.get() == 0
            && let Some(death) = self.death.take()
        {
            death.settle(Instant::now().into_std());
        }
        let pool = self.pool.upgrade();
        if let Some(pool) = pool.as_ref().filter(|_| self.open.get()) {
            pool.pump();
        }
        if self.active.get() == 0 {
            self.idle_since.set(Instant::now());
            if self.open.get() {
                let due = pool.and_then(|pool| self.idle_due(pool.idle_timeout()));
                self.wake_driver_before(due);
            } else {
                self.wake_driver();
            }
        }
    }

    /// Takes no further streams; closed when the last lease ends.
    pub(super) fn retire(&self) {
        if self.open.replace(false) {
            if let Some(pool) = self.pool.upgrade() {
                pool.forget(self);
            }
            self.wake_driver();
        }
    }

    /// Not to be used any more. Returns whether it had been open.
    pub(super) fn close(&self) -> bool {
        drop(self.sender.take());
        self.open.replace(false)
    }

    /// Drops the handle that keeps h2 from closing an idle connection. Returns whether it was there.
    pub(super) fn release_sender(&self) -> bool {
        self.sender.take().is_some()
    }

    /// Has h2 seen GOAWAY, an error or the last stream identifier?
    pub(super) fn is_lost(&self) -> bool {
        let mut sender = self.sender.borrow_mut();
        let Some(sender) = sender.as_mut() else { return true };
        // No stream of this handle is ever pending, so it does not wait and the waker is not kept.
        matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.get()
    }

    /// Leases out.
    pub(super) fn active(&self) -> u32 {
        self.active.get()
    }

    pub(super) fn is_unused(&self) -> bool {
        self.active.get() == 0
    }

    /// When it will have been idle for `timeout`; `None` while it is used.
    pub(super) fn idle_due(&self, timeout: Duration) -> Option<Instant> {
        let idle = self.active.get() == 0 && self.resets.get().held() == 0;
        idle.then(|| self.idle_since.get() + timeout)
    }

    /// Returns whether there is more room than before.
    pub(super) fn set_limit(&self, limit: u32) -> bool {
        self.limit.replace(limit) < limit
    }

    pub(super) fn held_until(&self) -> Option<Instant> {
        self.resets.get().held_until()
    }

    /// Gives the places of cancelled streams back if it is time. Returns whether any were.
    pub(super) fn release_held(&self, now: Instant) -> bool {
        let mut resets = self.resets.get();
        let released = resets.release(now);
        self.resets.set(resets);
        released
    }

    fn update_resets(&self, change: impl FnOnce(&mut Resets)) {
        let mut resets = self.resets.get();
        change(&mut resets);
        self.resets.set(resets);
    }

    /// The driver is polled by this task and will be polled again at `armed`.
    pub(super) fn watch(&self, driver: &Waker) {
        let mut known = self.driver.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(driver)) {
            *known = Some(driver.clone());
        }
    }

    pub(super) fn set_armed(&self, armed: Option<Instant>) {
        self.armed.set(armed);
    }

    /// Wakes the driver unless its timer fires soon enough to see what is due then.
    fn wake_driver_before(&self, due: Option<Instant>) {
        let Some(due) = due else { return };
        if self.armed.get().is_none_or(|armed| armed > due) {
            self.wake_driver();
        }
    }

    pub(super) fn wake_driver(&self) {
        if let Some(driver) = &*self.driver.borrow() {
            driver.wake_by_ref();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("open", &self.open)
            .field("limit", &self.limit)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}
