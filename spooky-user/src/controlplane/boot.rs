//! The order in which a process comes up: bind everything, load and attach the kernel's programs, give up every right that
//! was needed for it, start the workers. A failure at any step leaves nothing behind, because everything made so far is owned
//! here and dropped.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::abuse;
use super::admin::socket::{ControlSocket, SocketError};
use super::admin::{self, ProcessSource};
use super::attack::Attack;
use super::config::{self, Config, schema};
use super::confine::{ConfineError, Confined, confine};
use super::figures::Figures;
use super::kernel::{Kernel, KernelError, Running as Steering};
use super::listeners::{self, Listeners, PlanError};
use super::lists::Lists;
use super::overload::Watch;
use super::queues::{QueueError, Queues};
use super::settings;
use super::supervise::Supervisor;
use super::workers::{Makings, Revival};
use crate::dataplane::abuse::Reports;
use crate::dataplane::filter::ip_access::AccessList;
use crate::dataplane::pressure::Pressure;
use crate::dataplane::quic::tls::CertificateError;
use crate::dataplane::worker::inbox::Order;
use crate::dataplane::worker::stray::Strays;
use crate::dataplane::worker::{Handle, StartError};
use crate::sys::privilege;
use crate::telemetry::access_log::{AccessLog, OpenError};
use crate::telemetry::metrics::Registry;

/// Everything that runs, in the order in which it is taken down.
#[derive(Debug)]
pub struct Running {
    /// The configuration in force.
    pub config: Config,
    /// The workers.
    pub workers: Vec<Handle>,
    /// When those that have ended start again.
    pub revival: Revival,
    /// What watches clients.
    pub abuse: abuse::Loop,
    /// Whether there is an attack.
    pub attack: Attack,
    /// What watches memory.
    pub memory: Watch,
    /// What they are made from.
    pub makings: Makings,
    /// What keeps the kernel's maps in step with the workers.
    pub supervisor: Supervisor,
    /// Who may connect.
    pub lists: Lists,
    /// Where clients connect.
    pub listeners: Listeners,
    /// Numbers of the control plane's own.
    pub figures: Arc<Figures>,
    /// The access log's writer.
    pub access_log: AccessLog,
    /// The admin listener, bound and not yet served.
    pub admin: TcpListener,
    /// What the admin port and the control socket show.
    pub state: Arc<admin::State>,
    /// The control socket, bound and not yet served, if there is to be one.
    pub socket: Option<ControlSocket>,
    /// What rights it has left.
    pub confined: Confined,
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
    /// The control socket cannot be bound.
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: SocketError,
    },
    /// Certificates stopped being usable after they were checked.
    Certificates(Vec<CertificateError>),
    /// The kernel side was refused, and `ebpf.on_failure` is `abort`.
    Kernel(KernelError),
    /// Rights could not be given up.
    Confine(ConfineError),
    /// There are no AF_XDP sockets, and `ebpf.on_failure` is `abort`.
    Queues(QueueError),
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
    let socket = control_socket(&config.admin)?;
    let kernel = Kernel::load(&settings::kernel(&config.ebpf)).map_err(BootError::Kernel)?;
    let registry = Arc::new(Registry::new(workers));
    let state = Arc::new(admin::State::new(Arc::clone(&registry)));
    let figures = Arc::new(Figures::new(workers));
    let strays = Arc::new(Strays::new(workers));
    let (strays_too, figures_too) = (Arc::clone(&strays), Arc::clone(&figures));
    let mut supervisor =
        Supervisor::new(kernel, queues(&config), GENERATION, strays_too, figures_too, &registry);
    for opening in &plan.open {
        supervisor.open(opening).map_err(BootError::Kernel)?;
    }
    let mut orders = listeners.take(plan, Instant::now());
    supervisor.set_listeners(&listeners);
    supervisor.set_placement(&config.workers.weights, config.workers.follows_load);
    supervisor.set_flood(&config.ebpf.flood);
    let mut first = config::compile(&config, listeners.names(), None, &registry);
    let lists = lists(&config, &mut supervisor, &registry, &mut first.access);
    supervisor.attach(Instant::now()).map_err(BootError::Kernel)?;
    open_queues(&mut supervisor, &config, &mut orders)?;
    // From here on nothing needs privilege, and the threads to come have none from their first moment.
    let maps = supervisor.kernel().running() != Steering::Off;
    let confined = confine(&config, maps).map_err(BootError::Confine)?;
    let access_log = AccessLog::open(&settings::access_log(&config.access_log), workers)
        .map_err(BootError::AccessLog)?;
    registry.add_source(Arc::new(ProcessSource::new()));
    registry.add_source(access_log.source());
    registry.add_source(Arc::clone(&figures) as _);
    let pressure = Arc::new(Pressure::default());
    let reports: Vec<Arc<Reports>> = (0..workers).map(|_| Arc::default()).collect();
    let makings = Makings {
        generation: GENERATION,
        count: config.workers.count,
        pin: config.workers.pin,
        snapshot: Arc::new(ArcSwap::from_pointee(first)),
        registry,
        strays,
        pressure: Arc::clone(&pressure),
        reports: reports.clone(),
    };
    let handles = makings.start_all(&access_log, orders).map_err(BootError::Worker)?;
    let (abuse, attack) = watchers(&config, reports, &makings.registry);
    let memory = Watch::new(config.overload, workers, pressure, Arc::clone(&figures));
    Ok(Running {
        config,
        workers: handles,
        supervisor,
        abuse,
        attack,
        revival: Revival::new(workers, Instant::now()),
        memory,
        makings,
        lists,
        listeners,
        figures,
        access_log,
        admin,
        state,
        socket,
        confined,
    })
}

/// Who watches clients, and all of them together.
fn watchers(
    config: &Config,
    reports: Vec<Arc<Reports>>,
    registry: &Registry,
) -> (abuse::Loop, Attack) {
    let abuse = abuse::Loop::new(config.abuse.clone(), &config.access.allow, reports);
    registry.add_source(abuse.source());
    let attack = Attack::new(config.ebpf.attack);
    registry.add_source(attack.source());
    (abuse, attack)
}

/// The access lists, as the configuration and an earlier process leave them.
fn lists(
    config: &Config,
    supervisor: &mut Supervisor,
    registry: &Registry,
    access: &mut AccessList,
) -> Lists {
    let mut lists = Lists::new(&config.access, access, Instant::now());
    *access = lists.take_access().unwrap_or_default();
    registry.add_source(lists.figures());
    supervisor.set_access(lists.union());
    lists
}

fn control_socket(admin: &config::Admin) -> Result<Option<ControlSocket>, BootError> {
    let Some(path) = &admin.socket else { return Ok(None) };
    let mode = settings::socket_mode(admin.socket_access);
    let bound = ControlSocket::bind(path, mode);
    bound.map(Some).map_err(|error| BootError::Socket { path: path.clone(), error })
}

/// The interface of mode xdp; none is looked after in the others.
fn queues(config: &Config) -> Queues {
    let (ebpf, workers) = (&config.ebpf, usize::from(config.workers.count));
    let interface = ebpf.interface.as_deref().filter(|_| ebpf.mode == schema::EbpfMode::Xdp);
    Queues::new(interface, ebpf.af_xdp, GENERATION, workers)
}

/// Every worker gets the AF_XDP sockets of its queues.
fn open_queues(
    supervisor: &mut Supervisor,
    config: &Config,
    orders: &mut [Vec<Order>],
) -> Result<(), BootError> {
    match supervisor.open_queues() {
        Ok(opened) => {
            for (order, worker) in opened {
                if let Some(orders) = orders.get_mut(usize::from(worker)) {
                    orders.push(order);
                }
            }
            Ok(())
        }
        Err(error) if config.ebpf.on_failure == schema::OnFailure::Abort => {
            Err(BootError::Queues(error))
        }
        Err(error) => {
            tracing::warn!("no AF_XDP: {error}");
            Ok(())
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
            Self::Socket { path, error } => write!(f, "admin.socket: {}: {error}", path.display()),
            Self::Certificates(errors) => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("; "))
            }
            Self::Kernel(error) => write!(f, "ebpf: {error}"),
            Self::Queues(error) => write!(f, "ebpf.af_xdp: {error}"),
            Self::Confine(error) => error.fmt(f),
            Self::AccessLog(error) => {
                write!(f, "access_log: {error}")?;
                access_hint(f, error)
            }
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
            write!(
                f,
                "; ports below 1024 need CAP_NET_BIND_SERVICE, which spooky keeps only if a listener \
                 had such a port when it started: restart it"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            write!(f, "; no interface has this address: `ip address` shows those there are")
        }
        _ => Ok(()),
    }
}

/// What is opened after spooky has given up its rights has to be open to the user that it has become.
fn access_hint(f: &mut fmt::Formatter<'_>, error: &OpenError) -> fmt::Result {
    match error {
        OpenError::File { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
            let user = privilege::user();
            write!(f, "; user {user} has to be allowed to write there: privileges.user")
        }
        OpenError::File { .. } | OpenError::Thread(_) => Ok(()),
    }
}

impl std::error::Error for BootError {}
