//! The order in which a process comes up: bind everything, load the kernel's programs, start the workers, attach. A failure
//! at any step leaves nothing behind, because everything made so far is owned here and dropped.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use arc_swap::ArcSwap;
use spooky_common::cid::Owner;

use super::admin::ProcessSource;
use super::config::{self, Config, Listener};
use super::figures::Figures;
use super::kernel::{Kernel, KernelError};
use super::settings;
use super::supervise::Supervisor;
use crate::dataplane::packet::udp;
use crate::dataplane::proxy;
use crate::dataplane::quic::cid::Secrets;
use crate::dataplane::quic::tls::{CertificateError, CertificateStore, TicketKey};
use crate::dataplane::worker::inbox::{Inbox, Pulse};
use crate::dataplane::worker::stray::Strays;
use crate::dataplane::worker::{self, Handle, ListenerSetup, Setup, StartError};
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
    /// Where snapshots are published.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where certificates are published, by listener.
    pub certificates: Vec<Arc<ArcSwap<CertificateStore>>>,
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
    /// A listener's address cannot be bound.
    Bind {
        /// The listener's name.
        listener: String,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The admin address cannot be bound.
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A certificate stopped being usable after it was checked.
    Certificate(CertificateError),
    /// The kernel side was refused, and `ebpf.on_failure` is `abort`.
    Kernel(KernelError),
    /// The access log cannot be written.
    AccessLog(OpenError),
    /// A worker did not start.
    Worker(StartError),
}

/// The sockets of one listener, one for each worker, all in one SO_REUSEPORT group.
struct Bound {
    address: SocketAddr,
    sockets: Vec<UdpSocket>,
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
    let bound = config
        .listeners
        .iter()
        .map(|listener| bind(listener, workers))
        .collect::<Result<Vec<_>, _>>()?;
    let admin = TcpListener::bind(config.admin.bind)
        .map_err(|error| BootError::Admin { address: config.admin.bind, error })?;
    let secrets = secrets(&config.listeners);
    let kernel = load_kernel(&config, &bound)?;
    let registry = Arc::new(Registry::new(workers));
    let figures = Arc::new(Figures::new(workers));
    let access_log = AccessLog::open(&settings::access_log(&config.access_log), workers)
        .map_err(BootError::AccessLog)?;
    registry.add_source(Arc::new(ProcessSource::new()));
    registry.add_source(access_log.source());
    registry.add_source(Arc::clone(&figures) as _);
    let snapshot = Arc::new(ArcSwap::from_pointee(config::compile(&config, None, &registry)));
    let certificates = certificates(&config)?;
    let strays = Arc::new(Strays::new(workers));
    let addresses: Vec<SocketAddr> = bound.iter().map(|it| it.address).collect();
    let start = Start {
        config: &config,
        certificates: &certificates,
        secrets: &secrets,
        snapshot: &snapshot,
        registry: &registry,
        access_log: &access_log,
        strays: &strays,
        ticket_keys: config.listeners.iter().map(|_| TicketKey::random()).collect(),
    };
    let handles = start.workers(bound)?;
    let keys = keys(&config.listeners, &secrets);
    let supervisor = Supervisor::new(
        kernel,
        GENERATION,
        &addresses,
        keys,
        &config.access,
        strays,
        Arc::clone(&figures),
        workers,
    );
    Ok(Running {
        config,
        workers: handles,
        supervisor,
        snapshot,
        certificates,
        registry,
        figures,
        access_log,
        admin,
    })
}

/// Binds one socket for each worker.
fn bind(listener: &Listener, workers: usize) -> Result<Bound, BootError> {
    let failed = |error| BootError::Bind {
        listener: listener.name.to_string(),
        address: listener.bind,
        error,
    };
    // SO_REUSEPORT would let us join the group of another process and take its packets: first make sure that the address
    // is nobody's. The probe is closed again before the group is made.
    let probe = UdpSocket::bind(listener.bind).map_err(failed)?;
    let address = probe.local_addr().map_err(failed)?;
    drop(probe);
    let sockets =
        (0..workers).map(|_| udp::bind(address)).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    Ok(Bound { address, sockets })
}

/// The secrets of each listener; listeners with one config ID and no key file share the random ones.
fn secrets(listeners: &[Listener]) -> Vec<Secrets> {
    let mut made: HashMap<u8, Secrets> = HashMap::new();
    listeners
        .iter()
        .map(|listener| {
            let cid = &listener.cid;
            let mut secrets = match &cid.key {
                Some(key) => Secrets::from_bytes(cid.config_id, cid.server_id, &key.0),
                None => made
                    .entry(cid.config_id)
                    .or_insert_with(|| Secrets::random(cid.config_id, cid.server_id))
                    .clone(),
            };
            secrets.server_id = cid.server_id;
            secrets
        })
        .collect()
}

/// What the kernel's KEYS map holds.
fn keys(listeners: &[Listener], secrets: &[Secrets]) -> [Option<spooky_common::cid::LocalKey>; 7] {
    let mut keys = [None; 7];
    for (listener, secrets) in listeners.iter().zip(secrets) {
        if let Some(slot) = keys.get_mut(usize::from(listener.cid.config_id)) {
            *slot = Some(secrets.local_key);
        }
    }
    keys
}

fn load_kernel(config: &Config, bound: &[Bound]) -> Result<Kernel, BootError> {
    let mut kernel = Kernel::load(&settings::kernel(&config.ebpf)).map_err(BootError::Kernel)?;
    for (index, listener) in (0..).zip(bound) {
        let sockets: Vec<_> = (0..=u8::MAX)
            .zip(&listener.sockets)
            .map(|(worker, socket)| (Owner { worker, generation: GENERATION }, socket.as_fd()))
            .collect();
        kernel.join_group(index, &sockets).map_err(BootError::Kernel)?;
    }
    Ok(kernel)
}

fn certificates(config: &Config) -> Result<Vec<Arc<ArcSwap<CertificateStore>>>, BootError> {
    config
        .listeners
        .iter()
        .map(|listener| match CertificateStore::load(&listener.certificates) {
            Ok(store) => Ok(Arc::new(ArcSwap::from_pointee(store))),
            Err(errors) => Err(errors.into_iter().next().map_or_else(
                || BootError::Worker(StartError::Died),
                |(_, error)| BootError::Certificate(error),
            )),
        })
        .collect()
}

/// What workers are made from.
struct Start<'b> {
    config: &'b Config,
    certificates: &'b [Arc<ArcSwap<CertificateStore>>],
    secrets: &'b [Secrets],
    snapshot: &'b Arc<ArcSwap<Snapshot>>,
    registry: &'b Arc<Registry>,
    access_log: &'b AccessLog,
    strays: &'b Arc<Strays>,
    /// By listener.
    ticket_keys: Vec<TicketKey>,
}

impl Start<'_> {
    /// Starts every worker. On failure those that run are told to stop.
    fn workers(&self, bound: Vec<Bound>) -> Result<Vec<Handle>, BootError> {
        let cores = if self.config.workers.pin {
            affinity::allowed_cpus().unwrap_or_default()
        } else {
            Vec::new()
        };
        let mut sockets: Vec<_> = bound.into_iter().map(|it| it.sockets.into_iter()).collect();
        let mut handles: Vec<Handle> = Vec::new();
        for number in 0..self.config.workers.count {
            let own = sockets.iter_mut().filter_map(Iterator::next).collect();
            let core = cores.get(usize::from(number) % cores.len().max(1)).copied();
            match worker::spawn(self.setup(WorkerId(number), core, own)) {
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

    fn setup(&self, id: WorkerId, core: Option<usize>, sockets: Vec<UdpSocket>) -> Setup {
        let metrics = self.registry.worker(id);
        let listeners = &self.config.listeners;
        let made = listeners
            .iter()
            .zip(sockets)
            .zip(self.certificates)
            .zip(self.secrets)
            .zip(&self.ticket_keys);
        Setup {
            id,
            generation: GENERATION,
            workers: usize::from(self.config.workers.count),
            core,
            listeners: made
                .map(|((((listener, socket), certificates), secrets), ticket_key)| ListenerSetup {
                    id: listener.id,
                    socket,
                    certificates: Arc::clone(certificates),
                    quic: listener.quic.clone(),
                    http3: listener.http3.clone(),
                    secrets: secrets.clone(),
                    ticket_key: ticket_key.clone(),
                })
                .collect(),
            strays: Arc::clone(self.strays),
            inbox: Arc::new(Inbox::new()),
            pulse: Arc::new(Pulse::new()),
            proxy: proxy::Parts {
                worker: id,
                metrics: Arc::clone(&metrics),
                access_log: self.access_log.worker(id, metrics),
                listeners: listeners.iter().map(|listener| Arc::clone(&listener.name)).collect(),
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
            Self::Bind { listener, address, error } => {
                write!(f, "listener {listener}: cannot bind udp {address}: {error}")?;
                hint(f, error, "spooky", address.port(), "ss -ulpn")
            }
            Self::Admin { address, error } => {
                write!(f, "admin: cannot bind tcp {address}: {error}")?;
                hint(f, error, "admin.bind", address.port(), "ss -tlpn")
            }
            Self::Certificate(error) => error.fmt(f),
            Self::Kernel(error) => write!(f, "ebpf: {error}"),
            Self::AccessLog(error) => write!(f, "access_log: {error}"),
            Self::Worker(error) => error.fmt(f),
        }
    }
}

/// What to do about a failed bind.
fn hint(
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
