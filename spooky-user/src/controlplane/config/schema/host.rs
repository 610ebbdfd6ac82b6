//! Keys about the process and the machine: logs, workers, kernel programs, access, admin, shutdown. May import: read.

use std::path::PathBuf;
use std::time::Duration;

use crate::controlplane::config::problem::Problems;
use crate::controlplane::config::read::{Limits, Node, Read, Shape, choice, section};
use crate::controlplane::config::source::Value;
use crate::controlplane::config::units::{ByteSize, Percent};

section! {
    /// What spooky says about itself.
    pub struct Log {
        /// The least severe messages that are written. `debug` tells of single connections and costs much under
        /// load.
        level: Level = "info", restart;
        /// `text` for people, `json` for collectors: one object a line.
        format: LogFormat = "text", restart;
    }
}

choice! {
    /// Severity.
    pub enum Level {
        /// Something is broken.
        Error = "error",
        /// Something needs a look.
        Warn = "warn" | "warning",
        /// What the process does as a whole.
        Info = "info",
        /// What connections do.
        Debug = "debug",
    }
}

choice! {
    /// How log lines look.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// For collectors.
        Json = "json",
    }
}

section! {
    /// One line for each request.
    pub struct AccessLog {
        /// `stdout`, `stderr`, `off`, or a file to append to. The file is made if it is not there. When the disk is slower
        /// than the requests, lines are left out and counted in `spooky_access_log_dropped_total`; requests never wait.
        path: PathBuf = "stdout", restart;
        /// One JSON object a line.
        format: AccessLogFormat = "json", restart;
    }
}

choice! {
    /// How access log lines look.
    pub enum AccessLogFormat {
        /// One object a line.
        Json = "json",
    }
}

section! {
    /// The threads that serve.
    pub struct Workers {
        /// How many, 1 to 256; `auto` is one for each CPU this process may run on. Each has its own sockets, connections and
        /// backend connections, and shares nothing with the others while it serves.
        count: WorkerCount = "auto", restart;
        /// Keep each worker on one CPU. Turn it off where others pin threads to the same CPUs.
        pin: bool = "true", restart;
        /// Each worker's share of new connections, one number for each of `count`; `[]` is the same for all. `[100, 50]`
        /// gives the second half as many as the first, and 0 gives a worker none, while it keeps those it has. A reload
        /// is in force within a second. Needs `ebpf.mode` `reuseport` or `xdp`: without the kernel programs, the
        /// kernel's own hash decides.
        weights: Vec<u16> = "[]", "0" ..= "1000", live;
        /// What decides which worker a new connection goes to. `load`: `weights` are shares under equal load; a worker that is
        /// late with its turns gets fewer until it is not, as does one that has more connections than its share. `static`:
        /// `weights` alone. Either way a worker that stands still for 500 ms gets none. Connections stay where they are. With
        /// `ebpf.mode: off`, or where the kernel programs are refused, neither has an effect: the kernel's own hash decides.
        placement: PlacementBy = "load", live;
    }
}

choice! {
    /// What decides which worker a new connection goes to.
    pub enum PlacementBy {
        /// Weights, and what each worker has to do.
        Load = "load",
        /// Weights.
        Static = "static",
    }
}

/// `auto` or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkerCount {
    /// One for each CPU this process may run on.
    #[default]
    Auto,
    /// So many.
    Fixed(u16),
}

impl Read for WorkerCount {
    fn shape() -> Shape {
        Shape::Leaf("auto, or a whole number from 1 to 256".to_owned())
    }

    fn read(node: Node<'_>, _limits: Limits, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Text(text) if text == "auto" => Some(Self::Auto),
            Value::Integer(1..=256) => u16::read(node, None, problems).map(Self::Fixed),
            other => {
                let shown = other.shown();
                node.problem(
                    problems,
                    format!("{shown} is not accepted; write auto, or a number from 1 to 256"),
                );
                None
            }
        }
    }
}

section! {
    /// The kernel programs that steer packets to the worker that owns their connection.
    pub struct Ebpf {
        /// `off`: plain sockets; a client whose address changes is passed from worker to worker inside spooky.
        /// `reuseport`: the kernel gives each packet to the right worker's socket by its connection ID.
        /// `xdp`: also, before the network stack, drops what `access` refuses and counts per reason.
        /// Both need CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or root.
        mode: EbpfMode = "reuseport", restart;
        /// The network interface for mode `xdp`, such as eth0. Must be given for it.
        interface: Option<String> = "null", restart;
        /// How XDP attaches. `native` runs in the driver, `generic` in the stack, slower; `auto` tries native, then generic.
        attach: Attach = "auto", restart;
        /// What a missing privilege or a refused program does: `fallback` serves without it and says so in the log and in
        /// `spooky_ebpf_mode`; `abort` does not start.
        on_failure: OnFailure = "fallback", restart;
        /// Of the packets that XDP drops, show every so manieth in the log at level debug, on each CPU, for each receive
        /// queue and reason; 0 for none.
        sample_drops: u32 = "1000", "0" ..= "1000000", restart;
        /// A way past the network stack for what belongs to the worker of its receive queue.
        af_xdp: AfXdp = "{}";
        /// What mode `xdp` ends before the network stack besides what `access` refuses.
        flood: Flood = "{}";
        /// What is different while there is an attack.
        attack_mode: AttackMode = "{}";
    }
}

section! {
    /// AF_XDP: XDP puts packets of a worker's own connections, and new ones, from the interface's receive queues straight into
    /// memory that the worker reads, and answers leave the same way. Queue n belongs to worker n modulo `workers.count`; what
    /// comes by another worker's queue, and everything while a queue has no such socket, goes by the UDP sockets. Firewalls,
    /// connection tracking, traffic shaping and tcpdump on this host do not see these packets.
    pub struct AfXdp {
        /// `off`: UDP sockets alone. `copy` and `zero_copy`: with or without a copy between driver and memory; `auto`: without,
        /// where the driver can. Needs `ebpf.mode` `xdp` and CAP_NET_RAW; what cannot be had is treated as `ebpf.on_failure`
        /// says.
        mode: AfXdpMode = "off", restart;
        /// Frames in each direction for each queue, a power of two. Each takes 2 KiB: 8 MiB a queue by default.
        frames: u32 = "2048", "128" ..= "32768", restart;
        /// Have the worker poll the driver for so many microseconds when it looks for packets (SO_PREFER_BUSY_POLL), where the
        /// driver can; 0 leaves that to interrupts. Set `napi_defer_hard_irqs` and `gro_flush_timeout` of the interface, too,
        /// or interrupts come all the same.
        busy_poll: u32 = "0", "0" ..= "1000", restart;
        /// Sockets that are kept for each queue, for an interface that is removed and made again: each time takes one, and none can
        /// be made once the rights of the start are given up. They share the memory of the one at work. With none left, plain
        /// sockets serve until the next start.
        spare_sockets: u32 = "8", "0" ..= "64", restart;
    }
}

choice! {
    /// How AF_XDP moves packets.
    pub enum AfXdpMode {
        /// Not at all.
        Off = "off",
        /// Without a copy if the driver can.
        Auto = "auto",
        /// With a copy.
        Copy = "copy",
        /// Without a copy.
        ZeroCopy = "zero_copy",
    }
}

section! {
    /// Floods that end in XDP. Each reason has its own count in `spooky_xdp_frames_total`.
    pub struct Flood {
        /// Drop in XDP what workers would refuse whatever connections they have: malformed long headers, Initials in less than
        /// 1,200 octets, packets that open connections from ports of services. `false` leaves that to the workers.
        refuse_early: bool = "true", live;
        /// Packets that open connections, counted for each IPv4 /24 and IPv6 /48.
        new_connections: NewConnections = "{}";
        /// Version Negotiation packets a second that XDP sends itself, in all; packets of other versions beyond it are dropped. 0
        /// leaves them to the workers. The interface's driver must be able to send from XDP (a veth loses what is sent so
        /// unless its other side has an XDP program, too), and must leave VLAN tags in frames.
        version_negotiation: u32 = "0", "0" ..= "1000000", live;
    }
}

section! {
    /// How many packets of one IPv4 /24 or IPv6 /48 may open connections. A client sends one to three for a connection, and more
    /// if it asks for something at once (0-RTT). Behind one prefix may be a whole company or a mobile network.
    pub struct NewConnections {
        /// Packets a second, on average; 0 for no limit.
        rate: u32 = "0", "0" ..= "1000000", live;
        /// Packets at once.
        burst: u32 = "1000", "1" ..= "1000000", live;
    }
}

section! {
    /// Attack mode. While it is on, clients have to prove their address before they get a connection (Retry; not where
    /// `quic.address_validation.mode` is `off`), and XDP drops packets that no live connection can have sent, and packets that open
    /// connections without the token of a Retry beyond `strangers`. Connections that there are notice nothing. `spooky ctl attack`
    /// shows it, and turns it on and off by hand.
    pub struct AttackMode {
        /// `auto`: while there is a load that only an attack makes; `on`: always, which needs `ebpf.mode` `xdp`; `off`: never.
        mode: AttackModeChoice = "auto", live;
        /// Handshakes under way, in all workers together, from which on `auto` turns it on.
        half_open: u64 = "5000", "1" ..= "10000000", live;
        /// Packets a second that were dropped because they were nobody's or malformed, in XDP and in the workers together, from which on
        /// `auto` turns it on. Those of blocked addresses do not count.
        drops_per_second: u64 = "20000", "1" ..= "1000000000", live;
        /// How long both have to be below half of that until `auto` turns it off again.
        leave_after: Duration = "30s", "1s" ..= "1h", live;
        /// Packets that open connections without a token, while it is on; for XDP alone.
        strangers: Strangers = "{}";
    }
}

choice! {
    /// When attack mode is on.
    pub enum AttackModeChoice {
        /// By load.
        Auto = "auto",
        /// Always.
        On = "on",
        /// Never.
        Off = "off",
    }
}

section! {
    /// What clients that have not proved their address may send. A client sends one to three such packets, and again a second later
    /// when they are lost.
    pub struct Strangers {
        /// Packets a second of one IPv4 /24 or IPv6 /48.
        rate: u32 = "20", "1" ..= "1000000", live;
        /// Packets at once of one IPv4 /24 or IPv6 /48.
        burst: u32 = "100", "1" ..= "1000000", live;
        /// Packets a second of all together, and a tenth of that at once.
        total: u32 = "20000", "1" ..= "10000000", live;
    }
}

choice! {
    /// Which kernel programs run.
    pub enum EbpfMode {
        /// sk_reuseport.
        Reuseport = "reuseport",
        /// sk_reuseport and XDP.
        Xdp = "xdp",
        /// None.
        Off = "off",
    }
}

choice! {
    /// How XDP attaches.
    pub enum Attach {
        /// Native first, then generic.
        Auto = "auto",
        /// In the driver.
        Native = "native",
        /// In the stack.
        Generic = "generic",
    }
}

choice! {
    /// What happens when the kernel refuses.
    pub enum OnFailure {
        /// Serve without.
        Fallback = "fallback",
        /// Do not start.
        Abort = "abort",
    }
}

section! {
    /// Which source addresses may connect.
    pub struct Access {
        /// What happens to addresses in no list: `allow` or `deny`.
        default: AccessDefault = "allow", live;
        /// Networks that may connect whatever the other lists say, such as 192.0.2.0/24 or 2001:db8::/32. An address alone is
        /// that address. Allow wins over deny, however long the prefixes are.
        allow: Vec<String> = "[]", live;
        /// Networks that may not connect. Packets of connections they already have are dropped, too.
        deny: Vec<String> = "[]", live;
        /// Files with more of `allow`: one network a line; `#` begins a comment. Looked at each second: a file
        /// that has changed, or was replaced, is read again; one that cannot be read, or has a wrong line, changes nothing. At
        /// most 16384 networks of each IP version in all.
        allow_files: Vec<PathBuf> = "[]", live;
        /// Files with more of `deny`, in the same form. At most 131072 networks of each IP version in all.
        deny_files: Vec<PathBuf> = "[]", live;
        /// Entries that `spooky ctl block` and the like may add while spooky runs; more are refused. Those that the kernel has no
        /// room for are enforced by spooky itself.
        max_dynamic_entries: u64 = "65536", "0" ..= "262144", live;
        /// A file to keep those entries in, so that they survive a restart with the time they have left. Written anew at each
        /// change, by way of a file beside it. Its directory has to be there, and spooky has to be able to write to it.
        /// Without it they end with the process.
        state_file: Option<PathBuf> = "null", restart;
        /// Do not enforce any dynamic entry that blocks, only count whom it would have refused (`spooky_access_spared_total`).
        dry_run: bool = "false", live;
    }
}

choice! {
    /// What happens to addresses in no list.
    pub enum AccessDefault {
        /// They may connect.
        Allow = "allow",
        /// They may not.
        Deny = "deny",
    }
}

section! {
    /// Metrics and health over HTTP/1.1, and a socket for control.
    pub struct Admin {
        /// Address and port of `/metrics` and `/health`. Loopback only: it asks nobody who they are.
        bind: String = "\"127.0.0.1:9901\"", restart;
        /// A unix socket for `spooky ctl`, which changes things while spooky runs; such as /run/spooky/spooky.sock, where
        /// `spooky ctl` looks by itself. Without it there is none. Its directory has to be there.
        socket: Option<PathBuf> = "null", restart;
        /// Who may connect to it: the `owner`, who is whoever starts spooky, or the owner and the file's `group`. Whoever may
        /// connect may do all that `spooky ctl` can. Root always may.
        socket_access: SocketAccess = "owner", restart;
    }
}

choice! {
    /// Who may connect to the control socket.
    pub enum SocketAccess {
        /// Mode 0600.
        Owner = "owner",
        /// Mode 0660.
        Group = "group",
    }
}

section! {
    /// What there may be in all, and what is given up when memory is scarce, so that the system does not have to end the process.
    /// Percentages are of the limit; what was stopped goes on 2 % below its threshold.
    pub struct Overload {
        /// Connections of all listeners together; each worker has an equal share. Above it new clients are refused.
        max_connections: u64 = "50000", "1" ..= "10000000", live;
        /// The limit; without it that of the process's cgroup, and none where that has none.
        memory: Option<ByteSize> = "null", "1MiB" ..= "1024GiB", live;
        /// From here on new connections are refused.
        stop_connections: Percent = "90%", "1%" ..= "100%", live;
        /// From here on new requests get 503.
        stop_requests: Percent = "95%", "1%" ..= "100%", live;
        /// From here on the newest connections are closed.
        shed: Percent = "98%", "1%" ..= "100%", live;
    }
}

section! {
    /// What the process gives up once its sockets are open and its kernel programs run. Its capabilities go always, all but
    /// CAP_NET_BIND_SERVICE where a listener has a port below 1024 (and CAP_BPF before Linux 5.19, where writing to a map asks
    /// for it), no program that it starts could get any, and it leaves no core dump.
    pub struct Privileges {
        /// Who serves. `auto`: `spooky`, when the process was started as root and there is such a user; who called sudo, when
        /// this file is theirs; else whoever started it. `keep`: whoever started it. Otherwise a user's name or number; only
        /// root can become another. A reload reads keys, certificates and lists again as this user: the log says at start which
        /// of them it cannot read.
        user: User = "auto", restart;
        /// Forbid system calls that serving has no use for (seccomp), and files that this configuration does not name
        /// (Landlock). `auto`: as far as the kernel has them; what is missing is told at start. `required`: do not start
        /// without. `off`: neither. A file that a reload is to read must be in a directory that the configuration named at
        /// start; one that lies in a directory of everybody, such as /etc, is read again only as it is, and not when another is
        /// put in its place.
        sandbox: Sandbox = "auto", restart;
    }
}

choice! {
    /// Whether what serving has no use for is forbidden.
    pub enum Sandbox {
        /// As far as it goes.
        Auto = "auto",
        /// All of it, or no start.
        Required = "required",
        /// Nothing.
        Off = "off",
    }
}

/// A user, or a rule for finding one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum User {
    /// `spooky`, if root may become it.
    #[default]
    Auto,
    /// Whoever started the process.
    Keep,
    /// This one; a name or a number.
    Name(String),
}

impl Read for User {
    fn shape() -> Shape {
        Shape::Leaf("auto, keep, or the name or number of a user".to_owned())
    }

    fn read(node: Node<'_>, limits: Limits, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Text(text) if text == "auto" => Some(Self::Auto),
            Value::Text(text) if text == "keep" => Some(Self::Keep),
            Value::Integer(number) if u32::try_from(*number).is_ok() => {
                Some(Self::Name(number.to_string()))
            }
            _ => String::read(node, limits, problems).map(Self::Name),
        }
    }
}

section! {
    /// What SIGTERM does.
    pub struct Shutdown {
        /// How long requests in flight may take after SIGTERM. New connections are refused at once, clients are told to go
        /// away (GOAWAY), and spooky ends when the last request does. After this time the rest is cut off. A second signal
        /// does so at once.
        drain_timeout: Duration = "30s", "0s" ..= "1h", live;
    }
}
