//! A worker's listeners: opened, given new terms, closed, one by one while the others go on (for the whole worker's end see
//! `drain`). May import: all of `dataplane`.
//!
//! A listener that is closing keeps its socket until its last connection has ended: they are sent and received there. If a
//! new listener covers its address, what arrives at the old socket counts as having come to the new one, so that no client
//! meets a closed door.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use spooky_common::cid::Owner;

use super::inbox::Order;
use super::socket::Socket;
use super::thread::StartError;
use super::turn::Worker;
use super::{ListenerSetup, Terms};
use crate::dataplane::abuse::Reports;
use crate::dataplane::downstream::h3::session::Shared;
use crate::dataplane::packet::udp::Udp;
use crate::dataplane::quic::cid::Issuer;
use crate::dataplane::quic::endpoint::{Clock, Listener};
use crate::dataplane::quic::tls::{self, CertificateStore};
use crate::id::ListenerId;
use crate::telemetry::metrics::WorkerMetrics;

/// A listener on its way out.
#[derive(Debug)]
pub(super) struct Closing {
    listener: ListenerId,
    deadline: Instant,
}

/// Makes of these terms what a worker would make of them, and drops it: before listeners are changed, so that no worker
/// finds out too late that it cannot.
///
/// # Errors
///
/// [`StartError::Transport`].
pub fn rehearse(terms: &Terms) -> Result<(), StartError> {
    let owner = Owner { worker: 0, generation: 0 };
    transport(terms, owner, 1, Instant::now())?;
    session(terms, &Arc::default(), &Arc::default()).map(drop)
}

impl Worker {
    /// Carries out the orders that have come.
    pub(super) fn follow_orders(&mut self, now: Instant) {
        while let Some(order) = self.inbox.next() {
            if let Err(error) = self.follow(order, now) {
                tracing::error!(worker = %self.id, %error, "an order was not carried out");
            }
        }
        if self.inbox.take_reconfigured() {
            self.context.reconfigured();
        }
        if !self.draining && self.inbox.is_draining() {
            self.begin_drain();
        }
    }

    /// Carries out one order.
    ///
    /// # Errors
    ///
    /// [`StartError`] of an order to open or change; the worker is as before then.
    pub(super) fn follow(&mut self, order: Order, now: Instant) -> Result<(), StartError> {
        match order {
            Order::Open(setup) => self.open(*setup, now),
            Order::Change(terms) => self.set_terms(&terms, now),
            Order::Close { listener, deadline } => {
                self.begin_close(listener, deadline);
                Ok(())
            }
            Order::AddQueue(opened, home) => {
                self.bypass.add(*opened, home).map_err(StartError::Socket)
            }
            Order::CloseQueues => {
                self.bypass.close();
                Ok(())
            }
            Order::Count { network, reply } => {
                // Who has asked may have gone.
                let _ = reply.send(self.endpoint.count(|address| network.contains(&address)));
                Ok(())
            }
        }
    }

    fn open(&mut self, setup: ListenerSetup, now: Instant) -> Result<(), StartError> {
        let ListenerSetup { socket, terms } = setup;
        let udp = Udp::new(socket).map_err(StartError::Socket)?;
        self.set_terms(&terms, now)?;
        let bound = udp.bound();
        for closing in &mut self.sockets {
            if covers(bound, closing.udp.bound()) {
                closing.arrivals = terms.id;
            }
        }
        self.sockets.push(Socket::new(terms.id, udp, Arc::clone(&self.metrics)));
        self.pulse.set_open(terms.id, true);
        Ok(())
    }

    fn set_terms(&mut self, terms: &Terms, now: Instant) -> Result<(), StartError> {
        let shared = session(terms, &self.metrics, &self.context.reports)?;
        let listener = transport(terms, self.owner, self.workers, now)?;
        self.endpoint.open(listener);
        self.sessions.retain(|it| it.listener != terms.id);
        self.sessions.push(Rc::new(shared));
        Ok(())
    }

    fn begin_close(&mut self, listener: ListenerId, deadline: Instant) {
        self.endpoint.drain_listener(listener);
        self.closing.push(Closing { listener, deadline });
        for key in self.endpoint.keys() {
            let Some(connection) = self.endpoint.get_mut(key) else { continue };
            if connection.listener == listener {
                if let Some(session) = &mut connection.session {
                    session.announce_leaving();
                }
                self.touch(key);
            }
        }
    }

    /// Takes out the listeners whose last connection has ended, and cuts off those that had time enough.
    pub(super) fn progress_closing(&mut self, now: Instant) {
        for closing in std::mem::take(&mut self.closing) {
            let Closing { listener, deadline } = closing;
            if deadline <= now {
                self.cut(|connection| connection.listener == listener);
            }
            if self.endpoint.connections_of(listener) > 0 {
                self.closing.push(closing);
                continue;
            }
            self.endpoint.close(listener);
            self.sessions.retain(|it| it.listener != listener);
            self.sockets.retain(|it| it.listener != listener);
            // Its place may be another's soon, at another address.
            for socket in self.sockets.iter_mut().filter(|it| it.arrivals == listener) {
                socket.arrivals = socket.listener;
            }
            self.pulse.set_open(listener, false);
        }
    }
}

impl Closing {
    /// It is this one.
    pub(super) fn is_of(&self, listener: ListenerId) -> bool {
        self.listener == listener
    }
}

/// Whether datagrams for `narrow` reach a socket bound to `wide` when there is no other.
fn covers(wide: SocketAddr, narrow: SocketAddr) -> bool {
    let same = wide.ip().to_canonical() == narrow.ip().to_canonical();
    let all = wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    wide.port() == narrow.port() && (same || all)
}

/// What the HTTP/3 sessions of a listener share.
fn session(
    terms: &Terms,
    metrics: &Arc<WorkerMetrics>,
    reports: &Arc<Reports>,
) -> Result<Shared, StartError> {
    Shared::new(&terms.http3, terms.id, Arc::clone(metrics), Arc::clone(reports))
        .map_err(|error| StartError::Transport(error.to_string()))
}

/// quiche's configuration of one listener, with its certificates chosen per ClientHello.
fn transport(
    terms: &Terms,
    owner: Owner,
    workers: usize,
    now: Instant,
) -> Result<Listener, StartError> {
    let store: Arc<ArcSwap<CertificateStore>> = Arc::clone(&terms.certificates);
    let context = tls::context(store).map_err(|error| StartError::Transport(error.to_string()))?;
    let mut config = quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, context)
        .map_err(|error| StartError::Transport(error.to_string()))?;
    config
        .set_ticket_key(&terms.ticket_key.0)
        .map_err(|error| StartError::Transport(error.to_string()))?;
    let issuer = Issuer::new(&terms.secrets, owner);
    let former = terms.former.iter().map(|secrets| Issuer::new(secrets, owner)).collect();
    let clock = Clock { instant: now, wall: SystemTime::now() };
    let listener = Listener::new(terms.id, config, terms.quic.clone(), issuer, workers, clock);
    Ok(listener.with_former(former))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_wildcard_covers_its_family_and_ipv6_both() {
        let covers = |wide: &str, narrow: &str| {
            super::covers(wide.parse().unwrap(), narrow.parse().unwrap())
        };
        assert!(covers("0.0.0.0:443", "127.0.0.1:443"));
        assert!(covers("[::]:443", "127.0.0.1:443"));
        assert!(covers("127.0.0.1:443", "127.0.0.1:443"));
        assert!(!covers("0.0.0.0:443", "[::1]:443"));
        assert!(!covers("127.0.0.1:443", "0.0.0.0:443"));
        assert!(!covers("0.0.0.0:443", "127.0.0.1:444"));
    }
}
