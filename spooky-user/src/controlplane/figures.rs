//! The control plane's own numbers, for `/metrics`: kernel counters, what is attached, worker states, reloads.
//!
//! Written by the control plane's thread, read by whoever renders. May import: telemetry, id, kernel's types.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use spooky_common::counter::Counter;
use spooky_common::map::SLOTS_CAPACITY;

use super::kernel::Running;
use crate::dataplane::pressure::Level;
use crate::id::WorkerId;
use crate::telemetry::metrics::{Samples, Source};

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WorkerState {
    /// It turns.
    Healthy,
    /// It has not turned for a while.
    Stalled,
    /// It has ended, or not turned for so long that it is treated as if it had.
    Dead,
}

/// All of them. Relaxed: each number stands for itself.
#[derive(Debug)]
pub struct Figures {
    kernel: Vec<AtomicU64>,
    running: AtomicU8,
    workers: Vec<AtomicU8>,
    restarts: Vec<AtomicU64>,
    /// Slots of the placement table, + 1; 0 while there is no table.
    shares: Vec<AtomicU64>,
    /// Microseconds.
    lags: Vec<AtomicU64>,
    moves: AtomicU64,
    samples: AtomicU64,
    /// Those left, + 1; 0 without AF_XDP.
    spare_sockets: AtomicU64,
    map_writes: AtomicU64,
    map_failures: AtomicU64,
    memory_limit: AtomicU64,
    pressure: AtomicU8,
    listeners_open: AtomicU64,
    listeners_closing: AtomicU64,
    config_version: AtomicU64,
    reloads: AtomicU64,
    reloads_refused: AtomicU64,
}

impl Figures {
    /// All zero, all workers healthy, nothing attached.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            kernel: Counter::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            running: AtomicU8::new(0),
            workers: (0..workers).map(|_| AtomicU8::new(WorkerState::Healthy as u8)).collect(),
            restarts: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            shares: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            lags: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            moves: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            spare_sockets: AtomicU64::new(0),
            map_writes: AtomicU64::new(0),
            map_failures: AtomicU64::new(0),
            memory_limit: AtomicU64::new(0),
            pressure: AtomicU8::new(0),
            listeners_open: AtomicU64::new(0),
            listeners_closing: AtomicU64::new(0),
            config_version: AtomicU64::new(1),
            reloads: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
        }
    }

    /// What the kernel has counted.
    pub fn set_kernel(&self, counters: &[(Counter, u64)]) {
        for (counter, value) in counters {
            if let Some(slot) = self.kernel.get(counter.index() as usize) {
                slot.store(*value, Ordering::Relaxed);
            }
        }
    }

    /// What the kernel had counted at the last beat.
    #[must_use]
    pub fn kernel(&self, counter: Counter) -> u64 {
        let count = self.kernel.get(counter.index() as usize);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// What is attached.
    pub fn set_running(&self, running: Running) {
        let place = Running::ALL.iter().position(|it| *it == running).unwrap_or(0);
        self.running.store(u8::try_from(place).unwrap_or(0), Ordering::Relaxed);
    }

    /// AF_XDP sockets that are left; `None` without AF_XDP.
    pub fn set_spare_sockets(&self, left: Option<usize>) {
        let shown = left.map_or(0, |left| left as u64 + 1);
        self.spare_sockets.store(shown, Ordering::Relaxed);
    }

    /// How a worker is.
    pub fn set_worker(&self, worker: WorkerId, state: WorkerState) {
        if let Some(slot) = self.workers.get(worker.index()) {
            slot.store(state as u8, Ordering::Relaxed);
        }
    }

    /// A worker whose thread had ended was started again.
    pub fn worker_restarted(&self, worker: WorkerId) {
        if let Some(count) = self.restarts.get(worker.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Slots of the placement table that lead to this worker.
    pub fn set_share(&self, worker: WorkerId, slots: u16) {
        if let Some(share) = self.shares.get(worker.index()) {
            share.store(u64::from(slots) + 1, Ordering::Relaxed);
        }
    }

    /// How late a worker is.
    pub fn set_lag(&self, worker: WorkerId, lag: Duration) {
        if let Some(slot) = self.lags.get(worker.index()) {
            let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
            slot.store(micros, Ordering::Relaxed);
        }
    }

    /// Slots that have gone from one worker to another.
    pub fn set_moves(&self, moves: u64) {
        self.moves.store(moves, Ordering::Relaxed);
    }

    /// A sampled drop was read.
    pub fn sampled(&self) {
        self.samples.fetch_add(1, Ordering::Relaxed);
    }

    /// Map entries were written.
    pub fn map_writes(&self, entries: usize) {
        self.map_writes.fetch_add(entries as u64, Ordering::Relaxed);
    }

    /// The maps could not be brought to the desired state.
    pub fn map_failed(&self) {
        self.map_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The limit on memory in octets, if there is one.
    pub fn set_memory_limit(&self, limit: Option<u64>) {
        self.memory_limit.store(limit.unwrap_or(0), Ordering::Relaxed);
    }

    /// What is given up for want of memory.
    pub fn set_pressure(&self, level: Level) {
        self.pressure.store(level as u8, Ordering::Relaxed);
    }

    /// How many listeners there are.
    pub fn set_listeners(&self, open: usize, closing: usize) {
        self.listeners_open.store(open as u64, Ordering::Relaxed);
        self.listeners_closing.store(closing as u64, Ordering::Relaxed);
    }

    /// A reload was taken; the snapshot has this version.
    pub fn reloaded(&self, version: u64) {
        self.config_version.store(version, Ordering::Relaxed);
        self.reloads.fetch_add(1, Ordering::Relaxed);
    }

    /// A reload was refused; the old configuration stays.
    pub fn reload_refused(&self) {
        self.reloads_refused.fetch_add(1, Ordering::Relaxed);
    }

    fn collect_kernel(&self, samples: &mut Samples) {
        for (counter, value) in Counter::ALL.iter().zip(&self.kernel) {
            let shown = counter.describe();
            samples.counter(shown.metric, shown.help, shown.labels, value.load(Ordering::Relaxed));
        }
        let running = usize::from(self.running.load(Ordering::Relaxed));
        for (place, mode) in Running::ALL.iter().enumerate() {
            samples.gauge(
                "spooky_ebpf_mode",
                "1 for the kernel programs that run, 0 for the others.",
                &[("mode", mode.label())],
                f64::from(u8::from(place == running)),
            );
        }
        if let Some(left) = self.spare_sockets.load(Ordering::Relaxed).checked_sub(1) {
            samples.gauge(
                "spooky_af_xdp_spare_sockets",
                "AF_XDP sockets that are left for an interface removed and made again.",
                &[],
                left as f64,
            );
        }
        let pairs = [
            ("spooky_xdp_samples_total", "Sampled drops read from the kernel.", &self.samples),
            ("spooky_ebpf_map_writes_total", "Map entries written.", &self.map_writes),
            (
                "spooky_ebpf_map_failures_total",
                "Attempts to bring the maps to the desired state that failed.",
                &self.map_failures,
            ),
        ];
        for (name, help, value) in pairs {
            samples.counter(name, help, &[], value.load(Ordering::Relaxed));
        }
    }

    /// Nothing without the kernel programs: there is no table then.
    fn collect_placement(&self, samples: &mut Samples) {
        let shares = self.shares.iter().map(|share| share.load(Ordering::Relaxed));
        for (number, share) in shares.enumerate().filter(|(_, share)| *share > 0) {
            samples.gauge(
                "spooky_worker_share",
                "Part of the new connections that the placement table gives to a worker, 0 to 1.",
                &[("worker", &number.to_string())],
                (share - 1) as f64 / f64::from(SLOTS_CAPACITY),
            );
        }
        samples.counter(
            "spooky_placement_moves_total",
            "Slots of the placement table (256) that went from one worker to another.",
            &[],
            self.moves.load(Ordering::Relaxed),
        );
    }

    fn collect_workers(&self, samples: &mut Samples) {
        const STATES: [(&str, WorkerState); 3] = [
            ("healthy", WorkerState::Healthy),
            ("stalled", WorkerState::Stalled),
            ("dead", WorkerState::Dead),
        ];
        for (number, count) in self.restarts.iter().enumerate() {
            samples.counter(
                "spooky_worker_restarts_total",
                "Times a worker was started again because its thread had ended.",
                &[("worker", &number.to_string())],
                count.load(Ordering::Relaxed),
            );
        }
        for (number, lag) in self.lags.iter().enumerate() {
            samples.gauge(
                "spooky_worker_lag_seconds",
                "How long something has waited for its turn at most, halved each half second since.",
                &[("worker", &number.to_string())],
                lag.load(Ordering::Relaxed) as f64 / 1e6,
            );
        }
        self.collect_placement(samples);
        for (number, slot) in self.workers.iter().enumerate() {
            let now = slot.load(Ordering::Relaxed);
            for (label, state) in STATES {
                samples.gauge(
                    "spooky_worker_state",
                    "1 for the state a worker is in, 0 for the others.",
                    &[("worker", &number.to_string()), ("state", label)],
                    f64::from(u8::from(now == state as u8)),
                );
            }
        }
    }
}

impl Source for Figures {
    fn collect(&self, samples: &mut Samples) {
        self.collect_kernel(samples);
        self.collect_workers(samples);
        samples.gauge(
            "spooky_config_version",
            "Version of the configuration in force; counts up with each reload that was taken.",
            &[],
            self.config_version.load(Ordering::Relaxed) as f64,
        );
        samples.gauge(
            "spooky_memory_limit_bytes",
            "Limit on this process's memory, from overload.memory or its cgroup; 0 for none.",
            &[],
            self.memory_limit.load(Ordering::Relaxed) as f64,
        );
        let pressure = self.pressure.load(Ordering::Relaxed);
        for level in Level::ALL {
            samples.gauge(
                "spooky_memory_pressure",
                "1 for what is given up for want of memory, 0 for the others.",
                &[("level", level.label())],
                f64::from(u8::from(pressure == level as u8)),
            );
        }
        for (state, value) in [("open", &self.listeners_open), ("closing", &self.listeners_closing)]
        {
            samples.gauge(
                "spooky_listeners",
                "Listeners by state; a closing one serves the connections it has and no others.",
                &[("state", state)],
                value.load(Ordering::Relaxed) as f64,
            );
        }
        for (result, value) in [("taken", &self.reloads), ("refused", &self.reloads_refused)] {
            samples.counter(
                "spooky_config_reloads_total",
                "Reloads of the configuration by result.",
                &[("result", result)],
                value.load(Ordering::Relaxed),
            );
        }
    }
}
