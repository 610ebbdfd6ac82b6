//! A graceful close (RFC 9114 §5.2): GOAWAY twice, a round trip apart.

use super::Session;
use crate::dataplane::quic::buffers::Transport;

/// The largest stream ID a client can open, for the first of two GOAWAYs (RFC 9114 §5.2).
const GOAWAY_ANY: u64 = (1 << 62) - 4;

/// How far a graceful close has come (RFC 9114 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// GOAWAY with the largest ID is to be sent, or is sent: requests are still accepted.
    Announced {
        sent: bool,
    },
    /// GOAWAY with the next ID is to be sent, or is sent: requests from this ID on are rejected.
    Final {
        from: u64,
        sent: bool,
    },
}

impl Session {
    /// First step of a graceful close: the client learns of it, requests on their way are still served.
    pub fn announce_leaving(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Announced { sent: false };
        }
    }

    /// The client has been told, or is being told; the second step is not taken yet.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        matches!(self.leaving, Leaving::Announced { .. })
    }

    /// Second step, a round trip later: requests not yet seen are rejected, so that the client sends them elsewhere.
    //= https://www.rfc-editor.org/rfc/rfc9114#section-5.2
    //# the identifier in each frame MUST NOT be greater than the identifier in
    //# any previous frame
    pub fn leave(&mut self) {
        if !matches!(self.leaving, Leaving::Final { .. }) {
            self.leaving = Leaving::Final { from: self.next_stream, sent: false };
        }
    }

    /// The final GOAWAY is out, every request is answered, and the client has all of every answer: closing now loses
    /// nothing (RFC 9114 §5.2).
    #[must_use]
    pub fn has_left(&mut self, transport: &mut Transport) -> bool {
        if !matches!(self.leaving, Leaving::Final { sent: true, .. }) || !self.streams.is_empty() {
            return false;
        }
        self.prune_lingering(transport);
        self.lingering.is_empty()
    }

    pub(super) fn send_goaway(&mut self, transport: &mut Transport) {
        match &mut self.leaving {
            Leaving::Announced { sent } if !*sent => {
                *sent = self.http.send_goaway(transport, GOAWAY_ANY).is_ok();
            }
            Leaving::Final { from, sent } if !*sent => {
                *sent = self.http.send_goaway(transport, *from).is_ok();
            }
            Leaving::No | Leaving::Announced { .. } | Leaving::Final { .. } => {}
        }
    }
}
