//! Every counter of the kernel programs, declared once: its place in the per-CPU array, its Prometheus name, help and
//! labels. Imports nothing.
//!
//! Each frame adds to exactly one `Xdp*` counter and each packet that reaches a socket group to exactly one
//! `Reuseport*` counter; [`Counter::SamplesLost`] counts records, not packets.

/// How a counter is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Prometheus metric name.
    pub metric: &'static str,
    /// Prometheus help text, the same for every counter of one metric.
    pub help: &'static str,
    /// Label names and values.
    pub labels: &'static [(&'static str, &'static str)],
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $index:literal: $metric:ident { $($label:ident = $value:literal),* };)*) => {
        /// Index into the per-CPU array `COUNTERS`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[$doc])* $name = $index,)*
        }

        impl Counter {
            /// All counters, in the order of their index.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Name, help and labels.
            #[must_use]
            pub const fn describe(self) -> Description {
                match self {
                    $(Self::$name => Description {
                        metric: $metric.0,
                        help: $metric.1,
                        labels: &[$((stringify!($label), $value)),*],
                    },)*
                }
            }
        }
    };
}

const XDP: (&str, &str) =
    ("spooky_xdp_frames_total", "Frames at the XDP hook by verdict and the reason for it.");
const SAMPLES: (&str, &str) = (
    "spooky_xdp_samples_lost_total",
    "Drop samples not recorded because the ring buffer was full.",
);
const REUSEPORT: (&str, &str) = (
    "spooky_reuseport_packets_total",
    "Packets at the reuseport hook by how the socket was chosen and why. A GRO train counts once.",
);

counters! {
    /// The frame ends inside a header.
    XdpTruncated = 0: XDP { verdict = "pass", reason = "truncated" };
    /// Neither IPv4 nor IPv6.
    XdpNotIp = 1: XDP { verdict = "pass", reason = "not_ip" };
    /// Another protocol than UDP.
    XdpNotUdp = 2: XDP { verdict = "pass", reason = "not_udp" };
    /// A fragment.
    XdpFragment = 3: XDP { verdict = "pass", reason = "fragment" };
    /// An IP or UDP header that contradicts itself.
    XdpMalformed = 4: XDP { verdict = "pass", reason = "malformed" };
    /// UDP, but to no listener's address and port.
    XdpOtherPort = 5: XDP { verdict = "pass", reason = "not_ours" };
    /// To a listener, without a QUIC header.
    XdpNotQuic = 6: XDP { verdict = "pass", reason = "not_quic" };
    /// Carries a connection ID of ours.
    XdpOwner = 7: XDP { verdict = "pass", reason = "owner" };
    /// Initial, 0-RTT or another version, with an ID the client chose.
    XdpNewFlow = 8: XDP { verdict = "pass", reason = "new_flow" };
    /// Handshake, Retry or Version Negotiation with an ID that is not ours.
    XdpUnknownLong = 9: XDP { verdict = "pass", reason = "unknown_long" };
    /// Short header with an ID that is not ours.
    XdpUnknownShort = 10: XDP { verdict = "pass", reason = "unknown_short" };
    /// The source is on the deny list.
    XdpDenied = 11: XDP { verdict = "drop", reason = "denied" };
    /// The default is to deny and the source is not on the allow list.
    XdpNotAllowed = 12: XDP { verdict = "drop", reason = "not_allowed" };
    /// To an AF_XDP socket.
    XdpRedirected = 13: XDP { verdict = "redirect", reason = "owner" };
    /// A drop sample found the ring buffer full.
    SamplesLost = 14: SAMPLES {};
    /// The socket of the worker and generation in the connection ID.
    ReuseportOwner = 15: REUSEPORT { outcome = "owner", reason = "owner" };
    /// One of our IDs, but its worker has no socket: placed by the slot table.
    ReuseportOwnerGone = 16: REUSEPORT { outcome = "slot", reason = "owner_gone" };
    /// A new flow, placed by the slot table.
    ReuseportNewFlow = 17: REUSEPORT { outcome = "slot", reason = "new_flow" };
    /// An unknown long header, placed by the slot table.
    ReuseportUnknownLong = 18: REUSEPORT { outcome = "slot", reason = "unknown_long" };
    /// An unknown short header, placed by the slot table.
    ReuseportUnknownShort = 19: REUSEPORT { outcome = "slot", reason = "unknown_short" };
    /// No QUIC header, placed by the slot table.
    ReuseportNotQuic = 20: REUSEPORT { outcome = "slot", reason = "not_quic" };
    /// The slot is dead or was never filled: the kernel's hash chose.
    ReuseportDeadSlot = 21: REUSEPORT { outcome = "hash", reason = "dead_slot" };
    /// The slot is live but its socket is missing or not in this group: the kernel's hash chose.
    ReuseportRefused = 22: REUSEPORT { outcome = "hash", reason = "refused" };
    /// The group's address is not in the port table: the kernel's hash chose.
    ReuseportOtherPort = 23: REUSEPORT { outcome = "hash", reason = "not_ours" };
}

impl Counter {
    /// How many counters there are: the size of the per-CPU array.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// Place in the per-CPU array.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::BTreeSet, format};

    use super::*;

    #[test]
    fn the_index_is_the_place_in_the_list() {
        for (place, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(counter.index() as usize, place);
        }
    }

    #[test]
    fn names_and_labels_are_unique() {
        let shown: BTreeSet<_> = Counter::ALL
            .iter()
            .map(|counter| format!("{}{:?}", counter.describe().metric, counter.describe().labels))
            .collect();
        assert_eq!(shown.len(), Counter::ALL.len());
        for counter in Counter::ALL {
            let metric = counter.describe().metric;
            assert!(metric.starts_with("spooky_") && metric.ends_with("_total"), "{metric}");
        }
    }
}
