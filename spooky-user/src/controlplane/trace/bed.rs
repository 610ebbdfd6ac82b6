//! The kernel's object loaded for test runs alone: attached to nothing, its maps filled from a trace's state. May import:
//! state, kernel's object, aya.

use std::net::IpAddr;

use aya::Pod;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, lpm_trie};
use spooky_common::cid::Owner;
use spooky_common::counter::{Counter, Row};
use spooky_common::frame;
use spooky_common::map::{self, AddressKey, Key, Lookup, Port, Settings};
use spooky_common::pace;

use super::State;
use super::state::Spent;
use crate::controlplane::kernel::{Bare, KernelError};

/// The receive queue that the kernel gives to every test run.
const QUEUE: u32 = 0;

/// What stands behind a listed address. Only membership counts.
const LISTED: u32 = 1;

/// The loaded program.
#[derive(Debug)]
pub(super) struct Bed {
    object: Bare,
    state: State,
    counted: Row,
}

// === impl Bed ===

impl Bed {
    /// Loads the object and fills its maps.
    ///
    /// # Errors
    /// [`KernelError`], most often [`KernelError::Privilege`].
    pub(super) fn new(state: &State) -> Result<Self, KernelError> {
        let mut bed = Self { object: Bare::load()?, state: state.clone(), counted: Row::default() };
        bed.fill()?;
        bed.counted = bed.count()?;
        Ok(bed)
    }

    /// Runs the program once over a frame that came in by `queue`; which counter it added to.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel does not run it.
    pub(super) fn run(
        &mut self,
        queue: u32,
        spent: Spent,
        frame: &[u8],
    ) -> Result<Option<Counter>, KernelError> {
        // Every test run is on the first queue: it gets the entry of the frame's own.
        let entry = self.state.queue(queue);
        self.set(map::QUEUES, QUEUE, entry)?;
        self.buckets(spent, frame)?;
        self.object.run(frame)?;
        let counted = self.count()?;
        let before = std::mem::replace(&mut self.counted, counted);
        let moved = |counter: &Counter| {
            let place = counter.place_in_row()?;
            (before.get(place) != counted.get(place)).then_some(*counter)
        };
        Ok(Counter::ALL.iter().find_map(moved))
    }

    /// What the frame's buckets are to hold; they keep what the run before left otherwise.
    fn buckets(&mut self, spent: Spent, mut frame: &[u8]) -> Result<(), KernelError> {
        self.set(map::BUCKETS, pace::VERSION_BUCKET, spent.due(true))?;
        match frame::udp(&mut frame) {
            Ok(tuple) => {
                let bucket = pace::bucket(&tuple.source, &self.state.placement.key());
                self.set(map::BUCKETS, bucket, spent.due(false))
            }
            Err(_opaque) => Ok(()),
        }
    }

    fn fill(&mut self) -> Result<(), KernelError> {
        let state = self.state.clone();
        for entry in &state.ports {
            self.set(map::PORTS, u32::from(entry.port), Port::from(*entry))?;
        }
        let mut addresses: HashMap<&mut MapData, AddressKey, u32> =
            self.object.map_mut(map::ADDRESSES)?;
        for entry in &state.addresses {
            addresses
                .insert(entry.key(), entry.listener, 0)
                .map_err(|error| KernelError::map(map::ADDRESSES, error))?;
        }
        for entry in &state.keys {
            self.set(map::KEYS, u32::from(entry.config_id), Key::new(Some(entry.key.key())))?;
        }
        for entry in &state.owners {
            let owner = Owner { worker: entry.worker, generation: entry.generation };
            self.set(map::OWNERS, map::owner_index(owner), 1_u32)?;
        }
        let mut settings = state.settings();
        self.list(&state.denied, [map::DENY_V4, map::DENY_V6])?;
        self.list(&state.allowed, [map::ALLOW_V4, map::ALLOW_V6])?;
        let looked_up =
            |list: &[IpAddr], is_v4: bool| match list.iter().any(|it| it.is_ipv4() == is_v4) {
                true => Lookup::Trie as u8,
                false => Lookup::Nowhere as u8,
            };
        // In the order of `List`.
        settings.lists = [
            looked_up(&state.denied, true),
            looked_up(&state.denied, false),
            looked_up(&state.allowed, true),
            looked_up(&state.allowed, false),
        ];
        self.set::<Settings>(map::SETTINGS, 0, settings)
    }

    fn list(&mut self, sources: &[IpAddr], [v4, v6]: [&'static str; 2]) -> Result<(), KernelError> {
        for source in sources {
            match source {
                IpAddr::V4(address) => self.insert(v4, 32, address.octets())?,
                IpAddr::V6(address) => self.insert(v6, 128, address.octets())?,
            }
        }
        Ok(())
    }

    fn insert<K: Pod>(&mut self, name: &'static str, bits: u32, key: K) -> Result<(), KernelError> {
        let mut trie: LpmTrie<&mut MapData, K, u32> = self.object.map_mut(name)?;
        trie.insert(&lpm_trie::Key::new(bits, key), LISTED, 0)
            .map_err(|error| KernelError::map(name, error))
    }

    fn set<V: Pod>(&mut self, name: &'static str, index: u32, value: V) -> Result<(), KernelError> {
        let mut array: Array<&mut MapData, V> = self.object.map_mut(name)?;
        array.set(index, value, 0).map_err(|error| KernelError::map(name, error))
    }

    /// What frames of the queue of test runs have been counted as, over all CPUs.
    fn count(&self) -> Result<Row, KernelError> {
        let rows: PerCpuArray<&MapData, Row> = self.object.map(map::STEERING)?;
        let rows = rows
            .get(&map::steering_row(QUEUE), 0)
            .map_err(|error| KernelError::map(map::STEERING, error))?;
        let mut sum = Row::default();
        for row in rows.iter() {
            sum.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
        }
        Ok(sum)
    }
}
