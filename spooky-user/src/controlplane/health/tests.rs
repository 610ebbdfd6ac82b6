//! Probes against HTTP/2 servers in the same thread, over real sockets.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::dataplane::balance::{Balancer, HashOn, Policy};
use crate::dataplane::upstream::cluster::{Health, RetryBudget, Settings};
use crate::id::ClusterId;
use crate::telemetry::metrics::{EndpointMetrics, Registry};

const DEADLINE: Duration = Duration::from_secs(20);

fn on_control_plane(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(DEADLINE * 2, test).await.expect("the test ends") });
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} within {DEADLINE:?}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// A server that answers every request with the status it was last told, 0 for never.
struct Backend {
    address: SocketAddr,
    status: Mutex<u16>,
    requests: Mutex<Vec<String>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    open_max: AtomicUsize,
}

impl Backend {
    async fn start(status: u16) -> Arc<Self> {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), status)
    }

    fn on(listener: TcpListener, status: u16) -> Arc<Self> {
        let backend = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            status: Mutex::new(status),
            requests: Mutex::default(),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            open_max: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&backend);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let backend = Arc::clone(&serving);
                backend.accepted.fetch_add(1, Relaxed);
                tokio::spawn(async move {
                    let open = backend.open.fetch_add(1, Relaxed) + 1;
                    backend.open_max.fetch_max(open, Relaxed);
                    backend.serve(tcp).await;
                    backend.open.fetch_sub(1, Relaxed);
                });
            }
        });
        backend
    }

    async fn serve(&self, tcp: tokio::net::TcpStream) {
        let Ok(mut connection) = h2::server::handshake(tcp).await else { return };
        let mut unanswered = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let agent = request.headers().get("user-agent").unwrap().to_str().unwrap();
            let line = format!("{} {} {agent}", request.method(), request.uri());
            self.requests.lock().unwrap().push(line);
            match StatusCode::from_u16(*self.status.lock().unwrap()) {
                Ok(status) => {
                    let mut response = Response::new(());
                    *response.status_mut() = status;
                    let mut body = respond.send_response(response, false).unwrap();
                    body.send_data(Bytes::from_static(b"fine"), true).unwrap();
                }
                Err(_) => unanswered.push(respond),
            }
        }
    }

    fn answer(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }
}

fn check() -> HealthCheck {
    HealthCheck {
        path: "/healthz?deep=1".to_owned(),
        host: None,
        interval: Duration::from_millis(10),
        timeout: DEADLINE,
        unhealthy_after: 3,
        healthy_after: 2,
        jitter_percent: 15,
    }
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        tls: None,
        connect_timeout: DEADLINE,
        response_header_timeout: DEADLINE,
        stream_idle_timeout: DEADLINE,
        max_connections: 1,
        max_streams: 100,
        max_pending: 10,
        pending_timeout: DEADLINE,
        idle_timeout: DEADLINE,
        stream_window: 1 << 16,
        connection_window: 1 << 16,
        max_header_list_size: 64 << 10,
        keepalive: None,
    })
}

fn cluster(address: SocketAddr, told: &Told, check: Option<HealthCheck>) -> Arc<Cluster> {
    let (metrics, health) = told;
    let settings = settings();
    let endpoint = Endpoint {
        name: "b1".into(),
        address,
        weight: 1,
        health: Arc::clone(health),
        settings: Arc::clone(&settings),
        metrics: Arc::clone(metrics),
    };
    Arc::new(Cluster {
        id: ClusterId(0),
        name: "api".into(),
        endpoints: vec![Arc::new(endpoint)],
        balancer: Balancer::build(Policy::RoundRobin, [("b1", 1)]),
        hash_on: HashOn::Path,
        attempts: 1,
        retry_budget: RetryBudget { percent: 20, min_concurrency: 3 },
        settings,
        health_check: check,
    })
}

/// A scheduler, what it counts for the one endpoint, and the endpoint's health.
fn scheduler() -> (Scheduler, Arc<EndpointMetrics>, Arc<Health>) {
    let (metrics, health) = told();
    (Scheduler::new(), metrics, health)
}

/// What the scheduler tells of one endpoint.
type Told = (Arc<EndpointMetrics>, Arc<Health>);

fn told() -> Told {
    (Registry::new(1).endpoint("api", "b1"), Arc::new(Health::new()))
}

#[test]
fn an_endpoint_goes_out_and_comes_back() {
    on_control_plane(async {
        let backend = Backend::start(503).await;
        let (mut scheduler, metrics, health) = scheduler();
        let told = (Arc::clone(&metrics), Arc::clone(&health));
        scheduler.reconcile(&[cluster(backend.address, &told, Some(check()))]);
        assert_eq!(scheduler.watched(), 1);
        assert!(health.is_healthy(), "until a probe says otherwise");
        until("it is taken out", || !health.is_healthy()).await;
        assert_eq!((metrics.probes_failed.value(), metrics.ejections.value()), (3, 1));
        assert_eq!((metrics.healthy.value(), metrics.probes_succeeded.value()), (0, 0));
        backend.answer(204);
        until("it is taken back", || health.is_healthy()).await;
        assert_eq!((metrics.healthy.value(), metrics.probes_succeeded.value()), (1, 2));
        assert_eq!(metrics.ejections.value(), 1);
    });
}

#[test]
fn a_probe_is_a_get_over_a_connection_of_its_own() {
    on_control_plane(async {
        let backend = Backend::start(200).await;
        let (mut scheduler, metrics, health) = scheduler();
        let told = (Arc::clone(&metrics), Arc::clone(&health));
        let named = HealthCheck { host: Some("api.test:8443".to_owned()), ..check() };
        scheduler.reconcile(&[cluster(backend.address, &told, Some(named))]);
        until("ten probes", || metrics.probes_succeeded.value() >= 10).await;
        scheduler.reconcile(&[cluster(backend.address, &told, Some(check()))]);
        let address = backend.address;
        let lines = || backend.requests.lock().unwrap().clone();
        let unnamed = format!("GET http://{address}/healthz?deep=1 spooky-health-check");
        until("the changed check is used", || lines().last() == Some(&unnamed)).await;
        assert_eq!(lines()[0], "GET http://api.test:8443/healthz?deep=1 spooky-health-check");
        drop(scheduler);
        until("every connection was closed", || backend.open.load(Relaxed) == 0).await;
        assert!(backend.accepted.load(Relaxed) >= lines().len(), "one connection a probe");
        assert_eq!(metrics.probes_failed.value(), 0);
    });
}

#[test]
fn only_2xx_is_a_success() {
    on_control_plane(async {
        for status in [301, 404, 429, 500] {
            let backend = Backend::start(status).await;
            let (mut scheduler, metrics, health) = scheduler();
            let told = (Arc::clone(&metrics), Arc::clone(&health));
            let once = HealthCheck { timeout: Duration::from_millis(50), ..check() };
            scheduler.reconcile(&[cluster(backend.address, &told, Some(once))]);
            until("it is taken out", || !health.is_healthy()).await;
            assert_eq!(metrics.probes_succeeded.value(), 0, "status {status}");
        }
    });
}

#[test]
fn a_backend_that_is_gone_goes_out_and_comes_back_with_it() {
    on_control_plane(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (mut scheduler, metrics, health) = scheduler();
        let told = (metrics, Arc::clone(&health));
        scheduler.reconcile(&[cluster(address, &told, Some(check()))]);
        until("it is taken out", || !health.is_healthy()).await;
        let _backend = Backend::on(TcpListener::bind(address).await.unwrap(), 200);
        until("it is taken back", || health.is_healthy()).await;
    });
}

#[test]
fn a_backend_that_hangs_goes_out_and_probes_do_not_pile_up() {
    on_control_plane(async {
        let backend = Backend::start(0).await;
        let (mut scheduler, metrics, health) = scheduler();
        let told = (Arc::clone(&metrics), Arc::clone(&health));
        // Twenty intervals fit into one timeout.
        let slow = HealthCheck {
            interval: Duration::from_millis(2),
            timeout: Duration::from_millis(40),
            ..check()
        };
        scheduler.reconcile(&[cluster(backend.address, &told, Some(slow))]);
        until("it is taken out", || !health.is_healthy()).await;
        assert_eq!(metrics.probes_failed.value(), 3);
        // The server may see the end of one connection after the start of the next.
        assert!(backend.open_max.load(Relaxed) <= 2, "{:?}", backend.open_max);
    });
}

#[test]
fn a_reload_does_not_disturb_an_unchanged_endpoint() {
    on_control_plane(async {
        let backend = Backend::start(500).await;
        let (mut scheduler, metrics, health) = scheduler();
        let told = (Arc::clone(&metrics), Arc::clone(&health));
        scheduler.reconcile(&[cluster(backend.address, &told, Some(check()))]);
        // Reloads between any two probes: were the counts lost, three in a row would never come together.
        let deadline = Instant::now() + DEADLINE;
        while health.is_healthy() {
            assert!(Instant::now() < deadline, "it is taken out");
            scheduler.reconcile(&[cluster(backend.address, &told, Some(check()))]);
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(metrics.probes_failed.value(), 3);
    });
}

#[test]
fn a_changed_check_keeps_the_health_and_a_changed_address_does_not() {
    on_control_plane(async {
        let (dead, alive) = (Backend::start(500).await, Backend::start(200).await);
        let (mut scheduler, metrics, health) = scheduler();
        let told = (Arc::clone(&metrics), Arc::clone(&health));
        scheduler.reconcile(&[cluster(dead.address, &told, Some(check()))]);
        until("it is taken out", || !health.is_healthy()).await;
        let other = HealthCheck { path: "/".to_owned(), ..check() };
        let fresh = Arc::new(Health::new());
        scheduler.reconcile(&[cluster(
            dead.address,
            &(Arc::clone(&metrics), Arc::clone(&fresh)),
            Some(other.clone()),
        )]);
        assert!(!fresh.is_healthy());
        let moved = Arc::new(Health::new());
        scheduler.reconcile(&[cluster(
            alive.address,
            &(Arc::clone(&metrics), Arc::clone(&moved)),
            Some(other),
        )]);
        assert!(moved.is_healthy());
        assert_eq!(metrics.healthy.value(), 1);
    });
}

#[test]
fn an_endpoint_without_a_check_is_healthy_and_one_that_vanished_is_left_alone() {
    on_control_plane(async {
        let backend = Backend::start(500).await;
        let (mut scheduler, metrics, health) = scheduler();
        let told = (Arc::clone(&metrics), Arc::clone(&health));
        scheduler.reconcile(&[cluster(backend.address, &told, Some(check()))]);
        until("it is taken out", || !health.is_healthy()).await;
        scheduler.reconcile(&[cluster(backend.address, &told, None)]);
        assert_eq!((health.is_healthy(), scheduler.watched()), (true, 0));
        assert_eq!(metrics.healthy.value(), 1);

        scheduler.reconcile(&[cluster(backend.address, &told, Some(check()))]);
        until("it is taken out again", || !health.is_healthy()).await;
        scheduler.reconcile(&[]);
        until("its probes end", || backend.open.load(Relaxed) == 0).await;
        let probes = metrics.probes_failed.value();
        let accepted = backend.accepted.load(Relaxed);
        // Another endpoint's probes show that time passes.
        let other = Backend::start(200).await;
        scheduler.reconcile(&[cluster(other.address, &self::told(), Some(check()))]);
        until("ten intervals", || other.accepted.load(Relaxed) >= 10).await;
        assert_eq!(
            (metrics.probes_failed.value(), backend.accepted.load(Relaxed)),
            (probes, accepted)
        );
    });
}

#[test]
fn the_interval_moves_by_its_jitter() {
    let check = HealthCheck { interval: Duration::from_secs(10), ..check() };
    let seconds = |random| jittered(&check, random).as_secs_f64();
    assert!((seconds(0.0) - 8.5).abs() < 1e-9);
    assert!((seconds(0.5) - 10.0).abs() < 1e-9);
    assert!((seconds(1.0) - 11.5).abs() < 1e-9);
    let still = HealthCheck { jitter_percent: 0, ..check };
    assert_eq!(jittered(&still, 0.9), Duration::from_secs(10));
}
