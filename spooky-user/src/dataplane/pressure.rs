//! How scarce memory is, as every worker sees it: one octet that the control plane writes. Imports nothing of the crate.

use std::sync::atomic::{AtomicU8, Ordering};

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
#[derive(Debug, Default)]
pub struct Pressure(AtomicU8);

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
        let place = usize::from(self.0.load(Ordering::Relaxed));
        Level::ALL.get(place).copied().unwrap_or_default()
    }

    /// A new level.
    pub fn set(&self, level: Level) {
        self.0.store(level as u8, Ordering::Relaxed);
    }
}
