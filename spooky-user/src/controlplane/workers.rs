//! Makes workers: all of them at the start, and one again whose thread has ended. May import: the data plane, config's
//! checked types, sys, telemetry, id.
//!
//! A worker that ends, however that comes about, takes its connections with it. The one that follows has its number and its
//! generation, so that packets of those connections reach it and are answered with a stateless reset (RFC 9000 §10.3): their
//! clients connect again after a round trip instead of waiting for a time-out.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::boot::Running;
use super::kernel::KernelError;
use super::listeners::PlanError;
use crate::dataplane::abuse::Reports;
use crate::dataplane::pressure::Pressure;
use crate::dataplane::proxy;
use crate::dataplane::worker::inbox::{Inbox, Order, Pulse};
use crate::dataplane::worker::stray::Strays;
use crate::dataplane::worker::{self, Handle, Setup, StartError};
use crate::id::WorkerId;
use crate::snapshot::Snapshot;
use crate::sys::affinity;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Registry;

/// After the first end of a worker. It doubles with each further one.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// At most.
const DELAY_MAX: Duration = Duration::from_secs(30);
/// A worker that has run for so long starts with a clean record.
const SOUND: Duration = Duration::from_secs(60);

/// What workers are made from.
#[derive(Debug)]
pub struct Makings {
    /// Generation inside their connection IDs.
    pub generation: u8,
    /// How many there are.
    pub count: u16,
    /// Keep each on one CPU.
    pub pin: bool,
    /// Where snapshots are published.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Metrics.
    pub registry: Arc<Registry>,
    /// The rings of all workers.
    pub strays: Arc<Strays>,
    /// How scarce memory is.
    pub pressure: Arc<Pressure>,
    /// What clients do that they should not, by worker.
    pub reports: Vec<Arc<Reports>>,
}

/// When workers that have ended are started again.
#[derive(Debug)]
pub struct Revival {
    lives: Vec<Life>,
}

/// One worker's record.
#[derive(Clone, Copy, Debug)]
struct Life {
    began: Instant,
    /// Ends in quick succession.
    ends: u32,
    /// When it starts again; `None` while it runs.
    due: Option<Instant>,
}

/// Why a worker was not started again.
#[derive(Debug)]
pub enum RestartError {
    /// No socket for it.
    Listener(PlanError),
    /// The kernel does not steer to it.
    Kernel(KernelError),
    /// It did not begin.
    Start(StartError),
}

/// A worker with the number of one that has ended, on sockets of its own.
///
/// # Errors
///
/// [`RestartError`]; nothing of it is left then but places in the kernel's socket array, which the next attempt takes.
pub fn start_again(running: &mut Running, id: WorkerId) -> Result<Handle, RestartError> {
    let setups = running.listeners.reopen().map_err(RestartError::Listener)?;
    for setup in &setups {
        let steered = running.supervisor.rejoin(setup.terms.id, id, &setup.socket);
        steered.map_err(RestartError::Kernel)?;
    }
    let orders = setups.into_iter().map(|setup| Order::Open(Box::new(setup))).collect();
    running.makings.start(id, &running.access_log, orders).map_err(RestartError::Start)
}

// === impl RestartError ===

impl fmt::Display for RestartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(error) => error.fmt(f),
            Self::Kernel(error) => error.fmt(f),
            Self::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RestartError {}

// === impl Makings ===

impl Makings {
    /// Starts every worker, each with what it opens. On failure those that run are told to stop.
    ///
    /// # Errors
    ///
    /// [`StartError`] of the first that could not be started.
    pub fn start_all(
        &self,
        access_log: &AccessLog,
        orders: Vec<Vec<Order>>,
    ) -> Result<Vec<Handle>, StartError> {
        let mut handles: Vec<Handle> = Vec::new();
        for (number, orders) in (0..).zip(orders) {
            match self.start(WorkerId(number), access_log, orders) {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    for handle in handles {
                        handle.inbox.stop();
                        let _ = handle.join();
                    }
                    return Err(error);
                }
            }
        }
        Ok(handles)
    }

    /// Starts one worker.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing of it is left then.
    pub fn start(
        &self,
        id: WorkerId,
        access_log: &AccessLog,
        orders: Vec<Order>,
    ) -> Result<Handle, StartError> {
        let metrics = self.registry.worker(id);
        worker::spawn(Setup {
            id,
            generation: self.generation,
            workers: usize::from(self.count),
            core: self.core(id),
            orders,
            strays: Arc::clone(&self.strays),
            pressure: Arc::clone(&self.pressure),
            inbox: Arc::new(Inbox::new()),
            pulse: Arc::new(Pulse::new()),
            proxy: proxy::Parts {
                worker: id,
                metrics: Arc::clone(&metrics),
                access_log: access_log.worker(id, metrics),
                unrouted: self.registry.unrouted(),
                snapshot: Arc::clone(&self.snapshot),
                pressure: Arc::clone(&self.pressure),
                reports: self.reports.get(id.index()).map(Arc::clone).unwrap_or_default(),
            },
        })
    }

    fn core(&self, id: WorkerId) -> Option<usize> {
        let cores =
            if self.pin { affinity::allowed_cpus().unwrap_or_default() } else { Vec::new() };
        cores.get(id.index() % cores.len().max(1)).copied()
    }
}

// === impl Revival ===

impl Revival {
    /// All workers have just begun.
    #[must_use]
    pub fn new(workers: usize, now: Instant) -> Self {
        Self { lives: vec![Life { began: now, ends: 0, due: None }; workers] }
    }

    /// Whether a worker that has ended is to be started now. Ask at every beat.
    #[must_use]
    pub fn is_due(&mut self, id: WorkerId, now: Instant) -> bool {
        let Some(life) = self.lives.get_mut(id.index()) else { return false };
        let due = *life.due.get_or_insert_with(|| {
            if now.saturating_duration_since(life.began) >= SOUND {
                life.ends = 0;
            }
            let delay = DELAY_MIN.saturating_mul(1 << life.ends.min(16)).min(DELAY_MAX);
            life.ends += 1;
            now + delay
        });
        due <= now
    }

    /// It was started, or an attempt to do so failed.
    pub fn started(&mut self, id: WorkerId, now: Instant) {
        if let Some(life) = self.lives.get_mut(id.index()) {
            life.began = now;
            life.due = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_ends_are_answered_more_and_more_slowly() {
        let start = Instant::now();
        let id = WorkerId(0);
        let mut revival = Revival::new(1, start);
        let mut now = start;
        let mut delays = Vec::new();
        for _ in 0..12 {
            let ended = now;
            while !revival.is_due(id, now) {
                now += Duration::from_millis(100);
            }
            delays.push(now.duration_since(ended).as_millis());
            revival.started(id, now);
        }
        assert_eq!(delays[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(delays[9..], [30_000; 3]);
        now += SOUND;
        assert!(!revival.is_due(id, now));
        assert!(revival.is_due(id, now + DELAY_MIN), "a minute without an end clears the record");
    }

    #[test]
    fn nobody_else_is_due() {
        let now = Instant::now();
        let mut revival = Revival::new(1, now);
        assert!(!revival.is_due(WorkerId(7), now + DELAY_MAX));
    }
}
