//! What the maps hold, read back: for a trace, which is of the maps and not of what they were meant to be. Writes nothing
//! but how many frames are captured.

use std::collections::BTreeSet;
use std::net::IpAddr;

use aya::Pod;
use aya::maps::{LpmTrie, MapData, MapError, lpm_trie::Key as Listed};
use spooky_common::{
    capture::Capture,
    cid::{LocalKey, Owner},
    map::{self, AddressKey, KEYS_CAPACITY, OWNERS_CAPACITY, Port, Queue, Settings, XSKS_CAPACITY},
};

use super::{
    Kernel, KernelError,
    object::{Loaded, differ},
};

/// Most captured frames handed out at once: as many as the ring holds.
const DRAIN_MAX: usize = 2048;

/// The maps, as far as the verdict on a frame depends on them. Holds keys: it has no `Debug`.
#[expect(missing_debug_implementations, reason = "keys must not be printed")]
pub struct Observed {
    /// Ports with a listener.
    pub ports: Vec<(u16, Port)>,
    /// Listeners bound to one address.
    pub addresses: Vec<(AddressKey, u32)>,
    /// The key of each config id.
    pub keys: [Option<LocalKey>; 7],
    /// The settings.
    pub settings: Settings,
    /// Receive queues whose AF_XDP socket has an owner.
    pub queues: Vec<(u32, Queue)>,
    /// Workers that are live.
    pub owners: Vec<Owner>,
    /// Of the sources asked for, those on the deny list.
    pub denied: Vec<IpAddr>,
    /// And those on the allow list.
    pub allowed: Vec<IpAddr>,
}

impl Kernel {
    /// Whether frames can be captured: the XDP program is attached.
    #[must_use]
    pub fn captures(&self) -> bool {
        self.attachment.is_some()
    }

    /// From now on one frame in `every` is captured, of each verdict and reason; 0 for none. Without loaded programs, does
    /// nothing.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn set_capture(&mut self, every: u32) -> Result<(), KernelError> {
        let Some(loaded) = &mut self.loaded else { return Ok(()) };
        let held = settings(loaded)?;
        let settings = Settings { capture_every: every, ..held };
        differ(&mut loaded.settings, map::SETTINGS, 0, settings).map(drop)
    }

    /// Hands the frames captured since the last call to `f`, at most 2048 of them.
    pub fn drain_captures(&mut self, mut f: impl FnMut(&Capture)) {
        let Some(loaded) = &mut self.loaded else { return };
        for _ in 0..DRAIN_MAX {
            let Some(record) = loaded.captures.next() else { break };
            if let Some(capture) = Capture::read(&record) {
                f(&capture);
            }
        }
    }

    /// Reads the maps; of the lists, whether they cover each of `sources`. `None` without loaded programs.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn observe(&self, sources: &BTreeSet<IpAddr>) -> Result<Option<Observed>, KernelError> {
        let Some(loaded) = &self.loaded else { return Ok(None) };
        let mut seen = Observed {
            ports: Vec::new(),
            addresses: Vec::new(),
            keys: [None; 7],
            settings: settings(loaded)?,
            queues: Vec::new(),
            owners: Vec::new(),
            denied: Vec::new(),
            allowed: Vec::new(),
        };
        for port in &loaded.ports_written {
            let entry = loaded.ports.get(&u32::from(*port), 0).map_err(failed(map::PORTS))?;
            if entry != Port::default() {
                seen.ports.push((*port, entry));
            }
        }
        for entry in loaded.addresses.iter() {
            seen.addresses.push(entry.map_err(failed(map::ADDRESSES))?);
        }
        for (config_id, key) in (0..KEYS_CAPACITY).zip(&mut seen.keys) {
            let held = loaded.keys.get(&config_id, 0).map_err(failed(map::KEYS))?;
            *key = (held.live != 0).then_some(held.local);
        }
        for queue in 0..XSKS_CAPACITY {
            let entry = loaded.queues.get(&queue, 0).map_err(failed(map::QUEUES))?;
            if entry != Queue::NOBODYS {
                seen.queues.push((queue, entry));
            }
        }
        for index in 0..OWNERS_CAPACITY {
            if loaded.owners.get(&index, 0).map_err(failed(map::OWNERS))? != 0 {
                seen.owners.push(map::owner_at(index));
            }
        }
        for source in sources {
            if covered(loaded.deny_v4.trie(), loaded.deny_v6.trie(), *source)? {
                seen.denied.push(*source);
            }
            if covered(loaded.allow_v4.trie(), loaded.allow_v6.trie(), *source)? {
                seen.allowed.push(*source);
            }
        }
        Ok(Some(seen))
    }
}

fn settings(loaded: &Loaded) -> Result<Settings, KernelError> {
    loaded.settings.get(&0, 0).map_err(failed(map::SETTINGS))
}

fn failed(name: &'static str) -> impl Fn(MapError) -> KernelError {
    move |error| KernelError::map(name, error)
}

/// Whether a prefix of the list covers the address.
fn covered(
    v4: (&LpmTrie<MapData, [u8; 4], u32>, &'static str),
    v6: (&LpmTrie<MapData, [u8; 16], u32>, &'static str),
    address: IpAddr,
) -> Result<bool, KernelError> {
    match address {
        IpAddr::V4(address) => listed(v4, 32, address.octets()),
        IpAddr::V6(address) => listed(v6, 128, address.octets()),
    }
}

fn listed<K: Pod>(
    (trie, name): (&LpmTrie<MapData, K, u32>, &'static str),
    bits: u32,
    address: K,
) -> Result<bool, KernelError> {
    match trie.get(&Listed::new(bits, address), 0) {
        Ok(_) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(error) => Err(KernelError::map(name, error)),
    }
}
