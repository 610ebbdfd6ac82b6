//! Room of a worker: how many connections it may have, what is given up when memory is scarce, and what is given back when clients
//! have gone.

use std::time::{Duration, Instant};

use super::turn::Worker;
use crate::dataplane::downstream::h3::code;
use crate::dataplane::pressure::Level;
use crate::sys::memory;

/// Memory is measured ten times a second; what was closed has to show first.
const SHED_EVERY: Duration = Duration::from_millis(200);
/// Memory is given back this often at most.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(1);

/// When memory was given back, and the most connections there were since.
#[derive(Debug)]
pub(super) struct GivenBack {
    at: Instant,
    most: usize,
}

impl GivenBack {
    pub(super) fn new(now: Instant) -> Self {
        Self { at: now, most: 0 }
    }
}

impl Worker {
    /// Learns how many connections there may be and whether there is an attack, and does what the want of memory asks for: refuses new connections, and closes a
    /// twentieth of what there is, the newest first, as often as memory is measured.
    pub(super) fn relieve(&mut self, now: Instant) {
        self.give_back(now);
        let level = self.pressure.level();
        self.endpoint.set_scarce(level >= Level::Connections);
        self.endpoint.set_attacked(self.pressure.is_attacked());
        self.endpoint.set_connections_max(self.pressure.connections_max());
        let rested = |at: Instant| now.saturating_duration_since(at) >= SHED_EVERY;
        if level < Level::Shedding || !self.shed_at.is_none_or(rested) {
            return;
        }
        self.shed_at = Some(now);
        let newest = self.endpoint.newest(self.endpoint.len().div_ceil(20));
        self.metrics.connections_shed.add(newest.len() as u64);
        for key in newest {
            self.cut_one(key, code::EXCESSIVE_LOAD);
        }
    }

    /// When half of the connections have gone: those to come will hardly need all that they held. Not for each that goes, or
    /// a busy worker would give back every second what it takes again in the next.
    fn give_back(&mut self, now: Instant) {
        let live = self.endpoint.len();
        self.given_back.most = self.given_back.most.max(live);
        let rested = now.saturating_duration_since(self.given_back.at) >= GIVE_BACK_EVERY;
        if self.given_back.most >= 2 * live && self.given_back.most > 0 && rested {
            self.given_back = GivenBack { at: now, most: live };
            memory::give_back();
        }
    }
}
