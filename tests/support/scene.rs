//! The usual scene: backends `b1`, `b2`, ..., a daemon in front of them, and where clients find it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::backend::Backend;
use crate::certs::{Authority, KeyType};
use crate::clients::Target;
use crate::config::Config;
use crate::ports;
use crate::spooky::Spooky;
pub use crate::turn::Turn;
use rustix::process::Signal;
use serde_json::Value;

/// Enough for any exchange that is not meant to be slow.
pub const SOON: Duration = Duration::from_secs(30);
/// Enough for long loads on a busy machine.
pub const LONG: Duration = Duration::from_secs(300);

/// Fields are dropped in this order: the daemon goes before its backends, the turn last.
#[derive(Debug)]
pub struct Scene {
    pub spooky: Spooky,
    pub backends: Vec<Backend>,
    pub target: Target,
    pub authority: Authority,
    config: Config,
    admin: SocketAddr,
    turn: Turn,
}

impl Scene {
    /// `count` backends, everything forwarded to them in turn.
    pub fn new(count: usize) -> Self {
        Self::with(Turn::shared(), count, |config, backends| config.forward(backends))
    }

    /// The same with the machine to itself.
    pub fn alone(count: usize) -> Self {
        Self::with(Turn::alone(), count, |config, backends| config.forward(backends))
    }

    /// `count` backends and a configuration that knows them.
    pub fn with(
        turn: Turn,
        count: usize,
        configure: impl FnOnce(Config, &[SocketAddr]) -> Config,
    ) -> Self {
        let backends = (1..=count).map(|n| Backend::start(&format!("b{n}"))).collect();
        Self::before(turn, backends, configure)
    }

    /// A daemon in front of these backends.
    pub fn before(
        turn: Turn,
        backends: Vec<Backend>,
        configure: impl FnOnce(Config, &[SocketAddr]) -> Config,
    ) -> Self {
        let authority = Authority::new();
        let leaf = authority.leaf("edge", &["localhost"], KeyType::Ecdsa);
        let (edge, admin) = (loopback(), loopback());
        let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
        let config = configure(Config::new(edge, admin, &leaf), &addresses);
        let spooky = Spooky::start(&config, admin);
        let target = Target::new(edge, authority.file());
        Self { spooky, backends, target, authority, config, admin, turn }
    }

    /// Kills the daemon, so that no client hears of it, and starts another from the same file.
    ///
    /// # Panics
    /// When there is no other.
    pub fn restart(&mut self) {
        self.spooky.process().signal(Signal::KILL);
        self.spooky.process().wait(SOON);
        self.spooky = Spooky::start(&self.config, self.admin);
    }

    /// One counter of every backend, added up.
    pub fn backend_count(&self, counter: &str) -> u64 {
        self.backends.iter().map(|backend| backend.count(counter)).sum()
    }

    /// Ends the daemon and gives the turn on.
    pub fn stop(self) -> std::process::ExitStatus {
        let Self { spooky, backends, turn, .. } = self;
        let status = spooky.stop();
        drop((backends, turn));
        status
    }
}

/// A free port on IPv4 loopback.
pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

/// Asserts a complete 200.
#[track_caller]
pub fn assert_ok(answer: &Value) {
    assert_eq!((&answer["status"], &answer["end"]), (&200.into(), &"clean".into()), "{answer:#}");
}

/// The first value of a field of an answer.
pub fn field<'a>(answer: &'a Value, name: &str) -> Option<&'a str> {
    fields(answer, name).into_iter().next()
}

/// Every value of a field of an answer.
pub fn fields<'a>(answer: &'a Value, name: &str) -> Vec<&'a str> {
    let lines = answer["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.iter().filter(|line| line[0] == name).filter_map(|line| line[1].as_str()).collect()
}

/// The body of an answer as JSON.
#[track_caller]
pub fn body_json(answer: &Value) -> Value {
    let body = answer["body"].as_str().unwrap_or_default();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer:#}"))
}
