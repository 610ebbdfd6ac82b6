//! The story of a request: find its route, choose an endpoint, send it, relay both bodies, account for it.
//!
//! Runs as one task for each exchange on the worker's thread. May import: snapshot, exchange, route, balance, filter, upstream,
//! codec, id, telemetry. Must not import quic or downstream.

mod attempt;
mod budget;
mod forward;
mod record;
mod relay;
mod retry;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use self::budget::Budgets;
use self::record::Record;
use super::abuse::Reports;
use super::exchange::Exchange;
use super::exchange::blame::Death;
use super::exchange::error::{Kind, ProxyError};
use super::exchange::link::{AbortCode, Link, Outbound};
use super::fault::{self, Point};
use super::filter::admission::Admission;
use super::filter::rate_limit::Verdict;
use super::pressure::{Level, Pressure};
use super::upstream::Pools;
use crate::id::WorkerId;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::WorkerLog;
use crate::telemetry::metrics::{RouteMetrics, WorkerMetrics};
use crate::telemetry::reason::{LimitReason, Panicked};
use crate::telemetry::request_id::Generator;

/// What every exchange of one worker needs. Lives on the worker's thread.
pub struct Context {
    /// Which worker.
    pub worker: WorkerId,
    /// Its connections to backends.
    pub pools: Pools,
    /// Its counters.
    pub metrics: Arc<WorkerMetrics>,
    /// Its end of the access log.
    pub access_log: WorkerLog,
    /// How scarce memory is.
    pub pressure: Arc<Pressure>,
    /// Counts requests that no route matched.
    pub unrouted: Arc<RouteMetrics>,
    /// What clients do that they should not.
    pub reports: Arc<Reports>,
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    request_ids: RefCell<Generator>,
    serving: Cell<usize>,
    budgets: Budgets,
}

/// What a context is made of.
#[derive(Debug)]
pub struct Parts {
    /// See [`Context`].
    pub worker: WorkerId,
    /// See [`Context`].
    pub metrics: Arc<WorkerMetrics>,
    /// See [`Context`].
    pub access_log: WorkerLog,
    /// See [`Context`].
    pub unrouted: Arc<RouteMetrics>,
    /// Where the control plane publishes.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// See [`Context`].
    pub pressure: Arc<Pressure>,
    /// See [`Context`].
    pub reports: Arc<Reports>,
}

/// How far an exchange had come when it failed: whether the client can still be told by a status.
struct Failure {
    error: ProxyError,
    head_sent: bool,
    /// The connection to the backend ended under it.
    death: Option<Rc<Death>>,
}

/// Serves one request to its end. Dropping the future cancels it: the backend's stream is reset, its place given back.
pub async fn serve(mut exchange: Exchange, context: Rc<Context>) {
    let snapshot = context.snapshot();
    let link = Rc::clone(&exchange.link);
    let mut serving = Serving::begin(&link, &context);
    let mut record = Record::begin(&context);
    let outcome = run(&mut exchange, &snapshot, &context, &mut record).await;
    if let Err(failure) = outcome {
        record.error = Some(failure.error.kind);
        match failure.error.kind {
            Kind::BodyTooLarge => context.metrics.limits_reached.inc(LimitReason::BodySize),
            Kind::RateLimited => context.metrics.limits_reached.inc(LimitReason::RateLimit),
            _ => {}
        }
        context.metrics.proxy_errors.inc(failure.error.kind as usize, failure.error.label());
        answer(&exchange, &failure, &mut record, &context);
    }
    record.finish(&exchange, &snapshot, &context);
    serving.done = true;
}

async fn run<'s>(
    exchange: &mut Exchange,
    snapshot: &'s Snapshot,
    context: &Context,
    record: &mut Record<'s>,
) -> Result<(), Failure> {
    let head = &exchange.head;
    fault::strike(Point::Request, head.target.path());
    if context.pressure.level() >= Level::Requests {
        return Err(Failure::before_head(Kind::MemoryScarce));
    }
    let route = snapshot
        .routes
        .find(head.authority.host(), head.target.path())
        .ok_or(Failure::before_head(Kind::NoRoute))?;
    record.route = Some(route);
    if let Some(admission) = snapshot.admission(route.id) {
        admit(exchange, admission, context, record)?;
    }
    let cluster = snapshot.cluster(route.cluster).ok_or(Failure::before_head(Kind::NoRoute))?;
    record.cluster = Some(cluster);
    // What is hashed is what the client sent.
    let key = forward::hash_key(exchange, cluster);
    forward::replace_fields(exchange, &record.id);
    retry::attempts(exchange, cluster, key, context, record).await
}

/// Whether a request keeps to what its route admits, as far as its head shows.
fn admit(
    exchange: &Exchange,
    admission: &Admission,
    context: &Context,
    record: &mut Record<'_>,
) -> Result<(), Failure> {
    if let Some(rate) = &admission.rate {
        match rate.admit(exchange.client.address, exchange.opened) {
            Verdict::Admitted { displaced } => {
                context.metrics.rate_limit_displaced.add(u64::from(displaced));
            }
            Verdict::Refused(wait) => {
                record.retry_after = wait;
                return Err(Failure::before_head(Kind::RateLimited));
            }
        }
    }
    record.request_body_max = admission.request_body_max;
    if exchange.head.content_length.is_some_and(|length| length > admission.request_body_max) {
        return Err(Failure::before_head(Kind::BodyTooLarge));
    }
    Ok(())
}

/// Tells the client what became of its request: a status while there is none yet, a reset afterwards, never a clean end.
fn answer(exchange: &Exchange, failure: &Failure, record: &mut Record<'_>, context: &Context) {
    let link = &exchange.link;
    match failure.error.kind {
        // The session has seen to the stream already.
        Kind::ClientGone | Kind::ClientMalformed | Kind::ClientStalled => {}
        Kind::RequestTimeout | Kind::BodyTooLarge if failure.head_sent => {
            link.abort(AbortCode::Cancelled);
        }
        _ if failure.head_sent => {
            context.metrics.response_resets.inc();
            link.abort(AbortCode::Internal);
        }
        Kind::ShuttingDown => link.abort(AbortCode::Rejected),
        _ => {
            let status = failure.error.status();
            record.status = Some(status.as_u16());
            let fields = forward::own_response(status, record.retry_after);
            link.send(Outbound::Head(status, fields, true));
        }
    }
}

// === impl Context ===

impl Context {
    /// For one worker.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let pools = Pools::new(parts.worker, Arc::clone(&parts.metrics));
        let context = Self {
            worker: parts.worker,
            pools,
            metrics: parts.metrics,
            access_log: parts.access_log,
            unrouted: parts.unrouted,
            pressure: parts.pressure,
            reports: parts.reports,
            snapshot: RefCell::new(Cache::new(parts.snapshot)),
            request_ids: RefCell::new(Generator::new()),
            serving: Cell::new(0),
            budgets: Budgets::default(),
        };
        context.reconfigured();
        context
    }

    /// The configuration in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(self.snapshot.borrow_mut().load())
    }

    /// Looks at the newest snapshot, so that what only the old one named can go.
    pub fn reconfigured(&self) {
        let snapshot = self.snapshot();
        self.pools.retain(&snapshot.clusters);
        self.budgets.retain(&snapshot.clusters);
    }

    /// Exchanges being served now.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.serving.get()
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("worker", &self.worker).finish_non_exhaustive()
    }
}

// === impl Failure ===

impl Failure {
    fn before_head(kind: Kind) -> Self {
        Self { error: ProxyError::new(kind), head_sent: false, death: None }
    }
}

// === Serving ===

/// An exchange that is being served. Whatever ends the task early, a panic too, the client learns of it by a reset and not by
/// silence.
struct Serving<'e> {
    link: &'e Link,
    context: &'e Context,
    done: bool,
}

impl<'e> Serving<'e> {
    fn begin(link: &'e Link, context: &'e Context) -> Self {
        context.serving.set(context.serving.get() + 1);
        Self { link, context, done: false }
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.context.serving.set(self.context.serving.get().saturating_sub(1));
        if !self.done {
            if std::thread::panicking() {
                self.context.metrics.panics.inc(Panicked::Request);
            }
            self.link.abort(AbortCode::Internal);
        }
    }
}
