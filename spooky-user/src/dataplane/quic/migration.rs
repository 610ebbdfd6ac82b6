//! Paths of a client that moves (RFC 9000 §9): how many it may try, getting back what was in flight on those that it has left,
//! and making room for the next. Imports its siblings and `packet`.
//!
//! quiche keeps loss recovery for each path. What was in flight on a path when the client left it is declared lost only once
//! a later packet *of that path* is acknowledged; without one, a probe time-out sends the same oldest packets again and
//! again and the rest never. So when the client has moved, one more packet is made on the old path, a PATH_CHALLENGE, and
//! sent to where the client is now: its acknowledgement frees the rest. It goes to the old path, too: whoever is still there
//! answers, and is where the client is again (RFC 9000 §9.3.3). quiche also forgets a path only when its destination
//! connection ID is retired, and refuses new paths when it remembers too many: the oldest are retired in time.
//!
//! Each datagram that a client's keys have made can name another source, and quiche sends to the newest at once. What went to
//! somebody else's address would be missed for good, by the same want of acknowledgements. So what only claims to be a path gets
//! a challenge, another one after each probe time-out, and the rest goes to where the client was validated last, who acknowledges
//! it if it is there. [`PathLimits`] says how many may be tried.

use std::time::Instant;

use quiche::PathEvent;

use super::bucket::Bucket;
use super::buffers::Transport;
use super::settings::PathLimits;
use crate::dataplane::packet::Path;
use crate::telemetry::metrics::WorkerMetrics;

/// A path the client has left.
#[derive(Clone, Copy, Debug)]
struct Left {
    path: Path,
    /// Probe time-outs of the path that have been answered with a probe of ours.
    timeouts: usize,
    /// Nothing has come from there since the client left it: what is made for it goes to where the client is now.
    silent: bool,
    /// A challenge has gone there.
    asked: bool,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) path: Path,
    /// And a copy of it.
    pub(super) copy: Option<Path>,
}

/// A path that is not validated yet.
#[derive(Clone, Copy, Debug)]
struct Trying {
    path: Path,
    /// Datagrams that may go there now: those with a challenge of ours, or an answer to one of the client's (RFC 9000 §8.2.2).
    asks: usize,
    timeouts: usize,
    /// How far quiche was with it when the last datagram came.
    progress: u8,
}

/// A path whose validation has failed.
#[derive(Clone, Copy, Debug)]
struct Failed {
    path: Path,
    /// Packets sent there until then.
    sent: usize,
    /// A datagram has come from there since, and the answer to it will ask anew.
    again: bool,
}

/// Where a client is, where it was, and where it says it is.
#[derive(Debug)]
pub(super) struct Migration {
    current: Path,
    left: Vec<Left>,
    trying: Vec<Trying>,
    failed: Vec<Failed>,
    /// Challenges of the client's so far.
    challenges: u64,
    tries: Bucket,
    unvalidated_max: usize,
    /// quiche remembers no more.
    paths_max: usize,
}

impl Migration {
    /// The path of the handshake. quiche remembers `paths_max` with it.
    pub(super) fn new(path: Path, limits: PathLimits, paths_max: usize, now: Instant) -> Self {
        Self {
            current: path,
            left: Vec::new(),
            trying: Vec::new(),
            failed: Vec::new(),
            challenges: 0,
            tries: Bucket::new(limits.per_second, now),
            unvalidated_max: limits.unvalidated,
            paths_max,
        }
    }

    /// The path that was validated last (RFC 9000 §9.3).
    pub(super) fn current(&self) -> Path {
        self.current
    }

    /// Takes what quiche has to say of paths: only a validated one moves the client's address.
    pub(super) fn follow(
        &mut self,
        transport: &mut Transport,
        now: Instant,
        metrics: &WorkerMetrics,
    ) {
        while let Some(event) = transport.path_event_next() {
            match event {
                // The server's side of RFC 9000 §9.3: quiche challenges the new path by itself.
                PathEvent::New(local, peer) => {
                    self.tries.take(now);
                    // A handshake goes on where it is heard: before its end there are no challenges.
                    let asks = if transport.is_established() { 1 } else { usize::MAX };
                    let path = Path { local, peer };
                    self.trying.push(Trying { path, asks, timeouts: 0, progress: u8::MAX });
                }
                PathEvent::Validated(local, peer) => self.settled(Path { local, peer }),
                PathEvent::PeerMigrated(local, peer) => {
                    let to = Path { local, peer };
                    self.settled(to);
                    // Back where it was all the time is no move.
                    if to != self.current {
                        self.moved(transport, to);
                        metrics.migrations_validated.inc();
                    }
                }
                PathEvent::FailedValidation(local, peer) => {
                    let path = Path { local, peer };
                    self.settled(path);
                    let sent = stats(transport, path).map_or(0, |stats| stats.sent);
                    self.failed.push(Failed { path, sent, again: false });
                    metrics.path_failures.inc();
                }
                PathEvent::Closed(local, peer) => self.closed(Path { local, peer }),
                // Of a reused ID nothing follows.
                _ => {}
            }
        }
        if self.trying.is_empty() {
            return;
        }
        for trying in &mut self.trying {
            // A datagram has brought it forward: its address has answered, and what quiche wants to know still is whether
            // large datagrams pass as well (RFC 9000 §8.2.1).
            if progress(transport, trying.path) > trying.progress {
                trying.asks = usize::MAX;
            }
        }
        let challenges = transport.stats().path_challenge_rx_count;
        if std::mem::replace(&mut self.challenges, challenges) < challenges {
            self.trying.iter_mut().for_each(|trying| trying.asks = trying.asks.max(1));
        }
    }

    fn settled(&mut self, path: Path) {
        self.trying.retain(|it| it.path != path);
        self.failed.retain(|it| it.path != path);
    }

    /// The client has moved, and the new path is validated.
    fn moved(&mut self, transport: &mut Transport, to: Path) {
        let from = std::mem::replace(&mut self.current, to);
        self.left.retain(|left| left.path != to);
        if transport.probe_path(from.local, from.peer).is_ok() {
            let timeouts = timeouts(transport, from);
            self.left.push(Left { path: from, timeouts, silent: true, asked: false });
        }
    }

    /// quiche has forgotten a path.
    fn closed(&mut self, path: Path) {
        self.left.retain(|left| left.path != path);
        self.settled(path);
    }

    /// Whether [`Migration::arriving`] wants to be asked even if the last datagram came from the same place.
    pub(super) fn is_wary(&self) -> bool {
        !self.failed.is_empty() || !self.trying.is_empty()
    }

    /// Whether quiche may see a datagram that has come from `path`, not from where the last one came. When that would be one path
    /// too many, the path left longest ago is made forgettable. Not earlier, because quiche gives every spare ID of the client's
    /// to a path that has none.
    pub(super) fn arriving(&mut self, transport: &mut Transport, path: Path, now: Instant) -> bool {
        for trying in &mut self.trying {
            trying.progress = progress(transport, trying.path);
        }
        if path == self.current {
            return true;
        }
        if let Some(left) = self.left.iter_mut().find(|left| left.path == path) {
            //= https://www.rfc-editor.org/rfc/rfc9000#section-8.2.2
            //# A PATH_RESPONSE frame MUST be sent on the network path where the
            //# PATH_CHALLENGE frame was received.
            // The client is still there too: answers go there (RFC 9000 §8.2.2).
            left.silent = false;
            return true;
        }
        if let Some(failed) = self.failed.iter_mut().find(|failed| failed.path == path) {
            // quiche takes a failed path up again with a first datagram, and before it has asked there again calls a second
            // one an error of the connection.
            if stats(transport, path).is_some_and(|stats| stats.sent > failed.sent) {
                self.settled(path);
                let timeouts = timeouts(transport, path);
                let progress = progress(transport, path);
                self.trying.push(Trying { path, asks: 0, timeouts, progress });
                return true;
            }
            let first = !std::mem::replace(&mut failed.again, true);
            return first && transport.probe_path(path.local, path.peer).is_ok();
        }
        if transport.is_path_validated(path.local, path.peer).is_ok() {
            return true;
        }
        if self.trying.len() >= self.unvalidated_max || !self.tries.has_one(now) {
            return false;
        }
        if transport.path_stats().count() < self.paths_max {
            return true;
        }
        // Looking for room asks the client for a sign of life, which costs both.
        !self.left.is_empty() && self.tries.take(now) && self.make_room(transport)
    }

    /// `false` when none of the paths can be forgotten.
    fn make_room(&self, transport: &mut Transport) -> bool {
        let current = transport.probe_path(self.current.local, self.current.peer);
        // Not those that failed: what tells the ID of a path also asks for a challenge there, which nothing may be left for.
        for left in &self.left {
            let dcid = transport.probe_path(left.path.local, left.path.peer);
            // A path that came when the client had no spare ID shares that of the path before it.
            if dcid != current {
                release(transport, left.path, self.paths_max);
                return true;
            }
        }
        false
    }

    /// After a probe time-out of quiche's: asks again where a left path still waits, and lets it ask a new one again.
    pub(super) fn on_timeout(&mut self, transport: &mut Transport) {
        for trying in &mut self.trying {
            let now = timeouts(transport, trying.path);
            if now > trying.timeouts {
                trying.timeouts = now;
                trying.asks = trying.asks.max(1);
            }
        }
        for left in &mut self.left {
            let now = timeouts(transport, left.path);
            if now > left.timeouts && transport.probe_path(left.path.local, left.path.peer).is_ok()
            {
                left.timeouts = now;
            }
        }
    }

    /// The next datagram of quiche's, and where it is to be sent.
    ///
    /// quiche serves a path that wants a challenge before all others, and when what may be sent there is too little for one, says
    /// that there is nothing to send at all: then the others are asked by name.
    ///
    /// # Errors
    ///
    /// Those of quiche; `Done` when there is nothing to send.
    pub(super) fn send(
        &mut self,
        transport: &mut Transport,
        out: &mut [u8],
    ) -> quiche::Result<(usize, Destination)> {
        let mut sent = transport.send(out);
        if matches!(sent, Err(quiche::Error::Done)) && self.is_wary() {
            let others = self.trying.iter().map(|trying| trying.path);
            for path in std::iter::once(self.current).chain(others) {
                // One that has no ID of the client's to be sent to is no error of the connection.
                let tried = transport.send_on_path(out, Some(path.local), Some(path.peer));
                if tried.is_ok() {
                    sent = tried;
                    break;
                }
            }
        }
        let (size, info) = sent?;
        Ok((size, self.redirect(Path { local: info.from, peer: info.to })))
    }

    //= https://www.rfc-editor.org/rfc/rfc9000#section-9.3.3
    //# In response to an apparent migration, endpoints MUST validate the
    //# previously active path using a PATH_CHALLENGE frame.
    fn redirect(&mut self, path: Path) -> Destination {
        let current = self.current;
        let to = |path| Destination { path, copy: None };
        if let Some(trying) = self.trying.iter_mut().find(|trying| trying.path == path) {
            let asked = trying.asks.checked_sub(1);
            if trying.asks != usize::MAX {
                trying.asks = asked.unwrap_or(0);
            }
            return to(if asked.is_some() { path } else { current });
        }
        let silent = |left: &&mut Left| left.silent && left.path == path;
        match self.left.iter_mut().find(silent) {
            Some(left) if path != current => {
                let is_first = !std::mem::replace(&mut left.asked, true);
                Destination { path: current, copy: is_first.then_some(path) }
            }
            _ => to(path),
        }
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
    stats(transport, path).map_or(0, |stats| stats.total_pto_count)
}

/// quiche's state of a path, whose type has no name outside of it: from failed (0) over unknown and validating to validated.
fn progress(transport: &Transport, path: Path) -> u8 {
    stats(transport, path).map_or(0, |stats| stats.validation_state as u8)
}

fn stats(transport: &Transport, path: Path) -> Option<quiche::PathStats> {
    let mut all = transport.path_stats();
    all.find(|stats| stats.local_addr == path.local && stats.peer_addr == path.peer)
}
