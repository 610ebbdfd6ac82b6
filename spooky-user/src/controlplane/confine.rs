//! What the process gives up between the last thing that needs privilege and the first thread that serves: its capabilities,
//! its user, system calls and files that serving has no use for. May import: config, sys.
//!
//! What a part of spooky needs of this:
//!
//! - a socket of a special kind, a program or map of the kernel, a unix socket's file: made before [`confine`]. Descriptors
//!   stay usable: maps are read and written, AF_XDP sockets bound, a loaded XDP program attached to an interface.
//! - a directory in which it keeps files: a line in `writable`, and in `readable` if it reads them again. A file is
//!   written beside (created and truncated), made durable (`sync_all`) and renamed; nothing else writes. One from which it removes
//!   files: a line in `removable`.
//! - a system call: a line in the list of `sys::sandbox`, which has one place left.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::config::{Config, LogDestination, schema};
use crate::sys::privilege::{self, Account};
use crate::sys::process;
use crate::sys::sandbox::{self, Files, SandboxError};

/// Who serves, when `privileges.user` is `auto`, the process was started as root and there is such a user.
const USER: &str = "spooky";
/// Ports below need CAP_NET_BIND_SERVICE, unless the system says otherwise.
const PRIVILEGED_PORTS: u16 = 1024;

/// Read by the C library for names of hosts, by TLS for the system's authorities, by spooky about itself and the machine.
const SYSTEM_FILES: [&str; 29] = [
    // Names.
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    // Authorities.
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/var/lib/ca-certificates",
    // The time of day, the process, the machine.
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/proc/self",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
];

/// Directories of everybody: of a file that lies in one of them, only the file is opened, and not its neighbours.
const SHARED: [&str; 18] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/media", "/mnt", "/opt", "/proc",
    "/root", "/run", "/srv", "/sys", "/tmp", "/usr", "/var",
];

/// What is left, for the line at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    user: u32,
    /// Nobody has decided that root is to serve.
    root_by_default: bool,
    binds_low_ports: bool,
    writes_maps: bool,
    seccomp: bool,
    landlock: bool,
    /// What was wanted and is not there, each with its reason.
    pub lost: Vec<String>,
    /// Files of the configuration that cannot be read any more, so that a reload would be refused.
    pub unreadable: Vec<(PathBuf, io::ErrorKind)>,
    /// Files in whose place another would not be seen, for they lie in a directory of everybody.
    pub alone: Vec<PathBuf>,
}

/// Why the process does not go on.
#[derive(Debug)]
pub enum ConfineError {
    /// `privileges.user` is nobody.
    NoSuchUser(String),
    /// Another user was asked for by one who may not become it.
    NotRoot(String),
    /// The user, or capabilities, could not be given up.
    Privilege(io::Error),
    /// `privileges.sandbox` is `required`.
    Sandbox(SandboxError),
    /// There are so many threads: those that have begun would keep what this one gives up.
    Threads(usize),
}

/// Gives up what can be given up. To be called while there is one thread. `maps`: the kernel's maps are in use.
///
/// # Errors
/// [`ConfineError`]; the process must end then, for it has more rights than it was meant to have.
pub fn confine(config: &Config, maps: bool) -> Result<Confined, ConfineError> {
    match process::threads() {
        Some(1) | None => {}
        Some(count) => return Err(ConfineError::Threads(count)),
    }
    let account = account(&config.privileges.user, &config.path)?;
    let low = binds_low_ports(config);
    let maps = maps && privilege::maps_need_capability();
    let mut keep = if low { privilege::BIND } else { privilege::NONE };
    if maps {
        keep |= privilege::MAPS;
    }
    privilege::empty_bounding_set().map_err(ConfineError::Privilege)?;
    if let Some(account) = &account {
        privilege::become_user(account, keep).map_err(ConfineError::Privilege)?;
    }
    privilege::keep_only(keep).map_err(ConfineError::Privilege)?;
    let user = privilege::user();
    // Asked now: the sandbox does not let it be asked.
    let (binds_low_ports, writes_maps) =
        (low && privilege::has(privilege::BIND), maps && privilege::has(privilege::MAPS));
    let files =
        Files { read: readable(config), write: writable(config), remove: removable(config) };
    let mut lost = Vec::new();
    let mut part = |step: &dyn Fn() -> Result<(), SandboxError>| match config.privileges.sandbox {
        schema::Sandbox::Off => Ok(false),
        wanted => match step() {
            Ok(()) => Ok(true),
            Err(error) if wanted == schema::Sandbox::Required => Err(ConfineError::Sandbox(error)),
            Err(error) => {
                lost.push(error.to_string());
                Ok(false)
            }
        },
    };
    let landlock = part(&|| sandbox::only_files(&files))?;
    let attaches = config.ebpf.mode == schema::EbpfMode::Xdp;
    let seccomp = part(&|| sandbox::only_calls(attaches))?;
    Ok(Confined {
        user,
        root_by_default: user == 0 && config.privileges.user == schema::User::Auto,
        binds_low_ports,
        writes_maps,
        seccomp,
        landlock,
        lost,
        unreadable: unreadable(config),
        alone: if landlock { alone(config) } else { Vec::new() },
    })
}

/// Whom to become; `None` to stay.
fn account(user: &schema::User, file: &Path) -> Result<Option<Account>, ConfineError> {
    let found = |name: &str| privilege::account(name).map_err(ConfineError::Privilege);
    match user {
        schema::User::Keep => Ok(None),
        schema::User::Auto if privilege::is_root() => match found(USER)? {
            Some(account) => Ok(Some(account)),
            None => caller(file).map_or(Ok(None), |caller| found(&caller)),
        },
        schema::User::Auto => Ok(None),
        schema::User::Name(name) => {
            let account = found(name)?.ok_or_else(|| ConfineError::NoSuchUser(name.clone()))?;
            if account.uid == privilege::user() {
                return Ok(None);
            }
            if privilege::is_root() {
                Ok(Some(account))
            } else {
                Err(ConfineError::NotRoot(name.clone()))
            }
        }
    }
}

/// Whether a reload may want to open a port that needs a capability: only where there is one such port already.
fn binds_low_ports(config: &Config) -> bool {
    let low = |address: SocketAddr| (1..PRIVILEGED_PORTS).contains(&address.port());
    config.listeners.iter().any(|listener| low(listener.bind))
}

/// Who called sudo (sudo(8), ENVIRONMENT), if the configuration is theirs: one who tries spooky out.
fn caller(file: &Path) -> Option<String> {
    let caller = std::env::var("SUDO_UID").ok()?;
    let owner = fs::metadata(file).ok()?.uid();
    (caller != "0" && caller == owner.to_string()).then_some(caller)
}

/// What may be read, with everything below it.
fn readable(config: &Config) -> Vec<PathBuf> {
    let own = config.files.iter().flat_map(|file| {
        // What a name leads to may be in another place, as with certificates that are renewed behind a symbolic link.
        let target = file.canonicalize().ok();
        [Some(file.clone()), target].into_iter().flatten().map(|file| around(&file))
    });
    // For the names in a panic's backtrace.
    let program = std::env::current_exe().ok();
    let system = SYSTEM_FILES.iter().map(PathBuf::from);
    // The directory itself, to make a rename in it durable.
    system.chain(own).chain(program).chain(state_folder(config)).collect()
}

/// In which directories files may be made, written and replaced.
fn writable(config: &Config) -> Vec<PathBuf> {
    let access_log = match &config.access_log.destination {
        LogDestination::File(path) => {
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            // A rotation makes a new file.
            Some(whole.parent().map_or_else(|| whole.clone(), Path::to_owned))
        }
        LogDestination::Off | LogDestination::Stdout | LogDestination::Stderr => None,
    };
    [access_log, state_folder(config)].into_iter().flatten().collect()
}

/// Where entries of the access lists are kept.
fn state_folder(config: &Config) -> Option<PathBuf> {
    config.access.state_file.as_ref()?.parent().map(Path::to_owned)
}

/// From which directories files may be removed: the control socket's file goes with the process.
fn removable(config: &Config) -> Vec<PathBuf> {
    let socket = config.admin.socket.iter();
    socket.filter_map(|path| path.parent()).map(Path::to_owned).collect()
}

/// The directory of a file, so that another file may be put in its place; the file alone where that would be a directory
/// of everybody.
fn around(file: &Path) -> PathBuf {
    let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    match whole.parent() {
        Some(directory) if !SHARED.iter().any(|it| directory == Path::new(it)) => {
            directory.to_owned()
        }
        _ => whole,
    }
}

fn alone(config: &Config) -> Vec<PathBuf> {
    config.files.iter().filter(|file| around(file).is_file()).cloned().collect()
}

fn unreadable(config: &Config) -> Vec<(PathBuf, io::ErrorKind)> {
    let try_one = |file: &PathBuf| Some((file.clone(), File::open(file).err()?.kind()));
    config.files.iter().filter_map(try_one).collect()
}

// === impl Confined ===

impl Confined {
    /// The rights that are left, and what that means for a reload, in the log.
    pub fn log(&self) {
        tracing::info!("privileges: {self}");
        if self.root_by_default {
            tracing::warn!(
                "privileges: root serves, for there is no user {USER}: useradd --system {USER}, or \
                 privileges.user"
            );
        }
        for lost in &self.lost {
            tracing::warn!("privileges: not confined by {lost}");
        }
        for (file, error) in &self.unreadable {
            let file = file.display();
            tracing::warn!(
                "a reload will be refused: user {} cannot read {file}: {error}",
                self.user
            );
        }
        for file in &self.alone {
            let file = file.display();
            tracing::info!(
                "a reload reads {file} only as long as no other file is put in its place; give it a \
                 directory of its own"
            );
        }
    }
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}, ", self.user)?;
        f.write_str(match (self.binds_low_ports, self.writes_maps) {
            (true, true) => "CAP_NET_BIND_SERVICE and, as before Linux 5.19, CAP_BPF, ",
            (true, false) => "CAP_NET_BIND_SERVICE alone, ",
            (false, true) => "as before Linux 5.19, CAP_BPF alone, ",
            (false, false) => "no capabilities, ",
        })?;
        match self.seccomp {
            true => write!(f, "{} system calls, ", sandbox::calls().len())?,
            false => f.write_str("all system calls, ")?,
        }
        f.write_str(match self.landlock {
            true => "the files of its configuration",
            false => "all files that its user may use",
        })
    }
}

// === impl ConfineError ===

impl fmt::Display for ConfineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUser(name) => write!(
                f,
                "privileges.user: there is no user {name:?}; make one (useradd --system {name}) or write auto"
            ),
            Self::NotRoot(name) => write!(
                f,
                "privileges.user: only root can become {name:?}; start spooky as root, or as {name} and write keep"
            ),
            Self::Privilege(error) => write!(f, "privileges cannot be dropped: {error}"),
            Self::Sandbox(error) => write!(
                f,
                "privileges.sandbox is required, and part of it is not to be had: {error}"
            ),
            Self::Threads(count) => write!(
                f,
                "{count} threads run where one was meant to: a defect; privileges cannot be dropped"
            ),
        }
    }
}

impl std::error::Error for ConfineError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_brings_its_directory_unless_that_is_everybodys() {
        let opened = |file: &str| around(Path::new(file));
        assert_eq!(opened("/etc/spooky/spooky.yaml"), Path::new("/etc/spooky"));
        assert_eq!(opened("/config/spooky.yaml"), Path::new("/config"));
        assert_eq!(opened("/etc/spooky.yaml"), Path::new("/etc/spooky.yaml"));
        assert_eq!(opened("/tmp/spooky.yaml"), Path::new("/tmp/spooky.yaml"));
        assert_eq!(opened("/spooky.yaml"), Path::new("/spooky.yaml"));
        assert!(opened("spooky.yaml").is_absolute());
    }

    #[test]
    fn who_is_not_there_is_told_so() {
        let nobody = schema::User::Name("no-such-user-here".into());
        let error = account(&nobody, Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("useradd"), "{error}");
        let here = Confined {
            user: 7,
            root_by_default: false,
            binds_low_ports: true,
            writes_maps: false,
            seccomp: true,
            landlock: false,
            lost: Vec::new(),
            unreadable: Vec::new(),
            alone: Vec::new(),
        };
        let line = here.to_string();
        assert!(line.starts_with("user 7, CAP_NET_BIND_SERVICE alone, "), "{line}");
        assert!(line.ends_with(" system calls, all files that its user may use"), "{line}");
    }
}
