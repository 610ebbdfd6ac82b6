//! The configuration, checked: plain values without units, nothing in it can be wrong. May import: the compiled types of the
//! data plane, id, schema's choices.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::super::{abuse, attack};
use super::schema::{Attach, EbpfMode, Level, LogFormat, OnFailure, Sandbox, SocketAccess, User};
use crate::dataplane::balance::{HashOn, Policy};
use crate::dataplane::filter::rate_limit;
use crate::dataplane::quic::settings::{Http3Settings, QuicSettings};
use crate::dataplane::quic::tls::CertificateFiles;
use crate::dataplane::route::{HostPattern, PathPattern};
use crate::dataplane::upstream::cluster::{HealthCheck, RetryBudget, Settings};
use crate::id::ClusterId;
use crate::sys::xsk::Transfer;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// That file and every other that it names.
    pub files: Vec<PathBuf>,
    /// What is given up once everything is open.
    pub privileges: Privileges,
    /// What spooky says about itself.
    pub log: Log,
    /// Where request lines go.
    pub access_log: AccessLog,
    /// The threads that serve.
    pub workers: Workers,
    /// At least one, at most [`spooky_common::map::LISTENERS_CAPACITY`].
    pub listeners: Vec<Listener>,
    /// Kernel programs.
    pub ebpf: Ebpf,
    /// Who may connect.
    pub access: Access,
    /// What is done about clients that do harm.
    pub abuse: abuse::Settings,
    /// At least one, by [`ClusterId`].
    pub upstreams: Vec<UpstreamConfig>,
    /// At least one, by [`crate::id::RouteId`].
    pub routes: Vec<RouteConfig>,
    /// Metrics and health.
    pub admin: Admin,
    /// What is given up when memory is scarce.
    pub overload: Overload,
    /// What SIGTERM does.
    pub shutdown: Shutdown,
}

/// What spooky says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe messages that are written.
    pub level: Level,
    /// Text or JSON.
    pub format: LogFormat,
}

/// Where request lines go; always JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where.
    pub destination: LogDestination,
}

/// Where a log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDestination {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file, made if it is not there.
    File(PathBuf),
}

/// The threads that serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// 1..=256; `auto` is already a number here.
    pub count: u16,
    /// Keep each on one CPU.
    pub pin: bool,
    /// Share of new connections by worker, one for each; not all 0.
    pub weights: Vec<u16>,
    /// Who has more to do than others gets fewer.
    pub follows_load: bool,
}

/// What there may be in all, and what is given up when memory is scarce. Percentages are of the limit and do not fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// Connections of all listeners together.
    pub max_connections: usize,
    /// The limit in octets; `None` is that of the cgroup.
    pub memory: Option<u64>,
    /// New connections are refused from here on.
    pub stop_connections_percent: u8,
    /// New requests, too.
    pub stop_requests_percent: u8,
    /// The newest connections are closed.
    pub shed_percent: u8,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name in the file, unique.
    pub name: Arc<str>,
    /// Address and UDP port; port 0 is any free one.
    pub bind: SocketAddr,
    /// At least one; all of them load.
    pub certificates: Vec<CertificateFiles>,
    /// Transport limits.
    pub quic: QuicSettings,
    /// HTTP/3 limits.
    pub http3: Http3Settings,
    /// How connection IDs are made.
    pub cid: CidSettings,
}

/// How a listener's connection IDs are made. Listeners with the same `config_id` have the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidSettings {
    /// 0..=6.
    pub config_id: u8,
    /// This machine, to a load balancer.
    pub server_id: [u8; 3],
    /// From the key file; `None` is a key made at start.
    pub key: Option<CidKey>,
}

/// AES-128 key and SipHash key, 16 octets each. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct CidKey(pub [u8; 32]);

/// Kernel programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ebpf {
    /// Which run.
    pub mode: EbpfMode,
    /// Where XDP attaches: `Some` in mode xdp, an interface that was there when the file was read.
    pub interface: Option<String>,
    /// How XDP attaches.
    pub attach: Attach,
    /// What a refusal of the kernel does.
    pub on_failure: OnFailure,
    /// Every so manieth drop is sampled, for each CPU, receive queue and reason; 0 for none.
    pub sample_drops: u32,
    /// What XDP ends besides.
    pub flood: Flood,
    /// What is different while there is an attack.
    pub attack: attack::Settings,
    /// The way past the stack; `None` is none, and in any mode but xdp.
    pub af_xdp: Option<AfXdp>,
}

/// AF_XDP sockets at the receive queues of [`Ebpf::interface`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfXdp {
    /// Whether the kernel copies.
    pub transfer: Transfer,
    /// For each queue and direction: a power of two.
    pub frames: u32,
    /// Microseconds; `None` is no busy polling.
    pub busy_poll: Option<u32>,
    /// For each queue, beside the one at work.
    pub spare_sockets: usize,
}

/// What XDP drops or answers without a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// Drop what every worker would refuse.
    pub refuse_early: bool,
    /// Packets that open connections, for each prefix.
    pub new_connections: PacketRate,
    /// Version Negotiation packets a second; 0: the workers'.
    pub version_negotiation: u32,
}

/// Packets in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRate {
    /// A second; 0 for no limit.
    pub rate: u32,
    /// At once.
    pub burst: u32,
}

/// Who may connect: allowed networks, then not the denied ones, then by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Addresses in no list.
    pub default_deny: bool,
    /// From the file and the list files; no repetitions, host bits cleared, sorted. At most
    /// [`spooky_common::map::ALLOW_CAPACITY`] of each IP version.
    pub allow: Vec<IpNet>,
    /// In the same way; at most [`spooky_common::map::DENY_CAPACITY`] of each IP version.
    pub deny: Vec<IpNet>,
    /// Where each of them comes from: `access.allow`, `access.deny`, then the files.
    pub sources: Vec<AccessSource>,
    /// Room for entries that come and go.
    pub dynamic_max: usize,
    /// Where those are kept; a whole path.
    pub state_file: Option<PathBuf>,
    /// They are not enforced.
    pub dry_run: bool,
}

/// Networks of one list from one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessSource {
    /// Of the deny list; else of the allow list.
    pub deny: bool,
    /// The file; `None` for the configuration itself.
    pub file: Option<PathBuf>,
    /// Sorted, each once.
    pub networks: Arc<[IpNet]>,
}

/// A group of backends.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// The name in the file, unique.
    pub name: Arc<str>,
    /// Which endpoint a request goes to.
    pub policy: Policy,
    /// The key of the hash policies.
    pub hash_on: HashOn,
    /// How often one request may be tried, 1..=10.
    pub attempts: u8,
    /// How many requests one worker tries again at once.
    pub retry_budget: RetryBudget,
    /// Limits of connections, TLS.
    pub settings: Arc<Settings>,
    /// Active probing.
    pub health_check: Option<HealthCheck>,
    /// At least one.
    pub endpoints: Vec<EndpointConfig>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Unique in its upstream.
    pub name: Arc<str>,
    /// Where to connect; names are resolved.
    pub address: SocketAddr,
    /// 1..=65535.
    pub weight: u16,
}

/// Which requests go where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Unique.
    pub name: Arc<str>,
    /// Any of these; empty is every host.
    pub hosts: Vec<HostPattern>,
    /// And this.
    pub path: PathPattern,
    /// Place in [`Config::upstreams`].
    pub upstream: ClusterId,
    /// Octets of content a request may have; `u64::MAX` is no limit.
    pub request_body_max: u64,
    /// How many requests there may be.
    pub rate_limit: Option<rate_limit::Settings>,
}

/// Metrics and health, and control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// A loopback address; port 0 is any free one.
    pub bind: SocketAddr,
    /// The control socket's whole path, if there is to be one.
    pub socket: Option<PathBuf>,
    /// Who may connect to it.
    pub socket_access: SocketAccess,
}

/// What is given up once everything is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// Who serves.
    pub user: User,
    /// Whether system calls and files are forbidden that serving has no use for.
    pub sandbox: Sandbox,
}

/// What SIGTERM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long requests in flight may take.
    pub drain_timeout: Duration,
}

impl fmt::Debug for CidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CidKey(..)")
    }
}
