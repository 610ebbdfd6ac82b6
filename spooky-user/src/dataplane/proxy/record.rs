//! What a request leaves behind: one line in the access log, one count at its route.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{REFERER, USER_AGENT};

use super::Context;
use crate::dataplane::abuse::Event;
use crate::dataplane::exchange::Exchange;
use crate::dataplane::exchange::error::{Kind, ProxyError};
use crate::dataplane::route::Route;
use crate::dataplane::upstream::cluster::{Cluster, Endpoint};
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::Entry;
use crate::telemetry::request_id::RequestId;

/// Gathered while the request is served.
pub(super) struct Record<'s> {
    /// Unique, also sent to the backend.
    pub id: RequestId,
    /// The route it took.
    pub route: Option<&'s Route>,
    /// The upstream it went to.
    pub cluster: Option<&'s Arc<Cluster>>,
    /// The last endpoint tried.
    pub endpoint: Option<&'s Endpoint>,
    /// How many were tried.
    pub attempts: u32,
    /// The final status sent.
    pub status: Option<u16>,
    /// Why it failed.
    pub error: Option<Kind>,
    /// From the head received to the backend's response head.
    pub first_byte: Option<Duration>,
    /// Octets of content its route admits.
    pub request_body_max: u64,
    /// When a client that is refused may come back.
    pub retry_after: Duration,
    /// Body octets received from the client and passed on in the last attempt.
    pub request_bytes: u64,
    /// Body octets received from the backend and passed on.
    pub response_bytes: u64,
    began: SystemTime,
}

impl<'s> Record<'s> {
    /// At the time the request's head is complete.
    pub(super) fn begin(context: &Context) -> Self {
        Self {
            id: context.request_ids.borrow_mut().next_id(),
            route: None,
            cluster: None,
            endpoint: None,
            attempts: 0,
            status: None,
            error: None,
            first_byte: None,
            request_body_max: u64::MAX,
            retry_after: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            began: SystemTime::now(),
        }
    }

    /// One more endpoint is tried.
    pub(super) fn attempted(&mut self, endpoint: &'s Endpoint) {
        self.endpoint = Some(endpoint);
        self.attempts += 1;
        self.request_bytes = 0;
    }

    /// The request is over.
    pub(super) fn finish(self, exchange: &Exchange, snapshot: &Snapshot, context: &Context) {
        let duration = Instant::now().saturating_duration_since(exchange.opened);
        match self.status {
            Some(429) => context.reports.report(exchange.client.address, Event::RateLimit),
            Some(400..=499) => context.reports.report(exchange.client.address, Event::ClientError),
            _ => {}
        }
        let metrics = self.route.map_or(&context.unrouted, |route| &route.metrics);
        metrics.shard(context.worker).finished(
            self.status.unwrap_or(0),
            duration,
            self.request_bytes,
            self.response_bytes,
        );
        if context.access_log.is_on() {
            self.log(exchange, snapshot, context, duration);
        }
    }

    fn log(&self, exchange: &Exchange, snapshot: &Snapshot, context: &Context, duration: Duration) {
        let head = &exchange.head;
        let field = |name| head.headers.get(name).map(http::HeaderValue::as_bytes);
        context.access_log.record(&Entry {
            time: self.began,
            request_id: self.id.as_bytes(),
            listener: snapshot.listener(exchange.client.listener),
            worker: context.worker,
            client: SocketAddr::new(exchange.client.address, exchange.client.port),
            method: head.method.as_str().as_bytes(),
            scheme: head.scheme.as_str().as_bytes(),
            authority: head.authority.as_str().as_bytes(),
            path: head.target.as_str().as_bytes(),
            protocol: "h3",
            route: self.route.map(|route| &*route.name),
            upstream: self.cluster.map(|cluster| &*cluster.name),
            endpoint: self.endpoint.map(|endpoint| &*endpoint.name),
            attempts: self.attempts,
            status: self.status,
            error: self.error.map(|kind| ProxyError::new(kind).label()),
            duration,
            time_to_first_byte: self.first_byte,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            cid: &exchange.client.cid,
            user_agent: field(USER_AGENT),
            referer: field(REFERER),
        });
    }
}
