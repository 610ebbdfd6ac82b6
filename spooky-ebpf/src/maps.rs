//! Every map of the object, and the decision's tables bound to them. Names, capacities and layouts come from
//! spooky-common. Must not hold a decision of its own.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray, ReusePortSockArray, RingBuf, XskMap},
};
use spooky_common::{
    access::Lists,
    cid::{LocalKey, Owner},
    counter::{Counter, Row},
    frame::Address,
    map::{self, AddressKey, Key, List, Port, Queue, Settings, Slot},
    pace,
    prefix::{ALLOW_WORDS, DENY_WORDS},
    steer::Keys,
    verdict::{Buckets, Listeners, Queues, Tables},
};

use crate::lists::{self, Compiled};

/// Control plane writes, both programs read: UDP port -> listeners on it.
#[map]
pub static PORTS: Array<Port> = Array::with_max_entries(map::PORTS_CAPACITY, 0);

/// Control plane writes, both programs read: bound address and port -> listener number.
#[map]
pub static ADDRESSES: HashMap<AddressKey, u32> =
    HashMap::with_max_entries(map::LISTENERS_CAPACITY, 0);

/// Control plane writes, sk_reuseport selects: listener, generation, worker -> socket.
#[map]
pub static SOCKETS: ReusePortSockArray =
    ReusePortSockArray::with_max_entries(map::SOCKETS_CAPACITY, 0);

/// Control plane writes, sk_reuseport reads: octet of hash -> worker of a new flow.
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(map::SLOTS_CAPACITY, 0);

/// Control plane writes, XDP reads: receive queue -> owner of its AF_XDP socket.
#[map]
pub static QUEUES: Array<Queue> = Array::with_max_entries(map::XSKS_CAPACITY, 0);

/// Control plane writes, XDP reads: generation, worker -> whether it is live.
#[map]
pub static OWNERS: Array<u32> = Array::with_max_entries(map::OWNERS_CAPACITY, 0);

/// Control plane writes, both programs read: config id -> key.
#[map]
pub static KEYS: Array<Key> = Array::with_max_entries(map::KEYS_CAPACITY, 0);

/// Control plane writes, XDP reads: denied IPv4 prefixes.
#[map]
pub static DENY_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(map::DENY_CAPACITY, 0);

/// Control plane writes, XDP reads: denied IPv6 prefixes.
#[map]
pub static DENY_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(map::DENY_CAPACITY, 0);

/// Control plane writes, XDP reads: allowed IPv4 prefixes.
#[map]
pub static ALLOW_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(map::ALLOW_CAPACITY, 0);

/// Control plane writes, XDP reads: allowed IPv6 prefixes.
#[map]
pub static ALLOW_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(map::ALLOW_CAPACITY, 0);

/// Control plane writes, XDP reads: `DENY_V4` compiled.
#[unsafe(link_section = ".bss.deny_v4")]
static DENY_V4_WORDS: Compiled<DENY_WORDS> = Compiled::EMPTY;

/// Control plane writes, XDP reads: `DENY_V6` compiled.
#[unsafe(link_section = ".bss.deny_v6")]
static DENY_V6_WORDS: Compiled<DENY_WORDS> = Compiled::EMPTY;

/// Control plane writes, XDP reads: `ALLOW_V4` compiled.
#[unsafe(link_section = ".bss.allow_v4")]
static ALLOW_V4_WORDS: Compiled<ALLOW_WORDS> = Compiled::EMPTY;

/// Control plane writes, XDP reads: `ALLOW_V6` compiled.
#[unsafe(link_section = ".bss.allow_v6")]
static ALLOW_V6_WORDS: Compiled<ALLOW_WORDS> = Compiled::EMPTY;

/// Control plane writes, both programs read: one entry.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Both programs write, telemetry reads and sums over the CPUs.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// XDP writes, telemetry reads and sums over the CPUs: receive queue -> what became of its frames.
#[map]
pub static STEERING: PerCpuArray<Row> = PerCpuArray::with_max_entries(map::STEERING_CAPACITY, 0);

/// XDP writes: bucket -> when its next packet is due.
#[map]
pub static BUCKETS: Array<u64> = Array::with_max_entries(pace::BUCKETS, 0);

/// XDP writes, control plane reads: sampled drops.
#[map]
pub static SAMPLES: RingBuf = RingBuf::with_byte_size(map::SAMPLES_CAPACITY, 0);

/// XDP writes, control plane reads: captured frames.
#[map]
pub static CAPTURES: RingBuf = RingBuf::with_byte_size(map::CAPTURES_CAPACITY, 0);

/// Control plane writes, XDP goes on to: the programs that answer and that look closer.
#[map]
pub static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(map::PROGRAMS_CAPACITY, 0);

/// Control plane writes, XDP redirects to: receive queue -> AF_XDP socket.
#[map]
pub static XSKS: XskMap = XskMap::with_max_entries(map::XSKS_CAPACITY, 0);

/// The maps as the tables of a decision.
pub struct Maps {
    settings: &'static Settings,
    queue: u32,
}

// === impl Maps ===

impl Maps {
    /// `queue` is the receive queue; sk_reuseport does not know it and decides nothing by it. `None` never happens to
    /// an array of one entry, but the verifier wants it said.
    #[inline(always)]
    pub fn open(queue: u32) -> Option<Self> {
        Some(Self { settings: SETTINGS.get(0)?, queue })
    }
}

impl Keys for Maps {
    #[inline(always)]
    fn local_key(&self, config_id: u8) -> Option<&LocalKey> {
        let key = KEYS.get(u32::from(config_id))?;
        (key.live != 0).then_some(&key.local)
    }
}

impl Lists for Maps {
    #[inline(always)]
    fn allows(&self, source: &Address) -> bool {
        match source {
            Address::V4(octets) => {
                let lookup = self.settings.lists[List::AllowV4 as usize];
                lists::covers(lookup, &ALLOW_V4_WORDS, &ALLOW_V4, *octets, source)
            }
            Address::V6(octets) => {
                let lookup = self.settings.lists[List::AllowV6 as usize];
                lists::covers(lookup, &ALLOW_V6_WORDS, &ALLOW_V6, *octets, source)
            }
        }
    }

    #[inline(always)]
    fn denies(&self, source: &Address) -> bool {
        match source {
            Address::V4(octets) => {
                let lookup = self.settings.lists[List::DenyV4 as usize];
                lists::covers(lookup, &DENY_V4_WORDS, &DENY_V4, *octets, source)
            }
            Address::V6(octets) => {
                let lookup = self.settings.lists[List::DenyV6 as usize];
                lists::covers(lookup, &DENY_V6_WORDS, &DENY_V6, *octets, source)
            }
        }
    }
}

impl Listeners for Maps {
    #[inline(always)]
    fn port(&self, port: u16) -> Port {
        PORTS.get(u32::from(port)).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn address(&self, key: &AddressKey) -> Option<u8> {
        // SAFETY: the value is four octets, copied at once and never written through. Should the control plane replace
        // the entry in this moment, the copy is the old or the new listener's number; both are numbers of listeners.
        unsafe { ADDRESSES.get(key) }.map(|number| *number as u8)
    }
}

impl Queues for Maps {
    #[inline(always)]
    fn queue(&self) -> u32 {
        self.queue
    }

    #[inline(always)]
    fn owner_of_queue(&self) -> Queue {
        QUEUES.get(self.queue).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn is_live(&self, owner: Owner) -> bool {
        OWNERS.get(map::owner_index(owner)).is_some_and(|live| *live != 0)
    }
}

impl Buckets for Maps {
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper takes nothing and returns a number.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn due(&self, bucket: u32) -> u64 {
        let Some(due) = BUCKETS.get_ptr(bucket) else { return 0 };
        // SAFETY: the pointer comes from the map and is aligned to 8. Other CPUs write it, eight octets at once.
        unsafe { due.read_volatile() }
    }

    #[inline(always)]
    fn set_due(&self, bucket: u32, due: u64) {
        let Some(place) = BUCKETS.get_ptr_mut(bucket) else { return };
        // SAFETY: as above. Of two CPUs that write at once one is lost, which `spooky_common::pace` allows for.
        unsafe { place.write_volatile(due) };
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn settings(&self) -> &Settings {
        self.settings
    }
}
