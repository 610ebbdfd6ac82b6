//! Watches the process's memory against its limit, and tells the workers what to give up: new connections first, then new
//! requests, then the newest connections. Tells them, too, how many connections there may be. May import: config's checked types, sys, the data plane's pressure, figures.

use std::sync::Arc;

use super::config::Overload;
use super::figures::Figures;
use crate::dataplane::pressure::{Level, Pressure};
use crate::sys::memory;

/// How far below a threshold memory has to fall before what it stopped goes on, in percent of the limit.
const HYSTERESIS: u64 = 2;

/// The watch.
#[derive(Debug)]
pub struct Watch {
    settings: Overload,
    /// How many share the connections.
    workers: usize,
    /// Of the cgroup, read when the settings were.
    limit: Option<u64>,
    pressure: Arc<Pressure>,
    figures: Arc<Figures>,
    level: Level,
}

impl Watch {
    /// Nothing is scarce yet.
    #[must_use]
    pub fn new(
        settings: Overload,
        workers: usize,
        pressure: Arc<Pressure>,
        figures: Arc<Figures>,
    ) -> Self {
        let level = Level::None;
        let mut watch = Self { settings, workers, limit: None, pressure, figures, level };
        watch.set(settings);
        watch
    }

    /// New settings. The cgroup is asked again: its limit may have changed, too.
    pub fn set(&mut self, settings: Overload) {
        self.settings = settings;
        self.limit = settings.memory.or_else(memory::cgroup_limit);
        self.figures.set_memory_limit(self.limit);
        let share = settings.max_connections.div_ceil(self.workers.max(1));
        self.pressure.set_connections_max(share);
    }

    /// Looks, and tells.
    pub fn beat(&mut self) {
        let level = match (self.limit, memory::resident()) {
            (Some(limit), Ok(used)) => level(&self.settings, used, limit, self.level),
            _ => Level::None,
        };
        if level == self.level {
            return;
        }
        let used = memory::resident().unwrap_or(0) >> 20;
        let limit = self.limit.unwrap_or(0) >> 20;
        if level > self.level {
            tracing::warn!(stops = level.label(), "memory is scarce: {used} of {limit} MiB");
        } else {
            tracing::info!(stops = level.label(), "memory is less scarce: {used} of {limit} MiB");
        }
        self.level = level;
        self.pressure.set(level);
        self.figures.set_pressure(level);
    }
}

/// The level for so much memory, given the one before.
fn level(settings: &Overload, used: u64, limit: u64, before: Level) -> Level {
    let thresholds = [
        (Level::Shedding, settings.shed_percent),
        (Level::Requests, settings.stop_requests_percent),
        (Level::Connections, settings.stop_connections_percent),
    ];
    for (level, percent) in thresholds {
        let percent = u64::from(percent);
        let percent = if before >= level { percent.saturating_sub(HYSTERESIS) } else { percent };
        if used.saturating_mul(100) >= limit.saturating_mul(percent) {
            return level;
        }
    }
    Level::None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Overload = Overload {
        max_connections: 50_000,
        memory: None,
        stop_connections_percent: 90,
        stop_requests_percent: 95,
        shed_percent: 98,
    };

    #[test]
    fn more_is_given_up_the_scarcer_memory_is() {
        let at = |used| level(&SETTINGS, used, 1000, Level::None);
        assert_eq!(
            [0, 899, 900, 950, 979, 980, 5000].map(at),
            [
                Level::None,
                Level::None,
                Level::Connections,
                Level::Requests,
                Level::Requests,
                Level::Shedding,
                Level::Shedding
            ]
        );
    }

    #[test]
    fn each_worker_has_an_equal_share_of_all_connections() {
        let (pressure, figures) = (Arc::new(Pressure::default()), Arc::new(Figures::new(3)));
        let mut watch = Watch::new(SETTINGS, 3, Arc::clone(&pressure), figures);
        assert_eq!(pressure.connections_max(), 16_667);
        watch.set(Overload { max_connections: 2, ..SETTINGS });
        assert_eq!(pressure.connections_max(), 1);
    }

    #[test]
    fn it_comes_back_a_little_later() {
        assert_eq!(level(&SETTINGS, 970, 1000, Level::Shedding), Level::Shedding);
        assert_eq!(level(&SETTINGS, 959, 1000, Level::Shedding), Level::Requests);
        assert_eq!(level(&SETTINGS, 890, 1000, Level::Connections), Level::Connections);
        assert_eq!(level(&SETTINGS, 879, 1000, Level::Connections), Level::None);
        assert_eq!(level(&SETTINGS, 890, 1000, Level::None), Level::None);
    }
}
