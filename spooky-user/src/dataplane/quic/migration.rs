//! Paths a client has left (RFC 9000 §9): getting back what was in flight on them, and making room for the next.
//!
//! quiche keeps loss recovery for each path. What was in flight on a path when the client left it is declared lost only once
//! a later packet *of that path* is acknowledged; without one, a probe time-out sends the same oldest packets again and
//! again and the rest never. So when the client has moved, one more packet is made on the old path, a PATH_CHALLENGE, and
//! sent to where the client is now: its acknowledgement frees the rest. quiche also forgets a path only when its destination
//! connection ID is retired, and refuses new paths when it remembers too many: the oldest are retired in time.

use super::buffers::Transport;
use crate::dataplane::packet::Path;

/// A path the client has left.
#[derive(Clone, Copy, Debug)]
struct Left {
    path: Path,
    /// Probe time-outs of the path that have been answered with a probe of ours.
    timeouts: usize,
    /// Nothing has come from there since the client left it: what is made for it goes to where the client is now.
    silent: bool,
}

/// Where a client is, and where it was.
#[derive(Debug)]
pub(super) struct Migration {
    current: Path,
    left: Vec<Left>,
}

impl Migration {
    /// The path of the handshake.
    pub(super) fn new(path: Path) -> Self {
        Self { current: path, left: Vec::new() }
    }

    /// The path that was validated last (RFC 9000 §9.3).
    pub(super) fn current(&self) -> Path {
        self.current
    }

    /// The client has moved, and the new path is validated.
    pub(super) fn moved(&mut self, transport: &mut Transport, to: Path) {
        let from = std::mem::replace(&mut self.current, to);
        self.left.retain(|left| left.path != to);
        if from != to && transport.probe_path(from.local, from.peer).is_ok() {
            let timeouts = timeouts(transport, from);
            self.left.push(Left { path: from, timeouts, silent: true });
        }
    }

    /// quiche has forgotten a path.
    pub(super) fn closed(&mut self, path: Path) {
        self.left.retain(|left| left.path != path);
    }

    /// A datagram has come from `path`, not from where the last one came. Called before quiche sees it: when that would be one
    /// path too many, the path left longest ago is made forgettable. Not earlier, because quiche gives every spare ID of the
    /// client's to a path that has none.
    pub(super) fn arriving(&mut self, transport: &mut Transport, path: Path, paths_max: usize) {
        if path == self.current {
            return;
        }
        if let Some(left) = self.left.iter_mut().find(|left| left.path == path) {
            // The client is still there too: answers go there (RFC 9000 §8.2.2).
            left.silent = false;
            return;
        }
        if transport.path_stats().count() < paths_max {
            return;
        }
        let current = transport.probe_path(self.current.local, self.current.peer);
        for left in &self.left {
            let dcid = transport.probe_path(left.path.local, left.path.peer);
            // A path that came when the client had no spare ID shares that of the path before it.
            if dcid != current {
                release(transport, left.path, paths_max);
                return;
            }
        }
    }

    /// After a probe time-out of quiche's: asks again where a left path still waits.
    pub(super) fn on_timeout(&mut self, transport: &mut Transport) {
        for left in &mut self.left {
            let now = timeouts(transport, left.path);
            if now > left.timeouts && transport.probe_path(left.path.local, left.path.peer).is_ok()
            {
                left.timeouts = now;
            }
        }
    }

    /// Where a packet that quiche has made for `path` is to be sent.
    pub(super) fn redirect(&self, path: Path) -> Path {
        let left = |left: &Left| left.silent && left.path == path;
        if path != self.current && self.left.iter().any(left) { self.current } else { path }
    }
}

/// Takes from a path every ID of the client's, so that quiche may forget it: with each retired ID it is given the next spare
/// one, until there is none. The client issues new ones. Without effect when the client uses empty IDs.
fn release(transport: &mut Transport, path: Path, ids_max: usize) {
    for _ in 0..=ids_max {
        match transport.probe_path(path.local, path.peer) {
            Ok(dcid) if transport.retire_dcid(dcid).is_ok() => {}
            _ => return,
        }
    }
}

fn timeouts(transport: &Transport, path: Path) -> usize {
    transport
        .path_stats()
        .find(|stats| stats.local_addr == path.local && stats.peer_addr == path.peer)
        .map_or(0, |stats| stats.total_pto_count)
}
