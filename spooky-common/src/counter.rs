//! Every counter of the kernel programs, declared once: its place, its Prometheus name, help and labels. Imports
//! nothing.
//!
//! Each frame adds to exactly one `Xdp*` counter and each packet that reaches a socket group to exactly one
//! `Reuseport*` counter; [`Counter::SamplesLost`] counts records, not packets. Frames are counted by receive queue, in
//! the rows of the per-CPU array `STEERING`; the others in the per-CPU array `COUNTERS`.

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
        /// Every counter, by number.
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
const CAPTURES: (&str, &str) = (
    "spooky_xdp_captures_lost_total",
    "Frames of a capture not recorded because the ring buffer was full.",
);
const REUSEPORT: (&str, &str) = (
    "spooky_reuseport_packets_total",
    "Packets at the reuseport hook by how the socket was chosen and why. A GRO train counts once.",
);

counters! {
    /// A drop sample found the ring buffer full.
    SamplesLost = 0: SAMPLES {};
    /// A captured frame found its ring buffer full.
    CapturesLost = 1: CAPTURES {};
    /// The socket of the worker and generation in the connection ID.
    ReuseportOwner = 2: REUSEPORT { outcome = "owner", reason = "owner" };
    /// One of our IDs, but its worker has no socket: placed by the slot table.
    ReuseportOwnerGone = 3: REUSEPORT { outcome = "slot", reason = "owner_gone" };
    /// A new flow, placed by the slot table.
    ReuseportNewFlow = 4: REUSEPORT { outcome = "slot", reason = "new_flow" };
    /// An unknown long header, placed by the slot table.
    ReuseportUnknownLong = 5: REUSEPORT { outcome = "slot", reason = "unknown_long" };
    /// An unknown short header, placed by the slot table.
    ReuseportUnknownShort = 6: REUSEPORT { outcome = "slot", reason = "unknown_short" };
    /// No QUIC header, placed by the slot table.
    ReuseportNotQuic = 7: REUSEPORT { outcome = "slot", reason = "not_quic" };
    /// The slot is dead or was never filled: the kernel's hash chose.
    ReuseportDeadSlot = 8: REUSEPORT { outcome = "hash", reason = "dead_slot" };
    /// The slot is live but its socket is missing or not in this group: the kernel's hash chose.
    ReuseportRefused = 9: REUSEPORT { outcome = "hash", reason = "refused" };
    /// The group's address is not in the port table: the kernel's hash chose.
    ReuseportOtherPort = 10: REUSEPORT { outcome = "hash", reason = "not_ours" };
    /// The frame ends inside a header.
    XdpTruncated = 11: XDP { verdict = "pass", reason = "truncated" };
    /// Neither IPv4 nor IPv6.
    XdpNotIp = 12: XDP { verdict = "pass", reason = "not_ip" };
    /// Another protocol than UDP.
    XdpNotUdp = 13: XDP { verdict = "pass", reason = "not_udp" };
    /// A fragment.
    XdpFragment = 14: XDP { verdict = "pass", reason = "fragment" };
    /// An IP or UDP header that contradicts itself.
    XdpMalformed = 15: XDP { verdict = "pass", reason = "malformed" };
    /// UDP, but to no listener's address and port.
    XdpOtherPort = 16: XDP { verdict = "pass", reason = "not_ours" };
    /// To a listener, without a QUIC header.
    XdpNotQuic = 17: XDP { verdict = "pass", reason = "not_quic" };
    /// Carries a connection ID of ours.
    XdpOwner = 18: XDP { verdict = "pass", reason = "owner" };
    /// Initial, 0-RTT or another version, with an ID the client chose.
    XdpNewFlow = 19: XDP { verdict = "pass", reason = "new_flow" };
    /// Handshake, Retry or Version Negotiation with an ID that is not ours.
    XdpUnknownLong = 20: XDP { verdict = "pass", reason = "unknown_long" };
    /// Short header with an ID that is not ours.
    XdpUnknownShort = 21: XDP { verdict = "pass", reason = "unknown_short" };
    /// The source is on the deny list.
    XdpDenied = 22: XDP { verdict = "drop", reason = "denied" };
    /// The default is to deny and the source is not on the allow list.
    XdpNotAllowed = 23: XDP { verdict = "drop", reason = "not_allowed" };
    /// To the AF_XDP socket of the worker in its connection ID, which owns the queue it came in by.
    XdpRedirected = 24: XDP { verdict = "redirect", reason = "owner" };
    /// One of our IDs, but its worker and generation are not live: an earlier process's, or a dead worker's.
    XdpOwnerGone = 25: XDP { verdict = "pass", reason = "owner_gone" };
    /// A new flow, to the AF_XDP socket of the queue it came in by.
    XdpRedirectedNew = 26: XDP { verdict = "redirect", reason = "new_flow" };
    /// A QUIC header cut short, or with connection IDs of lengths that version 1 does not have.
    XdpDropMalformed = 27: XDP { verdict = "drop", reason = "malformed" };
    /// An Initial, or another version, in a datagram of less than 1,200 octets.
    XdpTooShort = 28: XDP { verdict = "drop", reason = "too_short" };
    /// Would open a connection, from a service's port.
    XdpSourcePort = 29: XDP { verdict = "drop", reason = "source_port" };
    /// Handshake, Retry or Version Negotiation with an ID of another length than ours.
    XdpNotInitial = 30: XDP { verdict = "drop", reason = "not_initial" };
    /// More packets that open connections than its prefix has a right to.
    XdpPace = 31: XDP { verdict = "drop", reason = "pace" };
    /// More packets of other versions than are answered.
    XdpVersions = 32: XDP { verdict = "drop", reason = "versions" };
    /// Answered with Version Negotiation.
    XdpAnswered = 33: XDP { verdict = "tx", reason = "version" };
    /// Under attack: Handshake, Retry or Version Negotiation with an ID that is not ours.
    XdpDropUnknownLong = 34: XDP { verdict = "drop", reason = "unknown_long" };
    /// Under attack: short header with an ID that is not ours.
    XdpDropUnknownShort = 35: XDP { verdict = "drop", reason = "unknown_short" };
    /// Under attack: one of our IDs, but its worker and generation are not live.
    XdpDropOwnerGone = 36: XDP { verdict = "drop", reason = "owner_gone" };
    /// Under attack: would open a connection without a token of ours, beyond the share of those.
    XdpNoToken = 37: XDP { verdict = "drop", reason = "no_token" };
}

/// What one CPU has counted of the frames of one receive queue, by [`Counter::place_in_row`].
pub type Row = [u64; ROW];

/// Places in a [`Row`]: a power of two, so that a mask bounds the place.
pub const ROW: usize = 32;

const _: () = assert!(Counter::ALL.len() - Counter::FIRST_OF_FRAMES as usize <= ROW);

impl Counter {
    /// The first of those that count frames; all behind it do, too.
    const FIRST_OF_FRAMES: u32 = Self::XdpTruncated as u32;

    /// Entries of `COUNTERS`: those that do not count frames.
    pub const COUNT: u32 = Self::FIRST_OF_FRAMES;

    /// The number: place in [`Self::ALL`], and in `COUNTERS` for those below [`Self::COUNT`].
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// Place in a [`Row`], below [`ROW`]; `None` for what does not count frames.
    #[inline(always)]
    #[must_use]
    pub const fn place_in_row(self) -> Option<usize> {
        match (self as u32).checked_sub(Self::FIRST_OF_FRAMES) {
            Some(place) => Some(place as usize),
            None => None,
        }
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
    fn frames_have_a_row_and_the_others_an_entry() {
        for counter in Counter::ALL {
            let of_frames = counter.describe().metric == XDP.0;
            assert_eq!(counter.place_in_row().is_some(), of_frames, "{counter:?}");
            assert_eq!(counter.index() < Counter::COUNT, !of_frames, "{counter:?}");
        }
        let places: BTreeSet<_> = Counter::ALL.iter().filter_map(|it| it.place_in_row()).collect();
        assert!(places.iter().copied().eq(0..places.len()) && places.len() <= ROW);
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
