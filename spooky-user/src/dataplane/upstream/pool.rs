//! The connections of one worker to one endpoint, and the requests that wait for a stream on them.
//!
//! Invariant: while anyone waits, no open connection has room, or the backend has asked for less. Every event that makes room ends in [`Pool::pump`], so a lease
//! never overtakes the queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};

use super::backoff::Backoff;
use super::calm::Calm;
use super::cluster::Settings;
use super::connect::ConnectError;
use super::connection::{Connection, Lease};
use super::driver::{self, End};
use super::wire::Spare;
use crate::dataplane::exchange::error::{Kind, ProxyError};
use crate::telemetry::metrics::WorkerMetrics;

pub(super) struct Pool {
    address: SocketAddr,
    settings: Arc<Settings>,
    metrics: Arc<WorkerMetrics>,
    spare: Rc<Spare>,
    /// Those that take new streams, oldest first.
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Drivers alive: the above and those that only end their streams.
    alive: Cell<usize>,
    /// Connections being opened.
    opening: Cell<usize>,
    /// In ascending order of their number; at most `settings.max_pending`.
    waiters: RefCell<VecDeque<Waiter>>,
    next_waiter: Cell<u64>,
    /// Streams the last connection allowed: how many waiters one being opened will serve.
    streams_expected: Cell<u32>,
    backoff: Cell<Backoff>,
    /// The backend has asked for less.
    calm: Cell<Option<Calm>>,
    retry_armed: Cell<bool>,
    draining: Cell<bool>,
}

/// A request that waits.
struct Waiter {
    number: u64,
    grant: oneshot::Sender<Result<Lease, ProxyError>>,
}

/// A waiter's place in the queue, given back on drop.
struct Place {
    pool: Weak<Pool>,
    number: u64,
}

// === impl Pool: leases ===

impl Pool {
    pub(super) fn new(
        address: SocketAddr,
        settings: Arc<Settings>,
        metrics: Arc<WorkerMetrics>,
        spare: Rc<Spare>,
    ) -> Rc<Self> {
        let streams_expected = Cell::new(settings.max_streams.max(1));
        Rc::new(Self {
            address,
            settings,
            metrics,
            spare,
            connections: RefCell::default(),
            alive: Cell::new(0),
            opening: Cell::new(0),
            waiters: RefCell::default(),
            next_waiter: Cell::new(0),
            streams_expected,
            backoff: Cell::default(),
            calm: Cell::new(None),
            retry_armed: Cell::new(false),
            draining: Cell::new(false),
        })
    }

    /// A place on the oldest connection with room, so that connections beyond need become idle.
    pub(super) fn try_lease(&self) -> Option<Lease> {
        if self.is_calmed() {
            return None;
        }
        self.connections.borrow().iter().find_map(Connection::lease)
    }

    /// Queues for a place. See [`super::Pools::lease`].
    pub(super) async fn wait(self: &Rc<Self>) -> Result<Lease, ProxyError> {
        let (_place, mut grant) = self.enqueue()?;
        loop {
            match timeout(self.settings.pending_timeout, &mut grant).await {
                Ok(Ok(result)) => return result,
                // The queue goes away unanswered only with the worker.
                Ok(Err(_)) => return Err(ProxyError::new(Kind::ShuttingDown)),
                // The connect timeout bounds this wait, and its failure says more than ours.
                Err(_) if self.is_only_opening() => {}
                Err(_) => {
                    self.metrics.pool_timeouts.inc();
                    return Err(ProxyError::new(Kind::PoolTimeout));
                }
            }
        }
    }

    fn enqueue(
        self: &Rc<Self>,
    ) -> Result<(Place, oneshot::Receiver<Result<Lease, ProxyError>>), ProxyError> {
        if self.connections.borrow().is_empty()
            && self.opening.get() == 0
            && let Some((_, kind)) = self.backoff.get().blocked(Instant::now())
        {
            return Err(ProxyError::new(kind));
        }
        if self.waiters.borrow().len() >= self.settings.max_pending as usize {
            self.metrics.pool_full.inc();
            return Err(ProxyError::new(Kind::PoolFull));
        }
        let number = self.next_waiter.replace(self.next_waiter.get() + 1);
        let (grant, granted) = oneshot::channel();
        self.waiters.borrow_mut().push_back(Waiter { number, grant });
        self.metrics.pool_pending.inc();
        self.open_on_demand();
        Ok((Place { pool: Rc::downgrade(self), number }, granted))
    }

    /// Gives room to those who wait, first come first served; opens connections for the others.
    pub(super) fn pump(self: &Rc<Self>) {
        while !self.waiters.borrow().is_empty() {
            let Some(lease) = self.try_lease() else { break };
            let Some(waiter) = self.waiters.borrow_mut().pop_front() else { break };
            self.metrics.pool_pending.dec();
            // One who has just gone hands the lease back by dropping it.
            drop(waiter.grant.send(Ok(lease)));
        }
        self.open_on_demand();
    }

    /// The backend has all the streams that it wants for now.
    fn is_calmed(&self) -> bool {
        let Some(calm) = self.calm.get() else { return false };
        let allowed = calm.allowed(Instant::now());
        let most = self.settings.max_streams.saturating_mul(self.settings.max_connections.into());
        if allowed >= most {
            self.calm.set(None);
            return false;
        }
        self.active() >= allowed
    }

    fn active(&self) -> u32 {
        self.connections.borrow().iter().map(|connection| connection.active()).sum()
    }

    /// The backend has answered a stream with ENHANCE_YOUR_CALM, which is still counted.
    pub(super) fn asked_for_calm(&self) {
        let calm = Calm::asked(self.calm.get(), self.active(), Instant::now());
        self.calm.set(Some(calm));
    }

    fn is_only_opening(&self) -> bool {
        self.opening.get() > 0 && self.connections.borrow().is_empty()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut waiters = pool.waiters.borrow_mut();
        if let Ok(index) = waiters.binary_search_by_key(&self.number, |waiter| waiter.number) {
            waiters.remove(index);
            pool.metrics.pool_pending.dec();
        }
    }
}

// === impl Pool: connections ===

impl Pool {
    /// Opens as many connections as those who wait need and the settings allow.
    fn open_on_demand(self: &Rc<Self>) {
        loop {
            let waiting = self.waiters.borrow().len();
            let expected = self.streams_expected.get().max(1) as usize;
            let open = self.connections.borrow().len() + self.opening.get();
            if waiting <= self.opening.get().saturating_mul(expected)
                || open >= usize::from(self.settings.max_connections.max(1))
            {
                return;
            }
            if let Some((until, _)) = self.backoff.get().blocked(Instant::now()) {
                self.retry_at(until);
                return;
            }
            if self.is_calmed()
                && let Some(calm) = self.calm.get()
            {
                // More connections would not be less.
                self.retry_at(calm.more_at(Instant::now()));
                return;
            }
            self.opening.set(self.opening.get() + 1);
            spawn_local(Rc::clone(self).run_connection());
        }
    }

    fn retry_at(self: &Rc<Self>, until: Instant) {
        if self.retry_armed.replace(true) {
            return;
        }
        let pool = Rc::downgrade(self);
        spawn_local(async move {
            sleep_until(until).await;
            if let Some(pool) = pool.upgrade() {
                pool.retry_armed.set(false);
                pool.pump();
            }
        });
    }

    /// The life of one connection.
    async fn run_connection(self: Rc<Self>) {
        let limit = self.settings.connect_timeout;
        let opening = driver::open(self.address, &self.settings, Rc::clone(&self.spare));
        let opened = match timeout(limit, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(ConnectError::Timeout(limit)),
        };
        self.opening.set(self.opening.get() - 1);
        match opened {
            Ok(opened) => {
                self.on_opened();
                let end = opened.drive(Rc::clone(&self)).await;
                self.log_end(&end);
                // It may have held up others, and who waits for it must wait for another one.
                self.pump();
            }
            Err(error) => self.on_failed(&error),
        }
    }

    fn on_opened(&self) {
        let mut backoff = self.backoff.get();
        let failures = backoff.succeeded();
        self.backoff.set(backoff);
        if failures > 0 {
            tracing::info!(endpoint = %self.address, failures, "connected again");
        }
    }

    fn on_failed(self: &Rc<Self>, error: &ConnectError) {
        let kind = error.kind();
        self.metrics.pool_connect_failures.inc(kind as usize, ProxyError::new(kind).label());
        let mut backoff = self.backoff.get();
        // One line for each outage, not for each attempt.
        if backoff.failed(Instant::now(), kind) == 1 {
            tracing::warn!(endpoint = %self.address, %error, "cannot connect");
        } else {
            tracing::debug!(endpoint = %self.address, %error, "still cannot connect");
        }
        self.backoff.set(backoff);
        if self.connections.borrow().is_empty() && self.opening.get() == 0 {
            self.fail_waiters(kind);
        } else {
            self.open_on_demand();
        }
    }

    fn fail_waiters(&self, kind: Kind) {
        let waiters = self.waiters.take();
        self.metrics.pool_pending.sub(i64::try_from(waiters.len()).unwrap_or(i64::MAX));
        for waiter in waiters {
            drop(waiter.grant.send(Err(ProxyError::new(kind))));
        }
    }

    fn log_end(&self, end: &End) {
        let endpoint = self.address;
        match end {
            End::Closed => tracing::debug!(%endpoint, "backend connection closed"),
            End::Unanswered => {
                tracing::warn!(%endpoint, "keepalive PING unanswered; connection given up");
            }
            End::Lost(error) if error.is_io() => {
                tracing::debug!(%endpoint, %error, "backend connection lost");
            }
            End::Lost(error) => tracing::warn!(%endpoint, %error, "backend connection failed"),
        }
    }
}

// === impl Pool: what drivers and connections tell ===

impl Pool {
    /// A connection is ready for streams.
    pub(super) fn add(&self, connection: &Rc<Connection>) {
        self.connections.borrow_mut().push(Rc::clone(connection));
        self.alive.set(self.alive.get() + 1);
        self.metrics.pool_connections_opened.inc();
        self.metrics.pool_connections_active.inc();
    }

    /// A connection takes no further streams.
    pub(super) fn forget(&self, connection: &Connection) {
        self.connections.borrow_mut().retain(|known| !std::ptr::eq(&raw const **known, connection));
    }

    /// A connection is gone.
    pub(super) fn on_closed(&self, connection: &Connection) {
        if connection.close() {
            self.forget(connection);
        }
        self.alive.set(self.alive.get() - 1);
        self.metrics.pool_connections_closed.inc();
        self.metrics.pool_connections_active.dec();
    }

    /// Translates what h2 says of the backend's SETTINGS_MAX_CONCURRENT_STREAMS into our limit for a connection.
    pub(super) fn limit(&self, peer: usize) -> u32 {
        let limit = u32::try_from(peer).unwrap_or(u32::MAX).min(self.settings.max_streams);
        self.streams_expected.set(limit);
        limit
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How long a connection may stay without streams.
    pub(super) fn idle_timeout(&self) -> Duration {
        if self.draining.get() { Duration::ZERO } else { self.settings.idle_timeout }
    }

    /// Connections close as they become unused, the unused ones now. Leases go on being given, for exchanges that began before.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        for connection in self.connections.borrow().iter() {
            connection.wake_driver();
        }
    }

    pub(super) fn alive(&self) -> usize {
        self.alive.get() + self.opening.get()
    }
}
