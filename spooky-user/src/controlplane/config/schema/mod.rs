//! The file as written: every key with its default, range, reload class and manual entry. Values are checked one by one here
//! and against each other in `check`. May import: read, units.
//!
//! The doc comment of a key is its entry in `docs/configuration/reference.md`: write it for the operator.

mod abuse;
mod host;
mod listener;
mod route;
mod upstream;

pub use abuse::{Abuse, AbuseMode, AbuseWeights};
pub use host::{
    Access, AccessDefault, AccessLog, AccessLogFormat, Admin, AfXdp, AfXdpMode, Attach, AttackMode,
    AttackModeChoice, Ebpf, EbpfMode, Flood, Level, Log, LogFormat, OnFailure, Overload,
    PlacementBy, Privileges, Sandbox, Shutdown, SocketAccess, Strangers, User, WorkerCount,
    Workers,
};
pub use listener::{
    AddressValidation, Certificate, CidSection, Congestion, ConnectionWindow, Http3, Listener,
    Protocol, Quic, Resets, StatelessReset, StreamWindow, Tls, ValidationMode,
};
pub use route::{BodyLimit, Counted, Match, RateLimit, Route};
pub use upstream::{
    Endpoint, HashOn, HealthCheck, Http2, Keepalive, LoadBalancing, Policy, Pool, Retry, Timeouts,
    TlsVersion, Upstream, UpstreamTls,
};

use super::read::{Named, section};

section! {
    /// The whole file.
    pub struct File {
        /// Version of this file's language. There is only 1.
        version: u32 = "1", "1" ..= "1", restart;
        /// What spooky says about itself.
        log: Log = "{}";
        /// One line for each request.
        access_log: AccessLog = "{}";
        /// The threads that serve.
        workers: Workers = "{}";
        /// Where clients connect. At least one.
        listeners: Vec<Listener> = required;
        /// The kernel programs that steer packets to the worker that owns their connection.
        ebpf: Ebpf = "{}";
        /// Which source addresses may connect. In mode `xdp` the kernel drops the others' packets before the network stack
        /// sees them; without it, spooky drops them.
        access: Access = "{}";
        /// What is done about clients that do harm.
        abuse: Abuse = "{}";
        /// Groups of backends, by a name of your choice. At least one.
        upstreams: Named<Upstream> = required;
        /// Which requests go to which upstream. At least one. The order does not matter: the most specific host wins, then
        /// the most specific path.
        routes: Vec<Route> = required;
        /// Metrics and health, over HTTP/1.1.
        admin: Admin = "{}";
        /// What the process gives up once everything is open that needs privilege.
        privileges: Privileges = "{}";
        /// What is given up when memory is scarce.
        overload: Overload = "{}";
        /// What SIGTERM does.
        shutdown: Shutdown = "{}";
    }
}
