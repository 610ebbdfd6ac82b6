//! One worker's connections: which one a datagram belongs to, and what to do with those that belong to none.
//!
//! Sans-IO and clockless. The order of questions for a datagram is: is its destination connection ID one of this worker's?
//! Was it issued by another worker or another generation? May it open a connection?

mod accept;
mod listener;
mod upkeep;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use spooky_common::cid::Owner;
use spooky_common::early;
use spooky_common::invariant::{self, Form, Header, Kind, Malformed, VERSION_1};

pub use self::listener::{Clock, Listener};
use super::cid::{Cid, Issuer};
use super::coalesced;
use super::connection::Connection;
use super::reset;
use super::sources::Source;
use crate::dataplane::abuse::{Event, Reports};
use crate::dataplane::packet::Datagram;
use crate::dataplane::packet::udp::canonical_ip;
use crate::id::{ConnectionKey, ListenerId};
use crate::telemetry::metrics::WorkerMetrics;
use crate::telemetry::reason::DropReason;

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// A connection of this worker has taken it and wants a turn.
    Delivered(ConnectionKey),
    /// The same, and an answer of this many octets is in the caller's buffer: why the handshake failed.
    Refused(ConnectionKey, usize),
    /// An answer of this many octets is in the caller's buffer: Version Negotiation or a stateless reset.
    Reply(usize),
    /// It belongs to another worker of this generation.
    Stray(Owner),
    /// Nothing to do; it was counted.
    Dropped,
}

/// The circumstances of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The listener it came to.
    pub listener: ListenerId,
    /// Another worker has handed it over, so it is not a stray again.
    pub forwarded: bool,
    /// The time of this turn.
    pub now: Instant,
}

/// All connections of one worker.
pub struct Endpoint<S> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    live: usize,
    issued: HashMap<Cid, ConnectionKey, BuildHasherDefault<IssuedHasher>>,
    /// By the client's choice, so hashed with a secret (std's SipHash): it cannot be used to pile up collisions.
    originals: HashMap<(u8, [u8; 20]), ConnectionKey>,
    listeners: Vec<Listener>,
    metrics: Arc<WorkerMetrics>,
    reports: Arc<Reports>,
    draining: bool,
    /// There is no memory for new connections.
    scarce: bool,
    /// Attack mode is on.
    attacked: bool,
    /// Connections there may be, of all listeners.
    connections_max: usize,
    /// The connection that is taking a datagram.
    delivering: Option<ConnectionKey>,
    fresh: Vec<Cid>,
    /// Of the access lists that are in force.
    access_version: u64,
}

struct Slot<S> {
    serial: u32,
    connection: Option<Box<Connection<S>>>,
}

/// IDs in the table are our own cipher's output: eight octets of one are as good as a hash of it.
#[derive(Default)]
struct IssuedHasher(u64);

impl Hasher for IssuedHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(octets) = bytes.get(1..9).and_then(|octets| octets.try_into().ok()) {
            self.0 = u64::from_le_bytes(octets);
        }
    }

    // The length prefix of an array says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

// === impl Endpoint: datagrams ===

impl<S> Endpoint<S> {
    /// No listeners and no connections yet.
    #[must_use]
    pub fn new(metrics: Arc<WorkerMetrics>, reports: Arc<Reports>) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            issued: HashMap::default(),
            originals: HashMap::new(),
            listeners: Vec::new(),
            metrics,
            reports,
            draining: false,
            scarce: false,
            attacked: false,
            connections_max: usize::MAX,
            delivering: None,
            fresh: Vec::new(),
            access_version: 0,
        }
    }

    /// The access lists that `permits` asks from now on have this version. A connection whose source was let in by others is asked
    /// about once more.
    pub fn set_access_version(&mut self, version: u64) {
        self.access_version = version;
    }

    /// How many connections have a client at such an address.
    #[must_use]
    pub fn count(&self, inside: impl Fn(IpAddr) -> bool) -> usize {
        let connections = self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        connections.filter(|it| inside(canonical_ip(it.last_source))).count()
    }

    /// Takes in one datagram. `permits` asks the access list; `out` holds at least 600 octets for an answer.
    pub fn receive(
        &mut self,
        arrival: Arrival,
        mut datagram: Datagram<'_>,
        permits: impl Fn(IpAddr) -> bool,
        out: &mut [u8],
    ) -> Disposition {
        //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3
        //# Endpoints MUST discard packets that are too small to be valid QUIC
        //# packets.
        let (mut rest, size) = (&*datagram.bytes, datagram.bytes.len());
        let header = match invariant::read(&mut rest, size) {
            Ok(header) => header,
            Err(Malformed::Empty) => return self.drop(DropReason::Empty),
            Err(Malformed::Truncated | Malformed::Cut) => return self.drop(DropReason::Malformed),
        };
        let port = datagram.path.peer.port();
        // What XDP drops without knowing any connection must be refused here for every connection.
        if let Some(reason) = early::refuse(&header, &mut rest, size, port) {
            return self.drop(accept::refused_early(reason));
        }
        if let Some(key) = self.find(&header, port) {
            if !arrival.forwarded && header.dcid_len == 20 {
                self.metrics.steer_right.inc();
            }
            return self.deliver(key, arrival.now, &header, &mut datagram, permits, out);
        }
        match self.owner(&header) {
            Some((owner, me)) if owner == me && is_initial(&header) => {
                self.second_flight(arrival, &header, datagram, permits, out)
            }
            Some((owner, me)) => self.not_here(arrival, &header, owner, me, &datagram, out),
            None => self.unknown(arrival, &header, datagram, permits, out),
        }
    }

    fn drop(&self, reason: DropReason) -> Disposition {
        self.metrics.datagrams_dropped.inc(reason);
        Disposition::Dropped
    }

    /// The connection of this ID. By the ID that its client chose it is not found from a port that no client has.
    fn find(&self, header: &Header, port: u16) -> Option<ConnectionKey> {
        if header.dcid_len == 20
            && let Some(key) = self.issued.get(&header.dcid)
        {
            return Some(*key);
        }
        match header.form {
            Form::Long { version: VERSION_1, kind: Kind::Initial | Kind::ZeroRtt }
                if !early::is_service(port) =>
            {
                self.originals.get(&(header.dcid_len, header.dcid)).copied()
            }
            Form::Short | Form::Long { .. } => None,
        }
    }

    fn issuer(&self, listener: ListenerId) -> Option<&Issuer> {
        self.listeners.iter().find(|it| it.id == listener).map(|it| &it.issuer)
    }

    /// Whose ID this is, and who we are, if it is one of ours. It need not have come to the listener that issued it: that may
    /// have given its address to another.
    fn owner(&self, header: &Header) -> Option<(Owner, Owner)> {
        if header.dcid_len != 20 {
            return None;
        }
        let issuer = self.listeners.iter().find_map(|it| it.reads(&header.dcid))?;
        Some((issuer.open(&header.dcid)?, issuer.owner()))
    }

    fn deliver(
        &mut self,
        key: ConnectionKey,
        now: Instant,
        header: &Header,
        datagram: &mut Datagram<'_>,
        permits: impl Fn(IpAddr) -> bool,
        out: &mut [u8],
    ) -> Disposition {
        self.delivering = Some(key);
        let metrics = Arc::clone(&self.metrics);
        let access_version = self.access_version;
        let calm = header.form != Form::Short && self.is_calm(key);
        let Some(connection) = self.get_mut(key) else { return Disposition::Dropped };
        let source = datagram.path.peer;
        let fresh = connection.is_new(source);
        if fresh || connection.vetted != access_version {
            // A denied address cannot get in by migrating (RFC 9000 §9.3 leaves it to the server), nor stay when it is
            // denied: what the kernel drops is dropped here, too.
            if !permits(canonical_ip(source)) {
                metrics.datagrams_dropped.inc(DropReason::Denied);
                return Disposition::Dropped;
            }
            connection.vetted = access_version;
            if fresh && !connection.arriving(datagram.path, now) {
                metrics.datagrams_dropped.inc(DropReason::Paths);
                return Disposition::Dropped;
            }
            connection.last_source = source;
        }
        connection.credit.received(source, datagram.bytes.len());
        connection.unacknowledged = connection.unacknowledged.saturating_add(1);
        let mut own = datagram.bytes.len();
        if header.form != Form::Short {
            connection.heard(header, source, calm, now);
            own = coalesced::own_part(datagram.bytes);
            if own < datagram.bytes.len() {
                metrics.datagrams_dropped.inc(DropReason::ForeignCoalesced);
            }
        }
        let Some(bytes) = datagram.bytes.get_mut(..own) else { return Disposition::Dropped };
        let info = quiche::RecvInfo { from: source, to: datagram.path.local };
        // Errors end the connection inside quiche with the code of RFC 9000 §20; what cannot be authenticated is dropped.
        if is_initial(header) && !connection.takes_initial(bytes.len()) {
            return self.drop(DropReason::Initials);
        }
        let may_fail = is_initial(header) && connection.transport.local_error().is_none();
        let mut answer = None;
        if let Err(error) = connection.transport.recv(bytes, info) {
            tracing::trace!(%error, "datagram not taken");
            // Who could not write what can be read is not worth a word: the client would believe that (RFC 9000 §21.2).
            let forged = matches!(error, quiche::Error::CryptoFail | quiche::Error::InvalidPacket);
            if may_fail && !forged {
                answer = connection.last_word(error, out);
            }
        }
        connection.follow_paths(now, &metrics);
        if connection.transport.retired_scids() > 0 {
            self.forget_retired(key);
        }
        answer.map_or(Disposition::Delivered(key), |size| Disposition::Refused(key, size))
    }

    /// One of our IDs, but no connection of this worker has it.
    fn not_here(
        &mut self,
        arrival: Arrival,
        header: &Header,
        owner: Owner,
        me: Owner,
        datagram: &Datagram<'_>,
        out: &mut [u8],
    ) -> Disposition {
        if owner.generation != me.generation {
            self.metrics.steer_old_generation.inc();
        } else if owner.worker != me.worker && !arrival.forwarded {
            return Disposition::Stray(owner);
        } else {
            self.metrics.datagrams_dropped.inc(DropReason::UnknownConnection);
        }
        self.reset(arrival, header, datagram.path.peer, datagram.bytes.len(), out)
    }

    /// Tells the client that its connection is gone (RFC 9000 §10.3), if the packet may be answered.
    pub fn reset(
        &mut self,
        arrival: Arrival,
        header: &Header,
        peer: SocketAddr,
        trigger_size: usize,
        out: &mut [u8],
    ) -> Disposition {
        if header.form != Form::Short {
            return Disposition::Dropped;
        }
        let Some(place) = self.listeners.iter_mut().find(|it| it.id == arrival.listener) else {
            return Disposition::Dropped;
        };
        // Not counted when it is too small to be answered.
        if !reset::may_answer(trigger_size) {
            return Disposition::Dropped;
        }
        if !place.resets.take(Source::of(peer.ip()), arrival.now) {
            self.metrics.stateless_resets_limited.inc();
            return Disposition::Dropped;
        }
        // The token belongs to the key of the ID, which may be another listener's.
        let issuer = self.listeners.iter().find_map(|it| it.reads(&header.dcid));
        let written =
            issuer.and_then(|issuer| reset::write(issuer, &header.dcid, trigger_size, out));
        match written {
            Some(size) => {
                self.metrics.stateless_resets_sent.inc();
                Disposition::Reply(size)
            }
            None => Disposition::Dropped,
        }
    }
}

/// Whether the packet is an Initial of version 1.
fn is_initial(header: &Header) -> bool {
    matches!(header.form, Form::Long { kind: Kind::Initial, .. })
}

// === impl Endpoint: connections ===

impl<S> Endpoint<S> {
    fn insert(&mut self, connection: Connection<S>) -> ConnectionKey {
        self.live += 1;
        let connection = Some(Box::new(connection));
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.serial = slot.serial.wrapping_add(1);
            slot.connection = connection;
            return ConnectionKey { index, serial: slot.serial };
        }
        // Bounded by `max_connections` of 16 listeners: far below u32.
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { serial: 0, connection });
        ConnectionKey { index, serial: 0 }
    }

    /// The connection with this key, if it is still there.
    pub fn get_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection<S>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        (slot.serial == key.serial).then_some(slot.connection.as_deref_mut()?)
    }

    /// The connection that took the last datagram, or was about to: whom to blame when that did not end well.
    #[must_use]
    pub fn delivering(&self) -> Option<ConnectionKey> {
        self.delivering
    }

    /// Takes a closed connection out and counts how it ended.
    pub fn remove(&mut self, key: ConnectionKey) -> Option<Box<Connection<S>>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.serial != key.serial {
            return None;
        }
        let mut connection = slot.connection.take()?;
        self.free.push(key.index);
        self.live -= 1;
        for cid in &connection.issued {
            self.issued.remove(cid);
        }
        if let Some(original) = connection.original.take() {
            self.originals.remove(&original);
        }
        if let Some(place) = self.listeners.iter_mut().find(|it| it.id == connection.listener) {
            place.counts.removed(connection.source);
            if connection.half_open {
                place.counts.not_half_open();
                self.metrics.connections_half_open.dec();
            }
        }
        connection.report(&self.metrics);
        connection.note_handshake_failure(&self.metrics);
        let client = canonical_ip(connection.client());
        if connection.take_failure() {
            self.reports.report(client, Event::Handshake);
        } else if connection.has_violated() {
            self.reports.report(client, Event::Violation);
        }
        self.metrics.connections_closed.inc(connection.close_reason());
        self.metrics.connections_active.dec();
        Some(connection)
    }

    /// From now on no new connection is accepted.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Whether new connections are refused for want of memory.
    pub fn set_scarce(&mut self, scarce: bool) {
        self.scarce = scarce;
    }

    /// Whether every new client has to prove its address first, where that is left to the load.
    pub fn set_attacked(&mut self, attacked: bool) {
        self.attacked = attacked;
    }

    /// How many connections there may be, of all listeners.
    pub fn set_connections_max(&mut self, most: usize) {
        self.connections_max = most;
    }

    /// The keys of the `count` connections that came last.
    #[must_use]
    pub fn newest(&self, count: usize) -> Vec<ConnectionKey> {
        let mut all: Vec<(Instant, ConnectionKey)> = Vec::with_capacity(self.live);
        for (slot, index) in self.slots.iter().zip(0..) {
            if let Some(connection) = &slot.connection {
                all.push((connection.accepted, ConnectionKey { index, serial: slot.serial }));
            }
        }
        all.sort_unstable_by_key(|(accepted, _)| std::cmp::Reverse(*accepted));
        all.into_iter().take(count).map(|(_, key)| key).collect()
    }

    /// The keys of all connections, for what happens once: a drain.
    #[must_use]
    pub fn keys(&self) -> Vec<ConnectionKey> {
        self.slots
            .iter()
            .zip(0..)
            .filter(|(slot, _)| slot.connection.is_some())
            .map(|(slot, index)| ConnectionKey { index, serial: slot.serial })
            .collect()
    }
}

impl<S> std::fmt::Debug for Endpoint<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("connections", &self.live).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
