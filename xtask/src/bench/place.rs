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

/// Where client and proxy meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// One namespace, its `lo`, MTU 65,536.
    Loopback,
    /// Two namespaces and a veth pair, MTU 1500; the backend is beside the proxy.
    Veth,
}

/// The namespaces of one proxy.
#[derive(Debug)]
pub(crate) struct Net {
    place: Place,
    server: String,
    /// The same as `server` on loopback.
    client: String,
}

impl Place {
    pub(crate) const ALL: [Self; 2] = [Self::Loopback, Self::Veth];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Veth => "veth",
        }
    }

    /// The address that the proxy listens on.
    pub(crate) const fn address(self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::Veth => EDGE_ADDRESS,
        }
    }

    /// The interface that requests arrive at.
    pub(crate) const fn interface(self) -> &'static str {
        match self {
            Self::Loopback => "lo",
            Self::Veth => EDGE,
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
            Place::Veth => format!("{server}-client"),
        };
        // Made before anything can fail, so that dropping it takes down what there is by then.
        let net = Self { place, server, client };
        ip(&["netns", "add", &net.server])?;
        ip(&["-n", &net.server, "link", "set", "lo", "up"])?;
        if place == Place::Veth {
            net.join()?;
        }
        Ok(net)
    }

    fn join(&self) -> Result<(), Failure> {
        let (server, client) = (self.server.as_str(), self.client.as_str());
        ip(&["netns", "add", client])?;
        ip(&["-n", client, "link", "set", "lo", "up"])?;
        let pair = ["type", "veth", "peer", "name", PEER, "mtu", "1500", "netns", client];
        let link = ["-n", server, "link", "add", EDGE, "mtu", "1500"];
        ip(&[&link[..], &pair[..]].concat())?;
        for (namespace, device, address) in
            [(server, EDGE, EDGE_ADDRESS), (client, PEER, PEER_ADDRESS)]
        {
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", device])?;
            ip(&["-n", namespace, "link", "set", device, "up"])?;
        }
        Ok(())
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
    let mut command = Command::new(ip_program());
    command.args(arguments);
    let output = command.output().map_err(|error| cannot_start(&command, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{}: {}", line(&command), said.trim())))
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
