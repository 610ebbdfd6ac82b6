//! The graceful end of a worker (RFC 9114 §5.2): GOAWAY twice, what is in flight ends, connections are closed, then it is
//! over.

use std::time::{Duration, Instant};

use super::turn::Worker;
use crate::dataplane::downstream::h3::code;
use crate::dataplane::downstream::h3::session::Session;
use crate::dataplane::quic::buffers::Transport;
use crate::dataplane::quic::connection::Connection;
use crate::id::ConnectionKey;

/// Between the two GOAWAYs: a round trip, within these bounds.
const GRACE_MIN: Duration = Duration::from_millis(20);
const GRACE_MAX: Duration = Duration::from_millis(500);

impl Worker {
    /// Nothing new is accepted; every connection is told.
    pub(super) fn begin_drain(&mut self) {
        self.draining = true;
        self.endpoint.drain();
        for key in self.endpoint.keys() {
            let Some(connection) = self.endpoint.get_mut(key) else { continue };
            if let Some(session) = &mut connection.session {
                session.announce_leaving();
            }
            self.touch(key);
        }
    }

    /// The second step of a graceful close, and the last, when they are due.
    pub(super) fn progress_leave(&mut self, key: ConnectionKey, now: Instant) {
        let Some(connection) = self.endpoint.get_mut(key) else { return };
        let listener = connection.listener;
        let leaving = self.draining || self.closing.iter().any(|it| it.is_of(listener));
        if connection.leave_at.is_none() {
            connection.leave_at = match &connection.session {
                // Told just now, by the drain or because it had its share of requests.
                Some(session) if session.is_leaving() => Some(now + grace(&connection.transport)),
                // A handshake that was under way when the drain or the closing began.
                None if leaving => Some(now + GRACE_MAX),
                Some(_) | None => None,
            };
        }
        let due = connection.leave_at.is_some_and(|at| at <= now);
        let Some(session) = &mut connection.session else {
            if due {
                connection.leave_at = None;
                // Done: closed already.
                let _ = connection.transport.close(false, 0, b"draining");
            }
            return;
        };
        if due {
            connection.leave_at = None;
            session.leave();
            session.transmit(&mut connection.transport);
        }
        if connection.transport.local_error().is_none()
            && session.has_left(&mut connection.transport)
        {
            let _ = connection.transport.close(true, code::NO_ERROR, b"");
        }
    }

    /// Every connection is closed and said so, and every exchange has been accounted for.
    pub(super) fn has_drained(&mut self) -> bool {
        if self.context.serving() > 0 || self.sockets.iter().any(super::socket::Socket::is_blocked)
        {
            return false;
        }
        let keys = self.endpoint.keys();
        keys.into_iter().all(|key| {
            self.endpoint.get_mut(key).is_none_or(|connection| {
                // A connection in its closing or draining period has nothing more to say that matters.
                let transport = &connection.transport;
                transport.is_closed()
                    || transport.is_draining()
                    || transport.local_error().is_some()
            })
        })
    }

    /// The last act: whoever is still connected learns of it now instead of by a time-out.
    pub(super) fn end(&mut self) {
        self.cut(|_| true);
        self.bypass.flush();
        self.context.pools.drain();
    }

    /// Closes these connections now and tells their clients.
    pub(super) fn cut(&mut self, which: impl Fn(&Connection<Session>) -> bool) {
        for key in self.endpoint.keys() {
            let Some(connection) = self.endpoint.get_mut(key) else { continue };
            if !which(connection) {
                continue;
            }
            // What is cut short must not look finished.
            let open =
                connection.session.as_ref().is_some_and(|session| session.open_streams() > 0);
            let error = if open { code::INTERNAL_ERROR } else { code::NO_ERROR };
            self.cut_one(key, error);
        }
    }

    pub(super) fn cut_one(&mut self, key: ConnectionKey, error: u64) {
        let Some(connection) = self.endpoint.get_mut(key) else { return };
        // Done: closed already.
        let _ = connection.transport.close(true, error, b"");
        self.transmit(key);
        if let Some(mut connection) = self.endpoint.remove(key)
            && let Some(session) = &mut connection.session
        {
            session.close();
        }
    }
}

/// A round trip of the connection, as far as it is known.
fn grace(transport: &Transport) -> Duration {
    let active = transport.path_stats().find(|path| path.active);
    active.map_or(GRACE_MIN, |path| path.rtt.clamp(GRACE_MIN, GRACE_MAX))
}
