//! Two network namespaces of the test's own, joined by a veth pair with several queues. They go when the guard is
//! dropped; what a killed test run left behind goes when the next one starts.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Names are `spnet-PID-N-ROLE`, so that what a dead process left can be told from what is in use.
const PREFIX: &str = "spnet-";
/// Interface in the server's namespace.
pub const EDGE: &str = "edge0";
/// Interface in the clients' namespace.
pub const PEER: &str = "peer0";

/// The server's addresses.
pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));

/// The n-th client address, from 0: 10.77.0.2, fd77::2 and on. There are [`CLIENTS`] of each family.
pub fn client_v4(index: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2 + index))
}

pub fn client_v6(index: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2 + u16::from(index)))
}

/// Client addresses of each family.
pub const CLIENTS: u8 = 4;

/// A name of a namespace; cheap to copy, owns nothing.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

/// Both namespaces. Dropping it deletes them, and with them the veth pair.
#[derive(Debug)]
pub struct Pair {
    pub server: Namespace,
    pub clients: Namespace,
}

impl Pair {
    /// Makes the namespaces and joins them with `queues` receive and transmit queues a side, GRO on at both, IPv4 and
    /// IPv6 addresses set.
    ///
    /// # Panics
    /// When `ip` or `ethtool` fail; ask [`crate::privilege::kernel`] first.
    pub fn new(queues: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        clear_left_over();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let named = |role| format!("{PREFIX}{}-{number}-{role}", std::process::id());
        let pair = Self {
            server: Namespace { name: named("server") },
            clients: Namespace { name: named("clients") },
        };
        for namespace in [&pair.server, &pair.clients] {
            run("ip", &["netns", "add", &namespace.name]);
            namespace.ip(&["link", "set", "lo", "up"]);
        }
        pair.link(queues);
        pair
    }

    /// Joins the namespaces by a new veth pair, of the same names and addresses.
    ///
    /// # Panics
    /// When `ip` or `ethtool` fail: there is one already, say.
    pub fn link(&self, queues: u32) {
        self.link_as(EDGE, queues);
    }

    /// The same, but the server's interface has this name.
    ///
    /// # Panics
    /// As [`Pair::link`].
    pub fn link_as(&self, name: &str, queues: u32) {
        let queues = queues.to_string();
        let sizes = ["numrxqueues", &queues, "numtxqueues", &queues];
        let mut link = vec!["link", "add", name];
        link.extend(sizes);
        link.extend(["type", "veth", "peer", "name", PEER, "netns", &self.clients.name]);
        link.extend(sizes);
        self.server.ip(&link);
        self.server.join(name, &[SERVER_V4, SERVER_V6]);
        let clients: Vec<IpAddr> =
            (0..CLIENTS).flat_map(|n| [client_v4(n), client_v6(n)]).collect();
        self.clients.join(PEER, &clients);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.clients] {
            delete(&namespace.name);
        }
    }
}

impl Namespace {
    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `work` in a thread that has moved inside.
    ///
    /// # Panics
    /// When the namespace is gone, or `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = Path::new("/run/netns").join(&self.name);
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                work()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// `ip -n NAME ...`.
    ///
    /// # Panics
    /// When it fails.
    pub fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments);
        run("ip", &all);
    }

    fn join(&self, interface: &str, addresses: &[IpAddr]) {
        for address in addresses {
            let text = format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 });
            let mut add = vec!["address", "add", text.as_str(), "dev", interface];
            if address.is_ipv6() {
                // Duplicate address detection would keep the address unusable for a second.
                add.push("nodad");
            }
            self.ip(&add);
        }
        self.ip(&["link", "set", interface, "up"]);
        run("ip", &["netns", "exec", &self.name, "ethtool", "-K", interface, "gro", "on"]);
    }
}

/// Deletes namespaces whose process is gone.
fn clear_left_over() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            delete(&name);
        }
    }
}

fn delete(name: &str) {
    // Best effort: it runs in drop, and again at the next start.
    let _deleted = Command::new("ip").args(["netns", "del", name]).output();
}

fn run(program: &str, arguments: &[&str]) {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => panic!("{program}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::privilege;

    #[test]
    fn a_pair_carries_both_families_over_all_its_queues_and_leaves_nothing() {
        if !privilege::kernel("a_pair_carries_both_families_over_all_its_queues_and_leaves_nothing")
        {
            return;
        }
        let pair = Pair::new(4);
        let names = [pair.server.name.clone(), pair.clients.name.clone()];
        for (server, client) in [(SERVER_V4, client_v4(3)), (SERVER_V6, client_v6(3))] {
            let inside =
                |address| move || UdpSocket::bind((address, 0)).expect("the address is set");
            let listener = pair.server.run(inside(server));
            let sender = pair.clients.run(inside(client));
            let to = listener.local_addr().expect("a bound socket has an address");
            sender.send_to(b"hello", to).expect("there is a route");
            listener.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
            let (length, from) = listener.recv_from(&mut [0; 16]).expect("the datagram arrives");
            assert_eq!((length, from.ip()), (5, client));
        }
        let queues =
            pair.server.command("ls").arg(format!("/sys/class/net/{EDGE}/queues")).output();
        let queues = String::from_utf8(queues.expect("ls runs").stdout).expect("names are ASCII");
        assert_eq!(queues.matches("rx-").count(), 4, "{queues}");
        drop(pair);
        assert!(names.iter().all(|name| !Path::new("/run/netns").join(name).exists()));
    }
}
