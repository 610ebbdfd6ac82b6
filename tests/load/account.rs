//! What a run cost and how it went: CPU time of processes and of the machine, memory, latencies, failures by kind.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::histogram::Histogram;

/// An answer that takes longer is late: most who wait for a page have gone by then.
const LATE: Duration = Duration::from_secs(1);
/// Clock ticks of /proc (USER_HZ) a second; fixed in Linux's interface on every architecture that has io_uring.
const TICKS: u64 = 100;

/// CPU time since a process began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// Both together, by a clock that is finer than the ticks the others are counted in.
    total: Duration,
}

/// What all cores of the machine did since it began, whoever for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    at: Instant,
    cores: u32,
    /// Of all cores: nothing to do, waiting for a disk, or taken away by the hypervisor.
    idle: Duration,
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
    /// Another status than `--status` says.
    Status,
    /// The body has another length than `content-length` or `--expect` says.
    Length,
    /// The body has another hash than `--sha256` says.
    Hash,
    /// The answer was complete before the request's body was taken.
    Upload,
    /// RESET_STREAM.
    Reset,
    /// The connection of a request that was to resume did not.
    NotResumed,
    /// No connection came about for it.
    Handshake,
    /// The connection ended under it.
    Connection,
    /// A connection that was held has ended.
    Held,
    /// It had not ended when nothing moved any more.
    Unfinished,
}

/// The results of one phase.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    latencies: Histogram,
    failures: [u64; Failure::ALL.len()],
    /// Requests on connections that resumed.
    pub(crate) resumed: u64,
    /// Requests on connections whose 0-RTT data was taken.
    pub(crate) early_accepted: u64,
    /// Requests that succeeded, but [`LATE`].
    pub(crate) late: u64,
    /// Octets of bodies, and answers: as long as this grows, the run is alive.
    pub(crate) moved: u64,
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
            Ok(Self {
                user: sum.user + cpu.user,
                system: sum.system + cpu.system,
                total: sum.total + scheduled(*pid).unwrap_or_default().max(cpu.total),
            })
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            total: self.total.saturating_sub(before.total),
        }
    }

    pub(crate) fn total(self) -> Duration {
        self.total
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
            let (user, system) = (duration(user), duration(system));
            Ok(Cpu { user, system, total: user + system })
        }
        _ => Err(format!("{file}: no times in it")),
    }
}

/// Nanoseconds its threads ran, from the first field of schedstat; `None` when the kernel does not keep it. Threads that
/// have ended are not in it, so it is only good where it is not below what `stat` says.
fn scheduled(pid: u32) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads.flatten().try_fold(Duration::ZERO, |sum, thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let nanos = text.split_whitespace().next()?.parse().ok()?;
        Some(sum + Duration::from_nanos(nanos))
    })
}

// === impl Machine ===

impl Machine {
    /// `None` where /proc/stat does not say.
    pub(crate) fn now() -> Option<Self> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        Self::parse(&text, Instant::now())
    }

    fn parse(text: &str, at: Instant) -> Option<Self> {
        let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = all.split_whitespace().map_while(|it| it.parse().ok()).collect();
        // proc_stat(5): idle, iowait, steal.
        let idle = [3, 4, 7].into_iter().filter_map(|field| ticks.get(field)).sum::<u64>();
        let is_core = |line: &&str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let cores = u32::try_from(text.lines().filter(is_core).count()).ok()?;
        Some(Self { at, cores, idle: Duration::from_millis(idle * 1000 / TICKS) })
    }

    /// What was done since `before`: all time of all cores but what they were idle. Time of threads, interrupts and the
    /// kernel's own work alike, to some ten milliseconds.
    pub(crate) fn since(self, before: Self) -> Duration {
        let whole = self.at.saturating_duration_since(before.at) * self.cores;
        whole.saturating_sub(self.idle.saturating_sub(before.idle))
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
    const ALL: [(Self, &'static str); 10] = [
        (Self::Status, "status"),
        (Self::Length, "length"),
        (Self::Hash, "hash"),
        (Self::Upload, "upload"),
        (Self::Reset, "reset"),
        (Self::NotResumed, "not_resumed"),
        (Self::Handshake, "handshake"),
        (Self::Connection, "connection"),
        (Self::Held, "held"),
        (Self::Unfinished, "unfinished"),
    ];
}

impl Tally {
    pub(crate) fn good(&mut self, latency: Duration) {
        self.latencies.add(latency);
        self.late += u64::from(latency > LATE);
        self.moved += 1;
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
        self.failures() + self.latencies.total()
    }

    /// Requests that succeeded.
    pub(crate) fn succeeded(&self) -> u64 {
        self.latencies.total()
    }

    /// Kinds that happened, with their counts.
    pub(crate) fn kinds(&self) -> Value {
        let counted = Failure::ALL.iter().zip(self.failures).filter(|(_, count)| *count > 0);
        counted.map(|((_, name), count)| ((*name).to_owned(), json!(count))).collect()
    }

    /// Latencies in µs; each is `null` when no request succeeded.
    pub(crate) fn latencies(&self) -> Value {
        ranks(&self.latencies)
    }
}

/// The usual ranks of a histogram, in µs to a tenth.
pub(crate) fn ranks(histogram: &Histogram) -> Value {
    let micros = |time: Option<Duration>| time.map(|time| (time.as_nanos() / 100) as f64 / 10.0);
    let at = |per_mille| micros(histogram.at(per_mille));
    json!({ "p50": at(500), "p90": at(900), "p99": at(990), "p999": at(999), "max": micros(histogram.max()) })
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
    fn what_a_machine_did_is_what_it_was_not_idle() {
        let text = |idle| format!("cpu  9 9 9 {idle} 20 0 5 30 0 0\ncpu0 1 2\ncpu1 1 2\nintr 5\n");
        let begun = Instant::now();
        let before = Machine::parse(&text(100), begun).expect("all fields");
        let after = Machine::parse(&text(250), begun + Duration::from_secs(1)).expect("all fields");
        assert_eq!(after.since(before), Duration::from_millis(500));
        assert!(Machine::parse("cpu0 1 2", begun).is_none() && Machine::now().is_some());
    }

    #[test]
    fn failures_are_told_apart_and_latencies_ranked() {
        let mut tally = Tally::default();
        assert_eq!(tally.latencies()["p50"], Value::Null);
        (1..=100).rev().for_each(|it| tally.good(Duration::from_micros(it)));
        tally.failed(Failure::Reset, 2);
        tally.failed(Failure::Status, 1);
        assert_eq!((tally.failures(), tally.succeeded(), tally.ended()), (3, 100, 103));
        assert_eq!(tally.kinds(), json!({ "reset": 2, "status": 1 }));
        assert_eq!(tally.latencies()["max"], json!(100.0));
        let median = tally.latencies()["p50"].as_f64().unwrap_or(0.0);
        assert!((50.0..50.1).contains(&median), "{median}");
    }
}
