//! The places of listeners, 0..=15: which are open, which are closing, and what a configuration asks to change. A place is
//! named by its [`ListenerId`] in the kernel's maps and in every worker, from its opening until its last socket is closed.
//!
//! A listener is known by its address and its connection-ID settings: one that keeps both stays open and takes other new
//! settings for new connections. One that is gone closes: it accepts nothing new, tells its clients (GOAWAY, RFC 9114 §5.2), and its sockets are closed
//! when its last connection has ended. Nothing here fails half: [`Listeners::plan`] binds and checks, [`Listeners::take`]
//! only remembers. May import: config's checked types, the data plane's types, id.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use spooky_common::cid::{LocalKey, Owner};
use spooky_common::map::LISTENERS_CAPACITY;

use super::config::{CidSettings, Listener};
use crate::dataplane::packet::udp;
use crate::dataplane::quic::cid::Secrets;
use crate::dataplane::quic::tls::{CertificateError, CertificateStore, TicketKey};
use crate::dataplane::worker::inbox::Order;
use crate::dataplane::worker::{self, ListenerSetup, StartError, Terms};
use crate::id::ListenerId;

/// All places, and the secrets of connection IDs.
#[derive(Debug)]
pub struct Listeners {
    /// As many as there can be listeners.
    places: Box<[Option<Place>]>,
    /// By config ID, for as long as the process lives: what was issued under a key must stay readable.
    secrets: HashMap<u8, (CidSettings, Secrets)>,
    workers: u16,
    generation: u8,
}

/// A listener that is open or closing.
#[derive(Debug)]
struct Place {
    listener: Listener,
    address: SocketAddr,
    terms: Terms,
    closing: bool,
}

/// What has to happen for a configuration to be in force. Dropped unused, it closes what it has bound.
#[derive(Debug)]
pub struct Plan {
    /// To be opened.
    pub open: Vec<Opening>,
    /// Open already, with other settings for new connections.
    pub change: Vec<Terms>,
    /// To be closed.
    pub close: Vec<ListenerId>,
    /// What each place of the configuration is then: its listener and certificates.
    keep: Vec<(ListenerId, Listener, Arc<CertificateStore>)>,
    secrets: HashMap<u8, (CidSettings, Secrets)>,
}

/// A listener that is bound and not yet served: one socket for each worker, all in one SO_REUSEPORT group.
#[derive(Debug)]
pub struct Opening {
    /// Where it is bound, port 0 resolved.
    pub address: SocketAddr,
    /// What its connections are made from.
    pub terms: Terms,
    listener: Listener,
    sockets: Vec<UdpSocket>,
    generation: u8,
}

/// Why a configuration cannot come into force. One line, with the remedy.
#[derive(Debug)]
pub enum PlanError {
    /// An address cannot be bound.
    Bind {
        /// The listener's name.
        listener: String,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Sixteen listeners are open or closing.
    Full {
        /// The listener for which there is no place.
        listener: String,
    },
    /// The key or the server ID of a config ID that is in use would change.
    Secrets {
        /// The listener's name.
        listener: String,
        /// The config ID.
        config_id: u8,
    },
    /// BoringSSL or quiche refuse what the checks let through.
    Terms(StartError),
}

/// Reads the certificates of every listener, in their order.
///
/// # Errors
///
/// All that is wrong with them.
pub fn certificates(
    listeners: &[Listener],
) -> Result<Vec<Arc<CertificateStore>>, Vec<CertificateError>> {
    let mut stores = Vec::with_capacity(listeners.len());
    let mut errors = Vec::new();
    for listener in listeners {
        match CertificateStore::load(&listener.certificates) {
            Ok(store) => stores.push(Arc::new(store)),
            Err(wrong) => errors.extend(wrong.into_iter().map(|(_, error)| error)),
        }
    }
    if errors.is_empty() { Ok(stores) } else { Err(errors) }
}

// === impl Listeners ===

impl Listeners {
    /// No listener is open. `generation` is that of this process's workers, 0..=15.
    #[must_use]
    pub fn new(workers: u16, generation: u8) -> Self {
        Self {
            places: (0..LISTENERS_CAPACITY).map(|_| None).collect(),
            secrets: HashMap::new(),
            workers,
            generation,
        }
    }

    /// Finds out what has to change for these listeners, with their certificates, to be the open ones; binds what is new.
    ///
    /// # Errors
    ///
    /// [`PlanError`]; nothing is bound then.
    pub fn plan(
        &self,
        listeners: &[Listener],
        certificates: Vec<Arc<CertificateStore>>,
    ) -> Result<Plan, PlanError> {
        let mut plan = Plan {
            open: Vec::new(),
            change: Vec::new(),
            close: Vec::new(),
            keep: Vec::new(),
            secrets: self.secrets.clone(),
        };
        let kept = self.match_up(listeners);
        let mut free = (0..)
            .map(ListenerId)
            .zip(&self.places)
            .filter(|(_, place)| place.is_none())
            .map(|(id, _)| id);
        for ((listener, store), kept) in listeners.iter().zip(certificates).zip(&kept) {
            let secrets = secrets(&mut plan.secrets, listener)?;
            match kept.and_then(|id| Some((id, self.place(id)?))) {
                Some((id, place)) => {
                    let (old, new) = (&place.listener, listener);
                    if (&old.quic, &old.http3, &old.cid) != (&new.quic, &new.http3, &new.cid) {
                        let (quic, http3) = (new.quic.clone(), new.http3.clone());
                        let former = former(&place.terms, &secrets);
                        let terms = place.terms.clone();
                        plan.change.push(Terms { quic, http3, secrets, former, ..terms });
                    }
                    plan.keep.push((id, listener.clone(), store));
                }
                None => {
                    let id = free
                        .next()
                        .ok_or_else(|| PlanError::Full { listener: listener.name.to_string() })?;
                    let terms = Terms {
                        id,
                        certificates: Arc::new(ArcSwap::new(store)),
                        quic: listener.quic.clone(),
                        http3: listener.http3.clone(),
                        secrets,
                        former: Vec::new(),
                        ticket_key: TicketKey::random(),
                    };
                    plan.open.push(self.bind(listener, terms)?);
                }
            }
        }
        for terms in plan.change.iter().chain(plan.open.iter().map(|opening| &opening.terms)) {
            worker::rehearse(terms).map_err(PlanError::Terms)?;
        }
        let open = (0..)
            .map(ListenerId)
            .zip(&self.places)
            .filter_map(|(id, place)| place.as_ref().filter(|place| !place.closing).map(|_| id));
        plan.close = open.filter(|id| !kept.contains(&Some(*id))).collect();
        Ok(plan)
    }

    /// For each listener the open place that it keeps: the one with its address, preferably under its name, as port 0 may stand
    /// there more than once.
    fn match_up(&self, listeners: &[Listener]) -> Vec<Option<ListenerId>> {
        let mut kept = vec![None; listeners.len()];
        for by_name in [true, false] {
            for (index, listener) in listeners.iter().enumerate() {
                if kept.get(index).is_some_and(Option::is_some) {
                    continue;
                }
                let found = (0..).map(ListenerId).zip(&self.places).find(|(id, place)| {
                    place.as_ref().is_some_and(|place| {
                        !place.closing
                            && place.listener.bind == listener.bind
                            && (!by_name || place.listener.name == listener.name)
                    }) && !kept.contains(&Some(*id))
                });
                if let Some(slot) = kept.get_mut(index) {
                    *slot = found.map(|(id, _)| id);
                }
            }
        }
        kept
    }

    fn place(&self, id: ListenerId) -> Option<&Place> {
        self.places.get(id.index())?.as_ref()
    }

    fn bind(&self, listener: &Listener, terms: Terms) -> Result<Opening, PlanError> {
        let failed = |error| PlanError::Bind {
            listener: listener.name.to_string(),
            address: listener.bind,
            error,
        };
        // SO_REUSEPORT would let us join the group of another process and take its packets: first make sure that the address
        // is nobody's. The probe is closed again before the group is made. Where the port is our own already, because a
        // listener there is closing, it cannot tell us from others.
        let port = listener.bind.port();
        let ours = port != 0 && self.places.iter().flatten().any(|it| it.address.port() == port);
        let address = if ours {
            listener.bind
        } else {
            UdpSocket::bind(listener.bind).and_then(|probe| probe.local_addr()).map_err(failed)?
        };
        let sockets = (0..self.workers)
            .map(|_| udp::bind(address))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed)?;
        let generation = self.generation;
        Ok(Opening { address, terms, listener: listener.clone(), sockets, generation })
    }

    /// The plan comes into force. Gives the orders for each worker; what is closed may take until `deadline`.
    pub fn take(&mut self, plan: Plan, deadline: Instant) -> Vec<Vec<Order>> {
        let mut orders: Vec<Vec<Order>> = Vec::new();
        orders.resize_with(usize::from(self.workers), Vec::new);
        self.secrets = plan.secrets;
        for opening in plan.open {
            let Opening { address, terms, listener, sockets, generation: _ } = opening;
            for (orders, socket) in orders.iter_mut().zip(sockets) {
                orders.push(Order::Open(Box::new(ListenerSetup { socket, terms: terms.clone() })));
            }
            if let Some(place) = self.places.get_mut(terms.id.index()) {
                *place = Some(Place { listener, address, terms, closing: false });
            }
        }
        for id in plan.close {
            if let Some(Some(place)) = self.places.get_mut(id.index()) {
                place.closing = true;
            }
            for orders in &mut orders {
                orders.push(Order::Close { listener: id, deadline });
            }
        }
        for (id, listener, store) in plan.keep {
            if let Some(Some(place)) = self.places.get_mut(id.index()) {
                place.terms.certificates.store(store);
                place.listener = listener;
            }
        }
        for terms in plan.change {
            for orders in &mut orders {
                orders.push(Order::Change(Box::new(terms.clone())));
            }
            if let Some(Some(place)) = self.places.get_mut(terms.id.index()) {
                place.terms = terms;
            }
        }
        orders
    }

    /// A further socket of each open listener, for a worker that is started again.
    ///
    /// # Errors
    ///
    /// [`PlanError::Bind`].
    pub fn reopen(&self) -> Result<Vec<ListenerSetup>, PlanError> {
        let open = self.places.iter().flatten().filter(|place| !place.closing);
        open.map(|place| {
            let socket = udp::bind(place.address).map_err(|error| PlanError::Bind {
                listener: place.listener.name.to_string(),
                address: place.address,
                error,
            })?;
            Ok(ListenerSetup { socket, terms: place.terms.clone() })
        })
        .collect()
    }

    /// Places whose sockets every worker has closed; they are free again. `open` is whether any worker still has one.
    pub fn reap(&mut self, open: impl Fn(ListenerId) -> bool) -> Vec<ListenerId> {
        let mut closed = Vec::new();
        for (id, place) in (0..).map(ListenerId).zip(&mut self.places) {
            if place.as_ref().is_some_and(|it| it.closing) && !open(id) {
                *place = None;
                closed.push(id);
            }
        }
        closed
    }

    /// Where listeners are bound, port 0 resolved. Closing ones come first: who writes these down in order lets an open one
    /// have the address that both have.
    pub fn addresses(&self) -> impl Iterator<Item = (ListenerId, SocketAddr)> + '_ {
        let of = |closing: bool| {
            (0..).map(ListenerId).zip(&self.places).filter_map(move |(id, place)| {
                let place = place.as_ref().filter(|it| it.closing == closing)?;
                Some((id, place.address))
            })
        };
        of(true).chain(of(false))
    }

    /// Names by [`ListenerId`].
    #[must_use]
    pub fn names(&self) -> Vec<Option<Arc<str>>> {
        let name = |place: &Option<Place>| place.as_ref().map(|it| Arc::clone(&it.listener.name));
        self.places.iter().map(name).collect()
    }

    /// Name and address of the open ones, in the order of their places.
    pub fn open(&self) -> impl Iterator<Item = (&str, SocketAddr)> + '_ {
        let open = self.places.iter().flatten().filter(|place| !place.closing);
        open.map(|place| (&*place.listener.name, place.address))
    }

    /// How many are open, and how many are closing.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let closing = self.places.iter().flatten().filter(|place| place.closing).count();
        (self.places.iter().flatten().count() - closing, closing)
    }

    /// What the kernel's KEYS map holds.
    #[must_use]
    pub fn keys(&self) -> [Option<LocalKey>; 7] {
        let mut keys = [None; 7];
        for (config_id, (_, secrets)) in &self.secrets {
            if let Some(slot) = keys.get_mut(usize::from(*config_id)) {
                *slot = Some(secrets.local_key);
            }
        }
        keys
    }
}

/// The secrets whose connection IDs clients of a listener may hold when it goes on with other ones.
fn former(terms: &Terms, secrets: &Secrets) -> Vec<Secrets> {
    let all = terms.former.iter().chain([&terms.secrets]);
    all.filter(|it| it.config_id != secrets.config_id).cloned().collect()
}

/// The secrets of a listener; listeners with one config ID and no key file share the random ones.
fn secrets(
    made: &mut HashMap<u8, (CidSettings, Secrets)>,
    listener: &Listener,
) -> Result<Secrets, PlanError> {
    let cid = &listener.cid;
    if let Some((settings, secrets)) = made.get(&cid.config_id) {
        if settings != cid {
            return Err(PlanError::Secrets {
                listener: listener.name.to_string(),
                config_id: cid.config_id,
            });
        }
        return Ok(secrets.clone());
    }
    let secrets = match &cid.key {
        Some(key) => Secrets::from_bytes(cid.config_id, cid.server_id, &key.0),
        None => Secrets::random(cid.config_id, cid.server_id),
    };
    made.insert(cid.config_id, (cid.clone(), secrets.clone()));
    Ok(secrets)
}

// === impl Plan ===

impl Plan {
    /// How many orders each worker gets.
    #[must_use]
    pub fn orders(&self) -> usize {
        self.open.len() + self.change.len() + self.close.len()
    }
}

// === impl Opening ===

impl Opening {
    /// Its sockets with the workers that will own them, for the kernel's socket array.
    pub fn sockets(&self) -> impl Iterator<Item = (Owner, BorrowedFd<'_>)> {
        let owner = |worker| Owner { worker, generation: self.generation };
        (0..=u8::MAX).zip(&self.sockets).map(move |(worker, it)| (owner(worker), it.as_fd()))
    }

    /// Its name in the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.listener.name
    }
}

// === impl PlanError ===

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { listener, address, error } => {
                write!(f, "listener {listener}: cannot bind udp {address}: {error}")?;
                super::boot::bind_hint(f, error, "spooky", address.port(), "ss -ulpn")
            }
            Self::Full { listener } => write!(
                f,
                "listener {listener}: all {LISTENERS_CAPACITY} places are taken by listeners that \
                 are open or closing; try again when one has closed (spooky_listeners)"
            ),
            Self::Secrets { listener, config_id } => write!(
                f,
                "listener {listener}: quic.cid.key_file and server_id of config_id {config_id} are in \
                 use and cannot change while spooky runs; give the new ones another config_id"
            ),
            Self::Terms(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PlanError {}
