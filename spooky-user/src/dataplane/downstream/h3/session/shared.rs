//! What the sessions of one listener share: limits, counters, quiche's configuration.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quiche::h3;

use crate::codec::field::Limits;
use crate::dataplane::abuse::Reports;
use crate::dataplane::quic::settings::{Http3Settings, ResetBudget};
use crate::id::ListenerId;
use crate::telemetry::metrics::WorkerMetrics;

/// What all sessions of one listener on one worker share.
pub struct Shared {
    /// Limits on field sections.
    pub limits: Limits,
    /// Requests after which a connection is told to go away.
    pub max_requests: u64,
    /// A request's host has to be the name of the TLS handshake.
    pub authority_must_match_sni: bool,
    /// Requests that may end early.
    pub resets: ResetBudget,
    /// See [`Http3Settings`].
    pub header_timeout: Duration,
    /// See [`Http3Settings`].
    pub body_timeout: Duration,
    /// Octets of a body that have to come within that time.
    pub body_enough: u64,
    /// See [`Http3Settings`].
    pub drain_timeout: Duration,
    /// See [`Http3Settings`].
    pub max_unreadable: u64,
    /// See [`Http3Settings`].
    pub max_backend_connections_lost: u32,
    /// Which listener.
    pub listener: ListenerId,
    /// The worker's counters.
    pub metrics: Arc<WorkerMetrics>,
    /// What clients do that they should not.
    pub reports: Arc<Reports>,
    /// Octets of all its connections that came and cannot be read.
    unreadable: Cell<u64>,
    /// See [`Http3Settings`].
    max_unreadable_total: u64,
    pub(super) config: h3::Config,
}

/// What one connection has of the octets that cannot be read, taken back on drop.
pub(super) struct Unreadable {
    shared: Rc<Shared>,
    octets: u64,
}

// === impl Shared ===

impl Shared {
    /// For one listener.
    ///
    /// # Errors
    ///
    /// When quiche cannot allocate.
    pub fn new(
        settings: &Http3Settings,
        listener: ListenerId,
        metrics: Arc<WorkerMetrics>,
        reports: Arc<Reports>,
    ) -> Result<Self, h3::Error> {
        let mut config = h3::Config::new()?;
        // quiche closes the whole connection above *its* limit. Ours answers 431 on the stream; the slack lets it.
        config.set_max_field_section_size(2 * settings.max_field_section_size);
        config.set_qpack_max_table_capacity(0);
        config.set_qpack_blocked_streams(0);
        Ok(Self {
            limits: Limits {
                max_section_size: usize::try_from(settings.max_field_section_size)
                    .unwrap_or(usize::MAX),
                max_fields: settings.max_fields,
                max_name: settings.max_field_name_size,
                max_value: settings.max_field_value_size,
            },
            max_requests: settings.max_requests_per_connection,
            authority_must_match_sni: settings.authority_must_match_sni,
            resets: settings.resets,
            header_timeout: settings.request_header_timeout,
            body_timeout: settings.request_body_timeout,
            body_enough: settings.request_body_enough(),
            drain_timeout: settings.response_drain_timeout,
            max_unreadable: settings.max_unreadable,
            max_unreadable_total: settings.max_unreadable_total,
            unreadable: Cell::new(0),
            max_backend_connections_lost: settings.max_backend_connections_lost,
            listener,
            metrics,
            reports,
            config,
        })
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("listener", &self.listener).finish_non_exhaustive()
    }
}

// === impl Unreadable ===

impl Unreadable {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        Self { shared, octets: 0 }
    }

    /// It has so much now.
    pub(super) fn set(&mut self, octets: u64) {
        let total = &self.shared.unreadable;
        total.set(total.get().saturating_sub(self.octets).saturating_add(octets));
        self.octets = octets;
    }

    /// All together have more than they may.
    pub(super) fn is_scarce(&self) -> bool {
        self.shared.unreadable.get() > self.shared.max_unreadable_total
    }
}

impl Drop for Unreadable {
    fn drop(&mut self) {
        self.set(0);
    }
}
