//! What a target needs to send requests on to a backend of its own on loopback: a worker's runtime, an endpoint, a snapshot
//! with one route to it, and the context of a worker that serves.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use spooky_user::dataplane::balance::{Balancer, HashOn, Policy};
use spooky_user::dataplane::filter::ip_access::AccessList;
use spooky_user::dataplane::pressure::Pressure;
use spooky_user::dataplane::proxy::{Context, Parts};
use spooky_user::dataplane::route::{PathPattern, Route, Rule, Table};
use spooky_user::dataplane::upstream::cluster::{Cluster, Endpoint, Health, RetryBudget, Settings};
use spooky_user::id::{ClusterId, RouteId, WorkerId};
use spooky_user::snapshot::Snapshot;
use spooky_user::telemetry::access_log::{AccessLog, Target};
use spooky_user::telemetry::metrics::{Registry, WorkerMetrics};
use tokio::task::LocalSet;
use tokio::time::timeout;

/// Within this everything has happened that is going to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);

/// Runs as a worker runs: one thread, one set of tasks; dropped at the end with all that is still in it.
pub(crate) fn on_worker<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let all = async { timeout(DEADLINE, what).await.expect("it ends") };
    LocalSet::new().block_on(&runtime, all)
}

/// Lets everything else run until a state is reached.
pub(crate) async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let waiting = async {
        // What was spawned has to run once before it can be told from what has ended.
        tokio::task::yield_now().await;
        while !reached() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE / 2, waiting).await.unwrap_or_else(|_late| panic!("{what}"));
}

/// A backend at this address that takes `max_streams` requests at a time on one connection.
pub(crate) fn endpoint(address: SocketAddr, max_streams: u32) -> Arc<Endpoint> {
    let settings = Settings {
        tls: None,
        connect_timeout: DEADLINE,
        response_header_timeout: DEADLINE,
        stream_idle_timeout: DEADLINE,
        max_connections: 1,
        max_streams,
        max_pending: 64,
        pending_timeout: DEADLINE,
        idle_timeout: DEADLINE,
        stream_window: 64 << 10,
        connection_window: 1 << 20,
        max_header_list_size: 16 << 10,
        keepalive: None,
    };
    Arc::new(Endpoint {
        name: "b1".into(),
        address,
        weight: 1,
        health: Arc::new(Health::new()),
        settings: Arc::new(settings),
        metrics: Registry::new(1).endpoint("api", "b1"),
    })
}

/// A worker that sends everything to this endpoint.
pub(crate) fn context(endpoint: &Arc<Endpoint>, metrics: &Arc<WorkerMetrics>) -> Rc<Context> {
    let cluster = Cluster {
        id: ClusterId(0),
        name: "api".into(),
        endpoints: vec![Arc::clone(endpoint)],
        balancer: Balancer::build(Policy::RoundRobin, [("b1", 1)]),
        hash_on: HashOn::Path,
        attempts: 1,
        retry_budget: RetryBudget { percent: 20, min_concurrency: 3 },
        settings: Arc::clone(&endpoint.settings),
        health_check: None,
    };
    let registry = Registry::new(1);
    let route = Route {
        id: RouteId(0),
        name: "all".into(),
        cluster: ClusterId(0),
        metrics: registry.route("all"),
    };
    let rule = Rule { route, hosts: Vec::new(), path: PathPattern::Prefix("/".to_owned()) };
    let snapshot = Snapshot {
        version: 1,
        routes: Arc::new(Table::build(vec![rule]).expect("one route")),
        admissions: Vec::new(),
        clusters: vec![Arc::new(cluster)],
        listeners: vec![Some("edge".into())],
        access: AccessList::new(false, &[], &[]),
    };
    let log = AccessLog::open(&Target::Off, 1).expect("nothing to open");
    Rc::new(Context::new(Parts {
        worker: WorkerId(0),
        metrics: Arc::clone(metrics),
        access_log: log.worker(WorkerId(0), Arc::clone(metrics)),
        unrouted: registry.unrouted(),
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        pressure: Arc::new(Pressure::default()),
        reports: Arc::default(),
    }))
}
