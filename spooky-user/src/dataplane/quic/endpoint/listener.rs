//! The listeners of one worker as its endpoint knows them: what new connections are made from, and how many there are.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Endpoint;
use crate::dataplane::quic::cid::{Cid, Issuer};
use crate::dataplane::quic::parameters;
use crate::dataplane::quic::reset::Budget;
use crate::dataplane::quic::retry::Tokens;
use crate::dataplane::quic::settings::{QuicSettings, ValidationMode};
use crate::dataplane::quic::sources::{Source, Sources};
use crate::id::{ConnectionKey, ListenerId};
use crate::telemetry::reason::RefusedReason;

/// What the endpoint knows of one listener. Limits are this worker's share of what the settings allow all workers together.
pub struct Listener {
    pub(super) id: ListenerId,
    pub(super) config: quiche::Config,
    pub(super) settings: QuicSettings,
    pub(super) issuer: Issuer,
    /// Of former configurations.
    former: Vec<Issuer>,
    pub(super) resets: Budget,
    pub(super) tokens: Tokens,
    pub(super) draining: bool,
    pub(super) counts: Counts,
    connections_max: usize,
    source_max: usize,
    half_open_threshold: usize,
    half_open_max: usize,
    clock: Clock,
}

/// What there is of a listener in this worker.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: usize,
    /// Those whose handshake is under way.
    pub(super) half_open: usize,
    pub(super) sources: Sources,
}

/// Two clocks, read at the same time: token times must mean something to other workers and processes.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The one that only goes forward.
    pub instant: Instant,
    /// The one on the wall.
    pub wall: SystemTime,
}

/// A share with room for chance: connections of one source fall on workers like dice, and of those within the limit none may be
/// refused because one worker got more of them than another. Four standard deviations.
fn by_chance(share: usize) -> usize {
    share + 4 * share.isqrt() + 1
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
        clock: Clock,
    ) -> Self {
        parameters::apply(&mut config, &settings);
        let share = |all: usize| all.div_ceil(workers.max(1)).max(1);
        let validation = settings.address_validation;
        Self {
            id,
            config,
            resets: Budget::new(settings.stateless_resets, workers, clock.instant),
            tokens: Tokens::new(issuer.retry_key(), validation.token_ttl),
            issuer,
            former: Vec::new(),
            draining: false,
            counts: Counts::default(),
            connections_max: share(settings.max_connections),
            source_max: by_chance(share(settings.max_connections_per_source))
                .min(settings.max_connections_per_source),
            half_open_threshold: share(validation.half_open_threshold),
            half_open_max: share(validation.max_half_open),
            settings,
            clock,
        }
    }

    /// Reads the connection IDs of former configurations, too.
    #[must_use]
    pub fn with_former(mut self, former: Vec<Issuer>) -> Self {
        self.former = former;
        self
    }

    /// Who can read this ID, if it is one of this listener's, of now or before.
    pub(super) fn reads(&self, cid: &Cid) -> Option<&Issuer> {
        std::iter::once(&self.issuer).chain(&self.former).find_map(|issuer| issuer.reads(cid))
    }

    /// Whether there is room for one more connection from this source.
    pub(super) fn admit(&self, source: Source) -> Result<(), RefusedReason> {
        if self.counts.connections >= self.connections_max {
            return Err(RefusedReason::Limit);
        }
        if self.counts.half_open >= self.half_open_max {
            return Err(RefusedReason::HalfOpen);
        }
        if self.counts.sources.count(source) as usize >= self.source_max {
            return Err(RefusedReason::Source);
        }
        Ok(())
    }

    /// Whether a new client has to prove its address first.
    pub(super) fn wants_validation(&self, attacked: bool) -> bool {
        match self.settings.address_validation.mode {
            ValidationMode::Off => false,
            ValidationMode::Always => true,
            ValidationMode::Adaptive => {
                attacked || self.counts.half_open >= self.half_open_threshold
            }
        }
    }

    /// Unix time in milliseconds.
    pub(super) fn wall_ms(&self, now: Instant) -> u64 {
        let start = self.clock.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = now.saturating_duration_since(self.clock.instant);
        u64::try_from((start + since).as_millis()).unwrap_or(u64::MAX)
    }
}

// === impl Counts ===

impl Counts {
    /// A connection has been made.
    pub(super) fn added(&mut self, source: Source) {
        self.connections += 1;
        self.half_open += 1;
        self.sources.add(source);
    }

    /// A handshake has ended, well or not.
    pub(super) fn not_half_open(&mut self) {
        self.half_open = self.half_open.saturating_sub(1);
    }

    /// A connection's client is elsewhere now.
    pub(super) fn moved(&mut self, from: Source, to: Source) {
        self.sources.remove(from);
        self.sources.add(to);
    }

    /// A connection is gone.
    pub(super) fn removed(&mut self, source: Source) {
        self.connections = self.connections.saturating_sub(1);
        self.sources.remove(source);
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("id", &self.id).finish_non_exhaustive()
    }
}

// === impl Endpoint: listeners ===

impl<S> Endpoint<S> {
    /// Whether there is no attack, and the listener of a connection has fewer handshakes under way than make it ask for
    /// tokens.
    pub(super) fn is_calm(&self, key: ConnectionKey) -> bool {
        let slot = self.slots.get(key.index as usize).filter(|slot| slot.serial == key.serial);
        let Some(connection) = slot.and_then(|slot| slot.connection.as_ref()) else { return false };
        let listener = self.listeners.iter().find(|it| it.id == connection.listener);
        let calm = |it: &Listener| it.counts.half_open < it.half_open_threshold;
        !self.attacked && listener.is_some_and(calm)
    }

    /// Accepts connections for a listener. One that is known already has these settings for new connections.
    pub fn open(&mut self, mut listener: Listener) {
        match self.listeners.iter_mut().find(|it| it.id == listener.id) {
            Some(known) => {
                listener.counts = std::mem::take(&mut known.counts);
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
        self.listeners.iter().find(|it| it.id == id).map_or(0, |it| it.counts.connections)
    }

    /// Forgets a listener that has no connections.
    pub fn close(&mut self, id: ListenerId) {
        self.listeners.retain(|it| it.id != id);
    }
}
