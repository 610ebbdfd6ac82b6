//! The pools against HTTP/2 servers in the same thread, over real sockets.

mod backend;
mod lifetime;
mod queue;
mod streams;
mod tls;
mod turns;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, timeout};

use super::cluster::{Cluster, Endpoint, Health, RetryBudget, Settings};
use super::{Lease, Pools, classify};
use crate::dataplane::balance::{Balancer, HashOn, Policy};
use crate::dataplane::exchange::error::{Kind, ProxyError};
use crate::id::{ClusterId, WorkerId};
use crate::telemetry::metrics::{Registry, WorkerMetrics};

/// Longest time a test waits for anything that should happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a test as a worker would run: one thread, one `LocalSet`.
fn on_worker<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new()
        .block_on(&runtime, async { timeout(DEADLINE * 2, test).await.expect("the test ends") })
}

/// Waits for a state.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Generous limits, so that a test names only what it is about.
fn settings() -> Settings {
    Settings {
        tls: None,
        connect_timeout: DEADLINE,
        response_header_timeout: DEADLINE,
        stream_idle_timeout: DEADLINE,
        max_connections: 1,
        max_streams: 100,
        max_pending: 10_000,
        pending_timeout: DEADLINE,
        idle_timeout: DEADLINE,
        stream_window: 1 << 20,
        connection_window: 8 << 20,
        max_header_list_size: 64 << 10,
        keepalive: None,
    }
}

fn endpoint(address: SocketAddr, settings: Settings) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        name: "b1".into(),
        address,
        weight: 1,
        health: Arc::new(Health::new()),
        settings: Arc::new(settings),
        metrics: Registry::new(1).endpoint("api", "b1"),
    })
}

fn cluster(endpoint: &Arc<Endpoint>) -> Arc<Cluster> {
    Arc::new(Cluster {
        id: ClusterId(0),
        name: "api".into(),
        endpoints: vec![Arc::clone(endpoint)],
        balancer: Balancer::build(Policy::RoundRobin, [("b1", 1)]),
        hash_on: HashOn::Path,
        attempts: 1,
        retry_budget: RetryBudget { percent: 20, min_concurrency: 3 },
        settings: Arc::clone(&endpoint.settings),
        health_check: None,
    })
}

/// A worker's pools and their counts.
struct Client {
    pools: std::rc::Rc<Pools>,
    metrics: Arc<WorkerMetrics>,
}

impl Client {
    fn new() -> Self {
        let metrics = Arc::new(WorkerMetrics::new());
        let pools = std::rc::Rc::new(Pools::new(WorkerId(0), Arc::clone(&metrics)));
        Self { pools, metrics }
    }

    /// A request in a task of its own.
    fn get(&self, endpoint: &Arc<Endpoint>) -> JoinHandle<Result<Bytes, ProxyError>> {
        let (pools, endpoint) = (std::rc::Rc::clone(&self.pools), Arc::clone(endpoint));
        spawn_local(async move { exchange(pools.lease(&endpoint).await?).await })
    }

    async fn lease(&self, endpoint: &Arc<Endpoint>) -> Result<Lease, Kind> {
        self.pools.lease(endpoint).await.map_err(|error| error.kind)
    }
}

fn request() -> Request<()> {
    let uri = "http://backend.test/";
    Request::builder().version(Version::HTTP_2).uri(uri).body(()).unwrap()
}

/// A whole exchange, as the proxy makes it: body read, window released, lease finished.
async fn exchange(mut lease: Lease) -> Result<Bytes, ProxyError> {
    let (response, _) = lease.send(request(), true)?;
    let mut body = response.await.map_err(|error| classify(&error))?.into_body();
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| classify(&error))?;
        whole.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).map_err(|error| classify(&error))?;
    }
    drop(body);
    lease.finished();
    Ok(whole.into())
}

/// The outcome of a request that was started with [`Client::get`].
async fn outcome(task: JoinHandle<Result<Bytes, ProxyError>>) -> Result<Bytes, Kind> {
    task.await.expect("the request does not panic").map_err(|error| error.kind)
}
