//! What RFC 9114 says of a connection and quiche does not look at: each ends the connection with its code.

use super::Session;
use crate::dataplane::downstream::h3::code;
use crate::dataplane::quic::buffers::Transport;

/// Whether the client lets us open our control stream. The connection is closed when not: quiche would do that with a code
/// that HTTP/3 does not have.
//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2
//# Therefore, the transport parameters sent by both clients and servers
//# MUST allow the peer to create at least three unidirectional streams.
pub(super) fn has_room_for_control(transport: &mut Transport) -> bool {
    let room = transport.peer_streams_left_uni() > 0;
    if !room {
        // Done: closing already, for what is worse.
        let _ = transport.close(true, code::GENERAL_PROTOCOL_ERROR, b"no unidirectional streams");
    }
    room
}

impl Session {
    /// Judges the client's settings, once they are there. RFC 9114 §7.2.4 leaves it to the receiver what to do about one that comes
    /// twice.
    pub(super) fn judge_settings(&mut self, transport: &mut Transport) {
        if self.settings_judged {
            return;
        }
        // quiche takes 256 octets of them at most: 128 pairs.
        let Some(pairs) = self.http.peer_settings_raw() else { return };
        self.settings_judged = true;
        let mut rest = pairs;
        let mut repeated = false;
        while let [(identifier, _), others @ ..] = rest {
            repeated |= others.iter().any(|(other, _)| other == identifier);
            rest = others;
        }
        if repeated {
            self.violated();
            self.end_with(transport, code::SETTINGS_ERROR, b"a setting twice");
        }
    }

    /// DATA has come where the trailers had come before it.
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
    //# Receipt of an invalid sequence of frames MUST be treated as a
    //# connection error of type H3_FRAME_UNEXPECTED.
    pub(super) fn data_after_trailers(&mut self, transport: &mut Transport) {
        self.violated();
        self.end_with(transport, code::FRAME_UNEXPECTED, b"DATA after trailers");
    }

    /// The connection is over, with this code.
    pub(super) fn end_with(&mut self, transport: &mut Transport, error: u64, reason: &[u8]) {
        if std::mem::replace(&mut self.shut, true) {
            return;
        }
        // Done: closing already.
        let _ = transport.close(true, error, reason);
        self.unheard.clear();
        self.close();
    }
}
