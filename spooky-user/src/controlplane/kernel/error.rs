//! Why the kernel side cannot be had, each with its cause and remedy on one line. Imports aya's errors only to sort
//! them.

use std::{fmt, io};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, SkReuseportError, XdpError},
};
use ipnet::IpNet;

/// Why the kernel side, or a part of it, cannot be had.
#[derive(Debug)]
pub enum KernelError {
    /// The kernel refuses this process.
    Privilege,
    /// The kernel does not know a map or program type, or cannot make it this large.
    Unsupported {
        /// Map or program.
        what: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The verifier refuses a program.
    Verifier {
        /// Name of the program.
        program: &'static str,
        /// The end of the verifier's log.
        log: String,
    },
    /// The embedded object cannot be read, or lacks something.
    Object(String),
    /// The embedded object was built from another layout than user space.
    Layout {
        /// The object's version.
        object: u32,
        /// This program's version.
        expected: u32,
    },
    /// Mode `xdp` without an interface.
    NoInterface,
    /// The interface does not exist.
    InterfaceMissing(String),
    /// Another XDP program is attached to the interface.
    InterfaceOccupied(String),
    /// The interface takes the program in no mode that was tried.
    AttachRefused {
        /// The interface.
        interface: String,
        /// What native mode said, if tried.
        native: Option<io::Error>,
        /// What generic mode said, if tried.
        generic: Option<io::Error>,
    },
    /// More listeners than the maps have room for.
    ListenerNumber(u16),
    /// The program cannot be attached to a listener's sockets.
    Group {
        /// The listener.
        listener: u16,
        /// What the kernel said.
        error: io::Error,
    },
    /// A socket cannot be put into the array.
    Socket {
        /// The listener.
        listener: u16,
        /// The worker.
        worker: u8,
        /// What the kernel said.
        error: io::Error,
    },
    /// A socket cannot be put behind a receive queue.
    Queue {
        /// The queue.
        queue: u32,
        /// What the kernel said.
        error: io::Error,
    },
    /// A map cannot be read or written.
    Map {
        /// Its name.
        map: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// A list is full. Everything else was applied.
    ListFull {
        /// Name of its map.
        map: &'static str,
        /// How many prefixes it holds.
        capacity: u32,
        /// The prefixes that did not fit.
        refused: Vec<IpNet>,
    },
    /// The system has no random numbers.
    Random,
}

// === impl KernelError ===

impl KernelError {
    pub(super) fn from_load(error: EbpfError) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { name, io_error }) => {
                Self::refused(format!("map {name}"), io_error)
            }
            EbpfError::MapError(MapError::SyscallError(error)) => {
                Self::refused(error.call.to_owned(), error.io_error)
            }
            EbpfError::ProgramError(ProgramError::SyscallError(error)) => {
                Self::refused(error.call.to_owned(), error.io_error)
            }
            error => Self::Object(one_line(&error.to_string())),
        }
    }

    pub(super) fn from_program(program: &'static str, error: ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                let log = verifier_log.to_string();
                if log.trim().is_empty() {
                    Self::refused(format!("program {program}"), io_error)
                } else if log.contains("prohibited for !root") {
                    // The verifier's words for a process without CAP_PERFMON.
                    Self::Privilege
                } else {
                    Self::Verifier { program, log: last_words(&log) }
                }
            }
            ProgramError::SyscallError(error) => {
                Self::refused(error.call.to_owned(), error.io_error)
            }
            error => Self::Object(one_line(&error.to_string())),
        }
    }

    /// A map that cannot be read or written.
    pub(in crate::controlplane) fn map(map: &'static str, error: MapError) -> Self {
        Self::Map { map, error: map_error(error) }
    }

    fn refused(what: String, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            Self::Privilege
        } else {
            Self::Unsupported { what, error }
        }
    }
}

/// The system's error inside a map error, or its text.
pub(super) fn map_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::IoError(error) | MapError::CreateError { io_error: error, .. } => error,
        error => io::Error::other(one_line(&error.to_string())),
    }
}

/// The system's error inside a program error, or its text.
pub(super) fn program_error(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SyscallError(error) => error.io_error,
        ProgramError::IOError(error)
        | ProgramError::SkReuseportError(SkReuseportError::SetsockoptError {
            io_error: error,
            ..
        }) => error,
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error
            .raw_os_error()
            .map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error),
        error => io::Error::other(one_line(&error.to_string())),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The last line of a verifier log that is not its statistics.
fn last_words(log: &str) -> String {
    let statistics = ["processed", "verification time", "stack depth"];
    let line = log
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !statistics.iter().any(|word| line.starts_with(word)));
    line.unwrap_or("no log").to_owned()
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Privilege => write!(
                f,
                "the kernel refuses eBPF to this process: run as root or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
            ),
            Self::Unsupported { what, error } => {
                write!(f, "this kernel cannot make {what} ({error}): Linux 5.15 or later is needed")
            }
            Self::Verifier { program, log } => write!(
                f,
                "this kernel's verifier refuses {program} ({log}): set ebpf.mode to off and report the kernel version"
            ),
            Self::Object(text) => {
                write!(
                    f,
                    "the embedded eBPF object is unusable ({text}): run `cargo xtask build-ebpf`"
                )
            }
            Self::Layout { object, expected } => write!(
                f,
                "the embedded eBPF object has layout {object}, this program {expected}: run `cargo xtask build-ebpf`"
            ),
            Self::NoInterface => write!(f, "ebpf.mode xdp needs ebpf.interface"),
            Self::InterfaceMissing(name) => {
                write!(f, "there is no interface {name}: correct ebpf.interface, see `ip link`")
            }
            Self::InterfaceOccupied(name) => write!(
                f,
                "another XDP program is attached to {name}: detach it (`ip link set dev {name} xdp off`) or use \
                 ebpf.mode reuseport"
            ),
            Self::AttachRefused { interface, native, generic } => {
                refused_by(f, interface, native.as_ref(), generic.as_ref())
            }
            Self::ListenerNumber(number) => {
                write!(
                    f,
                    "listener {number} is one too many for the kernel maps, which hold 16: merge listeners"
                )
            }
            Self::Group { listener, error } => write!(
                f,
                "the sockets of listener {listener} cannot be steered ({error}): all must be bound with SO_REUSEPORT"
            ),
            Self::Socket { listener, worker, error } => write!(
                f,
                "the socket of worker {worker} at listener {listener} cannot be steered to ({error}): it must be \
                 bound with SO_REUSEPORT and joined once"
            ),
            Self::Queue { queue, error } => write!(
                f,
                "receive queue {queue} cannot be given an AF_XDP socket ({error}): it must be an AF_XDP socket, and \
                 its queue one of the first 64"
            ),
            Self::Map { map, error } => {
                write!(
                    f,
                    "eBPF map {map} cannot be read or written ({error}): restart to make it anew"
                )
            }
            Self::ListFull { map, capacity, refused } => write!(
                f,
                "eBPF list {map} is full at {capacity} prefixes, {} did not fit: user space enforces them; \
                 aggregate prefixes",
                refused.len()
            ),
            Self::Random => write!(f, "the system gives no random numbers: check getrandom(2)"),
        }
    }
}

/// What each mode that was tried said.
fn refused_by(
    f: &mut fmt::Formatter<'_>,
    interface: &str,
    native: Option<&io::Error>,
    generic: Option<&io::Error>,
) -> fmt::Result {
    write!(f, "{interface} takes no XDP program:")?;
    for (mode, error) in [("native", native), ("generic", generic)] {
        if let Some(error) = error {
            write!(f, " {mode}: {error};")?;
        }
    }
    write!(f, " check driver, MTU and queues, or use ebpf.mode reuseport")
}

impl std::error::Error for KernelError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<KernelError> {
        let error = || io::Error::from_raw_os_error(libc::EINVAL);
        vec![
            KernelError::Privilege,
            KernelError::Unsupported { what: "map SOCKETS".to_owned(), error: error() },
            KernelError::Verifier { program: "spooky_xdp", log: "invalid access".to_owned() },
            KernelError::Object("it lacks PORTS".to_owned()),
            KernelError::Layout { object: 1, expected: 2 },
            KernelError::NoInterface,
            KernelError::InterfaceMissing("eth9".to_owned()),
            KernelError::InterfaceOccupied("eth0".to_owned()),
            KernelError::AttachRefused {
                interface: "eth0".to_owned(),
                native: Some(error()),
                generic: Some(error()),
            },
            KernelError::ListenerNumber(16),
            KernelError::Group { listener: 1, error: error() },
            KernelError::Socket { listener: 1, worker: 2, error: error() },
            KernelError::Queue { queue: 64, error: error() },
            KernelError::Map { map: "SLOTS", error: error() },
            KernelError::ListFull { map: "DENY_V4", capacity: 2, refused: Vec::new() },
            KernelError::Random,
        ]
    }

    #[test]
    fn every_error_is_one_line_with_its_remedy() {
        for error in all() {
            let said = error.to_string();
            assert!(!said.contains('\n') && said.len() < 250, "{said}");
            assert!(said.contains(": ") || said.contains("needs"), "no remedy: {said}");
        }
    }

    #[test]
    fn the_verifiers_last_words_are_not_its_statistics() {
        let log = "0: (b7) r1 = 0\nR3 invalid mem access\nprocessed 12 insns (limit 1000000)\n\n";
        assert_eq!(last_words(log), "R3 invalid mem access");
        assert_eq!(last_words(""), "no log");
    }
}
