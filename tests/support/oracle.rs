//! The health oracle: an honest client in a process of its own, from an address of its own, beside an attack. Whatever the
//! attack's own figures are, these hold: every answer of the oracle is whole, none is late, spooky lives, its memory and
//! CPU are bounded, and soon after the attack everything is as it was before.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::clients::{Client, Target};
use crate::metrics::Metrics;
use crate::origin::body::Content;
use crate::process::{self, Scheduling};
use crate::scene::Scene;
use crate::{turn, wait};

/// Where it comes from: attacks use other addresses of 127/8.
pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 77, 77));

/// Requests a second.
const RATE: u32 = 20;
/// Requests before the attack begins: a second of them, no more than are reckoned of the shortest attack.
const QUIET: u32 = 20;
/// A connection of the oracle is this old at most, in seconds.
const RENEW: u32 = 5;
const LENGTH: u64 = 4096;
const SEED: u64 = 77;

const MIB: u64 = 1 << 20;
/// What is always allowed for the slowest of a hundred answers.
const P99_FLOOR: f64 = 0.050;
/// CPU seconds of the server for each of the attacker.
const CPU_RATIO: f64 = 10.0;
/// CPU seconds that are no figure of anything.
const CPU_FLOOR: f64 = 0.5;
/// Everything is as before by then: connections whose clients do not close them live for the idle timeout of 30 s.
const RECOVERY: Duration = Duration::from_secs(40);
/// How often is looked whether they are: seldom, because other tests measure meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// What an attack may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Octets of resident memory that may come to what was there before, at the peak.
    pub memory: u64,
    /// Whether the CPU of the server is held against that of the attacker. Not where the attacker is a backend or a relay
    /// in the test's own process, whose CPU cannot be told from the test's.
    pub cpu: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { memory: 64 * MIB, cpu: true }
    }
}

/// Runs `attack` with the oracle beside it and asserts its figures. Both have the machine to themselves for that time, or
/// the figures would be those of a neighbour; whether everything is as before is looked at beside other tests.
///
/// # Panics
/// When a figure is missed; the message has all of them.
#[track_caller]
pub fn beside<R>(scene: &Scene, row: &str, attack: impl FnOnce() -> R) -> R {
    within(scene, row, Bounds::default(), attack)
}

/// As [`beside`], with other bounds than the usual.
///
/// # Panics
/// As [`beside`].
#[track_caller]
pub fn within<R>(scene: &Scene, row: &str, bounds: Bounds, attack: impl FnOnce() -> R) -> R {
    // It takes longer to start than many an attack takes.
    let oracle = witness(&scene.target.from(ADDRESS));
    let (result, verdict, before, cost) = turn::alone(|| measured(scene, oracle, attack));
    println!("{row}: {}", line(&verdict, &cost));
    let mut wrong = complaints(&verdict, &cost, bounds);
    wrong.push_str(&turn::resting(|| recovered(scene, &before)));
    assert!(wrong.is_empty(), "{row}, beside the attack:\n{wrong}{verdict:#}");
    result
}

/// The attack, what the oracle says of it, how it was before, and what it took.
fn measured<R>(
    scene: &Scene,
    mut oracle: Client,
    attack: impl FnOnce() -> R,
) -> (R, Value, Footing, Cost) {
    oracle.tell("begin");
    let first = Footing::of(scene);
    oracle.event("quiet", Duration::from_secs(60));
    let before = Footing::of(scene);
    scene.spooky.forget_peak();
    oracle.tell("attack");
    let result = attack();
    let after = Footing::of(scene);
    let peak = scene.spooky.peak_bytes();
    oracle.stop();
    let verdict = oracle.result(Duration::from_secs(60));
    let cost = Cost::between(&first, &before, &after, peak);
    (result, verdict, before, cost)
}

/// The client alone, for a test that judges by itself: it waits for `begin`, says `quiet` when its quiet time is over, reckons
/// from `attack` on, and its result has `requests`, `failures`, `p99` and `lateness` of both times.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn witness(target: &Target) -> Client {
    let args = json!({
        "path": format!("/bytes/{LENGTH}?seed={SEED}"),
        "sha256": Content::sha256(SEED, LENGTH),
        "rate": RATE,
        "renew": RENEW,
        "quiet": QUIET,
    });
    let mut client = target.start_oracle(args);
    client.event("ready", Duration::from_secs(60));
    client
}

/// What is held at one moment.
struct Footing {
    at: Instant,
    resident: u64,
    files: usize,
    /// CPU seconds of the daemon.
    server: f64,
    scheduling: Scheduling,
    /// CPU seconds of the children of this process that have ended: the attackers.
    attacker: f64,
    metrics: Metrics,
}

impl Footing {
    fn of(scene: &Scene) -> Self {
        Self {
            at: Instant::now(),
            resident: scene.spooky.resident_bytes(),
            files: scene.spooky.open_files(),
            server: scene.spooky.cpu_seconds(),
            scheduling: scene.spooky.scheduling(),
            attacker: process::cpu_seconds_of_ended_children(),
            metrics: scene.spooky.metrics(),
        }
    }

    /// Files that are open for other reasons than a connection to a backend: those come and go with load.
    fn files_but_links(&self) -> i64 {
        let links = self.metrics.sum("spooky_pool_connections_active", &[]);
        i64::try_from(self.files).unwrap_or(i64::MAX) - links as i64
    }

    fn streams(&self) -> f64 {
        self.metrics.sum("spooky_endpoint_streams_active", &[])
            + self.metrics.sum("spooky_requests_active", &[])
    }

    fn connections(&self) -> f64 {
        self.metrics.sum("spooky_connections_active", &[])
    }
}

/// What the attack took.
struct Cost {
    /// CPU seconds of the daemon, without what the oracle itself takes.
    server: f64,
    attacker: f64,
    /// How much longer everything took because the daemon had to wait for a CPU: 1 where it never did. Attackers, backends
    /// and clients share the machine with it, and perhaps others do.
    stretched: f64,
    /// Octets of memory at the peak, above what was there before.
    memory: u64,
}

impl Cost {
    fn between(first: &Footing, before: &Footing, after: &Footing, peak: u64) -> Self {
        let quiet = before.at.duration_since(first.at).as_secs_f64().max(0.1);
        let rate = (before.server - first.server) / quiet;
        let scheduling = after.scheduling.since(before.scheduling);
        let took = after.at.duration_since(before.at).as_secs_f64();
        Self {
            server: (after.server - before.server - rate * took).max(0.0),
            attacker: after.attacker - before.attacker,
            stretched: 1.0 + scheduling.waited.max(0.0) / scheduling.ran.max(0.01),
            memory: peak.saturating_sub(before.resident),
        }
    }
}

fn seconds(verdict: &Value, phase: &str, what: &str) -> f64 {
    verdict[phase][what].as_f64().unwrap_or(f64::MAX)
}

fn line(verdict: &Value, cost: &Cost) -> String {
    format!(
        "oracle: {} of {} answers whole, p99 {:.1} ms (quiet {:.1}, clock late by {:.1}, time stretched {:.1}), CPU {:.2} s for {:.2} s of \
         the attacker, peak {:.1} MB more",
        verdict["attack"]["requests"].as_u64().unwrap_or(0)
            - verdict["attack"]["failures"].as_u64().unwrap_or(0),
        verdict["attack"]["requests"],
        seconds(verdict, "attack", "p99") * 1e3,
        seconds(verdict, "quiet", "p99") * 1e3,
        seconds(verdict, "attack", "lateness") * 1e3,
        cost.stretched,
        cost.server,
        cost.attacker,
        cost.memory as f64 / 1e6,
    )
}

fn complaints(verdict: &Value, cost: &Cost, bounds: Bounds) -> String {
    let mut wrong = String::new();
    for phase in ["quiet", "attack"] {
        if verdict[phase]["failures"] != 0 {
            let _ = writeln!(wrong, "{phase}: not every answer is whole");
        }
    }
    if crate::SANITIZED {
        return wrong;
    }
    // Twice what the machine keeps this client waiting: the server waits for it as well.
    let late = 2.0 * seconds(verdict, "attack", "lateness");
    let quiet = (2.0 * seconds(verdict, "quiet", "p99")).max(P99_FLOOR);
    let allowed = quiet * cost.stretched + late;
    if seconds(verdict, "attack", "p99") > allowed {
        let _ = writeln!(wrong, "p99 above {:.1} ms", allowed * 1e3);
    }
    if bounds.cpu && cost.server > CPU_RATIO * cost.attacker + CPU_FLOOR {
        let _ = writeln!(wrong, "CPU of the server above {CPU_RATIO} times the attacker's");
    }
    if cost.memory > bounds.memory {
        let _ = writeln!(wrong, "memory above {} MiB more", bounds.memory / MIB);
    }
    wrong
}

/// What is not as before when [`RECOVERY`] is over.
fn recovered(scene: &Scene, before: &Footing) -> String {
    let resident = before.resident + before.resident / 10 + 8 * MIB;
    let mut left = String::new();
    let _recovered = wait::poll_every(LOOK, RECOVERY, || {
        let now = Footing::of(scene);
        left.clear();
        if now.resident > resident && !crate::SANITIZED {
            let _ = writeln!(
                left,
                "memory: {} KiB, before {}",
                now.resident >> 10,
                before.resident >> 10
            );
        }
        if now.files_but_links() > before.files_but_links() {
            let _ = writeln!(left, "open files: {}, before {}", now.files, before.files);
        }
        if now.streams() > before.streams() {
            let _ = writeln!(left, "streams: {}, before {}", now.streams(), before.streams());
        }
        if now.connections() > before.connections() {
            let _ = writeln!(
                left,
                "connections: {}, before {}",
                now.connections(),
                before.connections()
            );
        }
        left.is_empty().then_some(())
    });
    left
}
