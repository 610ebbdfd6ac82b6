//! The listeners of one worker as its endpoint knows them: what new connections are made from, and how many there are.

use std::time::Instant;

use super::Endpoint;
use crate::dataplane::quic::cid::Issuer;
use crate::dataplane::quic::parameters;
use crate::dataplane::quic::reset::Limiter;
use crate::dataplane::quic::settings::QuicSettings;
use crate::id::ListenerId;

/// What the endpoint knows of one listener.
pub struct Listener {
    pub(super) id: ListenerId,
    pub(super) config: quiche::Config,
    pub(super) settings: QuicSettings,
    pub(super) issuer: Issuer,
    pub(super) resets: Limiter,
    /// This worker's share of `max_connections`.
    pub(super) connections_max: usize,
    pub(super) connections: usize,
    pub(super) draining: bool,
}

// === impl Listener ===

impl Listener {
    /// `config` holds the TLS context; the transport parameters are set here.
    #[must_use]
    pub fn new(
        id: ListenerId,
        mut config: quiche::Config,
        settings: QuicSettings,
        issuer: Issuer,
        workers: usize,
        now: Instant,
    ) -> Self {
        parameters::apply(&mut config, &settings);
        let connections_max = settings.max_connections.div_ceil(workers.max(1)).max(1);
        let resets = Limiter::new(settings.stateless_resets_per_second, now);
        Self {
            id,
            config,
            settings,
            issuer,
            resets,
            connections_max,
            connections: 0,
            draining: false,
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("id", &self.id).finish_non_exhaustive()
    }
}

// === impl Endpoint: listeners ===

impl<S> Endpoint<S> {
    /// Accepts connections for a listener. One that is known already has these settings for new connections.
    pub fn open(&mut self, mut listener: Listener) {
        match self.listeners.iter_mut().find(|it| it.id == listener.id) {
            Some(known) => {
                listener.connections = known.connections;
                *known = listener;
            }
            None => self.listeners.push(listener),
        }
    }

    /// From now on no new connection of this listener is accepted.
    pub fn drain_listener(&mut self, id: ListenerId) {
        for listener in self.listeners.iter_mut().filter(|it| it.id == id) {
            listener.draining = true;
        }
    }

    /// Connections of one listener.
    #[must_use]
    pub fn connections_of(&self, id: ListenerId) -> usize {
        self.listeners.iter().find(|it| it.id == id).map_or(0, |it| it.connections)
    }

    /// Forgets a listener that has no connections.
    pub fn close(&mut self, id: ListenerId) {
        self.listeners.retain(|it| it.id != id);
    }
}
