//! What this thread is allowed to do: <https://man7.org/linux/man-pages/man7/capabilities.7.html>.
//! Imports nothing of the crate.

use std::{fmt, io};

use rustix::thread::{CapabilitySet, capabilities};

/// The capabilities spooky asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Load programs, make maps. Since Linux 5.8.
    Bpf,
    /// Attach XDP programs, change interfaces.
    NetAdmin,
    /// AF_XDP sockets.
    NetRaw,
    /// Bind ports below 1024.
    NetBindService,
    /// Everything of the above, before Linux 5.8.
    SysAdmin,
}

/// Is the capability in the effective set of the calling thread?
///
/// # Errors
/// The kernel's; none is known for one's own thread.
pub fn has(capability: Capability) -> io::Result<bool> {
    let set = match capability {
        Capability::Bpf => CapabilitySet::BPF,
        Capability::NetAdmin => CapabilitySet::NET_ADMIN,
        Capability::NetRaw => CapabilitySet::NET_RAW,
        Capability::NetBindService => CapabilitySet::NET_BIND_SERVICE,
        Capability::SysAdmin => CapabilitySet::SYS_ADMIN,
    };
    Ok(capabilities(None)?.effective.contains(set))
}

/// Which capabilities for the kernel programs are missing: none with `CAP_BPF` and `CAP_NET_ADMIN`, or with `CAP_SYS_ADMIN`
/// in the place of `CAP_BPF`.
///
/// # Errors
/// As [`has`].
pub fn missing_for_ebpf() -> io::Result<Vec<Capability>> {
    let mut missing = Vec::new();
    if !has(Capability::Bpf)? && !has(Capability::SysAdmin)? {
        missing.push(Capability::Bpf);
    }
    if !has(Capability::NetAdmin)? {
        missing.push(Capability::NetAdmin);
    }
    Ok(missing)
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bpf => "CAP_BPF",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::NetBindService => "CAP_NET_BIND_SERVICE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel says the same in `/proc/thread-self/status`; the numbers are those of `linux/capability.h`.
    #[test]
    fn agrees_with_proc() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
        for (capability, number) in [
            (Capability::NetBindService, 10),
            (Capability::NetAdmin, 12),
            (Capability::NetRaw, 13),
            (Capability::SysAdmin, 21),
            (Capability::Bpf, 39),
        ] {
            let want = effective & (1 << number) != 0;
            assert_eq!(has(capability).unwrap(), want, "{capability}");
        }
        let full = effective & (1 << 12) != 0 && effective & (1 << 39 | 1 << 21) != 0;
        assert_eq!(missing_for_ebpf().unwrap().is_empty(), full);
    }
}
