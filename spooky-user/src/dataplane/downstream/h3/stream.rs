//! One request stream.
//!
//! ```text
//!  request side     Open ──FIN──────────────▶ Ended          (RESET_STREAM or a malformed body: the link fails)
//!  response side    Idle ──1xx*──final head──▶ Body ──FIN──▶ Done
//!                     └────────abort──────────────RESET────▶ Done
//! ```
//! The stream is forgotten when both sides are over.

use std::hash::Hasher;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use quiche::Shutdown;
use quiche::h3;

use super::{code, head};
use crate::codec::field::{Content, Malformed};
use crate::dataplane::exchange::error::Kind;
use crate::dataplane::exchange::link::{Link, Outbound};
use crate::dataplane::quic::buffers::{Chunk, Transport};

/// Octets read from QUIC at once: the largest piece handed to the serving task.
const READ_SIZE: usize = 32 * 1024;

/// Responses share the connection in turn. RFC 9218 §10 lets a server choose where the client has said nothing; one after
/// the other, its default, would make small responses wait for large ones.
const TURN_ABOUT: h3::Priority = h3::Priority::new(3, true);

/// What is known of one request stream.
#[derive(Debug)]
pub struct Stream {
    id: u64,
    link: Rc<Link>,
    /// quiche has told of body octets that are not read yet.
    readable: bool,
    request_over: bool,
    response_over: bool,
    /// A field section was sent, so the next one is an additional one.
    head_sent: bool,
    content: Content,
    /// The head said how long the content is.
    declared: bool,
    trailers: Option<HeaderMap>,
    opened: Instant,
    /// Octets of content seen when there was last progress enough or none to expect, and when that was.
    progress: (u64, Instant),
    /// Octets of the response that QUIC has taken, and pieces without octets.
    taken: u64,
    /// What it was when the stream could not send, and since when.
    blocked: Option<(u64, Instant)>,
    /// It was reset and counted so.
    counted: bool,
}

/// Whether a stream could send all it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left to send now.
    All,
    /// QUIC takes no more for the moment.
    Blocked,
    /// The client asked for no more of the response (STOP_SENDING) or the stream is gone.
    Stopped,
}

/// Hashes stream IDs by one multiplication: IDs come in sequence, and a connection has at most `max_streams` open, so that
/// a client that chose them to collide would slow down itself.
#[derive(Debug, Default)]
pub struct StreamHasher(u64);

impl Hasher for StreamHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // The two lowest bits are the same for all of a client's requests (RFC 9000 §2.1). The factor is 2^64 / φ.
        self.0 = (id >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Stream {
    /// A stream whose request head was accepted.
    #[must_use]
    pub fn new(id: u64, link: Rc<Link>, declared: Option<u64>, now: Instant) -> Self {
        Self {
            id,
            link,
            readable: false,
            request_over: false,
            response_over: false,
            head_sent: false,
            content: Content::new(declared),
            declared: declared.is_some(),
            trailers: None,
            opened: now,
            progress: (0, now),
            taken: 0,
            blocked: None,
            counted: false,
        }
    }

    /// The exchange's end.
    #[must_use]
    pub fn link(&self) -> &Rc<Link> {
        &self.link
    }

    /// Both sides are over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.request_over && self.response_over
    }

    /// The request has not ended yet.
    #[must_use]
    pub fn request_open(&self) -> bool {
        !self.request_over
    }

    // === judged ===

    /// Marks it as counted among those that were reset; returns whether it was.
    pub fn set_counted(&mut self) -> bool {
        std::mem::replace(&mut self.counted, true)
    }

    /// It was counted among those that were reset.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.counted
    }

    /// It was answered not at all, or is not older than `early`: ending now, it ends early.
    #[must_use]
    pub fn ends_early(&self, early: Duration, now: Instant) -> bool {
        !self.head_sent || now.saturating_duration_since(self.opened) < early
    }

    /// For how long the client has sent less than `enough` octets although it should, and how many it has sent in that time.
    /// Looked at from time to time.
    pub fn request_stalled(&mut self, enough: u64, now: Instant) -> (Duration, u64) {
        let seen = self.content.seen();
        // Whoever says how much is coming uploads. Without that, and with an answer under way, it may be a conversation.
        let expected = !self.request_over
            && (self.declared || !self.head_sent)
            && self.link.request_room() > 0
            && self.link.failure().is_none();
        let came = seen.saturating_sub(self.progress.0);
        if !expected || came >= enough {
            self.progress = (seen, now);
        }
        (now.saturating_duration_since(self.progress.1), came)
    }

    /// For how long the client has taken nothing of what is ready for it.
    #[must_use]
    pub fn response_stalled(&self, now: Instant) -> Duration {
        self.blocked.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(since))
    }

    /// QUIC takes no more for the moment.
    pub fn note_blocked(&mut self, now: Instant) {
        if self.blocked.is_none_or(|(taken, _)| taken != self.taken) {
            self.blocked = Some((self.taken, now));
        }
    }

    /// QUIC has taken all there was.
    pub fn note_unblocked(&mut self) {
        self.blocked = None;
    }

    // === request side ===

    /// quiche says that there is body to read.
    pub fn set_readable(&mut self) {
        self.readable = true;
    }

    /// Reads body while there is some and the task has room for it.
    ///
    /// # Errors
    ///
    /// More body than the head declared.
    pub fn read(
        &mut self,
        http: &mut h3::Connection,
        transport: &mut Transport,
    ) -> Result<(), Malformed> {
        while self.readable && !self.request_over {
            let room = self.link.request_room().min(READ_SIZE);
            if room == 0 {
                return Ok(());
            }
            let Some(data) = self.read_once(http, transport, room) else {
                self.readable = false;
                return Ok(());
            };
            self.content.data(data.len())?;
            self.link.push_request(data);
        }
        Ok(())
    }

    fn read_once(
        &self,
        http: &mut h3::Connection,
        transport: &mut Transport,
        room: usize,
    ) -> Option<Bytes> {
        // What is waiting, frame headers included: the allocation fits the data.
        let waiting = transport.stream_readable_len(self.id, room).clamp(512, room.max(512));
        let mut buffer = BytesMut::with_capacity(waiting);
        http.recv_body_buf(transport, self.id, (&mut buffer).limit(waiting)).ok()?;
        Some(buffer.freeze())
    }

    /// A trailer section came; it counts once the stream ends.
    pub fn set_trailers(&mut self, trailers: HeaderMap) {
        self.trailers = Some(trailers);
    }

    /// A trailer section came, so nothing else may.
    #[must_use]
    pub fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// The client has ended the request.
    ///
    /// # Errors
    ///
    /// Less body than the head declared.
    pub fn end_request(&mut self) -> Result<(), Malformed> {
        if self.request_over {
            return Ok(());
        }
        self.content.finish()?;
        self.request_over = true;
        self.readable = false;
        self.link.end_request(self.trailers.take());
        Ok(())
    }

    // === response side ===

    /// Sends what the task has queued, as far as QUIC takes it.
    pub fn flush(&mut self, http: &mut h3::Connection, transport: &mut Transport) -> Flushed {
        while !self.response_over {
            let Some(outbound) = self.link.pop_response() else { return Flushed::All };
            match self.send(http, transport, outbound) {
                Flushed::All => {}
                Flushed::Blocked => return Flushed::Blocked,
                Flushed::Stopped => {
                    self.response_over = true;
                    self.link.fail(Kind::ClientGone);
                    return Flushed::Stopped;
                }
            }
        }
        Flushed::All
    }

    fn send(
        &mut self,
        http: &mut h3::Connection,
        transport: &mut Transport,
        outbound: Outbound,
    ) -> Flushed {
        match outbound {
            Outbound::Data(data) => self.send_data(http, transport, data),
            Outbound::Abort(abort) => {
                self.reset(transport, code::of_abort(abort));
                Flushed::All
            }
            Outbound::End => {
                let sent = http.send_body_zc(transport, self.id, &mut Chunk::default(), true);
                self.settle(sent.map(drop), Outbound::End, true, transport)
            }
            Outbound::Informational(status, fields) => {
                let sent =
                    self.send_fields(http, transport, &head::response(&status, &fields), false);
                self.settle(sent, Outbound::Informational(status, fields), false, transport)
            }
            Outbound::Head(status, fields, fin) => {
                let sent =
                    self.send_fields(http, transport, &head::response(&status, &fields), fin);
                self.settle(sent, Outbound::Head(status, fields, fin), fin, transport)
            }
            Outbound::Trailers(fields) => {
                let list = head::trailers(&fields);
                let sent = http.send_additional_headers(transport, self.id, &list, true, true);
                drop(list);
                self.settle(sent, Outbound::Trailers(fields), true, transport)
            }
        }
    }

    fn send_fields(
        &mut self,
        http: &mut h3::Connection,
        transport: &mut Transport,
        list: &[h3::HeaderRef<'_>],
        fin: bool,
    ) -> h3::Result<()> {
        if self.head_sent {
            return http.send_additional_headers(transport, self.id, list, false, fin);
        }
        http.send_response_with_priority(transport, self.id, list, &TURN_ABOUT, fin)?;
        self.head_sent = true;
        Ok(())
    }

    /// What a write came to: over, to be tried again with `outbound`, or stopped by the client.
    fn settle(
        &mut self,
        sent: h3::Result<()>,
        outbound: Outbound,
        fin: bool,
        transport: &mut Transport,
    ) -> Flushed {
        match sent {
            Ok(()) => {
                self.taken += 1;
                if fin {
                    self.finish(transport);
                }
                Flushed::All
            }
            Err(h3::Error::StreamBlocked | h3::Error::Done) => {
                self.link.return_response(outbound);
                Flushed::Blocked
            }
            Err(_) => Flushed::Stopped,
        }
    }

    fn send_data(
        &mut self,
        http: &mut h3::Connection,
        transport: &mut Transport,
        data: Bytes,
    ) -> Flushed {
        let length = data.len();
        // The end travels with the last octets when it is known already.
        let fin = self.link.ends_next();
        let mut chunk = Chunk(data);
        match http.send_body_zc(transport, self.id, &mut chunk, fin) {
            Ok(sent) => {
                self.link.accept_response(sent);
                self.taken += sent as u64;
                if sent < length {
                    self.link.return_response(Outbound::Data(chunk.0));
                    return Flushed::Blocked;
                }
                if fin {
                    self.finish(transport);
                }
                Flushed::All
            }
            Err(h3::Error::Done | h3::Error::StreamBlocked) => {
                self.link.return_response(Outbound::Data(chunk.0));
                Flushed::Blocked
            }
            Err(_) => Flushed::Stopped,
        }
    }

    /// The response was ended cleanly. What is left of the request is not wanted any more.
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
    //# After sending a final response, the server MUST close the stream for
    //# sending.
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
    //# When the server does not need to receive the remainder of the
    //# request, it MAY abort reading the request stream, send a complete
    //# response, and cleanly close the sending part of the stream. The
    //# error code H3_NO_ERROR SHOULD be used when requesting that the
    //# client stop sending on the request stream.
    fn finish(&mut self, transport: &mut Transport) {
        self.response_over = true;
        self.stop_request(transport, code::NO_ERROR);
    }

    fn stop_request(&mut self, transport: &mut Transport, error: u64) {
        if !self.request_over {
            self.request_over = true;
            self.readable = false;
            // Done: the stream is gone already, and with it the need to stop it.
            let _ = transport.stream_shutdown(self.id, Shutdown::Read, error);
        }
    }

    /// Ends both sides with an error code.
    pub fn reset(&mut self, transport: &mut Transport, error: u64) {
        if !self.response_over {
            self.response_over = true;
            let _ = transport.stream_shutdown(self.id, Shutdown::Write, error);
        }
        self.stop_request(transport, error);
    }

    /// The client has reset its side: nothing more can come, and what was asked for is not wanted.
    pub fn cancel(&mut self, transport: &mut Transport) {
        self.request_over = true;
        self.readable = false;
        self.link.fail(Kind::ClientGone);
        self.reset(transport, code::REQUEST_CANCELLED);
    }

    /// The client stopped the response: free the backend, stop reading the request.
    pub fn stopped(&mut self, transport: &mut Transport) {
        self.response_over = true;
        self.link.fail(Kind::ClientGone);
        self.stop_request(transport, code::REQUEST_CANCELLED);
    }
}
