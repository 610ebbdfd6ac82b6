//! The loop from HTTP to the kernel: what workers report of clients becomes scores of prefixes, and a score that is too high a
//! sentence, which `carry_out` puts on the deny list. May import: lists, the data plane's reports and access list, telemetry.
//!
//! A trusted address has no score, and a prefix that shares an address with a trusted network is never sentenced.

mod carry_out;
mod figures;
mod scores;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

pub use self::carry_out::{carry_out, let_go};
pub use self::figures::{Figures, Shown};
use self::scores::Scores;
pub use self::scores::{Rules, Sentence};
use crate::dataplane::abuse::{Event, Reports};
use crate::dataplane::filter::ip_access::AccessList;

/// How often prefixes of which nothing is left are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing; nothing is reported either.
    Off,
    /// Sentences are logged and counted.
    DryRun,
    /// And carried out.
    Block,
}

/// What the operator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// See [`Mode`].
    pub mode: Mode,
    /// How events are weighed.
    pub rules: Rules,
    /// Bits of an IPv4 prefix that has one score, 8..=32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 prefix that has one score, 16..=128.
    pub ipv6_prefix: u8,
    /// Who has none, besides [`crate::controlplane::config::Access::allow`].
    pub trusted: Vec<IpNet>,
}

/// What became of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its prefix is blocked.
    Blocked,
    /// It would be.
    DryRun,
    /// It could not be.
    Refused,
}

/// Scores and what they are fed from.
#[derive(Debug)]
pub struct Loop {
    settings: Settings,
    /// Trusted and allowed.
    trusted: Vec<IpNet>,
    is_trusted: AccessList,
    reports: Vec<Arc<Reports>>,
    scores: Scores,
    swept: Option<Instant>,
    figures: Figures,
    shown: Arc<Shown>,
}

// === impl Loop ===

impl Loop {
    /// One ring for each worker.
    #[must_use]
    pub fn new(settings: Settings, allowed: &[IpNet], reports: Vec<Arc<Reports>>) -> Self {
        let mut this = Self {
            scores: Scores::new(settings.rules.clone()),
            trusted: Vec::new(),
            is_trusted: AccessList::new(true, &[], &[]),
            settings,
            reports,
            swept: None,
            figures: Figures::default(),
            shown: Arc::default(),
        };
        this.trust(allowed);
        this
    }

    /// New settings. Scores stay unless they are other prefixes' now, or sentences of a dry run were not meant. Returns the
    /// prefixes whose sentence is over by it: those of another mode, and those that are trusted now.
    pub fn configure(&mut self, settings: Settings, allowed: &[IpNet]) -> Vec<IpNet> {
        let lengths = |settings: &Settings| (settings.ipv4_prefix, settings.ipv6_prefix);
        let other_mode = settings.mode != self.settings.mode;
        let other_lengths = lengths(&settings) != lengths(&self.settings);
        self.scores.set_rules(settings.rules.clone());
        self.settings = settings;
        self.trust(allowed);
        let mut free = self.scores.under_sentence();
        free.retain(|prefix| other_mode || self.touches_trusted(prefix));
        for prefix in &free {
            self.scores.forget(prefix);
        }
        if other_mode || other_lengths {
            self.scores.clear_free();
        }
        free
    }

    fn touches_trusted(&self, prefix: &IpNet) -> bool {
        self.trusted.iter().any(|trusted| trusted.contains(prefix) || prefix.contains(trusted))
    }

    fn trust(&mut self, allowed: &[IpNet]) {
        self.trusted = self.settings.trusted.iter().chain(allowed).copied().collect();
        self.is_trusted = AccessList::new(true, &self.trusted, &[]);
        for reports in &self.reports {
            reports.listen(self.settings.mode != Mode::Off);
        }
    }

    /// Takes what was reported since the last beat; who is to be blocked for it.
    pub fn beat(&mut self, now: Instant) -> Vec<Sentence> {
        self.scores.release(now);
        if self.swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP) {
            self.swept = Some(now);
            self.scores.sweep(now);
        }
        let mut sentences = Vec::new();
        for place in 0..self.reports.len() {
            let Some(reports) = self.reports.get(place).map(Arc::clone) else { continue };
            // A worker that reports faster than this reads keeps nobody from the beat.
            for _ in 0..reports.capacity() {
                let Some(report) = reports.next() else { break };
                sentences.extend(self.judge(report.client, report.event, now));
            }
        }
        self.shown.set(self.figures());
        sentences
    }

    fn judge(&mut self, client: IpAddr, event: Event, now: Instant) -> Option<Sentence> {
        if self.settings.mode == Mode::Off {
            return None;
        }
        if let Some(count) = self.figures.events.get_mut(event.index()) {
            *count += 1;
        }
        if self.is_trusted.permits(client) {
            self.figures.trusted += 1;
            return None;
        }
        let length = match client {
            IpAddr::V4(_) => self.settings.ipv4_prefix,
            IpAddr::V6(_) => self.settings.ipv6_prefix,
        };
        let prefix = IpNet::new(client, length).ok()?.trunc();
        let sentence = self.scores.record(prefix, event, now)?;
        if self.touches_trusted(&prefix) {
            self.figures.trusted += 1;
            self.scores.undo(&prefix, now);
            return None;
        }
        Some(sentence)
    }

    /// What became of a sentence. One that could not be carried out is as if there had been none.
    pub fn settle(&mut self, sentence: &Sentence, fate: Fate, now: Instant) {
        match fate {
            Fate::Blocked => self.figures.blocked += 1,
            Fate::DryRun => self.figures.dry_run += 1,
            Fate::Refused => {
                self.figures.refused += 1;
                self.scores.undo(&sentence.prefix, now);
            }
        }
        self.shown.set(self.figures());
    }

    /// Sentences are only logged.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.settings.mode != Mode::Block
    }

    /// For `/metrics`; as of the last beat.
    #[must_use]
    pub fn source(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    /// What has happened so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            lost: self.reports.iter().map(|reports| reports.lost()).sum(),
            tracked: self.scores.tracked(),
            sentenced: self.scores.sentenced(),
            evicted: self.scores.evicted(),
            capped: self.scores.capped(),
            ..self.figures
        }
    }
}

#[cfg(test)]
mod tests;
