//! Attack mode: whether it is on, and why. A state machine over measured load, the configuration and what was ordered by hand;
//! `carry_out` measures, and tells kernel and workers. May import: telemetry, spooky-common's paces.
//!
//! ```text
//!  off ──either load at its threshold──▶ on ──both below half of it for leave_after──▶ off      (auto)
//! ```
//!
//! Loads are looked at with each beat, rates over the last `WINDOW`: a large flood fills that in a few milliseconds, and each of
//! those costs the connections there are. Half of a threshold is far enough from it that no load makes it go to and fro.

mod carry_out;
mod figures;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use spooky_common::pace::Pace;

pub use self::carry_out::beat;
pub use self::figures::Shown;

/// What a rate is measured over.
const WINDOW: Duration = Duration::from_millis(500);
/// Looks that are remembered at most: more than there are beats in a window.
const LOOKS: usize = 16;

/// When it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By load.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What the operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// See [`Mode`].
    pub mode: Mode,
    /// Handshakes under way that are an attack.
    pub half_open: u64,
    /// Packets a second that were nobody's that are one.
    pub drops_per_second: u64,
    /// How long there has to be quiet.
    pub leave_after: Duration,
    /// Of packets that open connections without a token, for each prefix.
    pub strangers: Pace,
    /// Of all prefixes together.
    pub strangers_all: Pace,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Handshakes under way now.
    pub half_open: u64,
    /// Packets that were nobody's, since the start.
    pub drops: u64,
}

/// Why it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Handshakes under way.
    HalfOpen,
    /// Packets that were nobody's.
    Drops,
    /// The configuration says so.
    Configuration,
    /// Somebody has said so.
    Command,
}

/// That it has become another. [`fmt::Display`] gives the line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is on now.
    Entered(Cause, Report),
    /// It is off now, after so long.
    Left(Duration),
}

/// How things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Why it is on, and since when; `None`: it is off.
    pub on: Option<(Cause, Duration)>,
    /// When it is on.
    pub mode: Mode,
    /// Whether that was ordered by hand.
    pub by_hand: bool,
    /// Handshakes under way.
    pub half_open: u64,
    /// Packets a second that were nobody's.
    pub drops_per_second: u64,
    /// When it ends if things stay so: by load, and while both loads are low.
    pub ends_in: Option<Duration>,
}

/// The state.
#[derive(Debug)]
pub struct Attack {
    settings: Settings,
    /// When this began, by both clocks.
    began: (Instant, SystemTime),
    /// By hand.
    ordered: Option<Mode>,
    on: Option<(Cause, Instant)>,
    /// The drops of the last looks and when those were: the first is a window ago, if there was one then.
    looks: VecDeque<(Instant, u64)>,
    half_open: u64,
    drops_per_second: u64,
    /// Since when both loads are low.
    calm: Option<Instant>,
    shown: Arc<Shown>,
}

// === impl Attack ===

impl Attack {
    /// It is off, until the first look.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            began: (Instant::now(), SystemTime::now()),
            ordered: None,
            on: None,
            looks: VecDeque::with_capacity(LOOKS),
            half_open: 0,
            drops_per_second: 0,
            calm: None,
            shown: Arc::default(),
        }
    }

    /// Another configuration. What was ordered by hand stays, unless the mode is another one now.
    pub fn configure(&mut self, settings: Settings) {
        if settings.mode != self.settings.mode {
            self.ordered = None;
        }
        self.settings = settings;
    }

    /// By hand, until the next start or a reload that changes `ebpf.attack_mode.mode`; in force with the next look.
    pub fn order(&mut self, mode: Mode) {
        self.ordered = Some(mode);
    }

    /// Measures, and decides.
    pub fn look(&mut self, load: Load, now: Instant) -> Option<Change> {
        self.drops_per_second = self.rate(load.drops, now);
        self.half_open = load.half_open;
        let change = match self.wanted(now) {
            Some(cause) => self.enter(cause, now),
            None => self.on.take().map(|(_, since)| {
                self.calm = None;
                Change::Left(now.saturating_duration_since(since))
            }),
        };
        self.shown.set(&self.report(now), change.as_ref());
        change
    }

    /// What was dropped in the last window, by the second. A window that is not over yet counts as a whole one.
    fn rate(&mut self, drops: u64, now: Instant) -> u64 {
        let ago = |at: Instant| now.saturating_duration_since(at);
        while self.looks.get(1).is_some_and(|(at, _)| ago(*at) >= WINDOW)
            || self.looks.len() >= LOOKS
        {
            self.looks.pop_front();
        }
        self.looks.push_back((now, drops));
        let Some((at, before)) = self.looks.front() else { return 0 };
        let millis = ago(*at).max(WINDOW).as_millis();
        let rate = u128::from(drops.saturating_sub(*before)) * 1000 / millis;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// Why it shall be on.
    fn wanted(&mut self, now: Instant) -> Option<Cause> {
        match self.mode() {
            Mode::Off => None,
            Mode::On if self.ordered.is_some() => Some(Cause::Command),
            Mode::On => Some(Cause::Configuration),
            Mode::Auto => self.by_load(now),
        }
    }

    fn by_load(&mut self, now: Instant) -> Option<Cause> {
        let loads = [
            (Cause::HalfOpen, self.half_open, self.settings.half_open),
            (Cause::Drops, self.drops_per_second, self.settings.drops_per_second),
        ];
        if let Some((cause, ..)) = loads.iter().find(|(_, load, most)| load >= most) {
            self.calm = None;
            return Some(*cause);
        }
        let (cause, _) = self.on?;
        if loads.iter().any(|(_, load, most)| *load > most / 2) {
            self.calm = None;
            return Some(cause);
        }
        let since = *self.calm.get_or_insert(now);
        (now.saturating_duration_since(since) < self.settings.leave_after).then_some(cause)
    }

    /// What turned it on stays its cause for as long as it is on by load; by word, the word is.
    fn enter(&mut self, cause: Cause, now: Instant) -> Option<Change> {
        match &mut self.on {
            Some((of, _)) => {
                if !(of.is_load() && cause.is_load()) {
                    *of = cause;
                }
                None
            }
            None => {
                self.on = Some((cause, now));
                Some(Change::Entered(cause, self.report(now)))
            }
        }
    }

    fn mode(&self) -> Mode {
        self.ordered.unwrap_or(self.settings.mode)
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// What a token minted before, in Unix milliseconds, is too old for at every listener; `longest` is how long one lives. In
    /// whole seconds, so that the map is not written at each beat.
    ///
    /// A listener's clock goes on from where the wall clock was when it was opened, and that may have been set since: the
    /// earlier of both counts. XDP then lets pass what the listener looks at again; the other way round every token would be
    /// too old.
    #[must_use]
    pub fn tokens_since_ms(&self, longest: Duration, now: Instant, wall: SystemTime) -> u64 {
        let (instant, began) = self.began;
        let since = |wall: SystemTime| wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let of_old = since(began) + now.saturating_duration_since(instant);
        of_old.min(since(wall)).saturating_sub(longest).as_secs().saturating_mul(1000)
    }

    /// What the operator says.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How things are.
    #[must_use]
    pub fn report(&self, now: Instant) -> Report {
        let since = |at: Instant| now.saturating_duration_since(at);
        let calm = self.calm.filter(|_| self.on.is_some() && self.mode() == Mode::Auto);
        Report {
            on: self.on.map(|(cause, at)| (cause, since(at))),
            mode: self.mode(),
            by_hand: self.ordered.is_some(),
            half_open: self.half_open,
            drops_per_second: self.drops_per_second,
            ends_in: calm.map(|at| self.settings.leave_after.saturating_sub(since(at))),
        }
    }

    /// For `/metrics`; as of the last look.
    #[must_use]
    pub fn source(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }
}

// === impl Mode ===

impl Mode {
    /// The word in the configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

// === impl Cause ===

impl Cause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::HalfOpen, Self::Drops, Self::Configuration, Self::Command];

    /// The word for logs and metric labels.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::HalfOpen => "half_open",
            Self::Drops => "drops",
            Self::Configuration => "configuration",
            Self::Command => "command",
        }
    }

    const fn is_load(self) -> bool {
        matches!(self, Self::HalfOpen | Self::Drops)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entered(cause, report) => write!(
                f,
                "attack mode is on ({}): {} handshakes under way, {} packets a second were nobody's; new clients \
                 have to prove their address",
                cause.label(),
                report.half_open,
                report.drops_per_second,
            ),
            Self::Left(after) => write!(f, "attack mode is off again, after {} s", after.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests;
