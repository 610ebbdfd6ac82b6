//! Names, capacities, keys and values of the eBPF maps. All of them are written by the control plane and read by the
//! kernel programs, but `COUNTERS`, `STEERING`, `BUCKETS` and `SAMPLES`, which go the other way. Imports [`crate::cid`],
//! [`crate::frame`] and [`crate::pace`].
//!
//! Every value is either at most four octets, so that a rewrite is seen whole, or says below what a reader may see
//! while it is rewritten.

use crate::{
    cid::{CONFIG_IDS, LocalKey, Owner},
    frame::Address,
    pace::Pace,
};

/// Name of the XDP program in the object.
pub const PROGRAM_XDP: &str = "spooky_xdp";
/// Name of the XDP program that answers, which the other goes on to.
pub const PROGRAM_ANSWER: &str = "spooky_answer";
/// Name of the XDP program that looks closer while there is an attack, which the other goes on to.
pub const PROGRAM_GUARD: &str = "spooky_guard";
/// Name of the sk_reuseport program in the object.
pub const PROGRAM_REUSEPORT: &str = "spooky_reuseport";

/// Array of [`Port`], indexed by UDP port.
pub const PORTS: &str = "PORTS";
/// Hash of [`AddressKey`] to listener number.
pub const ADDRESSES: &str = "ADDRESSES";
/// Reuseport socket array, indexed by [`socket_index`].
pub const SOCKETS: &str = "SOCKETS";
/// Array of [`Slot`].
pub const SLOTS: &str = "SLOTS";
/// Array of [`Queue`], indexed by receive queue.
pub const QUEUES: &str = "QUEUES";
/// Array of `u32`, indexed by [`owner_index`]: not 0 while that worker and generation are live.
pub const OWNERS: &str = "OWNERS";
/// Array of [`Key`], indexed by config id.
pub const KEYS: &str = "KEYS";
/// LPM trie of denied IPv4 prefixes.
pub const DENY_V4: &str = "DENY_V4";
/// LPM trie of denied IPv6 prefixes.
pub const DENY_V6: &str = "DENY_V6";
/// LPM trie of allowed IPv4 prefixes.
pub const ALLOW_V4: &str = "ALLOW_V4";
/// LPM trie of allowed IPv6 prefixes.
pub const ALLOW_V6: &str = "ALLOW_V6";
/// Words of [`crate::prefix`] for `DENY_V4`.
pub const DENY_V4_WORDS: &str = ".bss.deny_v4";
/// Words for `DENY_V6`.
pub const DENY_V6_WORDS: &str = ".bss.deny_v6";
/// Words for `ALLOW_V4`.
pub const ALLOW_V4_WORDS: &str = ".bss.allow_v4";
/// Words for `ALLOW_V6`.
pub const ALLOW_V6_WORDS: &str = ".bss.allow_v6";
/// Array of one [`Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// Per-CPU array of `u64`, indexed by [`crate::counter::Counter`]: those that do not count frames.
pub const COUNTERS: &str = "COUNTERS";
/// Per-CPU array of [`crate::counter::Row`], indexed by [`steering_row`].
pub const STEERING: &str = "STEERING";
/// Array of `u64`: when the next packet of a bucket is due, see [`crate::pace`].
pub const BUCKETS: &str = "BUCKETS";
/// Ring buffer of [`crate::sample::Sample`].
pub const SAMPLES: &str = "SAMPLES";
/// Ring buffer of [`crate::capture::Capture`].
pub const CAPTURES: &str = "CAPTURES";
/// Program array: [`PROGRAM_ANSWER`] at [`ANSWER_PLACE`], [`PROGRAM_GUARD`] at [`GUARD_PLACE`].
pub const PROGRAMS: &str = "PROGRAMS";
/// AF_XDP sockets by receive queue.
pub const XSKS: &str = "XSKS";
/// Longest Ethernet frame that is redirected to an AF_XDP socket. Frames of its memory have 2,048 octets, of which the kernel
/// keeps 256 (`XDP_PACKET_HEADROOM`); it drops what is longer. No connection takes a datagram of that length.
pub const REDIRECT_OCTETS_MAX: usize = 2048 - 256;
/// Read-only section that holds [`crate::LAYOUT_VERSION`].
pub const LAYOUT: &str = ".rodata.layout";

/// Place in `PROGRAMS`.
pub const ANSWER_PLACE: u32 = 0;
/// Place in `PROGRAMS`.
pub const GUARD_PLACE: u32 = 1;
/// Entries of `PROGRAMS`.
pub const PROGRAMS_CAPACITY: u32 = 2;
/// Entries of `PORTS`: one a UDP port.
pub const PORTS_CAPACITY: u32 = 1 << 16;
/// Listeners there can be; [`Port`] and [`socket_index`] have no room for more.
pub const LISTENERS_CAPACITY: u32 = 16;
/// Entries of `SOCKETS`: listeners x generations x workers.
pub const SOCKETS_CAPACITY: u32 = LISTENERS_CAPACITY << 12;
/// Slots of the placement table; a slot is an octet of hash.
pub const SLOTS_CAPACITY: u32 = 256;
/// Entries of `KEYS`: all values of three bits. The last one stays empty.
pub const KEYS_CAPACITY: u32 = CONFIG_IDS as u32 + 1;
/// Prefixes per family in the deny list. Memory is taken per entry, not up front.
pub const DENY_CAPACITY: u32 = 131_072;
/// Prefixes per family in the allow list.
pub const ALLOW_CAPACITY: u32 = 16_384;
/// Octets of the ring buffer: 4096 samples of 64 octets with their headers fit in less.
pub const SAMPLES_CAPACITY: u32 = 1 << 18;
/// Octets of the ring buffer: 1900 captured frames, fifteen times as many a second as they are read.
pub const CAPTURES_CAPACITY: u32 = 1 << 20;
/// Receive queues that can have an AF_XDP socket: entries of `XSKS` and `QUEUES`.
pub const XSKS_CAPACITY: u32 = 64;
/// Rows of `STEERING`: one a receive queue that can have an AF_XDP socket, and one for all queues behind those.
pub const STEERING_CAPACITY: u32 = XSKS_CAPACITY + 1;
/// Entries of `OWNERS`: generations x workers.
pub const OWNERS_CAPACITY: u32 = 1 << 12;

/// What is known of a UDP port. Listener numbers are index + 1; 0 is none. Four octets: rewritten at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Port {
    /// Listener bound to the IPv4 wildcard, or to the IPv6 wildcard when it takes IPv4 as well.
    pub any_v4: u8,
    /// Listener bound to the IPv6 wildcard.
    pub any_v6: u8,
    /// Not 0: some listener is bound to a single address, see `ADDRESSES`.
    pub by_address: u8,
    /// Always 0.
    pub reserved: u8,
}

/// A listener's address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct AddressKey {
    /// IPv6 address in network order; IPv4 in its mapped form `::ffff:a.b.c.d` (RFC 4291 s2.5.5.2).
    pub address: [u8; 16],
    /// UDP port, host order.
    pub port: u16,
    /// Always 0.
    pub reserved: u16,
}

/// One slot of the placement table: `worker`, `generation << 8`, and bit 16 when it is live. Zero is a dead slot, so
/// a fresh table is all dead. Four octets: rewritten at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Slot(pub u32);

/// Who owns the AF_XDP socket of a receive queue: `worker`, `generation << 8`, bit 16 when it is live, and from bit 20
/// on how many slots of new flows stay on the queue, 0..=256. Zero is a queue of nobody. Four octets: rewritten at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Queue(pub u32);

/// The key of one config id. A reader during a rewrite may see half of each key: that packet does not decode, is
/// placed by its flow, and user space hands it to its owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Key {
    /// The key.
    pub local: LocalKey,
    /// Not 0: the key is in use.
    pub live: u32,
    /// Always 0.
    pub reserved: u32,
}

/// What holds for all listeners. Written whole; a reader may see a mix of old and new fields, never of one field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Secret of the placement hash. Chosen once at load: changing it moves half-open connections.
    pub placement: LocalKey,
    /// Not 0: a source on no list is refused.
    pub default_deny: u32,
    /// Every how many drops, per reason and CPU, one is sampled; 0 for none.
    pub sample_every: u32,
    /// By [`List`], how it is to be looked up: a [`Lookup`] as a number. Four octets: rewritten at once.
    pub lists: [u8; 4],
    /// Every how many frames to a listener, per verdict and reason and CPU, one is captured; 0 for none.
    pub capture_every: u32,
    /// Not 0: what a header alone proves is refused here, see [`crate::early`].
    pub early: u32,
    /// Not 0: there is an attack. What belongs to no connection is dropped, and strangers have `strangers`.
    pub attack: u32,
    /// Of packets that open connections, for each prefix.
    pub new_flows: Pace,
    /// Of Version Negotiation packets; no limit: user space sends them.
    pub versions: Pace,
    /// In place of `new_flows` under attack: of packets that open connections without a token of ours, for each prefix.
    pub strangers: Pace,
    /// The same, of all prefixes together.
    pub strangers_all: Pace,
    /// Under attack, the Unix time in milliseconds from which on a token is not too old.
    pub tokens_since_ms: u64,
}

/// A list of one family, by its place in [`Settings::lists`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum List {
    /// `DENY_V4`.
    DenyV4 = 0,
    /// `DENY_V6`.
    DenyV6 = 1,
    /// `ALLOW_V4`.
    AllowV4 = 2,
    /// `ALLOW_V6`.
    AllowV6 = 3,
}

/// Where a list is looked up. The trie is always complete; it is in use while the words are rewritten, and for a list
/// that does not fit into them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Lookup {
    /// The list is empty: nowhere.
    Nowhere = 0,
    /// In the LPM trie.
    Trie = 1,
    /// In the words of [`crate::prefix`].
    Words = 2,
}

/// Place in `SOCKETS` of the socket that `owner` holds for a listener: 4 bits of listener, 4 of generation, 8 of
/// worker.
#[inline(always)]
#[must_use]
pub const fn socket_index(listener: u8, owner: Owner) -> u32 {
    (listener as u32 & 0x0f) << 12 | (owner.generation as u32 & 0x0f) << 8 | owner.worker as u32
}

/// Place in `OWNERS`: 4 bits of generation, 8 of worker.
#[inline(always)]
#[must_use]
pub const fn owner_index(owner: Owner) -> u32 {
    socket_index(0, owner)
}

/// Who is at a place in `OWNERS`.
#[must_use]
pub const fn owner_at(index: u32) -> Owner {
    Owner { worker: index as u8, generation: (index >> 8) as u8 & 0x0f }
}

/// Place in `STEERING` of the frames of a receive queue.
#[inline(always)]
#[must_use]
pub const fn steering_row(queue: u32) -> u32 {
    if queue < XSKS_CAPACITY { queue } else { XSKS_CAPACITY }
}

impl AddressKey {
    /// The key of an address as it stands in a packet or a socket.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: &Address, port: u16) -> Self {
        // In words: octet by octet the kernel program would take every address apart and together again.
        let address = match *address {
            Address::V4(octets) => 0xffff << 32 | u32::from_be_bytes(octets) as u128,
            Address::V6(octets) => u128::from_be_bytes(octets),
        };
        Self { address: address.to_be_bytes(), port, reserved: 0 }
    }
}

impl From<core::net::SocketAddr> for AddressKey {
    fn from(address: core::net::SocketAddr) -> Self {
        Self::new(&address.ip().into(), address.port())
    }
}

impl Slot {
    const LIVE: u32 = 1 << 16;

    /// A live slot of `owner`.
    #[inline]
    #[must_use]
    pub const fn live(owner: Owner) -> Self {
        Self(Self::LIVE | (owner.generation as u32 & 0x0f) << 8 | owner.worker as u32)
    }

    /// A slot of nobody.
    pub const DEAD: Self = Self(0);

    /// Who the slot leads to; `None` when it is dead.
    #[inline(always)]
    #[must_use]
    pub const fn owner(self) -> Option<Owner> {
        if self.0 & Self::LIVE == 0 {
            return None;
        }
        Some(Owner { worker: self.0 as u8, generation: (self.0 >> 8) as u8 & 0x0f })
    }
}

impl Queue {
    const LIVE: u32 = 1 << 16;
    const SHARE_SHIFT: u32 = 20;

    /// A queue whose AF_XDP socket belongs to `owner`. Of the 256 slots of new flows the first `share` stay on it; more
    /// than 256 are as good as 256.
    #[inline]
    #[must_use]
    pub const fn live(owner: Owner, share: u16) -> Self {
        let share = if share as u32 > SLOTS_CAPACITY { SLOTS_CAPACITY } else { share as u32 };
        Self(Self::LIVE | share << Self::SHARE_SHIFT | owner_index(owner))
    }

    /// A queue without an AF_XDP socket.
    pub const NOBODYS: Self = Self(0);

    /// Whose AF_XDP socket it has; `None` for a queue of nobody.
    #[must_use]
    pub const fn owner(self) -> Option<Owner> {
        if self.0 & Self::LIVE == 0 { None } else { Some(owner_at(self.0)) }
    }

    /// How many of the 256 slots of new flows stay on the queue.
    #[must_use]
    pub const fn share(self) -> u16 {
        (self.0 >> Self::SHARE_SHIFT) as u16
    }

    /// Whether its AF_XDP socket is `owner`'s.
    #[inline(always)]
    #[must_use]
    pub const fn is_of(self, owner: Owner) -> bool {
        self.0 & (Self::LIVE | (Self::LIVE - 1)) == Self::LIVE | owner_index(owner)
    }

    /// Whether a new flow of this slot stays on the queue.
    #[inline(always)]
    #[must_use]
    pub const fn keeps(self, slot: u8) -> bool {
        (slot as u32) < self.0 >> Self::SHARE_SHIFT
    }
}

impl Key {
    /// The entry of a config id.
    #[must_use]
    pub const fn new(local: Option<LocalKey>) -> Self {
        match local {
            Some(local) => Self { local, live: 1, reserved: 0 },
            None => Self { local: LocalKey { k0: 0, k1: 0 }, live: 0, reserved: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slots_and_indices_keep_every_bit(listener in 0_u8..16, worker: u8, generation in 0_u8..16) {
            let owner = Owner { worker, generation };
            prop_assert_eq!(Slot::live(owner).owner(), Some(owner));
            let index = socket_index(listener, owner);
            prop_assert!(index < SOCKETS_CAPACITY);
            prop_assert_eq!(owner_at(owner_index(owner)), owner);
            prop_assert_eq!((index >> 12, index >> 8 & 15, index & 255), (listener.into(), generation.into(), worker.into()));
        }
    }

    proptest! {
        #[test]
        fn a_queue_is_of_its_owner_alone(worker: u8, generation in 0_u8..16, share in 0_u16..400, slot: u8) {
            let owner = Owner { worker, generation };
            let queue = Queue::live(owner, share);
            prop_assert!(queue.is_of(owner));
            for step in 1..=u8::MAX {
                let other = Owner { worker: worker.wrapping_add(step), generation };
                prop_assert!(!queue.is_of(other), "{:?}", other);
            }
            for step in 1..16 {
                let other = Owner { worker, generation: (generation + step) % 16 };
                prop_assert!(!queue.is_of(other), "{:?}", other);
            }
            prop_assert_eq!(queue.keeps(slot), u16::from(slot) < share);
            prop_assert!(owner_index(owner) < OWNERS_CAPACITY);
        }
    }

    #[test]
    fn a_queue_of_nobody_keeps_nothing() {
        assert_eq!(Queue::default(), Queue::NOBODYS);
        assert!(!Queue::NOBODYS.is_of(Owner { worker: 0, generation: 0 }));
        assert!(!Queue::NOBODYS.keeps(0));
        assert!(Queue::live(Owner { worker: 0, generation: 0 }, 256).keeps(255));
        assert_eq!([0, 63, 64, u32::MAX].map(steering_row), [0, 63, 64, 64]);
    }

    #[test]
    fn a_fresh_map_steers_nobody() {
        assert_eq!(Slot::default(), Slot::DEAD);
        assert_eq!(Slot::DEAD.owner(), None);
        assert_eq!(Key::default(), Key::new(None));
    }

    #[test]
    fn an_ipv4_listener_is_keyed_by_its_mapped_address() {
        let key = AddressKey::new(&Address::V4([192, 0, 2, 7]), 443);
        let mapped = core::net::Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped();
        assert_eq!(key, AddressKey::new(&Address::V6(mapped.octets()), 443));
    }
}
