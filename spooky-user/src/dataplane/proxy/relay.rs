//! Both bodies of an exchange at once, with the back-pressure of each side felt by the other.
//!
//! ```text
//!  client ──QUIC window──▶ link ──HTTP/2 window (poll_capacity)──▶ backend
//!  client ◀─QUIC capacity── link ◀──HTTP/2 window (release_capacity)── backend
//! ```
//! One future does all of it, because every part can end the others: an early response ends the upload, a client that is
//! gone ends everything, a backend that breaks off makes a reset, never an end.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{Response, StatusCode};
use tokio::time::Sleep;

use super::Failure;
use super::record::Record;
use crate::codec::field;
use crate::dataplane::exchange::error::{Kind, ProxyError};
use crate::dataplane::exchange::link::{Inbound, Link, Outbound};
use crate::dataplane::upstream::classify;
use crate::dataplane::upstream::cluster::Settings;

/// Interim responses one request may draw (RFC 9110 §15.2 sets no bound). They are queued until the client takes them, and
/// no window holds a backend back from sending more.
const INTERIM_MAX: u8 = 16;

/// The relay of one attempt.
pub(super) struct Relay<'e> {
    link: &'e Link,
    settings: &'e Settings,
    upload: Option<SendStream<Bytes>>,
    /// A piece of request body that HTTP/2 had no window for.
    waiting: Bytes,
    download: Download,
    last_progress: Instant,
    upload_ended: bool,
    /// Interim responses seen.
    interim: u8,
}

enum Download {
    Head(ResponseFuture),
    Body(RecvStream),
    Over,
}

/// Whether there may be more to do without waiting.
enum Step {
    Progress,
    Wait,
}

impl<'e> Relay<'e> {
    /// `upload` is `None` when the request ended with its head.
    pub(super) fn new(
        link: &'e Link,
        settings: &'e Settings,
        response: ResponseFuture,
        upload: Option<SendStream<Bytes>>,
    ) -> Self {
        Self {
            link,
            settings,
            upload_ended: upload.is_none(),
            upload,
            waiting: Bytes::new(),
            download: Download::Head(response),
            last_progress: Instant::now(),
            interim: 0,
        }
    }

    /// Runs until the response has ended. `true` when the request had ended too, so that the HTTP/2 stream is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it resets the HTTP/2 stream.
    pub(super) async fn run(
        mut self,
        record: &mut Record<'_>,
        opened: Instant,
        on_head: impl Fn(Instant),
    ) -> Result<bool, Failure> {
        let mut sleep = pin!(tokio::time::sleep(self.patience()));
        let result = std::future::poll_fn(|cx| {
            let polled = self.poll(cx, record, opened, &on_head);
            if polled.is_ready() {
                return polled;
            }
            self.poll_timeout(cx, sleep.as_mut()).map(Err)
        })
        .await;
        match result {
            Ok(()) => Ok(self.end()),
            Err(error) => Err(Failure {
                error,
                head_sent: !matches!(self.download, Download::Head(_)),
                death: None,
            }),
        }
    }

    /// The response is complete. A request that is not is not wanted any more (RFC 9113 §8.1).
    fn end(mut self) -> bool {
        if let Some(mut upload) = self.upload.take() {
            upload.send_reset(Reason::NO_ERROR);
        }
        self.upload_ended
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        record: &mut Record<'_>,
        opened: Instant,
        on_head: &impl Fn(Instant),
    ) -> Poll<Result<(), ProxyError>> {
        self.link.register(cx);
        if let Some(kind) = self.link.failure() {
            return Poll::Ready(Err(ProxyError::new(kind)));
        }
        let mut moved = false;
        while let Step::Progress = self.poll_upload(cx, record)? {
            moved = true;
        }
        loop {
            let step = match &mut self.download {
                Download::Head(_) => self.poll_head(cx, record, opened, on_head)?,
                Download::Body(_) => self.poll_body(cx, record, &mut moved)?,
                Download::Over => return Poll::Ready(Ok(())),
            };
            match step {
                Step::Progress => moved = true,
                Step::Wait => break,
            }
        }
        if moved {
            self.last_progress = Instant::now();
        }
        Poll::Pending
    }

    // === request ===

    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        record: &mut Record<'_>,
    ) -> Result<Step, ProxyError> {
        let Some(upload) = &mut self.upload else { return Ok(Step::Wait) };
        if !self.waiting.is_empty() {
            return Ok(self.push_waiting(cx, record));
        }
        let next = match self.link.poll_request() {
            Poll::Ready(next) => next.map_err(ProxyError::new)?,
            Poll::Pending => {
                // Nobody would tell otherwise that the backend wants no more.
                if upload.poll_reset(cx).is_ready() {
                    self.upload = None;
                }
                return Ok(Step::Wait);
            }
        };
        // A failed send is the response's to report: it knows whether the backend refused, reset or broke.
        match next {
            Inbound::Data(data) => {
                let length = record.request_bytes.saturating_add(data.len() as u64);
                if length > record.request_body_max {
                    return Err(ProxyError::new(Kind::BodyTooLarge));
                }
                self.waiting = data;
                return Ok(self.push_waiting(cx, record));
            }
            Inbound::Trailers(trailers) => {
                let _ = upload.send_trailers(trailers);
            }
            Inbound::End => {
                let _ = upload.send_data(Bytes::new(), true);
            }
        }
        self.upload = None;
        self.upload_ended = true;
        Ok(Step::Progress)
    }

    /// Sends as much of the waiting piece as the backend's windows allow.
    fn push_waiting(&mut self, cx: &mut Context<'_>, record: &mut Record<'_>) -> Step {
        let Some(upload) = &mut self.upload else { return Step::Wait };
        upload.reserve_capacity(self.waiting.len());
        let mut capacity = upload.capacity();
        while capacity == 0 {
            match upload.poll_capacity(cx) {
                Poll::Ready(Some(Ok(granted))) => capacity = granted,
                Poll::Ready(Some(Err(_)) | None) => {
                    self.upload = None;
                    return Step::Wait;
                }
                Poll::Pending => return Step::Wait,
            }
        }
        let piece = self.waiting.split_to(capacity.min(self.waiting.len()));
        record.request_bytes += piece.len() as u64;
        if upload.send_data(piece, false).is_err() {
            self.upload = None;
            return Step::Wait;
        }
        Step::Progress
    }

    // === response ===

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        record: &mut Record<'_>,
        opened: Instant,
        on_head: &impl Fn(Instant),
    ) -> Result<Step, ProxyError> {
        let Download::Head(response) = &mut self.download else { return Ok(Step::Wait) };
        if let Poll::Ready(Some(informational)) = response.poll_informational(cx) {
            let (parts, ()) = informational.map_err(|error| classify(&error))?.into_parts();
            // 101 has no meaning in HTTP/2 and HTTP/3 (RFC 9113 §8.6, RFC 9114 §4.5).
            self.interim += 1;
            if parts.status == StatusCode::SWITCHING_PROTOCOLS || self.interim > INTERIM_MAX {
                return Err(ProxyError::new(Kind::UpstreamProtocol));
            }
            // Something was answered.
            self.link.forget_request();
            self.link.send(Outbound::Informational(parts.status, parts.headers));
            return Ok(Step::Progress);
        }
        let Poll::Ready(head) = Pin::new(response).poll(cx) else { return Ok(Step::Wait) };
        let head: Response<RecvStream> = head.map_err(|error| classify(&error))?;
        self.link.forget_request();
        let now = Instant::now();
        on_head(now);
        record.first_byte = Some(now.saturating_duration_since(opened));
        record.status = Some(head.status().as_u16());
        let (parts, body) = head.into_parts();
        let over = body.is_end_stream();
        self.link.send(Outbound::Head(parts.status, parts.headers, over));
        self.download = if over { Download::Over } else { Download::Body(body) };
        Ok(Step::Progress)
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        record: &mut Record<'_>,
        moved: &mut bool,
    ) -> Result<Step, ProxyError> {
        let Download::Body(body) = &mut self.download else { return Ok(Step::Wait) };
        let accepted = self.link.take_accepted();
        if accepted > 0 {
            // An error means that the stream is over: nothing is left to open a window for.
            let _ = body.flow_control().release_capacity(accepted);
            *moved = true;
        }
        if !self.link.has_response_room() {
            return Ok(Step::Wait);
        }
        match body.poll_data(cx) {
            Poll::Pending => Ok(Step::Wait),
            Poll::Ready(Some(Ok(data))) => {
                record.response_bytes += data.len() as u64;
                if !data.is_empty() {
                    self.link.send(Outbound::Data(data));
                }
                Ok(Step::Progress)
            }
            Poll::Ready(Some(Err(error))) => Err(classify(&error)),
            Poll::Ready(None) => self.poll_trailers(cx),
        }
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Result<Step, ProxyError> {
        let Download::Body(body) = &mut self.download else { return Ok(Step::Wait) };
        let Poll::Ready(trailers) = body.poll_trailers(cx) else { return Ok(Step::Wait) };
        let trailers = trailers.map_err(|error| classify(&error))?;
        self.link.send(match trailers {
            Some(mut trailers) => {
                field::strip_trailers(&mut trailers);
                Outbound::Trailers(trailers)
            }
            None => Outbound::End,
        });
        self.download = Download::Over;
        Ok(Step::Progress)
    }

    // === time ===

    /// How long nothing may move.
    fn patience(&self) -> Duration {
        match self.download {
            Download::Head(_) => self.settings.response_header_timeout,
            Download::Body(_) | Download::Over => self.settings.stream_idle_timeout,
        }
    }

    fn poll_timeout(&self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<ProxyError> {
        // A body may stand still for less time than its head may take.
        let due = (self.last_progress + self.patience()).into();
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            let due = self.last_progress + self.patience();
            if due <= Instant::now() {
                return Poll::Ready(ProxyError::new(match self.download {
                    Download::Head(_) => Kind::ResponseHeaderTimeout,
                    Download::Body(_) | Download::Over => Kind::StreamIdle,
                }));
            }
            // Moved by progress since it was set: set again, once for each expiry and not for each octet.
            sleep.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}
