//! What the kernel's maps hold, as far as a verdict depends on it, in plain values; the same decision over them on the host.
//! May import: hex, spooky-common. Knows no map and no file.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use spooky_common::access::Lists;
use spooky_common::answer;
use spooky_common::cid::{self, CID_LEN, LocalKey, Owner};
use spooky_common::counter::Counter;
use spooky_common::frame::{self, Address, Tuple};
use spooky_common::guard;
use spooky_common::invariant::{self, Form, Header, Kind};
use spooky_common::map::{AddressKey, Port, Queue, Settings};
use spooky_common::pace::{self, Pace};
use spooky_common::steer::{self, Keys};
use spooky_common::token;
use spooky_common::verdict::{Buckets, Listeners, Queues, Tables, Verdict};

use super::hex;

/// The state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// UDP ports that have a listener.
    pub ports: Vec<PortEntry>,
    /// Listeners that are bound to one address.
    pub addresses: Vec<AddressEntry>,
    /// The trace's own key under each config id that has one.
    pub keys: Vec<KeyEntry>,
    /// Secret of the placement hash. The process draws another when it starts.
    pub placement: Secret,
    /// Whether a source on no list is refused.
    pub default_deny: bool,
    /// Whether what a header alone proves is refused.
    #[serde(default)]
    pub early: bool,
    /// Whether prefixes have a pace for packets that open connections.
    #[serde(default)]
    pub paced: bool,
    /// Whether versions that nobody speaks are answered in XDP.
    #[serde(default)]
    pub answers: bool,
    /// Whether attack mode was on.
    #[serde(default)]
    pub attack: bool,
    /// The Unix time in milliseconds from which on a token was not too old, in attack mode.
    #[serde(default)]
    pub tokens_since_ms: u64,
    /// Of the sources of the frames, those on the deny list.
    pub denied: Vec<IpAddr>,
    /// Of the sources of the frames, those on the allow list.
    pub allowed: Vec<IpAddr>,
    /// Receive queues whose AF_XDP socket has an owner.
    pub queues: Vec<QueueEntry>,
    /// Workers that are live.
    pub owners: Vec<OwnerEntry>,
}

/// A UDP port: listener numbers, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortEntry {
    /// The port.
    pub port: u16,
    /// Listener at the IPv4 wildcard.
    pub any_v4: u8,
    /// Listener at the IPv6 wildcard.
    pub any_v6: u8,
    /// Whether a listener is bound to a single address.
    pub by_address: bool,
}

/// A listener that is bound to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressEntry {
    /// Where.
    pub address: SocketAddr,
    /// Its number.
    pub listener: u32,
}

/// A secret of 16 octets, the two halves of a SipHash key in little-endian order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(#[serde(with = "hex::fixed")] pub [u8; 16]);

/// The key of a config id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// 0..=6.
    pub config_id: u8,
    /// The key.
    pub key: Secret,
}

/// A receive queue whose AF_XDP socket has an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueEntry {
    /// The queue.
    pub queue: u32,
    /// The owner's number.
    pub worker: u8,
    /// And generation.
    pub generation: u8,
    /// How many of the 256 slots of new flows stay on the queue.
    pub share: u16,
}

/// A worker that is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerEntry {
    /// Its number.
    pub worker: u8,
    /// Its generation.
    pub generation: u8,
}

/// Whose bucket was empty when a frame came. A trace does not know what buckets held: that depends on the time and on every
/// frame before, of which one in N is recorded. But a frame that was dropped for its pace says that there was nothing left, and
/// one that was not, that there was; all else of its verdict is decided again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// Nobody's.
    Nobodys,
    /// Its prefix's.
    Prefixs,
    /// That of answers.
    Answers,
}

/// The state as the decision's tables, for one frame.
struct View<'a> {
    state: &'a State,
    keys: [Option<LocalKey>; cid::CONFIG_IDS as usize],
    settings: Settings,
    queue: u32,
    spent: Spent,
}

/// Seals connection IDs anew, under a key that belongs to the trace alone.
#[derive(Debug)]
pub struct Disguise<'a, K> {
    /// The host's keys.
    pub host: &'a K,
    /// The trace's.
    pub own: LocalKey,
}

// === impl State ===

impl State {
    /// What the decision is for this frame, by the counter it adds to: the same code as the kernel's, over this state.
    #[must_use]
    pub fn decide(&self, queue: u32, spent: Spent, frame: &mut [u8]) -> Counter {
        let verdict = guard::decide(&&*frame, &self.view(queue, spent));
        if verdict == Verdict::Answer && !can_answer(frame) {
            return Counter::XdpNewFlow;
        }
        verdict.counter()
    }

    /// The entry of a receive queue, as the map has it.
    #[must_use]
    pub fn queue(&self, queue: u32) -> Queue {
        let entry = self.queues.iter().find(|it| it.queue == queue);
        entry.map_or(Queue::NOBODYS, |it| {
            Queue::live(Owner { worker: it.worker, generation: it.generation }, it.share)
        })
    }

    /// What holds for all listeners, but for how lists are looked up.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            placement: self.placement.key(),
            default_deny: u32::from(self.default_deny),
            early: u32::from(self.early),
            new_flows: tightest(self.paced),
            versions: tightest(self.answers),
            attack: u32::from(self.attack),
            strangers: tightest(self.attack),
            tokens_since_ms: self.tokens_since_ms,
            ..Settings::default()
        }
    }

    fn view(&self, queue: u32, spent: Spent) -> View<'_> {
        let mut keys = [None; cid::CONFIG_IDS as usize];
        for entry in &self.keys {
            if let Some(key) = keys.get_mut(usize::from(entry.config_id)) {
                *key = Some(entry.key.key());
            }
        }
        View { state: self, keys, settings: self.settings(), queue, spent }
    }
}

impl Secret {
    /// As a SipHash key.
    #[must_use]
    pub fn key(self) -> LocalKey {
        let [k0, k1] = [0, 8].map(|at| {
            let half = self.0.get(at..at + 8).and_then(|half| half.try_into().ok());
            u64::from_le_bytes(half.unwrap_or_default())
        });
        LocalKey { k0, k1 }
    }

    /// Of a SipHash key.
    #[must_use]
    pub fn of(key: LocalKey) -> Self {
        let mut octets = [0; 16];
        let halves = key.k0.to_le_bytes().into_iter().chain(key.k1.to_le_bytes());
        octets.iter_mut().zip(halves).for_each(|(octet, half)| *octet = half);
        Self(octets)
    }
}

// === impl View ===

impl Keys for View<'_> {
    fn local_key(&self, config_id: u8) -> Option<&LocalKey> {
        self.keys.local_key(config_id)
    }
}

impl Lists for View<'_> {
    fn allows(&self, source: &Address) -> bool {
        self.state.allowed.contains(&ip(source))
    }

    fn denies(&self, source: &Address) -> bool {
        self.state.denied.contains(&ip(source))
    }
}

impl Listeners for View<'_> {
    fn port(&self, port: u16) -> Port {
        let entry = self.state.ports.iter().find(|it| it.port == port);
        entry.map_or_else(Port::default, |it| Port::from(*it))
    }

    fn address(&self, key: &AddressKey) -> Option<u8> {
        let entry = self.state.addresses.iter().find(|it| it.key() == *key)?;
        Some(entry.listener as u8)
    }
}

impl Queues for View<'_> {
    fn queue(&self) -> u32 {
        self.queue
    }

    fn owner_of_queue(&self) -> Queue {
        self.state.queue(self.queue)
    }

    fn is_live(&self, owner: Owner) -> bool {
        let is_it =
            |it: &OwnerEntry| (it.worker, it.generation) == (owner.worker, owner.generation);
        self.state.owners.iter().any(is_it)
    }
}

impl Buckets for View<'_> {
    fn now(&self) -> u64 {
        0
    }

    fn due(&self, bucket: u32) -> u64 {
        self.spent.due(bucket == pace::VERSION_BUCKET)
    }

    fn set_due(&self, _: u32, _: u64) {}
}

impl Tables for View<'_> {
    fn settings(&self) -> &Settings {
        &self.settings
    }
}

// === impl Spent ===

impl Spent {
    /// Later than any clock.
    const NEVER: u64 = u64::MAX / 2;

    /// By what became of the frame.
    #[must_use]
    pub const fn of(counter: Option<Counter>) -> Self {
        match counter {
            Some(Counter::XdpPace | Counter::XdpNoToken) => Self::Prefixs,
            Some(Counter::XdpVersions) => Self::Answers,
            _ => Self::Nobodys,
        }
    }

    /// What the bucket of answers, or the one of the frame's prefix, is to hold.
    #[must_use]
    pub const fn due(self, of_answers: bool) -> u64 {
        match (self, of_answers) {
            (Self::Prefixs, false) | (Self::Answers, true) => Self::NEVER,
            _ => 0,
        }
    }
}

/// The tightest pace there is, so that an empty bucket has no right to a packet and any other has one.
fn tightest(kept: bool) -> Pace {
    Pace { step_ns: u64::from(kept), slack_ns: 0 }
}

/// Whether the frame can be answered where it came in. It is only read.
fn can_answer(frame: &mut [u8]) -> bool {
    let mut cursor: &[u8] = frame;
    frame::udp(&mut cursor).is_ok_and(|tuple| answer::can_answer(&frame, &tuple))
}

impl PortEntry {
    /// Of the map's entry.
    #[must_use]
    pub fn of(port: u16, entry: Port) -> Self {
        let Port { any_v4, any_v6, by_address, .. } = entry;
        Self { port, any_v4, any_v6, by_address: by_address != 0 }
    }
}

impl QueueEntry {
    /// Of the map's entry; `None` for a queue of nobody.
    #[must_use]
    pub fn of(queue: u32, entry: Queue) -> Option<Self> {
        let Owner { worker, generation } = entry.owner()?;
        Some(Self { queue, worker, generation, share: entry.share() })
    }
}

impl From<PortEntry> for Port {
    fn from(entry: PortEntry) -> Self {
        let PortEntry { any_v4, any_v6, by_address, .. } = entry;
        Self { any_v4, any_v6, by_address: u8::from(by_address), reserved: 0 }
    }
}

impl AddressEntry {
    /// As the map keys it.
    #[must_use]
    pub fn key(&self) -> AddressKey {
        self.address.into()
    }
}

// === impl Disguise ===

impl<K: Keys> Disguise<'_, K> {
    /// Changes the connection ID of a frame that was sealed under the host's key, so that it names the same owner under the
    /// trace's, and the mark of a token behind it. `None`: by a chance of one in millions an ID of nobody would be somebody's now; leave the frame out.
    #[must_use]
    pub fn put_on(&self, frame: &mut [u8]) -> Option<()> {
        let mut cursor: &[u8] = frame;
        let length = cursor.len();
        let Ok(tuple) = frame::udp(&mut cursor) else { return Some(()) };
        let payload = length - cursor.len();
        let Ok(header) = invariant::read(&mut cursor, usize::from(tuple.payload_len)) else {
            return Some(());
        };
        if usize::from(header.dcid_len) != CID_LEN {
            return Some(());
        }
        let first = match header.form {
            Form::Short => payload + 1,
            Form::Long { .. } => payload + 6,
        };
        let behind = first + CID_LEN;
        let marked = frame.get(behind..).is_some_and(|rest| self.is_marked(rest, &tuple, &header));
        let mut dcid = header.dcid;
        match steer::owner(&dcid, self.host) {
            Some(owner) => cid::seal(&mut dcid, &self.own, owner),
            None if cid::open(&dcid, &self.own).is_some() => return None,
            None => return Some(()),
        }
        frame.get_mut(first..behind)?.copy_from_slice(&dcid);
        if marked {
            token::mark_again(frame.get_mut(behind..)?, &tuple, &self.own)?;
        }
        Some(())
    }

    /// Whether it is an Initial with a token that the host has marked for its sender.
    fn is_marked(&self, mut rest: &[u8], from: &Tuple, header: &Header) -> bool {
        let [octet, ..] = header.dcid;
        let key = self.host.local_key(cid::config_id(octet));
        let initial = matches!(header.form, Form::Long { kind: Kind::Initial, .. });
        initial && key.is_some_and(|key| token::is_marked(&mut rest, from, key, 0))
    }
}

/// The counter with these labels.
#[must_use]
pub fn counter(verdict: &str, reason: &str) -> Option<Counter> {
    let shows =
        |counter: &Counter| counter.describe().labels == [("verdict", verdict), ("reason", reason)];
    Counter::ALL.iter().copied().find(shows)
}

/// A source as it stands in a packet.
#[must_use]
pub fn ip(address: &Address) -> IpAddr {
    match *address {
        Address::V4(octets) => IpAddr::from(octets),
        Address::V6(octets) => IpAddr::from(octets),
    }
}
