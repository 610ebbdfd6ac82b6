//! One try at one endpoint: lease a stream, send the head, relay, account.

use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use super::record::Record;
use super::relay::Relay;
use super::{Context, Failure, forward};
use crate::dataplane::exchange::Exchange;
use crate::dataplane::exchange::error::{Kind, Origin};
use crate::dataplane::exchange::link::Link;
use crate::dataplane::upstream::Lease;
use crate::dataplane::upstream::cluster::Endpoint;
use crate::telemetry::metrics::{Attempt as Outcome, EndpointShard};

/// One try.
pub(super) struct Attempt<'e> {
    exchange: &'e Exchange,
    endpoint: &'e Arc<Endpoint>,
    context: &'e Context,
    /// On a connection of its own.
    alone: bool,
}

/// Counts the stream as open for as long as it lives, however the attempt ends.
struct Active<'e>(&'e EndpointShard);

impl<'e> Attempt<'e> {
    pub(super) fn new(
        exchange: &'e Exchange,
        endpoint: &'e Arc<Endpoint>,
        context: &'e Context,
        alone: bool,
    ) -> Self {
        Self { exchange, endpoint, context, alone }
    }

    /// Runs it to its end.
    pub(super) async fn run(self, record: &mut Record<'_>) -> Result<(), Failure> {
        let shard = self.endpoint.metrics.shard(self.context.worker);
        let result = self.exchange_with(shard, record).await;
        match &result {
            Ok(()) => shard.attempt(Outcome::Answered(record.status.unwrap_or(0))),
            Err(failure) => {
                let answered = record.status.filter(|_| failure.head_sent);
                shard.attempt(match (failure.error.origin(), answered) {
                    (_, Some(status)) => Outcome::Answered(status),
                    (Origin::Upstream, None) => Outcome::Failed,
                    // The client went away, or a limit of ours was reached: not the endpoint's fault.
                    (Origin::Downstream | Origin::Proxy, None) => Outcome::Cancelled,
                });
                if failure.error.origin() == Origin::Upstream {
                    shard.failures.inc(failure.error.kind as usize, failure.error.label());
                }
            }
        }
        result
    }

    async fn exchange_with(
        &self,
        shard: &EndpointShard,
        record: &mut Record<'_>,
    ) -> Result<(), Failure> {
        let mut lease = self.lease().await?;
        let request = forward::request(self.exchange, self.endpoint)
            .map_err(|error| Failure::before_head(error.kind))?;
        let _active = Active::begin(shard);
        let (response, upload) = lease
            .send(request, self.exchange.end_of_stream)
            .map_err(|error| Failure::before_head(error.kind))?;
        let sent = Instant::now();
        let upload = (!self.exchange.end_of_stream).then_some(upload);
        let relay = Relay::new(&self.exchange.link, &self.endpoint.settings, response, upload);
        let done = relay.run(record, self.exchange.opened, |at| {
            shard.time_to_first_byte.observe(at.saturating_duration_since(sent));
        });
        let both_ended = done.await.map_err(|mut failure| {
            if failure.error.kind == Kind::Overloaded {
                lease.asked_for_calm();
            }
            if failure.error.kind == Kind::ConnectionLost {
                let again = failure.may_try_again(self.exchange);
                failure.death = Some(lease.lost(&self.exchange.blame, again));
            }
            failure
        })?;
        if both_ended {
            lease.finished();
        }
        Ok(())
    }

    async fn lease(&self) -> Result<Lease, Failure> {
        let (pools, link) = (&self.context.pools, &self.exchange.link);
        let lease = async {
            match self.alone {
                true => pools.lease_alone(self.endpoint).await,
                false => pools.lease(self.endpoint).await,
            }
        };
        let lease = unless_gone(link, lease).await.map_err(Failure::before_head)?;
        lease.map_err(|error| Failure::before_head(error.kind))
    }
}

/// Waits for `future`, and stops waiting when the client is gone.
pub(super) async fn unless_gone<T>(
    link: &Link,
    future: impl Future<Output = T>,
) -> Result<T, Kind> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        link.register(cx);
        match link.failure() {
            Some(kind) => Poll::Ready(Err(kind)),
            None => future.as_mut().poll(cx).map(Ok),
        }
    })
    .await
}

impl<'e> Active<'e> {
    fn begin(shard: &'e EndpointShard) -> Self {
        shard.active.inc();
        Self(shard)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}
