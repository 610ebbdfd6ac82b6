//! Numbers of the lists, for `/metrics`. Written by the control plane's thread alone. May import: telemetry, `table`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::table::{List, Origin, Refusal};
use crate::telemetry::metrics::{Histogram, Samples, Source};

const MS: u64 = 1_000_000;
/// Of an update: the pass figure is 10 ms.
const UPDATE_BOUNDS: [u64; 10] =
    [MS / 20, MS / 10, MS / 4, MS / 2, MS, 2 * MS, 5 * MS, 10 * MS, 50 * MS, 1000 * MS];

/// All of them. Relaxed: each number stands for itself.
#[derive(Debug)]
pub struct ListFigures {
    entries: [[AtomicU64; Origin::ALL.len()]; 2],
    dry_run: AtomicU64,
    refused: [AtomicU64; Refusal::REASONS.len()],
    expired: AtomicU64,
    missing: AtomicU64,
    kernel_refused: AtomicU64,
    file_errors: AtomicU64,
    state_errors: AtomicU64,
    update: Histogram,
}

impl Default for ListFigures {
    fn default() -> Self {
        Self {
            entries: Default::default(),
            dry_run: AtomicU64::new(0),
            refused: Default::default(),
            expired: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            kernel_refused: AtomicU64::new(0),
            file_errors: AtomicU64::new(0),
            state_errors: AtomicU64::new(0),
            update: Histogram::new(&UPDATE_BOUNDS),
        }
    }
}

impl ListFigures {
    pub(super) fn set_entries(&self, list: List, origin: Origin, count: usize) {
        let row = self.entries.get(list as usize);
        if let Some(slot) = row.and_then(|row| row.get(origin as usize)) {
            slot.store(count as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn set_dry_run(&self, count: usize) {
        self.dry_run.store(count as u64, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        let place = Refusal::REASONS.iter().position(|reason| *reason == refusal.word());
        if let Some(slot) = place.and_then(|place| self.refused.get(place)) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn expired(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }

    /// Entries that the kernel has no room for; counts those that are more than before.
    pub(super) fn set_missing(&self, count: usize) {
        let count = count as u64;
        let before = self.missing.swap(count, Ordering::Relaxed);
        self.kernel_refused.fetch_add(count.saturating_sub(before), Ordering::Relaxed);
    }

    pub(super) fn file_error(&self) {
        self.file_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn state_error(&self) {
        self.state_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn updated(&self, took: Duration) {
        self.update.observe(took);
    }
}

impl Source for ListFigures {
    fn collect(&self, samples: &mut Samples) {
        for list in List::ALL {
            for origin in Origin::ALL {
                let count = self.entries.get(list as usize).and_then(|it| it.get(origin as usize));
                samples.gauge(
                    "spooky_access_entries",
                    "Entries of the access lists by list and origin, dry runs included.",
                    &[("list", list.word()), ("origin", origin.word())],
                    count.map_or(0, |count| count.load(Ordering::Relaxed)) as f64,
                );
            }
        }
        for (reason, count) in Refusal::REASONS.iter().zip(&self.refused) {
            samples.counter(
                "spooky_access_refused_total",
                "Dynamic entries that were not taken, or not removed, by reason.",
                &[("reason", reason)],
                count.load(Ordering::Relaxed),
            );
        }
        samples.counter(
            "spooky_access_refused_total",
            "Dynamic entries that were not taken, or not removed, by reason.",
            &[("reason", "kernel_full")],
            self.kernel_refused.load(Ordering::Relaxed),
        );
        let gauges = [
            (
                "spooky_access_dry_run_entries",
                "Dynamic entries that are not enforced.",
                &self.dry_run,
            ),
            (
                "spooky_access_kernel_missing",
                "Entries that the kernel's lists have no room for; spooky itself enforces them.",
                &self.missing,
            ),
        ];
        for (name, help, value) in gauges {
            samples.gauge(name, help, &[], value.load(Ordering::Relaxed) as f64);
        }
        let counters = [
            ("spooky_access_expired_total", "Dynamic entries whose time was over.", &self.expired),
            (
                "spooky_access_file_errors_total",
                "Times a list file had changed and could not be used; the old entries stay.",
                &self.file_errors,
            ),
            (
                "spooky_access_state_errors_total",
                "Times access.state_file could not be read or written.",
                &self.state_errors,
            ),
        ];
        for (name, help, value) in counters {
            samples.counter(name, help, &[], value.load(Ordering::Relaxed));
        }
        samples.histogram(
            "spooky_access_update_seconds",
            "From an order on the control socket to its effect in spooky and in the kernel.",
            &[],
            &[&self.update],
        );
    }
}
