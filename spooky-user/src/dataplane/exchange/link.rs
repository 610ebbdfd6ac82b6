//! The coupling of the two sides of an exchange: bounded bodies both ways, trailers, cancellation.
//!
//! The downstream session holds one end, the serving task the other; both run on one thread. Each direction holds at most
//! [`BUFFER_SIZE`] octets: the session stops reading from QUIC when the request side is full, so the client's flow control
//! window closes (RFC 9000 §4.1); the task stops reading from HTTP/2 when the response side is full and gives back window
//! only for what QUIC has taken, so the backend's window closes (RFC 9113 §5.2). No body is ever held whole.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::error::Kind;
use super::mailbox::Mailbox;

/// Octets one direction of one exchange may hold: seven HTTP/2 frames of the usual 16 KiB, because their 87 datagrams fill
/// two send calls of at most 47; the 49 of four frames take two calls as well.
pub const BUFFER_SIZE: usize = 112 * 1024;

/// Pieces one direction may hold, however small they are: a piece of one octet keeps an allocation of half a KiB, or a whole
/// read buffer of the backend's connection, alive.
pub const PIECES_MAX: usize = 128;

/// Octets of a request's body that are kept until its answer begins, so that it can be sent again: a form, a call, no upload.
pub const KEPT_MAX: usize = 64 * 1024;

/// What comes next of the request, seen by the serving task.
#[derive(Debug)]
pub enum Inbound {
    /// Octets of the body.
    Data(Bytes),
    /// The trailer section; the request ends with it.
    Trailers(HeaderMap),
    /// The request has ended.
    End,
}

/// What comes next of the response, seen by the session.
#[derive(Debug)]
pub enum Outbound {
    /// A 1xx head (RFC 9110 §15.2).
    Informational(StatusCode, HeaderMap),
    /// The final head; `true` when the response ends with it.
    Head(StatusCode, HeaderMap, bool),
    /// Octets of the body.
    Data(Bytes),
    /// The trailer section; the response ends with it.
    Trailers(HeaderMap),
    /// The response has ended.
    End,
    /// The response cannot be completed; the stream is to be reset, never ended cleanly.
    Abort(AbortCode),
}

/// Why a response stream is reset (RFC 9114 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortCode {
    /// H3_INTERNAL_ERROR: the backend cut the response short.
    Internal,
    /// H3_REQUEST_REJECTED: not processed, may be tried again.
    Rejected,
    /// H3_REQUEST_CANCELLED: given up, because the client did not go on.
    Cancelled,
    /// H3_MESSAGE_ERROR: the request turned out to be malformed.
    Message,
}

/// Both directions of one exchange.
#[derive(Debug)]
pub struct Link {
    stream: u64,
    mailbox: Rc<Mailbox>,
    /// Posted to the mailbox and not yet seen by the session.
    posted: Cell<bool>,
    task: RefCell<Option<Waker>>,
    request: RefCell<Request>,
    response: RefCell<Response>,
    failed: Cell<Option<Kind>>,
}

#[derive(Debug, Default)]
struct Request {
    chunks: VecDeque<Bytes>,
    buffered: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    kept: Kept,
}

/// What the task has taken of the request.
#[derive(Debug, Default)]
struct Kept {
    chunks: Vec<Bytes>,
    size: usize,
    trailers: Option<HeaderMap>,
    /// There was too much, or the answer has begun.
    over: bool,
}

#[derive(Debug, Default)]
struct Response {
    queue: VecDeque<Outbound>,
    buffered: usize,
    /// Octets QUIC has taken since the task last asked.
    accepted: usize,
}

// === impl Link: both ends ===

impl Link {
    /// For one stream of the connection behind `mailbox`.
    #[must_use]
    pub fn new(stream: u64, mailbox: Rc<Mailbox>) -> Rc<Self> {
        Rc::new(Self {
            stream,
            mailbox,
            posted: Cell::new(false),
            task: RefCell::new(None),
            request: RefCell::default(),
            response: RefCell::default(),
            failed: Cell::new(None),
        })
    }

    fn post(&self) {
        if !self.posted.replace(true) {
            self.mailbox.post(self.stream);
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.task.borrow_mut().take() {
            waker.wake();
        }
    }
}

// === impl Link: the session's end ===

impl Link {
    /// The session has taken the post; a new one will be queued again.
    pub fn seen(&self) {
        self.posted.set(false);
    }

    /// Octets of request body that may be pushed now.
    #[must_use]
    pub fn request_room(&self) -> usize {
        let request = self.request.borrow();
        if request.chunks.len() >= PIECES_MAX {
            return 0;
        }
        BUFFER_SIZE.saturating_sub(request.buffered)
    }

    /// Hands over request body. The caller keeps to [`Self::request_room`].
    pub fn push_request(&self, data: Bytes) {
        let mut request = self.request.borrow_mut();
        request.buffered += data.len();
        self.mailbox.hold(data.len());
        request.chunks.push_back(data);
        drop(request);
        self.wake();
    }

    /// The request has ended, with or without trailers.
    pub fn end_request(&self, trailers: Option<HeaderMap>) {
        let mut request = self.request.borrow_mut();
        request.ended = true;
        request.trailers = trailers;
        drop(request);
        self.wake();
    }

    /// The client is gone or broke the protocol: the task stops at its next poll.
    pub fn fail(&self, kind: Kind) {
        if self.failed.get().is_none() {
            self.failed.set(Some(kind));
        }
        self.wake();
    }

    /// The next thing to send.
    pub fn pop_response(&self) -> Option<Outbound> {
        self.response.borrow_mut().queue.pop_front()
    }

    /// Whether the end comes next, so that it can travel with the octets before it.
    #[must_use]
    pub fn ends_next(&self) -> bool {
        matches!(self.response.borrow().queue.front(), Some(Outbound::End))
    }

    /// Puts back what the stream could not take yet.
    pub fn return_response(&self, outbound: Outbound) {
        self.response.borrow_mut().queue.push_front(outbound);
    }

    /// QUIC has taken this many octets of body: there is room again, and HTTP/2 window to give back.
    pub fn accept_response(&self, octets: usize) {
        let mut response = self.response.borrow_mut();
        response.buffered = response.buffered.saturating_sub(octets);
        response.accepted += octets;
        self.mailbox.release(octets);
        drop(response);
        self.wake();
    }
}

// === impl Link: the task's end ===

impl Link {
    /// Why the exchange has to stop, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<Kind> {
        self.failed.get()
    }

    /// Registers the task for every change on the link. Call before looking.
    pub fn register(&self, cx: &Context<'_>) {
        let mut slot = self.task.borrow_mut();
        match slot.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
    }

    /// The next part of the request. Register first.
    ///
    /// # Errors
    ///
    /// The reason when the client is gone.
    pub fn poll_request(&self) -> Poll<Result<Inbound, Kind>> {
        if let Some(kind) = self.failed.get() {
            return Poll::Ready(Err(kind));
        }
        let mut request = self.request.borrow_mut();
        if let Some(data) = request.chunks.pop_front() {
            request.buffered -= data.len();
            if !request.kept.keep(&data) {
                self.mailbox.release(data.len() + request.kept.drop_all());
            }
            drop(request);
            self.post();
            return Poll::Ready(Ok(Inbound::Data(data)));
        }
        if request.ended {
            return Poll::Ready(Ok(match request.trailers.take() {
                Some(trailers) => {
                    if !request.kept.over {
                        request.kept.trailers = Some(trailers.clone());
                    }
                    Inbound::Trailers(trailers)
                }
                None => Inbound::End,
            }));
        }
        Poll::Pending
    }

    /// Whether all that was taken of the request is still there.
    #[must_use]
    pub fn can_rewind(&self) -> bool {
        !self.request.borrow().kept.over
    }

    /// The request begins anew, for another attempt. Only while [`Self::can_rewind`].
    pub fn rewind(&self) {
        let mut request = self.request.borrow_mut();
        let kept = std::mem::take(&mut request.kept);
        request.buffered += kept.size;
        for data in kept.chunks.into_iter().rev() {
            request.chunks.push_front(data);
        }
        if kept.trailers.is_some() {
            request.trailers = kept.trailers;
        }
    }

    /// The answer has begun: the request is not sent again.
    pub fn forget_request(&self) {
        let octets = self.request.borrow_mut().kept.drop_all();
        self.mailbox.release(octets);
    }

    /// Whether the response side has room for one more piece of body. Register first.
    #[must_use]
    pub fn has_response_room(&self) -> bool {
        let response = self.response.borrow();
        response.buffered < BUFFER_SIZE && response.queue.len() < PIECES_MAX
    }

    /// Octets of response body that QUIC has taken since the last call.
    pub fn take_accepted(&self) -> usize {
        std::mem::take(&mut self.response.borrow_mut().accepted)
    }

    /// Queues the next part of the response. Body only while [`Self::has_response_room`].
    pub fn send(&self, outbound: Outbound) {
        let mut response = self.response.borrow_mut();
        if let Outbound::Data(data) = &outbound {
            response.buffered += data.len();
            self.mailbox.hold(data.len());
        }
        response.queue.push_back(outbound);
        drop(response);
        self.post();
    }

    /// Drops what is queued and resets the stream instead.
    pub fn abort(&self, code: AbortCode) {
        let mut response = self.response.borrow_mut();
        response.queue.clear();
        self.mailbox.release(std::mem::take(&mut response.buffered));
        response.queue.push_back(Outbound::Abort(code));
        drop(response);
        self.post();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let request = self.request.get_mut();
        let octets = request.buffered + request.kept.size + self.response.get_mut().buffered;
        self.mailbox.release(octets);
    }
}

impl Kept {
    /// Keeps a piece that is being taken; `false` when nothing is kept any more.
    fn keep(&mut self, data: &Bytes) -> bool {
        if self.over || self.size + data.len() > KEPT_MAX || self.chunks.len() >= PIECES_MAX {
            return false;
        }
        self.size += data.len();
        self.chunks.push(data.clone());
        true
    }

    /// Returns how many octets were kept.
    fn drop_all(&mut self) -> usize {
        let size = self.size;
        *self = Self { over: true, ..Self::default() };
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::exchange::mailbox::Ready;
    use crate::id::ConnectionKey;

    fn link() -> (Rc<Link>, Rc<Mailbox>, Rc<Ready>) {
        let ready: Rc<Ready> = Rc::default();
        let key = ConnectionKey { index: 0, serial: 0 };
        let mailbox = Mailbox::new(key, Rc::clone(&ready));
        (Link::new(4, Rc::clone(&mailbox)), mailbox, ready)
    }

    #[test]
    fn the_request_side_is_bounded_and_asks_for_more_when_there_is_room() {
        let (link, mailbox, ready) = link();
        link.push_request(Bytes::from(vec![0; BUFFER_SIZE]));
        assert_eq!(link.request_room(), 0);
        assert_eq!(ready.buffered(), BUFFER_SIZE);
        assert!(ready.is_empty());
        assert!(matches!(link.poll_request(), Poll::Ready(Ok(Inbound::Data(_)))));
        assert_eq!((link.request_room(), ready.buffered()), (BUFFER_SIZE, 0));
        let mut posted = Vec::new();
        mailbox.take(&mut posted);
        assert_eq!(posted, [4]);
        assert!(link.poll_request().is_pending());
        link.end_request(None);
        assert!(matches!(link.poll_request(), Poll::Ready(Ok(Inbound::End))));
    }

    #[test]
    fn what_was_taken_can_be_had_again_until_it_is_too_much() {
        let (link, _mailbox, ready) = link();
        let next = || match link.poll_request() {
            Poll::Ready(Ok(Inbound::Data(data))) => data.len(),
            Poll::Ready(Ok(Inbound::Trailers(_))) => 1,
            _ => 0,
        };
        link.push_request(Bytes::from(vec![0; 5]));
        link.push_request(Bytes::from(vec![0; 6]));
        link.end_request(Some(HeaderMap::new()));
        assert_eq!([next(), next(), next(), next(), ready.buffered()], [5, 6, 1, 0, 11]);
        assert!(link.can_rewind());
        link.rewind();
        assert_eq!([next(), next(), next(), next(), ready.buffered()], [5, 6, 1, 0, 11]);
        link.push_request(Bytes::from(vec![0; KEPT_MAX - 10]));
        assert_eq!([next(), ready.buffered()], [KEPT_MAX - 10, 0]);
        assert!(!link.can_rewind());
    }

    #[test]
    fn nothing_is_kept_once_the_answer_has_begun() {
        let (link, _mailbox, ready) = link();
        link.push_request(Bytes::from(vec![0; 5]));
        assert!(matches!(link.poll_request(), Poll::Ready(Ok(Inbound::Data(_)))));
        link.forget_request();
        assert_eq!((link.can_rewind(), ready.buffered()), (false, 0));
    }

    #[test]
    fn tiny_pieces_are_bounded_by_their_number() {
        let (link, _mailbox, _ready) = link();
        for _ in 0..PIECES_MAX {
            assert!(link.request_room() > 0 && link.has_response_room());
            link.push_request(Bytes::from_static(b"a"));
            link.send(Outbound::Data(Bytes::from_static(b"b")));
        }
        assert_eq!((link.request_room(), link.has_response_room()), (0, false));
        assert!(matches!(link.poll_request(), Poll::Ready(Ok(Inbound::Data(_)))));
        assert!(link.pop_response().is_some());
        assert!(link.request_room() > 0 && link.has_response_room());
    }

    #[test]
    fn a_stream_is_posted_once_until_it_is_seen() {
        let (link, mailbox, ready) = link();
        link.send(Outbound::Data(Bytes::from_static(b"a")));
        link.send(Outbound::End);
        let mut keys = Vec::new();
        ready.take(&mut keys);
        assert_eq!(keys.len(), 1);
        let mut posted = Vec::new();
        mailbox.take(&mut posted);
        assert_eq!(posted, [4]);
        link.seen();
        assert!(matches!(link.pop_response(), Some(Outbound::Data(_))));
        assert!(link.ends_next());
        link.send(Outbound::End);
        mailbox.take(&mut posted);
        assert_eq!(posted, [4, 4]);
    }

    #[test]
    fn window_is_given_back_only_for_what_was_taken() {
        let (link, _mailbox, ready) = link();
        link.send(Outbound::Data(Bytes::from(vec![0; BUFFER_SIZE])));
        assert!(!link.has_response_room());
        assert_eq!(link.take_accepted(), 0);
        link.accept_response(1000);
        assert!(link.has_response_room());
        assert_eq!((link.take_accepted(), link.take_accepted()), (1000, 0));
        assert_eq!(ready.buffered(), BUFFER_SIZE - 1000);
        link.abort(AbortCode::Internal);
        assert_eq!(ready.buffered(), 0);
        assert!(matches!(link.pop_response(), Some(Outbound::Abort(AbortCode::Internal))));
        assert!(link.pop_response().is_none());
    }

    #[test]
    fn a_failure_comes_before_data_and_the_first_one_stays() {
        let (link, _mailbox, ready) = link();
        link.push_request(Bytes::from_static(b"abc"));
        link.fail(Kind::ClientGone);
        link.fail(Kind::ClientMalformed);
        assert!(matches!(link.poll_request(), Poll::Ready(Err(Kind::ClientGone))));
        drop(link);
        assert_eq!(ready.buffered(), 0);
    }
}
