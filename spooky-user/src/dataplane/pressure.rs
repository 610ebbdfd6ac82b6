//! How scarce memory is, how many connections a worker may have and whether there is an attack, as every worker sees it: three
//! numbers that the control plane writes. Imports nothing of the crate.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

/// What is given up, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// New connections are refused.
    Connections,
    /// New requests are, too.
    Requests,
    /// The newest connections are closed.
    Shedding,
}

/// The level, shared by all.
#[derive(Debug)]
pub struct Pressure {
    level: AtomicU8,
    connections_max: AtomicUsize,
    attacked: AtomicBool,
}

impl Level {
    /// All, from the least.
    pub const ALL: [Self; 4] = [Self::None, Self::Connections, Self::Requests, Self::Shedding];

    /// The word for logs and metric labels.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::Shedding => "shedding",
        }
    }
}

impl Pressure {
    /// The level now.
    #[must_use]
    pub fn level(&self) -> Level {
        let place = usize::from(self.level.load(Ordering::Relaxed));
        Level::ALL.get(place).copied().unwrap_or_default()
    }

    /// A new level.
    pub fn set(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// Connections a worker may have, of all its listeners.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.connections_max.load(Ordering::Relaxed)
    }

    /// Another limit, for connections to come.
    pub fn set_connections_max(&self, most: usize) {
        self.connections_max.store(most, Ordering::Relaxed);
    }

    /// Attack mode is on.
    #[must_use]
    pub fn is_attacked(&self) -> bool {
        self.attacked.load(Ordering::Relaxed)
    }

    /// It is, or is not any more.
    pub fn set_attacked(&self, attacked: bool) {
        self.attacked.store(attacked, Ordering::Relaxed);
    }
}

impl Default for Pressure {
    /// Nothing is scarce, there is no limit and no attack.
    fn default() -> Self {
        Self {
            level: AtomicU8::new(Level::None as u8),
            connections_max: AtomicUsize::new(usize::MAX),
            attacked: AtomicBool::new(false),
        }
    }
}
