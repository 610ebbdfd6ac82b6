//! Attack mode's numbers for `/metrics`. Written at each look, read at a scrape; nobody on the request path comes here. May
//! import: telemetry.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Cause, Change, Report};
use crate::telemetry::metrics::{Samples, Source};

/// Numbers as they were at the last look. Relaxed: each stands for itself.
#[derive(Debug, Default)]
pub struct Shown {
    on: AtomicBool,
    entered: [AtomicU64; Cause::ALL.len()],
    half_open: AtomicU64,
    drops_per_second: AtomicU64,
}

impl Shown {
    pub(super) fn set(&self, report: &Report, change: Option<&Change>) {
        self.on.store(report.on.is_some(), Ordering::Relaxed);
        self.half_open.store(report.half_open, Ordering::Relaxed);
        self.drops_per_second.store(report.drops_per_second, Ordering::Relaxed);
        if let Some(Change::Entered(cause, _)) = change {
            for (of, count) in Cause::ALL.iter().zip(&self.entered) {
                count.fetch_add(u64::from(of == cause), Ordering::Relaxed);
            }
        }
    }
}

impl Source for Shown {
    fn collect(&self, samples: &mut Samples) {
        samples.gauge(
            "spooky_attack_mode",
            "1 while attack mode is on.",
            &[],
            f64::from(u8::from(self.on.load(Ordering::Relaxed))),
        );
        for (cause, count) in Cause::ALL.iter().zip(&self.entered) {
            samples.counter(
                "spooky_attack_mode_entered_total",
                "Times attack mode was turned on, by what did so.",
                &[("cause", cause.label())],
                count.load(Ordering::Relaxed),
            );
        }
        let loads = [("half_open", &self.half_open), ("drops_per_second", &self.drops_per_second)];
        for (load, value) in loads {
            samples.gauge(
                "spooky_attack_load",
                "What turns attack mode on, as it was last measured.",
                &[("load", load)],
                value.load(Ordering::Relaxed) as f64,
            );
        }
    }
}
