//! The state that the maps shall have, and how much it took to bring them there: plain values, which the control plane fills in
//! and the parts of the kernel side carry out. Imports spooky-common and ipnet alone.

use std::net::SocketAddr;

use ipnet::IpNet;
use spooky_common::{
    cid::{LocalKey, Owner},
    pace::Pace,
};

/// The state the maps shall have. [`super::Kernel::apply`] makes it so.
#[derive(Debug, Clone)]
pub struct Desired {
    /// Generation of the workers below, 0..=15.
    pub generation: u8,
    /// This process's workers.
    pub workers: Vec<WorkerSlot>,
    /// Where the listeners are bound.
    pub listeners: Vec<ListenerAddress>,
    /// The key of each config id.
    pub keys: [Option<LocalKey>; 7],
    /// Who may speak to the listeners.
    pub access: AccessLists,
    /// Receive queues whose packets go to AF_XDP sockets. One takes effect once its socket is there, see
    /// [`super::Kernel::set_queue_socket`].
    pub queues: Vec<QueueShare>,
    /// What is ended in the kernel besides.
    pub flood: Flood,
}

/// What XDP drops or answers without a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flood {
    /// Drop what its header alone proves to be refused by every worker.
    pub early: bool,
    /// Packets that open connections, for each IPv4 /24 and IPv6 /48.
    pub new_flows: Pace,
    /// Version Negotiation packets, all together; without a limit workers send them.
    pub versions: Pace,
}

/// What XDP does while there is an attack, and what it is not told of with [`Desired`]: it changes by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attack {
    /// There is one: what no live connection can have sent is dropped.
    pub on: bool,
    /// Packets that open connections without a token, for each IPv4 /24 and IPv6 /48.
    pub strangers: Pace,
    /// The same, all together.
    pub strangers_all: Pace,
    /// Unix time in milliseconds; tokens that were minted before are none.
    pub tokens_since_ms: u64,
}

/// A receive queue with an AF_XDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueShare {
    /// Its number, 0..=63.
    pub queue: u32,
    /// Who reads the socket: packets with an ID of this owner that come in by this queue go there.
    pub owner: Owner,
    /// How many of the 256 slots of new flows stay on the queue, 0..=256; the others go through the stack, where the
    /// placement table decides.
    pub share: u16,
}

/// One worker's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerSlot {
    /// Its number.
    pub worker: u8,
    /// Share of new connections relative to the others; 0: none, while its own connections still reach it.
    pub weight: u16,
    /// `false`: its sockets leave the array, so its packets go to the living, and it takes no new connection.
    pub reachable: bool,
}

/// Where a listener is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerAddress {
    /// Its number, 0..=15, as in [`super::Kernel::join_group`].
    pub index: u16,
    /// Its local address; unspecified means every address of the family, and of IPv4 too for an IPv6 socket that is
    /// not `IPV6_V6ONLY`.
    pub address: SocketAddr,
}

/// The lists and the default. The allow list wins over the deny list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessLists {
    /// Whether a source on no list is refused.
    pub default_deny: bool,
    /// Let in whatever else holds.
    pub allow: Vec<IpNet>,
    /// Refused unless allowed.
    pub deny: Vec<IpNet>,
}

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The allow list.
    Allow,
    /// The deny list.
    Deny,
}

/// An entry that shall be on a list, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    /// The list.
    pub side: Side,
    /// The prefix.
    pub net: IpNet,
    /// Whether it shall be there.
    pub listed: bool,
}

/// How many map entries an [`super::Kernel::apply`] wrote or removed. All zero: the maps were as desired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Keys of config ids.
    pub keys: usize,
    /// Slots of the placement table.
    pub slots: usize,
    /// Owners that came to life or went.
    pub owners: usize,
    /// Receive queues.
    pub queues: usize,
    /// Sockets put into or taken out of the array.
    pub sockets: usize,
    /// Prefixes of all four lists.
    pub prefixes: usize,
    /// Ports and addresses.
    pub listeners: usize,
    /// Writes of the settings.
    pub settings: usize,
}

// === impl Applied ===

impl Applied {
    /// Entries changed in all maps.
    #[must_use]
    pub const fn total(&self) -> usize {
        let steering = self.keys + self.slots + self.owners + self.queues + self.sockets;
        steering + self.prefixes + self.listeners + self.settings
    }
}
