//! What a run cost and how it went: CPU time and memory of processes, latencies, failures by kind.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

/// Clock ticks of /proc (USER_HZ) a second; fixed in Linux's interface on every architecture that has io_uring.
const TICKS: u64 = 100;

/// CPU time since a process began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

/// Resident memory in KiB, summed over processes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// The most it ever was.
    pub(crate) peak: u64,
}

/// Why a request does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Not 200.
    Status,
    /// The body has another length than `content-length` or `--expect` says.
    Length,
    /// The answer was complete before the request's body was taken.
    Upload,
    /// RESET_STREAM.
    Reset,
    /// The connection ended under it.
    Connection,
    /// It had not ended when nothing moved any more.
    Unfinished,
}

/// The results of one phase.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    latencies_us: Vec<u32>,
    failures: [u64; Failure::ALL.len()],
}

// === impl Cpu ===

impl Cpu {
    /// Of all threads of these processes, ended threads included.
    ///
    /// # Errors
    /// When a process is not there.
    pub(crate) fn of(pids: &[u32]) -> Result<Self, String> {
        pids.iter().try_fold(Self::default(), |sum, pid| {
            let cpu = stat(&format!("/proc/{pid}/stat"))?;
            Ok(Self { user: sum.user + cpu.user, system: sum.system + cpu.system })
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }
}

/// `utime` and `stime` of proc_pid_stat(5); the name before them may contain anything, so they are counted from its end.
fn stat(file: &str) -> Result<Cpu, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let (_, fields) = text.rsplit_once(')').ok_or_else(|| format!("{file}: no name in it"))?;
    let mut times = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    match (times.next().flatten(), times.next().flatten()) {
        (Some(user), Some(system)) => {
            let duration = |ticks: u64| Duration::from_millis(ticks * 1000 / TICKS);
            Ok(Cpu { user: duration(user), system: duration(system) })
        }
        _ => Err(format!("{file}: no times in it")),
    }
}

// === impl Memory ===

impl Memory {
    /// # Errors
    /// When a process is not there.
    pub(crate) fn of(pids: &[u32]) -> Result<Self, String> {
        pids.iter().try_fold(Self::default(), |sum, pid| {
            let file = format!("/proc/{pid}/status");
            let text = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
            let field = |name: &str| {
                let line = text.lines().find(|line| line.starts_with(name));
                line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                    .ok_or_else(|| format!("{file}: no {name}"))
            };
            Ok(Self {
                resident: sum.resident + field("VmRSS:")?,
                peak: sum.peak + field("VmHWM:")?,
            })
        })
    }
}

/// Datagrams that found a full receive buffer, anywhere in this network namespace (`UdpRcvbufErrors`).
pub(crate) fn receive_buffer_errors() -> Option<u64> {
    let text = fs::read_to_string("/proc/net/snmp").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(name, _)| *name == "RcvbufErrors").and_then(|(_, value)| value.parse().ok())
}

// === impl Tally ===

impl Failure {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Status, "status"),
        (Self::Length, "length"),
        (Self::Upload, "upload"),
        (Self::Reset, "reset"),
        (Self::Connection, "connection"),
        (Self::Unfinished, "unfinished"),
    ];
}

impl Tally {
    pub(crate) fn good(&mut self, latency: Duration) {
        self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn failed(&mut self, failure: Failure, count: u64) {
        let place = Failure::ALL.iter().position(|(kind, _)| *kind == failure);
        if let Some(counter) = place.and_then(|place| self.failures.get_mut(place)) {
            *counter += count;
        }
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.iter().sum()
    }

    pub(crate) fn ended(&self) -> u64 {
        self.failures() + self.latencies_us.len() as u64
    }

    /// Kinds that happened, with their counts.
    pub(crate) fn kinds(&self) -> Value {
        let counted = Failure::ALL.iter().zip(self.failures).filter(|(_, count)| *count > 0);
        counted.map(|((_, name), count)| ((*name).to_owned(), json!(count))).collect()
    }

    /// Latencies at these ranks of 1000, in µs; `null` when no request succeeded.
    pub(crate) fn percentiles(&mut self, per_mille: &[usize]) -> Vec<Value> {
        self.latencies_us.sort_unstable();
        let last = self.latencies_us.len().saturating_sub(1);
        per_mille.iter().map(|rank| json!(self.latencies_us.get(last * rank / 1000))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_figures_can_be_read() {
        let me = [std::process::id()];
        let memory = Memory::of(&me).expect("we are there");
        assert!(memory.peak >= memory.resident / 2 && memory.resident > 0, "{memory:?}");
        let before = Cpu::of(&me).expect("we are there");
        let mut sum = 0_u64;
        while Cpu::of(&me).expect("we are there").since(before).total().is_zero() {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(Cpu::of(&[0]).is_err());
    }

    #[test]
    fn failures_are_told_apart_and_latencies_ranked() {
        let mut tally = Tally::default();
        (1..=101).rev().for_each(|it| tally.good(Duration::from_micros(it)));
        tally.failed(Failure::Reset, 2);
        tally.failed(Failure::Status, 1);
        assert_eq!((tally.failures(), tally.ended()), (3, 104));
        assert_eq!(tally.kinds(), json!({ "reset": 2, "status": 1 }));
        assert_eq!(tally.percentiles(&[0, 500, 1000]), [json!(1), json!(51), json!(101)]);
    }
}
