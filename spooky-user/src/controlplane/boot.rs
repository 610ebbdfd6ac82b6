//! The order in which a process comes up: bind everything, load the kernel's programs, start the workers, attach. A failure
//! at any step leaves nothing behind, because everything made so far is owned here and dropped.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::admin::ProcessSource;
use super::config::{self, Config};
use super::figures::Figures;
use super::kernel::{Kernel, KernelError};
use super::listeners::{self, Listeners, PlanError};
use super::settings;
use super::supervise::Supervisor;
use crate::dataplane::proxy;
use crate::dataplane::quic::tls::CertificateError;
use crate::dataplane::worker::inbox::{Inbox, Order, Pulse};
use crate::dataplane::worker::stray::Strays;
use crate::dataplane::worker::{self, Handle, Setup, StartError};
use crate::id::WorkerId;
use crate::snapshot::Snapshot;
use crate::sys::affinity;
use crate::telemetry::access_log::{AccessLog, OpenError};
use crate::telemetry::metrics::Registry;

/// Everything that runs, in the order in which it is taken down.
#[derive(Debug)]
pub struct Running {
    /// The configuration in force.
    pub config: Config,
    /// The workers.
    pub workers: Vec<Handle>,
    /// What keeps the kernel's maps in step with the workers.
    pub supervisor: Supervisor,
    /// Where clients connect.
    pub listeners: Listeners,
    /// Where snapshots are published.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Metrics.
    pub registry: Arc<Registry>,
    /// Numbers of the control plane's own.
    pub figures: Arc<Figures>,
    /// The access log's writer.
    pub access_log: AccessLog,
    /// The admin listener, bound and not yet served.
    pub admin: TcpListener,
}

/// Why the process did not come up. One line, with the remedy.
#[derive(Debug)]
pub enum BootError {
    /// A listener cannot be opened.
    Listener(PlanError),
    /// The admin address cannot be bound.
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Certificates stopped being usable after they were checked.
    Certificates(Vec<CertificateError>),
    /// The kernel side was refused, and `ebpf.on_failure` is `abort`.
    Kernel(KernelError),
    /// The access log cannot be written.
    AccessLog(OpenError),
    /// A worker did not start.
    Worker(StartError),
}

/// Generation inside connection IDs. A later process that takes over from a running one counts it up.
const GENERATION: u8 = 0;

/// Brings everything up.
///
/// # Errors
///
/// [`BootError`]; nothing is left bound or attached then.
pub fn boot(config: Config) -> Result<Running, BootError> {
    let workers = usize::from(config.workers.count);
    let certificates =
        listeners::certificates(&config.listeners).map_err(BootError::Certificates)?;
    let mut listeners = Listeners::new(config.workers.count, GENERATION);
    let plan = listeners.plan(&config.listeners, certificates).map_err(BootError::Listener)?;
    let admin = TcpListener::bind(config.admin.bind)
        .map_err(|error| BootError::Admin { address: config.admin.bind, error })?;
    let kernel = Kernel::load(&settings::kernel(&config.ebpf)).map_err(BootError::Kernel)?;
    let registry = Arc::new(Registry::new(workers));
    let figures = Arc::new(Figures::new(workers));
    let strays = Arc::new(Strays::new(workers));
    let mut supervisor =
        Supervisor::new(kernel, GENERATION, Arc::clone(&strays), Arc::clone(&figures), workers);
    for opening in &plan.open {
        supervisor.open(opening).map_err(BootError::Kernel)?;
    }
    let access_log = AccessLog::open(&settings::access_log(&config.access_log), workers)
        .map_err(BootError::AccessLog)?;
    registry.add_source(Arc::new(ProcessSource::new()));
    registry.add_source(access_log.source());
    registry.add_source(Arc::clone(&figures) as _);
    let orders = listeners.take(plan, Instant::now());
    supervisor.set_listeners(&listeners);
    supervisor.set_weights(&config.workers.weights);
    supervisor.set_access(&config.access);
    let first = config::compile(&config, listeners.names(), None, &registry);
    let snapshot = Arc::new(ArcSwap::from_pointee(first));
    let start = Start {
        config: &config,
        snapshot: &snapshot,
        registry: &registry,
        access_log: &access_log,
        strays: &strays,
    };
    let handles = start.workers(orders)?;
    Ok(Running {
        config,
        workers: handles,
        supervisor,
        listeners,
        snapshot,
        registry,
        figures,
        access_log,
        admin,
    })
}

/// What workers are made from.
struct Start<'b> {
    config: &'b Config,
    snapshot: &'b Arc<ArcSwap<Snapshot>>,
    registry: &'b Arc<Registry>,
    access_log: &'b AccessLog,
    strays: &'b Arc<Strays>,
}

impl Start<'_> {
    /// Starts every worker, each with what it opens. On failure those that run are told to stop.
    fn workers(&self, orders: Vec<Vec<Order>>) -> Result<Vec<Handle>, BootError> {
        let cores = if self.config.workers.pin {
            affinity::allowed_cpus().unwrap_or_default()
        } else {
            Vec::new()
        };
        let mut handles: Vec<Handle> = Vec::new();
        for (number, orders) in (0..).zip(orders) {
            let core = cores.get(usize::from(number) % cores.len().max(1)).copied();
            match worker::spawn(self.setup(WorkerId(number), core, orders)) {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    for handle in handles {
                        handle.inbox.stop();
                        let _ = handle.join();
                    }
                    return Err(BootError::Worker(error));
                }
            }
        }
        Ok(handles)
    }

    fn setup(&self, id: WorkerId, core: Option<usize>, orders: Vec<Order>) -> Setup {
        let metrics = self.registry.worker(id);
        Setup {
            id,
            generation: GENERATION,
            workers: usize::from(self.config.workers.count),
            core,
            orders,
            strays: Arc::clone(self.strays),
            inbox: Arc::new(Inbox::new()),
            pulse: Arc::new(Pulse::new()),
            proxy: proxy::Parts {
                worker: id,
                metrics: Arc::clone(&metrics),
                access_log: self.access_log.worker(id, metrics),
                unrouted: self.registry.unrouted(),
                snapshot: Arc::clone(self.snapshot),
            },
        }
    }
}

// === impl BootError ===

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(error) => error.fmt(f),
            Self::Admin { address, error } => {
                write!(f, "admin: cannot bind tcp {address}: {error}")?;
                bind_hint(f, error, "admin.bind", address.port(), "ss -tlpn")
            }
            Self::Certificates(errors) => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("; "))
            }
            Self::Kernel(error) => write!(f, "ebpf: {error}"),
            Self::AccessLog(error) => write!(f, "access_log: {error}"),
            Self::Worker(error) => error.fmt(f),
        }
    }
}

/// What to do about a failed bind.
pub(super) fn bind_hint(
    f: &mut fmt::Formatter<'_>,
    error: &io::Error,
    what: &str,
    port: u16,
    list: &str,
) -> fmt::Result {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            write!(f, "; another process (perhaps another {what}) has it: `{list}` shows which")
        }
        io::ErrorKind::PermissionDenied if port < 1024 => {
            write!(f, "; ports below 1024 need CAP_NET_BIND_SERVICE")
        }
        io::ErrorKind::AddrNotAvailable => {
            write!(f, "; no interface has this address: `ip address` shows those there are")
        }
        _ => Ok(()),
    }
}

impl std::error::Error for BootError {}
