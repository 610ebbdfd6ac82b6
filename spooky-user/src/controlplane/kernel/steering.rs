//! What steers: socket groups, the placement table, keys, ports and addresses. Each function reads what the map holds
//! and writes only the difference.
//!
//! The socket array is the one map that cannot be read back (the kernel returns no socket), so [`Groups`] remembers
//! what it put there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::programs::SkReuseport;
use socket2::SockRef;
use spooky_common::{
    cid::{LocalKey, Owner},
    map::{
        self, AddressKey, Key, LISTENERS_CAPACITY, Port, SLOTS_CAPACITY, Settings, owner_index,
        socket_index,
    },
};

use super::{
    Desired, KernelError, ListenerAddress, UnderAttack,
    error::{map_error, program_error},
    object::{self, Loaded, differ},
    slots,
};

/// The sockets of all joined groups.
#[derive(Default)]
pub(super) struct Groups {
    members: BTreeMap<(u8, Owner), Member>,
    /// Listeners whose IPv6 sockets take IPv6 only.
    v6_only: BTreeSet<u8>,
}

/// One worker's socket of one listener.
struct Member {
    socket: OwnedFd,
    /// Whether it is in the array.
    inside: bool,
}

// === impl Groups ===

impl Groups {
    pub(super) fn join(
        &mut self,
        loaded: &mut Loaded,
        listener: u16,
        sockets: &[(Owner, BorrowedFd<'_>)],
    ) -> Result<(), KernelError> {
        let number = listener_number(listener)?;
        let Some((_, first)) = sockets.first() else { return Ok(()) };
        object::reuseport(&mut loaded.ebpf)?
            .attach(first)
            .map_err(|error| KernelError::Group { listener, error: program_error(error) })?;
        // Fails for an IPv4 socket, where the question does not arise.
        if SockRef::from(first).only_v6().unwrap_or(false) {
            self.v6_only.insert(number);
        } else {
            self.v6_only.remove(&number);
        }
        for (owner, socket) in sockets {
            let failed = |error| KernelError::Socket { listener, worker: owner.worker, error };
            let socket = socket.try_clone_to_owned().map_err(failed)?;
            self.take_out(loaded, number, *owner);
            put_in(loaded, number, *owner, &socket)?;
            self.members.insert((number, *owner), Member { socket, inside: true });
        }
        Ok(())
    }

    /// Puts in the sockets of reachable workers and takes out the others'. Members of another generation stay as they
    /// are: their owner is another process.
    pub(super) fn reach(
        &mut self,
        loaded: &mut Loaded,
        desired: &Desired,
    ) -> Result<usize, KernelError> {
        let mut changed = 0;
        for ((listener, owner), member) in &mut self.members {
            if owner.generation != desired.generation {
                continue;
            }
            let reachable =
                desired.workers.iter().any(|slot| slot.worker == owner.worker && slot.reachable);
            if reachable == member.inside {
                continue;
            }
            if reachable {
                put_in(loaded, *listener, *owner, &member.socket)?;
            } else {
                loaded
                    .sockets
                    .clear_index(&socket_index(*listener, *owner))
                    .map_err(|error| KernelError::map(map::SOCKETS, error))?;
            }
            member.inside = reachable;
            changed += 1;
        }
        Ok(changed)
    }

    pub(super) fn forget(&mut self, loaded: &mut Loaded, worker: u8) {
        self.remove(loaded, |_, owner| owner.worker == worker);
    }

    pub(super) fn close(&mut self, loaded: &mut Loaded, closed: u16) {
        self.remove(loaded, |listener, _| u16::from(listener) == closed);
    }

    fn remove(&mut self, loaded: &mut Loaded, which: impl Fn(u8, Owner) -> bool) {
        let gone: Vec<_> = self
            .members
            .keys()
            .filter(|(listener, owner)| which(*listener, *owner))
            .copied()
            .collect();
        for (listener, owner) in gone {
            self.take_out(loaded, listener, owner);
            self.members.remove(&(listener, owner));
        }
    }

    /// Any member's socket stands for its group; a group that is already gone has nothing to detach from.
    pub(super) fn leave(&mut self) {
        let mut left = BTreeSet::new();
        for ((listener, _), member) in &self.members {
            if left.insert(*listener) && SkReuseport::detach(&member.socket).is_err() {
                tracing::debug!(listener, "no reuseport program to detach");
            }
        }
        self.members.clear();
    }

    /// Empties a place in the array. One that is empty already, because the kernel took a closed socket out, is as
    /// good.
    fn take_out(&mut self, loaded: &mut Loaded, listener: u8, owner: Owner) {
        if let Some(member) = self.members.get_mut(&(listener, owner))
            && member.inside
        {
            member.inside = false;
            if loaded.sockets.clear_index(&socket_index(listener, owner)).is_err() {
                tracing::debug!(listener, worker = owner.worker, "the socket had left the array");
            }
        }
    }
}

fn put_in(
    loaded: &mut Loaded,
    listener: u8,
    owner: Owner,
    socket: &OwnedFd,
) -> Result<(), KernelError> {
    loaded.sockets.set(socket_index(listener, owner), &socket.as_fd().as_raw_fd(), 0).map_err(
        |error| KernelError::Socket {
            listener: u16::from(listener),
            worker: owner.worker,
            error: map_error(error),
        },
    )
}

fn listener_number(listener: u16) -> Result<u8, KernelError> {
    match u8::try_from(listener) {
        Ok(number) if u32::from(number) < LISTENERS_CAPACITY => Ok(number),
        _ => Err(KernelError::ListenerNumber(listener)),
    }
}

// === maps ===

pub(super) fn keys(
    loaded: &mut Loaded,
    keys: &[Option<LocalKey>; 7],
) -> Result<usize, KernelError> {
    let mut changed = 0;
    for (config_id, key) in (0..).zip(keys) {
        changed += differ(&mut loaded.keys, map::KEYS, config_id, Key::new(*key))?;
    }
    Ok(changed)
}

pub(super) fn slots(loaded: &mut Loaded, desired: &Desired) -> Result<usize, KernelError> {
    let current = (0..SLOTS_CAPACITY)
        .map(|slot| loaded.slots.get(&slot, 0))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| KernelError::map(map::SLOTS, error))?;
    let planned = slots::plan(&current, desired.generation, &desired.workers);
    let mut changed = 0;
    for (slot, value) in (0..).zip(planned) {
        changed += differ(&mut loaded.slots, map::SLOTS, slot, value)?;
    }
    Ok(changed)
}

/// Live is who has a socket in some group: a worker of this process that is reachable, and those of an earlier process
/// that drains.
pub(super) fn owners(loaded: &mut Loaded, groups: &Groups) -> Result<usize, KernelError> {
    let mut live: BTreeSet<u32> = BTreeSet::new();
    for ((_, owner), member) in &groups.members {
        if member.inside {
            live.insert(owner_index(*owner));
        }
    }
    let known: BTreeSet<u32> = loaded.owners_written.union(&live).copied().collect();
    let mut changed = 0;
    for index in known {
        loaded.owners_written.insert(index);
        let value = u32::from(live.contains(&index));
        changed += differ(&mut loaded.owners, map::OWNERS, index, value)?;
    }
    Ok(changed)
}

/// The settings but for what was chosen at load; for `None` as they are, but for where lists are looked up.
pub(super) fn settings(
    loaded: &mut Loaded,
    desired: Option<&Desired>,
    lists: [u8; 4],
) -> Result<usize, KernelError> {
    let held =
        loaded.settings.get(&0, 0).map_err(|error| KernelError::map(map::SETTINGS, error))?;
    let mut settings = Settings { lists, ..held };
    if let Some(desired) = desired {
        settings.default_deny = u32::from(desired.access.default_deny);
        settings.early = u32::from(desired.flood.early);
        settings.new_flows = desired.flood.new_flows;
        settings.versions = desired.flood.versions;
    }
    differ(&mut loaded.settings, map::SETTINGS, 0, settings)
}

/// What holds while there is an attack. The rest of the settings stays as it is.
pub(super) fn attack(loaded: &mut Loaded, attack: &UnderAttack) -> Result<usize, KernelError> {
    let held =
        loaded.settings.get(&0, 0).map_err(|error| KernelError::map(map::SETTINGS, error))?;
    let settings = Settings {
        attack: u32::from(attack.on),
        strangers: attack.strangers,
        strangers_all: attack.strangers_all,
        tokens_since_ms: attack.tokens_since_ms,
        ..held
    };
    differ(&mut loaded.settings, map::SETTINGS, 0, settings)
}

/// Addresses before ports: a port that is looked up by address finds its addresses.
pub(super) fn listeners(
    loaded: &mut Loaded,
    groups: &Groups,
    listeners: &[ListenerAddress],
) -> Result<usize, KernelError> {
    let mut changed = 0;
    let mut ports: BTreeMap<u16, Port> = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    for listener in listeners {
        let index = listener_number(listener.index)?;
        let port = ports.entry(listener.address.port()).or_default();
        if listener.address.ip().is_unspecified() {
            wildcard(port, index, listener.address, groups.v6_only.contains(&index));
        } else {
            port.by_address = 1;
            addresses.insert(AddressKey::from(listener.address), u32::from(index) + 1);
        }
    }
    // An IPv4 listener of its own is preferred over an IPv6 one that takes IPv4 as well.
    for listener in listeners {
        if let (IpAddr::V4(address), Some(port)) =
            (listener.address.ip(), ports.get_mut(&listener.address.port()))
            && address.is_unspecified()
        {
            port.any_v4 = listener_number(listener.index)? + 1;
        }
    }
    changed += write_addresses(loaded, &addresses)?;
    let known: BTreeSet<u16> = loaded.ports_written.iter().chain(ports.keys()).copied().collect();
    for number in known {
        let value = ports.get(&number).copied().unwrap_or_default();
        loaded.ports_written.insert(number);
        changed += differ(&mut loaded.ports, map::PORTS, u32::from(number), value)?;
    }
    Ok(changed)
}

fn wildcard(port: &mut Port, index: u8, address: SocketAddr, v6_only: bool) {
    match address {
        SocketAddr::V4(_) => port.any_v4 = index + 1,
        SocketAddr::V6(_) => {
            port.any_v6 = index + 1;
            if !v6_only {
                port.any_v4 = index + 1;
            }
        }
    }
}

fn write_addresses(
    loaded: &mut Loaded,
    desired: &BTreeMap<AddressKey, u32>,
) -> Result<usize, KernelError> {
    let failed = |error| KernelError::map(map::ADDRESSES, error);
    let actual = loaded.addresses.iter().collect::<Result<BTreeMap<_, _>, _>>().map_err(failed)?;
    let mut changed = 0;
    for key in actual.keys().filter(|key| !desired.contains_key(key)) {
        loaded.addresses.remove(key).map_err(failed)?;
        changed += 1;
    }
    for (key, number) in desired {
        if actual.get(key) != Some(number) {
            loaded.addresses.insert(key, number, 0).map_err(failed)?;
            changed += 1;
        }
    }
    Ok(changed)
}
