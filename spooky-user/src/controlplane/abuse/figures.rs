//! The loop's numbers for `/metrics`. Written at each beat, read at a scrape; nobody on the request path comes here. May import:
//! telemetry, the events' kinds.

use std::sync::{Mutex, PoisonError};

use crate::dataplane::abuse::Event;
use crate::telemetry::metrics::{Samples, Source};

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Events reported, by [`Event::index`].
    pub events: [u64; 6],
    /// Reports that a worker could not put anywhere.
    pub lost: u64,
    /// Reports of trusted addresses.
    pub trusted: u64,
    /// Prefixes with a score.
    pub tracked: usize,
    /// Prefixes under a sentence, in a dry run too.
    pub sentenced: usize,
    /// Prefixes forgotten for want of room.
    pub evicted: u64,
    /// Events that would have brought one sentence too many.
    pub capped: u64,
    /// Sentences of dry runs.
    pub dry_run: u64,
    /// Sentences to be carried out.
    pub blocked: u64,
    /// Sentences that could not be.
    pub refused: u64,
}

/// Figures as they were at the last beat.
#[derive(Debug, Default)]
pub struct Shown(Mutex<Figures>);

impl Shown {
    /// They are these now.
    pub fn set(&self, figures: Figures) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }
}

impl Source for Shown {
    fn collect(&self, samples: &mut Samples) {
        let figures = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (event, count) in Event::ALL.into_iter().zip(figures.events) {
            samples.counter(
                "spooky_abuse_events_total",
                "Things that clients did and should not have, by kind; of validated addresses alone.",
                &[("event", event.label())],
                count,
            );
        }
        let counters = [
            (
                "spooky_abuse_reports_lost_total",
                "Such events that a worker's ring had no room for.",
                figures.lost,
            ),
            (
                "spooky_abuse_trusted_total",
                "Such events of trusted addresses, which raise no score.",
                figures.trusted,
            ),
            (
                "spooky_abuse_evicted_total",
                "Prefixes whose score was forgotten for want of room.",
                figures.evicted,
            ),
            (
                "spooky_abuse_capped_total",
                "Events that would have had a prefix blocked, but for abuse.max_entries.",
                figures.capped,
            ),
        ];
        for (name, help, value) in counters {
            samples.counter(name, help, &[], value);
        }
        let results = [
            ("dry_run", figures.dry_run),
            ("blocked", figures.blocked),
            ("refused", figures.refused),
        ];
        for (result, value) in results {
            samples.counter(
                "spooky_abuse_sentences_total",
                "Prefixes whose score reached abuse.threshold, by what came of it.",
                &[("result", result)],
                value,
            );
        }
        let gauges = [
            ("spooky_abuse_tracked", "Prefixes that have a score.", figures.tracked),
            (
                "spooky_abuse_sentenced",
                "Prefixes blocked for abuse now, or that would be if it were no dry run.",
                figures.sentenced,
            ),
        ];
        for (name, help, value) in gauges {
            samples.gauge(name, help, &[], value as f64);
        }
    }
}
