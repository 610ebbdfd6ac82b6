//! What system calls and what files the process may use once it serves: seccomp
//! (<https://docs.kernel.org/userspace-api/seccomp_filter.html>) and Landlock
//! (<https://docs.kernel.org/userspace-api/landlock.html>). Both are of the calling thread and those it starts later, and there
//! is no way back. Imports nothing of the crate.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Why a part of the sandbox is not there.
#[derive(Debug)]
pub enum SandboxError {
    /// The filter of system calls was not taken.
    Seccomp(String),
    /// The rules for files were not taken.
    Landlock(String),
    /// The kernel has no Landlock.
    NoLandlock,
}

/// Files that may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Files and directories that may be read, with all that is in them. What is not there is passed over.
    pub read: Vec<PathBuf>,
    /// Directories in which files may be made, written to and replaced; to be read only when they are in `read`, too.
    pub write: Vec<PathBuf>,
    /// Directories from which files may be removed.
    pub remove: Vec<PathBuf>,
}

/// Forbids every file but these: reading, writing, executing, and abstract sockets and signals of other processes.
///
/// # Errors
/// [`SandboxError`]; nothing is forbidden then.
pub fn only_files(files: &Files) -> Result<(), SandboxError> {
    let failed = |error: landlock::RulesetError| SandboxError::Landlock(error.to_string());
    let abi = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::Truncate | AccessFs::RemoveFile;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    let remove = AccessFs::RemoveFile.into();
    for (paths, access) in [(&files.read, read), (&files.write, write), (&files.remove, remove)] {
        for path in paths {
            let Ok(place) = PathFd::new(path) else { continue };
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
            rules = rules.add_rule(PathBeneath::new(place, access)).map_err(failed)?;
        }
    }
    match rules.restrict_self().map_err(failed)?.ruleset {
        RulesetStatus::NotEnforced => Err(SandboxError::NoLandlock),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

/// Forbids every system call but those of `CALLS`: they fail with EPERM. `attaches`: a loaded program may be attached to an
/// interface.
///
/// # Errors
/// [`SandboxError`]; nothing is forbidden then.
pub fn only_calls(attaches: bool) -> Result<(), SandboxError> {
    let failed = |error: &dyn fmt::Display| SandboxError::Seccomp(error.to_string());
    let mut rules =
        CALLS.iter().map(|(_, call, limits)| (*call, limits.rules())).collect::<BTreeMap<_, _>>();
    if attaches {
        rules.entry(libc::SYS_bpf).or_default().extend(BPF_ATTACH.rules());
    }
    let arch = std::env::consts::ARCH.try_into().map_err(|error| failed(&error))?;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, arch);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|error| failed(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(&error))
}

/// Names of the calls that are allowed, as in `man 2`.
pub fn calls() -> impl ExactSizeIterator<Item = &'static str> {
    CALLS.iter().map(|(name, _, _)| *name)
}

/// prctl(2): the auxiliary vector, by which the standard library learns what the CPU can do.
const PR_GET_AUXV: u64 = 0x4155_5856;

/// With which arguments a call is allowed.
enum Limits {
    Any,
    /// This argument is one of these.
    OneOf(u8, &'static [u64]),
    /// This argument under a mask is one of these values: `(argument, mask, values)`.
    Masked(u8, u64, &'static [u64]),
}

const fn flags(value: i32) -> u64 {
    value as u32 as u64
}

/// Commands of bpf(2) on maps that are open: look up, update, delete, walk, and each in batches. None that makes or loads.
const BPF_MAP_COMMANDS: [u64; 7] = [1, 2, 3, 4, 24, 26, 27];
/// And the one that attaches a program to an interface (`BPF_LINK_CREATE`), where XDP is to come back with its interface. It
/// takes a program that is open; there is no command here by which another one could be.
const BPF_ATTACH: Limits = Limits::OneOf(0, &[28]);
/// Read, append to a log, or make a file or make it anew. To write into one that is there is none of these.
const OPEN_MASK: u64 = flags(libc::O_ACCMODE | libc::O_TRUNC | libc::O_APPEND);
const OPEN_MODES: [u64; 3] = [
    flags(libc::O_RDONLY),
    flags(libc::O_WRONLY | libc::O_APPEND),
    flags(libc::O_WRONLY | libc::O_TRUNC),
];
/// Sockets to clients, to backends, to the resolver; netlink and unix for the C library's look-up of names.
const FAMILIES: [u64; 4] =
    [flags(libc::AF_UNIX), flags(libc::AF_INET), flags(libc::AF_INET6), flags(libc::AF_NETLINK)];
/// A name for a thread and, from the allocator, for its memory; what the CPU can do.
const PRCTL_OPTIONS: [u64; 3] = [flags(libc::PR_SET_NAME), flags(libc::PR_SET_VMA), PR_GET_AUXV];
/// Do not block; how much there is to read (the C library's resolver).
const IOCTLS: [u64; 2] = [libc::FIONBIO, libc::FIONREAD];

// Newer architectures have only the later of two calls that do the same.
#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) use libc::{SYS_epoll_wait, SYS_poll, SYS_rename, SYS_unlink};
}
#[cfg(not(target_arch = "x86_64"))]
mod number {
    pub(super) use libc::{
        SYS_epoll_pwait as SYS_epoll_wait, SYS_ppoll as SYS_poll, SYS_renameat as SYS_rename,
        SYS_unlinkat as SYS_unlink,
    };
}

/// One call, its number, and with which arguments.
type Call = (&'static str, c_long, Limits);

/// What serving, reloading, starting a worker again and ending need: at most 60. Those without a word are used all the time;
/// `tests/proxy/confinement.rs` compares what a daemon calls with this list.
const CALLS: &[Call] = &[
    // Packets, and octets from and to backends. Those on many messages at once: QUIC in, and the resolver.
    ("recvfrom", libc::SYS_recvfrom, Limits::Any),
    ("recvmsg", libc::SYS_recvmsg, Limits::Any),
    ("recvmmsg", libc::SYS_recvmmsg, Limits::Any),
    ("sendto", libc::SYS_sendto, Limits::Any),
    ("sendmsg", libc::SYS_sendmsg, Limits::Any),
    ("sendmmsg", libc::SYS_sendmmsg, Limits::Any),
    // Sockets: of new listeners, workers that start again, backends, the admin port. `poll` waits for the resolver.
    ("socket", libc::SYS_socket, Limits::OneOf(0, &FAMILIES)),
    ("socketpair", libc::SYS_socketpair, Limits::OneOf(0, &[flags(libc::AF_UNIX)])),
    ("bind", libc::SYS_bind, Limits::Any),
    ("accept4", libc::SYS_accept4, Limits::Any),
    ("connect", libc::SYS_connect, Limits::Any),
    ("shutdown", libc::SYS_shutdown, Limits::Any),
    ("getsockname", libc::SYS_getsockname, Limits::Any),
    ("setsockopt", libc::SYS_setsockopt, Limits::Any),
    ("getsockopt", libc::SYS_getsockopt, Limits::Any),
    ("poll", number::SYS_poll, Limits::Any),
    // Events and time: a runtime of its own for each worker, and for one that starts again.
    ("epoll_create1", libc::SYS_epoll_create1, Limits::Any),
    ("epoll_ctl", libc::SYS_epoll_ctl, Limits::Any),
    ("epoll_wait", number::SYS_epoll_wait, Limits::Any),
    ("eventfd2", libc::SYS_eventfd2, Limits::Any),
    ("clock_gettime", libc::SYS_clock_gettime, Limits::Any),
    ("futex", libc::SYS_futex, Limits::Any),
    // Files: a reload reads, the access log is appended to and opened again, /proc/self is read for metrics.
    ("read", libc::SYS_read, Limits::Any),
    ("write", libc::SYS_write, Limits::Any),
    ("writev", libc::SYS_writev, Limits::Any),
    ("close", libc::SYS_close, Limits::Any),
    ("lseek", libc::SYS_lseek, Limits::Any),
    ("openat", libc::SYS_openat, Limits::Masked(2, OPEN_MASK, &OPEN_MODES)),
    ("statx", libc::SYS_statx, Limits::Any),
    ("newfstatat", libc::SYS_newfstatat, Limits::Any),
    ("fstat", libc::SYS_fstat, Limits::Any),
    ("getdents64", libc::SYS_getdents64, Limits::Any),
    ("fcntl", libc::SYS_fcntl, Limits::Any),
    ("ioctl", libc::SYS_ioctl, Limits::OneOf(1, &IOCTLS)),
    // A file that is kept is written beside, made durable, and put in place of the old one. The control socket's file goes.
    ("fsync", libc::SYS_fsync, Limits::Any),
    ("rename", number::SYS_rename, Limits::Any),
    ("unlink", number::SYS_unlink, Limits::Any),
    // The kernel's maps.
    ("bpf", libc::SYS_bpf, Limits::OneOf(0, &BPF_MAP_COMMANDS)),
    // Memory. The C library takes what brk(2) answers for an address, EPERM too: without it the process dies of its next use.
    ("mmap", libc::SYS_mmap, Limits::Any),
    ("munmap", libc::SYS_munmap, Limits::Any),
    ("mprotect", libc::SYS_mprotect, Limits::Any),
    ("madvise", libc::SYS_madvise, Limits::Any),
    ("brk", libc::SYS_brk, Limits::Any),
    // Threads: a worker starts again, and a reload is read beside the control plane.
    ("clone3", libc::SYS_clone3, Limits::Any),
    ("set_robust_list", libc::SYS_set_robust_list, Limits::Any),
    ("rseq", libc::SYS_rseq, Limits::Any),
    ("sched_getaffinity", libc::SYS_sched_getaffinity, Limits::Any),
    ("sched_setaffinity", libc::SYS_sched_setaffinity, Limits::Any),
    ("gettid", libc::SYS_gettid, Limits::Any),
    ("prctl", libc::SYS_prctl, Limits::OneOf(0, &PRCTL_OPTIONS)),
    // Of this process alone; `uname` tells the kernel's version to the UDP sockets.
    ("uname", libc::SYS_uname, Limits::Any),
    ("prlimit64", libc::SYS_prlimit64, Limits::OneOf(0, &[0])),
    ("getrandom", libc::SYS_getrandom, Limits::Any),
    // Signals and the end. abort(3) has to do without a signal of its own: it ends by its last resort, SIGSEGV.
    ("rt_sigaction", libc::SYS_rt_sigaction, Limits::Any),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask, Limits::Any),
    ("rt_sigreturn", libc::SYS_rt_sigreturn, Limits::Any),
    ("sigaltstack", libc::SYS_sigaltstack, Limits::Any),
    ("exit", libc::SYS_exit, Limits::Any),
    ("exit_group", libc::SYS_exit_group, Limits::Any),
];

// === impl Limits ===

impl Limits {
    fn rules(&self) -> Vec<SeccompRule> {
        let rule = |argument, operator, value| {
            let condition =
                SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
            condition.and_then(|condition| SeccompRule::new(vec![condition])).ok()
        };
        match self {
            // No rule is no condition.
            Self::Any => Vec::new(),
            Self::OneOf(argument, values) => values
                .iter()
                .filter_map(|value| rule(*argument, SeccompCmpOp::Eq, *value))
                .collect(),
            Self::Masked(argument, mask, values) => values
                .iter()
                .filter_map(|value| rule(*argument, SeccompCmpOp::MaskedEq(*mask), *value))
                .collect(),
        }
    }
}

// === impl SandboxError ===

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seccomp(error) => write!(f, "seccomp: {error}"),
            Self::Landlock(error) => write!(f, "Landlock: {error}"),
            Self::NoLandlock => f.write_str("Landlock: not in this kernel"),
        }
    }
}

impl std::error::Error for SandboxError {}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs::{self, File, OpenOptions};
    use std::io::{self, Write as _};
    use std::process::Command;
    use std::thread;

    /// In a thread of its own, for there is no way back.
    fn confined<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
        thread::spawn(run).join().unwrap()
    }

    fn no_new_privileges() {
        rustix::thread::set_no_new_privs(true).unwrap();
    }

    /// A call without arguments that could do harm; its error.
    #[expect(unsafe_code, reason = "calls that nothing else makes have no safe wrapper here")]
    fn attempt(call: c_long, first: u64) -> Option<i32> {
        // SAFETY: every argument but the first is zero, and none of the calls below does anything with a null pointer but
        // refuse it; no memory of this process is named.
        let result = unsafe { libc::syscall(call, first, 0_u64, 0_u64, 0_u64, 0_u64) };
        if result >= 0 { None } else { io::Error::last_os_error().raw_os_error() }
    }

    #[test]
    fn i02_at_most_sixty_calls_each_named_once() {
        let mut names: Vec<_> = calls().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CALLS.len());
        let mut numbers: Vec<_> = CALLS.iter().map(|(_, number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), CALLS.len());
        // An argument's condition that is refused would leave the call open altogether.
        let limited = |limits: &Limits| match limits {
            Limits::Any => 0,
            Limits::OneOf(_, values) | Limits::Masked(_, _, values) => values.len(),
        };
        assert!(CALLS.iter().all(|(_, _, limits)| limits.rules().len() == limited(limits)));
        println!("I02: {} system calls", CALLS.len());
        assert!(CALLS.len() <= 60, "{}", CALLS.len());
    }

    #[test]
    fn i02_what_serving_has_no_use_for_is_refused() {
        const BPF_PROG_LOAD: u64 = 5;
        const BPF_MAP_CREATE: u64 = 0;
        const BPF_LINK_CREATE: u64 = 28;
        let attempts = [
            ("execve", libc::SYS_execve, 0),
            ("ptrace", libc::SYS_ptrace, u64::MAX),
            ("mount", libc::SYS_mount, 0),
            ("bpf(PROG_LOAD)", libc::SYS_bpf, BPF_PROG_LOAD),
            ("bpf(MAP_CREATE)", libc::SYS_bpf, BPF_MAP_CREATE),
            ("bpf(LINK_CREATE)", libc::SYS_bpf, BPF_LINK_CREATE),
            ("socket(AF_PACKET)", libc::SYS_socket, flags(libc::AF_PACKET)),
            ("ioctl", libc::SYS_ioctl, u64::MAX),
            ("unshare", libc::SYS_unshare, u64::MAX),
            ("keyctl", libc::SYS_keyctl, u64::MAX),
            ("io_uring_setup", libc::SYS_io_uring_setup, 0),
        ];
        confined(move || {
            no_new_privileges();
            only_calls(false).unwrap();
            for (name, call, first) in attempts {
                assert_eq!(attempt(call, first), Some(libc::EPERM), "{name}");
            }
            assert_eq!(
                Command::new("/bin/true").status().unwrap_err().raw_os_error(),
                Some(libc::EPERM)
            );
            let file = OpenOptions::new().write(true).open("/dev/null");
            assert_eq!(file.unwrap_err().raw_os_error(), Some(libc::EPERM));
            let file = OpenOptions::new().read(true).write(true).open("/dev/null");
            assert_eq!(file.unwrap_err().raw_os_error(), Some(libc::EPERM));
            // What is allowed goes on, threads among it.
            assert!(File::open("/dev/null").is_ok());
            assert_eq!(thread::spawn(|| 7).join().unwrap(), 7);
            let any = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            assert!(any.local_addr().is_ok());
        });
    }

    #[test]
    fn i02_a_program_may_be_attached_where_that_is_wanted_and_none_loaded() {
        confined(|| {
            no_new_privileges();
            only_calls(true).unwrap();
            // To map look-ups, and to attaching, the kernel itself answers: these are none.
            assert_ne!(attempt(libc::SYS_bpf, 1), Some(libc::EPERM));
            let attached = attempt(libc::SYS_bpf, 28);
            assert!(attached.is_some_and(|errno| errno != libc::EPERM), "{attached:?}");
            for command in [0, 5, 6, 7, 8, 9, 10, 13, 14, 18, 29, 30, 34, 36] {
                assert_eq!(attempt(libc::SYS_bpf, command), Some(libc::EPERM), "{command}");
            }
        });
    }

    #[test]
    fn i03_only_the_named_files_are_there() {
        let [readable, writable, removable, other] = [(); 4].map(|()| tempfile::tempdir().unwrap());
        let places = [&readable, &writable, &removable, &other];
        let [readable_file, writable_file, removable_file, other_file] = places.map(|place| {
            let file = place.path().join("file");
            fs::write(&file, "content").unwrap();
            file
        });
        let files = Files {
            read: vec![readable.path().to_owned(), "/no/such/place".into()],
            write: vec![writable.path().to_owned()],
            remove: vec![removable.path().to_owned()],
        };
        confined(move || {
            no_new_privileges();
            match only_files(&files) {
                Ok(()) => {}
                Err(SandboxError::NoLandlock) => return println!("SKIP I03 no Landlock here"),
                Err(error) => panic!("{error}"),
            }
            let denied = |result: io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            };
            assert_eq!(fs::read_to_string(&readable_file).unwrap(), "content");
            denied(fs::write(&readable_file, "other"));
            denied(fs::read(&other_file).map(drop));
            denied(fs::read("/etc/shadow").map(drop));
            denied(fs::read_dir("/etc").map(drop));
            // A file that is kept: written beside, then put in place of the old one.
            let beside = writable_file.with_extension("new");
            let mut file = File::create(&beside).unwrap();
            file.write_all(b"state").unwrap();
            file.sync_all().unwrap();
            fs::rename(&beside, &writable_file).unwrap();
            denied(fs::read(&writable_file).map(drop));
            denied(fs::rename(&writable_file, &other_file));
            denied(fs::read(&removable_file).map(drop));
            denied(fs::remove_file(&other_file));
            fs::remove_file(&removable_file).unwrap();
        });
        assert_eq!(fs::read_to_string(writable.path().join("file")).unwrap(), "state");
    }
}
