//! Backends as one worker sees them: pools of HTTP/2 connections, one set for each worker.
//!
//! May import: exchange, balance, codec, sys, id, telemetry. Everything but `cluster` and `tls` belongs to one thread and
//! expects to run in a `LocalSet`.
//!
//! Bounds, for each worker and endpoint: `max_connections` connections that take streams (those that only end theirs after a
//! GOAWAY come on top and are bounded by these streams), `min(max_streams, the backend's limit)` streams on each, and
//! `max_pending` requests waiting at most `pending_timeout`. Octets: the backend may send `stream_window` a stream and
//! `connection_window` a connection that nobody has read, because windows are opened only by
//! `RecvStream::flow_control().release_capacity`, by the proxy, for what the client side has accepted. Below h2, `wire` holds at
//! most 64 KiB each way while a turn lasts or a socket is full.

mod backoff;
mod calm;
mod classify;
pub mod cluster;
pub(crate) mod connect;
mod connection;
mod driver;
mod pool;
mod resets;
pub mod tls;
mod turns;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

pub use self::classify::{classify, classify_reset};
use self::cluster::{Cluster, Endpoint, Settings};
pub use self::connection::Lease;
use self::pool::Pool;
use self::turns::Turns;
use self::wire::Spare;
use crate::dataplane::exchange::error::ProxyError;
use crate::id::WorkerId;
use crate::telemetry::metrics::WorkerMetrics;

/// One worker's connections to all endpoints.
///
/// Endpoints with the same address and equal settings share connections, across upstreams and snapshots.
pub struct Pools {
    worker: WorkerId,
    metrics: Arc<WorkerMetrics>,
    /// By address; more than one when settings differ or have changed.
    pools: RefCell<HashMap<SocketAddr, Vec<Named>>>,
    turns: RefCell<Turns>,
    draining: Cell<bool>,
    spare: Rc<Spare>,
}

/// A pool and the settings it was last asked for with, so that the usual comparison is one of pointers.
struct Named {
    settings: Arc<Settings>,
    /// Each connection carries one request at a time.
    alone: bool,
    pool: Rc<Pool>,
}

// === impl Pools ===

impl Pools {
    /// No connections yet. They are opened on demand by tasks of the current `LocalSet`.
    #[must_use]
    pub fn new(worker: WorkerId, metrics: Arc<WorkerMetrics>) -> Self {
        Self {
            worker,
            metrics,
            pools: RefCell::default(),
            turns: RefCell::default(),
            draining: Cell::new(false),
            spare: Rc::default(),
        }
    }

    /// Waits for a stream on a connection to this endpoint: at once and without allocating when a connection has room, else
    /// in a first come first served queue while a connection is opened or a stream ends.
    ///
    /// # Errors
    /// Nothing was sent in any case.
    /// `ConnectFailed`, `ConnectTimeout`, `TlsFailed`: no connection is open and opening one failed just now, or less than
    /// a back-off ago (50 ms doubling to 1 s; no attempt is made before its end). `PoolFull`: `max_pending` others wait.
    /// `PoolTimeout`: no place became free within `pending_timeout`; while the first connection is still being opened
    /// `connect_timeout` governs instead.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place in the queue back; it does not close the connection being opened.
    pub async fn lease(&self, endpoint: &Arc<Endpoint>) -> Result<Lease, ProxyError> {
        self.lease_in(&self.pool(endpoint, false)).await
    }

    /// The same for a request under which a connection has ended: on a connection that carries nothing else meanwhile, of
    /// which there are `max_connections` more.
    ///
    /// # Errors
    /// As [`Pools::lease`].
    ///
    /// # Cancel safety
    /// As [`Pools::lease`].
    pub async fn lease_alone(&self, endpoint: &Arc<Endpoint>) -> Result<Lease, ProxyError> {
        self.lease_in(&self.pool(endpoint, true)).await
    }

    async fn lease_in(&self, pool: &Rc<Pool>) -> Result<Lease, ProxyError> {
        match pool.try_lease() {
            Some(lease) => Ok(lease),
            None => pool.wait().await,
        }
    }

    /// The next endpoint of `cluster` for which `eligible` is true, by its index in `cluster.endpoints`; `None` when it is
    /// true for none. `key` is [`crate::dataplane::balance::hash`] of what `cluster.hash_on` names; only ring hash looks at it.
    ///
    /// The state is this worker's own, so workers do not move in lock step. `eligible` must not call this again.
    pub fn pick(
        &self,
        cluster: &Arc<Cluster>,
        key: u64,
        eligible: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        self.turns.borrow_mut().pick(cluster, key, eligible)
    }

    /// Takes a snapshot's upstreams, in the order of their `id`: at start, and after each reload.
    ///
    /// Pools of endpoints that are still configured stay. The others take no new requests: their connections close when
    /// their streams have ended, and whoever waits in them is still served. Balancers that did not change go on where they
    /// stood.
    pub fn retain(&self, clusters: &[Arc<Cluster>]) {
        self.turns.borrow_mut().retain(clusters);
        self.pools.borrow_mut().retain(|address, pools| {
            pools.retain_mut(|named| {
                let mut endpoints = clusters.iter().flat_map(|cluster| &cluster.endpoints);
                let kept = endpoints.find(|endpoint| {
                    endpoint.address == *address && endpoint.settings == named.settings
                });
                match kept {
                    Some(endpoint) => named.settings = Arc::clone(&endpoint.settings),
                    None => named.pool.drain(),
                }
                kept.is_some()
            });
            !pools.is_empty()
        });
    }

    /// From now on connections close as soon as they have no streams. Leases are still given, for exchanges accepted before
    /// the drain; there is no way back.
    pub fn drain(&self) {
        self.draining.set(true);
        for named in self.pools.borrow().values().flatten() {
            named.pool.drain();
        }
    }

    /// Connections open or being opened, in pools that are still configured. 0 some time after [`Pools::drain`] and the last
    /// lease: then every backend was told GOAWAY.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.pools.borrow().values().flatten().map(|named| named.pool.alive()).sum()
    }

    fn pool(&self, endpoint: &Endpoint, alone: bool) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        let pools = pools.entry(endpoint.address).or_default();
        let known = pools.iter().find(|named| {
            named.alone == alone
                && (Arc::ptr_eq(&named.settings, &endpoint.settings)
                    || named.settings == endpoint.settings)
        });
        if let Some(named) = known {
            return Rc::clone(&named.pool);
        }
        // A pool's streams are those of its settings.
        let settings = match alone {
            true => Arc::new(Settings { max_streams: 1, ..Settings::clone(&endpoint.settings) }),
            false => Arc::clone(&endpoint.settings),
        };
        let (metrics, spare) = (Arc::clone(&self.metrics), Rc::clone(&self.spare));
        let pool = Pool::new(endpoint.address, settings, metrics, spare);
        if self.draining.get() {
            pool.drain();
        }
        let settings = Arc::clone(&endpoint.settings);
        pools.push(Named { settings, alone, pool: Rc::clone(&pool) });
        pool
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools")
            .field("worker", &self.worker)
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
