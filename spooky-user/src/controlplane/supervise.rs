//! Watches the workers and keeps the kernel's maps in step with them: the desired state is computed here, from scratch, at
//! every beat; [`Kernel::apply`] writes what differs. Shares of new connections are `placement`'s.
//!
//! ```text
//!  healthy ──no turn for STALLED──▶ stalled: no new connection ──no turn for DEAD, or ended──▶ dead: its packets go to the
//!     ▲───────────────────────────────┴── turns again ──────────────────────────────────────────┘ living, who answer reset
//! ```

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use ipnet::IpNet;
use spooky_common::cid::Owner;
use spooky_common::pace::Pace;
use spooky_common::sample::Sample;
use tokio::task::JoinHandle;

use super::config;
use super::figures::{Figures, WorkerState};
use super::kernel::{
    AccessLists, Compiling, Desired, Edit, Flood, Kernel, KernelError, ListenerAddress, Running,
    UnderAttack, WorkerSlot,
};
use super::listeners::{Listeners, Opening};
use super::placement::{Look, Placement};
use super::queues::{QueueError, Queues};
use super::trace::Trace;
use super::trace::session::{Session, Wanted};
use crate::dataplane::worker::Handle;
use crate::dataplane::worker::inbox::Order;
use crate::dataplane::worker::stray::Strays;
use crate::id::{ListenerId, WorkerId};
use crate::telemetry::metrics::{Registry, WorkerMetrics};

/// A worker turns at least every 100 ms; one that has missed four beats gets no new connection.
const STALLED: Duration = Duration::from_millis(500);
/// One that has not turned for so long has lost its clients anyway: they are told, and go elsewhere.
const DEAD: Duration = Duration::from_secs(5);
/// Lists that have not changed for so long are compiled.
const QUIET: Duration = Duration::from_millis(200);
/// How often the maps are compared with the desired state although nothing has changed.
const RECONCILE: Duration = Duration::from_secs(30);

/// The watch over all workers.
#[derive(Debug)]
pub struct Supervisor {
    kernel: Kernel,
    queues: Queues,
    /// XDP was attached, as far as it can be.
    attached: bool,
    desired: Desired,
    strays: Arc<Strays>,
    figures: Arc<Figures>,
    /// What each worker counts; its connections are looked at.
    metrics: Vec<Arc<WorkerMetrics>>,
    /// Configured, by worker.
    weights: Vec<u16>,
    placement: Placement,
    states: Vec<WorkerState>,
    applied: Option<Instant>,
    /// The lists in `desired` have not been taken yet.
    relist: bool,
    /// When entries of lists last changed, until they are compiled.
    edited: Option<Instant>,
    compiling: Option<JoinHandle<Compiling>>,
    draining: bool,
    /// The last failure, so that it is logged once and not at every beat.
    failing: Option<String>,
    capture: Option<Session>,
}

impl Supervisor {
    /// Nothing is applied yet; there is no listener, and nobody is refused.
    #[must_use]
    pub fn new(
        kernel: Kernel,
        queues: Queues,
        generation: u8,
        strays: Arc<Strays>,
        figures: Arc<Figures>,
        registry: &Registry,
    ) -> Self {
        let workers = registry.workers();
        let numbers = (0..).map(WorkerId).take(workers);
        let desired = Desired {
            generation,
            workers: Vec::new(),
            listeners: Vec::new(),
            keys: [None; 7],
            access: AccessLists::default(),
            queues: Vec::new(),
            flood: Flood::default(),
        };
        Self {
            kernel,
            queues,
            attached: false,
            desired,
            strays,
            figures,
            metrics: numbers.map(|number| registry.worker(number)).collect(),
            weights: vec![1; workers],
            placement: Placement::new(workers),
            states: vec![WorkerState::Healthy; workers],
            applied: None,
            relist: true,
            edited: None,
            compiling: None,
            draining: false,
            failing: None,
            capture: None,
        }
    }

    /// Fills the maps and attaches to the interface. There is no worker yet: until the first beat that sees them the kernel
    /// places by its own hash, and packets wait in the sockets.
    ///
    /// # Errors
    ///
    /// [`KernelError`] when `ebpf.on_failure` is `abort`.
    pub fn attach(&mut self, now: Instant) -> Result<(), KernelError> {
        self.apply(now);
        self.kernel.attach_xdp()?;
        self.attached = true;
        self.figures.set_running(self.kernel.running());
        Ok(())
    }

    /// Opens the AF_XDP sockets that the configuration asks for; each goes to the worker beside it.
    ///
    /// # Errors
    ///
    /// [`QueueError`]; none is open then.
    pub fn open_queues(&mut self) -> Result<Vec<(Order, u8)>, QueueError> {
        self.queues.open_all(&mut self.kernel)
    }

    /// Says what runs.
    pub fn log_steering(&self) {
        let running = self.kernel.running();
        match self.kernel.lost() {
            None => tracing::info!("steering: {running}"),
            Some(reason) => tracing::warn!("steering: {running} only: {reason}"),
        }
    }

    /// Says what goes past the stack.
    pub fn log_queues(&self) {
        let Some((sockets, zero_copy)) = self.queues.summary() else { return };
        let how = if zero_copy { "without a copy" } else { "with a copy" };
        tracing::info!("af_xdp: {sockets} receive queues, {how}");
        if self.queues.held_back(self.has_wildcard()) {
            tracing::warn!(
                "af_xdp: nothing goes there: the interface takes packets for other hosts (or hides it), and a \
                 listener takes any address; bind it to this host's own"
            );
        }
    }

    /// The kernel side, for the start-up line.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Steers the sockets of a listener that is being opened.
    ///
    /// # Errors
    ///
    /// [`KernelError`]; some of the sockets may be steered then, see [`Self::close`].
    pub fn open(&mut self, opening: &Opening) -> Result<(), KernelError> {
        let sockets: Vec<_> = opening.sockets().collect();
        self.kernel.join_group(opening.terms.id.0, &sockets)
    }

    /// Steers to the socket of a worker that is started again.
    ///
    /// # Errors
    ///
    /// [`KernelError`].
    pub fn rejoin(
        &mut self,
        listener: ListenerId,
        worker: WorkerId,
        socket: &UdpSocket,
    ) -> Result<(), KernelError> {
        let worker = u8::try_from(worker.0).unwrap_or(u8::MAX);
        let owner = Owner { worker, generation: self.desired.generation };
        self.kernel.join_group(listener.0, &[(owner, socket.as_fd())])
    }

    /// Lets go of the sockets of a listener that every worker has closed, or that is not opened after all.
    pub fn close(&mut self, id: ListenerId) {
        self.kernel.leave_group(id.0);
    }

    /// Where clients connect, and under which keys; in the maps with the next beat.
    pub fn set_listeners(&mut self, listeners: &Listeners) {
        let address = |(id, address): (ListenerId, _)| ListenerAddress { index: id.0, address };
        self.desired.listeners = listeners.addresses().map(address).collect();
        self.desired.keys = listeners.keys();
        let (open, closing) = listeners.counts();
        self.figures.set_listeners(open, closing);
        self.applied = None;
    }

    /// Shares of new connections by worker under equal load, and whether load changes them; in the maps with the next beat.
    pub fn set_placement(&mut self, weights: &[u16], follows_load: bool) {
        self.weights = weights.to_vec();
        self.placement.configure(follows_load);
        self.applied = None;
    }

    /// What XDP ends besides; in the maps with the next beat.
    pub fn set_flood(&mut self, flood: &config::Flood) {
        self.desired.flood = Flood {
            early: flood.refuse_early,
            new_flows: Pace::new(flood.new_connections.rate, flood.new_connections.burst),
            versions: Pace::new(flood.version_negotiation, flood.version_negotiation),
        };
        self.applied = None;
    }

    /// What XDP does about an attack; in the maps when this returns.
    pub fn set_attack(&mut self, attack: &UnderAttack) {
        let written = self.kernel.set_attack(attack);
        self.wrote(written);
    }

    /// Whole lists; in the maps with the next beat.
    pub fn set_access(&mut self, access: AccessLists) {
        self.desired.access = access;
        self.relist = true;
        self.applied = None;
    }

    /// What happens to sources on no list; in the maps with the next beat.
    pub fn set_default_deny(&mut self, deny: bool) {
        if std::mem::replace(&mut self.desired.access.default_deny, deny) != deny {
            self.applied = None;
        }
    }

    /// Changes entries of the lists, in force when this returns; those that did not fit. `None`: some may not have been written,
    /// and the lists have to be told anew, as a whole.
    pub fn edit_access(&mut self, edits: &[Edit], now: Instant) -> Option<Vec<IpNet>> {
        self.edited = Some(now);
        let edited = self.kernel.edit(edits);
        let full = match &edited {
            Ok(_) => Some(Vec::new()),
            Err(KernelError::ListFull { refused, .. }) => Some(refused.clone()),
            Err(_) => None,
        };
        self.wrote(edited);
        full
    }

    /// Compiles lists that have been quiet for a while, one at a time and on another thread.
    fn compile_lists(&mut self, now: Instant) {
        if let Some(task) = self.compiling.as_mut().filter(|task| task.is_finished()) {
            if let Some(Ok(compiled)) = task.now_or_never() {
                let settled = self.kernel.settle(compiled);
                self.wrote(settled.map(|()| 0));
            }
            self.compiling = None;
        }
        let quiet = self.edited.is_some_and(|at| now.saturating_duration_since(at) >= QUIET);
        if !quiet || self.compiling.is_some() {
            return;
        }
        match self.kernel.compilation() {
            Some(list) => self.compiling = Some(tokio::task::spawn_blocking(move || list.run())),
            None => self.edited = None,
        }
    }

    /// Looks at every worker, and makes the maps follow.
    pub fn beat(&mut self, workers: &[Handle], now: Instant) {
        let slots = self.place(workers, now);
        if self.attached && !self.draining {
            self.look_after_queues(workers, now);
        }
        let queues = self.queues.shares(&slots, self.has_wildcard());
        let queues_before = std::mem::replace(&mut self.desired.queues, queues);
        let before = std::mem::replace(&mut self.desired.workers, slots);
        let reachable = |slots: &[WorkerSlot]| -> Vec<bool> {
            slots.iter().map(|slot| slot.reachable).collect()
        };
        let overdue = self.applied.is_none_or(|at| now.saturating_duration_since(at) >= RECONCILE);
        if overdue || reachable(&before) != reachable(&self.desired.workers) {
            self.apply(now);
        } else if before != self.desired.workers || queues_before != self.desired.queues {
            let placed = self.kernel.place(&self.desired);
            self.wrote(placed);
        }
        self.compile_lists(now);
        if let Ok(counters) = self.kernel.counters() {
            self.figures.set_kernel(&counters);
        }
        if let Some(session) = &mut self.capture
            && let Err(error) = session.beat(&mut self.kernel, now)
        {
            tracing::warn!(%error, "a capture does not end");
        }
        let figures = Arc::clone(&self.figures);
        self.kernel.drain_samples(|sample| {
            figures.sampled();
            log_sample(sample);
        });
    }

    /// The interface, and what is at it; what has changed is said as at start.
    fn look_after_queues(&mut self, workers: &[Handle], now: Instant) {
        let wildcard = self.has_wildcard();
        let before = (self.queues.summary(), self.queues.held_back(wildcard));
        let ran = self.kernel.running();
        self.queues.beat(&mut self.kernel, workers, now);
        if self.kernel.running() != ran {
            self.log_steering();
        }
        if (self.queues.summary(), self.queues.held_back(wildcard)) != before {
            self.log_queues();
        }
        self.figures.set_running(self.kernel.running());
        self.figures.set_spare_sockets(self.queues.spare());
    }

    /// A listener takes packets to whatever address.
    fn has_wildcard(&self) -> bool {
        self.desired.listeners.iter().any(|listener| listener.address.ip().is_unspecified())
    }

    /// The place of each worker in the table.
    fn place(&mut self, workers: &[Handle], now: Instant) -> Vec<WorkerSlot> {
        let looks: Vec<Look> = workers.iter().map(|worker| self.look(worker, now)).collect();
        let shares = self.placement.beat(&looks, now).to_vec();
        if self.kernel.running() != Running::Off {
            self.figures.set_moves(self.placement.moves());
            for (worker, share) in workers.iter().zip(&shares) {
                self.figures.set_share(worker.id, *share);
            }
        }
        let slot = |(worker, share): (&Handle, u16)| WorkerSlot {
            worker: u8::try_from(worker.id.0).unwrap_or(u8::MAX),
            weight: share,
            reachable: self.states.get(worker.id.index()) != Some(&WorkerState::Dead),
        };
        let slots = workers.iter().zip(shares).map(slot).collect();
        for worker in workers {
            self.figures.set_lag(worker.id, self.placement.lag(worker.id.index()));
        }
        slots
    }

    /// How one worker is.
    fn look(&mut self, worker: &Handle, now: Instant) -> Look {
        let state = if worker.has_ended() {
            WorkerState::Dead
        } else {
            match worker.pulse.age(now) {
                age if age >= DEAD => WorkerState::Dead,
                age if age >= STALLED => WorkerState::Stalled,
                _ => WorkerState::Healthy,
            }
        };
        let number = u8::try_from(worker.id.0).unwrap_or(u8::MAX);
        let before = self.states.get_mut(worker.id.index());
        if let Some(before) = before
            && std::mem::replace(before, state) != state
        {
            self.changed(worker.id, number, state, worker.has_ended());
        }
        let connections = self.metrics.get(worker.id.index());
        let connections = connections.map_or(0, |metrics| metrics.connections_active.value());
        Look {
            weight: match state {
                WorkerState::Healthy => self.weights.get(worker.id.index()).copied().unwrap_or(1),
                WorkerState::Stalled | WorkerState::Dead => 0,
            },
            lag: worker.pulse.lag(now),
            connections: u64::try_from(connections).unwrap_or(0),
        }
    }

    fn changed(&mut self, id: WorkerId, number: u8, state: WorkerState, ended: bool) {
        match state {
            WorkerState::Healthy => tracing::info!(worker = %id, "worker turns again"),
            WorkerState::Stalled => {
                tracing::warn!(worker = %id, "worker stalled: it gets no new connection");
            }
            WorkerState::Dead if self.draining => {}
            WorkerState::Dead => {
                tracing::error!(worker = %id, ended, "worker dead: its clients are reset");
            }
        }
        self.strays.set_reachable(id, state != WorkerState::Dead);
        self.figures.set_worker(id, state);
        if ended {
            self.kernel.forget_worker(number);
        }
    }

    fn apply(&mut self, now: Instant) {
        self.applied = Some(now);
        let applied = if self.relist {
            self.kernel.apply(&self.desired)
        } else {
            self.kernel.keep_up(&self.desired)
        };
        if matches!(applied, Ok(_) | Err(KernelError::ListFull { .. })) && self.relist {
            self.relist = false;
            // From here on the kernel knows its lists, and is told of changes.
            let default_deny = self.desired.access.default_deny;
            self.desired.access = AccessLists { default_deny, ..AccessLists::default() };
        }
        if let Ok(applied) = applied
            && applied.total() > 0
        {
            tracing::debug!(?applied, "kernel maps follow");
        }
        let complete = applied.is_ok();
        self.wrote(applied.map(|applied| applied.total()));
        if complete {
            self.failing = None;
        }
    }

    fn wrote(&mut self, result: Result<usize, KernelError>) {
        match result {
            Ok(0) => {}
            Ok(entries) => self.figures.map_writes(entries),
            Err(error) => {
                // Tried again with the next change or reconciliation; user space enforces and forwards meanwhile.
                self.figures.map_failed();
                let text = error.to_string();
                if self.failing.as_deref() != Some(&text) {
                    tracing::error!(error = %text, "kernel maps are not as desired");
                    self.failing = Some(text);
                }
            }
        }
    }

    /// The capture that was begun and not fetched yet.
    #[must_use]
    pub fn capture(&self) -> Option<&Session> {
        self.capture.as_ref()
    }

    /// Begins a capture, in the place of one that nobody has fetched.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn begin_capture(&mut self, wanted: Wanted, now: Instant) -> Result<(), KernelError> {
        self.capture = None;
        self.capture = Some(Session::begin(&mut self.kernel, wanted, now)?);
        Ok(())
    }

    /// Ends it and gives what was captured; `None` when none was begun.
    ///
    /// # Errors
    /// [`KernelError`]; it is gone then, too.
    pub fn end_capture(&mut self) -> Option<Result<Trace, KernelError>> {
        let session = self.capture.take()?;
        Some(session.finish(&mut self.kernel))
    }

    /// From now on a worker that ends is one that has drained.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// How many workers still run.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.states.iter().filter(|state| **state != WorkerState::Dead).count()
    }
}

fn log_sample(sample: &Sample) {
    let source = std::net::Ipv6Addr::from(sample.source).to_canonical();
    tracing::debug!(
        %source,
        source_port = sample.source_port,
        destination_port = sample.destination_port,
        payload = sample.payload_len,
        reason = ?sample.reason(),
        "drop sampled"
    );
}
