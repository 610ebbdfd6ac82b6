//! Network namespaces that a measurement has for itself: a loopback of its own, or a veth pair between two. They go
//! when the value is dropped; what a killed bench left goes when the next one begins. Imports `command` only.

use crate::command::{Failure, cannot_start, line, which};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Names are `spooky-bench-PID-N`, so that what a dead process left can be told from what is in use.
const PREFIX: &str = "spooky-bench-";
/// The server's end of a veth pair.
const EDGE: &str = "edge0";
const PEER: &str = "peer0";
const EDGE_ADDRESS: &str = "10.78.0.1";
const PEER_ADDRESS: &str = "10.78.0.2";
/// Real-time priority of a thread that receives.
const RECEIVER: &str = "20";

/// Where client and proxy meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// One namespace, its `lo`, MTU 65,536.
    Loopback,
    /// Two namespaces and a veth pair, MTU 1500; the backend is beside the proxy.
    Veth,
    /// As [`Self::Veth`], as like a card of one queue as veth can be: GRO at both ends, datagrams arrive one by one, and
    /// what an end receives is received by a kernel thread (NAPI), the proxy's on the proxy's core, as if by an interrupt.
    Card,
}

/// The namespaces of one proxy.
#[derive(Debug)]
pub(crate) struct Net {
    place: Place,
    server: String,
    /// The same as `server` on loopback.
    client: String,
    /// Kernel threads that were there before it.
    before: Vec<u32>,
    /// Those that receive for each end, once [`Self::settle`] has found them.
    threads: Threads,
}

/// Kernel threads that receive, by their end of the pair.
#[derive(Clone, Debug, Default)]
pub(crate) struct Threads {
    pub(crate) edge: Vec<u32>,
    pub(crate) peer: Vec<u32>,
}

impl Place {
    /// Those that proxies are compared in.
    pub(crate) const ALL: [Self; 2] = [Self::Loopback, Self::Veth];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Veth => "veth",
            Self::Card => "card",
        }
    }

    /// The address that the proxy listens on.
    pub(crate) const fn address(self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::Veth | Self::Card => EDGE_ADDRESS,
        }
    }

    /// The interface that requests arrive at.
    pub(crate) const fn interface(self) -> &'static str {
        match self {
            Self::Loopback => "lo",
            Self::Veth | Self::Card => EDGE,
        }
    }
}

impl Net {
    /// # Errors
    /// `ip` failed: not root, or no such kind of link in this kernel.
    pub(crate) fn new(place: Place) -> Result<Self, Failure> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let server = format!("{PREFIX}{}-{number}", std::process::id());
        let client = match place {
            Place::Loopback => server.clone(),
            Place::Veth | Place::Card => format!("{server}-client"),
        };
        // Made before anything can fail, so that dropping it takes down what there is by then.
        let (before, threads) = (receivers(), Threads::default());
        let before = before.into_iter().map(|(pid, _)| pid).collect();
        let net = Self { place, server, client, before, threads };
        ip(&["netns", "add", &net.server])?;
        ip(&["-n", &net.server, "link", "set", "lo", "up"])?;
        if place != Place::Loopback {
            net.join()?;
        }
        if place == Place::Card {
            net.make_a_card()?;
        }
        Ok(net)
    }

    fn join(&self) -> Result<(), Failure> {
        let (server, client) = (self.server.as_str(), self.client.as_str());
        ip(&["netns", "add", client])?;
        ip(&["-n", client, "link", "set", "lo", "up"])?;
        let one: &[&str] = match self.place {
            Place::Card => &["numrxqueues", "1", "numtxqueues", "1"],
            Place::Loopback | Place::Veth => &[],
        };
        let pair = ["type", "veth", "peer", "name", PEER, "mtu", "1500", "netns", client];
        let link = ["-n", server, "link", "add", EDGE, "mtu", "1500"];
        ip(&[&link[..], one, &pair[..], one].concat())?;
        for (namespace, device, address) in
            [(server, EDGE, EDGE_ADDRESS), (client, PEER, PEER_ADDRESS)]
        {
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", device])?;
            ip(&["-n", namespace, "link", "set", device, "up"])?;
        }
        Ok(())
    }

    /// NAPI in threads, and no train of datagrams through the wire to the proxy: no card takes one.
    fn make_a_card(&self) -> Result<(), Failure> {
        // veth gives datagrams to NAPI only when the other end cuts no TCP trains either; there is no TCP here.
        self.features(&self.server, EDGE, &["gro", "on", "tso", "off"])?;
        let client = ["gro", "on", "tso", "off", "tx-udp-segmentation", "off"];
        self.features(&self.client, PEER, &client)?;
        for (namespace, device) in [(&self.server, EDGE), (&self.client, PEER)] {
            let write = format!("echo 1 > /sys/class/net/{device}/threaded");
            ip(&["netns", "exec", namespace, "sh", "-c", &write])?;
        }
        Ok(())
    }

    /// What the proxy sends leaves as single datagrams, as with a card that cannot cut trains itself.
    ///
    /// # Errors
    /// `ethtool` failed.
    pub(crate) fn without_segmentation(&self) -> Result<(), Failure> {
        self.features(&self.server, EDGE, &["tx-udp-segmentation", "off"])
    }

    fn features(&self, namespace: &str, device: &str, features: &[&str]) -> Result<(), Failure> {
        let ethtool = ["netns", "exec", namespace, "ethtool", "-K", device];
        ip(&[&ethtool[..], features].concat())
    }

    /// Answers to these addresses go to the clients' end.
    ///
    /// # Errors
    /// `ip` failed.
    pub(crate) fn route_to_clients(&self, prefix: &str) -> Result<(), Failure> {
        ip(&["-n", &self.server, "route", "add", prefix, "via", PEER_ADDRESS])
    }

    /// Finds the threads that receive and puts each on its core, before whatever else wants it: an interrupt would be. Once the
    /// proxy runs: XDP may have changed them.
    ///
    /// # Errors
    /// There is none at an end, or it cannot be put anywhere.
    pub(crate) fn settle(&mut self, proxy: &str, client: &str) -> Result<(), Failure> {
        if self.place != Place::Card {
            return Ok(());
        }
        let new = receivers().into_iter().filter(|(pid, _)| !self.before.contains(pid));
        let new: Vec<(u32, String)> = new.collect();
        let at = |device: &str| -> Vec<u32> {
            let begin = format!("napi/{device}-");
            new.iter().filter(|(_, name)| name.starts_with(&begin)).map(|(pid, _)| *pid).collect()
        };
        self.threads = Threads { edge: at(EDGE), peer: at(PEER) };
        if self.threads.edge.is_empty() || self.threads.peer.is_empty() {
            return Err(Failure::new("this kernel has no threaded NAPI for veth: Linux 5.12 has"));
        }
        for (pids, cores) in [(&self.threads.edge, proxy), (&self.threads.peer, client)] {
            for pid in pids {
                run("taskset", &["-c", "-p", cores, &pid.to_string()])?;
                run("chrt", &["-f", "-p", RECEIVER, &pid.to_string()])?;
            }
        }
        Ok(())
    }

    pub(crate) fn threads(&self) -> &Threads {
        &self.threads
    }

    /// The hardware address of the proxy's end, as `cat` shows it.
    ///
    /// # Errors
    /// `ip` failed.
    pub(crate) fn edge_mac(&self) -> Result<String, Failure> {
        let file = format!("/sys/class/net/{EDGE}/address");
        run("ip", &["netns", "exec", &self.server, "cat", &file]).map(|text| text.trim().to_owned())
    }

    /// The clients' end.
    pub(crate) const fn peer(&self) -> &'static str {
        PEER
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// `program` beside the proxy, on these cores.
    pub(crate) fn beside_the_proxy(&self, cores: &str, program: impl AsRef<OsStr>) -> Command {
        inside(&self.server, cores, program.as_ref())
    }

    /// `program` where the clients are, on these cores.
    pub(crate) fn at_the_client(&self, cores: &str, program: impl AsRef<OsStr>) -> Command {
        inside(&self.client, cores, program.as_ref())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        delete(&self.server);
        if self.client != self.server {
            delete(&self.client);
        }
    }
}

/// `setpriv`, `ip netns exec` and `taskset` replace themselves: the process is the program, and ends with this one.
fn inside(namespace: &str, cores: &str, program: &OsStr) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(ip_program());
    command.args(["netns", "exec", namespace]);
    command.args(["taskset", "-c", cores]).arg(program).stdin(Stdio::null());
    // Ctrl-C of the terminal reaches the bench alone, which ends its children in order.
    command.process_group(0);
    command
}

/// Deletes the namespaces of benches that were killed.
pub(crate) fn sweep() {
    let Ok(names) = Path::new("/run/netns").read_dir() else { return };
    for name in names.flatten() {
        let name = name.file_name().to_string_lossy().into_owned();
        if owner(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            delete(&name);
        }
    }
}

/// The process that made a namespace of this name.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn delete(namespace: &str) {
    // It may never have been made.
    let quiet = Command::new(ip_program())
        .args(["netns", "delete", namespace])
        .stderr(Stdio::null())
        .status();
    drop(quiet);
}

/// In a directory that the PATH of a user may lack.
fn ip_program() -> PathBuf {
    which("ip").unwrap_or_else(|| "ip".into())
}

fn ip(arguments: &[&str]) -> Result<(), Failure> {
    run("ip", arguments).map(drop)
}

/// What it writes, when it succeeds.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new(which(program).unwrap_or_else(|| program.into()));
    command.args(arguments);
    let output = command.output().map_err(|error| cannot_start(&command, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{}: {}", line(&command), said.trim())))
}

/// Kernel threads that receive for an interface, with their names: `napi/DEVICE-NUMBER`.
fn receivers() -> Vec<(u32, String)> {
    let Ok(processes) = Path::new("/proc").read_dir() else { return Vec::new() };
    let numbers =
        processes.flatten().filter_map(|it| it.file_name().to_string_lossy().parse::<u32>().ok());
    let named = numbers.filter_map(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        name.starts_with("napi/").then(|| (pid, name.trim().to_owned()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_namespace_is_in_its_name() {
        assert_eq!(owner("spooky-bench-17-3"), Some(17));
        assert_eq!(owner("spooky-bench-17-3-client"), Some(17));
        assert_eq!(owner("spnet-17-3"), None);
    }
}
