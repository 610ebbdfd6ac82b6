//! The process and the build as metrics, under the names that Prometheus gives them everywhere. Imports sys and telemetry.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys::process;
use crate::telemetry::metrics::{Samples, Source};

/// `process_*` and `spooky_build_info`. Made at start, so that it knows when that was.
#[derive(Debug)]
pub struct ProcessSource {
    started: SystemTime,
}

// === impl ProcessSource ===

impl ProcessSource {
    /// The process is taken to have started now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: SystemTime::now() }
    }
}

impl Default for ProcessSource {
    fn default() -> Self {
        Self::new()
    }
}

impl Source for ProcessSource {
    fn collect(&self, samples: &mut Samples) {
        samples.gauge(
            "spooky_build_info",
            "Always 1; the label says which version runs.",
            &[("version", env!("CARGO_PKG_VERSION"))],
            1.0,
        );
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        samples.gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            &[],
            started.as_secs_f64(),
        );
        let usage = match process::usage() {
            Ok(usage) => usage,
            Err(error) => {
                tracing::debug!(%error, "the process cannot be measured");
                return;
            }
        };
        samples.counter_f64(
            "process_cpu_seconds_total",
            "CPU time of all threads, user and system.",
            &[],
            usage.cpu.as_secs_f64(),
        );
        let gauges = [
            ("process_resident_memory_bytes", "Memory in RAM.", Some(usage.resident_bytes)),
            (
                "process_resident_memory_max_bytes",
                "The most memory in RAM so far.",
                Some(usage.resident_bytes_max),
            ),
            ("process_virtual_memory_bytes", "Address space.", Some(usage.virtual_bytes)),
            ("process_threads", "Threads.", Some(usage.threads)),
            ("process_open_fds", "Open file descriptors.", Some(usage.fds)),
            ("process_max_fds", "Limit on open file descriptors, if any.", usage.fds_max),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                samples.gauge(name, help, &[], value as f64);
            }
        }
    }
}
