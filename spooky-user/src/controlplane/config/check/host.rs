//! Checks of the process and the machine. May import: checked, schema.

use std::path::Path;
use std::thread;

use spooky_common::pace::Pace;

use super::Checker;
use crate::controlplane::attack;
use crate::controlplane::config::checked::{
    AccessLog, Admin, AfXdp, Ebpf, Flood, Log, LogDestination, Overload, PacketRate, Privileges,
    Shutdown, Workers,
};
use crate::controlplane::config::schema::{
    self, AfXdpMode, AttackModeChoice, EbpfMode, PlacementBy, Strangers, WorkerCount,
};
use crate::sys::xsk::Transfer;

/// The worker number has 8 bits in a connection ID.
const WORKERS_MAX: u16 = 256;
/// `sun_path` of unix(7), less its final zero.
const SOCKET_PATH_MAX: usize = 107;

pub(super) fn log(log: &schema::Log) -> Log {
    Log { level: log.level, format: log.format }
}

/// The weights of workers need a kernel program that follows them.
pub(super) fn workers(
    checker: &mut Checker<'_>,
    workers: &schema::Workers,
    mode: EbpfMode,
) -> Workers {
    let count = match workers.count {
        WorkerCount::Fixed(count) => count,
        WorkerCount::Auto => {
            let cpus = thread::available_parallelism().map_or(1, |count| count.get());
            u16::try_from(cpus).unwrap_or(WORKERS_MAX).min(WORKERS_MAX)
        }
    };
    let path = "workers.weights";
    let mut weights = workers.weights.clone();
    if weights.is_empty() {
        weights = vec![1; usize::from(count)];
    } else if !checker.is_faulty(path) {
        if weights.len() != usize::from(count) {
            let given = weights.len();
            let message = format!("has {given} numbers for {count} workers; write one for each");
            checker.problem(path, message);
        } else if weights.iter().all(|weight| *weight == 0) {
            checker.problem(path, "are all 0, so that nobody gets a new connection; raise one");
        }
        if mode == EbpfMode::Off {
            let message = "cannot be kept with ebpf.mode off, where the kernel's own hash spreads \
                           connections; write reuseport or xdp there, or leave weights out";
            checker.problem(path, message);
        }
    }
    let follows_load = workers.placement == PlacementBy::Load;
    Workers { count, pin: workers.pin, weights, follows_load }
}

pub(super) fn shutdown(shutdown: &schema::Shutdown) -> Shutdown {
    Shutdown { drain_timeout: shutdown.drain_timeout }
}

pub(super) fn access_log(checker: &mut Checker<'_>, log: &schema::AccessLog) -> Option<AccessLog> {
    let destination = match log.path.to_str() {
        Some("off") => LogDestination::Off,
        Some("stdout") => LogDestination::Stdout,
        Some("stderr") => LogDestination::Stderr,
        _ => {
            let path = "access_log.path";
            let folder = match log.path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            if log.path.is_dir() {
                checker.problem(path, format!("{} is a directory", log.path.display()));
                return None;
            }
            if !folder.is_dir() {
                checker.problem(path, format!("there is no directory {}", folder.display()));
                return None;
            }
            LogDestination::File(log.path.clone())
        }
    };
    Some(AccessLog { destination })
}

pub(super) fn admin(checker: &mut Checker<'_>, admin: &schema::Admin) -> Option<Admin> {
    let path = "admin.bind";
    let bind = checker.socket_address(path, &admin.bind)?;
    if !bind.ip().to_canonical().is_loopback() {
        let port = bind.port();
        checker.problem(
            path,
            format!(
                "{bind} can be reached from other machines, and the admin port asks nobody who \
                 they are; write \"127.0.0.1:{port}\" or \"[::1]:{port}\""
            ),
        );
    }
    if let Some(socket) = &admin.socket {
        control_socket(checker, socket);
    }
    Some(Admin { bind, socket: admin.socket.clone(), socket_access: admin.socket_access })
}

fn control_socket(checker: &mut Checker<'_>, socket: &Path) {
    let path = "admin.socket";
    if checker.is_faulty(path) {
        return;
    }
    let length = socket.as_os_str().len();
    match socket.parent() {
        _ if length > SOCKET_PATH_MAX => checker.problem(
            path,
            format!("{length} octets are too many for a socket's path; at most {SOCKET_PATH_MAX}"),
        ),
        Some(folder) if socket.is_absolute() && !folder.is_dir() => {
            checker.problem(path, format!("there is no directory {}", folder.display()));
        }
        Some(_) if socket.is_absolute() && !socket.is_dir() => {}
        _ => checker.problem(path, "write the whole path of a file, from / on"),
    }
}

pub(super) fn privileges(privileges: &schema::Privileges) -> Privileges {
    Privileges { user: privileges.user.clone(), sandbox: privileges.sandbox }
}

/// More is given up the scarcer memory is.
pub(super) fn overload(checker: &mut Checker<'_>, overload: &schema::Overload) -> Overload {
    let steps = [
        ("stop_requests", overload.stop_requests, "stop_connections", overload.stop_connections),
        ("shed", overload.shed, "stop_requests", overload.stop_requests),
    ];
    for (key, value, below, least) in steps {
        if value < least && !checker.is_faulty("overload") {
            let message = format!("{}% is less than {below}, {}%", value.0, least.0);
            checker.problem(&format!("overload.{key}"), message);
        }
    }
    Overload {
        max_connections: usize::try_from(overload.max_connections).unwrap_or(usize::MAX),
        memory: overload.memory.map(|size| size.0),
        stop_connections_percent: overload.stop_connections.0,
        stop_requests_percent: overload.stop_requests.0,
        shed_percent: overload.shed.0,
    }
}

pub(super) fn ebpf(checker: &mut Checker<'_>, ebpf: &schema::Ebpf) -> Ebpf {
    let path = "ebpf.interface";
    match &ebpf.interface {
        // A faulty mode reads as the default, so this says nothing about a mode that nobody chose.
        None if ebpf.mode == EbpfMode::Xdp && !checker.is_faulty(path) => {
            checker.problem(path, format!("is missing; mode xdp needs one ({})", interfaces()));
        }
        Some(name) if !interface_exists(name) => {
            checker.problem(
                path,
                format!(
                    "there is no network interface \"{}\" ({})",
                    name.escape_debug(),
                    interfaces()
                ),
            );
        }
        _ => {}
    }
    Ebpf {
        mode: ebpf.mode,
        interface: ebpf.interface.clone(),
        attach: ebpf.attach,
        on_failure: ebpf.on_failure,
        sample_drops: ebpf.sample_drops,
        af_xdp: af_xdp(checker, ebpf),
        flood: flood(checker, &ebpf.flood, ebpf.mode),
        attack: attack_mode(checker, &ebpf.attack_mode, ebpf.mode),
    }
}

/// By load it is of use without XDP as well: clients have to prove their address then.
fn attack_mode(
    checker: &mut Checker<'_>,
    given: &schema::AttackMode,
    mode: EbpfMode,
) -> attack::Settings {
    let chosen = match given.mode {
        AttackModeChoice::Auto => attack::Mode::Auto,
        AttackModeChoice::On => attack::Mode::On,
        AttackModeChoice::Off => attack::Mode::Off,
    };
    if chosen == attack::Mode::On && mode != EbpfMode::Xdp && !checker.is_faulty("ebpf.mode") {
        let message = "on needs ebpf.mode xdp; to have every client prove its address without it, write \
                       listeners.quic.address_validation.mode always";
        checker.problem("ebpf.attack_mode.mode", message.to_owned());
    }
    let Strangers { rate, burst, total } = given.strangers;
    attack::Settings {
        mode: chosen,
        half_open: given.half_open,
        drops_per_second: given.drops_per_second,
        leave_after: given.leave_after,
        strangers: Pace::new(rate, burst),
        strangers_all: Pace::new(total, (total / 10).max(1)),
    }
}

/// What only XDP does is an error without it.
fn flood(checker: &mut Checker<'_>, flood: &schema::Flood, mode: EbpfMode) -> Flood {
    let settings = [
        ("refuse_early", !flood.refuse_early),
        ("new_connections.rate", flood.new_connections.rate > 0),
        ("version_negotiation", flood.version_negotiation > 0),
    ];
    for (key, set) in settings {
        if set && mode != EbpfMode::Xdp && !checker.is_faulty("ebpf.mode") {
            let message = "is for XDP alone; write ebpf.mode xdp, or leave this out".to_owned();
            checker.problem(&format!("ebpf.flood.{key}"), message);
        }
    }
    Flood {
        refuse_early: flood.refuse_early,
        new_connections: PacketRate {
            rate: flood.new_connections.rate,
            burst: flood.new_connections.burst,
        },
        version_negotiation: flood.version_negotiation,
    }
}

fn af_xdp(checker: &mut Checker<'_>, ebpf: &schema::Ebpf) -> Option<AfXdp> {
    let schema::AfXdp { mode, frames, busy_poll, spare_sockets } = ebpf.af_xdp;
    let transfer = match mode {
        AfXdpMode::Off => return None,
        AfXdpMode::Auto => Transfer::Auto,
        AfXdpMode::Copy => Transfer::Copy,
        AfXdpMode::ZeroCopy => Transfer::ZeroCopy,
    };
    if ebpf.mode != EbpfMode::Xdp && !checker.is_faulty("ebpf.mode") {
        let message =
            "needs ebpf.mode xdp, which redirects packets there; write xdp there or off here";
        checker.problem("ebpf.af_xdp.mode", message);
    }
    if !frames.is_power_of_two() && !checker.is_faulty("ebpf.af_xdp.frames") {
        let message = format!("{frames} is no power of two; write {}", frames.next_power_of_two());
        checker.problem("ebpf.af_xdp.frames", message);
    }
    Some(AfXdp {
        transfer,
        frames,
        busy_poll: (busy_poll > 0).then_some(busy_poll),
        spare_sockets: spare_sockets as usize,
    })
}

fn interface_exists(name: &str) -> bool {
    // IFNAMSIZ is 16 with its final zero; a name never has a slash.
    let plausible = (1..16).contains(&name.len()) && !name.contains('/') && !name.starts_with('.');
    plausible && Path::new("/sys/class/net").join(name).exists()
}

fn interfaces() -> String {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| interface_exists(name));
    names.sort_unstable();
    names.truncate(16);
    format!("this machine has: {}", names.join(", "))
}
