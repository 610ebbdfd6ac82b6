//! Trying again: at which endpoint, how often, and whether it is safe (RFC 9110 §9.2.2, RFC 9113 §8.7).

use std::rc::Rc;
use std::sync::Arc;

use super::attempt::{Attempt, unless_gone};
use super::record::Record;
use super::{Context, Failure};
use crate::dataplane::exchange::Exchange;
use crate::dataplane::exchange::blame::Death;
use crate::dataplane::exchange::error::{Kind, Retry};
use crate::dataplane::upstream::cluster::{Cluster, Endpoint};

/// A request that connections took back unprocessed because they were closing is sent again this often beyond what
/// `retry.attempts` says: it has cost no backend anything, and a backend in a rolling restart may do so more than once.
const TAKEN_BACK_MAX: u8 = 3;

/// What has been tried for one request.
struct Tries<'c> {
    cluster: &'c Arc<Cluster>,
    key: u64,
    /// Endpoints that failed. Ten attempts at most, so a short list.
    failed: [usize; 10],
    count: usize,
    left: u8,
    taken_back: u8,
    /// The connection that ended under the last try.
    death: Option<Rc<Death>>,
}

/// Tries endpoints until one has answered, or none is left that may be tried.
pub(super) async fn attempts<'s>(
    exchange: &Exchange,
    cluster: &'s Arc<Cluster>,
    key: u64,
    context: &Context,
    record: &mut Record<'s>,
) -> Result<(), Failure> {
    let live = context.budgets.enter(cluster);
    let mut tries = Tries::new(cluster, key);
    let mut last = Failure::before_head(Kind::NoHealthyEndpoint);
    let mut place = None;
    loop {
        let Some((index, endpoint)) = tries.choose(context) else { return Err(last) };
        record.attempted(endpoint);
        let attempt = Attempt::new(exchange, endpoint, context, tries.death.is_some());
        let failure = match attempt.run(record).await {
            Ok(()) => {
                tries.answered(exchange);
                return Ok(());
            }
            Err(failure) => failure,
        };
        // Those that wait go first.
        drop(place.take());
        if !failure.may_try_again(exchange) || !tries.go_on(&failure, index) {
            return Err(failure);
        }
        if failure.error.kind != Kind::GoingAway {
            let patience = cluster.settings.pending_timeout;
            let waiting = live.again(cluster.retry_budget, patience);
            place = unless_gone(&exchange.link, waiting).await.map_err(Failure::before_head)?;
            if place.is_none() {
                context.metrics.retries_refused.inc();
                return Err(failure);
            }
        }
        context.metrics.retries.inc();
        exchange.link.rewind();
        last = failure;
    }
}

// === impl Tries ===

impl<'c> Tries<'c> {
    fn new(cluster: &'c Arc<Cluster>, key: u64) -> Self {
        Self {
            cluster,
            key,
            failed: [0; 10],
            count: 0,
            left: cluster.attempts.max(1),
            taken_back: 0,
            death: None,
        }
    }

    /// The endpoint to try now: one that has not failed, or any one for a new connection in the place of one that ended.
    fn choose(&self, context: &Context) -> Option<(usize, &'c Arc<Endpoint>)> {
        let healthy = |index: usize| {
            self.cluster.endpoints.get(index).is_some_and(|endpoint| endpoint.health.is_healthy())
        };
        let others = |index: usize| !self.has_failed(index) && healthy(index);
        let index = context.pools.pick(self.cluster, self.key, others).or_else(|| {
            self.death.as_ref().and_then(|_| context.pools.pick(self.cluster, self.key, healthy))
        })?;
        Some((index, self.cluster.endpoints.get(index)?))
    }

    fn has_failed(&self, index: usize) -> bool {
        self.failed.iter().take(self.count).any(|failed| *failed == index)
    }

    /// Takes a failure into account. `false` when there have been enough.
    fn go_on(&mut self, failure: &Failure, index: usize) -> bool {
        self.death.clone_from(&failure.death);
        match failure.error.kind {
            Kind::GoingAway if self.taken_back < TAKEN_BACK_MAX => {
                self.taken_back += 1;
                return true;
            }
            // Neither says anything against the endpoint.
            Kind::GoingAway | Kind::StreamRefused => {}
            _ => {
                if let Some(place) = self.failed.get_mut(self.count) {
                    *place = index;
                    self.count += 1;
                }
            }
        }
        self.left -= 1;
        self.left > 0
    }

    /// The last try was answered. If it was alone on its connection, the one before did not end because of it.
    fn answered(&self, exchange: &Exchange) {
        if let Some(death) = &self.death {
            death.acquit(&exchange.blame);
        }
    }
}

// === impl Failure ===

impl Failure {
    /// RFC 9110 §9.2.2: what may have been processed is repeated only when repeating it changes nothing.
    pub(super) fn may_try_again(&self, exchange: &Exchange) -> bool {
        // Body that was sent and is not kept is gone.
        if self.head_sent || !exchange.link.can_rewind() {
            return false;
        }
        match self.error.retry() {
            Retry::Always => true,
            Retry::IfIdempotent => exchange.head.method.is_idempotent(),
            Retry::Never => false,
        }
    }
}
