//! What is read before and after a phase, and the line of JSON that becomes of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::account::{self, Cpu, Machine, Memory, Tally};
use crate::client::Traffic;
use crate::drive::Load;
use crate::options::Options;

/// The state of the world when a phase begins.
pub(crate) struct Meter {
    begun: Instant,
    proxy: Cpu,
    beside: Cpu,
    own: Cpu,
    machine: Option<Machine>,
    traffic: Traffic,
    lost: u64,
    rejected: u64,
    dropped: Option<u64>,
}

/// What a phase has cost so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    pub(crate) proxy: Cpu,
    beside: Duration,
    own: Duration,
    /// Everything that ran anywhere.
    machine: Option<Duration>,
}

// === impl Meter ===

impl Meter {
    /// # Errors
    /// When a process is not there.
    pub(crate) fn start(load: &Load, options: &Options) -> Result<Self, String> {
        Ok(Self {
            traffic: load.traffic(),
            lost: load.lost(),
            rejected: load.rejected,
            dropped: account::receive_buffer_errors(),
            proxy: Cpu::of(&options.pids)?,
            beside: Cpu::of(&options.beside)?,
            own: Cpu::of(&[std::process::id()])?,
            machine: Machine::now(),
            begun: Instant::now(),
        })
    }

    /// Since the start.
    ///
    /// # Errors
    /// When a process is not there.
    pub(crate) fn cost(&self, options: &Options) -> Result<Cost, String> {
        Ok(Cost {
            seconds: self.begun.elapsed().as_secs_f64(),
            machine: Machine::now().zip(self.machine).map(|(now, then)| now.since(then)),
            beside: Cpu::of(&options.beside)?.since(self.beside).total(),
            own: Cpu::of(&[std::process::id()])?.since(self.own).total(),
            proxy: Cpu::of(&options.pids)?.since(self.proxy),
        })
    }

    /// The result of the phase, `requests` of which there were to be.
    ///
    /// # Errors
    /// When a process is not there.
    pub(crate) fn line(
        &self,
        load: &Load,
        options: &Options,
        cost: Cost,
        requests: u64,
        tally: &Tally,
    ) -> Result<Value, String> {
        let memory = Memory::of(&options.pids)?;
        let dropped = account::receive_buffer_errors().zip(self.dropped);
        let (now, schedule) = (load.traffic(), load.schedule());
        let each = |time: Duration| per(time, requests);
        Ok(json!({
            "name": options.name,
            "requests": requests,
            "failures": tally.failures(),
            "late": tally.late,
            "failure_kinds": tally.kinds(),
            "rejected_and_sent_again": load.rejected - self.rejected,
            "seconds": cost.seconds,
            "requests_per_second": (tally.succeeded() as f64 / cost.seconds).round(),
            "achieved_rate": schedule.achieved_rate().map(hundredths),
            "lag_us": account::ranks(&schedule.lag),
            "proxy_cpu_us": each(cost.proxy.total()),
            "proxy_user_us": each(cost.proxy.user),
            "proxy_system_us": each(cost.proxy.system),
            "beside_cpu_us": (!options.beside.is_empty()).then(|| each(cost.beside)),
            "machine_cpu_us": cost.machine.map(each),
            "own_cpu_us": each(cost.own),
            "own_utilisation": hundredths(cost.own.as_secs_f64() / cost.seconds),
            "latency_us": tally.latencies(),
            "resumed": tally.resumed,
            "early_accepted": tally.early_accepted,
            "bytes_in": now.received - self.traffic.received,
            "bytes_out": now.sent - self.traffic.sent,
            "datagrams_in": now.datagrams_received - self.traffic.datagrams_received,
            "datagrams_out": now.datagrams_sent - self.traffic.datagrams_sent,
            "resident_kib": memory.resident,
            "peak_resident_kib": memory.peak,
            "own_datagrams_lost": load.lost() - self.lost,
            "receive_buffer_drops": dropped.map(|(now, then)| now.saturating_sub(then)),
        }))
    }
}

/// Microseconds for each of so many.
pub(crate) fn per(time: Duration, count: u64) -> f64 {
    hundredths(time.as_secs_f64() * 1e6 / count as f64)
}

/// Rounded to what there is to see.
pub(crate) fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
