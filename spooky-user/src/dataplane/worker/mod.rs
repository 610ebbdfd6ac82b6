//! The share-nothing unit: one thread, one core, one runtime, its own sockets, connections, timers and backend pools.
//!
//! `thread` starts it, `turn` is its loop, `listen` opens and closes its listeners, `relief` minds its memory, `drain` is its
//! graceful end; `outlet` sends, `bypass` is the way past the stack; `socket`, `timers`, `acks`, `stray` and `inbox` are what it holds, `sync` what the last two are made of. The one place where IO, protocol and policy meet: may import all of `dataplane` and `snapshot`.
//!
//! Workers share the snapshot, the rings of strays and single atomics; nothing on the request path is locked.

mod acks;
mod bypass;
mod drain;
pub mod inbox;
mod listen;
mod outlet;
mod relief;
mod socket;
pub mod stray;
mod sync;
#[cfg(test)]
mod tests;
mod thread;
mod timers;
mod turn;

use std::net::UdpSocket;
use std::sync::Arc;

use arc_swap::ArcSwap;

use self::inbox::{Inbox, Order, Pulse};
use self::stray::Strays;
use super::pressure::Pressure;
use super::proxy;
use super::quic::cid::Secrets;
use super::quic::settings::{Http3Settings, QuicSettings};
use super::quic::tls::{CertificateStore, TicketKey};
use crate::id::{ListenerId, WorkerId};

pub use self::listen::rehearse;
pub use self::thread::{Handle, StartError, spawn};

/// One listener as a worker gets it.
#[derive(Debug)]
pub struct ListenerSetup {
    /// This worker's socket of the listener's SO_REUSEPORT group.
    pub socket: UdpSocket,
    /// What its connections are made from.
    pub terms: Terms,
}

/// What the connections of a listener are made from; the same for all workers.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Which listener.
    pub id: ListenerId,
    /// Certificates; swapped on reload.
    pub certificates: Arc<ArcSwap<CertificateStore>>,
    /// Transport settings.
    pub quic: QuicSettings,
    /// HTTP/3 settings.
    pub http3: Http3Settings,
    /// Secrets of its connection IDs.
    pub secrets: Secrets,
    /// Those of its former configurations, whose IDs clients may still hold: at most one for each `config_id`.
    pub former: Vec<Secrets>,
    /// Encrypts session tickets (RFC 8446 §4.6.1): a client can resume at any worker.
    pub ticket_key: TicketKey,
}

/// Everything a worker is made of; moved into its thread.
#[derive(Debug)]
pub struct Setup {
    /// Which worker; also the number inside its connection IDs.
    pub id: WorkerId,
    /// Generation inside its connection IDs, 0..=15.
    pub generation: u8,
    /// How many workers there are.
    pub workers: usize,
    /// The core to stay on.
    pub core: Option<usize>,
    /// What it opens before it says that it runs.
    pub orders: Vec<Order>,
    /// The rings of all workers.
    pub strays: Arc<Strays>,
    /// How scarce memory is.
    pub pressure: Arc<Pressure>,
    /// Orders for it.
    pub inbox: Arc<Inbox>,
    /// Where it shows that it lives.
    pub pulse: Arc<Pulse>,
    /// What its exchanges need.
    pub proxy: proxy::Parts,
}
