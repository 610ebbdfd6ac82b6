//! What the whole-program tests share: the daemon, backends, clients and networks of a test, each a guard that ends
//! what it started when it is dropped. Nothing here knows the inside of the proxy; it is met over sockets, files and
//! exit codes, as an operator meets it.
//!
//! ```text
//! scene.rs       a daemon between its backends and a client       turn.rs      whose turn it is on the machine
//! spooky.rs      the daemon: config, start, stop, logs, memory     config.rs    configurations, as values
//! backend.rs     the origin as a child process or a thread         clients.rs   the Python HTTP/3 clients
//! netns.rs       network namespaces with a multi-queue veth pair   ../relay/    a UDP path that loses, slows, rebinds
//! metrics.rs     scrape and compare                                certs.rs     a certificate authority of the test's own
//! wait.rs        until a state or a deadline                       privilege.rs what needs root says so aloud
//! hostile.rs     a backend that breaks HTTP/2                      programs.rs  where the binaries are
//! control.rs     the control socket and `spooky ctl`
//! http1.rs       one GET, for the admin port                    oracle.rs     an honest client beside an attack
//! empty.rs       an XDP program that does nothing
//! bpf.rs         the maps a daemon holds                           ports.rs     free ports; process.rs a child as a guard
//! ../load/       socket.rs, train.rs, timers.rs: GSO, GRO and deadlines of the load generator and the floor server
//! ```

pub mod backend;
pub mod bpf;
pub mod certs;
pub mod clients;
pub mod config;
pub mod control;
pub mod empty;
pub mod hostile;
pub mod http1;
pub mod metrics;
pub mod netns;
pub mod oracle;
#[path = "../origin/mod.rs"]
pub mod origin;
pub mod ports;
pub mod privilege;
pub mod process;
pub mod programs;
#[path = "../relay/mod.rs"]
pub mod relay;
pub mod scene;
#[path = "../load/socket.rs"]
pub mod socket;
pub mod spooky;
#[path = "../load/timers.rs"]
pub mod timers;
#[path = "../load/train.rs"]
pub mod train;
pub mod turn;
pub mod wait;

/// Built with AddressSanitizer (`cargo xtask nightly`): memory and time are mostly its own, and no figures of spooky.
pub const SANITIZED: bool = cfg!(asan);

/// Whether the long runs are asked for (`cargo xtask test --soak`): the sizes, counts and seeds of the table of attacks,
/// where an ordinary run takes as much as shows the same in seconds.
pub fn soak() -> bool {
    std::env::var_os("SPOOKY_SOAK").is_some_and(|value| value == "1")
}
