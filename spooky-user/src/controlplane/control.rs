//! The control plane's loop, from the first beat to the exit code: signals, worker supervision, reloads, the admin server,
//! health checks.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::MissedTickBehavior;

use super::abuse;
use super::admin::{self, Readiness, socket, verbs};
use super::attack;
use super::boot::Running;
use super::config;
use super::health::Scheduler;
use super::lists::enforce::enforce;
use super::reload::{self, Candidate, Refusal};
use super::workers;
use crate::dataplane::worker::Handle;

/// How often workers are looked at. The maps follow within a second: a stall is seen after 500 ms at the next beat.
const BEAT: Duration = Duration::from_millis(100);
/// How long the access log may take to write what it has at the end.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// The signals spooky knows.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
}

/// What a signal asks for.
enum Order {
    Shutdown,
    Reload,
    ReopenLogs,
}

/// What comes from outside.
struct Inputs {
    signals: Signals,
    /// From the control socket.
    orders: mpsc::Receiver<verbs::Order>,
}

/// The loop's state.
struct Control {
    running: Running,
    health: Scheduler,
    reading: Option<JoinHandle<Result<Candidate, Refusal>>>,
    /// SIGHUP came while a reload was being read.
    read_again: bool,
}

/// Runs until told to stop; the process's exit code.
#[must_use]
pub fn run(running: Running) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime for the control plane");
            return ExitCode::FAILURE;
        }
    };
    LocalSet::new().block_on(&runtime, serve(running))
}

async fn serve(running: Running) -> ExitCode {
    let (stop_admin, admin_stopped) = watch::channel(());
    let (send_orders, orders) = mpsc::channel(socket::ORDERS_MAX);
    let mut inputs = match Signals::listen() {
        Ok(signals) => Inputs { signals, orders },
        Err(error) => {
            tracing::error!(%error, "signals cannot be received");
            return ExitCode::FAILURE;
        }
    };
    let mut control =
        Control { running, health: Scheduler::new(), reading: None, read_again: false };
    control.start(&admin_stopped, send_orders);
    let code = control.steady(&mut inputs).await;
    drop(stop_admin);
    Box::pin(control.end(code)).await
}

impl Control {
    /// Steers to the workers, says what runs, and is ready.
    fn start(&mut self, admin_stopped: &watch::Receiver<()>, orders: mpsc::Sender<verbs::Order>) {
        let running = &mut self.running;
        running.supervisor.beat(&running.workers, Instant::now());
        for (listener, address) in running.listeners.open() {
            tracing::info!(listener, "listening udp {address}");
        }
        if let Ok(address) = running.admin.local_addr() {
            tracing::info!("admin http://{address}/");
        }
        running.supervisor.log_steering();
        running.supervisor.log_queues();
        running.confined.log();
        self.health.reconcile(&running.makings.snapshot.load().clusters);
        self.serve_admin(admin_stopped.clone());
        self.serve_socket(admin_stopped.clone(), orders);
        self.running.state.set_readiness(Readiness::Ready);
    }

    fn serve_admin(&self, mut stopped: watch::Receiver<()>) {
        let state = Arc::clone(&self.running.state);
        let Ok(listener) = self.running.admin.try_clone() else {
            tracing::error!("the admin listener cannot be served");
            return;
        };
        tokio::task::spawn_local(async move {
            let shutdown = async {
                // An error means that the sender is gone: time to stop too.
                let _ = stopped.changed().await;
            };
            if let Err(error) = admin::serve(listener, state, shutdown).await {
                tracing::error!(%error, "admin server ended");
            }
        });
    }

    fn serve_socket(&self, mut stopped: watch::Receiver<()>, orders: mpsc::Sender<verbs::Order>) {
        let Some(control) = &self.running.socket else { return };
        let listener = match control.listener() {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the control socket cannot be served");
                return;
            }
        };
        tracing::info!("control {}", control.path().display());
        let state = Arc::clone(&self.running.state);
        tokio::task::spawn_local(async move {
            let shutdown = async {
                let _ = stopped.changed().await;
            };
            if let Err(error) = socket::serve(listener, state, orders, shutdown).await {
                tracing::error!(%error, "control socket ended");
            }
        });
    }

    /// Until a signal asks for the end, or no worker is left.
    async fn steady(&mut self, inputs: &mut Inputs) -> ExitCode {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    self.beat();
                    if !self.revive(Instant::now()) {
                        tracing::error!("no worker is left, and none can be started");
                        return ExitCode::FAILURE;
                    }
                }
                order = inputs.signals.next() => match order {
                    Order::Shutdown => return self.drain(inputs, &mut beat).await,
                    Order::Reload => self.begin_reload(),
                    Order::ReopenLogs => self.running.access_log.reopen(),
                },
                read = finished(&mut self.reading) => self.finish_reload(read),
                () = self.running.lists.event() => drop(enforce(&mut self.running, Instant::now())),
                Some(order) = inputs.orders.recv() => order.carry_out(&mut self.running),
            }
        }
    }

    fn beat(&mut self) {
        self.reap_listeners();
        self.beat_lists(Instant::now());
        self.running.memory.beat();
        self.running.supervisor.beat(&self.running.workers, Instant::now());
        attack::beat(&mut self.running, Instant::now());
        let workers = self.running.workers.len();
        let alive = self.running.supervisor.alive();
        self.running.state.set_readiness(if alive == workers {
            Readiness::Ready
        } else {
            Readiness::Degraded(format!("{alive} of {workers} workers run"))
        });
    }

    /// Who is sentenced for what it did is on the list before that is enforced.
    fn beat_lists(&mut self, now: Instant) {
        abuse::carry_out(&mut self.running.abuse, &mut self.running.lists, now);
        self.running.lists.beat(now);
        drop(enforce(&mut self.running, now));
    }

    /// Starts workers again that have ended. `false` when there is none left, and one could not be started.
    fn revive(&mut self, now: Instant) -> bool {
        let running = &mut self.running;
        let mut failed = false;
        for place in 0..running.workers.len() {
            let Some(worker) = running.workers.get(place).filter(|it| it.has_ended()) else {
                continue;
            };
            let id = worker.id;
            if !running.revival.is_due(id, now) {
                continue;
            }
            running.revival.started(id, now);
            match workers::start_again(running, id) {
                Ok(handle) => {
                    tracing::warn!(worker = %id, "worker started again");
                    running.figures.worker_restarted(id);
                    if let Some(slot) = running.workers.get_mut(place) {
                        // Its thread has ended: this does not wait.
                        let _ = std::mem::replace(slot, handle).join();
                    }
                }
                Err(error) => {
                    failed = true;
                    tracing::error!(worker = %id, %error, "worker not started again; trying on");
                }
            }
        }
        !(failed && running.workers.iter().all(Handle::has_ended))
    }

    // === reload ===

    fn begin_reload(&mut self) {
        if self.reading.is_some() {
            self.read_again = true;
            return;
        }
        let path = self.running.config.path.clone();
        tracing::info!(path = %path.display(), "reading the configuration again");
        self.reading = Some(tokio::task::spawn_blocking(move || reload::read(path)));
    }

    fn finish_reload(&mut self, read: Result<Candidate, Refusal>) {
        let admitted = read.and_then(|candidate| reload::admit(&self.running.config, candidate));
        match admitted.and_then(|candidate| self.take(candidate)) {
            Ok(()) => {}
            Err(refusal) => {
                refusal.log();
                self.running.figures.reload_refused();
            }
        }
        if std::mem::take(&mut self.read_again) {
            self.begin_reload();
        }
    }

    /// Puts a new configuration into force: first what can fail, and only then anything that shows.
    fn take(&mut self, candidate: Candidate) -> Result<(), Refusal> {
        let running = &mut self.running;
        let Candidate { config, certificates } = candidate;
        let plan = reload::prepare(running, &config.listeners, certificates)?;
        for opening in &plan.open {
            tracing::info!(listener = opening.name(), "listening udp {}", opening.address);
        }
        let orders = running.listeners.take(plan, Instant::now() + config.shutdown.drain_timeout);
        let previous = running.makings.snapshot.load_full();
        let names = running.listeners.names();
        let mut next = config::compile(&config, names, Some(&previous), &running.makings.registry);
        running.lists.configure(&config.access, &next.access);
        next.access = running.lists.take_access().unwrap_or_default();
        let version = next.version;
        // Names of new listeners are there before the first request comes in through one.
        running.makings.snapshot.store(Arc::new(next));
        for (worker, orders) in running.workers.iter().zip(orders) {
            worker.inbox.give(orders);
            worker.inbox.reconfigured();
        }
        running.supervisor.set_listeners(&running.listeners);
        running.supervisor.set_placement(&config.workers.weights, config.workers.follows_load);
        let free = running.abuse.configure(config.abuse.clone(), &config.access.allow);
        abuse::let_go(free, &mut running.lists);
        running.supervisor.set_flood(&config.ebpf.flood);
        running.attack.configure(config.ebpf.attack);
        running.memory.set(config.overload);
        running.config = config;
        let snapshot = running.makings.snapshot.load();
        self.health.reconcile(&snapshot.clusters);
        let routes = snapshot.routes.routes().iter().map(|route| &*route.name);
        let endpoints = snapshot.clusters.iter().flat_map(|cluster| {
            cluster.endpoints.iter().map(|endpoint| (&*cluster.name, &*endpoint.name))
        });
        running.makings.registry.retain(routes, endpoints);
        running.figures.reloaded(version);
        tracing::info!(version, "configuration reloaded");
        Ok(())
    }

    /// Gives back the places of listeners that every worker has closed.
    fn reap_listeners(&mut self) {
        let running = &mut self.running;
        let workers = &running.workers;
        let closed = running.listeners.reap(|id| {
            workers.iter().any(|worker| !worker.has_ended() && worker.pulse.has_open(id))
        });
        for id in &closed {
            running.supervisor.close(*id);
        }
        if !closed.is_empty() {
            tracing::info!(listeners = closed.len(), "listeners closed");
            running.supervisor.set_listeners(&running.listeners);
        }
    }

    // === the end ===

    /// Every worker finishes what it has; a second signal or the deadline cuts it short.
    async fn drain(&mut self, inputs: &mut Inputs, beat: &mut tokio::time::Interval) -> ExitCode {
        let timeout = self.running.config.shutdown.drain_timeout;
        tracing::info!(?timeout, "draining: nothing new is accepted");
        self.running.state.set_readiness(Readiness::Draining);
        self.running.supervisor.drain();
        for worker in &self.running.workers {
            worker.inbox.drain();
        }
        let deadline = tokio::time::sleep(timeout);
        let mut deadline = std::pin::pin!(deadline);
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    if self.running.workers.iter().all(Handle::has_ended) {
                        tracing::info!("drained");
                        return ExitCode::SUCCESS;
                    }
                    self.beat_lists(Instant::now());
                    self.running.supervisor.beat(&self.running.workers, Instant::now());
                    attack::beat(&mut self.running, Instant::now());
                }
                Some(order) = inputs.orders.recv() => order.carry_out(&mut self.running),
                () = self.running.lists.event() => drop(enforce(&mut self.running, Instant::now())),
                order = inputs.signals.next() => match order {
                    Order::Shutdown => {
                        tracing::warn!("second signal: ending now, requests in flight are cut");
                        return ExitCode::FAILURE;
                    }
                    Order::Reload => tracing::warn!("draining: the configuration is not read again"),
                    Order::ReopenLogs => self.running.access_log.reopen(),
                },
                () = &mut deadline => {
                    tracing::warn!(?timeout, "drain timeout: ending now, requests in flight are cut");
                    return ExitCode::FAILURE;
                }
            }
        }
    }

    /// Takes everything down.
    async fn end(self, code: ExitCode) -> ExitCode {
        let Running { workers, supervisor, access_log, mut lists, socket, .. } = self.running;
        for worker in &workers {
            worker.inbox.stop();
        }
        // A worker that hangs must not keep the process; its thread ends with it.
        let patience = Instant::now() + Duration::from_secs(1);
        while !workers.iter().all(Handle::has_ended) && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut sound = true;
        for worker in workers {
            if worker.has_ended() {
                sound &= worker.join();
            }
        }
        lists.finish();
        drop(socket);
        // Detaches the kernel's programs.
        drop(supervisor);
        if !access_log.close(LOG_FLUSH) {
            tracing::warn!("the access log was not written to its end");
        }
        if sound { code } else { ExitCode::FAILURE }
    }
}

/// The reload that is being read, when it is; waits for ever when there is none.
async fn finished(
    reading: &mut Option<JoinHandle<Result<Candidate, Refusal>>>,
) -> Result<Candidate, Refusal> {
    let Some(handle) = reading else { return std::future::pending().await };
    let result = handle.await;
    *reading = None;
    result.unwrap_or_else(|error| Err(Refusal::Invalid(vec![format!("reading failed: {error}")])))
}

// === impl Signals ===

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Shutdown,
            _ = self.interrupt.recv() => Order::Shutdown,
            _ = self.hangup.recv() => Order::Reload,
            _ = self.user1.recv() => Order::ReopenLogs,
        }
    }
}
